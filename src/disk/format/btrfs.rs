//! A root on btrfs: made empty, mounted, and filled by copying. mkfs.btrfs can take a folder itself (`--rootdir`), but 6.2
//! writes the holes of files out. The root is the top of the file system and not a subvolume, so that every boot loader
//! finds it without being told.

use async_trait::async_trait;

use super::needs::BLOCK;
use super::{FormatError, LIMIT, Needs, Part, ROOM, RootFormat, copy};
use crate::disk::MIB;
use crate::disk::filesystem::FilesystemKind;
use crate::host::exec::Cmd;
use crate::host::stop::Stop;

/// mkfs.btrfs makes none below 109 MiB; with less than this, the kernel finds no room for a second chunk of metadata.
pub(super) const LEAST: u64 = 256 * MIB;
/// What one inode takes in the trees, in bytes: its items, names and references, and a file of up to 2048 bytes as a
/// whole (`max_inline`, btrfs(5)).
const METADATA_PER_INODE: u64 = 2560;
/// A checksum of 4 bytes for every block of data.
const CHECKSUM: u64 = 4;
/// Space is given to data and metadata in chunks of up to a tenth of the file system (Linux `fs/btrfs/volumes.c`), which
/// fill unevenly.
const ROOM_PERCENT: u64 = 25;

#[derive(Debug)]
pub struct Btrfs;

#[async_trait]
impl RootFormat for Btrfs {
    fn kind(&self) -> FilesystemKind {
        FilesystemKind::Btrfs
    }

    fn fstab(&self) -> &'static str {
        // The trees are checked as they are read; fsck.btrfs does nothing.
        "defaults 0 0"
    }

    fn least(&self, needs: &Needs) -> u64 {
        let metadata = needs.inodes * METADATA_PER_INODE + needs.data / BLOCK * CHECKSUM;
        // Metadata is there twice.
        let files = needs.data + 2 * metadata;
        (files + files * ROOM_PERCENT / 100 + ROOM).max(LEAST)
    }

    async fn make(&self, part: &Part<'_>, stop: &Stop) -> Result<(), FormatError> {
        let make = Cmd::new("mkfs.btrfs")
            // The file is new and holds nothing that could be discarded.
            .args(["--quiet", "--force", "--nodiscard", "--label", "root"])
            .args(["--sectorsize", &BLOCK.to_string()])
            .args(["--metadata", "dup", "--data", "single"])
            .args(["--uuid", &part.ids.root.to_string()])
            .timeout(LIMIT);
        copy::into_new(&self.kind(), make, part, stop).await
    }
}
