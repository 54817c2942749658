"""Manual approvals: an action of a pipeline that waits for a person.

Assumptions:
- An approval waits 7 days (documentation, "Manual approval actions"); then it fails with the code ActionTimedOut.
- Its token is in GetPipelineState as long as it waits. A token that is not that of the running action is invalid; without
  one that waits, the approval is completed already.
- A rejection fails the action with the code JobFailed and its summary as the message.
- No notification is sent."""

import uuid

from moto.codepipeline.responses import CodePipelineResponse
from moto.core.responses import ActionResult

from . import pipeline_executions as executions
from .errors import Refused

WAITS = 7 * 24 * 3600.0


def wait(action):
    action.token = str(uuid.uuid4())
    if not action.declared.get("timeoutInMinutes"):
        action.deadline = action.started + WAITS
    if action.configuration.get("CustomData"):
        action.tell(summary=action.configuration["CustomData"])


executions.RUNNERS[("AWS", "Approval", "Manual")] = wait


def put_approval_result(self):
    """PutApprovalResult."""
    name, stage, wanted = (self._get_param(key) for key in ("pipelineName", "stageName", "actionName"))
    result, token = self._get_param("result"), self._get_param("token")
    pipeline = executions.declared(self.current_account, self.region, name).pipeline
    names = [one["name"] for one in pipeline["stages"]]
    if stage not in names:
        raise Refused("StageNotFoundException", f"The pipeline {name} has no stage {stage}")
    number = names.index(stage)
    if wanted not in [one["name"] for one in pipeline["stages"][number]["actions"]]:
        raise Refused("ActionNotFoundException", f"The stage {stage} has no action {wanted}")
    found = executions.of_pipeline(self.current_account, self.region, name)
    asked = [one for execution in found for one in execution.of_stage(number) if one.name == wanted]
    waiting = [one for one in asked if one.token and one.status == "InProgress"]
    if not waiting and any(one.token == token for one in asked):
        raise Refused("ApprovalAlreadyCompletedException", "The approval action has already been approved or rejected")
    action = next((one for one in waiting if one.token == token), None)
    if action is None:
        raise Refused("InvalidApprovalTokenException", "The approval request token is not valid")
    now = action.execution.tenant.now()
    if result["status"] == "Approved":
        action.succeed(summary=result["summary"])
    else:
        action.fail("JobFailed", result["summary"] or "Rejected", summary=result["summary"])
    return ActionResult({"approvedAt": now})


def install(moto):
    moto.add(CodePipelineResponse, "put_approval_result", put_approval_result)
