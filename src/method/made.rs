//! A snapshot that the cloud itself made, of an instance's disk or of a volume: read once, for the record's digests.

use std::sync::Arc;

use super::store::{listed, pipe};
use super::{BakeCause, Bench};
use crate::cloud::{ErrorKind, SnapshotId};
use crate::disk::{BlockMap, Disk, SparseDisk, TransferError};

/// Its blocks. Where the account may not read them, as those of some vendors' images, the record is without.
pub(super) async fn map(snapshot: &SnapshotId, size: u32, bench: &Bench) -> Result<BlockMap, BakeCause> {
    let path = bench.work.disk();
    let disk: Arc<dyn Disk> = Arc::new(SparseDisk::create(&path, u64::from(size) << 30)?);
    // Where EBS will never show it to this account, reading says why.
    let _ = listed(snapshot, &bench.cloud, &bench.stop).await;
    match pipe(bench).download(snapshot, &disk).await {
        Err(TransferError::Cloud(error) | TransferError::Get { source: error, .. })
            if matches!(error.kind, ErrorKind::Denied | ErrorKind::Invalid) =>
        {
            bench.reporter.warning(format!("the record has no block map: {error}"));
            Ok(BlockMap::new(size))
        }
        map => Ok(map?),
    }
}
