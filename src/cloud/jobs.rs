//! Jobs of CodePipeline: what a pipeline wants done by somebody who asks for it, and how that somebody tells it what came of
//! it. A job carries secrets: credentials for its artifacts, and whatever its action's configuration calls secret. Neither
//! is ever shown.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Result;

/// `01234567-89ab-cdef-0123-456789abcdef`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct JobId(String);

impl JobId {
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let groups: Vec<&str> = text.split('-').collect();
        let good = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
            && groups.concat().bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        good.then(|| Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JobId {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        Self::parse(text).ok_or_else(|| {
            format!("`{text}` is no job's id; one looks like 01234567-89ab-cdef-0123-456789abcdef")
        })
    }
}

// Checked on the way in, as other ids are.
impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a custom action is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionCategory {
    Build,
    Test,
    Deploy,
}

impl ActionCategory {
    /// As CodePipeline names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Build => "Build",
            Self::Test => "Test",
            Self::Deploy => "Deploy",
        }
    }
}

/// A custom action type: whose jobs are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionType {
    pub category: ActionCategory,
    pub provider: String,
    pub version: String,
}

impl fmt::Display for ActionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/Custom/{}/{}", self.category.as_str(), self.provider, self.version)
    }
}

/// An action's configuration. Which of its values are secret only the action type knows: none is shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Configuration(pub BTreeMap<String, String>);

impl Configuration {
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// What a job's artifacts are read and written with, and nothing else.
#[derive(Clone, PartialEq, Eq)]
pub struct ArtifactCredentials {
    pub access_key: String,
    pub secret_key: String,
    pub session_token: String,
}

impl fmt::Debug for ArtifactCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ArtifactCredentials")
    }
}

/// An artifact that a job takes or is to give: a zip file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobArtifact {
    pub name: String,
    /// Of what comes in: a commit, or an object's version.
    pub revision: Option<String>,
    pub bucket: String,
    pub key: String,
}

/// Where in which pipeline a job is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipelineContext {
    pub pipeline: String,
    pub execution: String,
    pub stage: String,
    pub action: String,
}

#[derive(Clone, Debug)]
pub struct Job {
    pub id: JobId,
    pub configuration: Configuration,
    /// A Lambda function's event has none.
    pub context: Option<PipelineContext>,
    pub inputs: Vec<JobArtifact>,
    pub outputs: Vec<JobArtifact>,
    pub credentials: Option<ArtifactCredentials>,
    /// What the job before this one handed on.
    pub continuation: Option<String>,
    /// The key of KMS that what is put must be encrypted with; `None`: AWS's own for S3.
    pub key: Option<String>,
}

/// A job that nobody has taken yet.
#[derive(Clone, Debug)]
pub struct OfferedJob {
    pub job: Job,
    /// With this one, and no other, it can be taken.
    pub nonce: String,
}

/// A job's result: it was done, or this part of it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobSuccess {
    pub revision: Option<Revision>,
    /// With one the action goes on: a new job has it. At most 2048 characters. Then there are no variables.
    pub continuation: Option<String>,
    /// At most 2048 characters.
    pub summary: Option<String>,
    /// At most 1500 characters.
    pub external_id: Option<String>,
    /// 0 to 100.
    pub percent: Option<u8>,
    /// Names of letters, digits, `@`, `-` and `_`; at most 122,880 bytes in all.
    pub variables: BTreeMap<String, String>,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// At most 1500 characters.
    pub id: String,
    /// At most 100 characters.
    pub change: String,
    pub created: Option<Timestamp>,
    /// At most 2048 characters.
    pub summary: Option<String>,
}

/// Why a job failed, in CodePipeline's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobFailureKind {
    JobFailed,
    ConfigurationError,
    PermissionError,
    SystemUnavailable,
}

impl std::fmt::Display for JobFailureKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The names are CodePipeline's own.
        write!(f, "{self:?}")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFailure {
    pub kind: JobFailureKind,
    /// 1 to 5000 characters.
    pub message: String,
    /// At most 1500 characters.
    pub external_id: Option<String>,
}

#[async_trait]
pub trait Jobs: Send + Sync {
    /// `PollForJobs`: at most so many that wait for somebody.
    async fn poll(&self, of: &ActionType, most: usize) -> Result<Vec<OfferedJob>>;

    /// `AcknowledgeJob`: whether the job is the caller's now. One that another worker took is
    /// [`InUse`](super::ErrorKind::InUse).
    async fn acknowledge(&self, id: &JobId, nonce: &str) -> Result<bool>;

    /// `GetJobDetails`.
    async fn details(&self, id: &JobId) -> Result<Job>;

    /// `PutJobSuccessResult`. A job that has a result already, or timed out, is [`Exists`](super::ErrorKind::Exists).
    async fn succeed(&self, id: &JobId, success: &JobSuccess) -> Result<()>;

    /// `PutJobFailureResult`, likewise.
    async fn fail(&self, id: &JobId, failure: &JobFailure) -> Result<()>;

    /// The bucket's side of a job, with its own credentials.
    fn artifacts(&self, credentials: &ArtifactCredentials) -> Arc<dyn Artifacts>;
}

/// Artifacts of one job.
#[async_trait]
pub trait Artifacts: Send + Sync {
    /// `GetObject`, into a new file of at most so many bytes. Gives how many there are.
    async fn fetch(&self, artifact: &JobArtifact, into: &Path, most: u64) -> Result<u64>;

    /// `PutObject` of a file, encrypted with the key, or with AWS's own for S3.
    async fn store(&self, file: &Path, artifact: &JobArtifact, key: Option<&str>) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01234567-89ab-cdef-0123-456789abcdef";

    #[test]
    fn a_jobs_id_is_one_of_codepipelines() {
        assert_eq!(JobId::parse(ID).unwrap().as_str(), ID);
        for bad in
            ["", "0123", &ID.to_uppercase(), &ID.replace('-', ""), "01234567-89ab-cdef-0123-456789abcdeg"]
        {
            assert!(JobId::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn no_secret_of_a_job_is_shown() {
        let job = Job {
            id: JobId::parse(ID).unwrap(),
            configuration: Configuration(BTreeMap::from([("Token".to_owned(), "hunter2".to_owned())])),
            context: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            credentials: Some(ArtifactCredentials {
                access_key: "hunter2".to_owned(),
                secret_key: "hunter2".to_owned(),
                session_token: "hunter2".to_owned(),
            }),
            continuation: None,
            key: None,
        };
        let shown = format!("{:?}", OfferedJob { job, nonce: "1".to_owned() });
        assert!(shown.contains("Token") && !shown.contains("hunter2"), "{shown}");
    }
}
