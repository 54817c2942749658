"""Volumes that are made by themselves, as EC2 has them. What shows of one on this machine is tests/bake/chroot_on_aws.rs's."""

from .server import Case, block

ZONE = "us-east-1a"


class Volumes(Case):
    def volume(self, snapshot, **given):
        return self.ec2.create_volume(SnapshotId=snapshot, AvailabilityZone=ZONE, **given)["VolumeId"]

    def test_one_is_made_of_a_completed_snapshot_with_its_tags(self):
        snapshot = self.made({0: block(1)})
        tags = [{"ResourceType": "volume", "Tags": [{"Key": "k", "Value": "*"}]}]
        one = self.volume(snapshot, TagSpecifications=tags, ClientToken="t")
        self.assertEqual(self.volume(snapshot, TagSpecifications=tags, ClientToken="t"), one)
        given = dict(SnapshotId=snapshot, AvailabilityZone=ZONE)
        self.refused("IdempotentParameterMismatch", self.ec2.create_volume, ClientToken="t", Size=9, **given)
        (found,) = self.ec2.describe_volumes(Filters=[{"Name": "tag:k", "Values": ["\\*"]}])["Volumes"]
        self.assertEqual((found["VolumeId"], found["State"], found["SnapshotId"]), (one, "available", snapshot))
        pending = self.ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
        self.refused("IncorrectState", self.ec2.create_volume, SnapshotId=pending, AvailabilityZone=ZONE)
        self.refused("InvalidZone.NotFound", self.ec2.create_volume, SnapshotId=snapshot, AvailabilityZone="us-east-1z")
        self.refused("InvalidVolume.NotFound", self.ec2.describe_volumes, VolumeIds=["vol-0123456789abcdef0"])
        self.ec2.delete_volume(VolumeId=one)
        self.assertEqual(self.ec2.describe_volumes()["Volumes"], [])

    def test_a_snapshot_of_one_is_a_child_of_its_own(self):
        snapshot = self.made({0: block(1), 5: block(2)})
        one = self.volume(snapshot)
        self.refused("IncorrectState", self.ec2.detach_volume, VolumeId=one)
        child = self.ec2.create_snapshot(VolumeId=one, Description="d")["SnapshotId"]
        (found,) = self.ec2.describe_snapshots(SnapshotIds=[child])["Snapshots"]
        self.assertEqual((found["State"], found["VolumeId"], found["Description"]), ("completed", one, "d"))
        listed = self.ebs.list_snapshot_blocks(SnapshotId=child)["Blocks"]
        self.assertEqual([b["BlockIndex"] for b in listed], [0, 5])
        changed = self.ebs.list_changed_blocks(FirstSnapshotId=snapshot, SecondSnapshotId=child)["ChangedBlocks"]
        self.assertEqual(changed, [])
