//! How a stage ended, for whoever started it: a job of CodePipeline, or a worker that waits for its process. Pure, but for
//! the file by which one process tells another.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cloud::{JobFailure, JobFailureKind, JobSuccess, Revision};
use crate::host::file;

/// Names of the variables that CodePipeline takes: of these characters.
const OF_A_NAME: &[u8] = b"@-_";
/// Bytes of all output variables of an action, names and values (CodePipeline: OutputVariablesSizeExceededException).
const VARIABLES: usize = 122_880;
// Characters, as the API model has them.
const SUMMARY: usize = 2048;
const EXTERNAL_ID: usize = 1500;
const REVISION: usize = 1500;
const CHANGE: usize = 100;
const MESSAGE: usize = 5000;
/// Bytes of an answer's file; a token and a message are much less.
const LARGEST: u64 = 1 << 20;

/// How a stage ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum StageAnswer {
    Done(Done),
    /// Any process goes on with the token.
    Waits {
        stage: String,
        token: String,
        percent: u8,
    },
    Failed {
        kind: JobFailureKind,
        /// The process's exit code.
        code: u8,
        /// For a person, with every secret hidden.
        message: String,
    },
}

/// What a stage that is done gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Done {
    pub summary: String,
    /// The bake's id.
    pub bake: String,
    pub image: Option<String>,
    pub name: String,
    pub created: Option<Timestamp>,
    /// What bakehouse.env has.
    pub variables: BTreeMap<String, String>,
}

/// The one result that a job is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobResult {
    Success(JobSuccess),
    Failure(JobFailure),
}

impl StageAnswer {
    /// Leaves it for the process that reads `path`.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        file::replace(path, &serde_json::to_vec(self)?, 0o600)
    }

    /// What a process left; `None` where it left nothing that can be read.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        if path.metadata().ok()?.len() > LARGEST {
            return None;
        }
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// As CodePipeline is told it.
    #[must_use]
    pub fn result(self) -> JobResult {
        match self {
            Self::Done(done) => JobResult::Success(done.success()),
            Self::Waits { stage, token, percent } => JobResult::Success(JobSuccess {
                continuation: Some(token),
                summary: Some(format!("{stage}: {percent}%")),
                percent: Some(percent.min(100)),
                ..JobSuccess::default()
            }),
            Self::Failed { kind, message, .. } => {
                JobResult::Failure(JobFailure { kind, message, external_id: None })
            }
        }
        .within_limits()
    }
}

impl Done {
    /// The result of a job that this is all of.
    #[must_use]
    pub fn success(self) -> JobSuccess {
        let revision = self.image.map(|image| Revision {
            id: image,
            change: self.bake.clone(),
            created: self.created,
            summary: Some(self.name),
        });
        JobSuccess {
            revision,
            continuation: None,
            summary: Some(self.summary),
            external_id: Some(self.bake),
            percent: Some(100),
            variables: self.variables,
        }
    }
}

impl JobResult {
    /// The same as CodePipeline takes it: nothing empty, nothing too long. A continuation token has no variables beside it,
    /// and is never cut: half a token is none. Variables that do not fit are left out, the last ones by their names.
    #[must_use]
    pub fn within_limits(self) -> Self {
        match self {
            Self::Success(mut success) => {
                success.summary = limited(success.summary, SUMMARY);
                success.external_id = limited(success.external_id, EXTERNAL_ID);
                success.revision = success.revision.and_then(|revision| {
                    Some(Revision {
                        id: limited(Some(revision.id), REVISION)?,
                        change: limited(Some(revision.change), CHANGE)?,
                        created: revision.created,
                        summary: limited(revision.summary, SUMMARY),
                    })
                });
                let mut bytes = 0;
                success.variables.retain(|name, value| {
                    bytes += name.len() + value.len();
                    success.continuation.is_none() && is_name(name) && bytes <= VARIABLES
                });
                Self::Success(success)
            }
            Self::Failure(mut failure) => {
                failure.message = limited(Some(failure.message), MESSAGE)
                    .unwrap_or_else(|| "no reason is known; see the log".to_owned());
                failure.external_id = limited(failure.external_id, EXTERNAL_ID);
                Self::Failure(failure)
            }
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || OF_A_NAME.contains(&byte))
}

/// A text of at most so many characters, as AWS may count them: a character beyond the basic plane as two. What is cut is
/// the middle, since a message's beginning says what failed and its end what to do. `None` for one that is empty.
fn limited(text: Option<String>, most: usize) -> Option<String> {
    const CUT: &str = "\n[…]\n";
    let text = text.filter(|text| !text.trim().is_empty())?;
    let length = |text: &str| text.encode_utf16().count();
    if length(&text) <= most {
        return Some(text);
    }
    let room = most.saturating_sub(length(CUT));
    let (head, tail) = (room.div_ceil(2), room / 2);
    let mut units = 0;
    let begin: String = text
        .chars()
        .take_while(|c| {
            units += c.len_utf16();
            units <= head
        })
        .collect();
    units = 0;
    let end: Vec<char> = text
        .chars()
        .rev()
        .take_while(|c| {
            units += c.len_utf16();
            units <= tail
        })
        .collect();
    Some(begin + CUT + &end.into_iter().rev().collect::<String>())
}

/// The variables that `bakehouse.env` exports.
#[must_use]
pub fn exported(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
    lines
        .map(|(name, value)| {
            let plain = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\'')).unwrap_or(value);
            (name.to_owned(), plain.replace("'\\''", "'"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_goes_from_one_process_to_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("answer.json");
        assert_eq!(StageAnswer::read(&path), None);
        let done = Done { summary: "baked".into(), image: Some("ami-1".into()), ..Done::default() };
        let waits = StageAnswer::Waits { stage: "test".into(), token: "t".into(), percent: 40 };
        let failed =
            StageAnswer::Failed { kind: JobFailureKind::PermissionError, code: 5, message: "no".into() };
        for answer in [StageAnswer::Done(done), waits, failed] {
            answer.write(&path).unwrap();
            assert_eq!(StageAnswer::read(&path), Some(answer));
        }
        std::fs::write(&path, "{").unwrap();
        assert_eq!(StageAnswer::read(&path), None);
    }

    #[test]
    fn a_stage_that_waits_is_a_continuation_without_variables() {
        let waits = StageAnswer::Waits { stage: "test".into(), token: "t".into(), percent: 40 };
        let JobResult::Success(success) = waits.result() else { panic!("a failure") };
        assert_eq!((success.continuation.as_deref(), success.percent), (Some("t"), Some(40)));
        let with_variables = JobSuccess {
            continuation: Some("t".into()),
            variables: BTreeMap::from([("A".into(), "b".into())]),
            ..JobSuccess::default()
        };
        let JobResult::Success(success) = JobResult::Success(with_variables).within_limits() else {
            panic!("a failure")
        };
        assert!(success.variables.is_empty());
    }

    #[test]
    fn a_result_is_what_codepipeline_takes() {
        let long = "ä😀".repeat(3000);
        let done = Done {
            summary: long.clone(),
            bake: long.clone(),
            image: Some(long.clone()),
            name: String::new(),
            created: None,
            variables: BTreeMap::from([
                ("A".into(), "x".repeat(VARIABLES - 1)),
                ("B".into(), "y".into()),
                ("not a name".into(), "z".into()),
            ]),
        };
        let JobResult::Success(success) = StageAnswer::Done(done).result() else { panic!("a failure") };
        let units = |text: &str| text.encode_utf16().count();
        let revision = success.revision.unwrap();
        assert!(units(success.summary.as_deref().unwrap()) <= SUMMARY);
        assert!(units(success.external_id.as_deref().unwrap()) <= EXTERNAL_ID);
        assert!(units(&revision.id) <= REVISION && units(&revision.change) <= CHANGE);
        assert_eq!(revision.summary, None);
        assert_eq!(success.variables.keys().collect::<Vec<_>>(), ["A"]);
        for (message, least) in [(long, MESSAGE - 3), (String::new(), 1), ("x".repeat(5001), MESSAGE - 1)] {
            let failed = StageAnswer::Failed { kind: JobFailureKind::JobFailed, code: 3, message };
            let JobResult::Failure(failure) = failed.result() else { panic!("a success") };
            assert!((least..=MESSAGE).contains(&units(&failure.message)), "{}", units(&failure.message));
        }
    }

    #[test]
    fn what_is_cut_is_the_middle() {
        let text = format!("begin{}end", "x".repeat(100));
        let cut = limited(Some(text), 20).unwrap();
        assert!(cut.starts_with("begin") && cut.ends_with("end") && cut.contains('…'), "{cut}");
        assert_eq!(cut.chars().count(), 20);
    }

    #[test]
    fn what_bakehouse_env_exports_is_read_as_a_shell_reads_it() {
        let found = exported("export AMI_ID='ami-1'\nexport AMI_NAME='it'\\''s'\n# no\n");
        assert_eq!(found["AMI_ID"], "ami-1");
        assert_eq!(found["AMI_NAME"], "it's");
        assert_eq!(found.len(), 2);
    }
}
