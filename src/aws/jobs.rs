//! Jobs, as CodePipeline keeps them, and their artifacts in S3. What a job carries of credentials is used for its artifacts
//! alone and never logged.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_sdk_codepipeline::types;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ServerSideEncryption;
use tokio::io::AsyncWriteExt;

use super::config::timeouts_of;
use super::place::AwsPlace;
use crate::cloud::{
    ActionCategory, ActionType, ArtifactCredentials, Artifacts, CloudError, Configuration, ErrorKind, Job,
    JobArtifact, JobFailure, JobFailureKind, JobId, JobSuccess, Jobs, OfferedJob, PipelineContext, Result,
    Revision,
};

const POLL: &str = "PollForJobs";
const ACKNOWLEDGE: &str = "AcknowledgeJob";
const DETAILS: &str = "GetJobDetails";
const SUCCEED: &str = "PutJobSuccessResult";
const FAIL: &str = "PutJobFailureResult";
const GET: &str = "GetObject";
const PUT: &str = "PutObject";
/// How long no byte of an artifact may come.
const STALLED: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(super) struct AwsJobs {
    here: AwsPlace,
    client: aws_sdk_codepipeline::Client,
    config: SdkConfig,
}

impl AwsJobs {
    pub(super) fn new(config: &SdkConfig, here: AwsPlace) -> Self {
        Self { here, client: aws_sdk_codepipeline::Client::new(config), config: config.clone() }
    }

    fn wrong(
        &self,
        operation: &'static str,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> CloudError {
        CloudError::new(ErrorKind::Invalid, operation, &self.here.place, "the request cannot be made")
            .with_source(error)
    }

    /// A job as an answer has it.
    fn job(&self, operation: &'static str, id: Option<&str>, data: Option<&types::JobData>) -> Result<Job> {
        let id = id.and_then(JobId::parse).ok_or_else(|| self.here.odd(operation, "no job's id"))?;
        let data = data.ok_or_else(|| self.here.odd(operation, "no data of the job"))?;
        let configuration = data.action_configuration().and_then(|of| of.configuration());
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let context = data.pipeline_context().map(|context| PipelineContext {
            pipeline: text(context.pipeline_name()),
            execution: text(context.pipeline_execution_id()),
            stage: text(context.stage().and_then(|stage| stage.name())),
            action: text(context.action().and_then(|action| action.name())),
        });
        let artifacts = |all: &[types::Artifact]| -> Result<Vec<JobArtifact>> {
            all.iter()
                .map(|one| {
                    artifact(one).ok_or_else(|| self.here.odd(operation, "an artifact that is nowhere"))
                })
                .collect()
        };
        Ok(Job {
            id,
            configuration: Configuration(
                configuration
                    .into_iter()
                    .flatten()
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect(),
            ),
            context,
            inputs: artifacts(data.input_artifacts())?,
            outputs: artifacts(data.output_artifacts())?,
            credentials: data.artifact_credentials().map(|of| ArtifactCredentials {
                access_key: of.access_key_id().to_owned(),
                secret_key: of.secret_access_key().to_owned(),
                session_token: of.session_token().to_owned(),
            }),
            continuation: data.continuation_token().map(str::to_owned),
            key: data.encryption_key().map(|key| key.id().to_owned()),
        })
    }
}

fn artifact(one: &types::Artifact) -> Option<JobArtifact> {
    let at = one.location()?.s3_location()?;
    Some(JobArtifact {
        name: one.name()?.to_owned(),
        revision: one.revision().map(str::to_owned),
        bucket: at.bucket_name().to_owned(),
        key: at.object_key().to_owned(),
    })
}

fn category(of: ActionCategory) -> types::ActionCategory {
    match of {
        ActionCategory::Build => types::ActionCategory::Build,
        ActionCategory::Test => types::ActionCategory::Test,
        ActionCategory::Deploy => types::ActionCategory::Deploy,
    }
}

fn failure_type(of: JobFailureKind) -> types::FailureType {
    match of {
        JobFailureKind::JobFailed => types::FailureType::JobFailed,
        JobFailureKind::ConfigurationError => types::FailureType::ConfigurationError,
        JobFailureKind::PermissionError => types::FailureType::PermissionError,
        JobFailureKind::SystemUnavailable => types::FailureType::SystemUnavailable,
    }
}

#[async_trait]
impl Jobs for AwsJobs {
    async fn poll(&self, of: &ActionType, most: usize) -> Result<Vec<OfferedJob>> {
        let kind =
            types::ActionTypeId::builder().category(category(of.category)).owner(types::ActionOwner::Custom);
        let kind = kind
            .provider(&of.provider)
            .version(&of.version)
            .build()
            .map_err(|error| self.wrong(POLL, error))?;
        let call = self
            .client
            .poll_for_jobs()
            .action_type_id(kind)
            .max_batch_size(i32::try_from(most).unwrap_or(i32::MAX));
        let answer = call.send().await.map_err(self.here.failed(POLL))?;
        let offered = answer.jobs().iter().map(|one| {
            let nonce = one.nonce().ok_or_else(|| self.here.odd(POLL, "a job without a nonce"))?.to_owned();
            Ok(OfferedJob { job: self.job(POLL, one.id(), one.data())?, nonce })
        });
        offered.collect()
    }

    async fn acknowledge(&self, id: &JobId, nonce: &str) -> Result<bool> {
        let sent = self.client.acknowledge_job().job_id(id.as_str()).nonce(nonce).send().await;
        let answer = sent.map_err(self.here.failed(ACKNOWLEDGE))?;
        Ok(answer.status() == Some(&types::JobStatus::InProgress))
    }

    async fn details(&self, id: &JobId) -> Result<Job> {
        let sent = self.client.get_job_details().job_id(id.as_str()).send().await;
        let answer = sent.map_err(self.here.failed(DETAILS))?;
        let found = answer.job_details().ok_or_else(|| self.here.odd(DETAILS, "no details"))?;
        self.job(DETAILS, found.id(), found.data())
    }

    async fn succeed(&self, id: &JobId, success: &JobSuccess) -> Result<()> {
        let JobSuccess { revision, continuation, summary, external_id, percent, variables } = success;
        let details = types::ExecutionDetails::builder()
            .set_summary(summary.clone())
            .set_external_execution_id(external_id.clone())
            .set_percent_complete(percent.map(i32::from))
            .build();
        let revision = revision.as_ref().map(|Revision { id, change, created, summary }| {
            let revision = types::CurrentRevision::builder().revision(id).change_identifier(change);
            let created = created.map(|time| aws_smithy_types::DateTime::from_secs(time.as_second()));
            revision.set_created(created).set_revision_summary(summary.clone()).build()
        });
        let revision = revision.transpose().map_err(|error| self.wrong(SUCCEED, error))?;
        let variables = (!variables.is_empty())
            .then(|| variables.iter().map(|(name, value)| (name.clone(), value.clone())).collect());
        let call = self.client.put_job_success_result().job_id(id.as_str()).execution_details(details);
        let call = call.set_current_revision(revision).set_continuation_token(continuation.clone());
        call.set_output_variables(variables).send().await.map(drop).map_err(self.here.failed(SUCCEED))
    }

    async fn fail(&self, id: &JobId, failure: &JobFailure) -> Result<()> {
        let details =
            types::FailureDetails::builder().r#type(failure_type(failure.kind)).message(&failure.message);
        let details = details.set_external_execution_id(failure.external_id.clone()).build();
        let details = details.map_err(|error| self.wrong(FAIL, error))?;
        let call = self.client.put_job_failure_result().job_id(id.as_str()).failure_details(details);
        call.send().await.map(drop).map_err(self.here.failed(FAIL))
    }

    fn artifacts(&self, credentials: &ArtifactCredentials) -> Arc<dyn Artifacts> {
        let ArtifactCredentials { access_key, secret_key, session_token } = credentials;
        let own = Credentials::new(access_key, secret_key, Some(session_token.clone()), None, "job");
        let provider = aws_credential_types::provider::SharedCredentialsProvider::new(own);
        let config = self.config.to_builder().credentials_provider(provider).build();
        Arc::new(AwsArtifacts(AwsPlace::new(&config, &self.here.place)))
    }
}

/// The place with a job's credentials. Whose the bucket is only the pipeline knows: it may be another account's.
#[derive(Clone, Debug)]
struct AwsArtifacts(AwsPlace);

impl AwsArtifacts {
    fn here(&self, kind: ErrorKind, operation: &'static str, what: &str, path: &Path) -> CloudError {
        CloudError::new(kind, operation, &self.0.place, format!("{what} {}", path.display()))
    }
}

#[async_trait]
impl Artifacts for AwsArtifacts {
    async fn fetch(&self, artifact: &JobArtifact, into: &Path, most: u64) -> Result<u64> {
        let JobArtifact { name, bucket, key, .. } = artifact;
        let sent = self.0.s3.get_object().bucket(bucket).key(key).send().await;
        let mut answer = sent.map_err(self.0.failed(GET))?;
        let large = || {
            let text = format!("the artifact {name} (s3://{bucket}/{key}) has more than {most} bytes");
            CloudError::new(ErrorKind::Invalid, GET, &self.0.place, text)
        };
        if answer.content_length().and_then(|size| u64::try_from(size).ok()).is_some_and(|size| size > most) {
            return Err(large());
        }
        let unwritten = |error| self.here(ErrorKind::Invalid, GET, "cannot write", into).with_source(error);
        let mut file = tokio::fs::File::create(into).await.map_err(unwritten)?;
        let mut bytes = 0;
        loop {
            let cut = |text: &str| {
                CloudError::new(
                    ErrorKind::Transient,
                    GET,
                    &self.0.place,
                    format!("the artifact {name} {text}"),
                )
            };
            let part = tokio::time::timeout(STALLED, answer.body.try_next())
                .await
                .map_err(|error| cut("did not come in time").with_source(error))?
                .map_err(|error| cut("broke off").with_source(error))?;
            let Some(part) = part else { break };
            bytes += part.len() as u64;
            if bytes > most {
                return Err(large());
            }
            file.write_all(&part).await.map_err(unwritten)?;
        }
        file.flush().await.map_err(unwritten)?;
        Ok(bytes)
    }

    async fn store(&self, file: &Path, artifact: &JobArtifact, key: Option<&str>) -> Result<()> {
        let unread = |error: std::io::Error| {
            self.here(ErrorKind::Invalid, PUT, "cannot read", file).with_source(error)
        };
        let size = tokio::fs::metadata(file).await.map_err(unread)?.len();
        let body = ByteStream::from_path(file).await.map_err(|error| unread(error.into()))?;
        let call = self.0.s3.put_object().bucket(&artifact.bucket).key(&artifact.key).body(body);
        let call = call
            .server_side_encryption(ServerSideEncryption::AwsKms)
            .set_ssekms_key_id(key.map(str::to_owned));
        let timeouts = aws_sdk_s3::Config::builder().timeout_config(timeouts_of(size));
        call.customize().config_override(timeouts).send().await.map(drop).map_err(self.0.failed(PUT))
    }
}
