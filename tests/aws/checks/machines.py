"""What the checks of instances and commands share: a disk with a root that runs a shell, an image of it, and waiting."""

import os
import shutil
import subprocess
import tempfile
import time

from .server import BLOCK, Case

BUSYBOX = "/usr/bin/busybox"
PROGRAMS = ("sh", "cat", "chmod", "echo", "env", "head", "hostname", "ls", "mkdir", "poweroff", "reboot", "rm", "sleep", "sync", "test", "yes")
# What a real root is needed for: mounts, loop devices, namespaces.
CAN_RUN = (
    os.geteuid() == 0
    and os.path.exists(BUSYBOX)
    and all(shutil.which(one) for one in ("mke2fs", "debugfs", "losetup", "sfdisk", "nsenter", "setpriv"))
)


def root_disk(path):
    """64 MiB of ext4 without a partition table: a root with busybox."""
    with tempfile.TemporaryDirectory() as root:
        for folder in ("bin", "etc", "usr/bin", "var", "tmp", "root"):
            os.makedirs(f"{root}/{folder}")
        shutil.copy(BUSYBOX, f"{root}/bin/busybox")
        for program in PROGRAMS:
            os.symlink("busybox", f"{root}/bin/{program}")
        with open(f"{root}/etc/os-release", "w", encoding="utf-8") as file:
            file.write("ID=small\n")
        made = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", root, path, "64M"]
        subprocess.run(made, check=True, capture_output=True)


class Machines(Case):
    _disk = None

    def setUp(self):
        super().setUp()
        self.ssm, self.iam, self.s3 = self.client("ssm"), self.client("iam"), self.client("s3")
        self.iam.create_role(RoleName="baker", AssumeRolePolicyDocument="{}")
        self.iam.create_instance_profile(InstanceProfileName="baker")
        self.iam.add_role_to_instance_profile(InstanceProfileName="baker", RoleName="baker")

    def bare_image(self, **given):
        """Of a disk with one block, which is enough for an instance that runs nothing."""
        with tempfile.NamedTemporaryFile() as disk:
            disk.write(b"b" * BLOCK)
            disk.flush()
            return self.post("seed", image={"name": "bare", "disk": disk.name, **given})

    def root_image(self):
        if Machines._disk is None:
            Machines._folder = tempfile.TemporaryDirectory()
            Machines._disk = os.path.join(Machines._folder.name, "root.raw")
            root_disk(Machines._disk)
        return self.post("seed", image={"name": "root", "disk": Machines._disk, "holes": True})

    def launched(self, image, **given):
        asked = dict(
            ImageId=image,
            InstanceType="t3.small",
            MinCount=1,
            MaxCount=1,
            IamInstanceProfile={"Name": "baker"},
            UserData="#!/bin/sh\n# installs amazon-ssm-agent\n",
        )
        return self.ec2.run_instances(**{**asked, **given})["Instances"][0]

    def instance(self, one):
        return self.ec2.describe_instances(InstanceIds=[one])["Reservations"][0]["Instances"][0]

    def until(self, question, *wanted, within=20):
        """Asks until the answer is one of those wanted, and gives it."""
        limit = time.monotonic() + within
        while (answer := question()) not in wanted:
            self.assertLess(time.monotonic(), limit, f"still {answer}")
            time.sleep(0.02)
        return answer

    def until_state(self, one, state):
        self.until(lambda: self.instance(one)["State"]["Name"], state)

    def pings(self, one):
        asked = [{"Key": "InstanceIds", "Values": [one]}]
        found = self.ssm.describe_instance_information(Filters=asked)["InstanceInformationList"]
        return found[0]["PingStatus"] if found else None

    def sent(self, one, *lines, timeout=None, **given):
        parameters = {"commands": list(lines), **({"executionTimeout": [str(timeout)]} if timeout else {})}
        command = self.ssm.send_command(
            InstanceIds=[one], DocumentName="AWS-RunShellScript", Parameters=parameters, **given
        )
        return command["Command"]["CommandId"]

    def invocation(self, one, command):
        limit = time.monotonic() + 20
        while time.monotonic() < limit:
            try:
                said = self.ssm.get_command_invocation(CommandId=command, InstanceId=one)
            except self.ssm.exceptions.InvocationDoesNotExist:
                continue
            if said["Status"] not in ("Pending", "InProgress"):
                return said
            time.sleep(0.02)
        self.fail("the command does not end")

    def ran(self, one, *lines, **given):
        return self.invocation(one, self.sent(one, *lines, **given))
