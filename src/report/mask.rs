//! The mask: what every text passes before a sink, an error or a record has it. Takes control characters out, hides
//! secrets, and cuts lines.
//!
//! In this order: a control character in the midst of a secret must not keep it from being found, and a cut must not
//! leave a secret's beginning. Never knows where a secret comes from.

use std::collections::BTreeSet;
use std::ops::Range;

/// What must never be shown is shown as this.
pub const HIDDEN: &str = "***";

/// Characters. A part shorter than this would blank out half of any output, and guards nothing.
const SHORTEST: usize = 4;
/// Bytes of one line of a secret. Lines of programs come cut to 16 KiB (`host::exec`): a secret that begins in what is
/// shown of a line is whole there.
const LONGEST: usize = 4 * 1024;
/// Bytes of a line that are shown.
const LINE: usize = 12 * 1024;

/// The secrets that are known.
#[derive(Debug, Default)]
pub(super) struct Mask {
    /// Whole secrets, and each of their lines that is long enough.
    parts: BTreeSet<String>,
}

impl Mask {
    pub(super) fn add(&mut self, secret: &str) {
        let secret = clean(secret);
        for part in std::iter::once(secret.as_str()).chain(secret.lines()).map(str::trim) {
            if part.chars().count() >= SHORTEST {
                self.parts.insert(part.to_owned());
            }
        }
    }

    /// `text` as it may be shown.
    pub(super) fn apply(&self, text: &str) -> String {
        let (text, beyond) = cut(text);
        let mut shown = String::with_capacity(text.len());
        let mut at = 0;
        for hidden in self.found(&text) {
            show(&text, at..hidden.start, &beyond, &mut shown);
            if !beyond.iter().any(|beyond| beyond.contains(&hidden.start)) {
                shown.push_str(HIDDEN);
            }
            at = hidden.end;
        }
        show(&text, at..text.len(), &beyond, &mut shown);
        shown
    }

    /// Where secrets stand in a text, in order; those that overlap as one.
    fn found(&self, text: &str) -> Vec<Range<usize>> {
        let mut all = Vec::new();
        for part in &self.parts {
            let mut from = 0;
            while let Some(found) = text[from..].find(part.as_str()) {
                let start = from + found;
                all.push(start..start + part.len());
                // The next may begin within this one.
                from = start + text[start..].chars().next().map_or(1, char::len_utf8);
            }
        }
        all.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<usize>> = Vec::new();
        for range in all {
            match merged.last_mut() {
                Some(last) if range.start < last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        merged
    }
}

/// `text` without control characters, and where in it stands what is not shown since it lies beyond the length of a
/// line. That is counted before anything is taken out: what comes later may be a secret that lacks its end.
fn cut(text: &str) -> (String, Vec<Range<usize>>) {
    let mut cleaned = String::with_capacity(text.len());
    let mut beyond = Vec::new();
    for (number, line) in text.split('\n').enumerate() {
        if number > 0 {
            cleaned.push('\n');
        }
        let end = (0..=LINE.min(line.len())).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
        cleaned.push_str(&clean(&line[..end]));
        let from = cleaned.len();
        cleaned.push_str(&clean(&line[end..]));
        if from < cleaned.len() {
            beyond.push(from..cleaned.len());
        }
    }
    (cleaned, beyond)
}

/// Appends a part of a text, but what of it is not shown.
fn show(text: &str, part: Range<usize>, beyond: &[Range<usize>], to: &mut String) {
    let mut at = part.start;
    for hidden in beyond.iter().filter(|hidden| hidden.start < part.end && part.start < hidden.end) {
        to.push_str(&text[at..hidden.start.max(at)]);
        at = hidden.end.min(part.end);
    }
    to.push_str(&text[at..part.end]);
}

/// Without control characters, which would move a terminal's cursor or change its title. Tabs and ends of lines stay.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\t' | '\n')).collect()
}

/// Whether everything of `secret` that guards something can be hidden. Lines shorter than 4 characters, beside others,
/// are not hidden and guard nothing.
///
/// # Errors
/// [`Unhidable`]: why not, as the end of a sentence about the secret.
pub fn can_hide(secret: &str) -> Result<(), Unhidable> {
    let secret = clean(secret);
    if secret.trim().chars().count() < SHORTEST {
        return Err(Unhidable::Short);
    }
    if secret.lines().any(|line| line.trim().len() > LONGEST) {
        return Err(Unhidable::Long);
    }
    Ok(())
}

/// Why a secret could be seen in what is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unhidable {
    #[error("shorter than {SHORTEST} characters: it could not be hidden from the log; use a longer secret")]
    Short,
    #[error(
        "longer than {} KiB in one line: it could not be hidden from the log; break it into lines",
        LONGEST / 1024
    )]
    Long,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(secrets: &[&str]) -> Mask {
        let mut mask = Mask::default();
        for secret in secrets {
            mask.add(secret);
        }
        mask
    }

    #[test]
    fn secrets_and_each_of_their_lines_are_hidden() {
        for (secrets, text, shown) in [
            (&["hunter2"][..], "a hunter2 b", "a *** b"),
            (&[" hunter2\r\n"], "hunter2hunter2", "******"),
            (&["hunter2", "hunter2-and-more"], "hunter2-and-more", "***"),
            // Overlapping: nothing of either is left.
            (&["abcdXY", "XYefgh"], "-abcdXYefgh-", "-***-"),
            (&["abab"], "-ababab-", "-***-"),
            (&["größe", "öß😀"], "größe öß😀", "*** öß😀"),
            // Short lines stay, but where the whole secret stands.
            (&["long-line\nab\nother-line"], "ab other-line", "ab ***"),
            (&["long-line\nab\nother-line"], ">long-line\nab\nother-line<", ">***<"),
            (&["abc"], "abc", "abc"),
            (&[], "as\tit\nis", "as\tit\nis"),
        ] {
            assert_eq!(mask(secrets).apply(text), shown, "{secrets:?}");
        }
    }

    #[test]
    fn control_characters_do_not_keep_a_secret_from_being_found() {
        let mask = mask(&["hunter2", "with\u{7}bell"]);
        for text in ["hun\0ter2", "\u{1b}hunter\u{9b}2", "h\ru\rn\rt\re\rr\r2", "with\u{7}bell", "withbell"] {
            assert_eq!(mask.apply(text), "***", "{text:?}");
        }
        assert_eq!(mask.apply("\u{1b}[2Jred\u{7f}"), "[2Jred");
    }

    #[test]
    fn a_line_is_cut_and_no_secrets_beginning_is_left_at_the_cut() {
        let secret: String = ('a'..='z').cycle().take(LONGEST).collect();
        let mask = mask(&[&secret]);
        // As `host::exec` cuts it: 16 KiB.
        let as_read = |text: &str| text[..text.len().min(16 * 1024)].to_owned();
        for before in [0, 1, LINE - LONGEST, LINE - 1, LINE, LINE + 1, LINE + LONGEST - 2, LINE + LONGEST] {
            for text in [
                format!("{}{secret}{}", "-".repeat(before), "-".repeat(LINE)),
                // What is masked or cleaned before it brings what is after the cut no nearer.
                format!("{secret}{}{secret}{secret}", "-".repeat(before)),
                format!("{}{}{secret}", "\u{1b}".repeat(before / 2), "-".repeat(before - before / 2)),
            ] {
                let shown = mask.apply(&as_read(&text));
                assert!(shown.len() <= LINE + HIDDEN.len(), "{before}: {}", shown.len());
                assert!(!shown.contains('a'), "{before}: {shown}");
            }
        }
        assert_eq!(mask.apply(&"ü".repeat(LINE)).len(), LINE);
        // Each line by itself.
        let lines = format!("{0}\n{0}\nend", "-".repeat(LINE + 5));
        assert_eq!(mask.apply(&lines), format!("{0}\n{0}\nend", "-".repeat(LINE)));
    }

    #[test]
    fn what_cannot_be_hidden_is_told() {
        let long = "x".repeat(LONGEST);
        for (secret, wanted) in [
            ("abcd", Ok(())),
            ("ab\ncd", Ok(())),
            ("größ", Ok(())),
            (&format!("{long}\n{long}\nab"), Ok(())),
            ("", Err(Unhidable::Short)),
            ("abc\n", Err(Unhidable::Short)),
            ("  abc  ", Err(Unhidable::Short)),
            ("a\0\0\0b", Err(Unhidable::Short)),
            ("ßßß", Err(Unhidable::Short)),
            (&format!("ab\n{long}x"), Err(Unhidable::Long)),
        ] {
            assert_eq!(can_hide(secret), wanted, "{}", secret.len());
        }
    }
}
