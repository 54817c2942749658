//! What came of a build, in CodeBuild's words, for a program to read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Outcome {
    /// `CODEBUILD_BUILD_ID`.
    pub build: String,
    pub status: Status,
    /// Those that were reached.
    pub phases: Vec<PhaseOutcome>,
    /// As they were when the last phase ended; one that was not set is not among them.
    pub exported_variables: BTreeMap<String, String>,
    pub artifacts: Vec<Collected>,
    /// Keys of the buildspec that mean nothing here.
    pub not_done: Vec<&'static str>,
}

impl Outcome {
    /// What failed first, for a person; `None` where nothing did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let failed = self.phases.iter().find(|phase| phase.status != Status::Succeeded)?;
        let why = failed.contexts.first().map(|context| format!(": {}", context.message));
        Some(format!("the build failed in {}{}", failed.phase, why.unwrap_or_default()))
    }
}

/// As CodeBuild names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    Succeeded,
    Failed,
    Stopped,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PhaseOutcome {
    /// `INSTALL`, `PRE_BUILD`, `BUILD`, `POST_BUILD` or `UPLOAD_ARTIFACTS`.
    pub phase: String,
    pub status: Status,
    /// When it began, in UTC.
    pub started: String,
    pub seconds: f64,
    /// Why it failed.
    pub contexts: Vec<Context>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Context {
    pub status_code: &'static str,
    pub message: String,
}

/// An artifact that was collected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Collected {
    /// The secondary artifact's; none for the primary one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identifier: Option<String>,
    pub name: String,
    /// The folder that holds its files.
    pub folder: PathBuf,
    pub files: usize,
}
