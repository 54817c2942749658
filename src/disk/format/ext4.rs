//! A root on ext4: made by mke2fs from the folder, without a mount. The pattern for others, and the default.

use async_trait::async_trait;

use super::needs::BLOCK;
use super::{FormatError, LIMIT, Needs, Part, ROOM, RootFormat};
use crate::disk::MIB;
use crate::disk::filesystem::FilesystemKind;
use crate::host::exec::Cmd;
use crate::host::stop::Stop;

/// The inode that mke2fs makes, in bytes.
const INODE: u64 = 256;
/// The journal: what mke2fs gives file systems of this size at most.
const JOURNAL: u64 = 64 * MIB;
/// One inode for so many bytes, mke2fs's own default: a root with many small files gets more.
const BYTES_PER_INODE: u64 = 16 * 1024;
/// All of them by name, since every mke2fs has other defaults and refuses to leave out what it does not know. GRUB 2.06 and
/// kernels before 5.15 read them; metadata_csum_seed and orphan_file, the defaults since 1.47, they would not.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,\
    large_file,huge_file,dir_nlink,extra_isize,metadata_csum";
/// For bitmaps, group descriptors and the blocks kept for root.
const ROOM_PERCENT: u64 = 15;

#[derive(Debug)]
pub struct Ext4;

fn inodes(needs: &Needs, bytes: u64) -> u64 {
    (bytes / BYTES_PER_INODE).max(needs.inodes * 5 / 4 + 1024)
}

#[async_trait]
impl RootFormat for Ext4 {
    fn kind(&self) -> FilesystemKind {
        FilesystemKind::Ext4
    }

    fn fstab(&self) -> &'static str {
        "defaults,errors=remount-ro 0 1"
    }

    fn least(&self, needs: &Needs) -> u64 {
        let files = needs.data + JOURNAL;
        let with_room = files + files * ROOM_PERCENT / 100 + ROOM;
        with_room + inodes(needs, with_room) * INODE
    }

    async fn make(&self, part: &Part<'_>, stop: &Stop) -> Result<(), FormatError> {
        let extended = format!(
            "offset={},hash_seed={},lazy_itable_init=0,lazy_journal_init=0,nodiscard,root_owner=0:0",
            part.start, part.ids.hash_seed
        );
        Cmd::new("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-L", "root"])
            .args(["-b", &BLOCK.to_string(), "-I", &INODE.to_string()])
            .args(["-N", &inodes(part.needs, part.size).to_string()])
            .args(["-J", &format!("size={}", JOURNAL / MIB)])
            .args(["-U", &part.ids.root.to_string()])
            .args(["-O", FEATURES])
            .args(["-E", &extended])
            .arg("-d")
            .arg(part.root)
            .arg(part.disk)
            .arg(format!("{}k", part.size / 1024))
            // mke2fs takes its time from the first since 1.47.1, and from the second before.
            .env("SOURCE_DATE_EPOCH", part.epoch.max(0).to_string())
            .env("E2FSPROGS_FAKE_TIME", part.epoch.max(1).to_string())
            // Without a file mke2fs takes its built-in settings; the host's own must not decide on features.
            .env("MKE2FS_CONFIG", "/nonexistent")
            .timeout(LIMIT)
            .run(stop)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_files_get_inodes_for_each() {
        let needs = Needs { inodes: 1_000_000, data: MIB };
        let least = Ext4.least(&needs);
        let made = inodes(&needs, least);
        assert!(made >= 1_250_000);
        assert!(least > made * INODE);
    }
}
