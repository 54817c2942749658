//! The record: `image.json`, the one file that passes from stage to stage, and `bakehouse.env` beside it.
//!
//! Versions: a reader refuses a record whose `format` is newer than its own and says which version to get; an older
//! one is read as it is, since a change of meaning raises the number and adding a part does not (every part that came
//! later has a default). A stage that adds its part keeps all others.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cloud::{Architecture, ImageId, Place, SnapshotId};
use crate::host::file;
use crate::plan::{Inputs, Source};
use crate::provision::{InstalledPackage, System};
use crate::recipe::{BootTest, Check};
use crate::report::Timing;

/// The format that this version writes.
pub const FORMAT: u32 = 1;
/// A record larger than this is none of ours: 10,000 packages make about 2 MiB.
const LARGEST: u64 = 64 * 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Record {
    pub format: u32,
    /// The version of Bakehouse that wrote it.
    pub written_by: String,
    pub family: String,
    pub name: String,
    pub architecture: Architecture,
    pub bake: String,
    pub method: String,
    /// RFC 3339, UTC.
    pub created: String,
    /// The image in each place that has it; the first is where it was baked.
    pub images: Vec<ImagePlace>,
    pub base: BaseRecord,
    /// The base, its own base and so on.
    pub lineage: Vec<ImageId>,
    /// SHA-256 of the recipe's file.
    pub recipe: String,
    /// SHA-256 over all that decided what came out.
    pub fingerprint: String,
    /// What the recipe brought in, by path.
    pub inputs: Inputs,
    pub source: Source,
    pub disk: Disk,
    /// The distribution and its release, as they are after the steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<System>,
    pub packages: Vec<InstalledPackage>,
    pub timings: Vec<Timing>,
    /// What a clean-up could not take away.
    #[serde(default)]
    pub leftovers: Vec<String>,
    /// What the test stage has to know, so that it needs no recipe.
    pub checks: Vec<Check>,
    pub boot: BootTest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<TestRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImagePlace {
    pub place: Place,
    pub image: ImageId,
    pub snapshot: SnapshotId,
}

/// What the image was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BaseRecord {
    Scratch {
        distribution: String,
        suite: String,
    },
    File {
        path: String,
    },
    Image {
        id: ImageId,
        name: String,
        /// The parent of the image's own.
        snapshot: SnapshotId,
        /// The copy of the base in this account that has it, where it is not the base's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        import: Option<ImageId>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Disk {
    /// GiB of the snapshot.
    pub size: u32,
    /// The linear checksum over all of the snapshot's blocks.
    pub digest: String,
    /// The file, beside this one, that holds every block's digest.
    pub block_map: String,
    /// Blocks of 512 KiB that the snapshot has.
    pub blocks: u64,
    /// Blocks that this bake put.
    pub changed_blocks: u64,
}

/// The test stage's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TestRecord {
    /// RFC 3339, UTC.
    pub finished: String,
    pub passed: usize,
    pub failed: usize,
    pub not_judged: usize,
    pub booted: bool,
}

impl Record {
    /// Where the image was baked.
    #[must_use]
    pub fn home(&self) -> Option<&ImagePlace> {
        self.images.first()
    }

    /// # Errors
    /// [`RecordError`]: not readable, no record, or one of a newer version.
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let bytes = file::read(path, LARGEST).map_err(|why| match why {
            file::Unread::Io(source) => RecordError::Unreadable { path: path.to_owned(), source },
            other => RecordError::NoRecord { path: path.to_owned(), why: other.to_string() },
        })?;
        Self::parse(&bytes).map_err(|error| match error {
            Unread::Newer { format } => RecordError::Newer { path: path.to_owned(), format },
            Unread::Wrong(why) => RecordError::NoRecord { path: path.to_owned(), why },
        })
    }

    fn parse(bytes: &[u8]) -> Result<Self, Unread> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        // The version comes first: a newer record may have any other shape.
        let head: Head = serde_json::from_slice(bytes).map_err(|error| Unread::Wrong(error.to_string()))?;
        if head.format > FORMAT {
            return Err(Unread::Newer { format: head.format });
        }
        let record: Self = serde_json::from_slice(bytes).map_err(|error| Unread::Wrong(error.to_string()))?;
        if record.images.is_empty() {
            return Err(Unread::Wrong("it names no image".to_owned()));
        }
        Ok(record)
    }

    /// Writes it whole or not at all.
    ///
    /// # Errors
    /// [`RecordError::Unwritable`]
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        let unwritable = |source| RecordError::Unwritable { path: path.to_owned(), source };
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| unwritable(io::Error::from(error)))?;
        text.push(b'\n');
        // The next stage may run as another user.
        file::replace(path, &text, 0o644).map_err(unwritable)
    }
}

enum Unread {
    Newer { format: u32 },
    Wrong(String),
}

/// What a buildspec sources to export the result: `NAME=value` lines for a POSIX shell.
#[must_use]
pub fn environment(record: &Record) -> String {
    let mut lines = vec![
        ("BAKEHOUSE_FAMILY", record.family.clone()),
        ("BAKEHOUSE_BAKE", record.bake.clone()),
        ("AMI_NAME", record.name.clone()),
        ("AMI_ARCHITECTURE", record.architecture.to_string()),
    ];
    if let Some(home) = record.home() {
        lines.extend([
            ("AMI_ID", home.image.to_string()),
            ("AMI_SNAPSHOT_ID", home.snapshot.to_string()),
            ("AMI_ACCOUNT", home.place.account.to_string()),
            ("AMI_REGION", home.place.region.to_string()),
        ]);
    }
    lines.into_iter().fold(String::new(), |text, (name, value)| {
        text + &format!("export {name}='{}'\n", value.replace('\'', "'\\''"))
    })
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("cannot read the record {}; bake first, or name another", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is no record: {why}", path.display())]
    NoRecord { path: PathBuf, why: String },
    #[error("{} has the format {format}, and this version of Bakehouse reads up to {FORMAT}; use the version that wrote it, or a newer one", path.display())]
    Newer { path: PathBuf, format: u32 },
    #[error("cannot write the record {}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cloud::{AccountId, Partition, Region};
    use crate::provision::PackageFormat;

    pub(crate) fn record() -> Record {
        let place = Place {
            partition: Partition::local(),
            account: AccountId::parse("000000000000").unwrap(),
            region: Region::parse("local").unwrap(),
        };
        Record {
            format: FORMAT,
            written_by: "0.1.0".into(),
            family: "web".into(),
            name: "it's-web".into(),
            architecture: Architecture::X86_64,
            bake: "bake-1".into(),
            method: "direct".into(),
            created: "2026-01-02T03:04:05Z".into(),
            images: vec![ImagePlace {
                place,
                image: ImageId::parse("ami-0123456789abcdef0").unwrap(),
                snapshot: SnapshotId::parse("snap-0123456789abcdef0").unwrap(),
            }],
            base: BaseRecord::Scratch { distribution: "debian".into(), suite: "bookworm".into() },
            lineage: vec![],
            recipe: "00".into(),
            fingerprint: "00".into(),
            inputs: Inputs::new(),
            source: Source::default(),
            disk: Disk {
                size: 2,
                digest: "00".into(),
                block_map: "blocks.map".into(),
                blocks: 4,
                changed_blocks: 1,
            },
            system: Some(System {
                distribution: "debian".into(),
                release: "12".into(),
                packages: Some(PackageFormat::Deb),
            }),
            packages: vec![InstalledPackage {
                name: "a".into(),
                version: "1:2-3".into(),
                architecture: "amd64".into(),
            }],
            timings: vec![Timing { name: "seal".into(), seconds: 0.5 }],
            leftovers: vec![],
            checks: vec![],
            boot: BootTest::default(),
            test: None,
        }
    }

    #[test]
    fn a_record_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out/image.json");
        record().write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record());
    }

    #[test]
    fn a_newer_record_is_refused_whatever_its_shape() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.json");
        std::fs::write(&path, r#"{"format": 2, "something": "else"}"#).unwrap();
        let error = Record::read(&path).unwrap_err();
        assert!(matches!(error, RecordError::Newer { format: 2, .. }), "{error}");
        assert!(error.to_string().contains("the format 2"));
    }

    #[test]
    fn a_part_of_a_later_stage_does_not_stop_an_older_reader() {
        let mut value = serde_json::to_value(record()).unwrap();
        value["published"] = serde_json::json!({"region": "eu-west-1"});
        assert!(Record::parse(value.to_string().as_bytes()).is_ok());
    }

    #[test]
    fn a_record_from_before_systems_were_named_is_read() {
        let mut value = serde_json::to_value(record()).unwrap();
        value.as_object_mut().unwrap().remove("system");
        let Ok(read) = Record::parse(value.to_string().as_bytes()) else { panic!("it was not read") };
        assert_eq!(read, Record { system: None, ..record() });
    }

    #[test]
    fn the_environment_is_quoted_for_the_shell() {
        let text = environment(&record());
        assert!(text.contains("export AMI_NAME='it'\\''s-web'\n"), "{text}");
        assert!(text.contains("export AMI_ID='ami-0123456789abcdef0'\n"));
    }
}
