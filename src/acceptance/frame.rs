//! The answer of a booted image: one line on its serial console among whatever else is written there.
//!
//! ```text
//! @bakehouse-1 NONCE LENGTH SHA-256 BASE64@
//! ```
//! LENGTH and SHA-256 are those of BASE64, which is a gzip of JSON. The guest repeats the line: other writers may break
//! into one, and only the newest 64 KiB of a console are kept. Whatever the console holds is data: never trusted, never
//! unpacked beyond a bound.

use std::io::Read;

use base64::Engine;
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// What a frame begins with.
pub const MAGIC: &str = "@bakehouse-1";
/// Longest BASE64. With what the kernel writes meanwhile, one whole frame stays within the 64 KiB of a console.
pub const LARGEST: usize = 24 * 1024;
/// Bytes of the JSON: far more than the frame's gzip of honest answers holds.
const LARGEST_JSON: u64 = 4 * 1024 * 1024;

/// How one check came out in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Which check, by its place in the recipe.
    pub index: usize,
    pub verdict: Verdict,
    /// Whole seconds.
    pub seconds: u32,
    /// Why it failed or was not judged; cut short by the guest.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Verdict {
    #[serde(rename = "p")]
    Passed,
    #[serde(rename = "f")]
    Failed,
    #[serde(rename = "n")]
    NotJudged,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub checks: Vec<Judged>,
}

#[derive(Deserialize)]
struct Wire {
    checks: Vec<WireCheck>,
}

#[derive(Deserialize)]
struct WireCheck {
    i: usize,
    s: Verdict,
    t: u32,
    /// Base64, so that a shell can write it.
    m: String,
}

/// The first whole answer with this nonce.
#[must_use]
pub fn find_answer(console: &[u8], nonce: &str) -> Option<Answer> {
    let start = format!("{MAGIC} {nonce} ");
    positions(console, start.as_bytes()).find_map(|at| frame(&console[at + start.len()..]))
}

/// Whether the guest said that it began with the checks.
#[must_use]
pub fn has_started(console: &[u8], nonce: &str) -> bool {
    let line = started(nonce);
    positions(console, line.as_bytes()).next().is_some()
}

/// The line with which the guest says that it begins.
#[must_use]
pub fn started(nonce: &str) -> String {
    format!("{MAGIC} {nonce} started@")
}

fn positions<'a>(text: &'a [u8], part: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    text.windows(part.len()).enumerate().filter(move |(_, window)| *window == part).map(|(at, _)| at)
}

/// Reads `LENGTH SHA-256 BASE64@`.
fn frame(text: &[u8]) -> Option<Answer> {
    let (length, text) = word(text, 6)?;
    let length: usize = length.parse().ok().filter(|length| *length <= LARGEST)?;
    let (sum, text) = word(text, 64)?;
    let data = text.get(..length)?;
    if text.get(length) != Some(&b'@') || hex::encode(Sha256::digest(data)) != sum {
        return None;
    }
    let packed = base64::engine::general_purpose::STANDARD.decode(data).ok()?;
    let mut json = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice()).take(LARGEST_JSON).read_to_end(&mut json).ok()?;
    let wire: Wire = serde_json::from_slice(&json).ok()?;
    Some(Answer { checks: wire.checks.into_iter().map(judged).collect() })
}

fn judged(check: WireCheck) -> Judged {
    let message = base64::engine::general_purpose::STANDARD.decode(check.m).unwrap_or_default();
    Judged {
        index: check.i,
        verdict: check.s,
        seconds: check.t,
        message: String::from_utf8_lossy(&message).trim().to_owned(),
    }
}

/// The word up to the next space, of at most `longest` bytes, and what follows the space.
fn word(text: &[u8], longest: usize) -> Option<(&str, &[u8])> {
    let end = text.iter().take(longest + 1).position(|byte| *byte == b' ')?;
    Some((std::str::from_utf8(&text[..end]).ok()?, &text[end + 1..]))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const NONCE: &str = "0123456789abcdef";

    fn frame_of(nonce: &str, json: &str) -> String {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(json.as_bytes()).unwrap();
        let data = base64::engine::general_purpose::STANDARD.encode(gzip.finish().unwrap());
        let sum = hex::encode(Sha256::digest(data.as_bytes()));
        format!("{MAGIC} {nonce} {} {sum} {data}@", data.len())
    }

    fn good() -> String {
        frame_of(NONCE, r#"{"checks":[{"i":0,"s":"p","t":1,"m":""},{"i":1,"s":"f","t":0,"m":"YmFk"}]}"#)
    }

    #[test]
    fn an_answer_is_found_among_other_lines() {
        let console = format!("[    0.0] Linux\r\n\r\n{}\r\nlogin: ", good());
        let answer = find_answer(console.as_bytes(), NONCE).unwrap();
        assert_eq!(answer.checks[0].verdict, Verdict::Passed);
        assert_eq!(answer.checks[1].message, "bad");
    }

    #[test]
    fn broken_ones_are_passed_over_until_a_whole_one_comes() {
        let good = good();
        let mut torn = good.clone();
        torn.insert_str(100, "[   12.3] usb 1-1: new device\r\n");
        let cut = &good[..good.len() - 5];
        let console = format!("{torn}\n{cut}\n{good}\n");
        assert!(find_answer(console.as_bytes(), NONCE).is_some());
        for part in [&torn, cut] {
            assert_eq!(find_answer(part.as_bytes(), NONCE), None);
        }
        // The window of the console may begin anywhere within a frame.
        for at in (0..good.len()).step_by(7) {
            let window = format!("{}\n{good}", &good[at..]);
            assert!(find_answer(window.as_bytes(), NONCE).is_some(), "{at}");
        }
    }

    #[test]
    fn another_nonce_is_another_answer() {
        let console = frame_of("ffffffffffffffff", r#"{"checks":[]}"#);
        assert_eq!(find_answer(console.as_bytes(), NONCE), None);
    }

    #[test]
    fn hostile_frames_are_refused() {
        let bomb = {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            for _ in 0..16 {
                gzip.write_all(&vec![b' '; 1 << 20]).unwrap();
            }
            let data = base64::engine::general_purpose::STANDARD.encode(gzip.finish().unwrap());
            let sum = hex::encode(Sha256::digest(data.as_bytes()));
            format!("{MAGIC} {NONCE} {} {sum} {data}@", data.len())
        };
        let sum = hex::encode(Sha256::digest(b""));
        for text in [
            bomb,
            frame_of(NONCE, "[]"),
            frame_of(NONCE, r#"{"checks":[{"i":-1,"s":"p","t":1,"m":""}]}"#),
            frame_of(NONCE, r#"{"checks":[{"i":0,"s":"x","t":1,"m":""}]}"#),
            format!("{MAGIC} {NONCE} 999999 {sum} @"),
            format!("{MAGIC} {NONCE} 18446744073709551616 {sum} @"),
            format!("{MAGIC} {NONCE} -1 {sum} @"),
            format!("{MAGIC} {NONCE} 0 {sum} @"),
            format!("{MAGIC} {NONCE} "),
            format!("{MAGIC} {NONCE}  "),
        ] {
            assert_eq!(find_answer(text.as_bytes(), NONCE), None);
        }
        let mut bytes = good().into_bytes();
        bytes[90] = 0xff;
        assert_eq!(find_answer(&bytes, NONCE), None);
    }

    #[test]
    fn the_beginning_is_seen() {
        assert!(has_started(started(NONCE).as_bytes(), NONCE));
        assert!(!has_started(good().as_bytes(), NONCE));
    }
}
