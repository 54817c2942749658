//! What came of the last of the seal, as a line on the machine's console: what lets commands in is gone by then, so the
//! machine cannot be asked. Whoever writes the line and whoever reads it may be different builds of the same version.

/// Characters of a failure: a console keeps its newest 64 KiB, and the line is written again and again.
const LONGEST: usize = 600;
const DONE: &str = "sealed";
const FAILED: &str = "not sealed: ";

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LastOfSeal {
    Done,
    /// In words.
    Failed(String),
}

impl LastOfSeal {
    /// As the machine of a bake says it.
    #[must_use]
    pub fn line(&self, bake: &str) -> String {
        let begin = begin(bake);
        match self {
            Self::Done => format!("{begin}{DONE}"),
            Self::Failed(why) => {
                let words: Vec<&str> = why.split_whitespace().collect();
                let why: String = words.join(" ").chars().take(LONGEST).collect();
                format!("{begin}{FAILED}{why}")
            }
        }
    }

    /// The newest that a console has of this bake. What else was written into the middle of a line, by the kernel say, makes
    /// it none.
    #[must_use]
    pub fn find(console: &[u8], bake: &str) -> Option<Self> {
        let text = String::from_utf8_lossy(console);
        let begin = begin(bake);
        let mut rest =
            text.rmatch_indices(&begin).filter_map(|(at, _)| text[at + begin.len()..].lines().next());
        rest.find_map(|rest| match rest.trim_end() {
            DONE => Some(Self::Done),
            other => other.strip_prefix(FAILED).map(|why| Self::Failed(why.to_owned())),
        })
    }
}

fn begin(bake: &str) -> String {
    format!("bakehouse {bake}: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_says_what_came_of_it_among_other_lines() {
        let failed = LastOfSeal::Failed("cannot remove /a:\n  busy".to_owned());
        let console = format!("boot\r\n{}\r\n[ 1.2] kernel\r\n", failed.line("b-1"));
        let why = LastOfSeal::Failed("cannot remove /a: busy".to_owned());
        assert_eq!(LastOfSeal::find(console.as_bytes(), "b-1"), Some(why));
        assert_eq!(LastOfSeal::find(console.as_bytes(), "b-2"), None);
        let done =
            format!("\u{1b}[0m{}\r\nbakehouse b-1: sea[ 2.0] kernel\r\nled", LastOfSeal::Done.line("b-1"));
        assert_eq!(LastOfSeal::find(done.as_bytes(), "b-1"), Some(LastOfSeal::Done));
        for none in ["", "bakehouse b-1: ", "bakehouse b-1: not sealed", "bakehouse b-1: sealed[ 1.0] kernel"]
        {
            assert_eq!(LastOfSeal::find(none.as_bytes(), "b-1"), None, "{none}");
        }
        let long = LastOfSeal::Failed("x".repeat(5000)).line("b-1");
        assert!(long.len() < 1000, "{}", long.len());
    }
}
