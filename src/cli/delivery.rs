//! The record on its way to where the user wants it. From before the image is registered until it is delivered it waits
//! in the work folder: where the bake is killed in between, whoever clears that folder delivers it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::exit::{Failure, chain};
use crate::cloud::{ImageId, Place, SnapshotId};
use crate::disk::BlockMap;
use crate::image::{ImagePlace, Record, cyclonedx, environment};
use crate::ledger::Left;
use crate::method::WorkDir;

/// A record and where it goes. It has no image yet, but all that is known of it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Delivery {
    pub out: PathBuf,
    pub place: Place,
    pub snapshot: SnapshotId,
    pub record: Record,
}

impl Delivery {
    /// Puts it into a work folder.
    ///
    /// # Errors
    /// The file system's.
    pub fn keep(&self, work: &WorkDir, map: &BlockMap) -> std::io::Result<()> {
        let [record, blocks] = WorkDir::DELIVERY.map(|name| work.path().join(name));
        map.write(&blocks)?;
        std::fs::write(record, serde_json::to_vec(self)?)
    }

    /// Delivers what a killed bake kept in its folder, and says where; `None` where it had delivered it itself.
    ///
    /// # Errors
    /// What cannot be read or written; that a newer record is in its place.
    pub fn finish(folder: &Path, image: ImageId) -> anyhow::Result<Option<PathBuf>> {
        let [kept, blocks] = WorkDir::DELIVERY.map(|name| folder.join(name));
        if !kept.exists() {
            return Ok(None);
        }
        let Self { out, place, snapshot, mut record } = serde_json::from_slice(&std::fs::read(&kept)?)?;
        let changed = |path: &Path| path.metadata().and_then(|about| about.modified()).ok();
        let path = out.join("image.json");
        if changed(&path) > changed(&kept) {
            let own = Record::read(&path).is_ok_and(|found| found.bake == record.bake);
            anyhow::ensure!(own, "a newer record is in its place, {}", path.display());
            return Ok(None);
        }
        record.images.push(ImagePlace { place, image, snapshot });
        deliver(&record, &BlockMap::read(&blocks)?, &out)?;
        Ok(Some(path))
    }
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
    let sbom = cyclonedx(record);
    std::fs::write(out.join("sbom.cdx.json"), format!("{sbom:#}\n"))
        .map_err(|error| failed("sbom.cdx.json", &error))?;
    std::fs::write(out.join("bakehouse.env"), environment(record))
        .map_err(|error| failed("bakehouse.env", &error))?;
    // Last: who finds a record finds what stands beside it too.
    Ok(record.write(&out.join("image.json")).map_err(|error| failed("image.json", &error))?)
}
