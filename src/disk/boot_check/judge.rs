//! The judgement of what boot loaders would start, the same for all of them: the kernel and the initramfs are there,
//! with the drivers that EC2 needs, and the root is the one on this disk.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::entry::{Entry, Found, Image};
use super::initramfs::{self, InitramfsError, Limits, Modules};
use super::{BootCheckError, CheckedBoot, Sight, kernel};
use crate::disk::ids::DeviceName;
use crate::disk::table::{TYPE_ROOT_ARM64, TYPE_ROOT_X86_64, TableKind};
use crate::host::exec::ExecError;
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;

/// What EC2's disks and network need: Nitro instances show both as PCI devices (EC2 User Guide, "Instances built on the
/// Nitro System").
const DISK_MODULE: &str = "nvme";
const NETWORK_MODULE: &str = "ena";

/// Judges entries one after another.
pub(super) struct Judge<'a> {
    pub disk: Sight<'a>,
    pub limits: Limits,
    /// Several entries share one.
    pub initramfs: HashMap<Image, Result<Modules, String>>,
    pub good: Vec<CheckedBoot>,
    pub found: Found,
}

impl Judge<'_> {
    pub(super) async fn entry(&mut self, entry: &Entry, stop: &Stop) -> Result<(), BootCheckError> {
        let Entry { file, title, .. } = entry;
        let before = self.found.problems.len();
        if let Some(id) = entry.args.iter().find(|arg| arg.starts_with("systemd.machine_id=")) {
            self.found.warning(format!("{file}: {id} gives all machines of this image the same machine id"));
        }
        let root = self.root_argument(entry);
        self.subvolume(entry);
        self.is_there(file, title, "kernel", &entry.kernel);
        for image in &entry.initrds {
            self.is_there(file, title, "initramfs", image);
        }
        let mut version = None;
        if self.found.problems.len() == before {
            version = kernel::version(self.disk.root, &entry.kernel);
            if let Some(modules) = self.modules_of(entry, stop).await? {
                self.drivers(entry, version.as_deref(), &modules);
                if root == RootArgument::ByType && !modules.finds_root {
                    self.found.problem(
                        file,
                        format!(
                            "the entry `{title}` has no root= argument, and its initramfs cannot find a root without one (it has no systemd-gpt-auto-generator)"
                        ),
                    );
                }
            }
        }
        if self.found.problems.len() == before {
            self.good.push(CheckedBoot {
                file: file.clone(),
                title: title.clone(),
                kernel: entry.kernel.path.clone(),
                version,
                initrds: entry.initrds.iter().map(|image| image.path.clone()).collect(),
            });
        }
        Ok(())
    }

    /// `root=` names the root's partition, by a name that the disk carries along.
    fn root_argument(&mut self, entry: &Entry) -> RootArgument {
        let Entry { file, title, .. } = entry;
        let layout = self.disk.layout;
        // The kernel takes the last one.
        let value = entry.args.iter().rev().find_map(|arg| arg.strip_prefix("root="));
        let Some(value) = value.filter(|value| *value != "gpt-auto") else {
            return self.root_by_type(entry);
        };
        if value.contains('$') {
            self.found.warning(format!("{file}: root={value} of the entry `{title}` is not judged"));
            return RootArgument::Given;
        }
        let name = DeviceName::parse(value).filter(|name| !matches!(name, DeviceName::Number(_)));
        let Some(name) = name else {
            self.found.problem(
                file,
                format!(
                    "the entry `{title}` has root={value}, which depends on the machine; it must be root=UUID=, PARTUUID= or LABEL="
                ),
            );
            return RootArgument::Given;
        };
        match layout.ids.find(&name) {
            None => {
                self.found.problem(
                    file,
                    format!("the entry `{title}` has root={value}, which is not on this disk"),
                );
            }
            Some(found) if found.number() != layout.root.number() => {
                let reason =
                    format!("the entry `{title}` has root={value}, which is {found} and not the root");
                self.found.problem(file, reason);
            }
            Some(_) => {}
        }
        // The kernel itself knows partitions by their own ids only; the rest is found by the initramfs.
        let by_itself =
            matches!(name, DeviceName::PartUuid(_) | DeviceName::PartLabel(_)) && !value.starts_with("/dev/");
        if entry.initrds.is_empty() && !by_itself {
            self.found.problem(
                file,
                format!(
                    "the entry `{title}` has no initramfs, and without one the kernel cannot find root={value}"
                ),
            );
        }
        RootArgument::Given
    }

    /// `rootflags=` names the subvolume that was baked; where it names none, that is the default one.
    fn subvolume(&mut self, entry: &Entry) {
        let Some(own) = &self.disk.layout.subvolume else { return };
        let flags = entry.args.iter().rev().find_map(|arg| arg.strip_prefix("rootflags="));
        let asked =
            flags.unwrap_or_default().split(',').rev().find_map(|flag| match flag.split_once('=')? {
                ("subvol", path) => Some((flag, path.trim_matches('/') == own.path)),
                ("subvolid", id) => Some((flag, id.parse() == Ok(own.id))),
                _ => None,
            });
        let (title, default) = (&entry.title, &self.disk.layout.default_subvolume);
        let reason = match (asked, default) {
            (Some((flag, false)), _) => {
                format!("the entry `{title}` boots {flag}, and the root that was found is {own}")
            }
            (None, Some(default)) if default != own => format!(
                "the entry `{title}` names no subvolume and boots {default}, and the root that was found is {own}; it \
                 must have rootflags=subvol={}",
                own.path
            ),
            _ => return,
        };
        self.found.problem(&entry.file, reason);
    }

    /// Without `root=`, systemd in the initramfs takes the partition with a root's type, on the disk that the loader was
    /// on (systemd-gpt-auto-generator(8)).
    fn root_by_type(&mut self, entry: &Entry) -> RootArgument {
        let layout = self.disk.layout;
        let type_id = &layout.root.partition.type_id;
        let is_root =
            [TYPE_ROOT_X86_64, TYPE_ROOT_ARM64].iter().any(|root| type_id.eq_ignore_ascii_case(root));
        let reason = if !entry.tells_disk {
            String::new()
        } else if layout.ids.kind != TableKind::Gpt || !is_root {
            format!(", and {} has not the type of a root, by which it would be found without", layout.root)
        } else if entry.initrds.is_empty() {
            ", and no initramfs that would find it without".to_owned()
        } else {
            return RootArgument::ByType;
        };
        self.found.problem(&entry.file, format!("the entry `{}` has no root= argument{reason}", entry.title));
        RootArgument::Given
    }

    fn is_there(&mut self, file: &str, title: &str, what: &str, image: &Image) {
        let Image { path, .. } = image;
        let reason = match self.disk.root.open_file(path).and_then(|found| found.metadata()) {
            Ok(found) if found.len() > 0 => return,
            Ok(_) => "is empty".to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => "is not in the image".to_owned(),
            Err(error) => format!("cannot be read: {error}"),
        };
        self.found.problem(file, format!("the {what} {path} of the entry `{title}` {reason}"));
    }

    /// All modules of an entry's images together; `None` where one cannot be read, with a problem made.
    async fn modules_of(&mut self, entry: &Entry, stop: &Stop) -> Result<Option<Modules>, BootCheckError> {
        let mut all = Modules::default();
        for image in &entry.initrds {
            if !self.initramfs.contains_key(image) {
                let read = match open(self.disk.root, image, self.limits) {
                    Ok(opened) => initramfs::modules(opened, self.limits, stop).await,
                    Err(error) => Err(error),
                };
                let read = match read {
                    Err(InitramfsError::Exec(error @ ExecError::Stopped { .. })) => {
                        return Err(error.into());
                    }
                    other => other.map_err(|error| error.to_string()),
                };
                self.initramfs.insert(image.clone(), read);
            }
            match &self.initramfs[image] {
                Ok(modules) => all.extend(modules),
                Err(reason) => {
                    self.found.problem(&image.path, reason.clone());
                    return Ok(None);
                }
            }
        }
        Ok(Some(all))
    }

    /// The drivers that the kernel has when it looks for its root.
    fn drivers(&mut self, entry: &Entry, version: Option<&str>, modules: &Modules) {
        let Entry { file, title, initrds, .. } = entry;
        // A kernel whose version cannot be told has the modules that stand beside it.
        let only = || {
            let mut versions = modules.by_version.keys();
            versions.next().filter(|_| versions.next().is_none()).map(String::as_str)
        };
        let Some(version) = version.or_else(only) else {
            self.found.warning(format!(
                "{file}: the version of the entry `{title}`'s kernel is not known; its drivers are not judged"
            ));
            return;
        };
        let mut have = kernel::built_in(self.disk.root, version);
        have.extend(modules.by_version.get(version).into_iter().flatten().cloned());
        let filesystem = self.disk.layout.root.filesystem.as_ref().and_then(|found| found.kind.module());
        // Without an initramfs the network's driver is loaded from the root.
        let network = (!initrds.is_empty()).then_some(NETWORK_MODULE);
        let missing: Vec<&str> = [Some(DISK_MODULE), network, filesystem]
            .into_iter()
            .flatten()
            .filter(|name| !have.contains(*name))
            .collect();
        if missing.is_empty() {
            return;
        }
        let missing = missing.join(", ");
        match initrds.last() {
            Some(initrd) => {
                let others: Vec<&str> = modules.by_version.keys().map(String::as_str).collect();
                let others = if others.is_empty() || modules.by_version.contains_key(version) {
                    String::new()
                } else {
                    format!("; its modules are of {}", others.join(", "))
                };
                self.found.problem(
                    &initrd.path,
                    format!(
                        "it lacks what EC2 needs: {missing} (neither in it nor built into the kernel {version}){others}"
                    ),
                );
            }
            None => self.found.problem(
                file,
                format!(
                    "the entry `{title}` has no initramfs, and the kernel {version} has not built in: {missing}"
                ),
            ),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RootArgument {
    /// There is one, or it was judged already that there is none.
    Given,
    /// The initramfs must find the root by its partition's type.
    ByType,
}

/// An initramfs as a file of its own: a part of a file is copied out.
fn open(root: &RootDir, image: &Image, limits: Limits) -> Result<File, InitramfsError> {
    let mut file = root.open_file(&image.path)?;
    let Some(part) = &image.part else {
        return Ok(file);
    };
    if part.end - part.start > limits.packed {
        return Err(InitramfsError::TooLarge { what: "the initramfs in it", limit: limits.packed });
    }
    file.seek(SeekFrom::Start(part.start))?;
    let mut copy = tempfile::tempfile()?;
    io::copy(&mut file.take(part.end - part.start), &mut copy)?;
    copy.rewind()?;
    Ok(copy)
}
