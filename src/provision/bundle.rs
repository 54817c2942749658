//! What a machine needs to be provisioned by itself: the steps, the seal and the files that they bring in, as one file; and
//! what came of it. Whoever makes one and whoever reads it may be different builds of the same version.
//!
//! A bundle is a gzip stream of the length of the list (8 bytes, little-endian), the list as JSON, and the content of its
//! files one after the other.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use super::{Installed, StepTiming};
use crate::recipe::{Seal, Step};

/// The version of the format; both sides must have the same.
const VERSION: u32 = 1;
/// Bytes of a list: a hundred thousand files have 20 MB.
const LARGEST_LIST: u64 = 256 << 20;

/// What is in a bundle.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Bundle {
    version: u32,
    pub bake: String,
    pub steps: Vec<Step>,
    pub seal: Seal,
    pub entries: Vec<Entry>,
}

/// A file, folder or link of the recipe's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Entry {
    /// Relative to the recipe's folder.
    pub path: String,
    pub mode: u32,
    pub owner: Option<(u32, u32)>,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    Folder,
    /// Bytes.
    File(u64),
    /// Where it leads.
    Link(String),
}

impl Bundle {
    #[must_use]
    pub fn new(bake: &str, steps: &[Step], seal: &Seal, entries: Vec<Entry>) -> Self {
        Self { version: VERSION, bake: bake.to_owned(), steps: steps.to_vec(), seal: seal.clone(), entries }
    }

    /// Packs it with its files' content, from `folder`.
    ///
    /// # Errors
    /// Where a file cannot be read, or is not as long as it was, or `to` cannot be written.
    pub fn pack(&self, folder: &Path, to: impl Write) -> Result<(), BundleError> {
        let made = |source| BundleError::Pack { source };
        let list = serde_json::to_vec(self).map_err(|error| made(error.into()))?;
        let mut packed = GzEncoder::new(to, Compression::fast());
        packed.write_all(&(list.len() as u64).to_le_bytes()).map_err(made)?;
        packed.write_all(&list).map_err(made)?;
        for entry in &self.entries {
            let Content::File(size) = entry.content else { continue };
            let path = folder.join(&entry.path);
            let failed = |source| BundleError::File { path: path.clone(), source };
            let file = File::open(&path).map_err(failed)?;
            // One byte more, so that one that grew is seen.
            if io::copy(&mut file.take(size + 1), &mut packed).map_err(failed)? != size {
                return Err(BundleError::Changed { path });
            }
        }
        packed.finish().and_then(|mut to| to.flush()).map_err(made)
    }

    /// Unpacks one and puts its files below `into`, which may hold them already.
    ///
    /// # Errors
    /// Where it is damaged or of another version, or its files cannot be written.
    pub fn unpack(packed: &Path, into: &Path) -> Result<Self, BundleError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| BundleError::File { path, source }
        };
        let damaged = |why: String| BundleError::Damaged { path: packed.to_owned(), why };
        let mut stream = GzDecoder::new(File::open(packed).map_err(failed(packed))?);
        let mut length = [0; 8];
        stream.read_exact(&mut length).map_err(|error| damaged(error.to_string()))?;
        let length = u64::from_le_bytes(length);
        if length > LARGEST_LIST {
            return Err(damaged(format!("its list has {length} bytes")));
        }
        let mut list = Vec::new();
        (&mut stream).take(length).read_to_end(&mut list).map_err(|error| damaged(error.to_string()))?;
        let version: Version = serde_json::from_slice(&list).map_err(|error| damaged(error.to_string()))?;
        if version.version != VERSION {
            return Err(BundleError::Version { path: packed.to_owned(), version: version.version });
        }
        let bundle: Self = serde_json::from_slice(&list).map_err(|error| damaged(error.to_string()))?;
        fs::create_dir_all(into).map_err(failed(into))?;
        for entry in &bundle.entries {
            let path = Path::new(&entry.path);
            if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
                return Err(damaged(format!("{} is no path below a folder", entry.path)));
            }
            let to = into.join(path);
            put(entry, &to, &mut stream).map_err(failed(&to))?;
        }
        // The checksum at the end.
        let rest = io::copy(&mut stream, &mut io::sink()).map_err(|error| damaged(error.to_string()))?;
        if rest != 0 {
            return Err(damaged(format!("{rest} bytes follow its last file")));
        }
        // Last, and the innermost first: a folder may be one that nobody may write to.
        for entry in bundle.entries.iter().rev().filter(|entry| entry.content == Content::Folder) {
            let to = into.join(&entry.path);
            fs::set_permissions(&to, PermissionsExt::from_mode(entry.mode)).map_err(failed(&to))?;
        }
        Ok(bundle)
    }
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

fn put(entry: &Entry, to: &Path, stream: &mut impl Read) -> io::Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    match &entry.content {
        Content::Folder => fs::create_dir_all(to)?,
        Content::File(size) => {
            let _ = fs::remove_file(to);
            let mut file = File::create_new(to)?;
            if io::copy(&mut stream.take(*size), &mut file)? != *size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Content::Link(target) => {
            let _ = fs::remove_file(to);
            symlink(target, to)?;
        }
    }
    if let Some((user, group)) = entry.owner {
        std::os::unix::fs::lchown(to, Some(user), Some(group))?;
    }
    // After the owner: a change of owner takes set-user-id bits away.
    if matches!(entry.content, Content::File(_)) {
        fs::set_permissions(to, PermissionsExt::from_mode(entry.mode))?;
    }
    Ok(())
}

/// What steps take from the environment and from files that are secret. Brought in apart from the bundle, and kept in
/// memory only.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BundleSecrets {
    /// Variables of the environment in which Bakehouse runs.
    pub environment: BTreeMap<String, String>,
    /// Files by their paths in the recipe, as base64.
    pub files: BTreeMap<String, String>,
}

impl std::fmt::Debug for BundleSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BundleSecrets").finish_non_exhaustive()
    }
}

/// Where provisioning is, kept beside the bundle so that it survives a reboot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Progress {
    /// The step to go on with, from 0.
    pub next: usize,
    pub timings: Vec<StepTiming>,
}

/// What came of provisioning a machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Outcome {
    pub end: OutcomeEnd,
    pub timings: Vec<StepTiming>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum OutcomeEnd {
    /// All steps are done, and this is installed.
    Done(Installed),
    /// The machine is to be rebooted, and provisioning to be gone on with.
    Reboot,
    Failed(OutcomeFailure),
    /// The root is sealed.
    Sealed,
}

/// A failure in words; no secret is in them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OutcomeFailure {
    /// From 1, and its name, where a step failed.
    pub step: Option<(usize, String)>,
    pub why: String,
}

#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("cannot pack the bundle")]
    Pack { source: io::Error },
    #[error("cannot use {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} changed while it was read; bake again", path.display())]
    Changed { path: PathBuf },
    #[error("the bundle {} is damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("the bundle {} has version {version}; use the provisioner that belongs to the program that made it", path.display())]
    Version { path: PathBuf, version: u32 },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(entries: Vec<Entry>) -> Bundle {
        Bundle::new("bake-1", &[], &Seal::default(), entries)
    }

    #[test]
    fn files_folders_and_links_come_through_with_their_modes() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(from.path().join("rootfs/etc")).unwrap();
        fs::write(from.path().join("rootfs/etc/motd"), "hello").unwrap();
        fs::write(from.path().join("empty"), "").unwrap();
        let entry = |path: &str, mode, content| Entry { path: path.to_owned(), mode, owner: None, content };
        let made = bundle(vec![
            entry("rootfs", 0o755, Content::Folder),
            entry("rootfs/etc", 0o550, Content::Folder),
            entry("rootfs/etc/motd", 0o4711, Content::File(5)),
            entry("rootfs/link", 0o777, Content::Link("etc/motd".to_owned())),
            entry("empty", 0o600, Content::File(0)),
        ]);
        let packed = to.path().join("bundle");
        made.pack(from.path(), File::create(&packed).unwrap()).unwrap();
        let into = to.path().join("files");
        // Twice: after a reboot it is unpacked again.
        for _ in 0..2 {
            let read = Bundle::unpack(&packed, &into).unwrap();
            assert_eq!((read.bake.as_str(), &read.entries), ("bake-1", &made.entries));
            assert_eq!(fs::read_to_string(into.join("rootfs/link")).unwrap(), "hello");
            let mode = |path: &str| into.join(path).metadata().unwrap().permissions().mode() & 0o7777;
            assert_eq!((mode("rootfs/etc/motd"), mode("rootfs/etc"), mode("empty")), (0o4711, 0o550, 0o600));
        }
    }

    #[test]
    fn what_is_damaged_or_leads_outside_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let packed = folder.path().join("bundle");
        let unpack = |bytes: &[u8]| {
            fs::write(&packed, bytes).unwrap();
            Bundle::unpack(&packed, &folder.path().join("files")).map(drop)
        };
        for path in ["../x", "/etc/x", "a/../../x"] {
            let entry = Entry { path: path.to_owned(), mode: 0o644, owner: None, content: Content::Folder };
            let mut bytes = Vec::new();
            bundle(vec![entry]).pack(folder.path(), &mut bytes).unwrap();
            assert!(unpack(&bytes).is_err(), "{path}");
        }
        let mut good = Vec::new();
        bundle(Vec::new()).pack(folder.path(), &mut good).unwrap();
        unpack(&good).unwrap();
        for cut in [0, 4, good.len() / 2, good.len() - 1] {
            assert!(unpack(&good[..cut]).is_err(), "{cut}");
        }
        fs::write(folder.path().join("grew"), "123").unwrap();
        let entry = Entry { path: "grew".to_owned(), mode: 0o644, owner: None, content: Content::File(2) };
        let packed = bundle(vec![entry]).pack(folder.path(), io::sink());
        assert!(matches!(packed, Err(BundleError::Changed { .. })));
    }
}
