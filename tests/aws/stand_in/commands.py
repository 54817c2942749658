"""SSM's Run Command: AWS-RunShellScript really runs, in the root of the instance (machine.py), and nowhere else.

What the agent does on an instance is told by its source and by what is seen of it in the field: the script lies below
/var/lib/amazon/ssm, output beyond the limit ends with `--output truncated--`, a failed script adds `failed to run commands:
exit status N` to its standard error, exit status 194 reboots and runs the script again.

Assumption: a command's answer is handed on by files below /var/lib/amazon/ssm, as amazon-ssm-agent does it
(common/filewatcherbasedipc/filewatcherchannel.go, agent/framework/processor/executer/outofproc). Its main process makes the
folder INSTANCE/channels/COMMAND; the process that ran the script writes its answer there, some time after the script has ended;
the main one reads it a little later, and removes the folder. Nobody makes the folder again: where it is gone the
command fails, with an answer that has nothing of what the script wrote, and nothing is uploaded."""

import base64
import json

import os
import re
import signal
import subprocess
import threading
import time
import uuid

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.models import ec2_backends
from moto.ssm.responses import SimpleSystemManagerResponse as SsmResponse

from .confinement import ENVIRONMENT
from .errors import Refused
from .instances import machine_of
from .world import SETTINGS, WORLD

SETTINGS.update(
    {
        # From the start of an instance until its agent is Online.
        "agent_seconds": 0.5,
        # From SendCommand until GetCommandInvocation knows of it, and until the agent begins.
        "invocation_seconds": 0.5,
        "delivery_seconds": 0.1,
        # From the end of a command until its output is in S3.
        "upload_seconds": 0.0,
        # From a script's end until the agent writes its answer, and again until it reads that.
        "report_seconds": 0.1,
        # Whether an image whose root has no agent, and whose user data does not install one, is Online all the same.
        "agent_everywhere": False,
    }
)

STDOUT_LIMIT, STDERR_LIMIT = 24000, 8000
TRUNCATED = "--output truncated--"
REBOOT = 194
DOCUMENT = "AWS-RunShellScript"
PLUGIN = "awsrunShellScript"
EXECUTION_TIMEOUT = re.compile(r"([1-9][0-9]{0,4})|(1[0-6][0-9]{4})|(17[0-1][0-9]{3})|(172[0-7][0-9]{2})|(172800)")
# Where distributions put the agent: its package, and Ubuntu's snap.
AGENTS = ("/usr/bin/amazon-ssm-agent", "/snap/amazon-ssm-agent", "/usr/local/bin/amazon-ssm-agent")
LOST = "document process failed unexpectedly: document worker timed out, check [ssm-document-worker] log for crash reason"
TERMINAL = {"Success", "Failed", "TimedOut", "Cancelled"}

# Every command by its id: {instance: Invocation}.
_commands = {}


def time_of(seconds):
    """A StringDateTime as its model's pattern allows it: one digit after the point (the agent itself writes three)."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(seconds)) + f"{int(seconds * 10) % 10}Z"


def agent_of(machine):
    """`Online`, `ConnectionLost`, or None where no agent ever registered.

    Assumptions: the agent is there if the image's root has it or the user data names `amazon-ssm-agent` (and so installs it:
    user data is not run here); it registers only with an instance profile, whose policies are not looked at; it is lost as
    soon as the instance does not run."""
    if machine is None or machine.facts["profile"] is None or machine.setting("machines") != "none":
        return None
    with machine.lock:
        if machine.state != "running" or machine.booted_at is None:
            return "ConnectionLost" if getattr(machine, "agent_seen", False) else None
        if time.monotonic() < machine.booted_at + machine.setting("agent_seconds"):
            return "ConnectionLost" if getattr(machine, "agent_seen", False) else None
        if not getattr(machine, "agent_seen", False):
            by_user_data = b"amazon-ssm-agent" in machine.user_data
            if not by_user_data and not machine.setting("agent_everywhere") and not machine.enter().has(*AGENTS):
                return None
            machine.agent_seen = True
    return "Online"


def machines_of(account, region):
    return [
        machine
        for reservation in list(ec2_backends[account][region].reservations.values())
        for instance in reservation.instances
        if (machine := machine_of(instance)) is not None
    ]


def describe_instance_information(self):
    """DescribeInstanceInformation: an instance is listed once its agent has registered.

    Assumptions: an id that is unknown is simply not listed; a terminated instance is listed no more."""
    wanted = {}
    for one in self._get_param("Filters") or []:
        wanted[one["Key"]] = one["Values"]
    for one in self._get_param("InstanceInformationFilterList") or []:
        wanted[one["key"]] = one["valueSet"]
    known = {"InstanceIds", "PingStatus", "PlatformTypes", "ResourceType", "AgentVersion"}
    for key in wanted:
        if key not in known and not key.startswith("tag:"):
            raise Refused("InvalidFilterKey", f"The filter key {key} is not valid")
    found = []
    for machine in machines_of(self.current_account, self.region):
        ping = agent_of(machine) if machine.state not in ("shutting-down", "terminated") else None
        if ping is None:
            continue
        said = {
            "InstanceId": machine.instance.id,
            "PingStatus": ping,
            "LastPingDateTime": time.time(),
            "AgentVersion": "3.3.3050.0",
            "IsLatestVersion": True,
            "PlatformType": "Linux",
            "PlatformName": "Linux",
            "PlatformVersion": "1",
            "ResourceType": "EC2Instance",
            "IPAddress": machine.facts["ip"],
            "ComputerName": "ip-" + machine.facts["ip"].replace(".", "-"),
        }
        tags = {tag["key"]: tag["value"] for tag in machine.instance.get_tags()}
        values = {"InstanceIds": "InstanceId", "PlatformTypes": "PlatformType"}
        if all(
            (tags.get(key[4:]) if key.startswith("tag:") else said[values.get(key, key)]) in of
            for key, of in wanted.items()
        ):
            found.append(said)
    return ActionResult({"InstanceInformationList": found})


class Invocation:
    """A command on one instance."""

    def __init__(self, command, machine, params):
        self.command, self.machine, self.params = command, machine, params
        self.status = self.details = "Pending"
        self.code = -1
        self.out, self.err = b"", b""
        self.requested = time.time()
        self.began = self.ended = None
        self.lost = False
        self.cancelled = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def key(self):
        prefix = (self.params["OutputS3KeyPrefix"] or "").strip("/")
        parts = [prefix, self.command, self.machine.instance.id, PLUGIN, f"0.{PLUGIN}"]
        return "/".join(part for part in parts if part)

    def _finish(self, status, details, code):
        self.ended = time.time()
        self.code, self.details, self.status = code, details, status

    def _run(self):
        try:
            self._deliver()
        except Exception as error:  # told as the stand-in's failure
            self.machine.tenant.find(f"command {self.command}: {type(error).__name__}: {error}")
            self._finish("Failed", "Failed", -1)

    def _deliver(self):
        time.sleep(self.machine.setting("delivery_seconds"))
        deadline = self.requested + self.params["TimeoutSeconds"]
        while True:
            if self.cancelled.is_set():
                return self._finish("Cancelled", "Cancelled", -1)
            if agent_of(self.machine) == "Online":
                break
            if time.time() > deadline:
                if self.machine.state in ("shutting-down", "terminated"):
                    return self._finish("Failed", "Undeliverable", -1)
                return self._finish("TimedOut", "DeliveryTimedOut", -1)
            time.sleep(0.05)
        self.began = time.time()
        self.status = self.details = "InProgress"
        while True:
            ended = self._execute()
            if ended is not None:
                break
        if self.lost:
            self.out, self.err = b"", LOST.encode()
            return self._finish("Failed", "Failed", 1)
        late = self.machine.setting("upload_seconds")
        if not late:
            self._upload()
        self._finish(*ended)
        if late:
            time.sleep(late)
            self._upload()

    def _execute(self):
        """Runs the script once. (status, details, code), or None where it is to run again after a reboot."""
        machine, boot = self.machine, self.machine.boots
        own = f"/var/lib/amazon/ssm/{machine.instance.id}"
        folder = f"{own}/document/orchestration/{self.command}/{PLUGIN}/0.{PLUGIN}"
        channel = f"{own}/channels/{self.command}"
        try:
            root = machine.enter()
            root.put(f"{channel}/master-000", b"{}")
            root.put(f"{folder}/_script.sh", "\n".join(self.params["commands"]).encode() + b"\n", 0o700)
        except OSError:
            # The machine may go down at any moment, this one too.
            if machine.boots == boot and machine.state == "running":
                raise
            return self._interrupted(boot)
        environment = {
            **ENVIRONMENT,
            "AWS_SSM_INSTANCE_ID": machine.instance.id,
            "AWS_SSM_REGION_NAME": machine.facts["region"],
        }
        place = self.params["workingDirectory"] or "/usr/bin"
        words = ["/bin/sh", "-c", 'cd "$1" && exec /bin/sh -c "$2"', "sh", place, f"{folder}/_script.sh"]
        names = [os.path.join(machine.folder, f"{self.command}.{stream}") for stream in ("out", "err")]
        with open(names[0], "ab") as out, open(names[1], "ab") as err:
            process = subprocess.Popen(
                root.command(words),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        limit, ended = time.monotonic() + self.params["executionTimeout"], None
        while process.poll() is None:
            if self.cancelled.is_set():
                ended = ("Cancelled", "Cancelled", -1)
            elif time.monotonic() > limit:
                ended = ("TimedOut", "ExecutionTimedOut", -1)
            if ended is not None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                break
            time.sleep(0.01)
        answer = self._handed_on(root, channel, names) if ended is None else None
        # The root may have gone under it: then its files have gone too, or the agent of the next boot takes it up again.
        self.out, self.err = answer or (read(name) for name in names)
        if ended is not None:
            return ended
        if machine.boots != boot or machine.state != "running":
            return self._interrupted(boot)
        self.lost = answer is None
        code = process.returncode if process.returncode >= 0 else -1
        if code == REBOOT:
            machine.reboot()
            return self._back()
        if code == 0:
            return "Success", "Success", 0
        text = f"failed to run commands: exit status {code}" if code > 0 else "failed to run commands: signal: killed"
        with open(names[1], "ab") as err:
            err.write(text.encode())
        self.err += text.encode()
        return "Failed", "Failed", code

    def _handed_on(self, root, channel, names):
        """What the script wrote, as it comes through the instance's own files; None where they do not let it through."""
        streams = [base64.b64encode(read(name)).decode() for name in names]
        time.sleep(self.machine.setting("report_seconds"))
        # No root that has gone is entered: its process's number may be another's by now.
        if self.machine.confinement is not root:
            return None
        # Without making the folder.
        words = root.command(["/bin/sh", "-c", 'cat >"$1/worker-000"', "sh", channel])
        subprocess.run(words, input=json.dumps(streams).encode(), capture_output=True, env=ENVIRONMENT, cwd="/")
        time.sleep(self.machine.setting("report_seconds"))
        said = root.get(f"{channel}/worker-000") if self.machine.confinement is root else None
        if said is None:
            return None
        words = root.command(["/bin/sh", "-c", 'busybox rm -rf "$1" || rm -rf "$1"', "sh", channel])
        subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, env=ENVIRONMENT, cwd="/")
        return [base64.b64decode(stream) for stream in json.loads(said)]

    def _interrupted(self, boot):
        """The instance went down under a script that had not said that it wants to run again.

        Assumption: after an unexpected reboot the agent reports the command as failed; of an instance that does not come back
        nothing is heard until the execution times out."""
        if self._back(self.params["executionTimeout"]) is None:
            return "Failed", "Failed", -1
        return "TimedOut", "ExecutionTimedOut", -1

    def _back(self, patience=600):
        """Waits for the agent of the next boot: None, or how it ended."""
        limit = time.monotonic() + patience
        while agent_of(self.machine) != "Online":
            # One that is terminated never comes back.
            over = self.machine.state == "terminated"
            if self.cancelled.wait(max(0, limit - time.monotonic()) if over else 0.05):
                return "Cancelled", "Cancelled", -1
            if time.monotonic() > limit:
                return "TimedOut", "ExecutionTimedOut", -1
        return None

    def _upload(self):
        """The whole of each stream to S3, as the agent does with the instance's role.

        Assumptions: a stream without a byte makes no object; a bucket that is missing or of another account loses it silently."""
        from moto.s3.models import s3_backends

        bucket, account = self.params["OutputS3BucketName"], self.machine.facts["account"]
        backend = s3_backends[account]["aws"]
        if not bucket or bucket not in backend.buckets:
            return
        for name, content in (("stdout", self.out), ("stderr", self.err)):
            if content:
                backend.put_object(bucket, f"{self.key}/{name}", content)

    def told(self):
        """As GetCommandInvocation has it.

        Assumptions: the streams show only when the script has ended; ExecutionElapsedTime is left out (AWS writes `PT0.1S`
        there, and nothing before the end, neither of which its own model allows)."""
        done = self.status in TERMINAL
        said = {
            "CommandId": self.command,
            "InstanceId": self.machine.instance.id,
            "Comment": self.params["Comment"],
            "DocumentName": DOCUMENT,
            "DocumentVersion": "$DEFAULT",
            "PluginName": "aws:runShellScript",
            "ResponseCode": self.code,
            "ExecutionStartDateTime": time_of(self.began) if self.began else None,
            "ExecutionEndDateTime": time_of(self.ended) if self.ended else None,
            "Status": self.status,
            "StatusDetails": self.details,
            "StandardOutputContent": limited(self.out, STDOUT_LIMIT) if done else "",
            "StandardErrorContent": limited(self.err, STDERR_LIMIT) if done else "",
            "StandardOutputUrl": "",
            "StandardErrorUrl": "",
        }
        if self.params["OutputS3BucketName"]:
            place = f"https://s3.{self.machine.facts['region']}.amazonaws.com/{self.params['OutputS3BucketName']}/{self.key}"
            said["StandardOutputUrl"], said["StandardErrorUrl"] = f"{place}/stdout", f"{place}/stderr"
        return {key: value for key, value in said.items() if value is not None}


def read(name):
    try:
        with open(name, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def limited(content, most):
    text = content.decode("utf-8", "replace")
    return text if len(text) <= most else text[: most - len(TRUNCATED)] + TRUNCATED


def send_command(self):
    """SendCommand of AWS-RunShellScript to instances by their ids.

    Assumptions: an instance whose agent is not Online is InvalidInstanceId for the whole call; the bucket for the output is
    not looked at."""
    get = self._get_param
    if get("DocumentName") != DOCUMENT:
        raise Refused("InvalidDocument", f"Document with name {get('DocumentName')} does not exist.")
    ids = get("InstanceIds") or []
    if get("Targets") or not ids:
        raise Refused("InvalidParameters", "The stand-in sends commands to InstanceIds alone, not to Targets")
    given = dict(get("Parameters") or {})
    commands = given.pop("commands", None)
    directory = (given.pop("workingDirectory", None) or [""])[0]
    limit = (given.pop("executionTimeout", None) or ["3600"])[0]
    if not commands or given:
        raise Refused("InvalidParameters", f"Parameters of {DOCUMENT}: commands (needed), workingDirectory, executionTimeout")
    if not EXECUTION_TIMEOUT.fullmatch(limit):
        raise Refused("InvalidParameters", f"executionTimeout: {limit} does not match {EXECUTION_TIMEOUT.pattern}")
    machines = {m.instance.id: m for m in machines_of(self.current_account, self.region)}
    for one in ids:
        if one not in machines or agent_of(machines[one]) != "Online":
            raise Refused("InvalidInstanceId", f"Instances [[{one}]] not in a valid state for account {self.current_account}")
    command = str(uuid.uuid4())
    params = {
        "commands": list(commands),
        "workingDirectory": directory,
        "executionTimeout": int(limit),
        "TimeoutSeconds": int(get("TimeoutSeconds") or 3600),
        "OutputS3BucketName": get("OutputS3BucketName") or "",
        "OutputS3KeyPrefix": get("OutputS3KeyPrefix") or "",
        "Comment": get("Comment") or "",
        "Parameters": get("Parameters"),
    }
    _commands[command] = {one: Invocation(command, machines[one], params) for one in ids}
    return ActionResult({"Command": told_command(command)})


def told_command(command):
    invocations = list(_commands[command].values())
    first = invocations[0]
    done = [i for i in invocations if i.status in TERMINAL]
    worst = next((i for i in invocations if i.status != "Success"), first)
    status = worst.status if len(done) == len(invocations) else "InProgress" if first.began else "Pending"
    said = {
        "CommandId": command,
        "DocumentName": DOCUMENT,
        "DocumentVersion": "$DEFAULT",
        "Comment": first.params["Comment"],
        "ExpiresAfter": first.requested + first.params["TimeoutSeconds"] + first.params["executionTimeout"],
        "Parameters": first.params["Parameters"],
        "InstanceIds": list(_commands[command]),
        "Targets": [],
        "RequestedDateTime": first.requested,
        "Status": status,
        "StatusDetails": status,
        "OutputS3Region": first.machine.facts["region"],
        "MaxConcurrency": "50",
        "MaxErrors": "0",
        "TargetCount": len(invocations),
        "CompletedCount": len(done),
        "ErrorCount": sum(i.status == "Failed" for i in invocations),
        "DeliveryTimedOutCount": sum(i.details == "DeliveryTimedOut" for i in invocations),
        "TimeoutSeconds": first.params["TimeoutSeconds"],
    }
    if first.params["OutputS3BucketName"]:
        said["OutputS3BucketName"] = first.params["OutputS3BucketName"]
        said["OutputS3KeyPrefix"] = first.params["OutputS3KeyPrefix"]
    return said


def invocations_of(self, command, instance=None):
    """A command's invocations that this account may see by now."""
    found = [
        i
        for i in _commands.get(command, {}).values()
        if i.machine.facts["account"] == self.current_account
        and i.machine.facts["region"] == self.region
        and instance in (None, i.machine.instance.id)
    ]
    return [i for i in found if time.time() >= i.requested + i.machine.setting("invocation_seconds")]


def get_command_invocation(self):
    """GetCommandInvocation. InvocationDoesNotExist for a moment after SendCommand (`invocation_seconds`)."""
    if self._get_param("PluginName") not in (None, "", "aws:runShellScript", PLUGIN):
        raise Refused("InvalidPluginName", f"The plugin {self._get_param('PluginName')} is none of the document's")
    found = invocations_of(self, self._get_param("CommandId"), self._get_param("InstanceId"))
    if not found:
        raise Refused("InvocationDoesNotExist", "")
    return ActionResult(found[0].told())


def list_command_invocations(self):
    """ListCommandInvocations. Assumption: with `Details` the first 2,500 characters of the output are there."""
    command = self._get_param("CommandId")
    found = invocations_of(self, command, self._get_param("InstanceId")) if command else []
    out = []
    for one in found:
        said = {
            "CommandId": one.command,
            "InstanceId": one.machine.instance.id,
            "Comment": one.params["Comment"],
            "DocumentName": DOCUMENT,
            "DocumentVersion": "$DEFAULT",
            "RequestedDateTime": one.requested,
            "Status": one.status,
            "StatusDetails": one.details,
            "CommandPlugins": [],
        }
        if self._get_param("Details"):
            plugin = {"Name": "aws:runShellScript", "Status": one.status, "StatusDetails": one.details}
            plugin["ResponseCode"] = one.code
            plugin["Output"] = limited(one.out + one.err, 2500) if one.status in TERMINAL else ""
            said["CommandPlugins"] = [plugin]
        out.append(said)
    return ActionResult({"CommandInvocations": out})


def list_commands(self):
    """ListCommands, by a command's id or all of the account."""
    wanted = self._get_param("CommandId")
    found = [c for c in _commands if wanted in (None, c) and invocations_of(self, c)]
    if wanted and not found:
        raise Refused("InvalidCommandId", "")
    return ActionResult({"Commands": [told_command(one) for one in found]})


def cancel_command(self):
    """CancelCommand: the script is killed where it runs. One that has ended stays as it is."""
    command = self._get_param("CommandId")
    if command not in _commands:
        raise Refused("InvalidCommandId", "")
    wanted = self._get_param("InstanceIds") or list(_commands[command])
    for one in wanted:
        if one not in _commands[command]:
            raise Refused("InvalidInstanceId", f"Instances [[{one}]] not in the command")
        _commands[command][one].cancelled.set()
    return EmptyResult()


def install(moto):
    for function in (send_command, get_command_invocation, list_commands):
        moto.replace(SsmResponse, function.__name__, function)
    for function in (describe_instance_information, list_command_invocations, cancel_command):
        moto.add(SsmResponse, function.__name__, function)
