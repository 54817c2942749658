//! What jobs of a pipeline, and the builds in them, need: the part of the table that is theirs.

use super::super::On;
use super::super::needs::Part::{Job, Variables, Worker};
use super::{Statement, call, implied};

const NO_JOB: &str = "SAR, AWS CodePipeline: the action has no resource type";

pub(super) const POLL: Statement = Statement {
    sid: "Poll",
    only: &[],
    grants: &[call(
        "codepipeline:PollForJobs",
        On::ActionTypes,
        &[Worker],
        "SAR, AWS CodePipeline: actiontype*",
    )],
};

/// Of one job, but without a resource that could say so; a job is taken by its nonce, and given one result.
pub(super) const JOBS: Statement = Statement {
    sid: "Jobs",
    only: &[],
    grants: &[
        call("codepipeline:AcknowledgeJob", On::Everything, &[Worker], NO_JOB),
        call("codepipeline:GetJobDetails", On::Everything, &[Job], NO_JOB),
        call("codepipeline:PutJobSuccessResult", On::Everything, &[Job], NO_JOB),
        call("codepipeline:PutJobFailureResult", On::Everything, &[Job], NO_JOB),
    ],
};

pub(super) const SECRETS: Statement = Statement {
    sid: "Secrets",
    only: &[],
    grants: &[implied(
        "secretsmanager:GetSecretValue",
        &["ssm:GetParameter"],
        On::Secrets,
        &[Variables],
        "Systems Manager user guide, \"Referencing AWS Secrets Manager secrets\", from memory (IAM-SECRETS)",
    )],
};
