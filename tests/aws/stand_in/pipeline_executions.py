"""What a pipeline does: an execution goes through its stages, and a stage through its actions by their run order. Who runs an
action is the table RUNNERS: whoever has a kind of action puts a function there.

Everything here is called with app.one_at_a_time held; a runner's own thread takes it before it calls.

Assumptions:
- An action that fails lets those beside it end, and nothing after it begins.
- A stage is left when its last action has succeeded, and free then; a failed or stopped one is free too.
- In the mode QUEUED executions wait for a stage in their order; in SUPERSEDED the one that waits gives way to a newer one;
  in PARALLEL none waits.
- A variable that does not exist, and an input artifact that is not in S3, fail the action as it begins (code
  InvalidVariableReference, ConfigurationError).
- An action that takes too long fails with the code ActionTimedOut; a custom action may take 24 hours.
- A stopped execution that is not abandoned ends when its running actions have; an abandoned action takes no result.
- A failed execution ends at once, and is never retried by itself."""

import re
import uuid

from moto.codepipeline.models import codepipeline_backends
from moto.codepipeline.responses import CodePipelineResponse
from moto.core.responses import ActionResult

from . import pipeline_artifacts as artifacts
from .errors import Refused
from .world import SETTINGS, WORLD

# Seconds that a custom action, or one of a Lambda function, may take.
SETTINGS.update({"action_seconds": 24 * 3600.0})

# (owner, category, provider) → function(action), which begins an action and sooner or later calls its `succeed` or `fail`.
# With None for category and provider: all of an owner that have no line of their own.
RUNNERS = {}
# (account, region, pipeline) → [Execution], the oldest first
_executions = {}
REFERENCE = re.compile(r"#\{([A-Za-z0-9@_-]+)\.([A-Za-z0-9@_-]+)\}")


def runner_of(kind):
    """Who runs a kind of action, or None."""
    return RUNNERS.get(kind) or RUNNERS.get((kind[0], None, None))


class Action:
    """One execution of an action. What a runner has: the resolved `configuration`, `inputs` and `outputs` (artifacts by name),
    and how it ends."""

    def __init__(self, execution, stage, declared):
        self.execution, self.stage, self.declared = execution, stage, declared
        self.id = str(uuid.uuid4())
        self.status = "InProgress"
        self.started = self.updated = execution.tenant.now()
        minutes = declared.get("timeoutInMinutes")
        self.deadline = self.started + (minutes * 60 if minutes else execution.tenant.settings["action_seconds"])
        self.summary = self.external_id = self.percent = self.error = self.revision = None
        self.configuration, self.inputs, self.outputs, self.variables = {}, {}, {}, {}
        # Of an approval that is asked for.
        self.token = None
        # What is called when it ends by somebody else: abandoned, or too late.
        self.when_taken_away = []

    @property
    def name(self):
        return self.declared["name"]

    @property
    def kind(self):
        of = self.declared["actionTypeId"]
        return of["owner"], of["category"], of["provider"]

    def begin(self):
        try:
            given = self.declared.get("configuration") or {}
            self.configuration = {key: self.execution.resolve(value) for key, value in given.items()}
        except KeyError as missing:
            return self.fail("InvalidVariableReference", f"Valid format for a pipeline execution variable reference is a namespace and a key: {missing}")
        for one in self.declared.get("inputArtifacts") or []:
            found = self.execution.artifacts.get(one["name"])
            if found is None or not found.exists():
                return self.fail("ConfigurationError", f"The input artifact {one['name']} is not in the pipeline's bucket")
            self.inputs[one["name"]] = found
        for one in self.declared.get("outputArtifacts") or []:
            self.outputs[one["name"]] = artifacts.new(self.execution, one["name"])
        runner_of(self.kind)(self)

    def tell(self, summary=None, external_id=None, percent=None):
        """How far it is."""
        self.summary = summary or self.summary
        self.external_id = external_id or self.external_id
        self.percent = percent if percent is not None else self.percent
        self.updated = self.execution.tenant.now()

    def succeed(self, variables=None, revision=None, **told):
        if self.status != "InProgress":
            return
        self.tell(**told)
        self.status, self.variables, self.revision = "Succeeded", variables or {}, revision
        if self.declared.get("namespace"):
            self.execution.namespaces[self.declared["namespace"]] = self.variables
        self.execution.artifacts.update(self.outputs)
        self.execution.advance()

    def fail(self, code, message, **told):
        if self.status != "InProgress":
            return
        self.tell(**told)
        self.status, self.error = "Failed", {"code": code, "message": message[:5000]}
        self.execution.advance()

    def take_away(self, status, error=None):
        if self.status != "InProgress":
            return
        self.status, self.error, self.updated = status, error, self.execution.tenant.now()
        for told in self.when_taken_away:
            told()
        self.execution.advance()

    def latest(self):
        """As GetPipelineState has it."""
        said = {
            "actionExecutionId": self.id,
            "status": self.status,
            "summary": self.summary,
            "lastStatusChange": self.updated,
            "externalExecutionId": self.external_id,
            "percentComplete": self.percent,
            "token": self.token if self.status == "InProgress" else None,
            "errorDetails": self.error,
        }
        return {key: value for key, value in said.items() if value is not None}


class Execution:
    def __init__(self, account, region, pipeline, trigger, variables, revisions):
        self.account, self.region, self.pipeline = account, region, pipeline
        self.tenant = WORLD.tenant(account)
        self.id = str(uuid.uuid4())
        self.trigger, self.revisions = trigger, revisions or []
        self.status, self.reason, self.stopping = "InProgress", None, False
        self.started = self.updated = self.tenant.now()
        self.artifacts, self.actions, self.stage = {}, [], None
        given = {one["name"]: one["value"] for one in variables or []}
        self.variables = {}
        for one in pipeline.get("variables") or []:
            if one["name"] not in given and "defaultValue" not in one:
                raise Refused("ValidationException", f"The variable {one['name']} has no value")
            self.variables[one["name"]] = given.pop(one["name"], one.get("defaultValue"))
        if given:
            raise Refused("ValidationException", f"The pipeline has no variables {sorted(given)}")
        self.namespaces = {"codepipeline": {"PipelineExecutionId": self.id}, "variables": self.variables}

    @property
    def name(self):
        return self.pipeline["name"]

    @property
    def mode(self):
        return self.pipeline.get("executionMode", "SUPERSEDED")

    def resolve(self, text):
        return REFERENCE.sub(lambda found: self.namespaces[found[1]][found[2]], text)

    def running(self):
        return [action for action in self.actions if action.status == "InProgress"]

    def of_stage(self, number):
        return [action for action in self.actions if action.stage == number]

    def wants(self, number):
        """Enters a stage, or waits for it."""
        self.waits = number
        self.stage = None
        others = [one for one in all_of(self) if one is not self and one.status in ("InProgress", "Stopping")]
        if self.mode != "PARALLEL" and any(one.stage == number for one in others):
            if self.mode == "SUPERSEDED":
                for one in others:
                    if one.stage is None and one.waits == number:
                        one.end("Superseded")
            return
        self.waits, self.stage = None, number
        self.advance()

    waits = None

    def advance(self):
        """Begins what can begin, and ends what has ended."""
        if self.status not in ("InProgress", "Stopping") or self.stage is None:
            return
        here = self.of_stage(self.stage)
        running = [action for action in here if action.status == "InProgress"]
        if running:
            return
        if any(action.status == "Failed" for action in here):
            return self.end("Stopped" if self.stopping else "Failed")
        if self.stopping:
            return self.end("Stopped")
        declared = self.pipeline["stages"][self.stage]["actions"]
        begun = {action.name for action in here}
        left = [one for one in declared if one["name"] not in begun]
        if left:
            order = min(one.get("runOrder", 1) for one in left)
            beginning = [Action(self, self.stage, one) for one in left if one.get("runOrder", 1) == order]
            self.actions += beginning
            for action in beginning:
                if action.status == "InProgress":
                    action.begin()
            return
        if self.stage + 1 == len(self.pipeline["stages"]):
            return self.end("Succeeded")
        self.updated = self.tenant.now()
        self.wants(self.stage + 1)
        self.let_in()

    def end(self, status):
        self.status, self.stage, self.waits = status, None, None
        self.updated = self.tenant.now()
        self.let_in()

    def let_in(self):
        """Whoever waits for a stage that is free now enters it."""
        for one in all_of(self):
            if one.status == "InProgress" and one.stage is None and one.waits is not None:
                one.wants(one.waits)

    def stop(self, abandon, reason):
        self.stopping, self.status, self.reason = True, "Stopping", reason
        if abandon:
            for action in self.running():
                action.take_away("Abandoned")
        if not self.running() and self.status == "Stopping":
            self.end("Stopped")


def all_of(execution):
    return _executions.setdefault((execution.account, execution.region, execution.name), [])


def of_pipeline(account, region, name):
    """The executions of a pipeline, after what took too long has failed."""
    found = _executions.setdefault((account, region, name), [])
    for execution in found:
        for action in execution.running():
            if execution.tenant.now() > action.deadline:
                error = {"code": "ActionTimedOut", "message": f"The action {action.name} took longer than it may"}
                action.take_away("Failed", error)
    return found


def expire(account, region):
    for of_account, of_region, name in list(_executions):
        if (of_account, of_region) == (account, region):
            of_pipeline(account, region, name)


def declared(account, region, name):
    pipeline = codepipeline_backends[account][region].pipelines.get(name)
    if pipeline is None:
        raise Refused("PipelineNotFoundException", f"Account '{account}' does not have a pipeline with name '{name}'")
    return pipeline


def start(account, region, name, trigger, variables=None, revisions=None):
    """Starts a pipeline: an event or a source does so too, with a trigger of its own."""
    pipeline = declared(account, region, name).pipeline
    execution = Execution(account, region, pipeline, trigger, variables, revisions)
    all_of(execution).append(execution)
    execution.wants(0)
    return execution


def forget(account, region, name):
    for execution in _executions.pop((account, region, name), []):
        for action in execution.running():
            action.take_away("Abandoned")


def find(account, region, name, execution_id):
    declared(account, region, name)
    for execution in of_pipeline(account, region, name):
        if execution.id == execution_id:
            return execution
    raise Refused("PipelineExecutionNotFoundException", f"Pipeline '{name}' has no execution with id '{execution_id}'")


def start_pipeline_execution(self):
    """StartPipelineExecution. Assumption: the same clientRequestToken gives the same execution."""
    name, token = self._get_param("name"), self._get_param("clientRequestToken")
    declared(self.current_account, self.region, name)
    for execution in of_pipeline(self.current_account, self.region, name) if token else []:
        if getattr(execution, "token", None) == token:
            return ActionResult({"pipelineExecutionId": execution.id})
    given = self._get_param("variables"), self._get_param("sourceRevisions")
    execution = start(self.current_account, self.region, name, "StartPipelineExecution", *given)
    execution.token = token
    return ActionResult({"pipelineExecutionId": execution.id})


def stop_pipeline_execution(self):
    """StopPipelineExecution."""
    execution = find(self.current_account, self.region, self._get_param("pipelineName"), self._get_param("pipelineExecutionId"))
    abandon = bool(self._get_param("abandon"))
    if execution.status == "Stopping" and not abandon:
        raise Refused("DuplicatedStopRequestException", "The execution is being stopped already")
    if execution.status not in ("InProgress", "Stopping"):
        raise Refused("PipelineExecutionNotStoppableException", f"The execution is {execution.status}")
    execution.stop(abandon, self._get_param("reason"))
    return ActionResult({"pipelineExecutionId": execution.id})


def get_pipeline_execution(self):
    execution = find(self.current_account, self.region, self._get_param("pipelineName"), self._get_param("pipelineExecutionId"))
    revisions = [
        {"name": name, "revisionId": one.revision}
        for name, one in execution.artifacts.items()
        if one.revision is not None
    ]
    said = {
        "pipelineName": execution.name,
        "pipelineVersion": execution.pipeline["version"],
        "pipelineExecutionId": execution.id,
        "status": execution.status,
        "artifactRevisions": revisions,
        "variables": [{"name": name, "resolvedValue": value} for name, value in execution.variables.items()],
        "trigger": {"triggerType": execution.trigger, "triggerDetail": ""},
        "executionMode": execution.mode,
        "executionType": "STANDARD",
    }
    return ActionResult({"pipelineExecution": said})


def list_pipeline_executions(self):
    """ListPipelineExecutions, the newest first. Assumption: without a filter, and on one page."""
    name = self._get_param("pipelineName")
    declared(self.current_account, self.region, name)
    said = [
        {
            "pipelineExecutionId": one.id,
            "status": one.status,
            "startTime": one.started,
            "lastUpdateTime": one.updated,
            "trigger": {"triggerType": one.trigger, "triggerDetail": ""},
            "executionMode": one.mode,
            "executionType": "STANDARD",
            **({"stopTrigger": {"reason": one.reason}} if one.reason else {}),
        }
        for one in reversed(of_pipeline(self.current_account, self.region, name))
    ]
    return ActionResult({"pipelineExecutionSummaries": said[: self._get_param("maxResults") or 100]})


def get_pipeline_state(self):
    """GetPipelineState. Assumption: a stage shows the execution that entered it last."""
    name = self._get_param("name")
    pipeline = declared(self.current_account, self.region, name)
    found = of_pipeline(self.current_account, self.region, name)
    stages = []
    for number, stage in enumerate(pipeline.pipeline["stages"]):
        entered = [one for one in found if one.of_stage(number)]
        said = {"stageName": stage["name"], "inboundTransitionState": {"enabled": True}, "actionStates": []}
        waiting = [one for one in found if one.status == "InProgress" and one.waits == number]
        if waiting:
            inbound = [{"pipelineExecutionId": one.id, "status": "InProgress", "type": "STANDARD"} for one in waiting]
            said["inboundExecution"], said["inboundExecutions"] = inbound[0], inbound
        last = max(entered, key=lambda one: one.of_stage(number)[0].started) if entered else None
        if last is not None:
            said["latestExecution"] = {"pipelineExecutionId": last.id, "status": status_of_stage(last, number), "type": "STANDARD"}
        for declared_action in stage["actions"]:
            state = {"actionName": declared_action["name"]}
            for action in last.of_stage(number) if last else []:
                if action.name == declared_action["name"]:
                    state["latestExecution"] = action.latest()
                    if action.revision:
                        state["currentRevision"] = action.revision
            said["actionStates"].append(state)
        stages.append(said)
    metadata = {"created": pipeline._created.timestamp(), "updated": pipeline._updated.timestamp()}
    said = {"pipelineName": name, "pipelineVersion": pipeline.pipeline["version"], "stageStates": stages}
    return ActionResult({**said, **metadata})


def status_of_stage(execution, number):
    if execution.stage == number:
        return execution.status
    actions = execution.of_stage(number)
    if any(action.status == "Failed" for action in actions):
        return "Failed"
    return "Stopped" if any(action.status == "Abandoned" for action in actions) else "Succeeded"


def list_action_executions(self):
    """ListActionExecutions, the newest first. Assumption: on one page, without startTimeRange."""
    from . import pipelines

    name, wanted = self._get_param("pipelineName"), (self._get_param("filter") or {}).get("pipelineExecutionId")
    declared(self.current_account, self.region, name)
    found = of_pipeline(self.current_account, self.region, name)
    if wanted is not None and not any(one.id == wanted for one in found):
        raise Refused("PipelineExecutionNotFoundException", f"Pipeline '{name}' has no execution with id '{wanted}'")
    said = []
    for execution in found:
        for action in execution.actions if wanted in (None, execution.id) else []:
            of = action.declared["actionTypeId"]
            result = {
                "externalExecutionId": action.external_id,
                "externalExecutionSummary": action.summary,
                "errorDetails": action.error,
            }
            said.append(
                {
                    "pipelineExecutionId": execution.id,
                    "actionExecutionId": action.id,
                    "pipelineVersion": execution.pipeline["version"],
                    "stageName": execution.pipeline["stages"][action.stage]["name"],
                    "actionName": action.name,
                    "startTime": action.started,
                    "lastUpdateTime": action.updated,
                    "status": action.status,
                    "input": {
                        "actionTypeId": of,
                        "configuration": pipelines.masked(action.declared.get("configuration"), of, execution.account, execution.region),
                        "resolvedConfiguration": pipelines.masked(action.configuration, of, execution.account, execution.region),
                        "region": execution.region,
                        "inputArtifacts": [one.located() for one in action.inputs.values()],
                    },
                    "output": {
                        "outputArtifacts": [one.located() for one in action.outputs.values() if action.status == "Succeeded"],
                        "executionResult": {key: value for key, value in result.items() if value is not None},
                        "outputVariables": action.variables,
                    },
                }
            )
    said.reverse()
    return ActionResult({"actionExecutionDetails": said[: self._get_param("maxResults") or 100]})


def install(moto):
    for function in (start_pipeline_execution, get_pipeline_execution, list_pipeline_executions):
        moto.replace(CodePipelineResponse, function.__name__, function)
    for function in (stop_pipeline_execution, get_pipeline_state, list_action_executions):
        moto.add(CodePipelineResponse, function.__name__, function)
