//! The record on its way to where the user wants it. From before the image is registered until it is delivered it waits
//! in the work folder: where the bake is killed in between, whoever clears that folder delivers it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::exit::{Failure, chain};
use crate::cloud::{ImageId, Place, SnapshotId};
use crate::disk::BlockMap;
use crate::host::file;
use crate::image::{ImagePlace, Record, cyclonedx, environment};
use crate::ledger::Left;
use crate::method::WorkDir;
use crate::plan::Billing;

/// A record and where it goes. It has no image yet, but all that is known of it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Delivery {
    pub out: PathBuf,
    pub place: Place,
    pub snapshot: SnapshotId,
    pub record: Record,
    /// As what the image is to be billed: a bake that was killed may not have looked.
    #[serde(default)]
    pub billing: Option<Billing>,
}

impl Delivery {
    /// What is kept in a work folder, where there is something.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn of(folder: &Path) -> anyhow::Result<Option<Self>> {
        let [kept, _] = WorkDir::DELIVERY.map(|name| folder.join(name));
        if !kept.exists() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&std::fs::read(&kept)?)?))
    }

    /// Puts it into a work folder.
    ///
    /// # Errors
    /// The file system's.
    pub fn keep(&self, work: &WorkDir, map: &BlockMap) -> std::io::Result<()> {
        let [record, blocks] = WorkDir::DELIVERY.map(|name| work.path().join(name));
        map.write(&blocks)?;
        // Durable before the image is registered.
        file::replace(&record, &serde_json::to_vec(self)?, 0o600)
    }

    /// Delivers what a killed bake kept in its folder, where nobody else had put a newer record in its place.
    ///
    /// # Errors
    /// What cannot be read or written.
    pub fn finish(folder: &Path, image: ImageId) -> anyhow::Result<Finished> {
        let [kept, blocks] = WorkDir::DELIVERY.map(|name| folder.join(name));
        let Some(Self { out, place, snapshot, mut record, billing: _ }) = Self::of(folder)? else {
            return Ok(Finished::Before);
        };
        let changed = |path: &Path| path.metadata().and_then(|about| about.modified()).ok();
        let path = out.join("image.json");
        if changed(&path) >= changed(&kept) {
            let own = Record::read(&path).is_ok_and(|found| found.bake == record.bake);
            return Ok(if own { Finished::Before } else { Finished::Superseded(path) });
        }
        record.images.push(ImagePlace { place, image, snapshot });
        deliver(&record, &BlockMap::read(&blocks)?, &out)?;
        Ok(Finished::Now(path))
    }
}

/// What came of delivering.
#[derive(Debug, PartialEq, Eq)]
pub enum Finished {
    Now(PathBuf),
    /// The bake had delivered it itself.
    Before,
    /// The record of another bake, and a newer one, is there: it stays.
    Superseded(PathBuf),
}

/// Writes a record and what stands beside it.
///
/// # Errors
/// [`Failure`], which names the image.
pub fn deliver(record: &Record, map: &BlockMap, out: &Path) -> anyhow::Result<()> {
    let failed = |what: &str, error: &(dyn std::error::Error + 'static)| {
        let image = record.home().map(|home| home.image.to_string()).unwrap_or_default();
        Failure::Work {
            message: format!(
                "{image} is registered, but {what} cannot be written: {}; the next bake, or `bakehouse sweep`, tries again",
                chain(error)
            ),
            left: Left::These(vec![image]),
        }
    };
    map.write(&out.join("blocks.map")).map_err(|error| failed("blocks.map", &error))?;
    let sbom = format!("{:#}\n", cyclonedx(record));
    for (name, text) in [("sbom.cdx.json", sbom), ("bakehouse.env", environment(record))] {
        file::replace(&out.join(name), text.as_bytes(), 0o644).map_err(|error| failed(name, &error))?;
    }
    // Last: who finds a record finds what stands beside it too.
    Ok(record.write(&out.join("image.json")).map_err(|error| failed("image.json", &error))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::record;

    const IMAGE: &str = "ami-00000000000000001";

    /// What a bake that was killed after it registered its image kept.
    fn kept(out: &Path, work: &WorkDir) -> Record {
        let mut record = record::tests::record();
        let home = record.images.remove(0);
        let delivery = Delivery {
            out: out.to_owned(),
            place: home.place,
            snapshot: home.snapshot,
            record: record.clone(),
            billing: None,
        };
        delivery.keep(work, &BlockMap::new(8)).unwrap();
        record
    }

    #[test]
    fn what_was_kept_is_delivered_and_no_newer_record_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (out, image) = (dir.path().join("out"), ImageId::parse(IMAGE).unwrap());
        let path = out.join("image.json");
        let work = WorkDir::create(&dir.path().join("work"), "bake-000000000001").unwrap();
        let finish = || Delivery::finish(work.path(), image.clone());
        assert_eq!(finish().unwrap(), Finished::Before);
        let own = kept(&out, &work);

        // It cannot be delivered: what was kept stays.
        std::fs::write(&out, "a file").unwrap();
        finish().unwrap_err();
        std::fs::remove_file(&out).unwrap();

        assert_eq!(finish().unwrap(), Finished::Now(path.clone()));
        let delivered = Record::read(&path).unwrap();
        assert_eq!((delivered.bake, &delivered.images[0].image), (own.bake, &image));
        let mut names: Vec<_> =
            std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["bakehouse.env", "blocks.map", "image.json", "sbom.cdx.json"]);
        assert_eq!(finish().unwrap(), Finished::Before);

        let newer = Record { bake: "bake-2".into(), ..record::tests::record() };
        newer.write(&path).unwrap();
        assert_eq!(finish().unwrap(), Finished::Superseded(path.clone()));
        assert_eq!(Record::read(&path).unwrap(), newer);
    }
}
