//! Will it boot? The last look at a root before its disk is stored: that every entry of the boot menu leads to a kernel, an
//! initramfs and a root that are on this disk, with the drivers that EC2 needs. Changes nothing, and believes nothing
//! that the root says without a look.

pub mod grub;
pub mod initramfs;
mod kernel;

use std::collections::HashMap;
use std::io::{self, Read};

use super::ids::{DeviceName, Volume};
use super::layout::Layout;
use crate::host::exec::ExecError;
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;
use grub::Boot;
use initramfs::{InitramfsError, Limits, Modules};

/// Menus, in the places of Debian's and of Red Hat's GRUB.
const MENUS: [&str; 4] =
    ["/boot/grub/grub.cfg", "/boot/grub/custom.cfg", "/boot/grub2/grub.cfg", "/boot/grub2/custom.cfg"];
/// What other loaders read. They are named, not judged.
const OTHER_LOADERS: [(&str, &str); 4] = [
    ("/boot/loader/entries", "boot loader entries (BLS)"),
    ("/boot/efi/EFI/Linux", "unified kernel images"),
    ("/boot/efi/loader/entries", "systemd-boot's entries"),
    ("/boot/extlinux/extlinux.conf", "extlinux"),
];
/// What EC2's disks and network need: Nitro instances show both as PCI devices (EC2 User Guide, "Instances built on the
/// Nitro System").
const DISK_MODULE: &str = "nvme";
const NETWORK_MODULE: &str = "ena";
/// A menu or settings file larger than this is none.
const LARGEST_TEXT: u64 = 4 << 20;
/// Bounds of the walk below `/boot`.
const DEEPEST: usize = 8;
const MOST_FILES: usize = 20_000;

/// What was found good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub boots: Vec<CheckedBoot>,
    /// What could not be judged, for the report.
    pub warnings: Vec<String>,
}

/// One entry that leads to a kernel and a root of this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedBoot {
    /// The menu's file.
    pub file: String,
    pub title: String,
    /// As the root sees it.
    pub kernel: String,
    /// The kernel's version, where it could be found.
    pub version: Option<String>,
    pub initrds: Vec<String>,
}

/// What keeps an image from booting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    pub reason: String,
}

/// Looks at the boot files of a root whose file systems are mounted as `layout` says.
///
/// # Errors
/// [`BootCheckError::Problems`] with all that is wrong; or a stop.
pub async fn check(root: &RootDir, layout: &Layout, stop: &Stop) -> Result<Checked, BootCheckError> {
    check_within(root, layout, Limits::default(), stop).await
}

/// [`check`] with other bounds for an initramfs than the usual.
///
/// # Errors
/// As [`check`].
pub async fn check_within(
    root: &RootDir,
    layout: &Layout,
    limits: Limits,
    stop: &Stop,
) -> Result<Checked, BootCheckError> {
    let mut check = Check {
        root,
        layout,
        limits,
        initramfs: HashMap::new(),
        done: Checked::default(),
        problems: Vec::new(),
    };
    check.loop_devices();
    for file in MENUS {
        check.menu(file, stop).await?;
    }
    for (path, what) in OTHER_LOADERS {
        if root.exists(path) {
            check.done.warnings.push(format!("{path}: {what} are not judged"));
        }
    }
    // Where something was not judged, it may be what boots.
    if check.done.boots.is_empty() && check.problems.is_empty() && check.done.warnings.is_empty() {
        check.problem("/boot", "no menu with an entry that boots Linux was found");
    }
    if check.problems.is_empty() {
        Ok(check.done)
    } else {
        Err(BootCheckError::Problems { problems: check.problems })
    }
}

struct Check<'a> {
    root: &'a RootDir,
    layout: &'a Layout,
    limits: Limits,
    /// By path; several entries share one.
    initramfs: HashMap<String, Result<Modules, String>>,
    done: Checked,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn problem(&mut self, file: &str, reason: impl Into<String>) {
        let problem = Problem { file: file.to_owned(), reason: reason.into() };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn warning(&mut self, text: String) {
        if !self.done.warnings.contains(&text) {
            self.done.warnings.push(text);
        }
    }

    async fn menu(&mut self, file: &str, stop: &Stop) -> Result<(), BootCheckError> {
        let text = match read_text(self.root, file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A link that leads nowhere is a menu that GRUB will not find.
                if self.root.symlink_metadata(file).is_ok() {
                    self.problem(file, "it is a link that leads to nothing in the image");
                }
                return Ok(());
            }
            Err(error) => {
                self.problem(file, format!("it cannot be read: {error}"));
                return Ok(());
            }
        };
        let menu = match grub::parse(&text) {
            Ok(menu) => menu,
            Err(reason) => {
                self.problem(file, reason);
                return Ok(());
            }
        };
        for search in &menu.searches {
            if search.contains('$') {
                self.warning(format!("{file}: a search for `{search}` is not judged"));
            } else if DeviceName::parse(search).and_then(|name| self.layout.ids.find(&name)).is_none() {
                self.problem(file, format!("it searches for {search}, which is not on this disk"));
            }
        }
        for what in &menu.unknown {
            self.warning(format!("{file}: `{what}` is not judged"));
        }
        for boot in &menu.boots {
            // The memory test boots like a kernel and needs no root.
            if base_name(&boot.kernel).starts_with("memtest") {
                continue;
            }
            if boot.kernel.contains('$') {
                self.warning(format!(
                    "{file}: the entry `{}` with the kernel `{}` is not judged",
                    boot.title, boot.kernel
                ));
                continue;
            }
            self.boot(file, boot, stop).await?;
        }
        Ok(())
    }

    async fn boot(&mut self, file: &str, boot: &Boot, stop: &Stop) -> Result<(), BootCheckError> {
        let before = self.problems.len();
        let title = &boot.title;
        self.root_argument(file, boot);
        let Some(kernel) = self.locate(file, boot, &boot.kernel) else {
            return Ok(());
        };
        let mut initrds = Vec::new();
        for initrd in &boot.initrds {
            if let Some(path) = self.locate(file, boot, initrd) {
                initrds.push(path);
            }
        }
        if initrds.len() != boot.initrds.len() {
            return Ok(());
        }
        self.file_exists(file, title, "kernel", &kernel);
        let mut version = None;
        if self.problems.len() == before {
            version = kernel::version(self.root, &kernel);
            let modules = self.modules_of(file, title, &initrds, stop).await?;
            if let Some(modules) = modules {
                self.drivers(file, boot, version.as_deref(), &initrds, &modules);
            }
        }
        if self.problems.len() == before {
            self.done.boots.push(CheckedBoot {
                file: file.to_owned(),
                title: title.clone(),
                kernel,
                version,
                initrds,
            });
        }
        Ok(())
    }

    /// `root=` names the root's partition, by a name that the disk carries along.
    fn root_argument(&mut self, file: &str, boot: &Boot) {
        let title = &boot.title;
        // The kernel takes the last one.
        let Some(value) = boot.args.iter().rev().find_map(|arg| arg.strip_prefix("root=")) else {
            self.problem(file, format!("the entry `{title}` has no root= argument"));
            return;
        };
        if value.contains('$') {
            self.warning(format!("{file}: root={value} of the entry `{title}` is not judged"));
            return;
        }
        let name = DeviceName::parse(value).filter(|name| !matches!(name, DeviceName::Number(_)));
        let Some(name) = name else {
            self.problem(
                file,
                format!(
                    "the entry `{title}` has root={value}, which depends on the machine; it must be root=UUID=, PARTUUID= or LABEL="
                ),
            );
            return;
        };
        match self.layout.ids.find(&name) {
            None => {
                self.problem(
                    file,
                    format!("the entry `{title}` has root={value}, which is not on this disk"),
                );
            }
            Some(found) if found.number() != self.layout.root.number() => {
                let reason =
                    format!("the entry `{title}` has root={value}, which is {found} and not the root");
                self.problem(file, reason);
            }
            Some(_) => {}
        }
        // The kernel itself knows partitions by their own ids only; the rest is found by the initramfs.
        let by_itself =
            matches!(name, DeviceName::PartUuid(_) | DeviceName::PartLabel(_)) && !value.starts_with("/dev/");
        if boot.initrds.is_empty() && !by_itself {
            self.problem(
                file,
                format!(
                    "the entry `{title}` has no initramfs, and without one the kernel cannot find root={value}"
                ),
            );
        }
    }

    /// Where a path that GRUB reads is in the root; `None` where that cannot be said, with a problem or warning made.
    fn locate(&mut self, file: &str, boot: &Boot, path: &str) -> Option<String> {
        let (place, path) = match path.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            Some((place, path)) => (place, path),
            None => (boot.place.as_str(), path),
        };
        let title = &boot.title;
        if path.contains('$') || place.contains('$') {
            self.warning(format!("{file}: `({place}){path}` of the entry `{title}` is not judged"));
            return None;
        }
        let volume = if place.is_empty() {
            // GRUB's root is then where its own folder is.
            self.layout.boot.as_ref().unwrap_or(&self.layout.root)
        } else {
            let name = grub_device(place).or_else(|| DeviceName::parse(place));
            match name.and_then(|name| self.layout.ids.find(&name)) {
                Some(volume) => volume,
                None => {
                    self.problem(
                        file,
                        format!("the entry `{title}` loads from ({place}), which is not on this disk"),
                    );
                    return None;
                }
            }
        };
        match mounted_at(self.layout, volume) {
            Some(folder) => Some(format!("{folder}/{}", path.trim_start_matches('/'))),
            None => {
                let text =
                    format!("{file}: `{path}` of the entry `{title}` is on {volume}, which is not mounted");
                self.warning(text);
                None
            }
        }
    }

    fn file_exists(&mut self, file: &str, title: &str, what: &str, path: &str) -> bool {
        let reason = match self.root.open_file(path).and_then(|found| found.metadata()) {
            Ok(found) if found.len() > 0 => return true,
            Ok(_) => "is empty".to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => "is not in the image".to_owned(),
            Err(error) => format!("cannot be read: {error}"),
        };
        self.problem(file, format!("the {what} {path} of the entry `{title}` {reason}"));
        false
    }

    /// All modules of an entry's images together; `None` where one cannot be read, with a problem made.
    async fn modules_of(
        &mut self,
        file: &str,
        title: &str,
        initrds: &[String],
        stop: &Stop,
    ) -> Result<Option<Modules>, BootCheckError> {
        let mut all = Modules::default();
        for path in initrds {
            if !self.file_exists(file, title, "initramfs", path) {
                return Ok(None);
            }
            if !self.initramfs.contains_key(path) {
                let opened = self.root.open_file(path).map_err(InitramfsError::from);
                let read = match opened {
                    Ok(opened) => initramfs::modules(opened, self.limits, stop).await,
                    Err(error) => Err(error),
                };
                let read = match read {
                    Err(InitramfsError::Exec(error @ ExecError::Stopped { .. })) => {
                        return Err(error.into());
                    }
                    other => other.map_err(|error| error.to_string()),
                };
                self.initramfs.insert(path.clone(), read);
            }
            match &self.initramfs[path] {
                Ok(modules) => {
                    for (version, names) in &modules.by_version {
                        all.by_version.entry(version.clone()).or_default().extend(names.iter().cloned());
                    }
                }
                Err(reason) => {
                    let reason = reason.clone();
                    self.problem(path, reason);
                    return Ok(None);
                }
            }
        }
        Ok(Some(all))
    }

    /// The drivers that the kernel has when it looks for its root.
    fn drivers(
        &mut self,
        file: &str,
        boot: &Boot,
        version: Option<&str>,
        initrds: &[String],
        modules: &Modules,
    ) {
        let title = &boot.title;
        // A kernel whose version cannot be told has the modules that stand beside it.
        let only = || {
            let mut versions = modules.by_version.keys();
            versions.next().filter(|_| versions.next().is_none()).map(String::as_str)
        };
        let Some(version) = version.or_else(only) else {
            self.warning(format!(
                "{file}: the version of the entry `{title}`'s kernel is not known; its drivers are not judged"
            ));
            return;
        };
        let mut have = kernel::built_in(self.root, version);
        have.extend(modules.by_version.get(version).into_iter().flatten().cloned());
        let filesystem = self.layout.root.filesystem.as_ref().and_then(|found| found.kind.module());
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
                self.problem(
                    initrd,
                    format!(
                        "it lacks what EC2 needs: {missing} (neither in it nor built into the kernel {version}){others}"
                    ),
                );
            }
            None => self.problem(
                file,
                format!(
                    "the entry `{title}` has no initramfs, and the kernel {version} has not built in: {missing}"
                ),
            ),
        }
    }

    /// No settings of a boot loader name a loop device: those are the build host's.
    fn loop_devices(&mut self) {
        let mut folders = vec![("/boot".to_owned(), 0)];
        let mut files = 0;
        while let Some((folder, depth)) = folders.pop() {
            let names = match self.root.list(&folder) {
                Ok(names) => names,
                Err(error) => {
                    self.problem(&folder, format!("it cannot be read: {error}"));
                    continue;
                }
            };
            for name in names {
                files += 1;
                if files > MOST_FILES || depth > DEEPEST {
                    self.problem(
                        &folder,
                        "it holds more files than a boot loader has; nothing more was looked at",
                    );
                    return;
                }
                let path = format!("{folder}/{name}");
                let Ok(found) = self.root.symlink_metadata(&path) else {
                    continue;
                };
                if found.is_dir() {
                    folders.push((path, depth + 1));
                } else if found.is_file() && is_settings(&name) {
                    match read_text(self.root, &path) {
                        Ok(text) if text.contains("/dev/loop") => {
                            self.problem(
                                &path,
                                "it names a loop device (/dev/loop…), which exists only where the image was baked",
                            );
                        }
                        Ok(_) => {}
                        Err(error) => self.problem(&path, format!("it cannot be read: {error}")),
                    }
                }
            }
        }
    }
}

fn is_settings(name: &str) -> bool {
    name.ends_with(".cfg") || name.ends_with(".conf") || name == "grubenv" || name == "device.map"
}

/// A text file of bounded size.
fn read_text(root: &RootDir, path: &str) -> io::Result<String> {
    let file = root.open_file(path)?;
    let mut bytes = Vec::new();
    file.take(LARGEST_TEXT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_TEXT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is larger than {} MiB", LARGEST_TEXT >> 20),
        ));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// GRUB's own names of partitions of the first disk: `hd0,gpt1`, `hd0,msdos1`, `hd0`.
fn grub_device(text: &str) -> Option<DeviceName> {
    let rest = text.strip_prefix("hd0")?;
    if rest.is_empty() {
        return Some(DeviceName::Number(0));
    }
    let part = rest.strip_prefix(',')?;
    part.trim_start_matches(|c: char| c.is_ascii_alphabetic()).parse().ok().map(DeviceName::Number)
}

/// Where a part of the disk is mounted: empty for the root.
fn mounted_at(layout: &Layout, volume: &Volume) -> Option<String> {
    if volume.number() == layout.root.number() {
        return Some(String::new());
    }
    layout
        .mounts
        .iter()
        .find(|mount| mount.volume.number() == volume.number() && !volume.partition.is_esp())
        .map(|mount| mount.path.clone())
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Why an image would not boot.
#[derive(Debug, thiserror::Error)]
pub enum BootCheckError {
    #[error("the image would not boot:{}", shown(problems))]
    Problems { problems: Vec<Problem> },
    #[error(transparent)]
    Exec(#[from] ExecError),
}

fn shown(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n    {}: {}", problem.file, problem.reason)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grubs_names_of_partitions_are_read() {
        for (text, number) in [
            ("hd0,gpt1", Some(1)),
            ("hd0,msdos5", Some(5)),
            ("hd0,2", Some(2)),
            ("hd0", Some(0)),
            ("hd1,gpt1", None),
            ("lvm/x", None),
            ("hd0,gpt", None),
        ] {
            assert_eq!(grub_device(text), number.map(DeviceName::Number), "{text}");
        }
    }
}
