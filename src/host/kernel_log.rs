//! What the kernel logs about one thing while it is done: the reason of a refusal whose error code says little.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

/// A record is no longer (Linux `kernel/printk/printk.c`, PRINTKRB_RECORD_MAX).
const LONGEST: usize = 8192;
/// The severity of warnings; errors and worse have lower ones (syslog(3), LOG_WARNING).
const WARNING: u32 = 4;
/// An error names so many lines; more help nobody.
const MOST_LINES: usize = 3;

/// The kernel's log from a moment on. Empty where this process may not read it.
#[derive(Debug)]
pub struct KernelLog(Option<File>);

impl KernelLog {
    #[must_use]
    pub fn from_now() -> Self {
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let open = || {
            let mut log = OpenOptions::new().read(true).custom_flags(nonblocking).open("/dev/kmsg")?;
            log.seek(SeekFrom::End(0))?;
            Ok::<_, std::io::Error>(log)
        };
        Self(open().ok())
    }

    /// What was logged since, of warnings and errors that hold `word` as a whole: the first few, in one
    /// line.
    #[must_use]
    pub fn about(self, word: &str) -> Option<String> {
        let mut log = self.0?;
        let mut found = Vec::new();
        let mut record = [0; LONGEST];
        while found.len() < MOST_LINES {
            let text = match log.read(&mut record) {
                Ok(read) => String::from_utf8_lossy(&record[..read]),
                // The log has gone over what was to be read next (Documentation/ABI/testing/dev-kmsg).
                Err(error) if error.kind() == ErrorKind::BrokenPipe => continue,
                Err(_) => break,
            };
            // `6,339,5140900,-;the text`, then lines of its properties. The number's last three bits are the severity.
            let Some((head, rest)) = text.split_once(';') else { continue };
            let severity =
                head.split(',').next().and_then(|number| number.parse().ok()).map(|number: u32| number & 7);
            let line = rest.lines().next().unwrap_or_default();
            if severity.is_some_and(|severity| severity <= WARNING) && holds(line, word) {
                found.push(line.to_owned());
            }
        }
        (!found.is_empty()).then(|| found.join("; "))
    }
}

/// Whether a line holds a device's name and not only the beginning of another's: `loop1` is not in `loop10`.
fn holds(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let whole = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric());
        whole(line[..at].chars().next_back()) && whole(line[at + word.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_not_another_whose_name_begins_like_its_own() {
        for line in ["EXT4-fs (loop1): no", "BTRFS error (device loop1 state C): no", "loop1"] {
            assert!(holds(line, "loop1"), "{line}");
        }
        for line in ["XFS (loop10): no", "the xloop1 of another", ""] {
            assert!(!holds(line, "loop1"), "{line}");
        }
    }
}
