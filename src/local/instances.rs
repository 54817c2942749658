//! Instances of the local cloud: each a QEMU in a session of its own, which outlives its launcher and ends by itself
//! when its life is over, as on EC2.
//!
//! An instance is a folder: its record, its disk, its console. Whether it runs is told by a lock that its processes
//! hold, which the kernel gives back however they end: no process id is ever taken for another's. A guest that powers
//! itself off is terminated, not stopped: nothing starts it again. What the folder holds is instance_folder.rs's.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use super::accelerator::Emulator;
use super::commands;
use super::firmware::Firmware;
use super::instance_folder::{InstanceFolder, Record, VERSION, held};
use super::laws;
use super::metadata::{self, Identity, Metadata};
use super::qemu::{Console, DiskBus, Machine, PROGRAM, QemuError, bootable, own_firmware};
use super::{Store, StoreError};
use crate::cloud::{
    BUILD_KEY, CloudError, Digest, ErrorKind, Image, ImageState, Instance, InstanceId, InstanceQuery,
    InstanceState, Instances, NewInstance, Place, Result, Token,
};
use crate::host::clock;
use crate::host::exec::Cmd;
use crate::host::lock::FileLock;
use crate::host::stop::Stop;

const RUN: &str = "RunInstances";
const DESCRIBE: &str = "DescribeInstances";
const CONSOLE: &str = "GetConsoleOutput";
const STOP: &str = "StopInstances";
const TERMINATE: &str = "TerminateInstances";

/// Bytes of user data that EC2 takes.
const LARGEST_USER_DATA: usize = 16 * 1024;
/// How long a terminated instance is still described, as on EC2: about an hour.
const REMEMBERED: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);
/// A QEMU that does not like its arguments ends within milliseconds; one that still runs after this has begun.
const SETTLED: Duration = Duration::from_millis(500);
/// How long a killed process may take to be gone: it may be writing to a slow disk.
const DYING: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);
/// How long a guest may take to power itself off when it is asked: as EC2, which takes it by force after some minutes.
const POWERING_OFF: Duration = Duration::from_secs(120);

/// What the wrapper does around QEMU, in the instance's folder: leaves its process id, takes the lock that says that it
/// lives, and ends QEMU when its life is over. All of it is one process group, `timeout`'s.
const WRAPPER: &str = "cat /proc/$$/stat >process; exec flock --wait 10 --no-fork alive timeout --signal=KILL \"$@\" 2>>qemu.log";

/// The instances of one place.
#[derive(Clone, Debug)]
pub struct LocalInstances {
    store: Store,
    place: Place,
    program: Option<PathBuf>,
}

impl LocalInstances {
    #[must_use]
    pub fn new(store: Store, place: Place) -> Self {
        Self { store, place, program: None }
    }

    /// With `program` as the one that answers the metadata service's connections (`PROGRAM metadata FOLDER`); else it
    /// is this process's own.
    #[must_use]
    pub fn with_program(mut self, program: &Path) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    fn folder(&self) -> PathBuf {
        self.store.place_dir(&self.place).join("instances")
    }

    fn error(&self, operation: &'static str, kind: ErrorKind, message: impl Into<String>) -> CloudError {
        CloudError::new(kind, operation, &self.place, message)
    }

    fn refused(&self, code: &str, message: impl Into<String>) -> CloudError {
        self.error(RUN, ErrorKind::Invalid, message).with_code(code)
    }

    /// For `map_err` of what the host refuses.
    fn io(&self, operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CloudError {
        let message = format!("{} cannot be used", path.display());
        let place = self.place.clone();
        move |source| {
            let kind = match source.kind() {
                io::ErrorKind::StorageFull => ErrorKind::Quota,
                _ => ErrorKind::Unknown,
            };
            CloudError::new(kind, operation, &place, message).with_source(source)
        }
    }

    fn qemu(&self, error: QemuError) -> CloudError {
        let kind = match &error {
            QemuError::BootMode { .. } | QemuError::Architecture { .. } => ErrorKind::Invalid,
            _ => ErrorKind::Unknown,
        };
        self.error(RUN, kind, "the instance cannot run on this host").with_source(error)
    }

    fn missing(&self, operation: &'static str, id: &InstanceId) -> CloudError {
        self.error(operation, ErrorKind::NotFound, format!("there is no instance {id}"))
            .with_code("InvalidInstanceID.NotFound")
    }

    /// The folder of an instance that exists.
    fn home(&self, operation: &'static str, id: &InstanceId) -> Result<InstanceFolder> {
        let home = InstanceFolder(self.folder().join(id.as_str()));
        match home.read() {
            Ok(Some(_)) => Ok(home),
            Ok(None) => Err(self.missing(operation, id)),
            Err(source) => Err(self.io(operation, &home.0)(source)),
        }
    }

    fn homes(&self) -> io::Result<Vec<InstanceFolder>> {
        let mut homes = Vec::new();
        let entries = match std::fs::read_dir(self.folder()) {
            // Nothing was ever launched here.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(homes),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_name().to_str().and_then(InstanceId::parse).is_some() {
                homes.push(InstanceFolder(entry.path()));
            }
        }
        Ok(homes)
    }

    /// Takes away what instances that ended by themselves left, and forgets those that ended long ago. The caller holds
    /// the folder's lock.
    fn tidy(&self) -> io::Result<u64> {
        let over = self.over()?;
        let count = over.len() as u64;
        for Over { home, ended } in over {
            match ended {
                None => std::fs::remove_dir_all(&home.0)?,
                Some((record, reason)) => home.end(record, reason)?,
            }
        }
        Ok(count)
    }

    /// What is over.
    fn over(&self) -> io::Result<Vec<Over>> {
        let mut over = Vec::new();
        for home in self.homes()? {
            let Some(record) = home.read()? else {
                over.push(Over { home, ended: None });
                continue;
            };
            match (&record.ended, home.state(&record)?) {
                (Some(ended), _) if clock::wall().duration_since(ended.at) > REMEMBERED => {
                    over.push(Over { home, ended: None });
                }
                (None, (InstanceState::Terminated, reason)) => {
                    over.push(Over { home, ended: Some((record, reason.unwrap_or_default())) });
                }
                _ => {}
            }
        }
        Ok(over)
    }

    /// How many instances that ended still have something here.
    pub(super) fn leftovers(&self) -> std::result::Result<u64, StoreError> {
        let folder = self.folder();
        Ok(self.over().map_err(StoreError::io("look at", &folder))?.len() as u64)
    }

    /// Takes that away.
    pub(super) fn clear_leftovers(&self) -> std::result::Result<u64, StoreError> {
        let folder = self.folder();
        if !folder.exists() {
            return Ok(0);
        }
        let lock = folder.join("lock");
        let _lock = FileLock::exclusive(&lock).map_err(StoreError::io("lock", &lock))?;
        self.tidy().map_err(StoreError::io("tidy", &folder))
    }

    /// The instance that this token already made.
    fn known(&self, token: &Token, request: &str) -> Result<Option<InstanceId>> {
        let folder = self.folder();
        for home in self.homes().map_err(self.io(RUN, &folder))? {
            let Some(record) = home.read().map_err(self.io(RUN, &home.0))? else {
                continue;
            };
            if record.token != token.as_str() {
                continue;
            }
            if record.request != request {
                return Err(self
                    .error(RUN, ErrorKind::Exists, "the token was used for another request")
                    .with_code("IdempotentParameterMismatch"));
            }
            return Ok(InstanceId::parse(&record.identity.instance));
        }
        Ok(None)
    }

    /// What is wrong with a request, before anything of it exists.
    fn check(&self, new: &NewInstance) -> Result<Order> {
        if new.user_data.len() > LARGEST_USER_DATA {
            return Err(self.refused(
                "InvalidParameterValue",
                format!(
                    "user data is limited to {LARGEST_USER_DATA} bytes; these are {}",
                    new.user_data.len()
                ),
            ));
        }
        let bus = match new.kind.as_deref() {
            None | Some("qemu.nvme") => DiskBus::Nvme,
            Some("qemu.virtio") => DiskBus::Virtio,
            Some(other) => {
                return Err(self.refused(
                    "InvalidParameterValue",
                    format!("`{other}` is no instance type of the local cloud; its own are qemu.nvme and qemu.virtio"),
                ));
            }
        };
        if new.lifetime_seconds == 0 {
            return Err(self.refused("InvalidParameterValue", "an instance must live for a second or longer"));
        }
        let image = self.store.image(&self.place, &new.image)?;
        if image.state != ImageState::Available {
            return Err(self.refused("InvalidAMIID.Unavailable", format!("{} is not available", image.id)));
        }
        let Some((volume, _)) = image.root() else {
            return Err(self.refused(
                "InvalidAMIID.Unavailable",
                format!("{} has no root volume with a snapshot", image.id),
            ));
        };
        let size = new.root_size.unwrap_or(volume.size);
        if size < volume.size {
            return Err(self.refused(
                "InvalidBlockDeviceMapping",
                format!("the root volume of {} has {} GiB and cannot be made smaller", image.id, volume.size),
            ));
        }
        bootable(&image).map_err(|error| self.qemu(error))?;
        let firmware = Firmware::choose(image.attributes.boot_mode, new.boot_mode)
            .map_err(|why| self.refused("InvalidParameterValue", format!("{}: {why}", image.id)))?;
        Ok(Order { image, size, firmware, bus })
    }

    /// Makes all that the machine needs and starts it.
    async fn start(
        &self,
        home: &InstanceFolder,
        record: &Record,
        order: &Order,
        user_data: &[u8],
    ) -> Result<()> {
        let folder = &home.0;
        let Some((_, snapshot)) = order.image.root() else {
            return Err(self.refused("InvalidAMIID.Unavailable", "the image has no root volume"));
        };
        // A launch is a call of the cloud: it is not given up half-way.
        let never = Stop::never();
        let disk = folder.join("disk.raw");
        self.store.write_disk(&self.place, snapshot, &disk, order.size, &never).await?;
        let emulator = Emulator::detect(&self.folder().join("emulator.json"), &never)
            .await
            .map_err(|error| self.qemu(error))?;
        let ovmf =
            own_firmware(order.firmware, &folder.join("variables.fd")).map_err(|error| self.qemu(error))?;
        let served = Metadata::of(&order.image, &record.identity, Some(&self.place));
        let mut served = served;
        if record.build {
            served.set_key(&self.make_key(folder).await?);
        }
        metadata::write(folder, &served, user_data).map_err(self.io(RUN, folder))?;
        let program = match &self.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().map_err(self.io(RUN, Path::new("/proc/self/exe")))?,
        };
        let machine = Machine {
            emulator,
            ovmf,
            bus: order.bus,
            disk,
            throw_away: false,
            console: Console::File(folder.join("console.log")),
            metadata: metadata::command(&program, folder),
            ssh: record.port,
            identity: record.identity.clone(),
        };
        Cmd::new("sh")
            .args(["-c", WRAPPER, "bakehouse-instance"])
            .arg(record.lifetime_seconds.to_string())
            .arg(PROGRAM)
            .args(machine.args())
            .cwd(folder)
            .detach()
            .map_err(|error| self.qemu(error.into()))?;
        self.begun(home).await
    }

    /// Makes the key by which commands get into the instance, and gives its public half.
    async fn make_key(&self, folder: &Path) -> Result<String> {
        let path = commands::key(folder);
        Cmd::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", BUILD_KEY, "-f"])
            .arg(&path)
            .run(&Stop::never())
            .await
            .map_err(|error| {
                let message = "no key can be made (on Debian and Ubuntu: apt-get install openssh-client)";
                self.error(RUN, ErrorKind::Unknown, message).with_source(error)
            })?;
        let public = path.with_extension("pub");
        std::fs::read_to_string(&public).map_err(self.io(RUN, &public))
    }

    /// Waits until the machine runs, or takes what it said when it ended at once.
    async fn begun(&self, home: &InstanceFolder) -> Result<()> {
        let began = tokio::time::Instant::now();
        let mut ran = false;
        loop {
            let runs = home.runs().map_err(self.io(RUN, &home.0))?;
            ran |= runs;
            let waited = began.elapsed();
            if ran && runs && waited >= SETTLED {
                return Ok(());
            }
            let words = home.last_words();
            match words {
                Some(words) if !runs => {
                    return Err(self.error(RUN, ErrorKind::Unknown, format!("QEMU ended at once: {words}")));
                }
                // A guest may be quicker than this: it ran.
                None if ran && !runs => return Ok(()),
                // The wrapper waits 10 s for its lock; on a busy machine it may need as long to begin.
                _ if !ran && waited >= DYING => {
                    return Err(self.error(RUN, ErrorKind::Unknown, "QEMU did not begin"));
                }
                _ => {}
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends what runs, if anything does, and waits until it is gone.
    async fn kill(&self, operation: &'static str, home: &InstanceFolder) -> Result<()> {
        home.kill().map_err(self.io(operation, &home.0))?;
        let began = tokio::time::Instant::now();
        while home.runs().map_err(self.io(operation, &home.0))? {
            if began.elapsed() > DYING {
                return Err(self.error(
                    operation,
                    ErrorKind::Transient,
                    format!(
                        "the QEMU of {} does not end; is it another host's or container's?",
                        home.0.display()
                    ),
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// An instance that is over.
struct Over {
    home: InstanceFolder,
    /// Its record and why it ended, where its disk is still there; `None` where it is to be forgotten, or never began.
    ended: Option<(Record, String)>,
}

/// A request that was checked.
struct Order {
    image: Image,
    size: u32,
    firmware: Firmware,
    bus: DiskBus,
}

/// A port of the loopback address that nobody has now. Where somebody takes it before QEMU does, QEMU ends at once.
fn free_port() -> io::Result<u16> {
    Ok(std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Tells requests apart: the same token must come with the same one.
fn request_of(new: &NewInstance) -> String {
    let text = format!(
        "{}\n{:?}\n{}\n{:?}\n{:?}\n{}\n{:?}\n{:?}",
        new.image,
        new.kind,
        Digest::of(&new.user_data),
        new.boot_mode,
        new.root_size,
        new.lifetime_seconds,
        new.build,
        new.tags
    );
    Digest::of(text.as_bytes()).hex()
}

#[async_trait]
impl Instances for LocalInstances {
    async fn launch(&self, new: &NewInstance, token: &Token) -> Result<InstanceId> {
        let request = request_of(new);
        let folder = self.folder();
        std::fs::create_dir_all(&folder).map_err(self.io(RUN, &folder))?;
        let (home, record, order, _launching) = {
            let lock = folder.join("lock");
            let _lock = FileLock::exclusive(&lock).map_err(self.io(RUN, &lock))?;
            self.tidy().map_err(self.io(RUN, &folder))?;
            if let Some(known) = self.known(token, &request)? {
                return Ok(known);
            }
            let order = self.check(new)?;
            let record = Record {
                version: VERSION,
                identity: Identity::new(),
                image: new.image.clone(),
                tags: new.tags.clone(),
                token: token.as_str().to_owned(),
                request,
                lifetime_seconds: new.lifetime_seconds,
                launched: clock::wall(),
                build: new.build.is_some(),
                root: new.build.as_ref().and_then(|build| build.root),
                port: new.build.is_some().then(free_port).transpose().map_err(self.io(RUN, &folder))?,
                ended: None,
            };
            let home = InstanceFolder(folder.join(&record.identity.instance));
            std::fs::create_dir(&home.0).map_err(self.io(RUN, &home.0))?;
            let launching = FileLock::exclusive(&home.0.join("launching")).map_err(self.io(RUN, &home.0))?;
            home.write(&record).map_err(self.io(RUN, &home.0))?;
            (home, record, order, launching)
        };
        if let Err(error) = self.start(&home, &record, &order, &new.user_data).await {
            // Nothing of an instance that was never there stays; the first error is the one to tell.
            let _ = self.kill(RUN, &home).await;
            let _ = std::fs::remove_dir_all(&home.0);
            return Err(error);
        }
        InstanceId::parse(&record.identity.instance)
            .ok_or_else(|| self.error(RUN, ErrorKind::Unknown, "the instance's id is none"))
    }

    async fn find(&self, query: &InstanceQuery) -> Result<Vec<Instance>> {
        let folder = self.folder();
        let homes = if query.ids.is_empty() {
            self.homes().map_err(self.io(DESCRIBE, &folder))?
        } else {
            query.ids.iter().map(|id| self.home(DESCRIBE, id)).collect::<Result<_>>()?
        };
        let mut found = Vec::new();
        for home in homes {
            // Forgotten since it was listed.
            let Some(record) = home.read().map_err(self.io(DESCRIBE, &home.0))? else { continue };
            if !laws::has_tags(&record.tags, &query.tags, &query.tag_keys) {
                continue;
            }
            let (state, reason) = home.state(&record).map_err(self.io(DESCRIBE, &home.0))?;
            let id = InstanceId::parse(&record.identity.instance)
                .ok_or_else(|| self.error(DESCRIBE, ErrorKind::Unknown, "the instance's id is none"))?;
            found.push(Instance {
                id,
                image: record.image,
                state,
                reason,
                ended_by_cloud: false,
                tags: record.tags,
            });
        }
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    async fn describe(&self, id: &InstanceId) -> Result<Instance> {
        let query = InstanceQuery { ids: vec![id.clone()], ..InstanceQuery::default() };
        let found = self.find(&query).await?.into_iter().next();
        found.ok_or_else(|| self.missing(DESCRIBE, id))
    }

    async fn console(&self, id: &InstanceId) -> Result<Vec<u8>> {
        let home = self.home(CONSOLE, id)?;
        home.console().map_err(self.io(CONSOLE, &home.0))
    }

    /// A guest that does not end by itself is ended: it is asked through its ssh where there is one.
    async fn stop(&self, id: &InstanceId) -> Result<()> {
        let home = self.home(STOP, id)?;
        let record = home.read().map_err(self.io(STOP, &home.0))?;
        let Some(record) = record.filter(|record| record.build) else {
            return Err(self
                .error(STOP, ErrorKind::Invalid, format!("{id} was not launched to be stopped"))
                .with_code("UnsupportedOperation"));
        };
        if let Some(port) = record.port.filter(|_| home.runs().is_ok_and(|runs| runs)) {
            commands::power_off(&home.0, port).await;
            let began = tokio::time::Instant::now();
            while home.runs().map_err(self.io(STOP, &home.0))? && began.elapsed() < POWERING_OFF {
                tokio::time::sleep(LOOK).await;
            }
        }
        self.kill(STOP, &home).await
    }

    async fn terminate(&self, id: &InstanceId) -> Result<()> {
        let home = self.home(TERMINATE, id)?;
        if held(&home.0.join("launching")).map_err(self.io(TERMINATE, &home.0))? {
            return Err(self
                .error(TERMINATE, ErrorKind::NotYet, format!("{id} is still being launched"))
                .with_code("IncorrectInstanceState"));
        }
        self.kill(TERMINATE, &home).await?;
        let lock = self.folder().join("lock");
        let _lock = FileLock::exclusive(&lock).map_err(self.io(TERMINATE, &lock))?;
        match home.read().map_err(self.io(TERMINATE, &home.0))? {
            Some(record) if record.ended.is_none() => {
                home.end(record, "terminated by the user".to_owned()).map_err(self.io(TERMINATE, &home.0))
            }
            _ => Ok(()),
        }
    }
}
