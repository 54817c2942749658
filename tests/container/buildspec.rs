//! buildspec.yml: that every command of it is bash, and that its last phase pushes for real, to a registry of this machine
//! with ECR's name, by the credentials that a build of CodeBuild has (`codebuild.py` says how). Nothing is compiled: the
//! images are the suite's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::{IMAGE, done, image, text};
use crate::aws::python;
use crate::gate;
use crate::yard::{Said, repository};

const REPOSITORY: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com/bakehouse";

fn codebuild() -> Command {
    let mut command = Command::new(python());
    command.arg(repository().join("tests/container/codebuild.py")).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// The last phase, with images of these names and the docker of the tests; what came of it, and what it said.
fn post_build(name: &str, more: &[&str]) -> (Value, String) {
    let mut command = codebuild();
    command.args(["--phase", "post_build", "--variable", &format!("NAME={name}")]);
    command.arg("--docker").arg(repository().join("tests/container")).args(more);
    let said = Said::from(command.output().unwrap()).ok();
    (serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}", said.out)), said.err)
}

/// Debian's registry, unpacked and not installed: its package would start it as a service.
fn registry() -> &'static Path {
    static UNPACKED: OnceLock<PathBuf> = OnceLock::new();
    UNPACKED.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("container/registry");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let script = "apt-get download -qq docker-registry || { apt-get update -qq; apt-get download -qq docker-registry; }\n\
                      dpkg-deb --extract docker-registry_*.deb .";
        done(Command::new("bash").args(["-euc", script]).current_dir(&folder));
        folder.join("usr/bin/docker-registry")
    })
}

#[test]
fn every_command_of_the_buildspec_is_bash() {
    let commands: Value = serde_json::from_str(&text(codebuild().arg("--check"))).unwrap();
    assert!(commands["build"].as_array().unwrap().len() > 3, "{commands}");
    assert!(commands["post_build"].to_string().contains("scripts/image-push"), "{commands}");
}

#[test]
fn a_build_pushes_every_target_and_tells_the_digest_that_the_registry_has() {
    if image().is_none() || !gate::has_root(&["apt-get", "curl", "openssl", "perl", "unshare"]) {
        return;
    }
    let suite = IMAGE.split_once(':').unwrap().0;
    for target in ["bakehouse", "ansible", "qemu"] {
        done(Command::new("buildah").args(["tag", IMAGE, &format!("{suite}:{target}")]));
    }
    let registry = registry().to_str().unwrap();
    let (said, err) = post_build(suite, &["--registry", registry]);
    assert_eq!(said["phases"], json!({ "post_build": "SUCCEEDED" }), "{err}");
    assert_eq!(said["findings"], json!([]));
    // As CodeBuild gives them, and not by keys in the environment.
    assert!(said["credentials-asked"].as_u64().unwrap() >= 3, "{said}");
    let uri = said["exported"]["IMAGE_URI"].as_str().unwrap();
    let machine = text(Command::new("uname").arg("-m"));
    assert_eq!(uri, format!("{REPOSITORY}:{}-0123456789ab-7-{machine}", env!("CARGO_PKG_VERSION")));
    let digest = said["exported"]["IMAGE_DIGEST"].as_str().unwrap();
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{digest}");
    let stored = said["registry"].as_object().unwrap();
    assert_eq!(stored[uri], digest);
    let mut names: Vec<_> = stored.keys().map(|name| name.strip_prefix(uri).unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["", "-ansible", "-qemu"]);
    assert!(err.contains(&format!("pushed {uri}@{digest}")), "{err}");
    let calls = said["operations"].to_string();
    assert!(calls.contains("ecr:CreateRepository"), "{calls}");
}

#[test]
fn a_build_that_failed_or_cannot_push_tells_no_digest() {
    if image().is_none() || !gate::has_root(&["apt-get", "curl", "openssl", "perl", "unshare"]) {
        return;
    }
    let (said, err) = post_build("none", &["--variable", "CODEBUILD_BUILD_SUCCEEDING=0"]);
    assert_eq!((&said["phases"]["post_build"], &said["exported"]), (&json!("FAILED"), &json!({})), "{err}");
    assert!(!err.contains("image-push"), "{err}");
    // One of the three is missing.
    let name = format!("{}-lacks", IMAGE.split_once(':').unwrap().0);
    done(Command::new("buildah").args(["tag", IMAGE, &format!("{name}:bakehouse")]));
    let (said, err) = post_build(&name, &["--registry", registry().to_str().unwrap()]);
    assert_eq!((&said["phases"]["post_build"], &said["exported"]), (&json!("FAILED"), &json!({})), "{err}");
    assert!(err.contains(&format!("no image {name}:ansible is here")), "{err}");
    assert_eq!(said["registry"], json!({}));
}
