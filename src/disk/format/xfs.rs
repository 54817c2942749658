//! A root on xfs: made empty, mounted, and filled by copying. It grows by whole groups of the size that it is made with,
//! which serves a root of some GiB well; one that will have hundreds is better made large by the recipe's `disk.size`.

use async_trait::async_trait;

use super::needs::BLOCK;
use super::{FormatError, LIMIT, Needs, Part, ROOM, RootFormat, copy};
use crate::disk::MIB;
use crate::disk::filesystem::FilesystemKind;
use crate::host::exec::Cmd;
use crate::host::stop::Stop;

/// mkfs.xfs refuses to make a smaller one (since 5.19: "Filesystem must be larger than 300MB").
pub(super) const LEAST: u64 = 300 * MIB;
/// The least log of mkfs.xfs since 5.15, in bytes.
const LOG: u64 = 64 * MIB;
/// The inode that mkfs.xfs makes, in bytes.
const INODE: u64 = 512;
/// For the groups' headers and trees, and what the kernel keeps back in each of them.
const ROOM_PERCENT: u64 = 15;
/// What GRUB since 2.06 and Linux since 5.10 read. GRUB before 2.12 refuses nrext64, the default since xfsprogs 6.5; without
/// bigtime the times of files would end in 2038.
const METADATA: &str = "crc=1,finobt=1,bigtime=1,inobtcount=1,reflink=1,rmapbt=0";
const INODES: &str = "sparse=1";
/// The first xfsprogs that knows nrext64.
const LARGE_EXTENT_COUNTS: (u32, u32) = (5, 19);
/// The first xfsprogs with two features more, which no GRUB of a release reads; they became the default later.
const EXCHANGE_AND_PARENT: (u32, u32) = (6, 10);

#[derive(Debug)]
pub struct Xfs;

#[async_trait]
impl RootFormat for Xfs {
    fn kind(&self) -> FilesystemKind {
        FilesystemKind::Xfs
    }

    fn fstab(&self) -> &'static str {
        // The log is replayed by the mount; fsck.xfs does nothing.
        "defaults 0 0"
    }

    fn least(&self, needs: &Needs) -> u64 {
        let files = needs.data + needs.inodes * INODE + LOG;
        (files + files * ROOM_PERCENT / 100 + ROOM).max(LEAST)
    }

    async fn make(&self, part: &Part<'_>, stop: &Stop) -> Result<(), FormatError> {
        let said = Cmd::new("mkfs.xfs").arg("-V").timeout(LIMIT).run(stop).await?.text();
        let version = version(&said).ok_or(FormatError::NoVersion { said })?;
        let mut make = Cmd::new("mkfs.xfs")
            // The file is new and holds nothing that could be discarded.
            .args(["-q", "-f", "-K", "-L", "root"])
            .args(["-b", &format!("size={BLOCK}")])
            .args(["-m", &format!("uuid={},{METADATA}", part.ids.root)])
            .args(["-i", INODES])
            .timeout(LIMIT);
        if version >= LARGE_EXTENT_COUNTS {
            make = make.args(["-i", "nrext64=0"]);
        }
        if version >= EXCHANGE_AND_PARENT {
            make = make.args(["-i", "exchange=0", "-n", "parent=0"]);
        }
        copy::into_new(&self.kind(), make, part, stop).await
    }
}

/// Major and minor, of `mkfs.xfs version 6.1.0`.
fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.split_whitespace().last()?.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_the_tool_is_read() {
        assert_eq!(version("mkfs.xfs version 6.1.0"), Some((6, 1)));
        assert!(version("mkfs.xfs version 6.13.0-rc1") > Some(EXCHANGE_AND_PARENT));
        assert_eq!(version("mkfs.xfs"), None);
    }
}
