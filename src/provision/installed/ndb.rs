//! rpm's database in the format ndb, which SUSE's rpm writes and Debian's cannot read. It is plain enough to be read
//! here (rpm's sources, lib/backend/ndb/rpmpkg.c and lib/header.c): slots, each of which says where a package's header
//! is. Checksums are left unread: what is damaged so that a name or version is lost is seen.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::InstalledPackage;

const MAGIC: &[u8; 4] = b"RpmP";
const SLOT: &[u8; 4] = b"Slot";
const BLOB: &[u8; 4] = b"BlbS";
/// Bytes of a page of slots, of a slot, and of the unit in which a slot counts.
const PAGE: u64 = 4096;
const UNIT: u64 = 16;
/// The file's own header has the room of two slots.
const FIRST_SLOT: u64 = 2 * UNIT;
/// Half a million packages.
const MOST_PAGES: u32 = 2048;
/// The largest header that rpm takes (lib/header.c).
const LARGEST_HEADER: u32 = 256 * 1024 * 1024;
/// A name, a version: what rpm itself prints in one line is far shorter.
const LONGEST_TEXT: usize = 4096;

/// Tags of a header (rpmtag.h).
const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const ARCHITECTURE: u32 = 1022;

/// # Errors
/// The kernel's; `InvalidData` says what is wrong with the database.
pub(super) fn packages(file: &File) -> io::Result<Vec<InstalledPackage>> {
    let mut start = [0; 16];
    file.read_exact_at(&mut start, 0)?;
    let version = little(&start, 4);
    let pages = little(&start, 12);
    if &start[..4] != MAGIC || version != Some(0) {
        return Err(damaged("it does not begin as ndb's first version does"));
    }
    let pages = pages.filter(|pages| *pages <= MOST_PAGES).ok_or_else(|| damaged("it has too many slots"))?;
    let mut packages = Vec::new();
    // Slots may lead to one place: together their packages are no larger than the file.
    let mut left = file.metadata()?.len();
    for at in (FIRST_SLOT..u64::from(pages) * PAGE).step_by(16) {
        let mut slot = [0; 16];
        file.read_exact_at(&mut slot, at)?;
        if &slot[..4] != SLOT {
            return Err(damaged("a slot is none"));
        }
        // An empty slot has no number.
        if let (Some(number @ 1..), Some(unit)) = (little(&slot, 4), little(&slot, 8)) {
            let header = blob(file, number, u64::from(unit) * UNIT)?;
            let rest = left.checked_sub(header.len() as u64);
            left = rest.ok_or_else(|| damaged("its packages are larger than itself"))?;
            packages.push(package(&header).ok_or_else(|| damaged("a package has no name or version"))?);
        }
    }
    Ok(packages)
}

fn blob(file: &File, number: u32, at: u64) -> io::Result<Vec<u8>> {
    let mut head = [0; 16];
    file.read_exact_at(&mut head, at)?;
    if &head[..4] != BLOB || little(&head, 4) != Some(number) {
        return Err(damaged("a slot leads to no package"));
    }
    let length = little(&head, 12).filter(|length| *length <= LARGEST_HEADER);
    let length = length.ok_or_else(|| damaged("a package is too large"))?;
    // Before the memory for it is taken.
    if at + UNIT + u64::from(length) > file.metadata()?.len() {
        return Err(damaged("a package goes on after its end"));
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, at + UNIT)?;
    Ok(bytes)
}

/// A header: how many entries, how much data, the entries (tag, type, offset of the data, count), the data. All
/// numbers have their largest byte first.
fn package(header: &[u8]) -> Option<InstalledPackage> {
    let entries = big(header, 0)? as usize;
    let data = header.get(8 + entries.checked_mul(16)?..)?;
    let find = |tag: u32| {
        let entry = header[8..].chunks_exact(16).take(entries).find(|entry| big(entry, 0) == Some(tag))?;
        data.get(big(entry, 8)? as usize..)
    };
    let text = |tag: u32| {
        let bytes = find(tag)?;
        let end = bytes.iter().take(LONGEST_TEXT).position(|byte| *byte == 0)?;
        let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
        (!text.is_empty()).then_some(text)
    };
    let epoch = find(EPOCH).and_then(|bytes| big(bytes, 0)).map(|epoch| format!("{epoch}:"));
    Some(InstalledPackage {
        name: text(NAME)?,
        version: format!("{}{}-{}", epoch.unwrap_or_default(), text(VERSION)?, text(RELEASE)?),
        architecture: text(ARCHITECTURE).unwrap_or_else(|| "(none)".to_owned()),
    })
}

fn little(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn big(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: u32 = 6;
    const NUMBER: u32 = 4;

    fn header(tags: &[(u32, u32, &[u8])]) -> Vec<u8> {
        let (mut entries, mut data) = (Vec::new(), Vec::new());
        for (tag, kind, value) in tags {
            for number in [*tag, *kind, u32::try_from(data.len()).unwrap(), 1] {
                entries.extend(number.to_be_bytes());
            }
            data.extend(*value);
        }
        let counts = [tags.len(), data.len()].map(|count| u32::try_from(count).unwrap().to_be_bytes());
        [counts.concat(), entries, data].concat()
    }

    /// One page of slots, then the packages.
    fn database(headers: &[Vec<u8>]) -> Vec<u8> {
        let words = |magic: &[u8; 4], words: [u32; 3]| {
            [magic.to_vec(), words.map(u32::to_le_bytes).concat()].concat()
        };
        let mut file = [words(MAGIC, [0, 7, 1]), vec![0; 16]].concat();
        let mut blobs = Vec::new();
        for at in 0..(PAGE / UNIT - 2) {
            let Some(header) = headers.get(usize::try_from(at).unwrap()) else {
                file.extend(words(SLOT, [0, 0, 0]));
                continue;
            };
            let number = u32::try_from(at).unwrap() + 1;
            let unit = (usize::try_from(PAGE).unwrap() + blobs.len()) / 16;
            file.extend(words(SLOT, [number, u32::try_from(unit).unwrap(), 1]));
            blobs.extend(words(BLOB, [number, 0, u32::try_from(header.len()).unwrap()]));
            blobs.extend(header);
            blobs.resize(blobs.len().next_multiple_of(16), 0);
        }
        [file, blobs].concat()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<InstalledPackage>> {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        packages(&file)
    }

    fn two() -> Vec<u8> {
        let bash: [(u32, u32, &[u8]); 4] = [
            (NAME, TEXT, b"bash\0"),
            (VERSION, TEXT, b"4.4\0"),
            (RELEASE, TEXT, b"150400.25.22\0"),
            (ARCHITECTURE, TEXT, b"x86_64\0"),
        ];
        let key: [(u32, u32, &[u8]); 4] = [
            (NAME, TEXT, b"bind\0"),
            (EPOCH, NUMBER, &[0, 0, 0, 32]),
            (VERSION, TEXT, b"9\0"),
            (RELEASE, TEXT, b"1\0"),
        ];
        database(&[header(&bash), header(&key)])
    }

    #[test]
    fn packages_are_found_by_their_slots() {
        let found = read(&two()).unwrap();
        let shown: Vec<String> =
            found.iter().map(|p| format!("{} {} {}", p.name, p.version, p.architecture)).collect();
        assert_eq!(shown, ["bash 4.4-150400.25.22 x86_64", "bind 32:9-1 (none)"]);
        assert!(read(&database(&[])).unwrap().is_empty());
    }

    #[test]
    fn what_is_damaged_is_an_error_and_never_a_panic() {
        let whole = two();
        assert!(read(b"").is_err() && read(&[0; 64]).is_err());
        for length in (0..whole.len() - 16).step_by(13) {
            assert!(read(&whole[..length]).is_err(), "{length}");
        }
        // Whatever byte is another one: an answer, or an error.
        for at in (0..96).chain(4096..whole.len()) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            let _ = read(&bytes);
        }
        // One package that many slots lead to, and a name without an end.
        let endless =
            header(&[(NAME, TEXT, &[b'x'; 10_000]), (VERSION, TEXT, b"1\0"), (RELEASE, TEXT, b"1\0")]);
        assert_eq!(read(&database(&[endless])).unwrap_err().to_string(), "a package has no name or version");
        let mut bytes = database(&[[
            header(&[(NAME, TEXT, b"a\0"), (VERSION, TEXT, b"1\0"), (RELEASE, TEXT, b"1\0")]),
            vec![0; 9000],
        ]
        .concat()]);
        for slot in (32..4096).step_by(16) {
            bytes.copy_within(32..48, slot);
        }
        assert_eq!(read(&bytes).unwrap_err().to_string(), "its packages are larger than itself");
        // No memory is taken for a length that the file does not have.
        let mut bytes = whole.clone();
        bytes[4096 + 12..4096 + 16].copy_from_slice(&LARGEST_HEADER.to_le_bytes());
        assert_eq!(read(&bytes).unwrap_err().to_string(), "a package goes on after its end");
    }
}
