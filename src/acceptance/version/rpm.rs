//! rpm's order of versions: the algorithm of its `rpmvercmp` (rpm-version(7), rpm's docs/manual/dependencies.md).

use std::cmp::Ordering;

/// Compares a version that is installed with one that is demanded, as rpm does for what a package requires: an absent
/// epoch is 0, and releases count only where both have one.
pub(super) fn compare(installed: &str, demanded: &str) -> Ordering {
    let (left, right) = (Version::split(installed), Version::split(demanded));
    let releases = || match (left.release, right.release) {
        (Some(left), Some(right)) => compare_part(left, right),
        _ => Ordering::Equal,
    };
    compare_part(left.epoch, right.epoch)
        .then_with(|| compare_part(left.version, right.version))
        .then_with(releases)
}

/// `epoch:version-release`.
struct Version<'a> {
    epoch: &'a str,
    version: &'a str,
    release: Option<&'a str>,
}

impl<'a> Version<'a> {
    fn split(text: &'a str) -> Self {
        let (epoch, rest) = text.trim().split_once(':').unwrap_or(("0", text.trim()));
        let (version, release) = match rest.rsplit_once('-') {
            Some((version, release)) => (version, Some(release)),
            None => (rest, None),
        };
        Self { epoch, version, release }
    }
}

/// Segment by segment, each of digits or of letters; what is neither only separates them. `~` stands before all, also
/// before the end; `^` after the end and before all else.
fn compare_part(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    loop {
        left = after_separators(left);
        right = after_separators(right);
        match (left.first(), right.first()) {
            (Some(b'~'), Some(b'~')) | (Some(b'^'), Some(b'^')) => {
                left = &left[1..];
                right = &right[1..];
                continue;
            }
            (Some(b'~'), _) => return Ordering::Less,
            (_, Some(b'~')) => return Ordering::Greater,
            (Some(b'^'), None) => return Ordering::Greater,
            (None, Some(b'^')) => return Ordering::Less,
            (Some(b'^'), Some(_)) => return Ordering::Less,
            (Some(_), Some(b'^')) => return Ordering::Greater,
            // Whoever has segments left is the newer.
            (None, _) | (_, None) => return left.len().cmp(&right.len()),
            (Some(a), Some(b)) => match (a.is_ascii_digit(), b.is_ascii_digit()) {
                // A number is newer than letters.
                (true, false) => return Ordering::Greater,
                (false, true) => return Ordering::Less,
                (digits, _) => {
                    let (a, b);
                    (a, left) = segment(left, digits);
                    (b, right) = segment(right, digits);
                    let order = if digits { number(a).cmp(&number(b)) } else { a.cmp(b) };
                    if order != Ordering::Equal {
                        return order;
                    }
                }
            },
        }
    }
}

fn after_separators(part: &[u8]) -> &[u8] {
    let means = |byte: &u8| byte.is_ascii_alphanumeric() || b"~^".contains(byte);
    &part[part.iter().position(means).unwrap_or(part.len())..]
}

/// The digits, or letters, at the beginning, and what follows them.
fn segment(part: &[u8], digits: bool) -> (&[u8], &[u8]) {
    let same = |byte: &u8| if digits { byte.is_ascii_digit() } else { byte.is_ascii_alphabetic() };
    part.split_at(part.iter().position(|byte| !same(byte)).unwrap_or(part.len()))
}

/// Without leading zeros, the longer is the larger: numbers of any length compare.
fn number(digits: &[u8]) -> (usize, &[u8]) {
    let zeros = digits.iter().take_while(|byte| **byte == b'0').count();
    (digits.len() - zeros, &digits[zeros..])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs and their order: from rpm's own test suite (tests/rpmvercmp.at), then with epochs and releases.
    const ORDERED: &[(&str, &str, Ordering)] = &[
        ("1.0", "1.0", Ordering::Equal),
        ("1.0", "2.0", Ordering::Less),
        ("2.0.1", "2.0.1", Ordering::Equal),
        ("2.0", "2.0.1", Ordering::Less),
        ("2.0.1a", "2.0.1a", Ordering::Equal),
        ("2.0.1a", "2.0.1", Ordering::Greater),
        ("5.5p1", "5.5p1", Ordering::Equal),
        ("5.5p1", "5.5p2", Ordering::Less),
        ("5.5p10", "5.5p1", Ordering::Greater),
        ("10xyz", "10.1xyz", Ordering::Less),
        ("xyz10", "xyz10.1", Ordering::Less),
        ("xyz.4", "8", Ordering::Less),
        ("xyz.4", "2", Ordering::Less),
        ("5.5p2", "5.6p1", Ordering::Less),
        ("5.6p1", "6.5p1", Ordering::Less),
        ("6.0.rc1", "6.0", Ordering::Greater),
        ("10b2", "10a1", Ordering::Greater),
        ("1.0aa", "1.0aa", Ordering::Equal),
        ("1.0a", "1.0aa", Ordering::Less),
        ("10.0001", "10.0001", Ordering::Equal),
        ("10.0001", "10.1", Ordering::Equal),
        ("10.0001", "10.0039", Ordering::Less),
        ("4.999.9", "5.0", Ordering::Less),
        ("20101121", "20101122", Ordering::Less),
        ("2_0", "2_0", Ordering::Equal),
        ("2.0", "2_0", Ordering::Equal),
        ("a+", "a_", Ordering::Equal),
        ("+a", "_a", Ordering::Equal),
        ("+", "_", Ordering::Equal),
        ("1.0~rc1", "1.0~rc1", Ordering::Equal),
        ("1.0~rc1", "1.0", Ordering::Less),
        ("1.0~rc1", "1.0~rc2", Ordering::Less),
        ("1.0~rc1~git123", "1.0~rc1", Ordering::Less),
        ("1.0^", "1.0^", Ordering::Equal),
        ("1.0^", "1.0", Ordering::Greater),
        ("1.0^git1", "1.0", Ordering::Greater),
        ("1.0^git1", "1.0^git2", Ordering::Less),
        ("1.0^git1", "1.01", Ordering::Less),
        ("1.0^20160101", "1.0.1", Ordering::Less),
        ("1.0^20160101^git1", "1.0^20160101", Ordering::Greater),
        ("1.0^20160102", "1.0^20160101^git1", Ordering::Greater),
        ("1.0~rc1^git1", "1.0~rc1", Ordering::Greater),
        ("1.0^git1~pre", "1.0^git1", Ordering::Less),
        ("1b.fc17", "1.fc17", Ordering::Less),
        ("1g.fc17", "1.fc17", Ordering::Greater),
        ("1.1.α", "1.1.β", Ordering::Equal),
        ("99999999999999999999999", "100000000000000000000000", Ordering::Less),
        ("1:0.1", "9.9", Ordering::Greater),
        ("0:1.0-1", "1.0-1", Ordering::Equal),
        ("2:1", "10:1", Ordering::Less),
        ("1.0-1", "1.0-2", Ordering::Less),
        ("1.0-1", "1.0", Ordering::Equal),
        ("1.0-9.el9", "1.0-10.el9", Ordering::Less),
    ];

    #[test]
    fn versions_have_the_order_of_rpm() {
        for (left, right, order) in ORDERED {
            assert_eq!(compare(left, right), *order, "{left} {right}");
            assert_eq!(compare(right, left), order.reverse(), "{right} {left}");
        }
    }
}
