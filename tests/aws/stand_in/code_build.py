"""CodeBuild: a build really runs its buildspec (buildspec.py), turned to the root of its project's container image, in namespaces
of its own: of mounts and of processes, all of which end with the build. What it writes is its own, over the image's files.

Assumptions:
- The image of a project's environment is a folder with its files, which a test has named (`build_image` of seed.py). An image that
  nobody named fails the build in PROVISIONING. Of its settings nothing is known; PATH is Debian's.
- The network, /dev and /sys are the host's, as a container's in the privileged mode nearly are.
- Without the privileged mode a build lacks CAP_SYS_ADMIN, CAP_MKNOD and CAP_SYS_RAWIO; with it nothing.
- A build's credentials are a session of the project's role. They come from AWS_CONTAINER_CREDENTIALS_FULL_URI, since nobody has
  the address 169.254.170.2 here; AWS_ENDPOINT_URL leads to the stand-in, which no build of AWS has.
- Sources are CODEPIPELINE and S3: a zip file, unpacked without its modes.
- A stopped build, or one that is over its time, is killed outright, with all that it started; nothing more of it runs, and neither
  artifacts nor reports are taken (StopBuild's documentation says that it attempts to stop it, and no more).
- A build waits for no other one.
- An exported variable is the pipeline action's output variable. A build that fails fails its action with the code JobFailed, with
  the failed phase's message.
- The log is CloudWatch's in AWS; here a test asks for it by the id of the build (GET /stand-in/build)."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zipfile
from pathlib import Path

from moto.codebuild import responses
from moto.codebuild.models import CodeBuildBackend, codebuild_backends
from moto.codebuild.responses import CodeBuildResponse
from moto.core.responses import ActionResult
from moto.ssm.models import ssm_backends

from . import build_reports as reports
from . import ending, sessions
from . import pipeline_artifacts as artifacts
from . import pipeline_executions as executions
from .errors import Refused
from .world import WORLD

# Every build by its id, the oldest first.
_builds = {}
# (account, image) → the folder of its files
_images = {}
RUNNER = Path(__file__).with_name("buildspec.py")
# A build's root: WORK's `root` is the image at IMAGE, with what is written kept in memory, but for /var/tmp.
FURNISH = """set -eu
work=$1 image=$2 root=$1/root layers=$1/layers
shift 2
mkdir "$root" "$layers" "$work/var-tmp"
chmod 1777 "$work/var-tmp"
mount -t tmpfs -o mode=0755 tmpfs "$layers"
mkdir "$layers/upper" "$layers/work"
mount -t overlay -o "lowerdir=$image,upperdir=$layers/upper,workdir=$layers/work" overlay "$root"
mkdir -p "$root/$work"
mount --bind "$work" "$root/$work"
mount --bind "$work/var-tmp" "$root/var/tmp"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t proc proc "$root/proc"
cp --remove-destination /etc/resolv.conf /etc/hosts "$root/etc/"
exec "$@"
"""
PRIVILEGES = "-sys_admin,-mknod,-sys_rawio"
OVER = ("SUCCEEDED", "FAILED", "FAULT", "STOPPED", "TIMED_OUT")


def name_image(account, image, folder):
    """For a test: where the files of a container image are."""
    _images[(account, image)] = folder


class Build:
    def __init__(self, account, region, project, number, initiator, overrides, action=None):
        self.account, self.region, self.project, self.action = account, region, project, action
        self.tenant = WORLD.tenant(account)
        self.id = f"{project['name']}:{uuid.uuid4()}"
        self.number, self.initiator, self.overrides = number, initiator, overrides
        self.status, self.phases, self.exported, self.reports = "IN_PROGRESS", [], {}, []
        self.started, self.ended = self.tenant.now(), None
        self.version, self.resolved = overrides.get("sourceVersion") or project.get("sourceVersion"), None
        self.secret = str(uuid.uuid4())
        self.work = Path(tempfile.mkdtemp(prefix="codebuild-", dir=WORLD.folder))
        self.process, self.stopped = None, None
        _builds[self.id] = self

    @property
    def arn(self):
        return f"arn:aws:codebuild:{self.region}:{self.account}:build/{self.id}"

    def log(self):
        try:
            return (self.work / "log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def told(self):
        """As BatchGetBuilds has it."""
        environment = self.project["environment"]
        said = {
            "id": self.id,
            "arn": self.arn,
            "buildNumber": self.number,
            "startTime": self.started,
            "endTime": self.ended,
            "currentPhase": "COMPLETED" if self.ended else "BUILD",
            "buildStatus": self.status,
            "sourceVersion": self.version,
            "resolvedSourceVersion": self.resolved,
            "projectName": self.project["name"],
            "phases": [self._phase(one) for one in self.phases],
            "source": self.project["source"],
            "environment": environment,
            "serviceRole": self.project["serviceRole"],
            "timeoutInMinutes": self.project["timeoutInMinutes"],
            "buildComplete": self.ended is not None,
            "initiator": self.initiator,
            "exportedEnvironmentVariables": [{"name": name, "value": value} for name, value in self.exported.items()],
            "reportArns": [report["arn"] for report in self.reports],
        }
        return {key: value for key, value in said.items() if value is not None}

    @staticmethod
    def _phase(one):
        seconds = int(one["endTime"] - one["startTime"])
        return {**one, "durationInSeconds": seconds}

    def go(self):
        """Runs it, from a thread of its own."""
        from .app import one_at_a_time

        try:
            with one_at_a_time:
                job = self._prepare()
            if job is not None:
                self._run(job)
        except Exception as error:  # the stand-in's own failure: the test is told
            self.tenant.find(f"codebuild: the stand-in failed: {type(error).__name__}: {error}")
            self.phases.append(self._failed("PROVISIONING", str(error)))
        with one_at_a_time:
            self._over()

    def _failed(self, phase, message):
        now = time.time()
        context = {"statusCode": "CLIENT_ERROR", "message": message[:1000]}
        return {"phaseType": phase, "phaseStatus": "FAILED", "startTime": now, "endTime": now, "contexts": [context]}

    def _prepare(self):
        """Everything that the build is to find, or None where it fails before it begins."""
        if self._image() is None:
            self.phases.append(self._failed("PROVISIONING", f"cannot pull the image {self.project['environment']['image']}"))
            return None
        sources, self.version, self.resolved = self._sources()
        folders = {}
        for name, content in sources.items():
            folders[name] = self.work / f"src{len(folders)}" / "src"
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                archive.extractall(folders[name])
        primary = next(iter(folders))
        env = {
            "HOME": "/root",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            **self._own_variables(),
            **{f"CODEBUILD_SRC_DIR_{name}": str(folder) for name, folder in folders.items() if name != primary},
            "CODEBUILD_SRC_DIR": str(folders[primary]),
        }
        spec = self.overrides.get("buildspecOverride") or self.project["source"].get("buildspec") or "buildspec.yml"
        how = {"text": spec} if "\n" in spec else {"path": spec}
        root = str(self.work / "root")
        return {**how, "folder": str(folders[primary]), "root": root, "env": env, "artifacts": self._wanted()}

    def _image(self):
        return _images.get((self.account, self.project["environment"]["image"]))

    def _own_variables(self):
        environment = self.project["environment"]
        own = {
            "CI": "true",
            "BUILD_ARN": self.arn,
            "BUILD_ID": self.id,
            "BUILD_IMAGE": environment["image"],
            "BUILD_NUMBER": str(self.number),
            "BUILD_SUCCEEDING": "1",
            "BUILD_URL": f"https://{self.region}.console.aws.amazon.com/codebuild/home?region={self.region}#/builds/{self.id}/view/new",
            "INITIATOR": self.initiator,
            "KMS_KEY_ID": f"arn:aws:kms:{self.region}:{self.account}:alias/aws/s3",
            "RESOLVED_SOURCE_VERSION": self.resolved,
            "SOURCE_VERSION": self.version,
            "START_TIME": str(int(self.started * 1000)),
        }
        said = {f"CODEBUILD_{name}": value for name, value in own.items() if value is not None}
        address = f"{WORLD.address}/stand-in/credentials?account={self.account}&build={self.secret}"
        said |= {
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EXECUTION_ENV": "AWS_ECS_EC2",
            "AWS_ENDPOINT_URL": WORLD.address,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": address,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }
        given = {}
        for one in [*(environment.get("environmentVariables") or []), *(self.overrides.get("environmentVariablesOverride") or [])]:
            given[one["name"]] = self._value(one)
        return {**given, **said}

    def _value(self, one):
        kind = one.get("type", "PLAINTEXT")
        if kind == "PLAINTEXT":
            return one["value"]
        if kind != "PARAMETER_STORE":
            raise ValueError(f"a variable of {kind} is not emulated")
        found = dict.get(ssm_backends[self.account][self.region]._parameters, one["value"])
        if not found:
            raise ValueError(f"the parameter {one['value']} is not there")
        return found[-1].value

    def _sources(self):
        """Contents by name, the primary first; the version that was asked for, and what it came to."""
        source = self.project["source"]
        if source["type"] == "CODEPIPELINE":
            inputs, first = self.action.inputs, self.action.configuration.get("PrimarySource")
            names = sorted(inputs, key=lambda name: name != first)
            one = inputs[names[0]]
            version = f"arn:aws:s3:::{one.bucket}/{one.key}"
            return {name: inputs[name].read() for name in names}, version, one.revision
        if source["type"] != "S3":
            raise ValueError(f"a source of {source['type']} is not emulated")
        bucket, key = source["location"].split("/", 1)
        found = artifacts.object_of(self.account, bucket, key)
        version = found.version_id if found.version_id not in (None, "null") else None
        return {"source": found.value}, f"arn:aws:s3:::{bucket}/{key}", version

    def _wanted(self):
        """The artifacts that the build is to pack: of a pipeline's action with one output it is the primary one, else each is the
        secondary one of its name."""
        outputs = list(self.action.outputs) if self.action else []
        return [
            {"name": None if len(outputs) == 1 else name, "to": str(self.work / f"{name}.zip")}
            for name in outputs
        ]

    def _run(self, job):
        (self.work / "build.json").write_text(json.dumps(job))
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command += ["sh", "-c", FURNISH, "sh", str(self.work), self._image()]
        if not self.project["environment"].get("privilegedMode"):
            command += ["setpriv", "--bounding-set", PRIVILEGES, "--inh-caps", PRIVILEGES]
        command += [sys.executable, RUNNER, self.work]
        with open(self.work / "log", "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]}, start_new_session=True
            )
        if self.stopped:
            self.kill()
        minutes = self.project["timeoutInMinutes"]
        try:
            self.process.wait(minutes * 60)
        except subprocess.TimeoutExpired:
            self.stopped = "TIMED_OUT"
            self.kill()
            self.process.wait()
        if self.stopped:
            return
        said = json.loads((self.work / "said.json").read_text())
        self.phases += said["phases"]
        self.exported = said["exported"]
        for name, texts in said["reports"].items():
            self.reports.append(reports.take(self, name, texts))

    def kill(self):
        """Its namespace ends with its first process, and `unshare` when all of it has ended."""
        process = self.process.pid
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        os.kill(int(children[0]) if children else process, signal.SIGKILL)

    def _over(self):
        failed = [one for one in self.phases if one["phaseStatus"] != "SUCCEEDED"]
        self.status = self.stopped or ("FAILED" if failed else "SUCCEEDED")
        self.ended = self.tenant.now()
        action = self.action
        if action is not None and self.status == "SUCCEEDED":
            for name, artifact in action.outputs.items():
                artifact.put((self.work / f"{name}.zip").read_bytes())
            action.succeed(variables=dict(self.exported), external_id=self.id)
        elif action is not None:
            message = "Build terminated with state: " + self.status
            if failed:
                context = (failed[0]["contexts"] or [{"statusCode": "", "message": ""}])[0]
                message += f". Phase: {failed[0]['phaseType']}, Code: {context['statusCode']}, Message: {context['message']}"
            action.fail("JobFailed", message, external_id=self.id)
        for one in self.work.iterdir():
            if one.name != "log":
                shutil.rmtree(one, ignore_errors=True) if one.is_dir() else one.unlink()


def begin(account, region, project, initiator, overrides, action=None):
    number = 1 + sum(one.project is project for one in _builds.values())
    build = Build(account, region, project, number, initiator, overrides, action)
    threading.Thread(target=build.go, daemon=True).start()
    return build


def project_of(account, region, name):
    found = codebuild_backends[account][region].codebuild_projects.get(name)
    return found.project_metadata if found else None


def start_build(self):
    """StartBuild. Of what can be said in place of the project's the buildspec and variables are known."""
    name = self._get_param("projectName")
    project = project_of(self.current_account, self.region, name)
    if project is None:
        raise Refused("ResourceNotFoundException", f"Project cannot be found: {name}")
    if project["source"]["type"] == "CODEPIPELINE":
        raise Refused("InvalidInputException", "Cannot start a build of a project whose source is CODEPIPELINE")
    known = ("sourceVersion", "buildspecOverride", "environmentVariablesOverride")
    overrides = {one: self._get_param(one) for one in known}
    build = begin(self.current_account, self.region, project, f"AKIABAKE/{self.current_account}", overrides)
    return ActionResult({"build": build.told()})


def batch_get_builds(self):
    """BatchGetBuilds."""
    ids = self._get_param("ids")
    found = [_builds[one] for one in ids if one in _builds and _builds[one].account == self.current_account]
    there = {build.id for build in found}
    return ActionResult({"builds": [build.told() for build in found], "buildsNotFound": [one for one in ids if one not in there]})


def stop_build(self):
    """StopBuild. Assumption: one that is over is told as it is."""
    build = _builds.get(self._get_param("id"))
    if build is None or build.account != self.current_account:
        raise Refused("ResourceNotFoundException", f"Build {self._get_param('id')} does not exist")
    if build.status not in OVER and not build.stopped:
        build.stopped = "STOPPED"
        if build.process is not None:
            build.kill()
    return ActionResult({"build": build.told()})


def runner(action):
    """CodePipeline's action of CodeBuild (its action reference)."""
    execution, asked = action.execution, action.configuration
    project = project_of(execution.account, execution.region, asked["ProjectName"])
    if project is None:
        return action.fail("ConfigurationError", f"The project {asked['ProjectName']} does not exist")
    if len(action.inputs) > 1 and asked.get("PrimarySource") not in action.inputs:
        return action.fail("ConfigurationError", "PrimarySource is required where an action has several input artifacts")
    variables = json.loads(asked.get("EnvironmentVariables") or "[]")
    overrides = {"environmentVariablesOverride": variables}
    build = begin(execution.account, execution.region, project, f"codepipeline/{execution.name}", overrides, action)
    action.tell(external_id=build.id)


executions.RUNNERS[("AWS", "Build", "CodeBuild")] = runner
executions.RUNNERS[("AWS", "Test", "CodeBuild")] = runner


def credentials(asked):
    """What a build finds at the address of its credentials."""
    build = next((one for one in _builds.values() if one.secret == asked["build"]), None)
    if build is None or build.status in OVER:
        raise ValueError("no such build runs")
    role = sessions.of_role(build.account, build.region, build.project["serviceRole"], "AWSCodeBuild")
    return {
        "AccessKeyId": role.access_key_id,
        "SecretAccessKey": role.secret_access_key,
        "Token": role.session_token,
        "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600)),
        "RoleArn": build.project["serviceRole"],
    }


def told(asked):
    """A build for a test: as BatchGetBuilds has it, with its log, the cases of its reports and the folder that it had."""
    build = _builds[asked["id"]]
    return {**build.told(), "log": build.log(), "folder": str(build.work), "cases": [case for report in build.reports for case in report["cases"]]}


def _end():
    for build in _builds.values():
        if build.process is not None and build.process.poll() is None:
            build.kill()
        shutil.rmtree(build.work, ignore_errors=True)


def check_source(source):
    """CreateProject. Assumption: what a pipeline gives and takes has no location, and all else has one."""
    if source["type"] == "CODEPIPELINE":
        if "location" in source:
            raise Refused("InvalidInputException", "Invalid project source: location must not be specified for CODEPIPELINE")
        return
    source_of_moto(source)


def check_artifacts(wanted):
    if wanted["type"] != "CODEPIPELINE":
        artifacts_of_moto(wanted)


def create_project(self, timeout, queued_timeout, **given):
    """CreateProject. Assumption: a build may take an hour where nothing else is said."""
    return create_project_of_moto(self, timeout=timeout or 60, queued_timeout=queued_timeout or 480, **given)


def install(moto):
    global source_of_moto, artifacts_of_moto, create_project_of_moto
    create_project_of_moto = moto.replace(CodeBuildBackend, "create_project", create_project)
    source_of_moto = moto.replace(responses, "_validate_required_params_source", check_source)
    artifacts_of_moto = moto.replace(responses, "_validate_required_params_artifacts", check_artifacts)
    for function in (start_build, batch_get_builds, stop_build):
        moto.replace(CodeBuildResponse, function.__name__, function)
    ending.when_ending(_end)
