//! The packages of arm64: that Debian has each of them, and that they can be installed together. Nothing is installed, and
//! no program of arm64 runs.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::{done, text};
use crate::gate;
use crate::yard::repository;

/// In the Dockerfile's own words: its commands up to the installation, on a machine of that architecture.
const STANDS_IN: &str = "apt-get() { [ \"$1\" != install ] || printf '%s\\n' \"$@\"; }\n\
                         dpkg() { [ \"$*\" = --print-architecture ] && echo \"$ARCHITECTURE\"; }\n";

fn of_dockerfile(architecture: &str) -> BTreeSet<String> {
    let dockerfile = fs::read_to_string(repository().join("docker/Dockerfile")).unwrap();
    let mut names = BTreeSet::new();
    let mut installs = 0;
    for step in dockerfile.split("\nRUN ").skip(1).filter(|step| step.contains("apt-get install")) {
        let (upto, _) = step.split_once("apt-get clean").unwrap();
        let mut shell = Command::new("bash");
        shell.env("ARCHITECTURE", architecture).arg("-c").arg(format!("{STANDS_IN}{upto}"));
        let said = text(&mut shell);
        names.extend(
            said.lines().filter(|word| *word != "install" && !word.starts_with('-')).map(str::to_owned),
        );
        installs += 1;
    }
    assert_eq!(installs, 3, "bakehouse, ansible and qemu install packages");
    names
}

#[test]
fn the_dockerfile_installs_the_boot_code_of_its_architecture() {
    if !gate::has(&["bash"]) {
        return;
    }
    let (pc, arm) = (of_dockerfile("amd64"), of_dockerfile("arm64"));
    let only = |one: &BTreeSet<String>, other: &BTreeSet<String>| -> Vec<String> {
        one.difference(other).cloned().collect()
    };
    assert_eq!(only(&pc, &arm), ["grub-efi-amd64-bin", "grub-pc-bin", "ovmf", "qemu-system-x86", "seabios"]);
    assert_eq!(only(&arm, &pc), ["grub-efi-arm64-bin", "qemu-efi-aarch64", "qemu-system-arm"]);
}

#[test]
fn debian_has_every_package_for_arm64() {
    if !gate::has_root(&["bash", "mmdebstrap"]) {
        return;
    }
    let mut names = of_dockerfile("arm64");
    let list = text(Command::new(repository().join("scripts/install-packages")).args(["--list", "arm64"]));
    names.extend(list.lines().map(str::to_owned));
    assert!(names.len() > 30, "{names:?}");
    let mut simulate = Command::new("mmdebstrap");
    // The check asks whether arm64's programs run here: none is to.
    simulate.args([
        "--quiet",
        "--simulate",
        "--skip=check/qemu",
        "--architectures=arm64",
        "--variant=minbase",
    ]);
    simulate.arg(format!("--include={}", Vec::from_iter(names).join(",")));
    done(simulate.args(["bookworm", "/dev/null"]));
}
