//! QEMU: one command line from a typed machine that looks like an instance of EC2 from inside.
//!
//! Opens no port on the host, but one of the loopback address for an instance that commands are sent to. The guest reaches the outside through QEMU's user-mode network, and its metadata service
//! through a program that QEMU starts for each connection. Through that network's gateway, 169.254.169.2, it also
//! reaches what listens on the host's loopback address: QEMU has no switch for that.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::accelerator::Emulator;
use super::firmware::{Firmware, Ovmf};
use super::metadata::Identity;
use crate::cloud::{Architecture, BootMode, Image};
use crate::host::exec::{Cmd, ExecError, Exit};
use crate::host::stop::Stop;

/// The emulator of the architecture that this host can boot.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// MiB. Debian boots in 512; cloud-init's Python and a service under test want some room.
const MEMORY: u32 = 1024;
/// As most small instance types have. More does not make a boot faster in software emulation.
const CPUS: usize = 2;

/// What the root volume is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskBus {
    /// As on every instance type of the Nitro system.
    Nvme,
    Virtio,
}

/// Where the serial console goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Console {
    File(PathBuf),
    /// This terminal; Ctrl-A X ends the machine.
    Terminal,
}

/// A machine to run.
#[derive(Clone, Debug)]
pub struct Machine {
    pub emulator: Emulator,
    /// `None`: SeaBIOS. Else OVMF, with the machine's own copy of its variables.
    pub ovmf: Option<Ovmf>,
    pub bus: DiskBus,
    /// A raw disk.
    pub disk: PathBuf,
    /// Writes go to a temporary file (in `TMPDIR`) that is gone when the machine ends.
    pub throw_away: bool,
    pub console: Console,
    pub identity: Identity,
    /// The program that answers one connection to the metadata service on its standard streams, and its arguments.
    pub metadata: Vec<OsString>,
    /// A port of the loopback address that leads to the guest's ssh.
    pub ssh: Option<u16>,
}

impl Machine {
    /// What QEMU is started with.
    #[must_use]
    pub fn args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        let mut add = |words: &[&OsStr]| args.extend(words.iter().map(|word| (*word).to_owned()));
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(CPUS);
        for word in ["-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc"] {
            add(&[word.as_ref()]);
        }
        for word in self.emulator.args() {
            add(&[word.as_ref()]);
        }
        add(&["-m".as_ref(), MEMORY.to_string().as_ref()]);
        add(&["-smp".as_ref(), cpus.to_string().as_ref()]);
        // The metadata service and ds-identify tell EC2 by these: uuid and serial alike, both beginning with `ec2`.
        let uuid = &self.identity.uuid;
        let smbios = format!("type=1,manufacturer=Amazon EC2,product=t3.small,serial={uuid},uuid={uuid}");
        add(&["-smbios".as_ref(), smbios.as_ref()]);
        if let Some(ovmf) = &self.ovmf {
            let code = option(&[b"if=pflash,format=raw,readonly=on,file=", &path(&ovmf.code)]);
            let variables = option(&[b"if=pflash,format=raw,file=", &path(&ovmf.variables)]);
            add(&["-drive".as_ref(), &code, "-drive".as_ref(), &variables]);
        }
        let throw_away: &[u8] = if self.throw_away { b",snapshot=on" } else { b"" };
        // `unsafe`: a disk that ends with its machine need not survive a power cut.
        let cached: &[u8] = b"if=none,id=root,format=raw,cache=unsafe,file=";
        let drive = option(&[cached, &path(&self.disk), throw_away]);
        let device = match self.bus {
            DiskBus::Nvme => format!("nvme,drive=root,serial={}", self.identity.volume),
            DiskBus::Virtio => "virtio-blk-pci,drive=root".to_owned(),
        };
        add(&["-drive".as_ref(), &drive, "-device".as_ref(), device.as_ref()]);
        // The range in which 169.254.169.254 lies, so that the metadata service is a neighbour and needs no route.
        let forward = self.ssh.map(|port| format!("hostfwd=tcp:127.0.0.1:{port}-:22,")).unwrap_or_default();
        let network = option(&[
            b"user,id=net,net=169.254.169.0/24,host=169.254.169.2,dns=169.254.169.3,dhcpstart=169.254.169.15,",
            forward.as_bytes(),
            b"guestfwd=tcp:169.254.169.254:80-cmd:",
            escaped(&shell_words(&self.metadata)).as_bytes(),
        ]);
        let card = format!("virtio-net-pci,netdev=net,mac={}", self.identity.mac);
        add(&["-netdev".as_ref(), &network, "-device".as_ref(), card.as_ref()]);
        add(&["-device".as_ref(), "virtio-rng-pci".as_ref()]);
        let console = match &self.console {
            Console::File(file) => {
                let chardev = option(&[b"file,id=console,path=", &path(file)]);
                add(&["-chardev".as_ref(), &chardev]);
                "chardev:console"
            }
            // The multiplexer passes Ctrl-C to the guest and keeps Ctrl-A for itself.
            Console::Terminal => "mon:stdio",
        };
        add(&["-serial".as_ref(), console.as_ref()]);
        args
    }
}

/// A value within one of QEMU's comma-separated options: a comma in it is doubled.
pub(super) fn escaped(value: &OsStr) -> OsString {
    let mut bytes = Vec::with_capacity(value.len());
    for byte in value.as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    OsString::from_vec(bytes)
}

fn path(path: &Path) -> Vec<u8> {
    escaped(path.as_os_str()).into_vec()
}

fn option(parts: &[&[u8]]) -> OsString {
    OsString::from_vec(parts.concat())
}

/// Words as one command line for QEMU, which takes it apart as a shell does.
fn shell_words(words: &[OsString]) -> OsString {
    let mut line = Vec::new();
    for word in words {
        if !line.is_empty() {
            line.push(b' ');
        }
        line.push(b'\'');
        for byte in word.as_bytes() {
            if *byte == b'\'' {
                line.extend_from_slice(br"'\''");
            } else {
                line.push(*byte);
            }
        }
        line.push(b'\'');
    }
    OsString::from_vec(line)
}

/// The machine's own OVMF, its variables copied to `variables`; `None` for SeaBIOS.
pub(super) fn own_firmware(firmware: Firmware, variables: &Path) -> Result<Option<Ovmf>, QemuError> {
    if firmware == Firmware::Bios {
        return Ok(None);
    }
    let found = Ovmf::find(Path::new("/"))?;
    std::fs::copy(&found.variables, variables)
        .map_err(|source| QemuError::Io { path: variables.to_owned(), source })?;
    Ok(Some(Ovmf { code: found.code, variables: variables.to_owned() }))
}

/// Refuses what this host's emulator cannot run.
pub(super) fn bootable(image: &Image) -> Result<(), QemuError> {
    match image.attributes.architecture {
        Architecture::X86_64 => Ok(()),
        Architecture::Arm64 => Err(QemuError::Architecture {
            image: image.id.to_string(),
            architecture: image.attributes.architecture,
        }),
    }
}

/// What [`interactive`] boots.
#[derive(Clone, Debug)]
pub struct Session<'a> {
    pub image: &'a Image,
    /// The image's root volume as a raw file. It stays as it is.
    pub disk: &'a Path,
    /// A folder for this session's own files; the caller removes it.
    pub folder: &'a Path,
    /// Where the answer about KVM is remembered.
    pub memory: &'a Path,
    /// This program, which QEMU starts as `PROGRAM metadata FOLDER`.
    pub program: &'a Path,
    pub boot_mode: Option<BootMode>,
    pub bus: DiskBus,
    /// What the guest's cloud-init is given.
    pub user_data: &'a [u8],
}

/// Boots an image on this terminal, over a throw-away layer on its disk, and waits for its end (Ctrl-A X).
///
/// # Errors
/// [`QemuError`]: QEMU or OVMF is not there, the image does not boot on this host, the folder cannot be written, or a
/// stop was asked for.
pub async fn interactive(session: Session<'_>, stop: &Stop) -> Result<Exit, QemuError> {
    bootable(session.image)?;
    let firmware = Firmware::choose(session.image.attributes.boot_mode, session.boot_mode)
        .map_err(|why| QemuError::BootMode { image: session.image.id.to_string(), why })?;
    let emulator = Emulator::detect(session.memory, stop).await?;
    let ovmf = own_firmware(firmware, &session.folder.join("variables.fd"))?;
    let identity = Identity::new();
    super::metadata::write(
        session.folder,
        &super::metadata::Metadata::of(session.image, &identity, None),
        session.user_data,
    )
    .map_err(|source| QemuError::Io { path: session.folder.to_owned(), source })?;
    let machine = Machine {
        emulator,
        ovmf,
        bus: session.bus,
        disk: session.disk.to_owned(),
        throw_away: true,
        console: Console::Terminal,
        identity,
        metadata: super::metadata::command(session.program, session.folder),
        ssh: None,
    };
    let command = Cmd::new(PROGRAM).args(machine.args()).env("TMPDIR", session.folder);
    Ok(command.interactive(stop).await?)
}

/// Why a machine cannot run on this host.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error("cannot tell QEMU's version from `{text}`")]
    Version { text: String },
    #[error(
        "OVMF, the firmware for images that boot with UEFI, is not installed (on Debian and Ubuntu: apt-get install ovmf)"
    )]
    NoOvmf,
    #[error("{image} cannot boot here: {why}")]
    BootMode { image: String, why: String },
    #[error("{image} is for {architecture}; the local cloud boots x86_64 images only")]
    Architecture { image: String, architecture: Architecture },
    #[error("cannot write {}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

#[cfg(test)]
mod tests {
    use super::super::accelerator::Accelerator;
    use super::*;

    fn machine() -> Machine {
        Machine {
            emulator: Emulator { version: (7, 2), accelerator: Accelerator::Tcg },
            ovmf: None,
            bus: DiskBus::Nvme,
            disk: "/a,b/disk.raw".into(),
            throw_away: false,
            console: Console::File("/a,b/console.log".into()),
            identity: Identity::new(),
            metadata: vec!["/it's here/bakehouse".into(), "metadata".into(), "/a,b".into()],
            ssh: None,
        }
    }

    fn line(machine: &Machine) -> String {
        let args = machine.args();
        let words: Vec<_> = args.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    #[test]
    fn paths_are_escaped_for_options_and_for_the_command_of_the_metadata_service() {
        let line = line(&machine());
        assert!(line.contains("file=/a,,b/disk.raw"), "{line}");
        assert!(line.contains("path=/a,,b/console.log"), "{line}");
        let command = r"-cmd:'/it'\''s here/bakehouse' 'metadata' '/a,,b'";
        assert!(line.contains(command), "{line}");
    }

    #[test]
    fn nothing_of_the_host_is_opened_to_the_network() {
        let line = line(&machine());
        for word in ["hostfwd", "-vnc", "-spice", "-qmp", "-monitor", "tcp:0"] {
            assert!(!line.contains(word), "{word}: {line}");
        }
    }

    #[test]
    fn the_guest_takes_it_for_an_instance() {
        let machine = machine();
        let line = line(&machine);
        assert!(machine.identity.uuid.starts_with("ec2"));
        assert!(line.contains(&format!("serial={0},uuid={0}", machine.identity.uuid)), "{line}");
        assert!(line.contains("nvme,drive=root,serial=vol"), "{line}");
    }

    #[test]
    fn firmware_bus_and_console_are_chosen() {
        let other = Machine {
            ovmf: Some(Ovmf { code: "/code.fd".into(), variables: "/vars.fd".into() }),
            bus: DiskBus::Virtio,
            throw_away: true,
            console: Console::Terminal,
            ..machine()
        };
        let line = line(&other);
        for part in [
            "if=pflash,format=raw,readonly=on,file=/code.fd",
            "if=pflash,format=raw,file=/vars.fd",
            "virtio-blk-pci,drive=root",
            "snapshot=on",
            "-serial mon:stdio",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(!line.contains("nvme"), "{line}");
    }
}
