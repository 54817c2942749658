"""Faults on demand."""

import botocore.exceptions

from .server import Case, block


class Faults(Case):
    def rules(self, *rules):
        self.post("faults", clear=True, rules=list(rules))

    def test_one_call_is_refused_before_or_after_it_takes_effect(self):
        self.rules(
            {"kind": "throttle", "operation": "StartSnapshot", "nth": 1},
            {"kind": "error", "operation": "StartSnapshot", "nth": 2, "when": "after"},
        )
        self.refused("RequestThrottledException", self.ebs.start_snapshot, "ACCOUNT_THROTTLED", VolumeSize=1)
        self.assertEqual(self.get("state")["snapshots"], {})
        self.refused("InternalServerException", self.ebs.start_snapshot, VolumeSize=1)
        self.assertEqual(len(self.get("state")["snapshots"]), 1)
        self.ebs.start_snapshot(VolumeSize=1)
        seen = [(e["fault"], e["status"]) for e in self.get("exchanges")]
        self.assertEqual(seen, [("throttle before", 400), ("error after", 500), (None, 201)])

    def test_the_first_call_with_each_value_is_refused(self):
        self.rules({"kind": "error", "operation": "PutSnapshotBlock", "each": "BlockIndex", "when": "after"})
        snapshot = self.ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
        for index in (0, 7):
            self.refused("InternalServerException", self.put, snapshot=snapshot, index=index, data=block(1))
            self.put(snapshot, index, block(1))
        self.assertEqual([(one["seen"], one["struck"]) for one in self.get("faults")], [(4, 2)])

    def test_a_connection_is_dropped_without_an_answer(self):
        self.rules({"kind": "drop", "service": "ec2", "mutating": True, "nth": 1, "when": "after"})
        snapshot = self.made({0: block(1)})
        self.ec2.describe_snapshots(OwnerIds=["self"])
        with self.assertRaises(botocore.exceptions.ConnectionClosedError):
            self.registered(snapshot, "dropped")
        self.assertEqual(len(self.get("state")["images"]), 1)

    def test_each_service_has_its_own_words(self):
        self.rules({"kind": "throttle"})
        self.refused("RequestLimitExceeded", self.ec2.describe_images)
        self.refused("ThrottlingException", self.client("ssm").describe_parameters)
        self.refused("Throttling", self.client("sts").get_caller_identity)
        self.rules({"kind": "error", "status": 403, "code": "UnauthorizedOperation", "message": "no"})
        self.refused("UnauthorizedOperation", self.ec2.describe_images)

    def test_a_rate_is_kept(self):
        self.rules({"kind": "rate", "operation": "DescribeImages", "per_second": 0.001, "burst": 3})
        for _ in range(3):
            self.ec2.describe_images()
        self.refused("RequestLimitExceeded", self.ec2.describe_images)

    def test_a_call_can_take_hours_of_the_clock(self):
        self.rules({"kind": "tick", "operation": "DescribeImages", "seconds": 4000, "times": 1})
        snapshot = self.ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
        self.ec2.describe_images()
        self.assertEqual(self.get("state")["snapshots"][snapshot]["state"], "error")

    def test_a_call_that_is_not_emulated_is_a_finding(self):
        self.refused("InternalError", self.ec2.describe_host_reservations)
        self.assertIn("not emulated", self.get("findings")[0]["finding"])
        self.expected_findings = 1
