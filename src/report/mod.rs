//! Telling: events go in, lines come out. Doing emits [`Event`]s and never prints; a sink shows or writes them.
//! Every text passes one place that hides secrets before any sink sees it.

mod jsonl;
mod terminal;

use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use jsonl::JsonLines;
use serde::{Deserialize, Serialize};
pub use terminal::Terminal;

/// What happened.
#[derive(Clone, Debug, Serialize)]
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
        step: String,
        text: String,
    },
    /// How far a part is.
    Progress {
        name: String,
        done: u64,
        total: u64,
    },
    Note {
        text: String,
    },
    Warning {
        text: String,
    },
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

/// What must never be shown is shown as this.
pub const HIDDEN: &str = "***";

#[derive(Default)]
struct Inner {
    sinks: Vec<Box<dyn Sink>>,
    secrets: Vec<String>,
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

    /// From now on `secret` is shown as [`HIDDEN`] in every event; each of its lines too.
    pub fn hide(&self, secret: &str) {
        let mut inner = self.lock();
        for part in std::iter::once(secret).chain(secret.lines()) {
            let part = part.trim();
            // A part this short would blank out half of any output, and guards nothing.
            if part.len() >= 4 && !inner.secrets.iter().any(|known| known == part) {
                inner.secrets.push(part.to_owned());
            }
        }
        // The longest first, so that no rest of a longer one is left over.
        inner.secrets.sort_by_key(|part| std::cmp::Reverse(part.len()));
    }

    /// `text` with every secret hidden: for errors and records, which do not pass the sinks.
    #[must_use]
    pub fn masked(&self, text: &str) -> String {
        mask(&self.lock().secrets, text)
    }

    pub fn emit(&self, event: Event) {
        let mut inner = self.lock();
        let event = hidden(&inner.secrets, event);
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

fn mask(secrets: &[String], text: &str) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| {
        if text.contains(secret.as_str()) { text.replace(secret.as_str(), HIDDEN) } else { text }
    })
}

fn hidden(secrets: &[String], event: Event) -> Event {
    if secrets.is_empty() {
        return event;
    }
    match event {
        Event::Line { step, text } => Event::Line { step, text: mask(secrets, &text) },
        Event::Note { text } => Event::Note { text: mask(secrets, &text) },
        Event::Warning { text } => Event::Warning { text: mask(secrets, &text) },
        Event::Step { number, of, name } => Event::Step { number, of, name: mask(secrets, &name) },
        Event::StepDone { number, name, seconds } => {
            Event::StepDone { number, name: mask(secrets, &name), seconds }
        }
        other => other,
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
        reporter.emit(Event::Line { step: "shell".into(), text: "got first-half then second-half".into() });
        reporter.warning("second-half");
        let all = seen.lock().unwrap().join("\n");
        assert!(!all.contains("first-half") && !all.contains("second-half"), "{all}");
        assert!(all.contains(HIDDEN));
        assert_eq!(reporter.masked("a first-half b"), "a *** b");
    }
}
