"""Snapshots as EC2 has them."""

from .server import Case, block


class Snapshots(Case):
    def test_they_are_found_by_owner_tag_state_and_name(self):
        one = self.made({0: block(1)}, Description="first one", Tags=[{"Key": "k", "Value": "v"}])
        two = self.ebs.start_snapshot(VolumeSize=3)["SnapshotId"]

        def found(*filters, **given):
            names = [{"Name": n, "Values": v} for n, v in filters]
            said = self.ec2.describe_snapshots(Filters=names, **given)["Snapshots"]
            return {s["SnapshotId"] for s in said}

        self.assertEqual(found(OwnerIds=["self"]), {one, two})
        self.assertEqual(found(OwnerIds=[self.other]), set())
        self.assertEqual(found(("tag:k", ["v"])), {one})
        self.assertEqual(found(("tag:k", ["?"]), ("status", ["pending"])), set())
        self.assertEqual(found(("tag-key", ["k"])), {one})
        self.assertEqual(found(("status", ["pending"])), {two})
        self.assertEqual(found(("description", ["first*"])), {one})
        self.assertEqual(found(("volume-size", ["3"])), {two})
        bad = dict(Filters=[{"Name": "tagg:k", "Values": ["v"]}])
        self.refused("InvalidParameterValue", self.ec2.describe_snapshots, **bad)
        missing = dict(SnapshotIds=["snap-0123456789abcdef0"])
        self.refused("InvalidSnapshot.NotFound", self.ec2.describe_snapshots, **missing)

    def test_a_listing_has_pages(self):
        made = {self.ebs.start_snapshot(VolumeSize=1)["SnapshotId"] for _ in range(12)}
        found, more, pages = set(), {}, 0
        while True:
            said = self.ec2.describe_snapshots(OwnerIds=["self"], MaxResults=5, **more)
            found |= {s["SnapshotId"] for s in said["Snapshots"]}
            pages += 1
            if not said.get("NextToken"):
                break
            more = {"NextToken": said["NextToken"]}
        self.assertEqual((found, pages), (made, 3))
        self.refused("InvalidParameterValue", self.ec2.describe_snapshots, MaxResults=2)

    def test_tags_come_and_go(self):
        snapshot = self.made({})
        self.ec2.create_tags(Resources=[snapshot], Tags=[{"Key": "k", "Value": "v"}])
        shown = self.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]
        self.assertEqual(shown["Tags"], [{"Key": "k", "Value": "v"}])
        self.ec2.delete_tags(Resources=[snapshot], Tags=[{"Key": "k"}])
        self.assertEqual(self.get("state")["snapshots"][snapshot]["tags"], {})

    def test_one_that_an_image_uses_stays(self):
        snapshot = self.made({0: block(1)})
        image = self.registered(snapshot, "uses-it")
        self.refused("InvalidSnapshot.InUse", self.ec2.delete_snapshot, SnapshotId=snapshot)
        self.ec2.deregister_image(ImageId=image)
        self.ec2.delete_snapshot(SnapshotId=snapshot)
        self.refused("InvalidSnapshot.NotFound", self.ec2.delete_snapshot, SnapshotId=snapshot)

    def test_a_pending_one_can_be_deleted(self):
        snapshot = self.ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
        self.ec2.delete_snapshot(SnapshotId=snapshot)
        self.refused("ResourceNotFoundException", self.put, snapshot=snapshot, index=0, data=block(1))
        self.assertEqual(self.get("state")["snapshots"], {})

    def test_it_may_not_show_right_after_it_was_started(self):
        self.post("settings", settings={"describe_not_found_seconds": 5})
        snapshot = self.ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
        self.refused("InvalidSnapshot.NotFound", self.ec2.describe_snapshots, SnapshotIds=[snapshot])
        self.assertEqual(self.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"], [])
        self.post("tick", seconds=6)
        self.assertEqual(len(self.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]), 1)

    def test_a_copy_has_the_same_blocks_and_its_own_key(self):
        snapshot = self.made({0: block(1), 9: block(2)})
        self.refused(
            "InvalidSnapshot.NotFound",
            self.client("ec2", self.other).copy_snapshot,
            SourceSnapshotId=snapshot,
            SourceRegion="us-east-1",
        )
        copy = self.ec2.copy_snapshot(SourceSnapshotId=snapshot, SourceRegion="us-east-1", Encrypted=True)["SnapshotId"]
        self.assertEqual(self.content(copy), {0: block(1), 9: block(2)})
        shown = self.ec2.describe_snapshots(SnapshotIds=[copy])["Snapshots"][0]
        self.assertTrue(shown["Encrypted"])
