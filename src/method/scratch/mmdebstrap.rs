//! A root folder of a distribution of the Debian family, installed by mmdebstrap.

use std::path::Path;

use super::super::{BakeCause, Bench};
use super::distribution::Distribution;
use super::open;
use crate::disk::boot_config;
use crate::host::exec::{Cmd, ExecError};
use crate::host::root_dir::RootDir;
use crate::recipe::{RootFilesystem, Scratch};
use crate::report::Event;

/// What a machine image needs in any distribution of the Debian family: found out by booting with less, step by step,
/// on Debian 12. sudo is for cloud-init's default user; gdisk and fdisk are for growing at first boot,
/// e2fsprogs also for other disks than the root's.
const PACKAGES: [&str; 26] = [
    "systemd-sysv",
    "dbus",
    "udev",
    "libpam-systemd",
    "initramfs-tools",
    "zstd",
    "cloud-init",
    "cloud-guest-utils",
    "openssh-server",
    "netplan.io",
    "systemd-resolved",
    "systemd-timesyncd",
    "sudo",
    "ca-certificates",
    "curl",
    "iproute2",
    "grub2-common",
    "grub-pc-bin",
    "grub-efi-amd64-bin",
    "e2fsprogs",
    "fdisk",
    "gdisk",
    "dosfstools",
    "netbase",
    "locales",
    "less",
];

/// The proxy for the recipe's own steps; it is taken away with the last of them.
const PROXY: &str = "/etc/apt/apt.conf.d/99bakehouse-proxy";

/// Installs it, with the settings of apt for the recipe's steps.
pub(super) async fn install(
    scratch: &Scratch,
    distribution: &dyn Distribution,
    filesystem: RootFilesystem,
    root: &Path,
    bench: &Bench,
) -> Result<(), BakeCause> {
    let keyring = distribution.keyring();
    if !Path::new(keyring.file).exists() {
        let what = format!("{} is not there; install the package {}", keyring.file, keyring.package);
        return Err(BakeCause::Other { what });
    }
    // The initramfs is made while the kernel is installed: what it has to hold must be said before.
    let overlay = bench.work.path().join("overlay");
    std::fs::create_dir_all(&overlay).map_err(|source| BakeCause::File { path: overlay.clone(), source })?;
    boot_config::prepare_initramfs(&open(&overlay)?, super::format(filesystem))?;
    let overlay_arg = shell_quoted(&overlay.join("etc/initramfs-tools"));
    let mut include: Vec<&str> = PACKAGES.to_vec();
    include.extend([distribution.kernel(), distribution.tools(filesystem)]);
    include.extend(scratch.packages.iter().map(String::as_str));
    let components = if scratch.components.is_empty() {
        distribution.components().join(",")
    } else {
        scratch.components.join(",")
    };
    // The build's own environment is none of the new root's: its packages' scripts would see it.
    let mut command = Cmd::new("mmdebstrap")
        .apart_from_the_machine()
        .clear_env()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("TMPDIR", bench.work.path())
        .args(["--mode=root", "--variant=minbase", "--format=directory"])
        // The plan refuses other hosts: the kernel and boot loaders above are for this one.
        .arg("--architectures=amd64")
        .arg(format!("--components={components}"))
        .arg(format!("--include={}", include.join(",")))
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        // The work folder is root's own, which apt's unprivileged user cannot enter.
        .arg("--aptopt=APT::Sandbox::User \"root\"")
        .arg(format!("--essential-hook=copy-in {overlay_arg} /etc"));
    if let Some(proxy) = &scratch.proxy {
        command = command.arg(format!("--aptopt=Acquire::http::Proxy \"{proxy}\""));
    }
    command = command.arg(&scratch.suite).arg(root);
    if let Some(mirror) = &scratch.mirror {
        command = command.arg(mirror);
    }
    let name = command.name();
    let exit = command
        .stream(&bench.stop, &mut |_, line| {
            let text = line.strip_prefix("I: ").unwrap_or(line).to_owned();
            bench.reporter.emit(Event::Line { step: "mmdebstrap".to_owned(), text });
        })
        .await?;
    if !exit.success() {
        return Err(ExecError::Failed { name, code: exit.code, tail: exit.tail }.into());
    }
    let dir = open(root)?;
    // mmdebstrap leaves its own settings of apt, the proxy among them, and the host's name.
    let proxy = scratch.proxy.as_ref().map(|proxy| format!("Acquire::http::Proxy \"{proxy}\";\n"));
    let cleaned = dir
        .remove("/etc/apt/apt.conf.d/99mmdebstrap")
        .and_then(|_| dir.write("/etc/hostname", b"localhost\n", 0o644))
        .and_then(|()| proxy.map_or(Ok(()), |proxy| dir.write(PROXY, proxy.as_bytes(), 0o644)));
    cleaned.map_err(|source| BakeCause::File { path: root.to_owned(), source })
}

/// Takes the proxy away again, when the last step has run.
pub(super) fn forget_proxy(root: &RootDir) -> Result<(), BakeCause> {
    root.remove(PROXY).map(|_| ()).map_err(|source| BakeCause::File { path: root.path().to_owned(), source })
}

/// For mmdebstrap's hooks, which it gives to a shell.
fn shell_quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}
