"""SSM's Run Command, and CreateImage of what it did."""

import time
import unittest

from .machines import CAN_RUN, Machines
from .server import BLOCK


class Agents(Machines):
    def test_an_instance_without_a_profile_is_never_online(self):
        image = self.bare_image()["image"]
        asked = dict(ImageId=image, InstanceType="t3.small", MinCount=1, MaxCount=1, UserData="# amazon-ssm-agent")
        one = self.ec2.run_instances(**asked)["Instances"][0]["InstanceId"]
        self.until_state(one, "running")
        time.sleep(1)
        self.assertIsNone(self.pings(one))
        with self.assertRaises(self.ssm.exceptions.InvalidInstanceId):
            self.sent(one, "true")

    def test_it_is_online_some_time_after_its_start_and_lost_with_its_stop(self):
        self.post("settings", settings={"agent_seconds": 1.0})
        one = self.launched(self.bare_image()["image"])["InstanceId"]
        self.until_state(one, "running")
        self.assertIsNone(self.pings(one))
        self.until(lambda: self.pings(one), "Online")
        self.ec2.stop_instances(InstanceIds=[one])
        self.until_state(one, "stopped")
        self.assertEqual(self.pings(one), "ConnectionLost")


@unittest.skipUnless(CAN_RUN, "needs root, busybox and loop devices")
class Commands(Machines):
    def setUp(self):
        super().setUp()
        seeded = self.root_image()
        self.image_id, self.base = seeded["image"], seeded["snapshot"]
        self.one = self.launched(self.image_id)["InstanceId"]
        self.until(lambda: self.pings(self.one), "Online")

    def tearDown(self):
        self.ec2.terminate_instances(InstanceIds=[self.one])
        self.until_state(self.one, "terminated")
        super().tearDown()

    def test_a_script_runs_in_the_root_of_the_instance_alone(self):
        command = self.sent(self.one, "cat /etc/os-release", "ls /", "hostname", "echo oops >&2", "exit 3")
        with self.assertRaises(self.ssm.exceptions.InvocationDoesNotExist):
            self.ssm.get_command_invocation(CommandId=command, InstanceId=self.one)
        said = self.invocation(self.one, command)
        self.assertEqual((said["Status"], said["ResponseCode"]), ("Failed", 3))
        self.assertTrue(said["StandardOutputContent"].startswith("ID=small\nbin\n"), said)
        self.assertNotIn("home", said["StandardOutputContent"].split())
        self.assertIn("\nip-172-", said["StandardOutputContent"])
        self.assertEqual(said["StandardErrorContent"], "oops\nfailed to run commands: exit status 3")

    def test_nothing_of_the_host_is_named_or_changed(self):
        said = self.ran(self.one, "ls /proc/1/root/ /dev", "cat /proc/mounts", "test -b /dev/vda && echo device")
        self.assertNotIn("device", said["StandardOutputContent"].split())
        mounts = [line.split()[1] for line in said["StandardOutputContent"].splitlines() if " rw" in line or " ro" in line]
        self.assertEqual(sorted(set(mounts)), sorted(["/", "/dev", "/dev/pts", "/dev/shm", "/proc", "/run", "/sys"]))

    def test_long_output_is_cut_and_whole_in_its_bucket(self):
        self.s3.create_bucket(Bucket="output")
        given = dict(OutputS3BucketName="output", OutputS3KeyPrefix="of/me")
        said = self.ran(self.one, "yes 0123456789 | head -c 30000", "yes e | head -c 9000 >&2", **given)
        self.assertEqual(len(said["StandardOutputContent"]), 24000)
        self.assertEqual(len(said["StandardErrorContent"]), 8000)
        for stream in ("StandardOutputContent", "StandardErrorContent"):
            self.assertTrue(said[stream].endswith("--output truncated--"))
        key = f"of/me/{said['CommandId']}/{self.one}/awsrunShellScript/0.awsrunShellScript/stdout"
        self.assertTrue(said["StandardOutputUrl"].endswith(f"/output/{key}"))
        self.assertEqual(len(self.s3.get_object(Bucket="output", Key=key)["Body"].read()), 30000)

    def test_an_answer_goes_through_files_of_the_instance(self):
        self.s3.create_bucket(Bucket="answers")
        kept = self.ran(self.one, "ls /var/lib/amazon/ssm/*/channels")
        self.assertEqual(kept["StandardOutputContent"].strip(), kept["CommandId"])
        said = self.ran(self.one, "echo done; rm -rf /var/lib/amazon/ssm/*", OutputS3BucketName="answers")
        self.assertEqual((said["Status"], said["StandardOutputContent"]), ("Failed", ""))
        self.assertIn("document worker timed out", said["StandardErrorContent"])
        self.assertNotIn("Contents", self.s3.list_objects_v2(Bucket="answers"))
        self.assertEqual(self.ran(self.one, "echo again")["StandardOutputContent"], "again\n")

    def test_what_is_written_to_the_console_is_read_from_it(self):
        self.ran(self.one, "echo one >/dev/console; echo two >>/dev/console")
        said = self.ec2.get_console_output(InstanceId=self.one, Latest=True)
        self.assertEqual(said["Output"], "one\ntwo\n")

    def test_a_script_that_asks_for_a_reboot_runs_again_after_it(self):
        said = self.ran(
            self.one,
            "test -e /run/gone && exit 1",
            "test -e /once && { echo second; exit 0; }",
            "echo first; echo >/once; echo >/run/gone; exit 194",
        )
        self.assertEqual((said["Status"], said["StandardOutputContent"]), ("Success", "first\nsecond\n"))

    def test_what_takes_too_long_or_is_cancelled_is_killed(self):
        said = self.ran(self.one, "sleep 60; echo late >/late", timeout=1)
        self.assertEqual((said["Status"], said["StatusDetails"]), ("TimedOut", "ExecutionTimedOut"))
        command = self.sent(self.one, "sleep 60; echo late >/late")
        time.sleep(0.5)
        self.ssm.cancel_command(CommandId=command)
        self.assertEqual(self.invocation(self.one, command)["Status"], "Cancelled")
        self.assertEqual(self.ran(self.one, "test -e /late")["ResponseCode"], 1)

    def test_a_root_that_powers_itself_off_stops_the_instance(self):
        command = self.sent(self.one, "poweroff -f")
        self.until_state(self.one, "stopped")
        self.assertEqual(self.instance(self.one)["StateReason"]["Code"], "Client.InstanceInitiatedShutdown")
        self.ssm.cancel_command(CommandId=command)

    def test_an_image_of_it_has_what_is_on_its_disk(self):
        said = self.ran(self.one, "yes made | head -c 600000 >/made", "sync")
        self.assertEqual(said["Status"], "Success", said)
        self.ec2.stop_instances(InstanceIds=[self.one])
        self.until_state(self.one, "stopped")
        tags = [{"ResourceType": kind, "Tags": [{"Key": "k", "Value": kind}]} for kind in ("image", "snapshot")]
        self.refused("InvalidAMIName.Duplicate", self.ec2.create_image, InstanceId=self.one, Name="root")
        self.post("settings", settings={"image_seconds": 30, "complete_seconds": 30})
        image = self.ec2.create_image(InstanceId=self.one, Name="baked", TagSpecifications=tags)["ImageId"]
        self.assertEqual(self.image(image)["State"], "pending")
        snapshot = self.image(image)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
        self.until(lambda: self.get("state")["snapshots"][snapshot]["open"], False)
        self.post("tick", seconds=31)
        self.until(lambda: self.image(image)["State"], "available")
        shown = self.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]
        self.assertEqual((shown["State"], shown["Tags"]), ("completed", [{"Key": "k", "Value": "snapshot"}]))
        self.assertEqual(self.image(image)["Tags"], [{"Key": "k", "Value": "image"}])
        changed = self.ebs.list_changed_blocks(FirstSnapshotId=self.base, SecondSnapshotId=snapshot)["ChangedBlocks"]
        self.assertTrue(1 < len(changed) < 30, changed)
        content = self.content(snapshot)
        self.assertEqual(len(content), 64 * 2**20 // BLOCK)
        self.assertIn(b"made\n" * 1000, b"".join(content[index] for index in sorted(content)))

    def test_an_image_that_fails_says_why(self):
        self.post("settings", settings={"create_image_failure": "Client.InternalError: it is full"})
        image = self.ec2.create_image(InstanceId=self.one, Name="failed", NoReboot=True)["ImageId"]
        self.until(lambda: self.image(image)["State"], "failed")
        self.assertIn("it is full", self.image(image)["StateReason"]["Message"])
        self.assertEqual(self.instance(self.one)["State"]["Name"], "running")
