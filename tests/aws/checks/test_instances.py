"""Instances: what RunInstances refuses, their states, and what goes with them."""

import shutil
import tempfile
import unittest

from .machines import Machines
from .server import BLOCK

# A boot sector: writes its text to the first serial port and turns the power off (ACPI, as SeaBIOS sets it up for `pc`).
SECTOR = bytes.fromhex("fa31c08ed8be1e7cfcac84c07406baf803eeebf5ba0406b80020eff4ebfd")


class Launching(Machines):
    def test_what_cannot_be_launched_is_refused_and_leaves_nothing(self):
        image = self.bare_image()["image"]
        bad = {
            "InvalidAMIID.NotFound": dict(image="ami-0123456789abcdef0"),
            "InvalidSubnetID.NotFound": dict(image=image, SubnetId="subnet-0123456789abcdef0"),
            "InvalidGroup.NotFound": dict(image=image, SecurityGroupIds=["sg-0123456789abcdef0"]),
            "InvalidParameterValue": dict(image=image, UserData="x" * 16385),
            "DryRunOperation": dict(image=image, DryRun=True),
        }
        for code, given in bad.items():
            self.refused(code, self.launched, **given)
        said = self.refused("InvalidParameterValue", self.launched, image=image, InstanceType="m6g.large")
        self.assertIn("architecture", said["Error"]["Message"])
        said = self.refused("InvalidParameterValue", self.launched, image=image, IamInstanceProfile={"Name": "no"})
        self.assertIn("Invalid IAM Instance Profile name", said["Error"]["Message"])
        state = self.get("state")
        self.assertEqual((state["instances"], state["volumes"], state["interfaces"]), ({}, {}, {}))

    def test_a_type_without_capacity_is_refused_as_ec2_does_it_and_the_next_one_launches(self):
        image = self.bare_image()["image"]
        self.post("settings", settings={"no_capacity": ["t3.small"], "no_quota": ["t3.large"]})
        said = self.refused("InsufficientInstanceCapacity", self.launched, image=image)
        self.assertEqual(said["ResponseMetadata"]["HTTPStatusCode"], 500)
        self.refused("VcpuLimitExceeded", self.launched, image=image, InstanceType="t3.large")
        self.launched(image, InstanceType="t3a.small")

    def test_a_token_launches_once(self):
        image = self.bare_image()["image"]
        one = self.launched(image, ClientToken="token")
        self.assertEqual(self.launched(image, ClientToken="token")["InstanceId"], one["InstanceId"])
        self.refused("IdempotentParameterMismatch", self.launched, image=image, ClientToken="token", InstanceType="t3.large")
        self.assertEqual(len(self.get("state")["instances"]), 1)

    def test_the_image_and_the_request_say_what_it_is(self):
        image = self.bare_image(fields={"ImdsSupport": "v2.0", "BootMode": "uefi"})["image"]
        tags = [
            {"ResourceType": kind, "Tags": [{"Key": "bakehouse:bake", "Value": kind}]}
            for kind in ("instance", "volume", "network-interface")
        ]
        one = self.launched(
            image,
            TagSpecifications=tags,
            BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 9}}],
            InstanceInitiatedShutdownBehavior="terminate",
        )
        self.assertEqual(one["MetadataOptions"]["HttpTokens"], "required")
        self.assertEqual(one["CurrentInstanceBootMode"], "uefi")
        self.assertEqual(one["State"]["Name"], "pending")
        self.until_state(one["InstanceId"], "running")
        state = self.get("state")
        (volume,), (interface,) = state["volumes"].values(), state["interfaces"].values()
        self.assertEqual((volume["size"], volume["tags"]), (9, {"bakehouse:bake": "volume"}))
        self.assertEqual(interface["tags"], {"bakehouse:bake": "network-interface"})
        small = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": "snap-0123456789abcdef0"}}]
        self.refused("InvalidSnapshot.NotFound", self.launched, image=image, BlockDeviceMappings=small)

    def test_a_terminated_instance_takes_volume_and_interface_along_and_is_seen_for_a_while(self):
        one = self.launched(self.bare_image()["image"])["InstanceId"]
        self.until_state(one, "running")
        said = self.ec2.terminate_instances(InstanceIds=[one])["TerminatingInstances"][0]
        self.assertEqual((said["PreviousState"]["Name"], said["CurrentState"]["Name"]), ("running", "shutting-down"))
        self.until_state(one, "terminated")
        self.assertEqual(self.instance(one)["StateReason"]["Code"], "Client.UserInitiatedShutdown")
        state = self.get("state")
        self.assertEqual((state["volumes"], state["interfaces"]), ({}, {}))
        self.ec2.terminate_instances(InstanceIds=[one])
        self.refused("IncorrectInstanceState", self.ec2.stop_instances, InstanceIds=[one])
        self.post("tick", seconds=3700)
        self.refused("InvalidInstanceID.NotFound", self.ec2.describe_instances, InstanceIds=[one])

    def test_a_spot_instance_has_a_request_and_cannot_be_stopped_unless_that_is_persistent(self):
        image = self.bare_image()["image"]
        one = self.launched(image, InstanceMarketOptions={"MarketType": "spot"})
        self.until_state(one["InstanceId"], "running")
        asked = dict(SpotInstanceRequestIds=[one["SpotInstanceRequestId"]])
        request = self.ec2.describe_spot_instance_requests(**asked)["SpotInstanceRequests"][0]
        self.assertEqual((request["State"], request["InstanceId"]), ("active", one["InstanceId"]))
        self.refused("UnsupportedOperation", self.ec2.stop_instances, InstanceIds=[one["InstanceId"]])
        self.ec2.terminate_instances(InstanceIds=[one["InstanceId"]])
        self.until_state(one["InstanceId"], "terminated")
        request = self.ec2.describe_spot_instance_requests(**asked)["SpotInstanceRequests"][0]
        self.assertEqual(request["State"], "closed")
        options = {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"}
        two = self.launched(image, InstanceMarketOptions={"MarketType": "spot", "SpotOptions": options})["InstanceId"]
        self.until_state(two, "running")
        self.ec2.stop_instances(InstanceIds=[two])
        self.until_state(two, "stopped")

    def test_a_key_that_cannot_be_used_ends_the_instance_later(self):
        kms = self.client("kms")
        key = kms.create_key()["KeyMetadata"]
        kms.disable_key(KeyId=key["KeyId"])
        ebs = {"VolumeSize": 8, "Encrypted": True, "KmsKeyId": key["Arn"]}
        one = self.launched(
            self.bare_image()["image"], BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": ebs}]
        )["InstanceId"]
        self.until_state(one, "terminated")
        self.assertEqual(self.instance(one)["StateReason"]["Code"], "Client.InvalidKMSKey.InvalidState")

    def test_without_a_guest_the_console_is_empty(self):
        one = self.launched(self.bare_image()["image"])["InstanceId"]
        self.until_state(one, "running")
        self.assertNotIn("Output", self.ec2.get_console_output(InstanceId=one, Latest=True))


@unittest.skipUnless(shutil.which("qemu-system-x86_64"), "there is no QEMU here")
class Guests(Machines):
    def test_a_guest_writes_to_its_console_and_ends_by_its_shutdown_behaviour(self):
        text = b"hello from the boot sector\r\n"
        sector = (SECTOR + text).ljust(510, b"\0") + b"\x55\xaa"
        with tempfile.NamedTemporaryFile() as disk:
            disk.write(sector.ljust(BLOCK, b"\0"))
            disk.flush()
            image = self.post("seed", image={"name": "boots", "disk": disk.name})["image"]
        self.post("settings", settings={"machines": "qemu", "noise_mebibytes": 1})
        for behaviour, state in (("terminate", "terminated"), ("stop", "stopped")):
            one = self.launched(image, InstanceInitiatedShutdownBehavior=behaviour)["InstanceId"]
            self.until(lambda: self.instance(one)["State"]["Name"], state, within=60)
            self.assertEqual(self.instance(one)["StateReason"]["Code"], "Client.InstanceInitiatedShutdown")
            said = self.ec2.get_console_output(InstanceId=one, Latest=True)
            # botocore undoes the base64.
            self.assertIn(text.decode().strip(), said["Output"])
