//! Events as JSON lines: `events.jsonl`, and `--log json`.

use std::io::Write;

use serde::Serialize;

use super::{Event, Sink};
use crate::host::clock;

/// Writes one JSON object per line, each with its time.
#[derive(Debug)]
pub struct JsonLines<W> {
    writer: W,
    /// Only warnings.
    quiet: bool,
}

impl<W: Write + Send> JsonLines<W> {
    /// With `quiet` warnings are written and nothing else.
    #[must_use]
    pub fn new(writer: W, quiet: bool) -> Self {
        Self { writer, quiet }
    }
}

#[derive(Serialize)]
struct Stamped<'a> {
    time: String,
    #[serde(flatten)]
    event: &'a Event,
}

impl<W: Write + Send> Sink for JsonLines<W> {
    fn take(&mut self, event: &Event) {
        if self.quiet && !matches!(event, Event::Warning { .. }) {
            return;
        }
        let stamped = Stamped { time: clock::wall().to_string(), event };
        if let Ok(line) = serde_json::to_string(&stamped) {
            // A log that cannot be written must not fail the bake.
            let _ = writeln!(self.writer, "{line}");
        }
    }
}
