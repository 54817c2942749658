//! Steps that need a real distribution: packages, updates, services, Ansible, and what is held and diverted.

use std::path::Path;

use bakehouse::host::exec::Cmd;
use bakehouse::host::stop::Stop;
use bakehouse::provision::{ChrootOptions, ChrootRoot, EspAccess, Root, installed};
use serde_json::json;

use super::roots::{Recipe, chain, debian, disk_identity, enter, sh};
use crate::gate;

/// Builds a package with the given control fields besides the usual, files, and script to run after unpacking.
async fn build_deb(
    to: &Path,
    name: &str,
    version: &str,
    fields: &str,
    files: &[(&str, &str)],
    postinst: &str,
) {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &str, content: &str, mode: u32| {
        let path = dir.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\n\
         Description: for a test\n{fields}"
    );
    write("DEBIAN/control", &control, 0o644);
    write("DEBIAN/postinst", &format!("#!/bin/sh\nset -e\n{postinst}\n"), 0o755);
    for (path, content) in files {
        write(path, content, 0o755);
    }
    std::fs::create_dir_all(to).unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let built = Cmd::new("dpkg-deb").args(["--build", "--root-owner-group"]).arg(dir.path()).arg(to);
    built.run(&Stop::never()).await.unwrap();
}

const TOOLS: [&str; 4] = ["unshare", "mmdebstrap", "dpkg-deb", "tar"];

#[tokio::test]
async fn packages_come_with_their_dependencies_and_start_nothing() {
    if !gate::has_root(&TOOLS) {
        return;
    }
    let dir = debian().await;
    let root = enter(dir.path()).await;
    let recipe = Recipe::new();
    // Its script starts a service as Debian's packages do, and a daemon as they should not.
    let unit = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n";
    let postinst = "if test -x /usr/sbin/policy-rc.d && /usr/sbin/policy-rc.d app start; then touch /started; fi\n\
                    systemctl daemon-reload\nsetsid nohup sleep 4711 >/dev/null 2>&1 &";
    let files = [("/usr/lib/systemd/system/app.service", unit)];
    build_deb(&recipe.folder.path().join("build"), "app", "1.2", "Depends: netbase\n", &files, postinst)
        .await;

    let steps = json!([
        {"packages": {"files": ["build/app_*.deb"], "install": ["media-types"]}},
        {"packages": {"remove": ["media-types"]}},
        {"packages": {"install": ["media-types"]}},
        {"services": {"enable": ["app"], "mask": ["systemd-networkd.service"]}},
        {"shell": {"run": "test ! -e /started; test ! -e /var/lib/apt/lists/nothing; ls /tmp"}},
        {"update": "security"},
    ]);
    let done = recipe.run(&root, steps).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(done.len(), 6);
    assert_eq!(root.left_over().unwrap(), Vec::<String>::new());
    // The lists were fetched once.
    let shown = recipe.shown.text();
    let step = |number: usize| {
        let from = shown.find(&format!("Step {{ number: {number},")).unwrap();
        let to = shown.find(&format!("StepDone {{ number: {number},")).unwrap();
        shown[from..to].to_owned()
    };
    assert!(step(1).contains("InRelease"), "{}", step(1));
    assert!(!step(3).contains("InRelease") && step(3).contains("media-types"), "{}", step(3));

    // A name that no source has.
    let failed = recipe
        .run(&root, json!([{"packages": {"install": ["no-such-package-anywhere"]}}]))
        .await
        .unwrap_err();
    let text = chain(&failed);
    assert!(
        text.contains("`apt-get install` failed with exit code 100") && text.contains("Unable to locate"),
        "{text}"
    );
    let failed =
        recipe.run(&root, json!([{"packages": {"files": ["build/other_*.deb"]}}])).await.unwrap_err();
    assert!(chain(&failed).contains("fits no file"));
    root.leave().await.unwrap();

    let packages = installed(&bakehouse::host::root_dir::RootDir::open(dir.path()).unwrap(), &Stop::never())
        .await
        .unwrap()
        .packages;
    let version = |name: &str| packages.iter().find(|p| p.name == name).map(|p| p.version.clone());
    assert_eq!(version("app").as_deref(), Some("1.2"));
    assert!(version("netbase").is_some() && version("media-types").is_some() && version("jq").is_none());
    let at = |path: &str| dir.path().join(path);
    assert!(std::fs::symlink_metadata(at("etc/systemd/system/multi-user.target.wants/app.service")).is_ok());
    assert_eq!(
        std::fs::read_link(at("etc/systemd/system/systemd-networkd.service")).unwrap(),
        Path::new("/dev/null")
    );
    assert!(!at("usr/sbin/policy-rc.d").exists());
    assert_eq!(std::fs::read_dir(at("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_mirror_that_is_not_reached_is_told_as_that() {
    if !gate::has_root(&TOOLS) {
        return;
    }
    let dir = debian().await;
    let mut options = ChrootOptions::new(dir.path());
    options.network = false;
    let root = ChrootRoot::enter(options).await.unwrap();
    // apt waits longer from try to try.
    root.dir().write("/etc/apt/apt.conf.d/zz-once", b"Acquire::Retries::Delay \"false\";", 0o644).unwrap();
    let recipe = Recipe::new();
    let steps = json!([{"packages": {"install": ["media-types"]}}]);
    let text = chain(&recipe.run(&root, steps).await.unwrap_err());
    assert!(text.contains("`apt-get update` failed with exit code 100; is the network there?"), "{text}");
    root.leave().await.unwrap();
}

#[tokio::test]
async fn packages_that_write_boot_code_elsewhere_are_held_while_steps_run() {
    if !gate::has_root(&TOOLS) {
        return;
    }
    let dir = debian().await;
    let root = enter(dir.path()).await;
    let mut recipe = Recipe::new();
    build_deb(recipe.folder.path(), "grub-efi-amd64", "1", "", &[], "").await;
    build_deb(recipe.folder.path(), "shim-signed", "1", "", &[], "").await;
    let install = "cp /tmp/debs/*.deb /root; dpkg -i /root/*.deb; rm /root/*.deb; apt-mark hold shim-signed";
    for name in ["grub-efi-amd64_1_all.deb", "shim-signed_1_all.deb"] {
        let bytes = std::fs::read(recipe.folder.path().join(name)).unwrap();
        root.dir().make_dirs("/tmp/debs", 0o755).unwrap();
        root.dir().write(&format!("/tmp/debs/{name}"), &bytes, 0o644).unwrap();
    }
    let exit = sh(&root, install).await;
    assert!(exit.success(), "{exit:?}");

    let steps = json!([{"shell": {"run": "echo held: $(apt-mark showhold)"}}]);
    recipe.run(&root, steps.clone()).await.unwrap();
    let shown = recipe.shown.text();
    assert!(shown.contains("held: grub-efi-amd64 shim-signed"), "{shown}");
    assert!(shown.contains("held at the base's version"), "{shown}");
    // The image's own hold stays.
    assert_eq!(sh(&root, "apt-mark showhold").await.tail, ["shim-signed"]);
    // Released after a failure too.
    recipe.run(&root, json!([{"shell": {"run": "false"}}])).await.unwrap_err();
    assert_eq!(sh(&root, "apt-mark showhold").await.tail, ["shim-signed"]);
    // Where the partition is mounted nothing is held.
    recipe = Recipe::new();
    recipe.context.esp = EspAccess::Full;
    recipe.run(&root, steps).await.unwrap();
    assert!(recipe.shown.text().contains("held: shim-signed"), "{}", recipe.shown.text());
    root.leave().await.unwrap();
}

#[tokio::test]
async fn the_stand_in_for_grub_probe_outlives_an_update_of_its_package() {
    if !gate::has_root(&TOOLS) {
        return;
    }
    let dir = debian().await;
    let before = std::fs::read(dir.path().join("var/lib/dpkg/diversions")).unwrap();
    let recipe = Recipe::new();
    for version in ["1", "2"] {
        let content = format!("#!/bin/sh\necho the real one {version}\n");
        let files = [("/usr/sbin/grub-probe", content.as_str())];
        // As update-grub does it in the package's own script.
        build_deb(
            recipe.folder.path(),
            "grub-common",
            version,
            "",
            &files,
            "grub-probe -t fs_uuid / >>/answers",
        )
        .await;
    }
    let mut options = ChrootOptions::new(dir.path());
    options.disk = Some(disk_identity());
    for version in ["1", "2"] {
        let root = ChrootRoot::enter(options.clone()).await.unwrap();
        let name = format!("grub-common_{version}_all.deb");
        let bytes = std::fs::read(recipe.folder.path().join(&name)).unwrap();
        root.dir().write(&format!("/tmp/{name}"), &bytes, 0o644).unwrap();
        let exit = sh(&root, &format!("dpkg -i /tmp/{name}")).await;
        assert!(exit.success(), "{exit:?}");
        root.leave().await.unwrap();
        let real = std::fs::read_to_string(dir.path().join("usr/sbin/grub-probe")).unwrap();
        assert!(real.contains(&format!("the real one {version}")), "{real}");
        assert_eq!(std::fs::read(dir.path().join("var/lib/dpkg/diversions")).unwrap(), before);
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("answers")).unwrap(), "aaaa-1111\naaaa-1111\n");
    let left = std::fs::read_dir(dir.path().join("usr/sbin")).unwrap();
    let left =
        left.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("bakehouse"));
    assert_eq!(left.count(), 0);
}

#[tokio::test]
async fn a_playbook_runs_against_the_root() {
    if !gate::has_root(&["unshare", "mmdebstrap", "tar", "ansible-playbook"]) {
        return;
    }
    let dir = debian().await;
    let root = enter(dir.path()).await;
    let recipe = Recipe::new();
    recipe.write("site.yml", PLAYBOOK);
    recipe.write("templates/app.conf.j2", "greeting={{ greeting }} on {{ ansible_distribution }}\n");
    recipe.write("files/data", "copied\n");
    let steps = json!([{"ansible": {"playbook": "site.yml", "extra-vars": {"greeting": "it's \"me\"", "list": [1, 2]}}}]);
    let done = recipe.run(&root, steps).await;
    done.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert!(recipe.shown.text().contains("failed=0"), "{}", recipe.shown.text());
    let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap();
    assert_eq!(read("etc/app/app.conf"), "greeting=it's \"me\" on Debian\n");
    assert_eq!(read("etc/app/data"), "copied\n");
    assert_eq!(read("etc/app/command"), "localhost 2\n");
    assert_eq!(std::fs::read_to_string(recipe.folder.path().join("fetched")).unwrap(), "copied\n");
    let wants = dir.path().join("etc/systemd/system/multi-user.target.wants/app.service");
    assert!(std::fs::symlink_metadata(wants).is_ok());
    assert!(!dir.path().join("root/.ansible").exists());

    recipe.write(
        "env.yml",
        "- hosts: all\n  gather_facts: false\n  tasks:\n    - debug: { msg: \"{{ lookup('env', 'GREETING') }}\" }\n",
    );
    let steps = json!([{"ansible": {"playbook": "env.yml", "env": {"GREETING": "by the recipe"}}}]);
    recipe.run(&root, steps).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert!(recipe.shown.text().contains("by the recipe"), "{}", recipe.shown.text());

    let failed = recipe.run(&root, json!([{"ansible": {"playbook": "nowhere.yml"}}])).await.unwrap_err();
    assert!(chain(&failed).contains("cannot open the playbook nowhere.yml"));
    recipe.write("bad.yml", "- hosts: all\n  gather_facts: false\n  tasks:\n    - command: /bin/false\n");
    let failed = recipe.run(&root, json!([{"ansible": {"playbook": "bad.yml"}}])).await.unwrap_err();
    let text = chain(&failed);
    assert!(
        text.contains("`ansible-playbook` failed with exit code 2") && text.contains("non-zero return code"),
        "{text}"
    );
    root.leave().await.unwrap();
}

const PLAYBOOK: &str = r#"
- hosts: all
  tasks:
    - file: { path: /etc/app, state: directory, mode: "0750" }
    - template: { src: app.conf.j2, dest: /etc/app/app.conf, mode: "0640" }
    - copy: { src: data, dest: /etc/app/data }
    - shell: echo $(cat /proc/sys/kernel/hostname) {{ list | length }} >/etc/app/command
      args: { creates: /etc/app/command }
    - fetch: { src: /etc/app/data, dest: fetched, flat: true }
    - copy:
        dest: /etc/systemd/system/app.service
        content: |
          [Service]
          ExecStart=/bin/true
          [Install]
          WantedBy=multi-user.target
    - systemd: { name: app, enabled: true, daemon_reload: true }
"#;
