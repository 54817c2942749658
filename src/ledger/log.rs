//! The ledger's file: JSON lines, the first of them a header. A line is durable before the call that it announces is
//! made. A last line that a kill tore is as if it had never been begun.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::LedgerError;
use super::entry::{Entry, Event, Intent};

/// The version of the lines. A higher one is not read.
const FORMAT: u32 = 1;
/// A ledger names some things, not thousands: more than this was not written by us.
const LONGEST: u64 = 16 << 20;

/// Whose ledger it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Header {
    format: u32,
    /// Which cloud its things are in: [`Clouds::name`](crate::cloud::Clouds::name).
    pub cloud: String,
    pub stage: String,
    pub bake: String,
    pub began: Timestamp,
}

impl Header {
    #[must_use]
    pub fn new(cloud: &str, stage: &str, bake: &str, began: Timestamp) -> Self {
        Self {
            format: FORMAT,
            cloud: cloud.to_owned(),
            stage: stage.to_owned(),
            bake: bake.to_owned(),
            began,
        }
    }
}

/// A line after the header: the entry's number and what is told of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Line {
    entry: usize,
    #[serde(flatten)]
    told: Told,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Told {
    Intended { intent: Intent },
    Happened(Event),
}

#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    length: u64,
}

impl Log {
    /// Makes the file, which must not exist.
    pub(super) fn create(path: &Path, header: &Header) -> Result<Self, LedgerError> {
        let written = || {
            let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
            let mut log = Self { path: path.to_owned(), file, length: 0 };
            log.append(&[json(header)?])?;
            // The file's name has to be as durable as what is in it.
            if let Some(folder) = path.parent() {
                File::open(folder)?.sync_all()?;
            }
            Ok(log)
        };
        written().map_err(|source| LedgerError::Write { path: path.to_owned(), source })
    }

    /// Opens an existing one and reads it up to where it was torn. `None` where it is not there, or so short that
    /// nothing was announced.
    pub(super) fn open(path: &Path) -> Result<Option<(Self, Header, Vec<Entry>)>, LedgerError> {
        let failed = |source| LedgerError::Read { path: path.to_owned(), source };
        let mut file = match OpenOptions::new().read(true).append(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let mut bytes = Vec::new();
        (&mut file).take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
        let found =
            read(&bytes).map_err(|(line, why)| LedgerError::Damaged { path: path.to_owned(), line, why })?;
        let Some(Whole { header, entries, length }) = found else { return Ok(None) };
        // What follows must not be joined to a torn line. A file that is whole keeps its time.
        if length < bytes.len() as u64 {
            file.set_len(length).map_err(|source| LedgerError::Write { path: path.to_owned(), source })?;
        }
        Ok(Some((Self { path: path.to_owned(), file, length }, header, entries)))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How long ago something was written to it. `None` where nobody can tell.
    pub(super) fn age(&self) -> Option<Duration> {
        self.file.metadata().ok()?.modified().ok()?.elapsed().ok()
    }

    pub(super) fn intended(&mut self, entry: usize, intent: &Intent) -> io::Result<()> {
        self.append(&[json(&Line { entry, told: Told::Intended { intent: intent.clone() } })?])
    }

    /// All of them in one write, made durable together.
    pub(super) fn happened(&mut self, events: &[(usize, Event)]) -> io::Result<()> {
        let lines = events
            .iter()
            .map(|(entry, event)| json(&Line { entry: *entry, told: Told::Happened(event.clone()) }));
        self.append(&lines.collect::<io::Result<Vec<_>>>()?)
    }

    fn append(&mut self, lines: &[String]) -> io::Result<()> {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        if let Err(error) = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data()) {
            // Half a line must not stay before the next one. Where this fails too, the next open ends before it.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += text.len() as u64;
        Ok(())
    }
}

fn json(value: &impl Serialize) -> io::Result<String> {
    Ok(serde_json::to_string(value)?)
}

/// All whole lines, taken in.
struct Whole {
    header: Header,
    entries: Vec<Entry>,
    /// Bytes.
    length: u64,
}

/// What is in the lines; else a line's number and what is wrong with it.
fn read(bytes: &[u8]) -> Result<Option<Whole>, (usize, String)> {
    if bytes.len() as u64 > LONGEST {
        return Err((0, format!("it is larger than {} MiB", LONGEST >> 20)));
    }
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut lines = bytes[..whole].split_inclusive(|byte| *byte == b'\n');
    let Some(first) = lines.next() else { return Ok(None) };
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let bad = |line: usize| move |error: serde_json::Error| (line, error.to_string());
    let Format { format } = serde_json::from_slice(first).map_err(bad(1))?;
    if format > FORMAT {
        return Err((1, format!("it has format {format}; use the newer program that wrote it")));
    }
    let header: Header = serde_json::from_slice(first).map_err(bad(1))?;
    let mut entries: Vec<Entry> = Vec::new();
    for (at, line) in lines.enumerate() {
        let number = at + 2;
        let line: Line = serde_json::from_slice(line).map_err(bad(number))?;
        match line.told {
            Told::Intended { intent } if line.entry == entries.len() => entries.push(Entry::new(intent)),
            Told::Happened(event) => {
                let entry = entries.get_mut(line.entry);
                if !entry.is_some_and(|entry| entry.take(&event)) {
                    return Err((number, format!("{event:?} of entry {} may not happen", line.entry)));
                }
            }
            Told::Intended { .. } => return Err((number, format!("entry {} is out of turn", line.entry))),
        }
    }
    Ok(Some(Whole { header, entries, length: whole as u64 }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{AccountId, Partition, Place, Region, SnapshotId, Tags};
    use crate::ledger::entry::{Role, State};
    use crate::ledger::{Id, Kind};

    fn header() -> Header {
        Header::new("local /store", "bake", "bake-000000000001", Timestamp::UNIX_EPOCH)
    }

    fn intent() -> Intent {
        Intent {
            kind: Kind::Snapshot,
            place: Place {
                partition: Partition::local(),
                account: AccountId::parse("000000000000").unwrap(),
                region: Region::parse("local").unwrap(),
            },
            what: "root snapshot".to_owned(),
            token: Some("t".to_owned()),
            tags: Tags::from([("bakehouse:bake".to_owned(), "bake-000000000001".to_owned())]),
            role: Role::Temporary,
        }
    }

    fn id() -> Id {
        SnapshotId::parse("snap-01234567").unwrap().into()
    }

    fn events() -> [Event; 4] {
        [
            Event::Created { id: id() },
            Event::Handed { until: Timestamp::UNIX_EPOCH },
            Event::Stuck { why: "no".to_owned() },
            Event::Undone,
        ]
    }

    fn written(path: &Path) {
        let mut log = Log::create(path, &header()).unwrap();
        log.intended(0, &intent()).unwrap();
        for event in events() {
            log.happened(&[(0, event)]).unwrap();
        }
    }

    #[test]
    fn a_log_that_was_torn_anywhere_is_read_up_to_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.jsonl");
        written(&path);
        let bytes = std::fs::read(&path).unwrap();
        let states = [State::Intended, State::Created, State::Handed, State::Stuck, State::Undone];
        let mut seen = std::collections::BTreeSet::new();
        for length in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let lines = bytes[..length].iter().filter(|byte| **byte == b'\n').count();
            let Some((mut log, found, entries)) = Log::open(&path).unwrap() else {
                assert_eq!(lines, 0);
                continue;
            };
            assert_eq!(found, header());
            assert_eq!(entries.len(), usize::from(lines > 1));
            if let Some(entry) = entries.first() {
                assert_eq!(entry.state, states[lines - 2]);
                seen.insert(lines);
            }
            // What follows is read as well as what was before the tear.
            log.intended(entries.len(), &intent()).unwrap();
            let (_, _, again) = Log::open(&path).unwrap().unwrap();
            assert_eq!(again.len(), entries.len() + 1);
        }
        assert_eq!(seen.len(), states.len());
        assert!(Log::open(&dir.path().join("none")).unwrap().is_none());
    }

    #[test]
    fn a_log_that_says_what_cannot_be_is_refused_with_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.jsonl");
        written(&path);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let cases = [
            (vec!["nonsense"], 1),
            (vec!["{\"format\":2}"], 1),
            (vec![lines[0], lines[2]], 2),
            (vec![lines[0], lines[1], lines[2], lines[2]], 4),
            (vec![lines[0], lines[1], "{\"entry\":0,\"event\":\"gone\"}"], 3),
            (vec![lines[0], lines[1], "{\"entry\":0,\"event\":\"created\",\"id\":\"ami-01234567\"}"], 3),
            (vec![lines[0], lines[1], lines[1]], 3),
        ];
        for (lines, wrong) in cases {
            std::fs::write(&path, lines.join("\n") + "\n").unwrap();
            let error = Log::open(&path).unwrap_err();
            assert!(
                matches!(error, LedgerError::Damaged { line, .. } if line == wrong),
                "{lines:?}: {error}"
            );
        }
    }
}
