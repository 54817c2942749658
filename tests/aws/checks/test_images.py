"""Images (docs/what-aws-has-seen.md)."""

import datetime
import os
import tempfile

from .server import Case, block


class Registering(Case):
    def test_every_field_is_kept(self):
        root, data = self.made({0: block(1)}), self.made({0: block(2)}, VolumeSize=2)
        image = self.registered(
            root,
            "all (fields) [1.0] a/b-c'd@e_f",
            Description="what it is",
            BlockDeviceMappings=[
                {
                    "DeviceName": "/dev/xvda",
                    "Ebs": {"SnapshotId": root, "VolumeSize": 8, "VolumeType": "gp3", "Iops": 4000, "Throughput": 250},
                },
                {"DeviceName": "/dev/sdb", "Ebs": {"SnapshotId": data, "DeleteOnTermination": False}},
                {"DeviceName": "/dev/sdc", "VirtualName": "ephemeral0"},
            ],
            BootMode="uefi",
            EnaSupport=True,
            ImdsSupport="v2.0",
            SriovNetSupport="simple",
            TpmSupport="v2.0",
            UefiData="dmFycw==",
            TagSpecifications=[{"ResourceType": "image", "Tags": [{"Key": "k", "Value": "v"}]}],
        )
        shown = self.image(image)
        for name, value in {
            "Architecture": "x86_64",
            "VirtualizationType": "hvm",
            "BootMode": "uefi",
            "EnaSupport": True,
            "ImdsSupport": "v2.0",
            "SriovNetSupport": "simple",
            "TpmSupport": "v2.0",
            "RootDeviceName": "/dev/xvda",
            "RootDeviceType": "ebs",
            "Description": "what it is",
            "PlatformDetails": "Linux/UNIX",
            "UsageOperation": "RunInstances",
            "State": "available",
            "Public": False,
            "OwnerId": self.account,
            "Tags": [{"Key": "k", "Value": "v"}],
        }.items():
            self.assertEqual(shown[name], value, name)
        first, second, third = shown["BlockDeviceMappings"]
        self.assertEqual(first["Ebs"]["SnapshotId"], root)
        self.assertEqual((first["Ebs"]["VolumeSize"], first["Ebs"]["Iops"], first["Ebs"]["Throughput"]), (8, 4000, 250))
        self.assertEqual((second["Ebs"]["VolumeSize"], second["Ebs"]["DeleteOnTermination"]), (2, False))
        self.assertEqual(third["VirtualName"], "ephemeral0")
        uefi = self.ec2.describe_image_attribute(ImageId=image, Attribute="uefiData")
        self.assertEqual(uefi["UefiData"]["Value"], "dmFycw==")
        tpm = self.ec2.describe_image_attribute(ImageId=image, Attribute="tpmSupport")
        self.assertEqual(tpm["TpmSupport"]["Value"], "v2.0")

    def test_architecture_and_virtualization_are_awss_where_nothing_is_said(self):
        mapping = [{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": self.made({})}}]
        shown = self.image(self.ec2.register_image(Name="plain", BlockDeviceMappings=mapping)["ImageId"])
        self.assertEqual((shown["Architecture"], shown["VirtualizationType"]), ("i386", "paravirtual"))
        self.assertNotIn("BootMode", shown)

    def test_bad_and_duplicate_names_and_mappings_are_refused(self):
        snapshot = self.made({})
        for name in ("ab", "a" * 129, "a:b", "a+b", "ü12"):
            self.refused("InvalidAMIName.Malformed", self.registered, snapshot=snapshot, name=name)
        # The model knows the lengths too.
        self.expected_findings = 3
        self.registered(snapshot, "taken")
        self.refused("InvalidAMIName.Duplicate", self.registered, snapshot=snapshot, name="taken")
        pending = self.ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
        self.refused("IncorrectState", self.registered, snapshot=pending, name="pending")
        missing = "snap-0123456789abcdef0"
        self.refused("InvalidSnapshot.NotFound", self.registered, snapshot=missing, name="missing")

        def one(**ebs):
            return [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot, **ebs}}]

        for code, mappings in (
            ("InvalidParameterCombination", one(KmsKeyId="alias/x")),
            ("InvalidBlockDeviceMapping", one(Encrypted=True)),
            ("InvalidParameterCombination", one(VolumeType="gp2", Iops=3000)),
            ("InvalidBlockDeviceMapping", [{"DeviceName": "/dev/sdb", "Ebs": {"SnapshotId": snapshot}}]),
        ):
            self.refused(code, self.registered, snapshot=snapshot, name="mapped", BlockDeviceMappings=mappings)
        self.refused("InvalidParameterCombination", self.registered, snapshot=snapshot, name="tpm", TpmSupport="v2.0")
        tags = [{"ResourceType": "snapshot", "Tags": [{"Key": "k", "Value": "v"}]}]
        self.refused("InvalidParameterValue", self.registered, snapshot=snapshot, name="tags", TagSpecifications=tags)

    def test_it_is_pending_first_and_may_not_show(self):
        self.post("settings", settings={"image_seconds": 20, "describe_not_found_seconds": 5})
        snapshot = self.made({})
        self.post("tick", seconds=6)
        image = self.registered(snapshot, "slow")
        self.refused("InvalidAMIID.NotFound", self.ec2.describe_images, ImageIds=[image])
        self.post("tick", seconds=6)
        self.assertEqual(self.image(image)["State"], "pending")
        self.post("tick", seconds=20)
        self.assertEqual(self.image(image)["State"], "available")


class Vendors(Case):
    """Images that are there before, of other accounts."""

    def seeded(self, name, account=None, content=b"\1" * 600_000, **given):
        with tempfile.NamedTemporaryFile() as disk:
            disk.write(content)
            disk.flush()
            image = {"name": name, "disk": disk.name, "public": True, "snapshot_public": True, **given}
            return self.post("seed", account=account or self.other, image=image)

    def test_they_are_found_by_owner_name_and_date(self):
        old = self.seeded("debian-12-1", owner_alias="amazon", created=1_700_000_000)["image"]
        new = self.seeded("debian-12-2", owner_alias="amazon", created=1_750_000_000)["image"]
        own = self.registered(self.made({}), "debian-own")

        def found(*filters, **given):
            names = [{"Name": n, "Values": v} for n, v in filters]
            return {i["ImageId"] for i in self.ec2.describe_images(Filters=names, **given)["Images"]}

        self.assertEqual(found(Owners=["amazon"]), {old, new})
        self.assertEqual(found(Owners=["self"]), {own})
        self.assertEqual(found(("name", ["debian-12-*"]), Owners=[self.other]), {old, new})
        self.assertEqual(found(("creation-date", ["2025-*"])), {new})
        self.assertEqual(found(("state", ["available"]), ("architecture", ["arm64"])), set())
        said = self.ec2.describe_images(MaxResults=2)
        self.assertEqual((len(said["Images"]), bool(said.get("NextToken"))), (2, True))
        rest = self.ec2.describe_images(MaxResults=2, NextToken=said["NextToken"])
        self.assertEqual(len(rest["Images"]), 1)
        self.refused("AuthFailure", self.ec2.deregister_image, ImageId=old)
        self.refused("InvalidAMIID.Malformed", self.ec2.describe_images, ImageIds=["ami-x"])

    def test_a_public_one_is_copied_with_its_blocks_and_then_read(self):
        content = os.urandom(1_200_000)
        vendor = self.seeded("vendor", content=content, uefi_data="dmFycw==", fields={"BootMode": "uefi"})
        tokens = self.ebs.list_snapshot_blocks
        self.refused("AccessDeniedException", tokens, "UNAUTHORIZED_ACCOUNT", SnapshotId=vendor["snapshot"])
        self.post("settings", settings={"image_seconds": 9})
        tags = [{"ResourceType": kind, "Tags": [{"Key": "k", "Value": kind}]} for kind in ("image", "snapshot")]
        asked = dict(
            SourceImageId=vendor["image"], SourceRegion="us-east-1", Name="import", ClientToken="t", TagSpecifications=tags
        )
        image = self.ec2.copy_image(**asked)["ImageId"]
        self.assertEqual(self.ec2.copy_image(**asked)["ImageId"], image)
        other = {**asked, "Name": "another"}
        self.refused("IdempotentParameterMismatch", self.ec2.copy_image, **other)
        self.assertEqual(self.image(image)["State"], "pending")
        self.post("tick", seconds=10)
        shown = self.image(image)
        self.assertEqual((shown["State"], shown["BootMode"], shown["SourceImageId"]), ("available", "uefi", vendor["image"]))
        self.assertEqual(shown["Tags"], [{"Key": "k", "Value": "image"}])
        copy = shown["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
        blocks = self.content(copy)
        self.assertEqual(b"".join(blocks[i] for i in sorted(blocks))[: len(content)], content)
        state = self.get("state")["snapshots"][copy]
        self.assertEqual((state["tags"], state["key"]), ({"k": "snapshot"}, None))
        uefi = self.ec2.describe_image_attribute(ImageId=image, Attribute="uefiData")
        self.assertEqual(uefi["UefiData"]["Value"], "dmFycw==")

    def test_closed_storage_and_product_codes_are_not_copied(self):
        closed = self.seeded("closed", snapshot_public=False)["image"]
        sold = self.seeded("sold", product_codes=["abcd"])["image"]
        said = self.refused(
            "InvalidRequest", self.ec2.copy_image, SourceImageId=closed, SourceRegion="us-east-1", Name="copy"
        )
        self.assertIn("permission to access the storage", said["Error"]["Message"])
        self.refused("InvalidRequest", self.ec2.copy_image, SourceImageId=sold, SourceRegion="us-east-1", Name="copy")
        private = self.seeded("private", public=False)["image"]
        self.refused(
            "InvalidAMIID.NotFound", self.ec2.copy_image, SourceImageId=private, SourceRegion="us-east-1", Name="copy"
        )

    def test_a_wrong_key_shows_later(self):
        vendor = self.seeded("vendor")["image"]
        key = f"arn:aws:kms:us-east-1:{self.account}:key/00000000-0000-0000-0000-000000000000"
        image = self.ec2.copy_image(
            SourceImageId=vendor, SourceRegion="us-east-1", Name="wrong", Encrypted=True, KmsKeyId=key
        )["ImageId"]
        shown = self.image(image)
        self.assertEqual(shown["State"], "failed")
        self.assertIn(key, shown["StateReason"]["Message"])

    def test_billing_is_kept_by_copies_and_lost_by_registering(self):
        vendor = self.seeded("rhel", billing=["Red Hat Enterprise Linux", "RunInstances:0010"])["image"]
        image = self.ec2.copy_image(SourceImageId=vendor, SourceRegion="us-east-1", Name="copy")["ImageId"]
        shown = self.image(image)
        self.assertEqual(shown["UsageOperation"], "RunInstances:0010")
        copy = shown["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
        again = self.image(self.registered(copy, "registered"))
        self.assertEqual((again["PlatformDetails"], again["UsageOperation"]), ("Linux/UNIX", "RunInstances"))
        codes = self.seeded("own", account=self.account, product_codes=["abcd"])["snapshot"]
        self.assertEqual(self.image(self.registered(codes, "codes"))["ProductCodes"][0]["ProductCodeId"], "abcd")


class Later(Case):
    def setUp(self):
        super().setUp()
        self.snapshot = self.made({0: block(1)})
        self.id = self.registered(self.snapshot, "image")
        self.there = self.client("ec2", self.other)

    def share(self, **given):
        self.ec2.modify_image_attribute(ImageId=self.id, LaunchPermission={"Add": [given]})

    def test_sharing(self):
        self.refused("InvalidAMIID.NotFound", self.there.describe_images, ImageIds=[self.id])
        self.ec2.create_tags(Resources=[self.id], Tags=[{"Key": "k", "Value": "v"}])
        self.share(UserId=self.other)
        shown = self.image(self.id, self.there)
        self.assertEqual((shown["OwnerId"], shown.get("Tags")), (self.account, None))
        seen = self.there.describe_images(ExecutableUsers=["self"])["Images"]
        self.assertEqual([i["ImageId"] for i in seen], [self.id])
        copy = dict(SourceImageId=self.id, SourceRegion="us-east-1", Name="copy")
        self.refused("InvalidRequest", self.there.copy_image, **copy)
        self.ec2.modify_snapshot_attribute(
            SnapshotId=self.snapshot,
            Attribute="createVolumePermission",
            OperationType="add",
            UserIds=[self.other],
        )
        self.there.copy_image(**copy)
        self.ec2.modify_image_attribute(ImageId=self.id, LaunchPermission={"Remove": [{"UserId": self.other}]})
        self.refused("InvalidAMIID.NotFound", self.there.describe_images, ImageIds=[self.id])
        said = self.ec2.describe_image_attribute(ImageId=self.id, Attribute="launchPermission")
        self.assertEqual(said["LaunchPermissions"], [])

    def test_the_default_key_cannot_be_shared(self):
        encrypted = self.made({}, Encrypted=True)
        image = self.registered(encrypted, "encrypted")
        given = dict(ImageId=image, LaunchPermission={"Add": [{"UserId": self.other}]})
        self.refused("InvalidParameter", self.ec2.modify_image_attribute, **given)

    def test_public_access_can_be_blocked(self):
        self.ec2.enable_image_block_public_access(ImageBlockPublicAccessState="block-new-sharing")
        said = self.ec2.get_image_block_public_access_state()["ImageBlockPublicAccessState"]
        self.assertEqual(said, "block-new-sharing")
        self.refused("OperationNotPermitted", self.share, Group="all")
        self.ec2.disable_image_block_public_access()
        self.share(Group="all")
        self.assertTrue(self.image(self.id, self.there)["Public"])

    def test_deprecation_hides_it_from_others_lists(self):
        self.share(UserId=self.other)
        soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=2)
        self.ec2.enable_image_deprecation(ImageId=self.id, DeprecateAt=soon)
        self.assertEqual(self.image(self.id)["DeprecationTime"][:16], soon.strftime("%Y-%m-%dT%H:%M"))
        self.post("tick", seconds=3 * 3600)
        self.assertEqual(self.there.describe_images()["Images"], [])
        self.assertEqual(len(self.there.describe_images(IncludeDeprecated=True)["Images"]), 1)
        self.assertEqual(self.there.describe_images(ImageIds=[self.id])["Images"], [])
        self.assertEqual(len(self.there.describe_images(ImageIds=[self.id], IncludeDeprecated=True)["Images"]), 1)
        self.assertEqual(len(self.ec2.describe_images(Owners=["self"])["Images"]), 1)
        self.ec2.disable_image_deprecation(ImageId=self.id)
        self.assertEqual(len(self.there.describe_images()["Images"]), 1)

    def test_protection_and_deleting_with_snapshots(self):
        self.ec2.enable_image_deregistration_protection(ImageId=self.id)
        self.refused("OperationNotPermitted", self.ec2.deregister_image, ImageId=self.id)
        self.ec2.disable_image_deregistration_protection(ImageId=self.id)
        second = self.registered(self.snapshot, "second")
        said = self.ec2.deregister_image(ImageId=self.id, DeleteAssociatedSnapshots=True)
        self.assertEqual(said["DeleteSnapshotResults"], [{"SnapshotId": self.snapshot, "ReturnCode": "skipped"}])
        said = self.ec2.deregister_image(ImageId=second, DeleteAssociatedSnapshots=True)
        self.assertEqual(said["DeleteSnapshotResults"], [{"SnapshotId": self.snapshot, "ReturnCode": "success"}])
        state = self.get("state")
        self.assertEqual((state["snapshots"], state["images"]), ({}, {}))

    def test_one_that_was_deregistered_may_show_for_a_while(self):
        self.post("settings", settings={"deregistered_seconds": 30})
        self.ec2.deregister_image(ImageId=self.id)
        self.refused("InvalidAMIID.NotFound", self.ec2.describe_images, ImageIds=[self.id])
        self.assertEqual([i["ImageId"] for i in self.ec2.describe_images(Owners=["self"])["Images"]], [self.id])
        self.refused("InvalidSnapshot.InUse", self.ec2.delete_snapshot, SnapshotId=self.snapshot)
        self.post("tick", seconds=31)
        self.assertEqual(self.ec2.describe_images(Owners=["self"])["Images"], [])
        self.ec2.delete_snapshot(SnapshotId=self.snapshot)

    def test_disabling_takes_the_permissions_away(self):
        self.share(UserId=self.other)
        self.ec2.disable_image(ImageId=self.id)
        for named in ({"ImageIds": [self.id]}, {"Owners": ["self"]}):
            self.assertEqual(self.ec2.describe_images(**named)["Images"], [])
            shown = self.ec2.describe_images(IncludeDisabled=True, **named)["Images"]
            self.assertEqual([i["State"] for i in shown], ["disabled"])
        self.ec2.enable_image(ImageId=self.id)
        self.refused("InvalidAMIID.NotFound", self.there.describe_images, ImageIds=[self.id])

    def test_imds_can_be_set_later(self):
        self.ec2.modify_image_attribute(ImageId=self.id, ImdsSupport={"Value": "v2.0"})
        self.assertEqual(self.image(self.id)["ImdsSupport"], "v2.0")

    def test_a_dry_run_changes_nothing(self):
        mapping = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": self.snapshot}}]
        given = dict(Name="dry", RootDeviceName="/dev/xvda", BlockDeviceMappings=mapping, DryRun=True)
        self.refused("DryRunOperation", self.ec2.register_image, **given)
        self.refused("DryRunOperation", self.ec2.deregister_image, ImageId=self.id, DryRun=True)
        self.assertEqual(list(self.get("state")["images"]), [self.id])

    def test_an_assumed_role_is_the_other_account(self):
        role = f"arn:aws:iam::{self.other}:role/bake"
        got = self.client("sts").assume_role(RoleArn=role, RoleSessionName="bake")["Credentials"]
        session = dict(
            aws_access_key_id=got["AccessKeyId"],
            aws_secret_access_key=got["SecretAccessKey"],
            aws_session_token=got["SessionToken"],
        )
        self.assertEqual(self.client("sts", **session).get_caller_identity()["Account"], self.other)
        self.assertEqual(self.client("ec2", **session).describe_images()["Images"], [])
        self.share(UserId=self.other)
        self.assertEqual(len(self.client("ec2", **session).describe_images()["Images"]), 1)
