"""The templates of cloudformation/, and what CloudFormation would make of one with given parameters, as far as they need it.

`python -m checks.templates TEMPLATE POLICY [NAME=VALUE...]` prints a policy of a template's role as JSON."""

import json
import re
import sys
from pathlib import Path

from cfnlint.decode import cfn_yaml

FOLDER = Path(__file__).parents[3] / "cloudformation"
# In this order they are deployed: each needs what comes before it.
ORDER = [
    "ecr-repository",
    "artifact-store",
    "codecommit",
    "codebuild-role",
    "codebuild-project",
    "codepipeline-role",
    "codepipeline",
    "vpc",
    "janitor",
    "worker",
]
PSEUDO = {
    "AWS::Partition": "aws",
    "AWS::Region": "us-east-1",
    "AWS::AccountId": "123456789012",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackId": "arn:aws:cloudformation:us-east-1:123456789012:stack/s/00000000-0000-0000-0000-0123456789ab",
}
DIGEST = "sha256:" + "0" * 64
NOTHING = object()


def load(name):
    return json.loads(json.dumps(cfn_yaml.load(str(FOLDER / f"{name}.yml"))))


class Stack:
    """A template with its parameters. A resource's Ref is `<Id>`, an attribute `<Id.Attribute>`, an import `<import NAME>`."""

    def __init__(self, name, template=None, **parameters):
        self.name, self.template = f"bakehouse-{name}", template or load(name)
        declared = self.template.get("Parameters", {})
        unknown = parameters.keys() - declared.keys()
        assert not unknown, f"{name} has no parameters {unknown}"
        if "ImageDigest" in declared:
            parameters.setdefault("ImageDigest", DIGEST)
        self.parameters = {key: self._parameter(key, one, parameters) for key, one in declared.items()}

    @staticmethod
    def _parameter(key, declared, given):
        value = str(given.get(key, declared.get("Default")))
        return value.split(",") if declared["Type"] == "CommaDelimitedList" else value

    def condition(self, name):
        return self._holds(self.template["Conditions"][name])

    def _holds(self, written):
        ((function, of),) = written.items()
        match function:
            case "Fn::Equals":
                return self.value(of[0]) == self.value(of[1])
            case "Fn::Not":
                return not self._holds(of[0])
            case "Fn::And":
                return all(map(self._holds, of))
            case "Fn::Or":
                return any(map(self._holds, of))
            case "Condition":
                return self.condition(of)
        raise NotImplementedError(function)

    def made(self, section):
        """Of the resources or outputs those whose condition holds, by their ids."""
        return {
            key: self.value(one)
            for key, one in self.template.get(section, {}).items()
            if "Condition" not in one or self.condition(one["Condition"])
        }

    def exports(self):
        return {output["Export"]["Name"]: output["Value"] for output in self.made("Outputs").values()}

    def imports(self):
        text = json.dumps([self.made("Resources"), self.made("Outputs")])
        return set(re.findall(r"<import ([^>]+)>", text))

    def policies(self, role="Role"):
        """Those that are written into a role, by their names."""
        properties = self.made("Resources")[role]["Properties"]
        return {one["PolicyName"]: one["PolicyDocument"] for one in properties["Policies"]}

    def value(self, written):
        if isinstance(written, list):
            return [value for value in map(self.value, written) if value is not NOTHING]
        if not isinstance(written, dict):
            return written
        if len(written) == 1:
            ((function, of),) = written.items()
            if function == "Ref":
                return self._ref(of)
            if function.startswith("Fn::"):
                return self._function(function, of)
        values = {key: self.value(value) for key, value in written.items() if key != "Condition" or not isinstance(value, str)}
        return {key: value for key, value in values.items() if value is not NOTHING}

    def _ref(self, name):
        if name == "AWS::NoValue":
            return NOTHING
        if name == "AWS::StackName":
            return self.name
        return PSEUDO.get(name) or self.parameters.get(name, f"<{name}>")

    def _function(self, function, of):
        match function:
            case "Fn::If":
                return self.value(of[1 if self.condition(of[0]) else 2])
            case "Fn::GetAtt":
                return f"<{of if isinstance(of, str) else '.'.join(of)}>"
            case "Fn::ImportValue":
                return f"<import {self.value(of)}>"
            case "Fn::Join":
                return of[0].join(self.value(of[1]))
            case "Fn::Split":
                return self.value(of[1]).split(of[0])
            case "Fn::Select":
                return self.value(of[1])[int(of[0])]
            case "Fn::Base64":
                return self.value(of)
            case "Fn::Sub":
                text, own = of if isinstance(of, list) else (of, {})
                return re.sub(r"\$\{([^!}]+)\}", lambda found: self._in_text(found[1], own), text)
        raise NotImplementedError(function)

    def _in_text(self, name, own):
        return self.value(own[name]) if name in own else self._ref(name)


if __name__ == "__main__":
    template, policy, *parameters = sys.argv[1:]
    print(json.dumps(Stack(template, **dict(one.split("=", 1) for one in parameters)).policies()[policy]))
