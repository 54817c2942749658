"""The EBS direct APIs (docs/what-aws-has-seen.md)."""

from .server import BLOCK, Case, block, checksum


class Writing(Case):
    def test_a_block_is_kept_and_the_answer_names_its_size(self):
        started = self.ebs.start_snapshot(VolumeSize=2, Description="d", Tags=[{"Key": "k", "Value": "v"}])
        self.assertEqual((started["BlockSize"], started["VolumeSize"], started["Status"]), (BLOCK, 2, "pending"))
        blocks = {0: block(1), 7: block(2), 4095: block(3)}
        for index, data in blocks.items():
            self.put(started["SnapshotId"], index, data)
        self.complete(started["SnapshotId"], blocks)
        self.assertEqual(self.content(started["SnapshotId"]), blocks)
        self.assertEqual(self.get("state")["volumes"], {})

    def test_what_is_not_one_block_of_the_volume_is_refused(self):
        snapshot = self.ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
        bad = dict(reason="INVALID_PARAMETER_VALUE", snapshot=snapshot, index=0)
        self.refused("ValidationException", self.put, **bad, data=block(1)[:-1])
        self.refused("ValidationException", self.put, **bad, data=block(1), DataLength=1000)
        self.refused("ValidationException", self.put, **bad, data=block(1), Checksum=checksum(b"other"))
        self.refused("ValidationException", self.put, "INVALID_BLOCK", snapshot=snapshot, index=2048, data=block(1))
        missing = "snap-0123456789abcdef0"
        self.refused(
            "ResourceNotFoundException", self.put, "SNAPSHOT_NOT_FOUND", snapshot=missing, index=0, data=block(1)
        )
        self.assertEqual(self.get("state")["snapshots"][snapshot]["blocks"], 0)

    def test_an_index_again_overwrites_and_counts_once(self):
        snapshot = self.ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
        self.put(snapshot, 3, block(1))
        self.put(snapshot, 3, block(2))
        self.refused("ValidationException", self.complete, snapshot=snapshot, blocks={3: block(1)})
        self.refused("ValidationException", self.complete, snapshot=snapshot, blocks={3: block(2)}, ChangedBlocksCount=2)
        self.complete(snapshot, {3: block(2)})
        self.assertEqual(self.content(snapshot), {3: block(2)})
        self.refused("ValidationException", self.put, "INVALID_SNAPSHOT_ID", snapshot=snapshot, index=0, data=block(1))
        self.complete(snapshot, {3: block(2)})
        self.refused("ValidationException", self.complete, snapshot=snapshot, blocks={3: block(9)})

    def test_a_store_may_damage_a_block(self):
        for damages, whole in (("data", False), ("checksum", True)):
            self.post("settings", settings={"damages": damages})
            snapshot = self.made({3: block(1), 5: block(2)})
            tokens, _ = self.listed(snapshot)
            said = self.ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=3, BlockToken=tokens[3])
            data = said["BlockData"].read()
            self.assertNotEqual(data, block(1))
            self.assertEqual(said["Checksum"] == checksum(data), whole)
            self.assertEqual(self.content(snapshot)[5], block(2))

    def test_zeros_are_a_block_and_replace_one(self):
        snapshot = self.ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
        self.put(snapshot, 3, block(1))
        for index in (3, 9):
            self.put(snapshot, index, bytes(BLOCK))
        blocks = {3: bytes(BLOCK), 9: bytes(BLOCK)}
        self.complete(snapshot, blocks)
        self.assertEqual(self.content(snapshot), blocks)
        child = self.ebs.start_snapshot(VolumeSize=1, ParentSnapshotId=self.made({5: block(1)}))["SnapshotId"]
        self.put(child, 5, bytes(BLOCK))
        self.complete(child, {5: bytes(BLOCK)})
        self.assertEqual(self.content(child), {5: bytes(BLOCK)})

    def test_it_is_not_there_for_a_while_and_not_completed_for_a_while(self):
        self.post("settings", settings={"put_not_found_seconds": 100, "complete_seconds": 30})
        snapshot = self.ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
        self.refused("ResourceNotFoundException", self.put, snapshot=snapshot, index=0, data=block(1))
        self.post("tick", seconds=101)
        self.put(snapshot, 0, block(1))
        self.assertEqual(self.complete(snapshot, {0: block(1)})["Status"], "pending")
        self.refused("ValidationException", self.ebs.list_snapshot_blocks, SnapshotId=snapshot)
        shown = self.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]
        self.assertEqual(shown["State"], "pending")
        self.post("tick", seconds=31)
        shown = self.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]
        self.assertEqual((shown["State"], shown["Progress"]), ("completed", "100%"))
        # EBS may come to know of it later than EC2.
        self.post("settings", settings={"list_not_found_seconds": 20})
        self.refused("ValidationException", self.ebs.list_snapshot_blocks, SnapshotId=snapshot)
        self.post("tick", seconds=21)
        self.assertEqual(list(self.content(snapshot)), [0])

    def test_without_a_write_within_its_timeout_it_is_given_up(self):
        snapshot = self.ebs.start_snapshot(VolumeSize=1, Timeout=10)["SnapshotId"]
        self.post("tick", seconds=9 * 60)
        self.put(snapshot, 0, block(1))
        self.post("tick", seconds=9 * 60)
        self.put(snapshot, 1, block(1))
        self.post("tick", seconds=10 * 60)
        self.refused("ValidationException", self.put, snapshot=snapshot, index=2, data=block(1))
        self.assertEqual(self.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"], "error")

    def test_a_token_gives_the_same_snapshot_or_a_conflict(self):
        first = self.ebs.start_snapshot(VolumeSize=1, ClientToken="t")["SnapshotId"]
        self.assertEqual(self.ebs.start_snapshot(VolumeSize=1, ClientToken="t")["SnapshotId"], first)
        self.refused("ConflictException", self.ebs.start_snapshot, VolumeSize=2, ClientToken="t")
        self.assertEqual(len(self.get("state")["snapshots"]), 1)


class Reading(Case):
    def test_a_child_has_its_parents_blocks_even_when_the_parent_is_gone(self):
        parent = self.made({0: block(1), 5: block(2)})
        child = self.made({5: block(3), 6: block(4)}, ParentSnapshotId=parent)
        self.ec2.delete_snapshot(SnapshotId=parent)
        self.assertEqual(self.content(child), {0: block(1), 5: block(3), 6: block(4)})
        self.assertEqual(self.get("state")["snapshots"][child]["own_blocks"], 2)
        small = dict(VolumeSize=1, ParentSnapshotId=self.made({}, VolumeSize=2))
        self.refused("ValidationException", self.ebs.start_snapshot, "INVALID_VOLUME_SIZE", **small)

    def test_listings_have_pages_of_which_some_are_empty(self):
        blocks = {i: block(i) for i in range(0, 260, 2)}
        snapshot = self.made(blocks)
        self.post("settings", settings={"page_blocks": 20, "empty_page_every": 2})
        found, pages = self.listed(snapshot, MaxResults=100)
        self.assertEqual(sorted(found), sorted(blocks))
        self.assertIn(0, pages)
        self.assertLessEqual(max(pages), 20)
        found, _ = self.listed(snapshot, StartingBlockIndex=200)
        self.assertEqual(min(found), 200)
        again, _ = self.listed(snapshot)
        self.assertNotEqual(again[200], found[200])

    def test_tokens_are_of_one_block_and_one_listing(self):
        snapshot, other = self.made({0: block(1), 1: block(2)}), self.made({0: block(1)})
        tokens, _ = self.listed(snapshot)
        get = self.ebs.get_snapshot_block
        for given in (
            dict(SnapshotId=snapshot, BlockIndex=0, BlockToken=tokens[1]),
            dict(SnapshotId=other, BlockIndex=0, BlockToken=tokens[0]),
            dict(SnapshotId=snapshot, BlockIndex=0, BlockToken="AAAA"),
        ):
            self.refused("ValidationException", get, "INVALID_BLOCK_TOKEN", **given)
        bad = dict(SnapshotId=snapshot, NextToken="AAAA")
        self.refused("ValidationException", self.ebs.list_snapshot_blocks, "INVALID_PAGE_TOKEN", **bad)
        self.post("tick", seconds=7 * 24 * 3600 + 1)
        old = dict(SnapshotId=snapshot, BlockIndex=0, BlockToken=tokens[0])
        self.refused("ValidationException", get, "INVALID_BLOCK_TOKEN", **old)

    def test_changed_blocks_are_those_of_either_side(self):
        first = self.made({0: block(1), 5: block(2)})
        second = self.made({5: block(3), 6: block(4)}, ParentSnapshotId=first)
        said = self.ebs.list_changed_blocks(FirstSnapshotId=first, SecondSnapshotId=second)["ChangedBlocks"]
        self.assertEqual([one["BlockIndex"] for one in said], [5, 6])
        self.assertIn("FirstBlockToken", said[0])
        self.assertNotIn("FirstBlockToken", said[1])
        alone = self.made({0: block(1)})
        bad = dict(FirstSnapshotId=alone, SecondSnapshotId=second)
        self.refused("ValidationException", self.ebs.list_changed_blocks, "UNRELATED_SNAPSHOTS", **bad)

    def test_public_and_foreign_snapshots_are_refused_and_shared_ones_are_not(self):
        snapshot = self.made({0: block(1)})
        other = self.client("ebs", self.other)
        self.refused("AccessDeniedException", other.list_snapshot_blocks, "UNAUTHORIZED_ACCOUNT", SnapshotId=snapshot)
        share = dict(SnapshotId=snapshot, Attribute="createVolumePermission", OperationType="add")
        self.ec2.modify_snapshot_attribute(**share, UserIds=[self.other])
        self.assertEqual(len(other.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]), 1)
        self.ec2.modify_snapshot_attribute(**share, GroupNames=["all"])
        self.refused("AccessDeniedException", other.list_snapshot_blocks, SnapshotId=snapshot)


class Encryption(Case):
    """The table of docs/what-aws-has-seen.md."""

    def setUp(self):
        super().setUp()
        self.key = self.client("kms").create_key()["KeyMetadata"]["Arn"]

    def key_of(self, **given):
        return self.ebs.start_snapshot(VolumeSize=1, **given).get("KmsKeyArn")

    def bad(self, **given):
        self.refused("ValidationException", self.ebs.start_snapshot, VolumeSize=1, **given)

    def test_without_a_parent(self):
        self.assertIsNone(self.key_of())
        self.assertEqual(self.key_of(Encrypted=True, KmsKeyArn=self.key), self.key)
        self.assertIn(":key/", self.key_of(Encrypted=True))
        self.bad(Encrypted=False, KmsKeyArn=self.key)
        self.bad(KmsKeyArn=self.key)
        self.ec2.enable_ebs_encryption_by_default()
        self.assertIn(":key/", self.key_of())
        self.bad(Encrypted=False)

    def test_with_an_encrypted_parent(self):
        parent = self.made({}, Encrypted=True, KmsKeyArn=self.key)
        self.assertEqual(self.key_of(ParentSnapshotId=parent), self.key)
        self.bad(ParentSnapshotId=parent, Encrypted=True)
        self.bad(ParentSnapshotId=parent, KmsKeyArn=self.key)

    def test_with_a_plain_parent(self):
        parent = self.made({})
        self.assertIsNone(self.key_of(ParentSnapshotId=parent))
        self.bad(ParentSnapshotId=parent, Encrypted=True, KmsKeyArn=self.key)
        self.ec2.enable_ebs_encryption_by_default()
        self.bad(ParentSnapshotId=parent)

    def test_a_key_that_cannot_be_used(self):
        self.client("kms").disable_key(KeyId=self.key.split("/")[-1])
        given = dict(VolumeSize=1, Encrypted=True, KmsKeyArn=self.key)
        self.refused("ValidationException", self.ebs.start_snapshot, "INVALID_CUSTOMER_KEY", **given)
