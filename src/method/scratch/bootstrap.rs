//! A root from a distribution's packages, and the disk made of it. The root is made and changed in a folder; the disk
//! is made at the end, as small as its files allow.

use std::path::Path;

use super::super::change::{self, Changed, Target};
use super::super::{BakeCause, Bench};
use crate::disk::boot_config::{self, ScratchIds};
use crate::disk::format;
use crate::host::exec::{Cmd, ExecError};
use crate::host::root_dir::RootDir;
use crate::plan::Plan;
use crate::provision::{DiskIdentity, EspAccess, FileSystemIdentity, KernelIdentity, set_up_cloud};
use crate::recipe::{Distribution, Scratch};
use crate::report::{Event, Timing};

/// What a machine image needs in any distribution of the Debian family: found out by booting with less, step by step,
/// on Debian 12. sudo is for cloud-init's default user; gdisk, fdisk and e2fsprogs are for growing at first boot.
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

/// The keys of Ubuntu's archive, which Debian has in a package of its own.
const UBUNTU_KEYS: &str = "/usr/share/keyrings/ubuntu-archive-keyring.gpg";

/// The kernel that a distribution makes for clouds.
fn kernel(distribution: Distribution) -> &'static str {
    match distribution {
        Distribution::Debian => "linux-image-cloud-amd64",
        Distribution::Ubuntu => "linux-image-aws",
    }
}

fn components(scratch: &Scratch) -> String {
    match (scratch.components.is_empty(), scratch.distribution) {
        (false, _) => scratch.components.join(","),
        (true, Distribution::Debian) => "main".to_owned(),
        (true, Distribution::Ubuntu) => "main,universe".to_owned(),
    }
}

/// Makes the root, changes it, and makes the disk.
pub(super) async fn run(
    scratch: &Scratch,
    plan: &Plan,
    bench: &Bench,
    timings: &mut Vec<Timing>,
) -> Result<Changed, BakeCause> {
    let root = bench.work.root();
    let ids = ScratchIds::derived(&plan.bake);
    if bench.resume.is_none() {
        let phase = bench.reporter.phase(format!("installing {:?} {}", scratch.distribution, scratch.suite));
        install(scratch, &root, bench).await?;
        let dir = open(&root)?;
        set_up_cloud(&dir)?;
        boot_config::prepare_root(&dir, &ids)?;
        timings.push(Timing::new("install the distribution", phase.done()));
    }
    let target = Target {
        root: &root,
        layout: None,
        identity: identity(&ids),
        kernels: KernelIdentity::default(),
        esp: EspAccess::None,
    };
    let changed = change::root(&target, plan, bench).await?;
    let dir = open(&root)?;
    dir.remove(PROXY).map_err(|source| BakeCause::File { path: root.clone(), source })?;

    let phase = bench.reporter.phase("making the disk");
    let disk = bench.work.disk();
    let spec = format::Spec {
        root: &root,
        disk: &disk,
        ids: &ids,
        epoch: plan.created.as_second(),
        size: plan.size.map(|gib| u64::from(gib) << 30),
    };
    let made = format::make(&spec, &bench.stop).await?;
    change::look_at_boot(&dir, &made.layout, bench).await?;
    timings.push(Timing::new("make the disk", phase.done()));
    Ok(changed)
}

fn open(path: &Path) -> Result<RootDir, BakeCause> {
    RootDir::open(path).map_err(|source| BakeCause::File { path: path.to_owned(), source })
}

/// What the root's programs are told of the disk that will be made of it.
fn identity(ids: &ScratchIds) -> DiskIdentity {
    DiskIdentity {
        root: FileSystemIdentity {
            kind: "ext4".to_owned(),
            uuid: ids.root.to_string(),
            label: Some("root".to_owned()),
            partuuid: Some(ids.root_partition.to_string()),
            partition: 1,
            device: None,
        },
        boot: None,
        partmap: "gpt".to_owned(),
    }
}

async fn install(scratch: &Scratch, root: &Path, bench: &Bench) -> Result<(), BakeCause> {
    if scratch.distribution == Distribution::Ubuntu && !Path::new(UBUNTU_KEYS).exists() {
        let what = format!(
            "{UBUNTU_KEYS} is not there; install the package ubuntu-keyring (Debian: ubuntu-archive-keyring)"
        );
        return Err(BakeCause::Other { what });
    }
    // The initramfs is made while the kernel is installed: what it has to hold must be said before.
    let overlay = bench.work.path().join("overlay");
    std::fs::create_dir_all(&overlay).map_err(|source| BakeCause::File { path: overlay.clone(), source })?;
    boot_config::prepare_initramfs(&open(&overlay)?)?;
    let overlay_arg = shell_quoted(&overlay.join("etc/initramfs-tools"));
    let mut include: Vec<&str> = PACKAGES.to_vec();
    include.push(kernel(scratch.distribution));
    include.extend(scratch.packages.iter().map(String::as_str));
    // The build's own environment is none of the new root's: its packages' scripts would see it.
    let mut command = Cmd::new("mmdebstrap")
        .clear_env()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("TMPDIR", bench.work.path())
        .args(["--mode=root", "--variant=minbase", "--format=directory"])
        // The plan refuses other hosts: the kernel and boot loaders above are for this one.
        .arg("--architectures=amd64")
        .arg(format!("--components={}", components(scratch)))
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

/// For mmdebstrap's hooks, which it gives to a shell.
fn shell_quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}
