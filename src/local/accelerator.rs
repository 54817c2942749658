//! Which accelerator QEMU has on this host, found out in seconds and remembered until the host boots again.
//!
//! `/dev/kvm` that opens says little: in some virtual machines it is there and a guest hangs as soon as it leaves real
//! mode. So a boot sector of our own is run under it, and only what ended it as it should is used.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::qemu::{PROGRAM, QemuError};
use crate::host::exec::{Cmd, ExecError};
use crate::host::file;
use crate::host::stop::Stop;

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// QEMU's own translation: everywhere, five to twenty times slower.
    Tcg,
}

/// QEMU as it is on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Emulator {
    /// Major and minor version.
    pub version: (u32, u32),
    pub accelerator: Accelerator,
}

/// The answer with what it holds for: another boot or another QEMU is asked again.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Remembered {
    boot: String,
    emulator: Emulator,
}

/// Longest that the probe may take: it takes 0.2 s in software emulation on an idle machine.
const PROBE_LIMIT: Duration = Duration::from_secs(3);
/// `isa-debug-exit` ends QEMU with (value << 1) | 1; the boot sector writes 0x10.
const PROBE_EXIT: i32 = 0x21;

impl Emulator {
    /// Looks at this host's QEMU, or remembers what was found since the host booted in the file `memory`.
    ///
    /// # Errors
    /// Where QEMU is not installed or does not say its version, or a stop was asked for.
    pub async fn detect(memory: &Path, stop: &Stop) -> Result<Self, QemuError> {
        let version = version(stop).await?;
        // Where the kernel does not tell its boot id, nothing is remembered.
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        if let Some(known) = recall(memory, &boot, version) {
            return Ok(known);
        }
        let accelerator = if kvm_works(stop).await? { Accelerator::Kvm } else { Accelerator::Tcg };
        let emulator = Self { version, accelerator };
        if !boot.is_empty() {
            // Not being able to remember costs the probe again and nothing else.
            let _ = remember(memory, &boot, &emulator);
        }
        Ok(emulator)
    }

    /// QEMU's arguments for the accelerator and the processor that goes with it.
    #[must_use]
    pub fn args(&self) -> [&'static str; 4] {
        match self.accelerator {
            Accelerator::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // Before QEMU 8 a kernel from 6.12 on faults at cmpxchg16b in software emulation. Debian and Ubuntu need no
            // such instruction; a userland built for x86-64-v2 does, and needs QEMU 8.
            Accelerator::Tcg if self.version.0 < 8 => ["-accel", "tcg,thread=multi", "-cpu", "max,cx16=off"],
            Accelerator::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }
}

fn recall(memory: &Path, boot: &str, version: (u32, u32)) -> Option<Emulator> {
    let known: Remembered = serde_json::from_slice(&std::fs::read(memory).ok()?).ok()?;
    (known.boot == boot && known.emulator.version == version).then_some(known.emulator)
}

fn remember(memory: &Path, boot: &str, emulator: &Emulator) -> std::io::Result<()> {
    let text = serde_json::to_vec(&Remembered { boot: boot.to_owned(), emulator: emulator.clone() })?;
    file::replace(memory, &text, 0o600)
}

async fn version(stop: &Stop) -> Result<(u32, u32), QemuError> {
    let output = Cmd::new(PROGRAM).arg("--version").timeout(Duration::from_secs(20)).run(stop).await?;
    let text = output.text();
    parse_version(&text).ok_or(QemuError::Version { text })
}

/// `QEMU emulator version 7.2.22 (Debian …)`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split("version ").nth(1)?.split(['.', ' ', '(']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

async fn kvm_works(stop: &Stop) -> Result<bool, QemuError> {
    // Both are needed to run a guest; without them QEMU would only say so.
    if std::fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(false);
    }
    probe("kvm", stop).await
}

/// Whether the boot sector ran to its end under `accelerator`.
async fn probe(accelerator: &str, stop: &Stop) -> Result<bool, QemuError> {
    let temporary = |source| QemuError::Io { path: std::env::temp_dir(), source };
    let mut floppy = tempfile::NamedTempFile::new().map_err(temporary)?;
    floppy.write_all(&boot_sector()).map_err(temporary)?;
    let mut drive = std::ffi::OsString::from("if=floppy,format=raw,file=");
    drive.push(super::qemu::escaped(floppy.path().as_os_str()));
    let ended = Cmd::new(PROGRAM)
        .args(["-machine", "pc", "-m", "32", "-nodefaults", "-display", "none"])
        .args(["-accel", accelerator])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-drive"])
        .arg(drive)
        .timeout(PROBE_LIMIT)
        .stream(stop, &mut |_, _| {})
        .await;
    match ended {
        Ok(exit) => Ok(exit.code == PROBE_EXIT),
        Err(ExecError::TimedOut { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Enters long mode with paging as a kernel does, counts to twenty million and ends QEMU through its debug port.
/// ```text
///     cli; xor %ax,%ax; mov %ax,%ds; mov %ax,%es; mov %ax,%ss
///     mov $0x1000,%di; mov $0x1800,%cx; rep stosw             # three empty page tables
///     movw $0x2003,0x1000; movw $0x3003,0x2000; movw $0x83,0x3000   # the first 2 MiB onto itself
///     mov $0x1000,%eax; mov %eax,%cr3
///     mov %cr4,%eax; or $0x20,%al; mov %eax,%cr4               # PAE
///     mov $0xc0000080,%ecx; rdmsr; or $1,%ah; wrmsr            # EFER.LME
///     lgdtl 0x7c80
///     mov %cr0,%eax; or $0x80000001,%eax; mov %eax,%cr0        # paging, protected mode
///     ljmp $8,$0x7c58
/// .code64
///     mov $20000000,%ecx
/// 1:  dec %ecx; jnz 1b
///     mov $0xf4,%dx; mov $0x10,%al; out %al,%dx
/// 2:  hlt; jmp 2b
/// gdt (0x70): 0, 0x00209a0000000000; its register (0x80): limit 15, base 0x7c70
/// ```
fn boot_sector() -> [u8; 512] {
    const CODE: [u8; 107] = [
        0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbf, 0x00, 0x10, 0xb9, 0x00, 0x18, 0xf3, 0xab,
        0xc7, 0x06, 0x00, 0x10, 0x03, 0x20, 0xc7, 0x06, 0x00, 0x20, 0x03, 0x30, 0xc7, 0x06, 0x00, 0x30, 0x83,
        0x00, 0x66, 0xb8, 0x00, 0x10, 0x00, 0x00, 0x0f, 0x22, 0xd8, 0x0f, 0x20, 0xe0, 0x0c, 0x20, 0x0f, 0x22,
        0xe0, 0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x80, 0xcc, 0x01, 0x0f, 0x30, 0x66, 0x0f, 0x01,
        0x16, 0x80, 0x7c, 0x0f, 0x20, 0xc0, 0x66, 0x0d, 0x01, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0, 0xea, 0x58,
        0x7c, 0x08, 0x00, 0xb9, 0x00, 0x2d, 0x31, 0x01, 0xff, 0xc9, 0x75, 0xfc, 0x66, 0xba, 0xf4, 0x00, 0xb0,
        0x10, 0xee, 0xf4, 0xeb, 0xfd,
    ];
    let mut sector = [0; 512];
    sector[..CODE.len()].copy_from_slice(&CODE);
    sector[0x78..0x80].copy_from_slice(&0x0020_9a00_0000_0000_u64.to_le_bytes());
    sector[0x80..0x82].copy_from_slice(&15_u16.to_le_bytes());
    sector[0x82..0x86].copy_from_slice(&0x7c70_u32.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(
            parse_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright"),
            Some((7, 2))
        );
        assert_eq!(parse_version("QEMU emulator version 10.0.0"), Some((10, 0)));
        assert_eq!(parse_version("something else"), None);
    }

    #[test]
    fn an_answer_is_remembered_for_one_boot_and_one_version() {
        let dir = tempfile::tempdir().unwrap();
        let memory = dir.path().join("below/emulator.json");
        let emulator = Emulator { version: (7, 2), accelerator: Accelerator::Kvm };
        assert_eq!(recall(&memory, "boot", (7, 2)), None);
        remember(&memory, "boot", &emulator).unwrap();
        assert_eq!(recall(&memory, "boot", (7, 2)), Some(emulator));
        assert_eq!(recall(&memory, "another", (7, 2)), None);
        assert_eq!(recall(&memory, "boot", (8, 0)), None);
        std::fs::write(&memory, "{").unwrap();
        assert_eq!(recall(&memory, "boot", (7, 2)), None);
    }

    #[test]
    fn only_old_software_emulation_goes_without_cmpxchg16b() {
        let cpu = |major, accelerator| {
            let version = (major, 0);
            Emulator { version, accelerator }.args()[3]
        };
        assert_eq!(cpu(7, Accelerator::Tcg), "max,cx16=off");
        assert_eq!(cpu(10, Accelerator::Tcg), "max");
        assert_eq!(cpu(7, Accelerator::Kvm), "host");
    }

    /// The probe itself is right: software emulation always gets to its end.
    #[tokio::test]
    async fn the_boot_sector_runs_to_its_end_in_software_emulation() {
        let installed = Cmd::new(PROGRAM).arg("--version").run(&Stop::never()).await;
        if let Err(ExecError::Missing { .. }) = installed {
            assert!(std::env::var_os("CI").is_none(), "{PROGRAM} is not installed");
            eprintln!("skipped: {PROGRAM} is not installed");
            return;
        }
        assert!(probe("tcg", &Stop::never()).await.unwrap());
    }
}
