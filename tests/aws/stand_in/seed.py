"""What is there before a test begins: images of any account, from disk files of this host. It goes by none of AWS's calls, and
makes what none of them can: billing codes, product codes, storage that nobody may touch."""

import json

from . import code_build, images, snapshots
from .blocks import Blocks

# AWS's own, by what DescribeImages calls them.
FIELDS = {
    "Architecture": "x86_64",
    "VirtualizationType": "hvm",
    "EnaSupport": True,
    "RootDeviceName": "/dev/xvda",
}


def plant(asked):
    """`image`: an image and its snapshot.

    {account, region, image: {name, disk, size?, description?, fields?: {Architecture, BootMode, ...}, mappings?: further ones,
    holes?: holes of the disk become blocks of zeros, volume?: {VolumeType, Iops, ...}, tags?, snapshot_tags?, uefi_data?,
    owner_alias?, billing?: [PlatformDetails, UsageOperation], billing_registers?: whether RegisterImage keeps it,
    snapshot_billing?: what RegisterImage makes of the snapshot though its own image has nothing of it,
    product_codes?, public?, shared_with?: [account], copyable?, snapshot_public?, snapshot_shared_with?, key?, created?}}

    `setting`: {"encrypt_by_default": true} of the account in the region.

    `instance_profile`: the name of one, with a role of that name. `bucket`: the name of one of the account's. `object`: {bucket, key,
    path}: a file of this host, as an object. `pipeline_role`: the name of a role that CodePipeline may take. `build_image`: {name,
    folder}: a container image for CodeBuild, by a folder with its files."""
    account, region = asked["account"], asked.get("region", "us-east-1")
    said = {}
    if "image" in asked:
        said.update(_image(account, region, asked["image"]))
    if "encrypt_by_default" in asked.get("setting", {}):
        from moto.ec2.models import ec2_backends

        ec2_backends[account][region].ebs_encryption_by_default = asked["setting"]["encrypt_by_default"]
    if "instance_profile" in asked:
        _instance_profile(account, asked["instance_profile"])
    if "build_image" in asked:
        code_build.name_image(account, asked["build_image"]["name"], asked["build_image"]["folder"])
    if "bucket" in asked:
        from moto.s3.models import s3_backends

        s3_backends[account]["aws"].create_bucket(asked["bucket"], region)
    if "object" in asked:
        from moto.s3.models import s3_backends

        one = asked["object"]
        with open(one["path"], "rb") as file:
            s3_backends[account]["aws"].put_object(one["bucket"], one["key"], file.read())
    if "pipeline_role" in asked:
        from moto.iam.models import iam_backends

        trust = {"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "codepipeline.amazonaws.com"}}]}
        role = iam_backends[account]["aws"].create_role(asked["pipeline_role"], json.dumps(trust), "/", None, "", [], "3600")
        said["role"] = role.arn
    return said


def _instance_profile(account, name):
    from moto.iam.models import iam_backends

    backend = iam_backends[account]["aws"]
    backend.create_role(name, "{}", "/", None, "", [], "3600")
    backend.create_instance_profile(name, "/", [], None)
    backend.add_role_to_instance_profile(name, name)


def _image(account, region, given):
    blocks = Blocks.of_disk(given["disk"], given.get("holes", False))
    least = max(1, -(-((max(blocks.all, default=0) + 1) * 524288) // (1 << 30)))
    snapshot = snapshots.Snapshot(
        account, region, given.get("size") or least, given.get("snapshot_description", ""), blocks=blocks, key=given.get("key")
    )
    blocks.own = set()
    snapshot.complete(0)
    if given.get("billing"):
        snapshot.billing = (*given["billing"], given.get("billing_registers", False))
    if given.get("snapshot_billing"):
        snapshot.billing = (*given["snapshot_billing"], True)
    snapshot.product_codes = list(given.get("product_codes", []))
    if given.get("snapshot_public"):
        snapshot.create_volume_permission_groups.add("all")
    snapshot.create_volume_permission_userids.update(given.get("snapshot_shared_with", []))
    snapshot.add_tags(given.get("snapshot_tags", {}))
    fields = {**FIELDS, **given.get("fields", {})}
    volume = {"VolumeType": "gp3", "DeleteOnTermination": True, **given.get("volume", {})}
    root = {"SnapshotId": snapshot.id, "VolumeSize": snapshot.volume.size, "Encrypted": snapshot.encrypted, **volume}
    mappings = [{"DeviceName": fields["RootDeviceName"], "Ebs": root}, *given.get("mappings", [])]
    billing = tuple(given["billing"]) if given.get("billing") else None
    image = images.Image(
        account, region, given["name"], given.get("description", ""), fields, mappings, billing, seconds=0
    )
    image.product_codes = list(given.get("product_codes", []))
    image.uefi_data = given.get("uefi_data")
    image.owner_alias = given.get("owner_alias")
    image.can_be_copied = given.get("copyable", True)
    # Long enough ago that it shows, whatever the settings say.
    image.created = given.get("created", image.created - 24 * 3600)
    snapshot.started = image.created
    if given.get("public"):
        image.launch_permissions.append({"Group": "all"})
    image.launch_permissions += [{"UserId": one} for one in given.get("shared_with", [])]
    image.add_tags(given.get("tags", {}))
    return {"image": image.id, "snapshot": snapshot.id}
