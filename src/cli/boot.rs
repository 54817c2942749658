//! `bakehouse boot`: an image on this terminal.

use super::exit::Failure;
use super::images;
use super::session::{self, Global, Mounts};
use crate::cloud::BootMode;
use crate::ledger::Left;
use crate::local::qemu::{self, DiskBus};
use crate::method::WorkDir;

/// Boot an image in QEMU with its serial console on this terminal; Ctrl-A X ends it.
///
/// The image stays as it is: what the guest writes is gone when it ends. The image's default user gets a password for
/// this boot.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The image's id or name.
    image: String,
    /// The firmware, where the image can boot from both.
    #[arg(long, value_enum)]
    firmware: Option<Firmware>,
    /// How the disk is attached.
    #[arg(long, value_enum, default_value = "nvme")]
    bus: Bus,
}

#[derive(clap::ValueEnum, Debug, Clone, Copy)]
pub enum Firmware {
    Bios,
    Uefi,
}

impl Firmware {
    #[must_use]
    pub fn boot_mode(self) -> BootMode {
        match self {
            Self::Bios => BootMode::LegacyBios,
            Self::Uefi => BootMode::Uefi,
        }
    }
}

#[derive(clap::ValueEnum, Debug, Clone, Copy)]
pub enum Bus {
    Nvme,
    Virtio,
}

pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    session::run(global, Mounts::No, |session| async move {
        let store = session.local_store("boot", "on AWS `bakehouse test` boots the image of a record")?;
        let image = images::find(&args.image, &session).await?;
        let (snapshot, size) = images::root_snapshot(&image)?;
        let name = format!("boot-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let work = WorkDir::create(&global.work(), &name)?;
        session::work_in(&work)?;
        let phase = session.reporter.phase(format!("reading {}", image.id));
        store.write_disk(&session.cloud.place, &snapshot, &work.disk(), size, &session.stop).await?;
        phase.done();
        let program = std::env::current_exe()?;
        let password = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
        let user_data = format!("#cloud-config\npassword: {password}\nchpasswd: {{ expire: false }}\n");
        session.reporter.note(format!(
            "log in as the image's default user with the password {password}; Ctrl-A X ends the machine"
        ));
        let booted = qemu::interactive(
            qemu::Session {
                image: &image,
                disk: &work.disk(),
                folder: work.path(),
                memory: &store.place_dir(&session.cloud.place).join("instances/emulator.json"),
                program: &program,
                boot_mode: args.firmware.map(Firmware::boot_mode),
                bus: match args.bus {
                    Bus::Nvme => DiskBus::Nvme,
                    Bus::Virtio => DiskBus::Virtio,
                },
                user_data: user_data.as_bytes(),
            },
            &session.stop,
        )
        .await;
        let path = work.path().display().to_string();
        let closed = work.close();
        let exit = booted?;
        closed.map_err(|error| Failure::of(&error, Left::These(vec![path])))?;
        if exit.success() {
            Ok(())
        } else {
            let message = format!("QEMU ended with the exit code {}", exit.code);
            Err(Failure::Work { message, left: Left::Nothing }.into())
        }
    })
}
