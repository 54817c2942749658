//! The calls on snapshots: the EBS direct APIs and EC2's, with their rules and their delays.

use std::collections::HashSet;
use std::ops::ControlFlow;

use async_trait::async_trait;

use super::map::blocks_of;
use super::place::LocalPlace;
use super::refusal::Refusal;
use super::snapshot_folder::{Completion, Kept, SnapshotFolder};
use super::store::StoreError;
use super::tokens::{self, Listing};
use super::{durable, images, laws, sharing};
use crate::cloud::{
    BLOCK_SIZE, Block, BlockIndex, BlockPage, BlockSink, BlockToken, Digest, ErrorKind, LinearChecksum,
    ListedBlock, NewSnapshot, PageToken, Place, Result, Snapshot, SnapshotId, SnapshotQuery, SnapshotState,
    Snapshots, Token,
};
use crate::host::clock;

/// Blocks on a page. AWS gives between 100 and 10,000.
const PAGE: usize = 1000;
/// More block calls at once than this gain nothing on one machine's disk.
const MOST_AT_ONCE: usize = 8;
/// Completing makes so many blocks durable one by one, 32 GiB of them, and all that the file system has where there are
/// more: their digests take 4 MiB of memory here.
const MOST_ONE_BY_ONE: usize = 65_536;

/// Codes of the EBS direct APIs.
const EBS_NOT_FOUND: &str = "ResourceNotFoundException";
const EBS_INVALID: &str = "ValidationException";
const EBS_CONFLICT: &str = "ConflictException";
/// Codes of EC2.
const EC2_NOT_FOUND: &str = "InvalidSnapshot.NotFound";
const EC2_IN_USE: &str = "InvalidSnapshot.InUse";

#[derive(Debug)]
pub(super) struct LocalSnapshots(pub(super) LocalPlace);

#[async_trait]
impl Snapshots for LocalSnapshots {
    async fn start(&self, new: &NewSnapshot, token: &Token) -> Result<SnapshotId> {
        let (new, token) = (new.clone(), token.clone());
        self.0.call("StartSnapshot", move |here| start(here, &new, &token)).await
    }

    async fn put_block(&self, id: &SnapshotId, index: BlockIndex, data: Block, digest: Digest) -> Result<()> {
        let id = id.clone();
        self.0.call("PutSnapshotBlock", move |here| put(here, &id, index, &data, &digest)).await
    }

    async fn complete(&self, id: &SnapshotId, changed: u32, checksum: Digest) -> Result<()> {
        let id = id.clone();
        self.0.call("CompleteSnapshot", move |here| complete(here, &id, changed, &checksum)).await
    }

    async fn list_blocks(&self, id: &SnapshotId, page: Option<&PageToken>) -> Result<BlockPage> {
        let (id, page) = (id.clone(), page.cloned());
        self.0.call("ListSnapshotBlocks", move |here| list(here, &id, page.as_ref())).await
    }

    async fn get_block(
        &self,
        id: &SnapshotId,
        index: BlockIndex,
        token: &BlockToken,
        into: &dyn BlockSink,
    ) -> Result<()> {
        let (id, token) = (id.clone(), token.clone());
        let (block, digest) =
            self.0.call("GetSnapshotBlock", move |here| get(here, &id, index, &token)).await?;
        into.begin(digest);
        into.piece(&block);
        Ok(())
    }

    async fn describe(&self, query: &SnapshotQuery) -> Result<Vec<Snapshot>> {
        let query = query.clone();
        self.0.call("DescribeSnapshots", move |here| describe(here, &query)).await
    }

    async fn delete(&self, id: &SnapshotId) -> Result<()> {
        let id = id.clone();
        self.0.call("DeleteSnapshot", move |here| delete(here, &id)).await
    }

    fn puts_at_once(&self) -> usize {
        self.gets_at_once()
    }

    fn gets_at_once(&self) -> usize {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        (processors * 2).min(MOST_AT_ONCE)
    }
}

/// What the snapshot is and where, if it may be read.
pub(super) fn completed(
    here: &LocalPlace,
    id: &SnapshotId,
    (not_found, not_ready): (&'static str, &'static str),
) -> std::result::Result<(SnapshotFolder, Kept), Refusal> {
    let folder = here.snapshot(id);
    let kept = folder.kept()?.ok_or_else(|| missing(not_found, id))?;
    let state = folder.state(&kept);
    match or_missing(state, &folder, id, not_found)? {
        SnapshotState::Completed => Ok((folder, kept)),
        SnapshotState::Pending => Err(Refusal::invalid(
            not_ready,
            format!("snapshot {id} is pending: wait until describing it says completed"),
        )),
        SnapshotState::Error => Err(Refusal::invalid(
            not_ready,
            format!("snapshot {id} is in error: it was not completed in time"),
        )),
    }
}

pub(super) fn start(
    here: &LocalPlace,
    new: &NewSnapshot,
    token: &Token,
) -> std::result::Result<SnapshotId, Refusal> {
    laws::snapshot(new)?;
    let id = id_for(&here.place, token)?;
    let request = fingerprint(new);
    let folder = here.snapshot(&id);
    let _registering = here.lock()?;
    if let Some(kept) = folder.kept()? {
        return if kept.request == request {
            Ok(id)
        } else {
            Err(Refusal::new(
                ErrorKind::Exists,
                EBS_CONFLICT,
                format!("the client token started {id} with another request: use a new token"),
            ))
        };
    }
    let mut encrypt = new.encrypt.clone();
    let mut parent = None;
    if let Some(parent_id) = &new.parent {
        let (folder, kept) = completed(here, parent_id, (EBS_NOT_FOUND, EBS_INVALID))?;
        if new.volume_size < kept.snapshot.volume_size {
            return Err(Refusal::invalid(
                EBS_INVALID,
                format!(
                    "a volume of {} GiB is smaller than the {} GiB of its parent {parent_id}",
                    new.volume_size, kept.snapshot.volume_size
                ),
            ));
        }
        encrypt = kept.snapshot.encrypt;
        parent = Some(folder);
    }
    let kept = Kept {
        snapshot: Snapshot {
            id: id.clone(),
            state: SnapshotState::Pending,
            volume_size: new.volume_size,
            parent: new.parent.clone(),
            description: new.description.clone(),
            tags: new.tags.clone(),
            encrypt,
            // The cloud's clock, which no client's environment sets.
            started: clock::wall(),
            progress: None,
        },
        request,
        timeout_minutes: new.timeout_minutes,
        completion: None,
    };
    // From reading the parent's map until the new one is in place, none of its blocks may go.
    let _writing = here.store.writing()?;
    durable::place(folder.path(), |staged| {
        SnapshotFolder::at(staged.to_owned()).fill(&kept, parent.as_ref())
    })?;
    Ok(id)
}

pub(super) fn put(
    here: &LocalPlace,
    id: &SnapshotId,
    index: BlockIndex,
    data: &[u8],
    digest: &Digest,
) -> std::result::Result<(), Refusal> {
    if data.len() != BLOCK_SIZE {
        return Err(Refusal::invalid(
            EBS_INVALID,
            format!("block {index} has {} bytes and not {BLOCK_SIZE}", data.len()),
        ));
    }
    if Digest::of(data) != *digest {
        return Err(Refusal::invalid(
            EBS_INVALID,
            format!("the checksum of block {index} is not that of its data"),
        ));
    }
    let folder = here.snapshot(id);
    if folder.take_fresh()? {
        // AWS answers so for up to two minutes after a start (awslabs/coldsnap#43); here once, so that each run meets it.
        return Err(Refusal::new(
            ErrorKind::NotYet,
            EBS_NOT_FOUND,
            format!("snapshot {id} was just started and is not seen yet: put again"),
        ));
    }
    let locked = folder.lock_shared();
    let _putting = or_missing(locked, &folder, id, EBS_NOT_FOUND)?;
    let kept = pending(&folder, id)?;
    let blocks = blocks_of(kept.snapshot.volume_size);
    if index.0 >= blocks {
        return Err(Refusal::invalid(
            EBS_INVALID,
            format!("block {index} is outside the volume, which has {blocks} blocks"),
        ));
    }
    let _writing = here.store.writing()?;
    here.store.blocks().put(digest, data)?;
    let set = folder.changed().and_then(|map| map.set(index, digest));
    or_missing(set, &folder, id, EBS_NOT_FOUND)
}

pub(super) fn complete(
    here: &LocalPlace,
    id: &SnapshotId,
    changed: u32,
    checksum: &Digest,
) -> std::result::Result<(), Refusal> {
    let folder = here.snapshot(id);
    let locked = folder.lock_alone();
    let _completing = or_missing(locked, &folder, id, EBS_NOT_FOUND)?;
    let asked = Completion::new(changed, checksum);
    let kept = folder.kept()?.ok_or_else(|| missing(EBS_NOT_FOUND, id))?;
    if kept.completion.as_ref() == Some(&asked) {
        // The answer to the first call may have been lost.
        return Ok(());
    }
    let mut kept = pending(&folder, id)?;
    let mut count = 0_u32;
    let mut sum = LinearChecksum::default();
    let mut digests = HashSet::new();
    let walked = folder.changed().and_then(|map| {
        map.walk(BlockIndex(0), &mut |_, digest| {
            count += 1;
            sum.add(&digest);
            if digests.len() < MOST_ONE_BY_ONE {
                digests.insert(digest);
            }
            ControlFlow::Continue(())
        })
    });
    or_missing(walked, &folder, id, EBS_NOT_FOUND)?;
    if count != changed {
        return Err(Refusal::invalid(
            EBS_INVALID,
            format!("{changed} changed blocks were announced and {count} were put into {id}"),
        ));
    }
    if sum.finish() != *checksum {
        return Err(Refusal::invalid(
            EBS_INVALID,
            format!("the checksum is not that of the blocks that were put into {id}"),
        ));
    }
    let synced =
        if digests.len() < MOST_ONE_BY_ONE { here.store.blocks().sync(&digests) } else { here.store.sync() };
    or_missing(synced, &folder, id, EBS_NOT_FOUND)?;
    let _writing = here.store.writing()?;
    let done = folder.complete(&mut kept, asked);
    or_missing(done, &folder, id, EBS_NOT_FOUND)
}

fn list(
    here: &LocalPlace,
    id: &SnapshotId,
    page: Option<&PageToken>,
) -> std::result::Result<BlockPage, Refusal> {
    let (folder, kept) = completed(here, id, (EBS_NOT_FOUND, EBS_INVALID))?;
    let map = or_missing(folder.map(), &folder, id, EBS_NOT_FOUND)?;
    let now = clock::wall();
    let listing = Listing::new(id, now);
    let (from, limit) = match page {
        Some(token) => (tokens::open_page(token, id, now)?, PAGE),
        // AWS may give an empty page though more follow; here the first one is, so that each run meets it.
        None => (BlockIndex(0), 0),
    };
    let mut blocks = Vec::new();
    let mut next = None;
    map.walk(from, &mut |index, digest| {
        if blocks.len() == limit {
            next = Some(listing.page(index));
            return ControlFlow::Break(());
        }
        let token = listing.block(index, &digest);
        blocks.push(ListedBlock { index, token });
        ControlFlow::Continue(())
    })?;
    Ok(BlockPage { blocks, next, volume_size: kept.snapshot.volume_size })
}

fn get(
    here: &LocalPlace,
    id: &SnapshotId,
    index: BlockIndex,
    token: &BlockToken,
) -> std::result::Result<(Block, Digest), Refusal> {
    let (folder, _) = completed(here, id, (EBS_NOT_FOUND, EBS_INVALID))?;
    let map = or_missing(folder.map(), &folder, id, EBS_NOT_FOUND)?;
    let digest = map.get(index)?.ok_or_else(|| {
        Refusal::invalid(EBS_INVALID, format!("snapshot {id} has no block {index}: it was never put"))
    })?;
    tokens::check_block(token, id, index, &digest, clock::wall())?;
    let data = or_missing(here.store.blocks().get(&digest), &folder, id, EBS_NOT_FOUND)?;
    Ok((data, digest))
}

fn describe(here: &LocalPlace, query: &SnapshotQuery) -> std::result::Result<Vec<Snapshot>, Refusal> {
    let ids = if query.ids.is_empty() {
        durable::names(&here.snapshots())?.iter().filter_map(|name| SnapshotId::parse(name)).collect()
    } else {
        query.ids.clone()
    };
    let mut found = Vec::new();
    for id in &ids {
        let folder = here.snapshot(id);
        match folder.kept()? {
            Some(mut kept) if laws::has_tags(&kept.snapshot.tags, &query.tags, &query.tag_keys) => {
                kept.snapshot.state = folder.state(&kept)?;
                // Completing is not seen at once: the first describe takes this away, and the next one sees it.
                folder.take_settling()?;
                found.push(kept.snapshot);
            }
            Some(_) => {}
            // Deleted since it was listed.
            None if query.ids.is_empty() => {}
            // Tags are not seen from another account, so no query for them finds it.
            None => match sharing::snapshot(here, id)?
                .filter(|_| query.tags.is_empty() && query.tag_keys.is_empty())
            {
                Some(shared) => found.push(shared),
                None => return Err(missing(EC2_NOT_FOUND, id)),
            },
        }
    }
    found.sort_by(|a, b| (a.started, &a.id).cmp(&(b.started, &b.id)));
    Ok(found)
}

fn delete(here: &LocalPlace, id: &SnapshotId) -> std::result::Result<(), Refusal> {
    let registering = here.lock()?;
    let folder = here.snapshot(id);
    if folder.kept()?.is_none() {
        return Err(missing(EC2_NOT_FOUND, id));
    }
    if let Some(image) = images::users_of(here, id)?.first() {
        return Err(Refusal::new(
            ErrorKind::InUse,
            EC2_IN_USE,
            format!("snapshot {id} is in use by {image}: deregister the image first"),
        ));
    }
    let Some(old) = durable::move_out(folder.path())? else {
        return Err(missing(EC2_NOT_FOUND, id));
    };
    drop(registering);
    here.store.discard(&old)?;
    Ok(())
}

/// Copies a completed snapshot of any place to here: what `CopyImage` does with each of an image's. Its blocks are in the
/// store already. The caller holds the place's lock. The same id is the same copy.
pub(super) fn copy(
    here: &LocalPlace,
    from: &LocalPlace,
    source: &SnapshotId,
    copy: &Snapshot,
) -> std::result::Result<(), Refusal> {
    let (of, kept) = completed(from, source, (EC2_NOT_FOUND, "IncorrectState"))?;
    let folder = here.snapshot(&copy.id);
    if folder.kept()?.is_some() {
        return Ok(());
    }
    let kept = Kept {
        snapshot: Snapshot {
            state: SnapshotState::Completed,
            volume_size: kept.snapshot.volume_size,
            encrypt: copy.encrypt.clone().or(kept.snapshot.encrypt),
            ..copy.clone()
        },
        request: String::new(),
        timeout_minutes: kept.timeout_minutes,
        completion: None,
    };
    // From reading the source's map until the new one is in place, none of its blocks may go.
    let _writing = here.store.writing()?;
    durable::place(folder.path(), |staged| SnapshotFolder::at(staged.to_owned()).fill_copy(&kept, &of))?;
    Ok(())
}

/// The snapshot as it is kept, if blocks may be put into it.
fn pending(folder: &SnapshotFolder, id: &SnapshotId) -> std::result::Result<Kept, Refusal> {
    let kept = folder.kept()?.ok_or_else(|| missing(EBS_NOT_FOUND, id))?;
    if kept.completion.is_some() {
        return Err(Refusal::invalid(EBS_INVALID, format!("snapshot {id} is completed already")));
    }
    let state = folder.state(&kept);
    match or_missing(state, folder, id, EBS_NOT_FOUND)? {
        SnapshotState::Pending => Ok(kept),
        _ => Err(Refusal::invalid(
            EBS_INVALID,
            format!("snapshot {id} is in error: nothing was put for {} minutes", kept.timeout_minutes),
        )),
    }
}

/// A snapshot that is deleted while a call works on it answers as one that never was.
fn or_missing<T>(
    result: std::result::Result<T, StoreError>,
    folder: &SnapshotFolder,
    id: &SnapshotId,
    code: &'static str,
) -> std::result::Result<T, Refusal> {
    match result {
        Err(error) if error.is_gone() && !folder.path().exists() => Err(missing(code, id)),
        other => Ok(other?),
    }
}

fn missing(code: &'static str, id: &SnapshotId) -> Refusal {
    Refusal::not_found(code, format!("there is no snapshot {id}"))
}

/// The id is made of the token, so that the same token meets the same snapshot with nothing else kept, even where a
/// process was killed on the way. A token may be used again once its snapshot is deleted.
fn id_for(place: &Place, token: &Token) -> std::result::Result<SnapshotId, Refusal> {
    let digest = Digest::of(format!("{}\n{place}\n{}", place.partition, token.as_str()).as_bytes());
    let text = format!("{}{}", SnapshotId::PREFIX, &digest.hex()[..17]);
    SnapshotId::parse(&text)
        .ok_or_else(|| Refusal::new(ErrorKind::Unknown, EBS_INVALID, format!("{text} is not an id")))
}

fn fingerprint(new: &NewSnapshot) -> String {
    let request = serde_json::json!([
        new.volume_size,
        new.parent,
        new.description,
        new.tags,
        new.encrypt,
        new.timeout_minutes,
    ]);
    Digest::of(request.to_string().as_bytes()).hex()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{AccountId, Partition, Region};

    #[test]
    fn one_token_is_one_snapshot_in_each_place() {
        let place = |region| Place {
            partition: Partition::local(),
            account: AccountId::parse("000000000000").unwrap(),
            region: Region::parse(region).unwrap(),
        };
        let id = |region, attempt| id_for(&place(region), &Token::of("bake", "snapshot", attempt)).unwrap();
        assert_eq!(id("local", 1), id("local", 1));
        assert_ne!(id("local", 1), id("local", 2));
        assert_ne!(id("local", 1), id("other", 1));
    }
}
