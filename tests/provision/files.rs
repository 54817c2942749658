//! Files steps: modes, owners, links, and paths that try to leave.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use bakehouse::host::exec::Cmd;
use bakehouse::host::stop::Stop;
use serde_json::json;

use super::roots::{Recipe, chain, enter, fill_small, mounted_ext4, small, unmount};
use crate::gate;

fn mode_and_owner(path: &Path) -> (u32, u32, u32) {
    let meta = std::fs::symlink_metadata(path).unwrap();
    (meta.mode() & 0o7777, meta.uid(), meta.gid())
}

#[tokio::test]
async fn folders_and_files_arrive_with_their_modes_links_and_owners() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = small().await;
    let at = |path: &str| dir.path().join(path);
    let root = enter(dir.path()).await;
    let recipe = Recipe::new();
    recipe.write("rootfs/etc/app/app.conf", "a=1\n");
    recipe.write("rootfs/usr/local/bin/app", "#!/bin/sh\n");
    recipe.write("rootfs/lib/app/data", "d");
    recipe.write("one.txt", "one");
    let from = recipe.folder.path();
    for (path, mode) in [
        ("rootfs/usr/local/bin/app", 0o4755),
        ("rootfs/etc", 0o700),
        ("rootfs/etc/app", 0o750),
        ("one.txt", 0o640),
    ] {
        std::fs::set_permissions(from.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    symlink("/nowhere/at/all", from.join("rootfs/etc/app/link")).unwrap();
    std::os::unix::fs::chown(from.join("one.txt"), Some(12), Some(12)).unwrap();
    recipe.write("kept/in", "in");
    symlink("in", from.join("kept/link")).unwrap();
    for (path, user) in [("kept", 4711), ("kept/in", 4712), ("kept/link", 4713)] {
        std::os::unix::fs::lchown(from.join(path), Some(user), Some(user + 100)).unwrap();
    }
    let etc = mode_and_owner(&at("etc"));

    let steps = json!([
        {"files": {"from": "rootfs/", "to": "/"}},
        {"files": {"from": "rootfs/etc/app", "to": "/opt/", "owner": "app", "mode": "0640"}},
        {"files": {"from": "rootfs/etc/app", "to": "/opt/renamed", "owner": "app:web"}},
        {"files": {"from": "one.txt", "to": "/srv/deep/"}},
        {"files": {"from": "one.txt", "to": "/srv/two.txt", "owner": "7:8"}},
        {"files": {"from": "kept", "to": "/srv/", "owner": "keep"}},
        {"files": {"from": "one.txt", "to": "/srv/kept.txt", "owner": "keep", "mode": "0600"}},
    ]);
    recipe.run(&root, steps).await.unwrap();
    root.leave().await.unwrap();

    assert_eq!(mode_and_owner(&at("etc")), etc, "a folder that is there stays as it is");
    assert_eq!(mode_and_owner(&at("etc/app")), (0o750, 0, 0));
    assert_eq!(mode_and_owner(&at("usr/local/bin/app")), (0o4755, 0, 0));
    assert_eq!(std::fs::read_link(at("etc/app/link")).unwrap(), Path::new("/nowhere/at/all"));
    // /lib is a link to usr/lib in the root and stays one.
    assert_eq!(std::fs::read_to_string(at("usr/lib/app/data")).unwrap(), "d");
    assert!(std::fs::symlink_metadata(at("lib")).unwrap().is_symlink());
    assert_eq!(mode_and_owner(&at("opt")), (0o755, 0, 0));
    assert_eq!(mode_and_owner(&at("opt/app")), (0o750, 990, 991));
    assert_eq!(mode_and_owner(&at("opt/app/app.conf")), (0o640, 990, 991));
    let renamed = mode_and_owner(&at("opt/renamed/app.conf"));
    assert_eq!((renamed.1, renamed.2), (990, 33));
    assert_eq!(mode_and_owner(&at("opt/renamed/link")).2, 33);
    assert_eq!(mode_and_owner(&at("srv/deep/one.txt")), (0o640, 0, 0));
    assert_eq!(mode_and_owner(&at("srv/two.txt")), (0o640, 7, 8));
    assert_eq!(mode_and_owner(&at("srv")), (0o755, 0, 0));
    for (path, user) in [("srv/kept", 4711), ("srv/kept/in", 4712), ("srv/kept/link", 4713)] {
        let (_, uid, gid) = mode_and_owner(&at(path));
        assert_eq!((uid, gid), (user, user + 100), "{path}");
    }
    assert_eq!(mode_and_owner(&at("srv/kept.txt")), (0o600, 12, 12));
}

#[tokio::test]
async fn programs_that_a_zip_file_made_text_are_told_and_patterns_mend_them() {
    if !gate::has_root(&["unshare", "python3"]) {
        return;
    }
    let dir = small().await;
    let at = |path: &str| dir.path().join(path);
    let root = enter(dir.path()).await;
    let recipe = Recipe::new();
    recipe.write("made/rootfs/usr/local/bin/app", "#!/bin/sh\necho runs\n");
    recipe.write("made/rootfs/usr/local/bin/data", "text");
    recipe.write("made/rootfs/etc/app/hooks/first.sh", "#!/bin/sh\n");
    let app = recipe.folder.path().join("made/rootfs/usr/local/bin/app");
    std::fs::set_permissions(app, std::fs::Permissions::from_mode(0o755)).unwrap();
    // What unpacks a zip file need not look at the modes in it; this one does not.
    for args in [["-c", "a.zip", "made/rootfs"], ["-e", "a.zip", "."]] {
        let zip = Cmd::new("python3").args(["-m", "zipfile"]).args(args).cwd(recipe.folder.path());
        zip.run(&Stop::never()).await.unwrap();
    }

    recipe.run(&root, json!([{"files": {"from": "rootfs/", "to": "/"}}])).await.unwrap();
    let shown = recipe.shown.text();
    assert_eq!(shown.matches("are not executable").count(), 1, "{shown}");
    assert!(shown.contains("2 of `rootfs/` begin with `#!`"), "{shown}");
    assert!(shown.contains("etc/app/hooks/first.sh, usr/local/bin/app;"), "{shown}");
    assert_eq!(mode_and_owner(&at("usr/local/bin/app")).0 & 0o111, 0);

    let modes = json!({"usr/local/bin/*": "0755", "usr/local/bin/data": "0600", "**/*.sh": "0750", "**/hooks/": "0711"});
    let steps = json!([
        {"files": {"from": "rootfs", "to": "/srv/", "modes": modes}},
        {"files": {"from": "rootfs/usr/local/bin/app", "to": "/usr/local/bin/", "modes": {"app": "4755"}}},
        {"shell": {"run": "/srv/rootfs/usr/local/bin/app"}},
    ]);
    recipe.run(&root, steps).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    for (path, mode) in [
        ("srv/rootfs/usr/local/bin/app", 0o755),
        ("srv/rootfs/usr/local/bin/data", 0o600),
        ("srv/rootfs/etc/app/hooks/first.sh", 0o750),
        ("srv/rootfs/etc/app/hooks", 0o711),
        ("usr/local/bin/app", 0o4755),
    ] {
        assert_eq!(mode_and_owner(&at(path)).0, mode, "{path}");
    }
    let wrong = json!([{"files": {"from": "rootfs/", "to": "/", "modes": {"usr/bin/*": "0755"}}}]);
    let text = chain(&recipe.run(&root, wrong).await.unwrap_err());
    assert!(text.contains("`modes: usr/bin/*` fits no file of `rootfs/`"), "{text}");
    root.leave().await.unwrap();
}

#[tokio::test]
async fn a_disk_that_is_full_is_told_with_what_to_do() {
    if !gate::has_root(&["unshare", "mke2fs", "mount", "umount"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (_, top) = mounted_ext4(dir.path()).await;
    fill_small(&top).await;
    let root = enter(&top).await;
    let recipe = Recipe::new();
    let large = std::fs::File::create(recipe.folder.path().join("large")).unwrap();
    large.set_len(200 << 20).unwrap();
    for step in [
        json!({"files": {"from": "large", "to": "/large"}}),
        json!({"shell": {"run": "cat /dev/zero >/zeros"}}),
    ] {
        let text = chain(&recipe.run(&root, json!([step])).await.unwrap_err());
        assert!(text.contains("set a larger `disk.size`") && text.contains("No space left"), "{text}");
    }
    root.leave().await.unwrap();
    unmount(&top).await;
}

#[tokio::test]
async fn no_path_and_no_link_leads_out_of_either_folder() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let outer = tempfile::tempdir().unwrap();
    std::fs::write(outer.path().join("secret"), "host's").unwrap();
    let dir = small().await;
    // The root's own link to a folder of the host.
    symlink(outer.path(), dir.path().join("srv")).unwrap();
    symlink(outer.path().join("secret"), dir.path().join("etc/leads-out")).unwrap();
    let root = enter(dir.path()).await;
    let recipe = Recipe::new();
    recipe.write("file", "new");
    symlink(outer.path().join("secret"), recipe.folder.path().join("leads-out")).unwrap();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        recipe.folder.path().join("fifo"),
        rustix::fs::Mode::from_raw_mode(0o600),
    )
    .unwrap();
    for (files, word) in [
        (json!({"from": "../file", "to": "/x"}), "inside the recipe's folder"),
        (json!({"from": "/etc/passwd", "to": "/x"}), "inside the recipe's folder"),
        (json!({"from": "leads-out", "to": "/x"}), "cannot read"),
        (json!({"from": "nowhere", "to": "/x"}), "cannot read"),
        (json!({"from": "fifo", "to": "/x"}), "no file, folder or link"),
        (json!({"from": "file", "to": "x"}), "absolute path in the image"),
        (json!({"from": "file", "to": "/a/../../x"}), "absolute path in the image"),
        (json!({"from": "file", "to": "/srv/x"}), "in the root"),
        (json!({"from": "file/", "to": "/x"}), "cannot read"),
        (json!({"from": "file", "to": "/x", "owner": "nobody-here"}), "no user `nobody-here`"),
        (json!({"from": "file", "to": "/x", "mode": "rw"}), "octal"),
        (json!({"from": "file", "to": "/usr"}), "cannot write"),
    ] {
        let text = chain(&recipe.run(&root, json!([{"files": files}])).await.unwrap_err());
        assert!(text.contains(word), "{word}: {text}");
    }
    // A link in a file's place is replaced, not written through.
    recipe.run(&root, json!([{"files": {"from": "file", "to": "/etc/leads-out"}}])).await.unwrap();
    root.leave().await.unwrap();
    assert_eq!(std::fs::read_to_string(outer.path().join("secret")).unwrap(), "host's");
    assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read_to_string(dir.path().join("etc/leads-out")).unwrap(), "new");
    assert!(!dir.path().join("x").exists());
}
