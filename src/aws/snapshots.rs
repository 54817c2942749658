//! Snapshots: their blocks by the EBS direct APIs, all else by EC2.

use async_trait::async_trait;
use aws_sdk_ebs::types as ebs;
use aws_sdk_ec2::types as ec2;
use jiff::Timestamp;

use super::place::{AwsPlace, page, some, tag_filters, tags_of, timestamp};
use crate::cloud::{
    BLOCK_SIZE, Block, BlockIndex, BlockPage, BlockSink, BlockToken, CloudError, Digest, ErrorKind,
    ListedBlock, NewSnapshot, PageToken, Result, Snapshot, SnapshotId, SnapshotQuery, SnapshotState,
    Snapshots, Token,
};

const START: &str = "StartSnapshot";
const COMPLETE: &str = "CompleteSnapshot";
const LIST: &str = "ListSnapshotBlocks";
const DESCRIBE: &str = "DescribeSnapshots";
/// Blocks of a page: the most (EBS API model).
const PAGE: i32 = 10_000;
/// Snapshots of a page (EC2 API: 5 to 1,000).
const SNAPSHOTS_PAGE: i32 = 1000;
/// Requests in flight. With these a put of 120 ms, and a get of 60 ms, reach the published rate of 1,000 blocks a second.
/// Neither needs memory for its block while the answer is waited for; a block that comes has some from its first piece on.
const PUTS: usize = 128;
const GETS: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct AwsSnapshots(pub(super) AwsPlace);

impl AwsSnapshots {
    fn wrong(&self, operation: &'static str, text: impl Into<String>) -> CloudError {
        CloudError::new(ErrorKind::Invalid, operation, &self.0.place, text)
    }
}

#[async_trait]
impl Snapshots for AwsSnapshots {
    async fn start(&self, new: &NewSnapshot, token: &Token) -> Result<SnapshotId> {
        let tags = new.tags.iter().map(|(key, value)| ebs::Tag::builder().key(key).value(value).build());
        let timeout = i32::try_from(new.timeout_minutes).map_err(|error| {
            self.wrong(START, format!("a timeout of {} minutes", new.timeout_minutes)).with_source(error)
        })?;
        let answer = self
            .0
            .ebs
            .start_snapshot()
            .volume_size(i64::from(new.volume_size))
            .set_parent_snapshot_id(new.parent.as_ref().map(ToString::to_string))
            .set_description((!new.description.is_empty()).then(|| new.description.clone()))
            .set_tags(some(tags.collect()))
            // Only with a key: left out, the account's default decides, as it must with a parent.
            .set_encrypted(new.encrypt.is_some().then_some(true))
            .set_kms_key_arn(new.encrypt.clone())
            .timeout(timeout)
            .client_token(token.as_str())
            .send()
            .await
            .map_err(self.0.failed(START))?;
        let id = answer.snapshot_id().and_then(SnapshotId::parse);
        id.ok_or_else(|| self.0.odd(START, "no snapshot's id"))
    }

    async fn put_block(&self, id: &SnapshotId, index: BlockIndex, data: Block, digest: Digest) -> Result<()> {
        self.0.blocks.put(id, index, data, digest).await
    }

    async fn complete(&self, id: &SnapshotId, changed: u32, checksum: Digest) -> Result<()> {
        let changed = i32::try_from(changed)
            .map_err(|error| self.wrong(COMPLETE, format!("{changed} blocks")).with_source(error))?;
        let call = self.0.ebs.complete_snapshot().snapshot_id(id.as_str()).changed_blocks_count(changed);
        let call = call
            .checksum(checksum.base64())
            .checksum_algorithm(ebs::ChecksumAlgorithm::ChecksumAlgorithmSha256)
            .checksum_aggregation_method(ebs::ChecksumAggregationMethod::ChecksumAggregationLinear);
        call.send().await.map(drop).map_err(self.0.failed(COMPLETE))
    }

    async fn list_blocks(&self, id: &SnapshotId, page: Option<&PageToken>) -> Result<BlockPage> {
        let answer = self
            .0
            .ebs
            .list_snapshot_blocks()
            .snapshot_id(id.as_str())
            .max_results(PAGE)
            .set_next_token(page.map(|token| token.0.clone()))
            .send()
            .await
            .map_err(self.0.failed(LIST))?;
        if answer.block_size().is_some_and(|size| usize::try_from(size) != Ok(BLOCK_SIZE)) {
            return Err(self.0.odd(LIST, "blocks of another size"));
        }
        let size = answer.volume_size().and_then(|size| u32::try_from(size).ok());
        let volume_size = size.ok_or_else(|| self.0.odd(LIST, "no size"))?;
        let blocks: Option<Vec<ListedBlock>> = answer
            .blocks()
            .iter()
            .map(|block| {
                let index = BlockIndex(u32::try_from(block.block_index()?).ok()?);
                Some(ListedBlock { index, token: BlockToken(block.block_token()?.to_owned()) })
            })
            .collect();
        let blocks = blocks.ok_or_else(|| self.0.odd(LIST, "a block without index or token"))?;
        Ok(BlockPage {
            blocks,
            next: answer.next_token().map(|token| PageToken(token.to_owned())),
            volume_size,
        })
    }

    async fn get_block(
        &self,
        id: &SnapshotId,
        index: BlockIndex,
        token: &BlockToken,
        into: &dyn BlockSink,
    ) -> Result<()> {
        self.0.blocks.get(id, index, token, into).await
    }

    async fn describe(&self, query: &SnapshotQuery) -> Result<Vec<Snapshot>> {
        let ids: Vec<String> = query.ids.iter().map(ToString::to_string).collect();
        let named = !ids.is_empty();
        let call = self
            .0
            .ec2
            .describe_snapshots()
            .set_owner_ids((!named).then(|| vec!["self".to_owned()]))
            .set_snapshot_ids(some(ids))
            .set_filters(some(tag_filters(&query.tags, &query.tag_keys)))
            // Ids and a page's size exclude each other.
            .set_max_results((!named).then_some(SNAPSHOTS_PAGE));
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            let send = || {
                let sent = call.clone().set_next_token(next.clone()).send();
                async { sent.await.map_err(self.0.failed(DESCRIBE)) }
            };
            let page = page(next.is_none(), send).await?;
            found.extend(page.snapshots().iter().filter_map(read));
            next = page.next_token().map(str::to_owned);
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    async fn delete(&self, id: &SnapshotId) -> Result<()> {
        let sent = self.0.ec2.delete_snapshot().snapshot_id(id.as_str()).send().await;
        sent.map(drop).map_err(self.0.failed("DeleteSnapshot"))
    }

    fn puts_at_once(&self) -> usize {
        PUTS
    }

    fn gets_at_once(&self) -> usize {
        GETS
    }
}

fn read(snapshot: &ec2::Snapshot) -> Option<Snapshot> {
    let state = match snapshot.state()? {
        ec2::SnapshotState::Completed => SnapshotState::Completed,
        ec2::SnapshotState::Pending | ec2::SnapshotState::Recovering => SnapshotState::Pending,
        _ => SnapshotState::Error,
    };
    Some(Snapshot {
        id: SnapshotId::parse(snapshot.snapshot_id()?)?,
        state,
        volume_size: snapshot.volume_size().and_then(|size| u32::try_from(size).ok()).unwrap_or_default(),
        // EC2 does not tell it.
        parent: None,
        description: snapshot.description().unwrap_or_default().to_owned(),
        tags: tags_of(snapshot.tags()),
        encrypt: snapshot.kms_key_id().map(str::to_owned),
        started: snapshot.start_time().and_then(timestamp).unwrap_or(Timestamp::UNIX_EPOCH),
        // `42%`.
        progress: snapshot.progress().and_then(|text| text.trim_end_matches('%').parse().ok()),
    })
}
