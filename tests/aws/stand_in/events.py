"""EventBridge: moto's rules, by which what happens here starts pipelines.

Assumptions:
- A rule starts each of its pipelines once for an event, with the trigger CloudWatchEvent, at once.
- The role of a target is not looked at.
- An input transformer's text gives `variables` and `sourceRevisions`; an event that is handed on as it is gives none."""

import json

from moto.events.models import Rule, events_backends
from moto.events.utils import EventTemplateParser

from . import pipeline_executions as executions


def tell(account, region, source, kind, resources, detail):
    """Something happened in an account."""
    backend = events_backends[account][region]
    entry = {"Source": source, "DetailType": kind, "Resources": resources, "Detail": json.dumps(detail)}
    backend.put_events([entry])


def send_to_targets(self, original_event, transform_input=True):
    """A rule's targets that are pipelines; all others are moto's."""
    if not self.event_pattern.matches_event(original_event) or self.state != "ENABLED":
        return
    others = []
    for target in self.targets:
        service, region, account, name = target["Arn"].split(":", 5)[2:6]
        if service != "codepipeline":
            others.append(target)
            continue
        transformer = target.get("InputTransformer")
        said = {}
        if transformer:
            said = EventTemplateParser.parse(transformer["InputTemplate"], transformer.get("InputPathsMap", {}), original_event)
        executions.start(account, region, name, "CloudWatchEvent", said.get("variables"), said.get("sourceRevisions"))
    own, self.targets = self.targets, others
    try:
        of_moto(self, original_event, transform_input)
    finally:
        self.targets = own


def install(moto):
    global of_moto
    of_moto = moto.replace(Rule, "send_to_targets", send_to_targets)
