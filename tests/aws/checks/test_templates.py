"""The templates of cloudformation/: by cfn-lint and the schemas that it carries, and by rules of our own. Each rule of ours gives
what it finds, so that `Broken` can see it find something. Nothing of this has met CloudFormation itself."""

import copy
import json
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

import cfnlint.api
import yaml
from cfnlint.config import ManualArgs
from cfnlint.schema import ResourceNotFoundError
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from .templates import FOLDER, ORDER, Stack, load

EXAMPLES = FOLDER.parent / "examples"
REGIONS = ["us-east-1", "eu-west-1"]
ALL = {name: load(name) for name in ORDER}
KEEPS_DATA = {
    "AWS::CodeCommit::Repository",
    "AWS::ECR::Repository",
    "AWS::KMS::Key",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
}
# AWS has no resource for these, or lists what is there.
ON_EVERYTHING = re.compile("ecr:GetAuthorizationToken|ec2:(Describe|Get)|servicequotas:List|codepipeline:.*Job")
# What each template takes in place of a stack, and with all of it needs none.
KEY = "arn:aws:kms:us-east-1:123456789012:key/k"
ROLE = "arn:aws:iam::123456789012:role/r"
IMAGE = {"RepositoryUri": "host/bakehouse", "RepositoryArn": "arn:aws:ecr:us-east-1:123456789012:repository/bakehouse"}
STORE = {"BucketName": "bucket", "KeyArn": KEY}
GIVEN = {
    "codebuild-role": {**STORE, "RepositoryArn": IMAGE["RepositoryArn"]},
    "codebuild-project": {"KeyArn": KEY, "RepositoryUri": IMAGE["RepositoryUri"], "RoleArn": ROLE},
    "codepipeline-role": {**STORE, "ProjectName": "bake", "RepositoryName": "web"},
    "codepipeline": {**STORE, "ProjectName": "bake", "RepositoryName": "web", "RoleArn": ROLE},
    "janitor": IMAGE,
    "worker": {**IMAGE, "VpcId": "vpc-1", "SubnetId": "subnet-1"},
}
CONNECTION = {"Source": "connection", "RepositoryName": "us/web"}
# What can be chosen of each: every choice is looked at.
CHOICES = {
    "artifact-store": [{}, {"KeyArn": KEY, "BucketName": "bucket"}],
    "codebuild-role": [{}, {"ImageKeyArn": KEY}, {"PolicyArn": "arn:aws:iam::123456789012:policy/p", "KeyArn": "none"}],
    "codebuild-project": [{}, {"KeyArn": "none", "Architecture": "arm64"}],
    "codepipeline-role": [{}, {"Source": "connection"}, {"KeyArn": "none"}],
    "codepipeline": [{}, CONNECTION, {"KeyArn": "none"}],
    "vpc": [{}, {"Endpoints": "yes"}],
    "janitor": [{}, {"Regions": "eu-west-1,us-east-1"}],
    "worker": [{}, {"ImageKeyArn": KEY, "MakeActionType": "no"}, {"Shell": "yes"}],
}


def lint(path):
    config = ManualArgs(regions=REGIONS, include_checks=["I"])
    return [str(match) for match in cfnlint.api.lint_file(path, config)]


def every_stack(templates):
    for name, template in templates.items():
        for choice in CHOICES.get(name, [{}]):
            yield name, Stack(name, template, **choice)


def resources(templates):
    for name, stack in every_stack(templates):
        for key, one in stack.made("Resources").items():
            yield f"{name}: {key}", one["Type"], one.get("Properties", {}), one


def schema(kind):
    return PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGIONS[0], kind).schema


def unknown(templates):
    for where, kind, properties, _ in resources(templates):
        try:
            known = schema(kind)["properties"]
        except ResourceNotFoundError:
            yield f"{where}: no {kind}"
        else:
            yield from (f"{where}: {kind} has no {key}" for key in properties if key not in known)


def untagged(templates):
    for where, kind, properties, _ in resources(templates):
        name = where.split(":")[0]
        wanted = {"bakehouse:template": name, "bakehouse:stack": f"bakehouse-{name}"}
        lists = [properties.get("Tags", [])] if "Tags" in schema(kind)["properties"] else []
        for part in (properties, properties.get("LaunchTemplateData", {})):
            if "TagSpecifications" in schema(kind)["properties"]:
                lists += [one["Tags"] for one in part.get("TagSpecifications", [])] or [[]]
        for tags in lists:
            # No other tag of ours: `bakehouse:bake` is swept, and what has a family is in reach of its bakes.
            ours = {tag["Key"]: tag["Value"] for tag in tags if tag["Key"].startswith("bakehouse:")}
            if ours != wanted:
                yield f"{where}: tagged {ours}"


def open_ports(templates):
    """A port is open on interface endpoints alone, and there for members of a group."""
    for name, stack in every_stack(templates):
        made = stack.made("Resources")
        of_endpoints = set()
        for one in made.values():
            if one["Type"] == "AWS::EC2::VPCEndpoint":
                of_endpoints.update(one["Properties"].get("SecurityGroupIds", []))
        others = json.dumps([one for one in made.values() if one["Type"] != "AWS::EC2::VPCEndpoint"])
        for key, one in made.items():
            if one["Type"].endswith("Ingress"):
                yield f"{name}: {key}"
            for rule in one.get("Properties", {}).get("SecurityGroupIngress", []):
                from_group = "SourceSecurityGroupId" in rule and not any(part.startswith("Cidr") for part in rule)
                if not from_group or f"<{key}>" not in of_endpoints or f"<{key}>" in others:
                    yield f"{name}: {key} lets in {rule}"


def documents(properties):
    for key in ("AssumeRolePolicyDocument", "KeyPolicy", "PolicyDocument", "RepositoryPolicyText"):
        if key in properties:
            yield key, properties[key]
    for one in properties.get("Policies", []):
        yield one["PolicyName"], one["PolicyDocument"]


def statements(templates):
    for where, _, properties, _ in resources(templates):
        for key, document in documents(properties):
            for statement in document["Statement"]:
                yield f"{where}: {key}", statement


def listed(value):
    return value if isinstance(value, list) else [value]


def open_principals(templates):
    for where, statement in statements(templates):
        principal = statement.get("Principal", {})
        names = listed(principal) if isinstance(principal, str) else [name for one in principal.values() for name in listed(one)]
        if "*" in names and (statement["Effect"] == "Allow" or "Condition" not in statement):
            yield f"{where}: {statement}"


def broad_rights(templates):
    for where, statement in statements(templates):
        if statement["Effect"] == "Deny" or "Principal" in statement:
            continue
        for action in listed(statement["Action"]):
            if re.fullmatch(r"\*|[a-z0-9-]+:\*", action):
                yield f"{where}: {action}"
            if "*" in listed(statement["Resource"]) and not ON_EVERYTHING.match(action):
                yield f"{where}: {action} on everything"


def open_buckets(templates):
    for name, stack in every_stack(templates):
        made = stack.made("Resources")
        for key, one in made.items():
            if one["Type"] != "AWS::S3::Bucket":
                continue
            properties, arn = one["Properties"], f"<{key}.Arn>"
            if list(properties.get("PublicAccessBlockConfiguration", {}).values()) != [True] * 4:
                yield f"{name}: {key} may be public"
            rules = properties.get("BucketEncryption", {}).get("ServerSideEncryptionConfiguration", [])
            if not any(rule["ServerSideEncryptionByDefault"].get("KMSMasterKeyID") for rule in rules):
                yield f"{name}: {key} is not encrypted with a key"
            policies = [
                other["Properties"]["PolicyDocument"]["Statement"]
                for other in made.values()
                if other["Type"] == "AWS::S3::BucketPolicy" and other["Properties"]["Bucket"] == f"<{key}>"
            ]
            tls = {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [arn, f"{arn}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
            if not any({**statement, "Sid": ""} == {**tls, "Sid": ""} for policy in policies for statement in policy):
                yield f"{name}: {key} is reached without TLS"


def unbounded(templates):
    for name, template in templates.items():
        boundary = "arn:aws:iam::123456789012:policy/boundary"
        bounded = {"PermissionsBoundary": boundary} if "PermissionsBoundary" in template["Parameters"] else {}
        for key, one in Stack(name, template, **bounded).made("Resources").items():
            if one["Type"] == "AWS::IAM::Role" and one["Properties"].get("PermissionsBoundary") != boundary:
                yield f"{name}: {key}"


def too_long(templates):
    """IAM takes 10,240 characters of all policies that are written into a role, white space not counted."""
    for where, kind, properties, _ in resources(templates):
        if kind == "AWS::IAM::Role":
            length = sum(len(json.dumps(one["PolicyDocument"], separators=(",", ":"))) for one in properties["Policies"])
            if length > 10_240:
                yield f"{where}: {length}"


def lost(templates):
    for where, kind, _, one in resources(templates):
        kept = one.get("DeletionPolicy") == "RetainExceptOnCreate" and one.get("UpdateReplacePolicy") == "Retain"
        if kind in KEEPS_DATA and not kept:
            yield where


def unclear_parameters(templates):
    for name, template in templates.items():
        for key, one in template["Parameters"].items():
            where = f"{name}: {key}"
            if not one.get("Description"):
                yield f"{where}: no description"
            if "Default" not in one and key != "ImageDigest":
                yield f"{where}: no default"
            bounded = {"AllowedValues", "MinValue", "MaxLength"} & one.keys() or one["Type"].startswith("AWS::")
            if not bounded and not {"AllowedPattern", "ConstraintDescription"} <= one.keys():
                yield f"{where}: takes anything"
            if "AllowedPattern" in one and "ConstraintDescription" not in one:
                yield f"{where}: its pattern is not told"


def unexported(templates):
    for name, template in templates.items():
        for key, one in template["Outputs"].items():
            if one.get("Export") != {"Name": {"Fn::Sub": f"${{AWS::StackName}}-{key}"}} or not one.get("Description"):
                yield f"{name}: {key}"


def missing_exports(templates):
    """Deployed one after the other with the same choices, each finds what it imports."""
    for source in ({}, CONNECTION):
        exports = set()
        for name, template in templates.items():
            chosen = {key: value for key, value in source.items() if key in template["Parameters"] and name.startswith("codepipeline")}
            stack = Stack(name, template, **chosen)
            yield from (f"{name}: {one}" for one in stack.imports() - exports)
            exports |= stack.exports().keys()


def must_be_made(templates):
    """What is there already can be given: nothing is imported then."""
    for name, template in templates.items():
        yield from (f"{name}: {one}" for one in Stack(name, template, **GIVEN.get(name, {})).imports())


def different_patterns(templates):
    """A parameter means the same everywhere, and takes the same."""
    seen = {}
    for name, template in templates.items():
        for key, one in template["Parameters"].items():
            # These are made by one template and given to others, which have an empty default, or are of several services.
            if key in ("KeyArn", "ProjectName", "RepositoryName"):
                continue
            meant = (one["Type"], one.get("AllowedPattern"), tuple(one.get("AllowedValues", [])))
            if seen.setdefault(key, meant) != meant:
                yield f"{name}: {key}"


RULES = [
    unknown,
    untagged,
    open_ports,
    open_principals,
    broad_rights,
    open_buckets,
    unbounded,
    too_long,
    lost,
    unclear_parameters,
    unexported,
    missing_exports,
    must_be_made,
    different_patterns,
]


class Templates(unittest.TestCase):
    def test_each_file_is_a_template_of_the_list(self):
        self.assertEqual(sorted(ORDER), sorted(path.stem for path in FOLDER.glob("*.y*ml")))

    def test_cfn_lint_finds_nothing(self):
        self.assertEqual([found for name in ORDER for found in lint(FOLDER / f"{name}.yml")], [])

    def test_the_artifacts_key_knows_the_roles_by_their_tags(self):
        key = Stack("artifact-store").made("Resources")["Key"]["Properties"]["KeyPolicy"]["Statement"][-1]
        names = key["Condition"]["StringEquals"]["aws:PrincipalTag/bakehouse:template"]
        using = [
            name
            for name in ORDER
            for one in Stack(name).made("Resources").values()
            if one["Type"] == "AWS::IAM::Role" and "bakehouse-artifact-store-KeyArn" in json.dumps(one)
        ]
        self.assertEqual(names, using)

    def test_no_rule_finds_anything(self):
        for rule in RULES:
            with self.subTest(rule.__name__):
                self.assertEqual(list(rule(ALL)), [])


class Broken(unittest.TestCase):
    """Each rule sees a template that breaks it."""

    def found(self, rule, name, change):
        templates = copy.deepcopy(ALL)
        change(templates[name])
        self.assertTrue(list(rule(templates)), f"{rule.__name__} does not see a broken {name}")

    def test_each_rule_finds_something(self):
        def properties(template, key):
            return template["Resources"][key]["Properties"]

        def statement(template, key, policy=0, number=0):
            return properties(template, key)["Policies"][policy]["PolicyDocument"]["Statement"][number]

        anywhere = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": "0.0.0.0/0"}
        from_group = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "SourceSecurityGroupId": "sg-1"}
        broken = [
            (unknown, "vpc", lambda t: t["Resources"]["Vpc"].update(Type="AWS::EC2::Vpc")),
            (unknown, "codecommit", lambda t: properties(t, "Repository").update(Names=["web"])),
            (untagged, "codebuild-project", lambda t: properties(t, "Project").pop("Tags")),
            (untagged, "worker", lambda t: properties(t, "LaunchTemplate").pop("TagSpecifications")),
            (untagged, "worker", lambda t: properties(t, "LaunchTemplate")["LaunchTemplateData"].pop("TagSpecifications")),
            (untagged, "worker", lambda t: properties(t, "Role")["Tags"].append({"Key": "bakehouse:family", "Value": "web"})),
            (untagged, "vpc", lambda t: properties(t, "S3")["Tags"][1].update(Value="worker")),
            (open_ports, "worker", lambda t: properties(t, "SecurityGroup").update(SecurityGroupIngress=[anywhere])),
            (open_ports, "worker", lambda t: properties(t, "SecurityGroup").update(SecurityGroupIngress=[from_group])),
            (open_ports, "vpc", lambda t: properties(t, "EndpointGroup").update(SecurityGroupIngress=[anywhere])),
            (open_ports, "vpc", lambda t: t["Resources"].update(In={"Type": "AWS::EC2::SecurityGroupIngress"})),
            (
                open_principals,
                "artifact-store",
                lambda t: properties(t, "BucketPolicy")["PolicyDocument"]["Statement"][0].pop("Condition"),
            ),
            (
                open_principals,
                "artifact-store",
                lambda t: properties(t, "Key")["KeyPolicy"]["Statement"][1].update(Principal={"AWS": "*"}),
            ),
            (broad_rights, "codebuild-role", lambda t: statement(t, "Role", 0, 2).update(Action=["s3:*"])),
            (broad_rights, "codepipeline", lambda t: statement(t, "PushRole").update(Resource="*")),
            (open_buckets, "artifact-store", lambda t: t["Resources"].pop("BucketPolicy")),
            (open_buckets, "artifact-store", lambda t: properties(t, "Bucket").pop("BucketEncryption")),
            (
                open_buckets,
                "artifact-store",
                lambda t: properties(t, "Bucket")["PublicAccessBlockConfiguration"].update(BlockPublicPolicy=False),
            ),
            (unbounded, "janitor", lambda t: properties(t, "ScheduleRole").pop("PermissionsBoundary")),
            (too_long, "worker", lambda t: statement(t, "Role").update(Sid="x" * 6_000)),
            (lost, "artifact-store", lambda t: t["Resources"]["Bucket"].pop("DeletionPolicy")),
            (lost, "artifact-store", lambda t: t["Resources"]["Key"].pop("UpdateReplacePolicy")),
            (unclear_parameters, "janitor", lambda t: t["Parameters"]["Schedule"].pop("Default")),
            (unclear_parameters, "janitor", lambda t: t["Parameters"]["Schedule"].pop("Description")),
            (unclear_parameters, "janitor", lambda t: t["Parameters"]["Schedule"].pop("AllowedPattern")),
            (unclear_parameters, "janitor", lambda t: t["Parameters"]["Schedule"].pop("ConstraintDescription")),
            (unexported, "vpc", lambda t: t["Outputs"]["SubnetId"].pop("Export")),
            (unexported, "vpc", lambda t: t["Outputs"]["SubnetId"]["Export"].update(Name="subnet")),
            (missing_exports, "vpc", lambda t: t["Outputs"].pop("SubnetId")),
            (missing_exports, "codepipeline-role", lambda t: t["Outputs"].pop("ConnectionArn")),
            (missing_exports, "janitor", lambda t: t["Parameters"]["RepositoryStack"].update(Default="ecr")),
            (must_be_made, "worker", lambda t: t["Conditions"].update(StacksVpc={"Fn::Equals": ["", ""]})),
            (different_patterns, "worker", lambda t: t["Parameters"]["Family"].update(AllowedPattern=".+")),
        ]
        for rule, name, change in broken:
            with self.subTest(f"{rule.__name__} of {name}"):
                self.found(rule, name, change)
        self.assertEqual({rule for rule, _, _ in broken}, set(RULES))

    def test_cfn_lint_finds_something(self):
        text = (FOLDER / "codecommit.yml").read_text()
        for old, new in [("RepositoryDescription: !Ref", "Description: !Ref"), ("Default: web", "Default: web.git")]:
            with self.subTest(new), tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
                self.assertIn(old, text)
                file.write(text.replace(old, new))
                file.flush()
                self.assertTrue(lint(Path(file.name)))


class Examples(unittest.TestCase):
    """What the examples declare by hand is what the templates make."""

    @staticmethod
    def declared(name):
        page = (EXAMPLES / "codebuild-stage/README.md").read_text()
        return json.loads(page.split(f"```json {name}\n")[1].split("```")[0])

    @classmethod
    def small(cls, value):
        """In the API's names, which begin with a small letter."""
        if isinstance(value, list):
            return [cls.small(one) for one in value]
        if isinstance(value, dict):
            return {key[0].lower() + key[1:]: cls.small(one) for key, one in value.items()}
        return value

    def test_the_project_is_the_examples(self):
        made = Stack("codebuild-project").made("Resources")["Project"]["Properties"]
        self.assertRegex(made["Environment"]["Image"], r"@sha256:[0-9a-f]{64}$")
        made, wanted = self.small(made), self.declared("project")
        self.assertEqual(made["source"], {"type": "CODEPIPELINE", "buildSpec": wanted["source"]["buildspec"]})
        for key in ("name", "artifacts", "timeoutInMinutes"):
            self.assertEqual(str(made[key]), str(wanted[key]))
        for key in ("type", "imagePullCredentialsType", "computeType", "privilegedMode"):
            self.assertEqual(made["environment"][key], wanted["environment"][key])

    def test_the_pipelines_stage_is_the_examples(self):
        for choice in ({}, CONNECTION):
            pipeline = Stack("codepipeline", **choice).made("Resources")["Pipeline"]["Properties"]
            self.assertEqual((pipeline["PipelineType"], pipeline["ExecutionMode"]), ("V2", "QUEUED"))
            source, bake = pipeline["Stages"]
            (action,), (wanted,) = bake["Actions"], self.declared("stage")["actions"]
            self.assertEqual(source["Actions"][0]["Namespace"], "SourceVariables")
            text = action["Configuration"]["EnvironmentVariables"]
            self.assertLessEqual(len(text), 1000)
            variables = json.loads(text)
            of_the_example = json.loads(wanted["configuration"]["EnvironmentVariables"])
            self.assertEqual(variables[: len(of_the_example)], of_the_example)
            used = set(re.findall(r"#\{variables\.(\w+)\}", text))
            self.assertEqual(used, {one["Name"] for one in pipeline["Variables"]})
            for key in ("name", "namespace", "inputArtifacts", "outputArtifacts", "actionTypeId"):
                self.assertEqual(self.small(action)[key], wanted[key])

    def test_a_push_to_codecommit_starts_the_pipeline_at_its_commit(self):
        made = Stack("codepipeline", BranchName="trunk").made("Resources")
        source = made["Pipeline"]["Properties"]["Stages"][0]["Actions"][0]
        self.assertEqual(source["Configuration"]["PollForSourceChanges"], "false")
        rule = made["Push"]["Properties"]
        self.assertEqual(rule["EventPattern"]["detail"]["referenceName"], ["trunk"])
        transformer = rule["Targets"][0]["InputTransformer"]
        self.assertEqual(list(transformer["InputPathsMap"]), re.findall("<(.+?)>", transformer["InputTemplate"]))
        revision = json.loads(transformer["InputTemplate"])["sourceRevisions"][0]
        self.assertEqual(revision["actionName"], source["Name"])
        self.assertNotIn("Push", Stack("codepipeline", **CONNECTION).made("Resources"))

    def test_the_action_type_is_the_examples(self):
        made = self.small(Stack("worker").made("Resources")["ActionType"]["Properties"])
        del made["tags"]
        self.assertEqual(made, json.loads((EXAMPLES / "worker/action-type.json").read_text()))


class Commands(unittest.TestCase):
    """What runs in the cloud, as far as it runs here."""

    def test_a_region_that_cannot_be_swept_fails_the_janitor_after_the_others(self):
        stack = Stack("janitor", Regions="eu-west-1,broken,us-east-1")
        project = stack.made("Resources")["Project"]["Properties"]
        (command,) = yaml.safe_load(project["Source"]["BuildSpec"])["phases"]["build"]["commands"]
        (regions,) = (one["Value"] for one in project["Environment"]["EnvironmentVariables"])
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder, "bakehouse")
            program.write_text('#!/bin/sh\necho "$@" && test "$3" != broken\n')
            program.chmod(0o755)

            def swept(regions):
                environment = {"PATH": f"{folder}:/usr/bin:/bin", "REGIONS": regions}
                said = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True)
                return said.returncode, said.stdout.split("\n")[:-1]

            wanted = ["sweep --region eu-west-1", "sweep --region broken", "sweep --region us-east-1"]
            self.assertEqual(swept(regions), (1, wanted))
            own = Stack("janitor").made("Resources")["Project"]["Properties"]["Environment"]["EnvironmentVariables"]
            self.assertEqual(swept(own[0]["Value"]), (0, ["sweep --region us-east-1"]))

    def test_the_workers_first_boot_is_bash_and_starts_this_digest(self):
        stack = Stack("worker", Jobs=3, RepositoryUri="host.example/bakehouse", Category="Test")
        data = stack.made("Resources")["LaunchTemplate"]["Properties"]["LaunchTemplateData"]["UserData"]
        self.assertEqual(subprocess.run(["bash", "-n"], input=data, text=True).returncode, 0)
        self.assertIn(f"host.example/bakehouse@{stack.parameters['ImageDigest']}", data)
        self.assertIn("--password-stdin host.example'", data)
        self.assertIn("bakehouse worker --category Test --provider Bakehouse --version 1 --jobs 3\n", data)
        self.assertNotIn("${", data)


class Page(unittest.TestCase):
    """cloudformation/README.md names what is there."""

    def test_its_commands_fit_the_templates(self):
        page = (FOLDER / "README.md").read_text().replace("\\\n", " ")
        deployed = re.findall(r"^deploy ([a-z-]+)(.*)$", page, re.MULTILINE)
        self.assertEqual([name for name, _ in deployed], [name for name in ORDER if name in dict(deployed)])
        self.assertEqual(set(dict(deployed)), set(ORDER))
        for name, rest in deployed:
            given = dict(re.findall(r"(\w+)=(\S+)", rest))
            self.assertLessEqual(given.keys(), ALL[name]["Parameters"].keys(), name)
            required = {key for key, one in ALL[name]["Parameters"].items() if "Default" not in one}
            self.assertLessEqual(required, given.keys(), name)

    def test_it_names_every_template_and_nothing_that_is_in_none(self):
        page = (FOLDER / "README.md").read_text()
        there = {key for template in ALL.values() for key in (*template["Parameters"], *template["Outputs"])}
        for name in ORDER:
            self.assertIn(f"[{name}]({name}.yml)", page)
        named = set(re.findall(r"`([A-Z][A-Za-z]+)(?:=[^`]*)?`", page))
        self.assertEqual(named - there, set())
