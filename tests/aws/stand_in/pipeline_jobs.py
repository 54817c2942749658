"""CodePipeline's jobs: those of custom actions, which workers poll for, and those of Lambda functions, which are told theirs.

Assumptions:
- A poll dispatches a job with a nonce that counts the dispatches; one that nobody acknowledges is offered again after the
  setting `dispatch_seconds`.
- AcknowledgeJob by the nonce of the last dispatch makes a dispatched job InProgress, and says so again to whoever has that
  nonce; any other nonce is an InvalidNonceException. Of a job that has ended it tells the state.
- A result is taken of a job that is InProgress; else InvalidJobStateException. So is one of a job whose action was abandoned,
  or took too long: the job is TimedOut.
- A continuation token ends its job and makes another one of the same action, with the same configuration and artifacts.
- A job of a Lambda function is InProgress from the start; its function is nobody's here, but a test's.
- A success without its output artifacts in S3 is a success; the action that takes them fails.
- `Owner` other than Custom is a ValidationException."""

import uuid

from moto.codepipeline.responses import CodePipelineResponse
from moto.core.responses import ActionResult

from . import pipeline_artifacts as artifacts
from . import pipeline_executions as executions
from . import pipelines
from .errors import Refused
from .world import SETTINGS

# Seconds after which a job that was polled and not acknowledged is offered again.
SETTINGS.update({"dispatch_seconds": 60.0})
# Seconds from a continuation token until its new job is offered.
SETTINGS.update({"continuation_seconds": 0.0})

MOST_VARIABLES = 122_880
# Every job by its id.
_jobs = {}


class Job:
    def __init__(self, action, continuation=None):
        self.id = str(uuid.uuid4())
        self.action, self.continuation = action, continuation
        self.is_custom = action.kind[0] == "Custom"
        self.state = "Created" if self.is_custom else "InProgress"
        self.dispatches, self.dispatched = 0, None
        later = self.execution.tenant.settings["continuation_seconds"] if continuation else 0
        self.offered_from = self.execution.tenant.now() + later
        # What was handed out of credentials.
        self.secrets = []
        _jobs[self.id] = self
        action.when_taken_away.append(self.time_out)

    @property
    def execution(self):
        return self.action.execution

    def time_out(self):
        if self.state not in ("Succeeded", "Failed"):
            self.state = "TimedOut"

    def is_free(self, now):
        return (self.state == "Created" and now >= self.offered_from) or (self.state == "Dispatched" and now >= self.dispatched + self.execution.tenant.settings["dispatch_seconds"])

    def data(self):
        execution, action = self.execution, self.action
        own = artifacts.credentials(execution, [*action.inputs.values(), *action.outputs.values()])
        self.secrets += [own["secretAccessKey"], own["sessionToken"]]
        arn = f"arn:aws:codepipeline:{execution.region}:{execution.account}:{execution.name}"
        said = {
            "actionTypeId": action.declared["actionTypeId"],
            "actionConfiguration": {"configuration": action.configuration},
            "pipelineContext": {
                "pipelineName": execution.name,
                "stage": {"name": execution.pipeline["stages"][action.stage]["name"]},
                "action": {"name": action.name, "actionExecutionId": action.id},
                "pipelineArn": arn,
                "pipelineExecutionId": execution.id,
            },
            "inputArtifacts": [one.of_job() for one in action.inputs.values()],
            "outputArtifacts": [one.of_job() for one in action.outputs.values()],
            "artifactCredentials": own,
        }
        if self.continuation:
            said["continuationToken"] = self.continuation
        if artifacts.encryption_key(execution):
            said["encryptionKey"] = artifacts.encryption_key(execution)
        return said


def begin(action):
    """The runner of actions whose work is a job."""
    Job(action)


executions.RUNNERS[("AWS", "Invoke", "Lambda")] = begin
executions.RUNNERS[("Custom", None, None)] = begin


def job_of(self):
    executions.expire(self.current_account, self.region)
    job = _jobs.get(self._get_param("jobId"))
    if job is None or (job.execution.account, job.execution.region) != (self.current_account, self.region):
        raise Refused("JobNotFoundException", f"The job {self._get_param('jobId')} was not found")
    return job


def poll_for_jobs(self):
    """PollForJobs."""
    of, query = self._get_param("actionTypeId"), self._get_param("queryParam") or {}
    if of["owner"] != "Custom":
        raise Refused("ValidationException", "Only jobs of custom actions can be polled for")
    known = pipelines.type_of(self.current_account, self.region, of)
    if known is None:
        raise Refused("ActionTypeNotFoundException", f"The action type {'/'.join(of.values())} was not found")
    queryable = {one["name"] for one in known["actionConfigurationProperties"] if one.get("queryable")}
    if len(query) > 1 or set(query) - queryable:
        raise Refused("ValidationException", "queryParam: one property that is queryable")
    executions.expire(self.current_account, self.region)
    said = []
    for job in list(_jobs.values()):
        execution = job.execution
        mine = job.is_custom and (execution.account, execution.region) == (self.current_account, self.region)
        if len(said) >= (self._get_param("maxBatchSize") or 1) or not mine or job.action.declared["actionTypeId"] != of:
            continue
        asked_for = all(job.action.configuration.get(key) == value for key, value in query.items())
        if asked_for and job.is_free(execution.tenant.now()):
            job.state, job.dispatched = "Dispatched", execution.tenant.now()
            job.dispatches += 1
            said.append({"id": job.id, "nonce": str(job.dispatches), "accountId": execution.account, "data": job.data()})
    return ActionResult({"jobs": said})


def acknowledge_job(self):
    """AcknowledgeJob."""
    job = job_of(self)
    if job.dispatches == 0 or self._get_param("nonce") != str(job.dispatches):
        raise Refused("InvalidNonceException", "The nonce is not that of the job's last dispatch")
    if job.state == "Dispatched":
        job.state = "InProgress"
    return ActionResult({"status": job.state})


def get_job_details(self):
    """GetJobDetails."""
    job = job_of(self)
    return ActionResult({"jobDetails": {"id": job.id, "accountId": job.execution.account, "data": job.data()}})


def open_job(self):
    job = job_of(self)
    if job.state != "InProgress":
        raise Refused("InvalidJobStateException", f"The job {job.id} is {job.state}")
    return job


def put_job_success_result(self):
    """PutJobSuccessResult. Assumptions: a value counts as the bytes of its name and itself; what is wrong with it is found before
    the job's state is looked at."""
    token, variables = self._get_param("continuationToken"), self._get_param("outputVariables") or {}
    details, revision = self._get_param("executionDetails") or {}, self._get_param("currentRevision")
    if token and variables:
        raise Refused("ValidationException", "A result with a continuation token has no output variables")
    if sum(len(key.encode()) + len(value.encode()) for key, value in variables.items()) > MOST_VARIABLES:
        raise Refused("OutputVariablesSizeExceededException", f"Output variables have at most {MOST_VARIABLES} bytes")
    limits = [
        (token, 2048),
        (details.get("summary"), 2048),
        (details.get("externalExecutionId"), 1500),
        ((revision or {}).get("revision"), 1500),
        ((revision or {}).get("changeIdentifier"), 100),
        ((revision or {}).get("revisionSummary"), 2048),
    ]
    if any(text is not None and not 1 <= len(text) <= most for text, most in limits):
        raise Refused("ValidationException", "A text of the result is empty or too long")
    job = open_job(self)
    job.state = "Succeeded"
    told = {"summary": details.get("summary"), "external_id": details.get("externalExecutionId"), "percent": details.get("percentComplete")}
    if token:
        job.action.tell(**told)
        Job(job.action, token)
        return ActionResult({})
    if revision is not None:
        revision = {
            "revisionId": revision["revision"],
            "revisionChangeId": revision["changeIdentifier"],
            "created": revision.get("created") or job.execution.tenant.now(),
        }
    job.action.succeed(variables=variables, revision=revision, **told)
    return ActionResult({})


def put_job_failure_result(self):
    """PutJobFailureResult."""
    details = self._get_param("failureDetails")
    if not 1 <= len(details["message"]) <= 5000 or len(details.get("externalExecutionId") or "") > 1500:
        raise Refused("ValidationException", "A text of the failure is empty or too long")
    job = open_job(self)
    job.state = "Failed"
    job.action.fail(details["type"], details["message"], external_id=details.get("externalExecutionId"))
    return ActionResult({})


def told(account):
    """Every job of an account, the oldest first, for a test."""
    return [
        {
            "id": job.id,
            "state": job.state,
            "nonce": str(job.dispatches),
            "pipeline": job.execution.name,
            "execution": job.execution.id,
            "action": job.action.name,
            "continuation": job.continuation,
            "secrets": job.secrets,
        }
        for job in _jobs.values()
        if job.execution.account == account
    ]


def install(moto):
    for function in (poll_for_jobs, acknowledge_job, get_job_details, put_job_success_result, put_job_failure_result):
        moto.add(CodePipelineResponse, function.__name__, function)
