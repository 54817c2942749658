//! The image whose snapshot a bake begins as: the base itself, or its import.

use super::{BakeCause, Bench, OwnBase, import};
use crate::cloud::{ImageId, ImageQuery, SnapshotId, SnapshotQuery, retrying};
use crate::plan::{Import, Plan};

/// The image, and what no listing shows of it.
pub(super) async fn own_base(
    id: &ImageId,
    import: Option<&Import>,
    plan: &Plan,
    bench: &Bench,
) -> Result<OwnBase, BakeCause> {
    let images = &bench.cloud.images;
    let image = match import {
        Some(import) => import::own(import, plan, bench).await?,
        None => {
            let query = ImageQuery { ids: vec![id.clone()], ..ImageQuery::default() };
            let found = retrying(&bench.stop, || images.find(&query)).await?.into_iter().next();
            let what = format!("{id}, the base, is not in {} any more", bench.cloud.place);
            found.ok_or(BakeCause::Other { what })?
        }
    };
    let uefi_data = retrying(&bench.stop, || images.uefi_data(&image.id)).await?;
    Ok(OwnBase { imported: import.is_some(), uefi_data, image })
}

/// The snapshot of its root volume.
pub(super) fn snapshot_of(base: &OwnBase) -> Result<&SnapshotId, BakeCause> {
    let root = base.image.root().map(|(_, snapshot)| snapshot);
    root.ok_or_else(|| BakeCause::Other {
        what: format!("{}, the base, has no root volume with a snapshot any more", base.image.id),
    })
}

/// GiB.
pub(super) async fn snapshot_size(
    snapshot: &SnapshotId,
    plan: &Plan,
    bench: &Bench,
) -> Result<u32, BakeCause> {
    let query = SnapshotQuery { ids: vec![snapshot.clone()], ..SnapshotQuery::default() };
    let found = retrying(&bench.stop, || bench.cloud.snapshots.describe(&query)).await?;
    let what = format!("{snapshot}, the base's snapshot, is not in {}", bench.cloud.place);
    let found = found.first().ok_or(BakeCause::Other { what })?;
    if plan.encryption.refused && found.encrypt.is_some() {
        let what = format!(
            "disk.encrypt: {snapshot}, the base's snapshot, is encrypted, which cannot be undone; take `encrypt` out, or name a key"
        );
        return Err(BakeCause::Other { what });
    }
    Ok(found.volume_size)
}
