//! Events as JSON lines: `events.jsonl`, and `--log json`.

use std::io::Write;

use serde::Serialize;

use super::{Event, Sink};
use crate::host::clock;

/// Writes one JSON object per line, each with its time.
#[derive(Debug)]
pub struct JsonLines<W>(pub W);

#[derive(Serialize)]
struct Stamped<'a> {
    time: String,
    #[serde(flatten)]
    event: &'a Event,
}

impl<W: Write + Send> Sink for JsonLines<W> {
    fn take(&mut self, event: &Event) {
        let stamped = Stamped { time: clock::wall().to_string(), event };
        if let Ok(line) = serde_json::to_string(&stamped) {
            // A log that cannot be written must not fail the bake.
            let _ = writeln!(self.0, "{line}");
        }
    }
}
