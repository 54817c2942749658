//! What a command's last lines say that a person would want to be told outright.

/// The disk is as large as the recipe, or its base, says.
pub(super) const DISK_FULL: &str = "; the image's disk is full: set a larger `disk.size`";
const NO_NETWORK: &str = "; is the network there? packages come from the distribution's mirrors";

/// `ENOSPC` as the C library tells it.
const FULL: &str = "No space left on device";
/// As apt's methods tell it (methods/connect.cc); a proxy's name that does not resolve is the second.
const UNREACHED: [&str; 3] = ["Temporary failure resolving", "Could not resolve", "Could not connect"];
/// What apt's lines begin with: an error, a warning, a fetch that failed, and what follows one. Other programs that
/// cannot reach their host fetch no packages.
const APT: [&str; 4] = ["E: ", "W: ", "Err:", "  "];

/// What to do about a failure, as the end of a sentence; empty where nothing is known.
pub(super) fn on(tail: &[String]) -> &'static str {
    let apt = |line: &String| APT.iter().any(|begin| line.starts_with(begin));
    if tail.iter().any(|line| line.contains(FULL)) {
        DISK_FULL
    } else if tail.iter().any(|line| apt(line) && UNREACHED.iter().any(|text| line.contains(text))) {
        NO_NETWORK
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision::StepError;

    #[test]
    fn lines_that_say_why_are_understood() {
        for (lines, wanted) in [
            (
                &["dpkg: error processing archive /var/cache/a.deb: write failed (No space left on device)"]
                    [..],
                DISK_FULL,
            ),
            (&["sh: 1: cannot create /a: No space left on device", "more"], DISK_FULL),
            (&["  Temporary failure resolving 'archive.example'"], NO_NETWORK),
            (
                &["E: Failed to fetch http://a/b.deb  Could not resolve 'proxy'", "E: Unable to fetch"],
                NO_NETWORK,
            ),
            (
                &[
                    "Err:1 http://a bookworm InRelease",
                    "  Could not connect to a:80 (192.0.2.1). - connect (111: Connection refused)",
                ],
                NO_NETWORK,
            ),
            (
                &[
                    "W: Failed to fetch http://a  Temporary failure resolving 'a'",
                    "E: No space left on device",
                ],
                DISK_FULL,
            ),
            // Not apt's.
            (&["curl: (6) Could not resolve host: example.org"], ""),
            (&["E: Unable to locate package no-such-package"], ""),
            (&[], ""),
        ] {
            let tail: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(on(&tail), wanted, "{lines:?}");
            let error = StepError::Failed { command: "the script".to_owned(), code: 1, tail };
            let first = error.to_string().lines().next().unwrap().to_owned();
            assert!(first.starts_with(&format!("`the script` failed with exit code 1{wanted}")), "{first}");
            assert_eq!(error.headline(), format!("`the script` failed with exit code 1{wanted}"));
        }
    }
}
