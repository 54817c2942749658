//! dpkg's order of versions. The rules are those of Debian Policy 5.6.12 and deb-version(7).

use std::cmp::Ordering;
use std::iter::Peekable;
use std::str::Bytes;

/// Compares two versions as `dpkg --compare-versions` does.
pub(super) fn compare(left: &str, right: &str) -> Ordering {
    let (left, right) = (Version::split(left), Version::split(right));
    left.epoch
        .cmp(&right.epoch)
        .then_with(|| compare_part(left.upstream, right.upstream))
        .then_with(|| compare_part(left.revision, right.revision))
}

/// `epoch:upstream-revision`; an absent epoch is 0, an absent revision is empty.
struct Version<'a> {
    epoch: u64,
    upstream: &'a str,
    revision: &'a str,
}

impl<'a> Version<'a> {
    fn split(text: &'a str) -> Self {
        let text = text.trim();
        let (epoch, rest) = match text.split_once(':') {
            // dpkg refuses an epoch that is no number; here it is the lowest, and the comparison still means something.
            Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
            None => (0, text),
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        Self { epoch, upstream, revision }
    }
}

/// Runs of other characters and runs of digits in turn: the first by [`weight`], the second as numbers.
fn compare_part(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.bytes().peekable(), right.bytes().peekable());
    loop {
        loop {
            let (a, b) = (other(&left), other(&right));
            if a.is_none() && b.is_none() {
                break;
            }
            let order = weight(a).cmp(&weight(b));
            if order != Ordering::Equal {
                return order;
            }
            left.next();
            right.next();
        }
        let order = number(&mut left).cmp(&number(&mut right));
        if order != Ordering::Equal {
            return order;
        }
        if left.peek().is_none() && right.peek().is_none() {
            return Ordering::Equal;
        }
    }
}

/// The next character, unless a digit or the end is there.
fn other(part: &Peekable<Bytes<'_>>) -> Option<u8> {
    part.clone().peek().copied().filter(|byte| !byte.is_ascii_digit())
}

/// `~` before the end, the end before letters, letters before all else.
fn weight(byte: Option<u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(byte),
        Some(byte) => i32::from(byte) + 256,
    }
}

/// The number that comes next, 0 where there is none: its digits without leading zeros, so that any length compares.
fn number(part: &mut Peekable<Bytes<'_>>) -> (usize, Vec<u8>) {
    let mut digits = Vec::new();
    while let Some(byte) = part.next_if(u8::is_ascii_digit) {
        if byte != b'0' || !digits.is_empty() {
            digits.push(byte);
        }
    }
    (digits.len(), digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs and their order, also from dpkg's own test suite (t-version.c).
    const ORDERED: [(&str, &str, Ordering); 30] = [
        ("1.0", "1.0", Ordering::Equal),
        ("0:1.0", "1.0", Ordering::Equal),
        ("1.0-0", "1.0", Ordering::Equal),
        ("1.0-", "1.0-0", Ordering::Equal),
        ("1.00", "1.0", Ordering::Equal),
        ("0", "00", Ordering::Equal),
        ("1.9", "1.10", Ordering::Less),
        ("1.0", "1.0.1", Ordering::Less),
        ("1.22.1-9", "1.22", Ordering::Greater),
        ("1:0.1", "9.9", Ordering::Greater),
        ("2:1", "10:1", Ordering::Less),
        ("1.0~rc1", "1.0", Ordering::Less),
        ("1.0~rc1-1", "1.0-1", Ordering::Less),
        ("1.0~~", "1.0~", Ordering::Less),
        ("1.0~", "1.0", Ordering::Less),
        ("1.0~~a", "1.0~", Ordering::Less),
        ("1.0a", "1.0+", Ordering::Less),
        ("1.0a", "1.0b", Ordering::Less),
        ("1.0A", "1.0a", Ordering::Less),
        ("1.0", "1.0a", Ordering::Less),
        ("1.0-1", "1.0-1+b1", Ordering::Less),
        ("1.0-1+deb12u1", "1.0-1+deb12u10", Ordering::Less),
        ("1.0-1~bpo12+1", "1.0-1", Ordering::Less),
        ("7.2+dfsg-7+deb12u18", "7.2+dfsg-7+deb12u9", Ordering::Greater),
        ("1.2-3-4", "1.2-3-5", Ordering::Less),
        ("1.2-3", "1.2.3", Ordering::Less),
        ("99999999999999999999999", "100000000000000000000000", Ordering::Less),
        ("a", "1", Ordering::Greater),
        ("", "0", Ordering::Equal),
        ("20240203", "1:20220101", Ordering::Less),
    ];

    #[test]
    fn versions_have_the_order_of_dpkg() {
        for (left, right, order) in ORDERED {
            assert_eq!(compare(left, right), order, "{left} {right}");
            assert_eq!(compare(right, left), order.reverse(), "{right} {left}");
        }
    }
}
