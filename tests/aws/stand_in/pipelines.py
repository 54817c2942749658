"""CodePipeline's definitions: custom action types, and pipelines that are made of actions. What a pipeline does is in
pipeline_executions.py.

Assumptions:
- A custom action type that was deleted is gone at once, and its version can never be made again (documentation: "you must
  increase the version"); one that a pipeline uses may be deleted.
- Of AWS's own action types those are there that somebody runs here (`RUNNERS` of pipeline_executions.py); their artifacts and
  configuration are not checked by the definition.
- A secret value of an action's configuration is shown as five asterisks by GetPipeline and ListActionExecutions, and whole
  by the calls of jobs.
- A pipeline that is made is started at once (documentation, "Start a pipeline"), by the trigger CreatePipeline."""

import copy
import re

from moto.codepipeline.models import CodePipelineBackend
from moto.codepipeline.responses import CodePipelineResponse
from moto.core.responses import ActionResult

from . import pipeline_executions as executions
from .errors import Refused

MOST_TYPES = 50
MOST_STAGES, MOST_ACTIONS, MOST_ACTIONS_OF_A_STAGE = 50, 500, 50
CONFIGURATION_VALUE = 1000
HIDDEN = "*****"
NAME = re.compile(r"[A-Za-z0-9.@_-]{1,100}")

# (account, region) → {(category, provider, version): the type as it was made}
_types = {}
# Those that were deleted.
_past = set()


def types_of(account, region):
    return _types.setdefault((account, region), {})


def type_of(account, region, wanted):
    """A custom action type by an ActionTypeId, or None."""
    if wanted["owner"] != "Custom":
        return None
    return types_of(account, region).get((wanted["category"], wanted["provider"], wanted["version"]))


def invalid(message):
    return Refused("ValidationException", message)


def create_custom_action_type(self):
    """CreateCustomActionType. Assumptions: at most one property is `queryable`, and it is required and not secret
    (documentation of ActionConfigurationProperty); a `key` property is not secret; minimum counts are no larger than
    maximum ones; a type that exists is a ValidationException."""
    asked = {
        name: self._get_param(name)
        for name in ("category", "provider", "version", "settings", "configurationProperties", "inputArtifactDetails", "outputArtifactDetails", "tags")
    }
    key = (asked["category"], asked["provider"], asked["version"])
    known = types_of(self.current_account, self.region)
    if key in known or (self.current_account, self.region, *key) in _past:
        raise invalid(f"Action type {'/'.join(key)} already exists; increase its version")
    if len(known) >= MOST_TYPES:
        raise Refused("LimitExceededException", f"An account has at most {MOST_TYPES} custom actions")
    properties = asked["configurationProperties"] or []
    names = [one["name"] for one in properties]
    if len(names) > 10 or len(set(names)) != len(names):
        raise invalid("configurationProperties: at most 10, each with a name of its own")
    queryable = [one for one in properties if one.get("queryable")]
    if len(queryable) > 1 or any(one["secret"] or not one["required"] for one in queryable):
        raise invalid("configurationProperties: one may be queryable, which is required and not secret")
    if any(one["key"] and one["secret"] for one in properties):
        raise invalid("configurationProperties: a key is not secret")
    for details in (asked["inputArtifactDetails"], asked["outputArtifactDetails"]):
        if not 0 <= details["minimumCount"] <= details["maximumCount"] <= 5:
            raise invalid("artifact counts are 0 to 5, and the minimum is no larger than the maximum")
    made = {
        "id": {"category": key[0], "owner": "Custom", "provider": key[1], "version": key[2]},
        "settings": asked["settings"] or {},
        "actionConfigurationProperties": properties,
        "inputArtifactDetails": asked["inputArtifactDetails"],
        "outputArtifactDetails": asked["outputArtifactDetails"],
    }
    known[key] = made
    return ActionResult({"actionType": made, "tags": asked["tags"] or []})


def delete_custom_action_type(self):
    """DeleteCustomActionType. Assumption: one that is not there is fine."""
    key = tuple(self._get_param(name) for name in ("category", "provider", "version"))
    if types_of(self.current_account, self.region).pop(key, None) is not None:
        _past.add((self.current_account, self.region, *key))
    return ActionResult({})


def list_action_types(self):
    """ListActionTypes. Assumption: of AWS's own none are listed here."""
    if self._get_param("actionOwnerFilter") not in (None, "Custom"):
        return ActionResult({"actionTypes": []})
    return ActionResult({"actionTypes": list(types_of(self.current_account, self.region).values())})


def check(pipeline, account, region):
    """What CreatePipeline and UpdatePipeline refuse (documentation, "CodePipeline pipeline structure reference")."""

    def wrong(message, code="InvalidStructureException"):
        raise Refused(code, message)

    stages = pipeline["stages"]
    if not 2 <= len(stages) <= MOST_STAGES:
        wrong(f"Pipeline has {len(stages)} stage(s). There should be 2 to {MOST_STAGES}")
    if len({stage["name"] for stage in stages}) != len(stages):
        wrong("Stage names are unique")
    if sum(len(stage["actions"]) for stage in stages) > MOST_ACTIONS:
        wrong(f"A pipeline has at most {MOST_ACTIONS} actions")
    made, namespaces = set(), set()
    for number, stage in enumerate(stages):
        if not 1 <= len(stage["actions"]) <= MOST_ACTIONS_OF_A_STAGE:
            wrong(f"Stage {stage['name']} has {len(stage['actions'])} actions", "InvalidStageDeclarationException")
        if len({action["name"] for action in stage["actions"]}) != len(stage["actions"]):
            wrong(f"Action names of stage {stage['name']} are unique", "InvalidStageDeclarationException")
        for action in sorted(stage["actions"], key=lambda action: action.get("runOrder", 1)):
            check_action(action, number == 0, made, namespaces, account, region, wrong)


def check_action(action, first, made, namespaces, account, region, wrong):
    of, code, name = action["actionTypeId"], "InvalidActionDeclarationException", action["name"]
    known = type_of(account, region, of)
    runner = executions.runner_of((of["owner"], of["category"], of["provider"]))
    if runner is None or (of["owner"] == "Custom" and known is None):
        wrong(f"ActionType (Category: '{of['category']}', Provider: '{of['provider']}', Owner: '{of['owner']}', Version: '{of['version']}') in action '{name}' is not available", code)
    if (of["category"] == "Source") != first:
        wrong("Pipeline should start with a stage that only contains source actions, and no other has any")
    if not NAME.fullmatch(name) or not 1 <= action.get("runOrder", 1) <= 999:
        wrong(f"Action {name}: a name has 1 to 100 of A-Za-z0-9.@-_, a run order is 1 to 999", code)
    inputs = [one["name"] for one in action.get("inputArtifacts") or []]
    outputs = [one["name"] for one in action.get("outputArtifacts") or []]
    for one in inputs:
        if one not in made:
            wrong(f"Input Artifact Bundle {one} in action {name} is not declared as Output Artifact Bundle in any of the preceding actions")
    for one in outputs:
        if one in made:
            wrong(f"Output Artifact Bundle name must be unique within the pipeline. {one} is used more than once")
        made.add(one)
    namespace = action.get("namespace")
    if namespace is not None and (namespace in namespaces or namespace in ("codepipeline", "variables")):
        wrong(f"Namespace {namespace} is used already or reserved", code)
    namespaces.add(namespace)
    configuration = action.get("configuration") or {}
    for key, value in configuration.items():
        if not 1 <= len(value) <= CONFIGURATION_VALUE:
            wrong(f"Value of {key} in action {name} has 1 to {CONFIGURATION_VALUE} characters", code)
    if known is None:
        return
    for count, details, kind in ((len(inputs), known["inputArtifactDetails"], "input"), (len(outputs), known["outputArtifactDetails"], "output")):
        if not details["minimumCount"] <= count <= details["maximumCount"]:
            wrong(f"Action {name} has {count} {kind} artifacts, and its type takes {details['minimumCount']} to {details['maximumCount']}", code)
    properties = {one["name"]: one for one in known["actionConfigurationProperties"]}
    unknown = sorted(set(configuration) - set(properties))
    missing = sorted(name for name, one in properties.items() if one["required"] and name not in configuration)
    if unknown or missing:
        wrong(f"Action {name} configuration: unknown {unknown}, missing {missing}", code)


def masked(configuration, of, account, region):
    """A configuration as it is shown."""
    known = type_of(account, region, of)
    secret = {one["name"] for one in known["actionConfigurationProperties"] if one["secret"]} if known else set()
    return {key: HIDDEN if key in secret else value for key, value in (configuration or {}).items()}


def create_pipeline(self):
    """CreatePipeline: what is wrong with it is refused, the rest is moto's; then it starts."""
    pipeline = self._get_param("pipeline")
    check(pipeline, self.current_account, self.region)
    answer = create_pipeline_of_moto(self)
    executions.start(self.current_account, self.region, pipeline["name"], "CreatePipeline")
    return answer


def update_pipeline(self):
    check(self._get_param("pipeline"), self.current_account, self.region)
    return update_pipeline_of_moto(self)


def delete_pipeline(self):
    """DeletePipeline. Assumption: what it was doing is abandoned."""
    executions.forget(self.current_account, self.region, self._get_param("name"))
    return delete_pipeline_of_moto(self)


def get_pipeline(self, name):
    pipeline, metadata = get_pipeline_of_moto(self, name)
    shown = copy.deepcopy(pipeline)
    for stage in shown["stages"]:
        for action in stage["actions"]:
            action["configuration"] = masked(action.get("configuration"), action["actionTypeId"], self.account_id, self.region_name)
    return shown, metadata


def install(moto):
    global create_pipeline_of_moto, update_pipeline_of_moto, delete_pipeline_of_moto, get_pipeline_of_moto
    for function in (create_custom_action_type, delete_custom_action_type, list_action_types):
        moto.add(CodePipelineResponse, function.__name__, function)
    create_pipeline_of_moto = moto.replace(CodePipelineResponse, "create_pipeline", create_pipeline)
    update_pipeline_of_moto = moto.replace(CodePipelineResponse, "update_pipeline", update_pipeline)
    delete_pipeline_of_moto = moto.replace(CodePipelineResponse, "delete_pipeline", delete_pipeline)
    get_pipeline_of_moto = moto.replace(CodePipelineBackend, "get_pipeline", get_pipeline)
