"""Images as EC2 has them (docs/what-aws-has-seen.md): every field kept, their states, whom they are shared with. Copying is copies.py's,
what may be changed later image_attributes.py's."""

import re

from moto.core.responses import ActionResult
from moto.ec2.models import ec2_backends
from moto.ec2.models.amis import Ami
from moto.ec2.responses import EC2Response
from moto.ec2.utils import random_ami_id

from . import describing, snapshots
from .errors import Refused
from .world import WORLD

NAME = re.compile(r"^[A-Za-z0-9()\[\] ./\-'@_]{3,128}$")
# Of a plain image of Linux.
PLAIN = ("Linux/UNIX", "RunInstances")
# What RegisterImage, CreateImage and CopyImage keep as it was given.
KEPT = ("Architecture", "BootMode", "EnaSupport", "ImdsSupport", "KernelId", "RamdiskId", "RootDeviceName",
        "SriovNetSupport", "TpmSupport", "VirtualizationType")  # fmt: skip
VOLUME_TYPES = ("standard", "io1", "io2", "gp2", "gp3", "sc1", "st1")

# Every image by its id, whoever owns it.
_all = {}
# (image, when it shows no more): those that were deregistered a moment ago.
_going = []


class Image(Ami):
    """moto's, so that tags and instances work; nothing of its content is moto's."""

    def __init__(self, account, region, name, description="", fields=None, mappings=(), billing=None, seconds=None):
        # Ami's own beginning would make a volume and a snapshot of 15 GiB.
        self.ec2_backend = ec2_backends[account][region]
        self.id = random_ami_id()
        self.account, self.region, self.tenant = account, region, WORLD.tenant(account)
        self.name, self.description = name, description
        self.fields = dict(fields or {})
        self.mappings = list(mappings)
        # (PlatformDetails, UsageOperation)
        self.billing = billing or PLAIN
        self.product_codes = []
        self.launch_permissions = []
        self.uefi_data = None
        self.source = {}
        self.owner_alias = None
        self.can_be_copied = True
        self.deprecated_at = None
        self.protection = "disabled"
        self.disabled = False
        self.created = self.tenant.now()
        wait = self.tenant.settings["image_seconds"] if seconds is None else seconds
        self._available_at = self.created + wait
        self._failed = None
        # What moto's own operations read of an image.
        self.owner_id = account
        self.instance_id = None
        self.image_type, self.image_location, self.hypervisor = "machine", f"{account}/{name}", "xen"
        self.platform = None
        _all[self.id] = self
        self.ec2_backend.amis[self.id] = self

    architecture = property(lambda self: self.fields.get("Architecture"))
    virtualization_type = property(lambda self: self.fields.get("VirtualizationType"))
    kernel_id = property(lambda self: self.fields.get("KernelId"))
    boot_mode = property(lambda self: self.fields.get("BootMode"))
    root_device_name = property(lambda self: self.fields.get("RootDeviceName"))
    root_device_type = "ebs"

    @property
    def state(self):
        if self._failed is not None:
            return "failed"
        if self.disabled:
            return "disabled"
        return "available" if self.tenant.now() >= self._available_at else "pending"

    def fail(self, code, message):
        self._failed = (code, message)

    @property
    def block_device_mappings(self):
        return self.mappings

    def snapshots(self):
        """The ids of the snapshots that its volumes are made from."""
        return [m["Ebs"]["SnapshotId"] for m in self.mappings if (m.get("Ebs") or {}).get("SnapshotId")]

    def root_snapshot(self):
        for mapping in self.mappings:
            if mapping["DeviceName"] == self.root_device_name and mapping.get("Ebs"):
                return snapshots.find(mapping["Ebs"].get("SnapshotId"))
        return None

    def is_shared_with(self, account):
        return any(one.get("UserId") == account for one in self.launch_permissions)

    def is_deprecated(self):
        return self.deprecated_at is not None and self.tenant.now() >= self.deprecated_at

    def visible_to(self, account):
        if self.tenant.name != account[:10]:
            return False
        if self.tenant.now() < self.created + self.tenant.settings["describe_not_found_seconds"]:
            return False
        if self.account == account:
            return True
        return not self.disabled and (self.is_public or self.is_shared_with(account))

    def described(self, account):
        own = self.account == account
        said = {
            "ImageId": self.id,
            "ImageLocation": self.image_location,
            "ImageOwnerAlias": self.owner_alias,
            "ImageType": "machine",
            "Name": self.name,
            "Description": self.description or None,
            "State": self.state,
            "OwnerId": self.account,
            "CreationDate": describing.time_of(self.created),
            "Public": self.is_public,
            "Hypervisor": "xen",
            "RootDeviceType": "ebs",
            "PlatformDetails": self.billing[0],
            "UsageOperation": self.billing[1],
            "BlockDeviceMappings": self.mappings,
            "DeprecationTime": describing.text_of(self.deprecated_at) if self.deprecated_at else None,
            "DeregistrationProtection": self.protection if own else None,
            "ProductCodes": [{"ProductCodeId": c, "ProductCodeType": "marketplace"} for c in self.product_codes],
            # Tags of another account's image do not show (docs/what-aws-has-seen.md).
            "Tags": describing.tag_list(self) if own else [],
            **{k: v for k, v in self.fields.items() if k in KEPT},
            **self.source,
        }
        if self._failed is not None:
            said["StateReason"] = {"Code": self._failed[0], "Message": self._failed[1]}
        return {k: v for k, v in said.items() if v not in (None, [])}


def find(image_id):
    return _all.get(image_id)


def of_account(account, region=None):
    return [i for i in _all.values() if i.account == account and region in (None, i.region)]


def seen_by(account, region, image_id):
    """An image as EC2's calls see it."""
    if not re.match(r"^ami-[0-9a-f]+$", image_id or ""):
        raise Refused("InvalidAMIID.Malformed", f'Invalid id: "{image_id}"')
    image = _all.get(image_id)
    if image is None or image.region != region or not image.visible_to(account):
        raise Refused("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
    return image


def owned_by(account, region, image_id):
    image = seen_by(account, region, image_id)
    if image.account != account:
        raise Refused("AuthFailure", f"Not authorized for images: [{image_id}]")
    return image


def remove(image):
    del _all[image.id]
    image.ec2_backend.amis.pop(image.id, None)
    lasting = image.tenant.settings["deregistered_seconds"]
    if lasting:
        _going.append((image, image.tenant.now() + lasting))
    else:
        image.ec2_backend.tags.pop(image.id, None)


def going(account, region):
    """Images of an account that are deregistered, still listed, and have their snapshots still."""
    of_account = [(i, until) for i, until in list(_going) if (i.account, i.region) == (account, region)]
    return [i for i, until in of_account if i.tenant.now() < until]


def check_name(account, region, name):
    if not NAME.match(name or ""):
        raise Refused(
            "InvalidAMIName.Malformed",
            "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, "
            "'(', ')', '.', '-', '/', '_' and the like",
        )
    for image in of_account(account, region):
        if image.name == name:
            raise Refused("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {image.id}")


def checked_mappings(account, region, given):
    """BlockDeviceMappings as an image keeps them. Assumptions:
    - a snapshot is the account's own or shared with it, and completed;
    - with a snapshot neither Encrypted nor KmsKeyId is taken; a volume is at least as large as its snapshot;
    - the volume type is gp2 where none is given; DeleteOnTermination is true."""
    out = []
    for mapping in given or []:
        if not mapping.get("DeviceName"):
            raise Refused("MissingParameter", "The request must contain the parameter DeviceName")
        if "NoDevice" in mapping:
            continue
        if mapping.get("VirtualName"):
            out.append({"DeviceName": mapping["DeviceName"], "VirtualName": mapping["VirtualName"]})
            continue
        ebs = dict(mapping.get("Ebs") or {})
        if ebs.get("SnapshotId"):
            snapshot = snapshots.seen_by(account, region, ebs["SnapshotId"])
            if snapshot.status != "completed":
                raise Refused("IncorrectState", f"The snapshot {snapshot.id} is {snapshot.status}, not completed")
            if ebs.get("KmsKeyId"):
                raise Refused("InvalidParameterCombination", "KmsKeyId cannot be given with a snapshot here")
            if ebs.get("Encrypted") is not None:
                raise Refused("InvalidBlockDeviceMapping", "the encrypted flag cannot be specified since device has a snapshot specified.")
            ebs.setdefault("VolumeSize", snapshot.volume.size)
            ebs["Encrypted"] = snapshot.encrypted
            if ebs["VolumeSize"] < snapshot.volume.size:
                raise Refused(
                    "InvalidBlockDeviceMapping",
                    f"Volume of size {ebs['VolumeSize']}GB is smaller than snapshot '{snapshot.id}', "
                    f"expect size>= {snapshot.volume.size}GB",
                )
        elif not ebs.get("VolumeSize"):
            raise Refused("MissingParameter", "a volume without a snapshot needs a size")
        else:
            ebs.setdefault("Encrypted", False)
        ebs.setdefault("VolumeType", "gp2")
        if ebs["VolumeType"] not in VOLUME_TYPES:
            raise Refused("InvalidParameterValue", f"Value ({ebs['VolumeType']}) for parameter VolumeType is invalid")
        if ebs.get("Iops") and ebs["VolumeType"] not in ("gp3", "io1", "io2"):
            raise Refused("InvalidParameterCombination", f"iops is not supported for {ebs['VolumeType']} volumes.")
        if ebs.get("Throughput") and ebs["VolumeType"] != "gp3":
            raise Refused("InvalidParameterCombination", f"throughput is not supported for {ebs['VolumeType']} volumes.")
        ebs.setdefault("DeleteOnTermination", True)
        out.append({"DeviceName": mapping["DeviceName"], "Ebs": ebs})
    names = [m["DeviceName"] for m in out]
    if len(set(names)) != len(names):
        raise Refused("InvalidBlockDeviceMapping", "a device name is given twice")
    return out


def register_image(self):
    """RegisterImage. Assumptions:
    - Architecture is i386 and VirtualizationType paravirtual where not given (documented: S4);
    - the root device must be among the mappings, with a snapshot; it is /dev/sda1 where not named;
    - TpmSupport v2.0 and UefiData need a boot mode that can be UEFI;
    - billing codes are the root snapshot's, but those of Windows, RHEL, SUSE and SQL are lost (S5): `billing` of a seeded
      snapshot says (PlatformDetails, UsageOperation, kept by RegisterImage);
    - product codes of the snapshots become the image's;
    - it is pending for `image_seconds`; only tags of `image` are taken."""
    params, account = self.params, self.current_account
    check_name(account, self.region, params.get("Name"))
    tags = describing.tags_given(params, ["image"])["image"]
    mappings = checked_mappings(account, self.region, params.get("BlockDeviceMappings"))
    root = params.get("RootDeviceName") or "/dev/sda1"
    at_root = [m for m in mappings if m["DeviceName"] == root and (m.get("Ebs") or {}).get("SnapshotId")]
    if not at_root:
        raise Refused("InvalidBlockDeviceMapping", f"the root device {root} has no snapshot among the mappings")
    fields = {k: params[k] for k in KEPT if params.get(k) is not None}
    fields["RootDeviceName"] = root
    fields.setdefault("Architecture", "i386")
    fields.setdefault("VirtualizationType", "paravirtual")
    fields.setdefault("EnaSupport", False)
    uefi = fields.get("BootMode") in ("uefi", "uefi-preferred")
    if fields.get("TpmSupport") and fields.get("BootMode") != "uefi":
        raise Refused("InvalidParameterCombination", "TpmSupport needs the boot mode uefi")
    if params.get("UefiData"):
        if len(params["UefiData"]) > 64000:
            raise Refused("InvalidParameterValue", "UefiData has at most 64000 characters")
        if not uefi:
            raise Refused("InvalidParameterCombination", "UefiData needs a UEFI boot mode")
    self.error_on_dryrun()
    used = [snapshots.find(m["Ebs"]["SnapshotId"]) for m in mappings if (m.get("Ebs") or {}).get("SnapshotId")]
    billing = snapshots.find(at_root[0]["Ebs"]["SnapshotId"]).billing
    image = Image(
        account,
        self.region,
        params["Name"],
        params.get("Description") or "",
        fields,
        mappings,
        billing[:2] if billing and billing[2] else None,
    )
    image.uefi_data = params.get("UefiData")
    image.product_codes = sorted({code for snapshot in used for code in snapshot.product_codes})
    image.add_tags(tags)
    return ActionResult({"ImageId": image.id})


def describe_images(self):
    """DescribeImages. Assumptions:
    - without Owners and ExecutableUsers: all that the account sees: own, shared, public;
    - others' deprecated images are hidden unless IncludeDeprecated, disabled ones unless IncludeDisabled, from those who
      name them by id too: an id that is hidden is left out, and is no error;
    - one that was deregistered is listed for a while (deregistered_seconds) to its owner, as it was, which is harder than
      as `deregistered`; by its id it is not found at once;
    - the order is none that means anything: here by id, so that whoever wants the newest has to look for it."""
    self.error_on_dryrun()
    params, account = self.params, self.current_account
    ids = params.get("ImageIds") or []
    if ids:
        found = [seen_by(account, self.region, one) for one in ids]
    else:
        found = [i for i in list(_all.values()) if i.region == self.region and i.visible_to(account)]
        found += going(account, self.region)
    if not params.get("IncludeDeprecated"):
        found = [i for i in found if i.account == account or not i.is_deprecated()]
    if not params.get("IncludeDisabled"):
        found = [i for i in found if not i.disabled]
    owners = [account if o == "self" else o for o in params.get("Owners") or []]
    if owners:
        found = [i for i in found if i.account in owners or (i.owner_alias or "-") in owners]
    users = [account if u == "self" else u for u in params.get("ExecutableUsers") or []]
    if users:
        found = [
            i for i in found if ("all" in users and i.is_public) or any(i.is_shared_with(one) for one in users)
        ]
    kept = []
    for image in sorted(found, key=lambda i: i.id):
        said = image.described(account)
        tags = {t["Key"]: t["Value"] for t in said.get("Tags", [])}
        if describing.matches(params.get("Filters"), filter_values(said), tags):
            kept.append(said)
    shown, more = describing.page(kept, params, WORLD.tenant(account), 1, 1000, ids)
    return ActionResult({"Images": shown, "NextToken": more})


def filter_values(said):
    volumes = [m.get("Ebs") or {} for m in said.get("BlockDeviceMappings", [])]
    return {
        "architecture": said.get("Architecture"),
        "block-device-mapping.device-name": [m["DeviceName"] for m in said.get("BlockDeviceMappings", [])],
        "block-device-mapping.encrypted": [v.get("Encrypted") for v in volumes],
        "block-device-mapping.snapshot-id": [v.get("SnapshotId") for v in volumes],
        "block-device-mapping.volume-size": [v.get("VolumeSize") for v in volumes],
        "block-device-mapping.volume-type": [v.get("VolumeType") for v in volumes],
        "boot-mode": said.get("BootMode"),
        "creation-date": describing.text_of(said["CreationDate"].timestamp()),
        "description": said.get("Description"),
        "ena-support": said.get("EnaSupport"),
        "hypervisor": said["Hypervisor"],
        "image-id": said["ImageId"],
        "image-type": said["ImageType"],
        "is-public": said["Public"],
        "name": said["Name"],
        "owner-alias": said.get("ImageOwnerAlias"),
        "owner-id": said["OwnerId"],
        "platform": said.get("Platform"),
        "platform-details": said["PlatformDetails"],
        "product-code": [c["ProductCodeId"] for c in said.get("ProductCodes", [])],
        "root-device-name": said.get("RootDeviceName"),
        "root-device-type": said["RootDeviceType"],
        "source-image-id": said.get("SourceImageId"),
        "source-image-region": said.get("SourceImageRegion"),
        "source-instance-id": said.get("SourceInstanceId"),
        "state": said["State"],
        "sriov-net-support": said.get("SriovNetSupport"),
        "tpm-support": said.get("TpmSupport"),
        "usage-operation": said["UsageOperation"],
        "virtualization-type": said.get("VirtualizationType"),
    }


def deregister_image(self):
    """DeregisterImage. Assumptions:
    - a protected image is OperationNotPermitted;
    - DeleteAssociatedSnapshots deletes those that no other image uses; the answer names each with success or skipped;
    - an image that was there is InvalidAMIID.Unavailable for its owner afterwards; here it is NotFound as any other."""
    self.error_on_dryrun()
    image = owned_by(self.current_account, self.region, self._get_param("ImageId"))
    if image.protection != "disabled":
        raise Refused("OperationNotPermitted", f"The image {image.id} is protected against deregistration")
    remove(image)
    results = []
    if self._get_param("DeleteAssociatedSnapshots"):
        for one in image.snapshots():
            snapshot = snapshots.find(one)
            if snapshot is None:
                continue
            used = any(one in other.snapshots() for other in _all.values())
            if not used and snapshot.account == image.account:
                snapshots.remove(snapshot)
            results.append({"SnapshotId": one, "ReturnCode": "skipped" if used else "success"})
    return ActionResult({"Return": True, "DeleteSnapshotResults": results})


def install(moto):
    for function in (register_image, describe_images, deregister_image):
        moto.replace(EC2Response, function.__name__, function)
