//! What a command's last lines say that a person would want to be told outright.

/// The disk is as large as the recipe, or its base, says.
pub(super) const DISK_FULL: &str = "; the image's disk is full: set a larger `disk.size`";
const NO_NETWORK: &str = "; is the network there? packages come from the distribution's mirrors";
const NOT_FOUND: &str =
    "; no package source of the image has it: look at how it is spelled, or add its source in a step before";

const HELD: &str = "; it is held at its version, or excluded by the image's own settings";
const HELD_PATCH: &str = "; an update for security changes a package that is held at its version, or what that needs: \
                          `update: all` updates all others";

const MACHINE: &str = "; the kernel, clock and network here are those of the machine that bakes, which a step cannot \
                       change: write what an instance is to set when it boots, as files in /etc/sysctl.d, \
                       /etc/modules-load.d, /etc/nftables.conf";

/// `ENOSPC` as the C library tells it, and rpm, which looks at the room before it writes.
const FULL: [&str; 2] = ["No space left on device", "more space on the"];
/// As apt's methods tell it (methods/connect.cc), and libcurl, by which dnf and zypper fetch; a proxy's name that does
/// not resolve is the second.
const UNREACHED: [&str; 10] = [
    "Temporary failure resolving",
    "Could not resolve",
    "Couldn't resolve",
    "Could not connect",
    "Couldn't connect",
    "Failed to connect",
    // The server was there, and went away in the middle of a file.
    "Error reading from server",
    "Connection timed out",
    "Operation timed out",
    "Timeout was reached",
];
/// What such lines of package managers begin with; other programs that cannot reach their host fetch no packages. apt:
/// an error, a warning, a fetch that failed, and what follows one. dnf and zypper after these.
const FETCH: [&str; 6] = ["E: ", "W: ", "Err:", "  ", "Error message: ", "Error: "];
/// A package that must not change: apt, dnf, zypper.
const KEPT: [&str; 3] = [
    "E: Held packages were changed",
    "All matches were filtered out by exclude filtering",
    " Solution 1: remove lock",
];
/// zypper on a patch that cannot be, which is all of an update for security or none of it.
const PATCH: &str = ": do not install patch:";
/// What sets the machine's kernel, clock or network, as it begins its lines: procps and busybox, kmod, iptables with either
/// back end, nftables, iproute2, coreutils, util-linux.
const SETTERS: [&str; 11] = [
    "sysctl: ",
    "modprobe: ",
    "insmod: ",
    "iptables",
    "ip6tables",
    "netlink: ",
    "Operation not permitted (you must be root)",
    "RTNETLINK answers: ",
    "date: cannot set date",
    "hwclock: ",
    "settimeofday",
];
/// And how the kernel refuses it; the third is iptables' guess at the reason.
const REFUSED: [&str; 4] =
    ["Operation not permitted", "ermission denied", "you must be root", "Read-only file system"];
/// A shell that writes a setting itself: dash, bash.
const SETTINGS: [&str; 3] = [" /proc/sys/", " /proc/sysrq-trigger", " /sys/"];
const NOT_WRITTEN: [&str; 2] = ["cannot create", "Read-only file system"];
/// A name that nothing has: apt, dnf, yum 3, zypper.
const UNKNOWN: [&str; 5] = [
    "E: Unable to locate package",
    "Error: Unable to find a match",
    "No match for argument: ",
    "Error: Not tolerating missing names",
    "No provider of '",
];

/// What to do about a failure, as the end of a sentence; empty where nothing is known.
pub(super) fn on(tail: &[String]) -> &'static str {
    let says = |line: &String, texts: &[&str]| texts.iter().any(|text| line.contains(text));
    let begins = |line: &String, texts: &[&str]| texts.iter().any(|text| line.starts_with(text));
    if tail.iter().any(|line| says(line, &FULL)) {
        DISK_FULL
    } else if tail.iter().any(|line| begins(line, &FETCH) && says(line, &UNREACHED)) {
        NO_NETWORK
    } else if tail.iter().any(|line| begins(line, &KEPT)) {
        if tail.iter().any(|line| line.contains(PATCH)) { HELD_PATCH } else { HELD }
    } else if tail.iter().any(|line| begins(line, &UNKNOWN)) {
        NOT_FOUND
    } else if tail.iter().any(|line| {
        (begins(line, &SETTERS) && says(line, &REFUSED))
            || (says(line, &SETTINGS) && says(line, &NOT_WRITTEN))
    }) {
        MACHINE
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
            (
                &[
                    "E: Failed to fetch http://a/b.deb  Error reading from server. Remote end closed connection",
                ],
                NO_NETWORK,
            ),
            (&["E: Failed to fetch http://a/b.deb  Connection timed out [IP: 192.0.2.1 80]"], NO_NETWORK),
            (&["sysctl: setting key \"net.ipv4.ip_forward\": Read-only file system"], MACHINE),
            (&["sysctl: permission denied on key \"net.ipv4.ip_forward\""], MACHINE),
            (&["sh: 1: cannot create /proc/sys/vm/swappiness: Read-only file system"], MACHINE),
            (&["bash: line 1: /sys/block/a: Read-only file system"], MACHINE),
            (&["modprobe: ERROR: could not insert 'wireguard': Operation not permitted"], MACHINE),
            (
                &[
                    "iptables v1.8.9 (nf_tables): Could not fetch rule set generation id: Permission denied (you must be root)",
                ],
                MACHINE,
            ),
            (&["Operation not permitted (you must be root)"], MACHINE),
            (&["RTNETLINK answers: Operation not permitted"], MACHINE),
            (&["date: cannot set date: Operation not permitted", "Thu Jan  1 00:00:00 UTC 1970"], MACHINE),
            (&["sysctl: cannot stat /proc/sys/net/none: No such file or directory"], ""),
            (&["cat: /root/a: Permission denied"], ""),
            (&["cp: cannot create regular file '/opt/sys/a': Not a directory"], ""),
            // Not apt's.
            (&["curl: (6) Could not resolve host: example.org"], ""),
            (&["E: Unable to locate package no-such-package"], NOT_FOUND),
            (
                &[
                    "All matches were filtered out by exclude filtering for argument: app",
                    "Error: Unable to find a match: app",
                ],
                HELD,
            ),
            (
                &[
                    "Problem: patch:A-1.noarch conflicts with app < 2-1 provided by app-1-1.noarch",
                    " Solution 1: remove lock to allow removal of app-1-1.noarch",
                    " Solution 2: do not install patch:A-1.noarch",
                ],
                HELD_PATCH,
            ),
            (&["No match for argument: app", "Error: Unable to find a match: app"], NOT_FOUND),
            (
                &["'app' not found in package names. Trying capabilities.", "No provider of 'app' found."],
                NOT_FOUND,
            ),
            (
                &[
                    "Errors during downloading metadata for repository 'a':",
                    "  - Curl error (6): Couldn't resolve host name for http://a/repodata/repomd.xml",
                ],
                NO_NETWORK,
            ),
            (&["Error code: Connection failed", "Error message: Could not resolve host: a"], NO_NETWORK),
            (&["  installing package a-1-1.noarch needs 41MB more space on the / filesystem"], DISK_FULL),
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
