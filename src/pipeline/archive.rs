//! An artifact as a zip file. What comes out of one is not trusted: no entry leaves the folder, by its name or by a link,
//! none is written twice, and what is unpacked is bounded whatever the archive says of itself.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::host::stop::Stop;

/// Bytes of an artifact of CodePipeline's (limits: "S3 source artifact 5 GB").
pub const LARGEST: u64 = 5 << 30;
/// Beyond this a size needs zip's larger form.
const LARGE: u64 = u32::MAX as u64;
/// Bytes of a link's target: as much as a path may have.
const LONGEST_PATH: u64 = 4096;

/// What may come out of an archive.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// In bytes, of all files.
    pub bytes: u64,
    pub entries: usize,
}

impl Bounds {
    /// Four times the largest artifact: sources and disk images in them pack no better, a bomb packs a thousandfold.
    pub const OF_A_JOB: Self = Self { bytes: 4 * LARGEST, entries: 200_000 };
}

/// Unpacks an archive into a folder, which must be there and empty, and gives how many files there are.
///
/// # Errors
/// [`ArchiveError`]. What was written by then stays, for whoever removes the folder.
pub fn unpack(archive: &Path, into: &Path, bounds: Bounds, stop: &Stop) -> Result<usize, ArchiveError> {
    let file = File::open(archive).map_err(|source| ArchiveError::Io { path: archive.to_owned(), source })?;
    let mut archive =
        ZipArchive::new(io::BufReader::new(file)).map_err(|source| ArchiveError::NoZip { source })?;
    if archive.len() > bounds.entries {
        return Err(ArchiveError::TooMany { entries: archive.len(), most: bounds.entries });
    }
    let mut left = bounds.bytes;
    // Made last: until then no name leads through one.
    let mut links = Vec::new();
    let mut files = 0;
    for number in 0..archive.len() {
        if stop.is_requested() {
            return Err(ArchiveError::Stopped);
        }
        let mut entry = archive.by_index(number).map_err(|source| ArchiveError::Entry { number, source })?;
        let name = entry.name().to_owned();
        let path = plain(&name).ok_or_else(|| ArchiveError::Outside { name: name.clone() })?;
        let at = into.join(&path);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
                ArchiveError::Twice { name: name.clone() }
            }
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
                ArchiveError::Damaged { name: name.clone(), source }
            }
            _ => ArchiveError::Io { path: at.clone(), source },
        };
        if entry.is_dir() {
            fs::create_dir_all(&at).map_err(failed)?;
            continue;
        }
        if let Some(folder) = at.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        if entry.is_symlink() {
            let mut target = String::new();
            (&mut entry).take(LONGEST_PATH).read_to_string(&mut target).map_err(failed)?;
            if !stays_inside(&path, &target) {
                return Err(ArchiveError::Link { name, target });
            }
            links.push((at, target, name));
        } else {
            let mode = entry.unix_mode().unwrap_or(0o644) & 0o777 | 0o600;
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(mode).open(&at).map_err(failed)?;
            // One more than may come tells that more would.
            let written =
                io::copy(&mut (&mut entry).take(left.saturating_add(1)), &mut file).map_err(failed)?;
            left = left.checked_sub(written).ok_or(ArchiveError::TooLarge { most: bounds.bytes })?;
            // Whatever this process's mask says: a script of the source may be run.
            file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
        }
        files += 1;
    }
    for (at, target, name) in links {
        // Two links of one name, or one through another.
        let through_a_link = at
            .ancestors()
            .skip(1)
            .take_while(|above| *above != into)
            .any(|above| above.symlink_metadata().is_ok_and(|found| found.is_symlink()));
        if through_a_link || at.symlink_metadata().is_ok() {
            return Err(ArchiveError::Twice { name });
        }
        symlink(&target, &at).map_err(|source| ArchiveError::Io { path: at, source })?;
    }
    Ok(files)
}

/// A name as a path below a folder; `None` where it leads out of it.
fn plain(name: &str) -> Option<PathBuf> {
    if name.is_empty() || name.contains(['\0', '\\']) || name.starts_with('/') {
        return None;
    }
    let mut path = PathBuf::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!path.as_os_str().is_empty()).then_some(path)
}

/// Whether a link leads to something in the same folder as a whole. The way up is at its beginning only: after a name, which
/// may be another link, it could lead anywhere.
fn stays_inside(link: &Path, target: &str) -> bool {
    let depth = link.components().count() - 1;
    let mut ups = 0;
    let mut named = false;
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir if named => return false,
            Component::ParentDir => ups += 1,
            Component::Normal(_) => named = true,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    !target.is_empty() && ups <= depth
}

/// Packs what is in a folder into a new archive; links stay links.
///
/// # Errors
/// [`ArchiveError`]
pub fn pack(folder: &Path, archive: &Path, stop: &Stop) -> Result<(), ArchiveError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ArchiveError::Io { path, source }
    };
    let file = File::create_new(archive).map_err(failed(archive))?;
    let mut writer = ZipWriter::new(io::BufWriter::new(file));
    let unwritten = |source| ArchiveError::Unwritten { path: archive.to_owned(), source };
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        let mut entries: Vec<_> = fs::read_dir(&at).and_then(Iterator::collect).map_err(failed(&at))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            if stop.is_requested() {
                return Err(ArchiveError::Stopped);
            }
            let path = entry.path();
            let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
            let about = path.symlink_metadata().map_err(failed(&path))?;
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Deflated)
                .unix_permissions(about.permissions().mode() & 0o777)
                .large_file(about.len() >= LARGE);
            if about.is_dir() {
                folders.push(path);
            } else if about.is_symlink() {
                let target = fs::read_link(&path).map_err(failed(&path))?;
                writer.add_symlink(name, target.to_string_lossy(), options).map_err(unwritten)?;
            } else if about.is_file() {
                writer.start_file(name, options).map_err(unwritten)?;
                let mut from = File::open(&path).map_err(failed(&path))?;
                io::copy(&mut from, &mut writer).map_err(failed(&path))?;
            }
        }
    }
    let mut done = writer.finish().map_err(unwritten)?;
    done.flush().map_err(failed(archive))
}

/// Why an artifact is not unpacked, or not packed.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("it is no zip file; artifacts of CodePipeline are")]
    NoZip {
        #[source]
        source: ZipError,
    },
    #[error("entry {number} cannot be read; pack it by deflate, without a password")]
    Entry {
        number: usize,
        #[source]
        source: ZipError,
    },
    #[error("its entry `{name}` is damaged")]
    Damaged {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("its entry `{name}` leads out of the folder; pack it from within the folder")]
    Outside { name: String },
    #[error(
        "its link `{name}` leads to `{target}`, which may be anywhere; a link leads to something in the artifact"
    )]
    Link { name: String, target: String },
    #[error("its entry `{name}` is there twice, or is a file and a folder")]
    Twice { name: String },
    #[error("it has {entries} entries, and {most} are the most; leave out what is not needed")]
    TooMany { entries: usize, most: usize },
    #[error("its files have more than {most} bytes; leave out what is not needed")]
    TooLarge { most: u64 },
    #[error("a stop was asked for")]
    Stopped,
    #[error("cannot write {}", path.display())]
    Unwritten {
        path: PathBuf,
        #[source]
        source: ZipError,
    },
    #[error("cannot read or write {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Bounds = Bounds { bytes: 1 << 16, entries: 100 };

    /// An archive as somebody wrote it: names with contents, and links with their targets.
    fn archive(dir: &Path, files: &[(&str, &[u8])], links: &[(&str, &str)]) -> PathBuf {
        let path = dir.join("a.zip");
        let mut writer = ZipWriter::new(File::create(&path).unwrap());
        for (name, content) in files {
            let options = SimpleFileOptions::default().unix_permissions(0o755);
            writer.start_file(*name, options).unwrap();
            writer.write_all(content).unwrap();
        }
        for (name, target) in links {
            writer.add_symlink(*name, *target, SimpleFileOptions::default()).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    fn unpacked(
        files: &[(&str, &[u8])],
        links: &[(&str, &str)],
    ) -> (tempfile::TempDir, Result<usize, ArchiveError>) {
        let dir = tempfile::tempdir().unwrap();
        let into = dir.path().join("into");
        fs::create_dir(&into).unwrap();
        let path = archive(dir.path(), files, links);
        let found = unpack(&path, &into, SMALL, &Stop::never());
        (dir, found)
    }

    #[test]
    fn what_was_packed_comes_out_again() {
        let dir = tempfile::tempdir().unwrap();
        let (from, into) = (dir.path().join("from"), dir.path().join("into"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::create_dir(&into).unwrap();
        fs::write(from.join("a/b/run.sh"), "echo").unwrap();
        fs::set_permissions(from.join("a/b/run.sh"), fs::Permissions::from_mode(0o4755)).unwrap();
        symlink("../a/b/run.sh", from.join("a/link")).unwrap();
        let path = dir.path().join("a.zip");
        pack(&from, &path, &Stop::never()).unwrap();
        assert_eq!(unpack(&path, &into, SMALL, &Stop::never()).unwrap(), 2);
        let about = into.join("a/b/run.sh").metadata().unwrap();
        assert_eq!(about.permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_to_string(into.join("a/link")).unwrap(), "echo");
    }

    #[test]
    fn no_entry_leaves_the_folder() {
        for name in ["../up", "/etc/passwd", "a/../../up", "..", "a\\..\\b"] {
            let (dir, found) = unpacked(&[(name, b"x")], &[]);
            assert!(matches!(found, Err(ArchiveError::Outside { .. })), "{name}: {found:?}");
            assert!(!dir.path().join("up").exists());
        }
    }

    #[test]
    fn no_link_leaves_it_and_nothing_goes_through_one() {
        for target in ["/etc", "../up", "..", "a/../../up", "d/../x", ""] {
            let (_dir, found) = unpacked(&[("d/x", b"x")], &[("link", target)]);
            assert!(matches!(found, Err(ArchiveError::Link { .. })), "{target}: {found:?}");
        }
        for (name, target) in [("d/link", "../other"), ("link", "d/x"), ("d/e/f", "../../d")] {
            let (_dir, found) = unpacked(&[("d/x", b"x")], &[(name, target)]);
            assert_eq!(found.unwrap(), 2, "{name}");
        }
        // A file below a name that is a link as well, and a link below a link.
        let (_dir, found) = unpacked(&[("l/x", b"x")], &[("l", "d")]);
        assert!(matches!(found, Err(ArchiveError::Twice { .. })), "{found:?}");
        let (_dir, found) = unpacked(&[("d/x", b"x")], &[("l", "d"), ("l/m", "x")]);
        assert!(found.is_err(), "{found:?}");
    }

    #[test]
    fn what_comes_out_is_bounded() {
        let bomb = vec![0u8; 1 << 17];
        let (dir, found) = unpacked(&[("a", &bomb[..1 << 15]), ("b", &bomb)], &[]);
        assert!(matches!(found, Err(ArchiveError::TooLarge { .. })), "{found:?}");
        let written: u64 =
            ["a", "b"].map(|name| dir.path().join("into").join(name).metadata().unwrap().len()).iter().sum();
        assert!(written <= SMALL.bytes + 1, "{written}");
        let names: Vec<String> = (0..101).map(|number| number.to_string()).collect();
        let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        let (_dir, found) = unpacked(&files, &[]);
        assert!(matches!(found, Err(ArchiveError::TooMany { .. })), "{found:?}");
    }

    #[test]
    fn what_is_no_zip_or_damaged_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let into = dir.path().join("into");
        fs::create_dir(&into).unwrap();
        let path = dir.path().join("no.zip");
        for bytes in [&b""[..], b"not a zip", b"PK\x05\x06"] {
            fs::write(&path, bytes).unwrap();
            assert!(matches!(unpack(&path, &into, SMALL, &Stop::never()), Err(ArchiveError::NoZip { .. })));
        }
        let good = archive(dir.path(), &[("a", &[7u8; 4000])], &[]);
        let mut bytes = fs::read(good).unwrap();
        // Within the packed data of its one entry.
        bytes[40] ^= 0xff;
        fs::write(&path, bytes).unwrap();
        unpack(&path, &into, SMALL, &Stop::never()).unwrap_err();
    }
}
