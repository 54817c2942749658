//! The container image of docker/Dockerfile, built for real and run as CodeBuild runs it: with SYS_ADMIN and loop devices.
//! The program in it is the suite's own, so that nothing is compiled. Built by buildah; run by docker where one answers,
//! and else by buildah itself.

#![expect(clippy::disallowed_methods, reason = "the builder is started here as a user starts it")]

#[cfg(feature = "aws")]
mod buildspec;
mod packages;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::gate;
use crate::yard::{Said, Yard, loops, repository};

const IMAGE: &str = "localhost/bakehouse-suite:test";
/// Made by `tests/container/bases`.
const BASE: &str = "localhost/bakehouse-debian:bookworm-slim";
/// MiB that the smallest target may be larger than its base, unpacked: 200 MB.
const ROOM: u64 = 190;
/// MiB of them that are kept for the program with the SDK and the provisioner, which the suite need not have compiled
/// (docker/README.md).
const PROGRAM: u64 = 58;

/// Builds the image once; `None` where this machine cannot.
fn image() -> Option<&'static str> {
    static BUILT: OnceLock<()> = OnceLock::new();
    if !gate::has_root(&["buildah", "mmdebstrap", "strip"]) {
        return None;
    }
    BUILT.get_or_init(|| {
        let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("container").join("bakehouse");
        fs::create_dir_all(binary.parent().unwrap()).unwrap();
        done(Command::new("strip").arg("-o").arg(&binary).arg(env!("CARGO_BIN_EXE_bakehouse")));
        done(&mut Command::new(repository().join("tests/container/bases")));
        let mut build = Command::new(repository().join("scripts/image"));
        build.env("DEBIAN", BASE).env_remove("BUILDER");
        done(build.args(["--tool", "buildah", "--tag", IMAGE, "--binary"]).arg(&binary));
        if docker() {
            done(
                Command::new("buildah")
                    .args(["push", "--quiet", IMAGE])
                    .arg(format!("docker-daemon:{IMAGE}")),
            );
        }
    });
    Some(IMAGE)
}

/// The files of the image, as a folder that nobody writes to.
#[cfg(feature = "aws")]
pub(crate) fn files() -> Option<&'static Path> {
    static UNPACKED: OnceLock<std::path::PathBuf> = OnceLock::new();
    let image = image()?;
    Some(UNPACKED.get_or_init(|| {
        let files = Path::new(env!("CARGO_TARGET_TMPDIR")).join("container/files");
        let _ = fs::remove_dir_all(&files);
        let container = text(Command::new("buildah").args(["from", image]));
        let root = text(Command::new("buildah").args(["mount", &container]));
        done(Command::new("cp").args(["--archive", &root]).arg(&files));
        done(Command::new("buildah").args(["rm", &container]));
        files
    }))
}

fn docker() -> bool {
    Command::new("docker").arg("info").output().is_ok_and(|said| said.status.success())
}

#[track_caller]
fn done(command: &mut Command) -> Output {
    let said = command.output().unwrap();
    assert!(said.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said.stderr));
    said
}

fn text(command: &mut Command) -> String {
    String::from_utf8(done(command).stdout).unwrap().trim().to_owned()
}

/// A command in a container that sees `folder` at its own path, with `env` and nothing else of this machine's.
fn run(folder: &Path, env: &[(String, String)], command: &[&str]) -> Said {
    let shared = format!("{0}:{0}", folder.display());
    if docker() {
        let mut docker = Command::new("docker");
        docker.args(["run", "--rm", "--network", "host", "--cap-add", "SYS_ADMIN"]);
        // Loop devices, and their control; what the profiles of a distribution's docker forbid besides is mounting.
        docker.args(["--device-cgroup-rule", "b 7:* rmw", "--device-cgroup-rule", "c 10:237 rmw"]);
        docker.args(["--security-opt", "apparmor=unconfined", "--security-opt", "seccomp=unconfined"]);
        docker.args(["--volume", "/dev:/dev", "--volume", &shared]);
        for (name, value) in env {
            docker.arg("--env").arg(format!("{name}={value}"));
        }
        return docker.arg(IMAGE).args(command).output().unwrap().into();
    }
    let container = text(Command::new("buildah").args(["from", IMAGE]));
    let mut buildah = Command::new("buildah");
    // MKNOD, which docker gives by itself: a root's /dev is made in the bake.
    buildah.args(["run", "--isolation", "chroot", "--cap-add", "CAP_SYS_ADMIN,CAP_MKNOD"]);
    buildah.args(["--volume", "/dev:/dev", "--volume", &shared]);
    for (name, value) in env {
        buildah.arg("--env").arg(format!("{name}={value}"));
    }
    let said = buildah.arg(&container).args(command).output().unwrap();
    done(Command::new("buildah").args(["rm", &container]));
    said.into()
}

/// MiB of the files of an image.
fn size(image: &str) -> u64 {
    let container = text(Command::new("buildah").args(["from", image]));
    let root = text(Command::new("buildah").args(["mount", &container]));
    let said = text(
        Command::new("du")
            .args(["--summarize", "--one-file-system", "--apparent-size", "--block-size=1M"])
            .arg(root),
    );
    done(Command::new("buildah").args(["rm", &container]));
    said.split_whitespace().next().unwrap().parse().unwrap()
}

/// CodeBuild starts a shell of the image's, and fails where there is an entry point. Everything that `direct` and
/// `scratch` call is there, by the list that the errors of missing programs are made from.
#[test]
fn the_image_has_a_shell_no_entry_point_and_every_program_that_is_called() {
    let Some(image) = image() else { return };
    let config = "{{.OCIv1.Config.Entrypoint}}";
    assert_eq!(
        text(Command::new("buildah").args(["inspect", "--type", "image", "--format", config, image])),
        "[]"
    );
    let sources = fs::read_to_string(repository().join("src/host/exec.rs")).unwrap();
    let table = sources.split("const HINTS").nth(1).unwrap().split("];").next().unwrap();
    // Those of the other targets, and of nothing that is done in a build.
    let elsewhere = ["qemu-system-x86_64", "ansible-playbook", "xorriso"];
    let programs: Vec<&str> = table
        .lines()
        .filter_map(|line| line.trim().strip_prefix("(\"")?.split('"').next())
        .filter(|program| !elsewhere.contains(program))
        .collect();
    assert!(programs.len() > 20, "{programs:?}");
    let script = format!(
        "for program in {}; do command -v $program >/dev/null || echo missing: $program; done; \
         test -s /etc/ssl/certs/ca-certificates.crt || echo missing: certificates; bakehouse --version",
        programs.join(" ")
    );
    let yard = Yard::new();
    let said = run(yard.path(), &[], &["sh", "-c", &script]).ok();
    assert_eq!(said.out.trim(), format!("bakehouse {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_smallest_target_is_small() {
    let Some(image) = image() else { return };
    let program =
        fs::metadata(Path::new(env!("CARGO_TARGET_TMPDIR")).join("container/bakehouse")).unwrap().len();
    let tools = size(image) - size(BASE) - program.div_ceil(1 << 20);
    assert!(tools + PROGRAM < ROOM, "{tools} MiB of tools and {PROGRAM} MiB of Bakehouse");
}

/// A whole direct bake in a container, of the small base in the local cloud.
#[test]
fn a_container_bakes_by_the_direct_method() {
    if image().is_none() {
        return;
    }
    let Some(yard) = Yard::small_on_disk() else { return };
    let env = [
        ("BAKEHOUSE_LOCAL".to_owned(), yard.store().display().to_string()),
        ("BAKEHOUSE_WORK".to_owned(), yard.work().display().to_string()),
    ];
    let recipe = yard.path().join("direct");
    let said = run(yard.path(), &env, &["bakehouse", "bake", recipe.to_str().unwrap()]).ok();
    let record = yard.record("direct");
    assert_eq!(record["method"], "direct");
    assert_eq!(record["images"][0]["image"].as_str().unwrap(), said.out.trim());
    // 2 MB of it were written by a step.
    assert!(record["disk"]["changed-blocks"].as_u64().unwrap() >= 4, "{record}");
    // What it baked is read here as anything that was baked here.
    yard.run(&["test", recipe.to_str().unwrap(), "--no-boot"]).ok();
    yard.assert_nothing_left();
    assert!(!loops().iter().any(|file| Path::new(file).starts_with(yard.path())));
}

/// The same on AWS, as far as the stand-in is it: all that the container has of the cloud is its environment.
#[cfg(feature = "aws")]
#[test]
fn a_container_bakes_on_aws_by_the_direct_method() {
    if image().is_none() {
        return;
    }
    let Some(yard) = Yard::small_on_disk() else { return };
    let cloud = crate::aws::StandIn::start();
    let disk = yard.path().join("scratch/disk.raw");
    let (base, parent) = cloud
        .seed_image(cloud.account(), serde_json::json!({ "name": "small", "disk": disk, "holes": true }));
    let steps = "provision:\n  - shell: { run: 'echo made >/etc/by' }\n";
    let recipe = crate::yard::small::recipe("contained", &format!("{{ image: {base} }}"), steps);
    let folder = yard.recipe("contained", &recipe);
    let mut env: Vec<(String, String)> =
        cloud.environment().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    env.push(("BAKEHOUSE_WORK".to_owned(), yard.work().display().to_string()));
    env.push(("BAKEHOUSE_AWS_SETTLES".to_owned(), "1s".to_owned()));
    let said = run(yard.path(), &env, &["bakehouse", "bake", folder.to_str().unwrap()]).ok();
    let made = said.out.trim().to_owned();
    let state = cloud.state();
    assert!(state["images"][&made].is_object(), "{made} is not in {state}");
    assert!(cloud.operations().iter().any(|name| name == "ebs:PutSnapshotBlock"));
    let record = yard.record("contained");
    assert_eq!(record["base"]["image"]["snapshot"].as_str(), Some(parent.as_str()), "{record}");
    yard.assert_nothing_left();
    cloud.finish();
}
