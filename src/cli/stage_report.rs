//! How a stage answers a build that knows no job: `junit.xml` in OUT, with a case for the stage itself, and the reason as
//! the last line of the log. That the file cannot be written changes nothing of how the stage ended.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::build;
use super::exit::Failure;
use crate::acceptance::{Case, End, junit};
use crate::host::file;
use crate::report::Reporter;

/// The report's name.
pub const FILE: &str = "junit.xml";
/// What a report is called as long as no recipe has been read.
const SUITE: &str = "bakehouse";

/// A stage's report, from its beginning.
pub struct StageReport {
    stage: &'static str,
    began: Instant,
    known: Mutex<Known>,
}

/// What becomes known on the way.
#[derive(Default)]
struct Known {
    out: Option<PathBuf>,
    suite: Option<String>,
    before: Vec<Case>,
    reporter: Option<Reporter>,
    begun: bool,
}

impl StageReport {
    #[must_use]
    pub fn begin(stage: &'static str) -> Self {
        Self { stage, began: Instant::now(), known: Mutex::default() }
    }

    /// Where results go. They do so also where the stage comes to an early end: in a build, and where the folder is there.
    pub fn goes_to(&self, out: &Path) {
        self.known().out = Some(out.to_owned());
    }

    /// What the report is called, and the cases of the stages before.
    pub fn of(&self, suite: &str, before: Vec<Case>) {
        let mut known = self.known();
        (known.suite, known.before) = (Some(suite.to_owned()), before);
    }

    /// What hides secrets.
    pub fn masked_by(&self, reporter: &Reporter) {
        self.known().reporter = Some(reporter.clone());
    }

    /// The stage owns the folder, and its answer is to come. If none comes (it is killed), that is a failed case.
    pub fn begun(&self) {
        self.known().begun = true;
        let told = format!(
            "the {} was ended before it had an answer: killed, or out of memory; `bakehouse sweep` removes what it left",
            self.stage
        );
        self.write(End::Failed { kind: "JobFailed".to_owned(), reason: told.clone(), told });
    }

    /// The stage is over.
    ///
    /// # Errors
    /// The result's own, with every secret hidden.
    pub fn end<T>(self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        let error = match result {
            Ok(value) => {
                if self.known().begun {
                    self.write(End::Passed);
                }
                return Ok(value);
            }
            Err(error) => error,
        };
        let mut failure = Failure::from(error);
        if let Some(reporter) = &self.known().reporter {
            failure = failure.masked(|text| reporter.masked(text));
        }
        // Checks have cases of their own.
        if !matches!(failure, Failure::Checks(_)) && self.may_write() {
            let (kind, reason, told) = (failure.kind().to_string(), failure.reason(), failure.to_string());
            self.write(End::Failed { kind, reason, told });
        }
        Err(failure.into())
    }

    fn may_write(&self) -> bool {
        let known = self.known();
        let is_there = |out: &PathBuf| out.is_dir();
        // A folder that was named by mistake is not made.
        let could_be =
            |out: &PathBuf| out.parent().is_some_and(Path::is_dir) && build::of_environment().is_some();
        known.out.as_ref().is_some_and(|out| is_there(out) || could_be(out))
    }

    fn write(&self, end: End) {
        let known = self.known();
        let Some(out) = &known.out else { return };
        let mut cases = known.before.clone();
        cases.push(Case::of_stage(self.stage, self.began.elapsed().as_secs_f64(), end));
        let text = junit(known.suite.as_deref().unwrap_or(SUITE), &cases, "");
        let path = out.join(FILE);
        let written =
            std::fs::create_dir_all(out).and_then(|()| file::replace(&path, text.as_bytes(), 0o644));
        if let (Err(error), Some(reporter)) = (written, &known.reporter) {
            reporter.warning(format!("cannot write {}: {error}", path.display()));
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last line of a build's log: how the program failed, and why.
pub fn last_line(code: u8, reason: &str) {
    if build::of_environment().is_some() {
        // A log that is closed takes no line; the exit code tells.
        let _ = writeln!(std::io::stderr().lock(), "failed with exit code {code}: {reason}");
    }
}
