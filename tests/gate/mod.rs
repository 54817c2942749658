//! What a test needs of the machine. Where it is missing the test fails in CI, and elsewhere says why it is skipped.

use std::path::Path;

use bakehouse::host::namespace;

/// Where programs of the system are; an absolute path replaces the folder that it is joined to.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Whether the programs, or files by their absolute paths, are there.
pub fn has(needed: &[&str]) -> bool {
    decide(missing(needed))
}

/// Whether the test runs as root, with loop devices, and the programs are there. Its thread gets a mount namespace of its
/// own: programs that other tests start would else inherit its mounts, and hold them for as long as they run.
pub fn has_root(needed: &[&str]) -> bool {
    let mut missing = missing(needed);
    if !rustix::process::geteuid().is_root() {
        missing.push("root".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        missing.push("loop devices".to_owned());
    }
    let runs = decide(missing);
    if runs {
        namespace::enter_private_mounts().unwrap();
    }
    runs
}

fn missing(needed: &[&str]) -> Vec<String> {
    let there = |name: &&&str| FOLDERS.iter().any(|folder| Path::new(folder).join(name).exists());
    needed.iter().filter(|name| !there(name)).map(|name| format!("`{name}`")).collect()
}

fn decide(missing: Vec<String>) -> bool {
    if missing.is_empty() {
        return true;
    }
    let missing = missing.join(", ");
    assert!(std::env::var_os("CI").is_none(), "this test must run in CI and needs {missing}");
    eprintln!("skipped: it needs {missing}");
    false
}
