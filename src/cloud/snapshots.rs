//! Snapshots and their blocks, as the EBS direct APIs and EC2's snapshot calls have them.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Block, BlockIndex, Digest, Result, SnapshotId, Tags, Token};

/// What `StartSnapshot` is asked for.
#[derive(Clone, Debug)]
pub struct NewSnapshot {
    /// GiB; at least the parent's.
    pub volume_size: u32,
    /// The new snapshot begins as this one's content; only changed blocks are put.
    pub parent: Option<SnapshotId>,
    pub description: String,
    /// Set in the call itself, so that nothing is ever untagged.
    pub tags: Tags,
    /// A key's ARN. Only without a parent: a child has its parent's key.
    pub encrypt: Option<String>,
    /// Minutes without a put after which the cloud gives the snapshot up (10 to 4320).
    pub timeout_minutes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotState {
    Pending,
    Completed,
    Error,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Snapshot {
    pub id: SnapshotId,
    pub state: SnapshotState,
    pub volume_size: u32,
    pub parent: Option<SnapshotId>,
    pub description: String,
    pub tags: Tags,
    pub encrypt: Option<String>,
    pub started: Timestamp,
    /// Percent of a copy's, or of a volume's, blocks that are there; where the cloud says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<u8>,
}

/// Which snapshots `describe` gives; an empty query is all of the account's own.
#[derive(Clone, Debug, Default)]
pub struct SnapshotQuery {
    pub ids: Vec<SnapshotId>,
    /// All of these tags, with exactly these values.
    pub tags: Tags,
    /// All of these tags, whatever their values.
    pub tag_keys: Vec<String>,
}

/// Stands for a block's content in one listing; good for a while, not for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockToken(pub String);

/// Where the next page of a listing begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken(pub String);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedBlock {
    pub index: BlockIndex,
    pub token: BlockToken,
}

/// One page of a snapshot's blocks, in ascending order. A page may be empty though more follow.
#[derive(Clone, Debug)]
pub struct BlockPage {
    pub blocks: Vec<ListedBlock>,
    pub next: Option<PageToken>,
    /// GiB.
    pub volume_size: u32,
}

/// Takes a block's bytes as they arrive.
pub trait BlockSink: Send + Sync {
    /// They begin, for each call anew: what digest they should have.
    fn begin(&self, claimed: Digest);

    /// The next of them.
    fn piece(&self, bytes: &[u8]);
}

#[async_trait]
pub trait Snapshots: Send + Sync {
    /// `StartSnapshot`. The same token with the same request gives the same snapshot; with another, [`Exists`].
    ///
    /// [`Exists`]: super::ErrorKind::Exists
    async fn start(&self, new: &NewSnapshot, token: &Token) -> Result<SnapshotId>;

    /// `PutSnapshotBlock`. `data` is [`BLOCK_SIZE`](super::BLOCK_SIZE) bytes; a digest that is not its own is
    /// refused. Putting an index again replaces it. Only while the snapshot is pending.
    async fn put_block(&self, id: &SnapshotId, index: BlockIndex, data: Block, digest: Digest) -> Result<()>;

    /// `CompleteSnapshot`: `changed` is the number of different indexes that were put, `checksum` their linear
    /// checksum; wrong ones are refused.
    async fn complete(&self, id: &SnapshotId, changed: u32, checksum: Digest) -> Result<()>;

    /// `ListSnapshotBlocks`: a child lists its parent's blocks too. Completed snapshots only.
    async fn list_blocks(&self, id: &SnapshotId, page: Option<&PageToken>) -> Result<BlockPage>;

    /// `GetSnapshotBlock`: the bytes and the digest that the cloud says they have. The caller verifies; of a call that
    /// fails some may have come.
    async fn get_block(
        &self,
        id: &SnapshotId,
        index: BlockIndex,
        token: &BlockToken,
        into: &dyn BlockSink,
    ) -> Result<()>;

    /// `DescribeSnapshots`.
    async fn describe(&self, query: &SnapshotQuery) -> Result<Vec<Snapshot>>;

    /// `DeleteSnapshot`. [`InUse`](super::ErrorKind::InUse) while an image has it.
    async fn delete(&self, id: &SnapshotId) -> Result<()>;

    /// How many blocks at once this cloud takes well.
    fn puts_at_once(&self) -> usize;

    /// How many it gives well.
    fn gets_at_once(&self) -> usize;
}
