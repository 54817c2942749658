//! The EFI system partition where the kernel cannot mount a FAT: its files in a folder of this machine, shown at the
//! partition's mount point, and what was changed there written back by mtools. An ESP that nobody touched keeps every
//! byte. Any other FAT of the disk (an extended boot loader partition, say) is shown in the same way.
//!
//! The FAT is read through a loop device of its partition and no more, so that nothing that it says of its own size
//! reaches beyond it; and only after fsck.fat found it sound, so that no folder in it leads back to itself and its files
//! are together no larger than the partition.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::ids::Volume;
use super::mount::{Mount, MountError, Target};
use crate::host::exec::{Cmd, ExecError, Stream};
use crate::host::loop_device::{Access, LoopDevice, LoopError};
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;

/// An ESP has some hundred megabytes.
const LIMIT: Duration = Duration::from_secs(600);
/// Files and folders, and how deep they lie: far beyond what boots.
const MOST_FILES: usize = 20_000;
const DEEPEST: usize = 32;
/// The longest name of a FAT, in UTF-16 units; names that are written here are ASCII.
const LONGEST_NAME: usize = 255;
/// What no name on a FAT may hold (Microsoft, "FAT32 File System Specification", long names), and the brackets, which
/// mtools takes for a pattern.
const REFUSED: &str = "\"*/:<>?\\|[]";

/// The folder, shown at the mount point. [`EspFolder::close`] takes it away; dropped, it does what can be done without
/// waiting.
#[derive(Debug)]
pub struct EspFolder {
    /// Where it is shown: usually at one place.
    mounts: Vec<Mount>,
    folder: PathBuf,
    disk: PathBuf,
    volume: Volume,
    access: Access,
}

impl EspFolder {
    /// Takes the files out into `folder` and shows it at the target. A folder that is there already is one of a bake that
    /// goes on: it is shown as it is.
    ///
    /// # Errors
    /// [`EspError`]; then nothing stays. [`EspError::Damaged`] where the FAT is not sound.
    pub async fn show(
        disk: &Path,
        volume: &Volume,
        target: Target<'_>,
        folder: PathBuf,
        access: Access,
        stop: &Stop,
    ) -> Result<Self, EspError> {
        let resumed = folder.exists();
        let mut shown =
            Self { mounts: Vec::new(), folder, disk: disk.to_owned(), volume: volume.clone(), access };
        if !resumed {
            shown.take_out(&shown.folder, stop).await?;
        }
        shown.show_again(target)?;
        Ok(shown)
    }

    /// Shows the same folder at another place too.
    ///
    /// # Errors
    /// [`EspError::Mount`]
    pub fn show_again(&mut self, target: Target<'_>) -> Result<(), EspError> {
        self.mounts.push(Mount::bind(&self.folder, target, self.access == Access::ReadOnly)?);
        Ok(())
    }

    /// The partition's number.
    #[must_use]
    pub fn part(&self) -> u32 {
        self.volume.number()
    }

    /// Writes what was changed in the folder to the disk. Call it when nothing runs in the root any more.
    ///
    /// # Errors
    /// [`EspError`]: a file that no FAT can hold, or no room. The disk must not be used then.
    pub async fn write_back(&self, stop: &Stop) -> Result<(), EspError> {
        if self.access == Access::ReadOnly {
            return Ok(());
        }
        let before = tempfile::tempdir_in(self.folder.parent().unwrap_or(Path::new("/")))
            .map_err(|source| EspError::Io { path: self.folder.clone(), source })?;
        let pristine = before.path().join("esp");
        self.take_out(&pristine, stop).await?;
        let (old, new) = (read(&pristine)?, read(&self.folder)?);
        let changes = Changes::between(&old, &new)?;
        if changes.is_empty() {
            return Ok(());
        }
        let device = self.attach(Access::ReadWrite)?;
        let written = self.write(&changes, &device, stop).await;
        let sound = match &written {
            Ok(()) => check(&device, stop).await,
            Err(_) => Ok(()),
        };
        device.close().await?;
        written.and(sound)
    }

    async fn write(&self, changes: &Changes, device: &LoopDevice, stop: &Stop) -> Result<(), EspError> {
        let on_fat = |path: &str| format!("::{path}");
        // First what goes, for its room.
        for path in &changes.remove {
            mtools("mdeltree", device).arg(on_fat(path)).run(stop).await?;
        }
        for path in &changes.make {
            let made = mtools("mmd", device).arg(on_fat(path)).run(stop).await;
            made.map_err(|error| self.not_written(path, error))?;
        }
        for path in &changes.copy {
            let copied = mtools("mcopy", device)
                .args(["-o", "-m"])
                .arg(self.folder.join(path.trim_start_matches('/')))
                .arg(on_fat(path))
                .run(stop)
                .await;
            copied.map_err(|error| self.not_written(path, error))?;
        }
        Ok(())
    }

    /// mtools tells in words alone that there is no room.
    fn not_written(&self, path: &str, error: ExecError) -> EspError {
        match &error {
            ExecError::Failed { tail, .. } if tail.iter().any(|line| line.contains("Disk full")) => {
                EspError::Full { path: path.to_owned(), size: self.volume.partition.size }
            }
            _ => error.into(),
        }
    }

    /// Copies all files of the FAT into a new folder.
    async fn take_out(&self, to: &Path, stop: &Stop) -> Result<(), EspError> {
        let device = self.attach(Access::ReadOnly)?;
        let copied = async {
            check(&device, stop).await?;
            DirBuilder::new()
                .mode(0o700)
                .create(to)
                .map_err(|source| EspError::Io { path: to.to_owned(), source })?;
            // An empty FAT has nothing to copy, which mcopy takes for a failure.
            if mtools("mdir", &device).args(["-b", "::"]).run(stop).await?.text().trim().is_empty() {
                return Ok(());
            }
            // mcopy gives a name with a slash or of two dots another form, so that none leads out of the folder.
            mtools("mcopy", &device).args(["-s", "-m", "-n", "::/"]).arg(to).run(stop).await?;
            Ok(())
        }
        .await;
        if copied.is_err() {
            // The first error is the one to tell.
            let _ = std::fs::remove_dir_all(to);
        }
        device.close().await?;
        copied
    }

    fn attach(&self, access: Access) -> Result<LoopDevice, EspError> {
        let part = &self.volume.partition;
        Ok(LoopDevice::attach(&self.disk, part.start, part.size, access)?)
    }

    /// Takes it off the mount point, and the folder away.
    ///
    /// # Errors
    /// [`EspError`]: who holds it.
    pub async fn close(mut self, stop: &Stop) -> Result<(), EspError> {
        let mut first = Ok(());
        while let Some(mount) = self.mounts.pop() {
            first = first.and(mount.unmount(stop).await);
        }
        Ok(first?)
    }
}

impl Drop for EspFolder {
    fn drop(&mut self) {
        while self.mounts.pop().is_some() {}
        // Best effort: it lies in a work folder, which goes as a whole.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn mtools(name: &str, device: &LoopDevice) -> Cmd {
    Cmd::new(name)
        // mtools asks for geometries that only floppies have.
        .env("MTOOLS_SKIP_CHECK", "1")
        // Names are UTF-8 here, whatever the caller's are.
        .env("LC_ALL", "C.UTF-8")
        .arg("-i")
        .arg(device.node())
        .timeout(LIMIT)
}

/// That fsck.fat finds nothing wrong. That a FAT was not unmounted is nothing: it may be a running machine's.
async fn check(device: &LoopDevice, stop: &Stop) -> Result<(), EspError> {
    let mut lines = Vec::new();
    let exit = Cmd::new("fsck.fat")
        .env("LC_ALL", "C")
        .arg("-n")
        .arg(device.node())
        .timeout(LIMIT)
        .stream(stop, &mut |stream, line| {
            if stream == Stream::Out || !line.is_empty() {
                lines.push(line.to_owned());
            }
        })
        .await?;
    let complaints: Vec<String> = lines.into_iter().filter(|line| !is_harmless(line)).collect();
    if exit.code == 0 || (exit.code == 1 && complaints.is_empty()) {
        return Ok(());
    }
    Err(EspError::Damaged { complaints })
}

/// A line of fsck.fat's (dosfstools 4) that tells of nothing but a FAT in use: the mark of that, the copy of the boot
/// sector that lacks the mark, the sector with the count of free clusters, which is only a hint (mformat leaves two of
/// its bytes as they were), and what it says around it.
fn is_harmless(line: &str) -> bool {
    const HARMLESS: [&str; 11] = [
        "fsck.fat ",
        "There are differences between boot sector and its backup",
        "This is mostly harmless",
        "Not automatically fixing this",
        "Dirty bit is set",
        "Automatically removing dirty bit",
        "FSINFO sector has bad magic number",
        "Offset ",
        "Free cluster summary",
        "Auto-correcting",
        "Leaving filesystem unchanged",
    ];
    let line = line.trim();
    let byte = |line: &str| line.split_once(':').is_some_and(|(at, _)| at.parse::<u32>().is_ok());
    line.is_empty()
        || line.ends_with("clusters")
        || byte(line)
        || HARMLESS.iter().any(|text| line.starts_with(text))
}

/// What is in a folder of an ESP.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Folder,
    /// By its content.
    File([u8; 32]),
}

/// Paths with a leading `/`; a folder stands before what is in it.
type Nodes = BTreeMap<String, Node>;

/// Reads a folder that anybody may have written to.
fn read(folder: &Path) -> Result<Nodes, EspError> {
    let failed = |source| EspError::Io { path: folder.to_owned(), source };
    let root = RootDir::open(folder).map_err(failed)?;
    let mut nodes = Nodes::new();
    let mut folders = vec![String::new()];
    while let Some(at) = folders.pop() {
        for name in root.list(if at.is_empty() { "/" } else { &at }).map_err(failed)? {
            let path = format!("{at}/{name}");
            if nodes.len() == MOST_FILES || path.matches('/').count() > DEEPEST {
                return Err(EspError::TooMany);
            }
            let kind = root.symlink_metadata(&path).map_err(failed)?.file_type();
            let node = if kind.is_dir() {
                folders.push(path.clone());
                Node::Folder
            } else if kind.is_file() {
                Node::File(digest(root.open_file(&path).map_err(failed)?).map_err(failed)?)
            } else {
                let what = if kind.is_symlink() { "a symbolic link" } else { "no file and no folder" };
                return Err(EspError::Kind { path, what });
            };
            nodes.insert(path, node);
        }
    }
    Ok(nodes)
}

fn digest(mut file: std::fs::File) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hash.finalize().into()),
            read => hash.update(&chunk[..read]),
        }
    }
}

/// What mtools must do, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    /// Files, and folders with all that is in them.
    remove: Vec<String>,
    /// Folders, parents first.
    make: Vec<String>,
    copy: Vec<String>,
}

impl Changes {
    fn between(old: &Nodes, new: &Nodes) -> Result<Self, EspError> {
        let mut changes = Self::default();
        let same_kind = |path: &String, node: &Node| {
            new.get(path).is_some_and(|other| (*other == Node::Folder) == (*node == Node::Folder))
        };
        for (path, node) in old {
            let goes_with =
                |gone: &String| path.strip_prefix(gone.as_str()).is_some_and(|rest| rest.starts_with('/'));
            if !same_kind(path, node) && !changes.remove.iter().any(goes_with) {
                changes.remove.push(path.clone());
            }
        }
        for (path, node) in new {
            match (node, old.get(path)) {
                (Node::Folder, Some(Node::Folder)) => {}
                (Node::File(content), Some(Node::File(before))) if content == before => {}
                (Node::Folder, _) => changes.make.push(path.clone()),
                (Node::File(_), _) => changes.copy.push(path.clone()),
            }
        }
        for path in changes.remove.iter().chain(&changes.make).chain(&changes.copy) {
            check_name(path)?;
        }
        let mut names: BTreeMap<String, &String> = BTreeMap::new();
        for path in new.keys() {
            if let Some(other) = names.insert(path.to_lowercase(), path) {
                return Err(EspError::Twice { one: other.clone(), other: path.clone() });
            }
        }
        Ok(changes)
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// That a FAT, and mtools, take the last name of a path as it is.
fn check_name(path: &str) -> Result<(), EspError> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let refused = |c: char| !c.is_ascii() || c.is_ascii_control() || REFUSED.contains(c);
    let reason = if let Some(c) = name.chars().find(|c| refused(*c)) {
        format!("the character {c:?}")
    } else if name.ends_with(['.', ' ']) || name.starts_with(' ') {
        "a space or a dot at its end".to_owned()
    } else if name.len() > LONGEST_NAME {
        format!("more than {LONGEST_NAME} characters")
    } else {
        return Ok(());
    };
    Err(EspError::Name { path: path.to_owned(), reason })
}

/// Why an EFI system partition cannot be shown or written.
#[derive(Debug, thiserror::Error)]
pub enum EspError {
    #[error("the EFI system partition is damaged (fsck.fat: {})", complaints.join("; "))]
    Damaged { complaints: Vec<String> },
    #[error("{path} of the EFI system partition is {what}, which no FAT can hold; make it a file")]
    Kind { path: String, what: &'static str },
    #[error("{path} of the EFI system partition cannot be written: its name has {reason}; rename it")]
    Name { path: String, reason: String },
    #[error(
        "{one} and {other} of the EFI system partition are one name on a FAT, which does not tell capitals apart; \
         remove one of them"
    )]
    Twice { one: String, other: String },
    #[error("the EFI system partition holds more files than boots need, or in folders that are too deep")]
    TooMany,
    #[error(
        "there is no room for {path} on the EFI system partition, which has {} MiB; remove old kernels from it",
        size >> 20
    )]
    Full { path: String, size: u64 },
    #[error("cannot use {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Loop(#[from] LoopError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Exec(#[from] ExecError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(of: &[(&str, &str)]) -> Nodes {
        of.iter()
            .map(|(path, content)| {
                let node = if content.is_empty() {
                    Node::Folder
                } else {
                    Node::File(Sha256::digest(content).into())
                };
                ((*path).to_owned(), node)
            })
            .collect()
    }

    #[test]
    fn what_changed_is_removed_made_and_copied_in_this_order() {
        let old = nodes(&[
            ("/EFI", ""),
            ("/EFI/a", "1"),
            ("/EFI/old", ""),
            ("/EFI/old/x", "1"),
            ("/f", "1"),
            ("/g", "1"),
        ]);
        let new = nodes(&[
            ("/EFI", ""),
            ("/EFI/a", "2"),
            ("/EFI/new", ""),
            ("/EFI/new/x", "1"),
            ("/f", ""),
            ("/g", "1"),
        ]);
        let changes = Changes::between(&old, &new).unwrap();
        assert_eq!(changes.remove, ["/EFI/old", "/f"]);
        assert_eq!(changes.make, ["/EFI/new", "/f"]);
        assert_eq!(changes.copy, ["/EFI/a", "/EFI/new/x"]);
        assert!(Changes::between(&old, &old).unwrap().is_empty());
    }

    #[test]
    fn names_that_no_fat_holds_are_refused_where_they_would_be_written() {
        for name in ["a:b", "a\\b", "a?", "x.", "x ", "é", "a\nb", "[x]", &"n".repeat(256)] {
            let new = nodes(&[(&format!("/{name}"), "1")]);
            assert!(matches!(Changes::between(&Nodes::new(), &new), Err(EspError::Name { .. })), "{name}");
            // One that was there and stays is nobody's business.
            assert!(Changes::between(&new, &new).unwrap().is_empty(), "{name}");
        }
        let twice = nodes(&[("/EFI", ""), ("/efi", "")]);
        assert!(matches!(Changes::between(&Nodes::new(), &twice), Err(EspError::Twice { .. })));
    }

    #[test]
    fn a_fat_in_use_is_no_damaged_one() {
        for line in [
            "FSINFO sector has bad magic number(s):",
            "  Offset 508: 0xaa555a5a != expected 0xaa550000",
            "Dirty bit is set. Fs was not properly unmounted and some data may be corrupt.",
            "  65:01/00",
            "",
            "/dev/loop0: 6 files, 6/129022 clusters",
        ] {
            assert!(is_harmless(line), "{line}");
        }
        for line in ["/EFI/a and", "  share clusters.", "FATs differ but appear to be intact."] {
            assert!(!is_harmless(line), "{line}");
        }
    }
}
