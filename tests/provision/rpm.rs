//! Steps on a root whose packages are rpm's, with each of its package managers.

use std::path::Path;

use bakehouse::acceptance::{Script, Status, find_answer, static_checks};
use bakehouse::host::exec::Cmd;
use bakehouse::host::root_dir::RootDir;
use bakehouse::host::stop::Stop;
use bakehouse::provision::{ChrootRoot, EspAccess, Installed, PackageFormat, Root, RootCommand, installed};
use bakehouse::recipe::Check;
use serde_json::json;

use super::repository::{self, Package};
use super::roots::{Recipe, chain, enter, rpm, sh, unmount};
use crate::gate;

/// A root's distribution, as its os-release has it.
const ROCKY: &str = "ID=rocky\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.4\"\n";
const SUSE: &str = "ID=opensuse-leap\nID_LIKE=\"suse opensuse\"\nVERSION_ID=\"15.6\"\n";
const AMAZON: &str = "ID=amzn\nID_LIKE=fedora\nVERSION_ID=\"2023\"\n";

fn possible() -> bool {
    let mut tools = vec!["unshare", "mmdebstrap", "tar", "rpm"];
    tools.extend(repository::TOOLS);
    gate::has_root(&tools)
}

/// The packages that every test begins with. rpm's scripts need /bin/sh to be a package's.
const SOURCE: [Package<'_>; 12] = [
    Package("shell", "1-1", "Provides: /bin/sh\n"),
    Package(
        "app",
        "1-1",
        "Epoch: 2\nRequires: lib\n%install\nmkdir -p %{buildroot}/etc; echo 1 >%{buildroot}/etc/app.conf\n%files\n%config(noreplace) /etc/app.conf\n",
    ),
    Package(
        "app",
        "2-1",
        "Epoch: 2\nRequires: lib\n%install\nmkdir -p %{buildroot}/etc; echo 2 >%{buildroot}/etc/app.conf\n%files\n%config(noreplace) /etc/app.conf\n",
    ),
    Package("lib", "1-1", ""),
    Package("lib", "2-1", ""),
    Package("old", "1-1", ""),
    Package("new", "2-1", "Provides: old = %{version}\nObsoletes: old < 2\n"),
    Package("shim-signed", "1-1", ""),
    Package("shim-signed", "2-1", ""),
    Package("script-after", "1-1", "%post\nexit 3\n"),
    Package("script-before", "1-1", "%pre\ntest -e /var/tried && exit\ntouch /var/tried; exit 3\n"),
    Package(
        "large",
        "1-1",
        "%install\nmkdir -p %{buildroot}/opt; head -c 8000000 /dev/urandom >%{buildroot}/opt/large\n%files\n/opt/large\n",
    ),
];

/// A root with a source of packages, and the base's packages installed.
async fn root_with_source(os_release: &str) -> tempfile::TempDir {
    let dir = rpm().await;
    let at = |path: &str| dir.path().join(path);
    std::fs::remove_file(at("etc/os-release")).unwrap();
    std::fs::write(at("etc/os-release"), os_release).unwrap();
    repository::build(&at("srv/source"), &SOURCE).await;
    repository::index(&at("srv/source"), &["lib 2-1"]).await;
    add_source(dir.path(), "source", "file:///srv/source");
    dir
}

fn add_source(root: &Path, name: &str, url: &str) {
    let text = format!("[{name}]\nname={name}\nbaseurl={url}\ngpgcheck=0\nenabled=1\n");
    for folder in ["etc/yum.repos.d", "etc/zypp/repos.d"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
        std::fs::write(root.join(folder).join(format!("{name}.repo")), &text).unwrap();
    }
}

async fn list(root: &Path) -> Installed {
    installed(&RootDir::open(root).unwrap(), &Stop::never()).await.unwrap()
}

/// Of all versions of a package.
fn versions(of: &Installed, name: &str) -> String {
    let found = of.packages.iter().filter(|package| package.name == name);
    found.map(|package| package.version.as_str()).collect::<Vec<_>>().join(" ")
}

async fn run(recipe: &Recipe, root: &ChrootRoot, steps: serde_json::Value) {
    recipe.run(root, steps).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
}

/// The way of a package manager through all that recipes ask of it. `base` names the versions to begin with.
async fn whole_way(dir: &Path, program: &str, base: &[&str]) {
    let root = enter(dir).await;
    assert_eq!(root.facts().package_manager.unwrap().program(), program);
    let recipe = Recipe::new();
    run(&recipe, &root, json!([{"packages": {"install": base}}])).await;
    sh(&root, "echo changed >/etc/app.conf").await;

    // Exactly what the advisory is about.
    run(&recipe, &root, json!([{"update": "security"}])).await;
    let found = list(dir).await;
    let of = |names: [&str; 4]| names.map(|name| versions(&found, name));
    assert_eq!(of(["app", "lib", "old", "shim-signed"]), ["2:1-1", "2-1", "1-1", "1-1"]);
    assert_eq!((found.system.packages, found.system.release.is_empty()), (Some(PackageFormat::Rpm), false));

    // All but what is held, while it is held.
    run(&recipe, &root, json!([{"update": "all"}])).await;
    let found = list(dir).await;
    let of = |names: [&str; 5]| names.map(|name| versions(&found, name));
    assert_eq!(of(["app", "lib", "old", "new", "shim-signed"]), ["2:2-1", "2-1", "", "2-1", "1-1"]);
    assert!(recipe.shown.text().contains("held at the base's version"), "{}", recipe.shown.text());
    assert_eq!(std::fs::read_to_string(dir.join("etc/app.conf")).unwrap(), "changed\n");
    let mut open = Recipe::new();
    open.context.esp = EspAccess::Full;
    run(&open, &root, json!([{"update": "all"}])).await;
    assert_eq!(versions(&list(dir).await, "shim-signed"), "2-1");

    // A file of the recipe's, with what it depends on, and one of the wrong kind.
    run(&recipe, &root, json!([{"packages": {"remove": ["lib"]}}])).await;
    assert_eq!(versions(&list(dir).await, "app"), "");
    std::fs::copy(dir.join("srv/source/app-2-1.noarch.rpm"), recipe.folder.path().join("app.rpm")).unwrap();
    recipe.write("app.deb", "");
    run(&recipe, &root, json!([{"packages": {"files": ["*.rpm"]}}])).await;
    let found = list(dir).await;
    assert_eq!([versions(&found, "app"), versions(&found, "lib")], ["2:2-1", "2-1"]);
    let text = chain(&recipe.run(&root, json!([{"packages": {"files": ["app.deb"]}}])).await.unwrap_err());
    assert!(text.contains(&format!("is not a .rpm file, which is what {program} installs")), "{text}");

    // A script that fails after its package is installed is told; one that fails before is an error, and mends itself
    // at the second try here.
    run(&recipe, &root, json!([{"packages": {"install": ["script-after"]}}])).await;
    let shown = recipe.shown.text();
    assert!(
        shown.contains("Warning") && shown.contains("%post(script-after-1-1.noarch) scriptlet failed"),
        "{shown}"
    );
    let before = json!({"packages": {"install": ["script-before"]}});
    let text = chain(&recipe.run(&root, json!([before])).await.unwrap_err());
    assert!(text.contains(&format!("`{program} install` failed")) && text.contains("%prein"), "{text}");
    std::fs::remove_file(dir.join("var/tried")).unwrap();
    let again = json!({"packages": {"install": ["script-before"], "retries": 1}});
    run(&recipe, &root, json!([again])).await;
    assert_eq!(versions(&list(dir).await, "script-before"), "1-1");

    // What cannot be.
    let names = json!([{"packages": {"install": ["lib", "no-such-package"]}}]);
    let text = chain(&recipe.run(&root, names).await.unwrap_err());
    assert!(
        text.contains("no package source of the image has it") && text.contains("no-such-package"),
        "{text}"
    );
    run(&recipe, &root, json!([{"packages": {"remove": ["no-such-package"]}}])).await;
    let release = json!([{"update": {"scope": "all", "release": "2023.6.20241212"}}]);
    let text = chain(&recipe.run(&root, release).await.unwrap_err());
    assert!(text.contains("is a release of Amazon Linux 2023, and the root is"), "{text}");
    root.leave().await.unwrap();

    let folder = dir.join("opt");
    let mount = Cmd::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(&folder);
    mount.run(&Stop::never()).await.unwrap();
    let root = enter(dir).await;
    let full = recipe.run(&root, json!([{"packages": {"install": ["large"]}}])).await;
    root.leave().await.unwrap();
    unmount(&folder).await;
    let text = chain(&full.unwrap_err());
    assert!(text.contains("the image's disk is full: set a larger `disk.size`"), "{text}");

    // Nobody listens at port 9 of this machine.
    add_source(dir, "away", "http://127.0.0.1:9/source");
    let root = enter(dir).await;
    let text = chain(&recipe.run(&root, json!([{"packages": {"install": ["lib"]}}])).await.unwrap_err());
    assert!(text.contains("is the network there?"), "{text}");
    root.leave().await.unwrap();
}

const BASE: [&str; 5] = ["shell-1-1", "app-1-1", "lib-1-1", "old-1-1", "shim-signed-1-1"];

#[tokio::test]
async fn dnf_does_what_recipes_ask_of_it() {
    if !possible() {
        return;
    }
    let dir = root_with_source(ROCKY).await;
    let config = std::fs::read(dir.path().join("etc/dnf/dnf.conf")).unwrap();
    whole_way(dir.path(), "dnf", &BASE).await;
    assert_eq!(std::fs::read(dir.path().join("etc/dnf/dnf.conf")).unwrap(), config);
}

#[tokio::test]
async fn zypper_does_what_recipes_ask_of_it() {
    if !possible() {
        return;
    }
    let dir = root_with_source(SUSE).await;
    let base = BASE.map(|name| name.replacen("-1-1", "=1-1", 1).replace("app=", "app=2:"));
    whole_way(dir.path(), "zypper", &base.each_ref().map(String::as_str)).await;

    // A distribution without releases is updated as a whole.
    for folder in ["etc/yum.repos.d", "etc/zypp/repos.d"] {
        std::fs::remove_file(dir.path().join(folder).join("away.repo")).unwrap();
    }
    std::fs::write(dir.path().join("etc/os-release"), "ID=opensuse-tumbleweed\nID_LIKE=\"opensuse suse\"\n")
        .unwrap();
    let root = enter(dir.path()).await;
    let recipe = Recipe::new();
    run(&recipe, &root, json!([{"update": "all"}])).await;
    assert!(recipe.shown.text().contains("distribution upgrade"), "{}", recipe.shown.text());
    root.leave().await.unwrap();
}

/// yum 3 is in no package here: this is dnf under its name, which takes the same words.
#[tokio::test]
async fn yums_words_are_understood() {
    if !possible() {
        return;
    }
    let dir = root_with_source("ID=centos\nID_LIKE=\"rhel fedora\"\nVERSION_ID=\"7\"\n").await;
    let bin = dir.path().join("usr/bin");
    std::fs::remove_file(bin.join("dnf")).unwrap();
    std::fs::remove_file(bin.join("yum")).ok();
    std::os::unix::fs::symlink("dnf-3", bin.join("yum")).unwrap();
    // What yum's own configuration is, dnf takes for an older name of its own.
    let config = dir.path().join("etc/dnf/dnf.conf");
    std::fs::write(&config, "[main]\ngpgcheck=1\n").unwrap();
    std::os::unix::fs::symlink("/etc/dnf/dnf.conf", dir.path().join("etc/yum.conf")).unwrap();
    whole_way(dir.path(), "yum", &BASE).await;
}

#[tokio::test]
async fn sources_without_advisories_are_told_and_a_stop_ends_what_was_started() {
    if !possible() {
        return;
    }
    let dir = root_with_source(ROCKY).await;
    let slow = Package("slow", "1-1", "%post\ntouch /var/started; sleep 4711\n");
    repository::build(&dir.path().join("srv/source"), &[slow]).await;
    repository::index(&dir.path().join("srv/source"), &[]).await;
    let root = enter(dir.path()).await;
    let mut recipe = Recipe::new();
    run(&recipe, &root, json!([{"update": "security"}])).await;
    let shown = recipe.shown.text();
    assert!(shown.contains("dnf knows of no security update for any package of the image"), "{shown}");

    let stop = Stop::never();
    recipe.context.stop = stop.clone();
    let started = dir.path().join("var/started");
    let watch = async {
        while !started.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        stop.request(libc::SIGTERM);
    };
    let steps = json!([{"packages": {"install": ["shell", "slow"]}}]);
    let (result, ()) = tokio::join!(recipe.run(&root, steps), watch);
    assert!(chain(&result.unwrap_err()).contains("a stop was asked for"));
    assert_eq!(root.left_over().unwrap(), Vec::<String>::new());
    root.leave().await.unwrap();
}

#[tokio::test]
async fn an_update_for_security_of_a_held_package_is_left_out_or_told() {
    if !possible() {
        return;
    }
    // As Red Hat's packages of a boot loader, this one needs exactly its version of another.
    let more = [
        Package("grub-efi-amd64", "1-1", "Requires: app = 2:1\n"),
        Package("grub-efi-amd64", "2-1", "Requires: app = 2:2\n"),
    ];
    for (os_release, version) in [(ROCKY, "-1-1"), (SUSE, "=1-1")] {
        let dir = root_with_source(os_release).await;
        repository::build(&dir.path().join("srv/source"), &more).await;
        repository::index(&dir.path().join("srv/source"), &["lib 2-1", "shim-signed 2-1"]).await;
        // As Red Hat has it.
        let config = dir.path().join("etc/dnf/dnf.conf");
        std::fs::write(&config, "[main]\nbest=True\n").unwrap();
        let root = enter(dir.path()).await;
        let recipe = Recipe::new();
        let names =
            ["shell", "lib", "old", "shim-signed", "grub-efi-amd64"].map(|name| format!("{name}{version}"));
        run(&recipe, &root, json!([{"packages": {"install": names}}])).await;
        let updated = recipe.run(&root, json!([{"update": "security"}])).await;
        if os_release == SUSE {
            let text = chain(&updated.unwrap_err());
            assert!(text.contains("held at its version, or what that needs: `update: all`"), "{text}");
        } else {
            updated.unwrap_or_else(|error| panic!("{}", chain(&error)));
            assert_eq!(versions(&list(dir.path()).await, "lib"), "2-1");
        }
        run(&recipe, &root, json!([{"update": "all"}])).await;
        let found = list(dir.path()).await;
        let of = ["lib", "new", "app", "shim-signed", "grub-efi-amd64"].map(|name| versions(&found, name));
        assert_eq!(of, ["2-1", "2-1", "2:1-1", "1-1", "1-1"], "{os_release}");
        assert_eq!(std::fs::read_to_string(&config).unwrap(), "[main]\nbest=True\n");
        root.leave().await.unwrap();
    }
}

/// The releases of Amazon Linux 2023: a folder each, whose package system-release names it, and the newest again as
/// `latest`.
async fn releases(root: &Path) {
    for (folder, release) in [
        ("2023.5.20240101", "2023.5.20240101"),
        ("2023.6.20241212", "2023.6.20241212"),
        ("latest", "2023.7.20250101"),
    ] {
        let at = root.join("srv").join(folder);
        let version = format!("{release}-0.amzn2023");
        let spec = format!(
            "Provides: system-release(releasever) = {release}\n%install\nmkdir -p %{{buildroot}}/etc/dnf/vars\n\
             echo {release} >%{{buildroot}}/etc/dnf/vars/releasever\n%files\n/etc/dnf/vars/releasever\n"
        );
        let number = release.split('.').nth(1).unwrap();
        let lib = format!("{number}-1");
        repository::build(&at, &[Package("system-release", &version, &spec), Package("lib", &lib, "")]).await;
        repository::index(&at, &[&format!("lib {lib}")]).await;
    }
    std::os::unix::fs::symlink("latest", root.join("srv/2023.7.20250101")).unwrap();
}

#[tokio::test]
async fn amazon_linux_goes_to_the_newest_release_or_to_the_one_that_is_named() {
    if !possible() {
        return;
    }
    let dir = rpm().await;
    std::fs::remove_file(dir.path().join("etc/os-release")).unwrap();
    std::fs::write(dir.path().join("etc/os-release"), AMAZON).unwrap();
    releases(dir.path()).await;
    add_source(dir.path(), "amazonlinux", "file:///srv/$releasever");
    std::fs::create_dir_all(dir.path().join("etc/dnf/vars")).unwrap();
    std::fs::write(dir.path().join("etc/dnf/vars/releasever"), "2023.5.20240101\n").unwrap();
    let root = enter(dir.path()).await;
    let recipe = Recipe::new();
    let state = async || {
        let found = list(dir.path()).await;
        (versions(&found, "lib"), found.system.release)
    };
    run(&recipe, &root, json!([{"packages": {"install": ["system-release", "lib"]}}])).await;
    assert_eq!(state().await, ("5-1".into(), "2023.5.20240101".into()));
    // Only what an advisory of the named release is about; the image stays on its own.
    let named = |scope: &str| json!([{"update": {"scope": scope, "release": "2023.6.20241212"}}]);
    run(&recipe, &root, named("security")).await;
    assert_eq!(state().await, ("6-1".into(), "2023.5.20240101".into()));
    run(&recipe, &root, named("all")).await;
    assert_eq!(state().await, ("6-1".into(), "2023.6.20241212".into()));
    run(&recipe, &root, json!([{"update": "all"}])).await;
    assert_eq!(state().await, ("7-1".into(), "2023.7.20250101".into()));
    // One that was never released.
    let none = json!([{"update": {"scope": "all", "release": "2023.9.20990101"}}]);
    let text = chain(&recipe.run(&root, none).await.unwrap_err());
    assert!(text.contains("`dnf upgrade` failed"), "{text}");
    root.leave().await.unwrap();
}

#[tokio::test]
async fn checks_of_packages_ask_rpms_list() {
    if !possible() {
        return;
    }
    let dir = root_with_source(ROCKY).await;
    let root = enter(dir.path()).await;
    run(&Recipe::new(), &root, json!([{"packages": {"install": BASE}}])).await;
    root.leave().await.unwrap();
    let checks = json!([
        {"package": {"name": "app", "version": ">=2:1"}},
        {"package": {"name": "app", "version": ">=1:9"}},
        {"package": {"name": "app", "version": "=2:1"}},
        {"package": {"name": "app", "version": ">2:1-1"}},
        {"package": {"name": "app", "version": ">=9"}},
        {"package": {"name": "app-1"}},
        {"package": {"name": "dpkg"}},
        {"package": {"name": "new", "installed": false}},
        {"package": {"name": "old", "installed": false}},
    ]);
    let checks: Vec<Check> = serde_json::from_value(checks).unwrap();
    let outcomes = static_checks(&RootDir::open(dir.path()).unwrap(), &checks, &Stop::never()).await;
    let reasons: Vec<String> = outcomes
        .into_iter()
        .map(|outcome| match outcome.status {
            Status::Passed => String::new(),
            Status::Failed(reason) | Status::NotJudged(reason) => reason,
        })
        .collect();
    let wanted = [
        "",
        "",
        "",
        "has version 2:1-1, not >2:1-1",
        "",
        "is not installed",
        "is not installed",
        "",
        "is installed, version 1-1",
    ];
    assert_eq!(reasons, wanted);
    // The running machine says the same.
    assert_eq!(answers(dir.path(), &checks).await, wanted);

    // A list that is damaged is told as that.
    std::fs::write(dir.path().join("var/lib/rpm/rpmdb.sqlite"), [7; 5000]).unwrap();
    let outcomes = static_checks(&RootDir::open(dir.path()).unwrap(), &checks[..1], &Stop::never()).await;
    let Status::Failed(reason) = &outcomes[0].status else { panic!("{:?}", outcomes[0]) };
    assert!(reason.contains("cannot list the packages in /var/lib/rpm/rpmdb.sqlite of the root"), "{reason}");
    assert!(reason.contains("file is not a database"), "{reason}");
}

/// What the script for running machines says of each check when it runs in a root.
async fn answers(dir: &Path, checks: &[Check]) -> Vec<String> {
    // In the root that this one is made of the list of dpkg is the one that counts.
    std::fs::write(dir.join("var/lib/dpkg/status"), "").unwrap();
    let nonce = "0123456789abcdef";
    let script = Script { checks, nonce, deadline: u64::from(u32::MAX), console: Some("/root/console") };
    std::fs::write(dir.join("root/checks"), script.text().unwrap()).unwrap();
    let root = enter(dir).await;
    let stop = Stop::never();
    let command = RootCommand::new(["/bin/sh", "/root/checks", "run"]);
    let mut on_line = |_, _: &str| {};
    let answer = async {
        loop {
            let text = std::fs::read(dir.join("root/console")).unwrap_or_default();
            if let Some(answer) = find_answer(&text, nonce) {
                // It repeats its answer until it is ended.
                stop.request(libc::SIGTERM);
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let (ended, mut answer) = tokio::join!(root.run(&command, &stop, &mut on_line), answer);
    assert!(ended.is_err(), "{ended:?}");
    root.leave().await.unwrap();
    answer.checks.sort_by_key(|judged| judged.index);
    answer.checks.into_iter().map(|judged| judged.message).collect()
}
