//! Telling: events go in, lines come out. Doing emits [`Event`]s and never prints; a sink shows or writes them.
//! Every text passes one `mask` that hides secrets before any sink sees it.

mod jsonl;
mod mask;
mod terminal;

use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use jsonl::JsonLines;
use mask::Mask;
pub use mask::{HIDDEN, Unhidable, can_hide};
use serde::{Deserialize, Serialize};
pub use terminal::Terminal;

/// What happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Event {
    /// A part of the work began: `reading the base`.
    Phase {
        name: String,
    },
    /// That part is done.
    PhaseDone {
        name: String,
        seconds: f64,
    },
    /// A step of the recipe began. `number` counts from 1.
    Step {
        number: usize,
        of: usize,
        name: String,
    },
    StepDone {
        number: usize,
        name: String,
        seconds: f64,
    },
    /// A line that a step's command wrote.
    Line {
        /// The step's number and kind: `2 shell`.
        step: String,
        text: String,
    },
    /// How far a part is.
    Progress {
        name: String,
        done: u64,
        total: u64,
    },
    /// A stage waits; any process can go on with the token.
    Waiting {
        stage: String,
        token: String,
        percent: u8,
    },
    Note {
        text: String,
    },
    Warning {
        text: String,
    },
}

impl Event {
    /// Every text in it.
    fn texts(&mut self) -> [Option<&mut String>; 2] {
        match self {
            Self::Phase { name }
            | Self::PhaseDone { name, .. }
            | Self::Step { name, .. }
            | Self::StepDone { name, .. }
            | Self::Progress { name, .. } => [Some(name), None],
            Self::Line { step, text } => [Some(step), Some(text)],
            Self::Waiting { stage, token, .. } => [Some(stage), Some(token)],
            Self::Note { text } | Self::Warning { text } => [Some(text), None],
        }
    }
}

/// Takes events. Called from many threads, one event at a time.
pub trait Sink: Send {
    fn take(&mut self, event: &Event);
}

/// How long a part took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Timing {
    pub name: String,
    pub seconds: f64,
}

impl Timing {
    #[must_use]
    pub fn new(name: impl Into<String>, took: Duration) -> Self {
        Self { name: name.into(), seconds: took.as_secs_f64() }
    }
}

#[derive(Default)]
struct Inner {
    sinks: Vec<Box<dyn Sink>>,
    mask: Mask,
}

/// Where events go. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Reporter(Arc<Mutex<Inner>>);

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reporter")
    }
}

impl Reporter {
    /// One that tells nobody.
    #[must_use]
    pub fn silent() -> Self {
        Self::default()
    }

    pub fn add_sink(&self, sink: Box<dyn Sink>) {
        self.lock().sinks.push(sink);
    }

    /// From now on `secret` is shown as [`HIDDEN`] in every event; each of its lines too. What [`can_hide`] refuses
    /// could be seen in part.
    pub fn hide(&self, secret: &str) {
        self.lock().mask.add(secret);
    }

    /// `text` as an event would show it: every secret hidden, without control characters, and with no line longer than
    /// 12 KiB. For errors and records, which do not pass the sinks.
    #[must_use]
    pub fn masked(&self, text: &str) -> String {
        self.lock().mask.apply(text)
    }

    pub fn emit(&self, mut event: Event) {
        let mut inner = self.lock();
        for text in event.texts().into_iter().flatten() {
            *text = inner.mask.apply(text);
        }
        for sink in &mut inner.sinks {
            sink.take(&event);
        }
    }

    pub fn note(&self, text: impl Into<String>) {
        self.emit(Event::Note { text: text.into() });
    }

    pub fn warning(&self, text: impl Into<String>) {
        self.emit(Event::Warning { text: text.into() });
    }

    /// Tells that a part began; tells its end when [`Phase::done`] is called.
    #[must_use]
    pub fn phase(&self, name: impl Into<String>) -> Phase {
        let name = name.into();
        self.emit(Event::Phase { name: name.clone() });
        Phase { reporter: self.clone(), name, began: std::time::Instant::now() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // A sink that panicked has lost its own line only.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A part of the work that is under way.
#[derive(Debug)]
pub struct Phase {
    reporter: Reporter,
    name: String,
    began: std::time::Instant,
}

impl Phase {
    /// Ends it and gives how long it took.
    pub fn done(self) -> Duration {
        let took = self.began.elapsed();
        self.reporter.emit(Event::PhaseDone { name: self.name, seconds: took.as_secs_f64() });
        took
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Keep(Arc<Mutex<Vec<String>>>);

    impl Sink for Keep {
        fn take(&mut self, event: &Event) {
            self.0.lock().unwrap().push(format!("{event:?}"));
        }
    }

    #[test]
    fn no_sink_sees_a_secret_nor_any_of_its_lines() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let reporter = Reporter::silent();
        reporter.add_sink(Box::new(Keep(seen.clone())));
        reporter.hide("first-half\nsecond-half");
        let text = || "got first-half then sec\u{1b}ond-half".to_owned();
        for event in [
            Event::Phase { name: text() },
            Event::PhaseDone { name: text(), seconds: 1.0 },
            Event::Step { number: 1, of: 1, name: text() },
            Event::StepDone { number: 1, name: text(), seconds: 1.0 },
            Event::Line { step: "1 shell".into(), text: text() },
            Event::Line { step: text(), text: String::new() },
            Event::Progress { name: text(), done: 1, total: 1 },
            Event::Waiting { stage: text(), token: text(), percent: 1 },
            Event::Note { text: text() },
            Event::Warning { text: text() },
        ] {
            reporter.emit(event);
        }
        reporter.phase(text()).done();
        reporter.warning("second-half");
        let all = seen.lock().unwrap();
        assert_eq!(all.len(), 13);
        for one in &*all {
            assert!(!one.contains("half") && one.contains(HIDDEN), "{one}");
        }
        assert_eq!(reporter.masked("a first-half b"), "a *** b");
    }

    #[test]
    fn json_lines_are_whole_events_or_warnings_only() {
        #[derive(Clone, Default)]
        struct Buffer(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Buffer {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        for (quiet, wanted) in [(false, &["note", "warning"][..]), (true, &["warning"])] {
            let (reporter, buffer) = (Reporter::silent(), Buffer::default());
            reporter.add_sink(Box::new(JsonLines::new(buffer.clone(), quiet)));
            reporter.note("a\nb");
            reporter.warning("c");
            let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
            let lines: Vec<serde_json::Value> =
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let kinds: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
            assert_eq!(kinds, wanted);
            assert!(lines.iter().all(|line| line["time"].is_string()), "{text}");
        }
    }
}
