"""Snapshots as EC2 has them: what they hold, their states, whom they are shared with, and EC2's calls on them. How blocks get
into them is ebs.py's."""

import types

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.models import ec2_backends
from moto.ec2.models.elastic_block_store import Snapshot as MotoSnapshot
from moto.ec2.responses import EC2Response
from moto.ec2.utils import random_snapshot_id

from . import describing
from .blocks import BLOCK_SIZE, Blocks
from .errors import Refused
from .world import WORLD

# What EC2 shows as the volume of a snapshot that the EBS direct APIs made.
NO_VOLUME = "vol-ffffffff"

# Every snapshot by its id, whoever owns it.
_all = {}


class Snapshot(MotoSnapshot):
    """moto's, so that tags and volumes work; with content, and a state that goes by the tenant's clock."""

    def __init__(self, account, region, gib, description="", parent=None, blocks=None, key=None, timeout=None):
        backend = ec2_backends[account][region]
        volume = types.SimpleNamespace(id=NO_VOLUME, size=gib, encrypted=key is not None)
        super().__init__(backend, random_snapshot_id(), volume, description, key is not None, key, account)
        self.account, self.region, self.tenant = account, region, WORLD.tenant(account)
        self.parent = parent.id if parent is not None else None
        # Snapshots of one lineage can be compared.
        self.lineage = parent.lineage if parent is not None else self.id
        self.blocks = blocks if blocks is not None else Blocks(parent.blocks if parent is not None else None)
        self.product_codes = list(parent.product_codes) if parent is not None else []
        self.billing = parent.billing if parent is not None else None
        self.started = self.touched = self.tenant.now()
        # Minutes without a write after which EBS gives it up; None for a snapshot that EC2 makes by itself.
        self.timeout = timeout
        self.completed_with = None
        self._done_at = None
        self._error = None
        _all[self.id] = self
        backend.snapshots[self.id] = self

    # moto's base class sets these; here they follow from the clock.
    @property
    def status(self):
        if self._error is not None:
            return "error"
        now = self.tenant.now()
        if self._done_at is not None:
            return "completed" if now >= self._done_at else "pending"
        if self.timeout is not None and now >= self.touched + self.timeout * 60:
            return "error"
        return "pending"

    @status.setter
    def status(self, _):
        pass

    @property
    def is_open(self):
        """Whether blocks may be put: pending, and not yet told to complete."""
        return self._done_at is None and self.status == "pending"

    @property
    def is_listed(self):
        """Whether EBS knows it to be completed, as EC2 does."""
        late = self.tenant.settings["list_not_found_seconds"]
        return self.status == "completed" and self.tenant.now() >= self._done_at + late

    @property
    def state_message(self):
        if self._error is not None:
            return self._error
        return "Snapshot timed out" if self.status == "error" else None

    @property
    def progress(self):
        if self.status == "completed":
            return "100%"
        if self._done_at is None:
            return "0%"
        whole = max(self._done_at - self._done_from, 0.001)
        return f"{min(99, max(0, int(100 * (self.tenant.now() - self._done_from) / whole)))}%"

    def complete(self, seconds=None):
        """It is completed in so many seconds; the tenant's `complete_seconds` where none are given."""
        self._done_from = self.tenant.now()
        self._done_at = self._done_from + (self.tenant.settings["complete_seconds"] if seconds is None else seconds)

    def fail(self, why):
        self._error = why

    def is_public(self):
        return "all" in self.create_volume_permission_groups

    def is_shared_with(self, account):
        return account in self.create_volume_permission_userids

    def visible_to(self, account):
        if self.tenant.name != account[:10]:
            return False
        if self.tenant.now() < self.started + self.tenant.settings["describe_not_found_seconds"]:
            return False
        return self.account == account or self.is_public() or self.is_shared_with(account)

    def described(self):
        said = {
            "SnapshotId": self.id,
            "VolumeId": self.volume.id,
            "State": self.status,
            "StateMessage": self.state_message,
            "StartTime": describing.time_of(self.started),
            "Progress": self.progress,
            "OwnerId": self.account,
            "Description": self.description or "",
            "VolumeSize": self.volume.size,
            "Encrypted": self.encrypted,
            "KmsKeyId": self.kms_key_id,
            "StorageTier": "standard",
            "Tags": describing.tag_list(self),
        }
        if self.status == "completed":
            said["CompletionTime"] = describing.time_of(self._done_at)
            said["FullSnapshotSizeInBytes"] = len(self.blocks.all) * BLOCK_SIZE
        return {k: v for k, v in said.items() if v is not None}


def find(snapshot_id):
    """A snapshot by its id, whoever owns it, or None."""
    return _all.get(snapshot_id)


def seen_by(account, region, snapshot_id):
    """A snapshot as EC2's calls see it."""
    snapshot = _all.get(snapshot_id)
    if snapshot is None or snapshot.region != region or not snapshot.visible_to(account):
        raise Refused("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")
    return snapshot


def owned_by(account, region, snapshot_id):
    snapshot = seen_by(account, region, snapshot_id)
    if snapshot.account != account:
        raise Refused("AuthFailure", f"Not authorized for snapshot {snapshot_id}")
    return snapshot


def of_account(account, region=None):
    return [s for s in _all.values() if s.account == account and region in (None, s.region)]


def remove(snapshot):
    del _all[snapshot.id]
    snapshot.ec2_backend.snapshots.pop(snapshot.id, None)
    snapshot.ec2_backend.tags.pop(snapshot.id, None)


def describe_snapshots(self):
    """DescribeSnapshots. Assumptions:
    - without OwnerIds or RestorableByUserIds: the account's own, those shared with it and the public ones;
    - an id that is not there or not visible is InvalidSnapshot.NotFound, for all ids together;
    - the parent of a snapshot shows nowhere;
    - right after it was started a snapshot may be missing (describe_not_found_seconds)."""
    self.error_on_dryrun()
    params, account = self.params, self.current_account
    ids = params.get("SnapshotIds") or []
    if ids:
        found = [seen_by(account, self.region, one) for one in ids]
    else:
        found = [s for s in list(_all.values()) if s.region == self.region and s.visible_to(account)]
    owners = [account if o == "self" else o for o in params.get("OwnerIds") or []]
    if owners:
        found = [s for s in found if s.account in owners]
    restorable = [account if o == "self" else o for o in params.get("RestorableByUserIds") or []]
    if restorable:
        found = [
            s
            for s in found
            if ("all" in restorable and s.is_public())
            or any(s.account == one or s.is_shared_with(one) for one in restorable)
        ]
    said = [(s, s.described()) for s in sorted(found, key=lambda s: (s.started, s.id))]
    kept = [
        d
        for s, d in said
        if describing.matches(
            params.get("Filters"),
            {
                "description": d["Description"],
                "encrypted": d["Encrypted"],
                "owner-id": d["OwnerId"],
                "owner-alias": None,
                "progress": d["Progress"],
                "snapshot-id": d["SnapshotId"],
                "start-time": describing.text_of(s.started),
                "status": d["State"],
                "storage-tier": d["StorageTier"],
                "volume-id": d["VolumeId"],
                "volume-size": d["VolumeSize"],
            },
            describing.tags_of(s),
        )
    ]
    shown, more = describing.page(kept, params, WORLD.tenant(account), 5, 1000, ids)
    return ActionResult({"Snapshots": shown, "NextToken": more})


def delete_snapshot(self):
    """DeleteSnapshot. Assumptions:
    - a pending snapshot can be deleted;
    - one that an image of its account uses is InvalidSnapshot.InUse, for a while after the image is deregistered too
      (deregistered_seconds);
    - its children keep their blocks."""
    self.error_on_dryrun()
    snapshot = owned_by(self.current_account, self.region, self._get_param("SnapshotId"))
    from .images import going

    for image in [*snapshot.ec2_backend.amis.values(), *going(snapshot.account, snapshot.region)]:
        if snapshot.id in image.snapshots():
            raise Refused(
                "InvalidSnapshot.InUse", f"The snapshot {snapshot.id} is currently in use by {image.id}"
            )
    remove(snapshot)
    return EmptyResult()


def modify_snapshot_attribute(self):
    """ModifySnapshotAttribute. Assumptions:
    - a snapshot under the account's default key cannot be shared, an encrypted one not be made public;
    - block public access for snapshots refuses `all` where it is on."""
    self.error_on_dryrun()
    params = self.params
    snapshot = owned_by(self.current_account, self.region, params.get("SnapshotId"))
    add = list((params.get("CreateVolumePermission") or {}).get("Add") or [])
    take = list((params.get("CreateVolumePermission") or {}).get("Remove") or [])
    into = {"add": add, "remove": take}.get(params.get("OperationType"), [])
    into += [{"UserId": one} for one in params.get("UserIds") or []]
    into += [{"Group": one} for one in params.get("GroupNames") or []]
    if add and snapshot.encrypted:
        if any(one.get("Group") for one in add) or snapshot.kms_key_id == snapshot.ec2_backend.default_kms_key_id:
            raise Refused("InvalidParameter", f"The snapshot {snapshot.id} is encrypted and cannot be shared so")
    if any(one.get("Group") for one in add) and getattr(snapshot.ec2_backend, "snapshot_block_public", None):
        raise Refused("OperationNotPermitted", "Block public access for snapshots is on")
    for one in add:
        snapshot.create_volume_permission_userids.update({one["UserId"]} if one.get("UserId") else set())
        snapshot.create_volume_permission_groups.update({one["Group"]} if one.get("Group") else set())
    for one in take:
        snapshot.create_volume_permission_userids.discard(one.get("UserId"))
        snapshot.create_volume_permission_groups.discard(one.get("Group"))
    return EmptyResult()


def describe_snapshot_attribute(self):
    """DescribeSnapshotAttribute: createVolumePermission and productCodes, to the owner alone."""
    self.error_on_dryrun()
    snapshot = owned_by(self.current_account, self.region, self._get_param("SnapshotId"))
    if self._get_param("Attribute") == "productCodes":
        codes = [{"ProductCodeId": code, "ProductCodeType": "marketplace"} for code in snapshot.product_codes]
        return ActionResult({"SnapshotId": snapshot.id, "ProductCodes": codes})
    permissions = [{"Group": one} for one in sorted(snapshot.create_volume_permission_groups)]
    permissions += [{"UserId": one} for one in sorted(snapshot.create_volume_permission_userids)]
    return ActionResult({"SnapshotId": snapshot.id, "CreateVolumePermissions": permissions})


def copied(source, account, region, description, key, seconds=None):
    """A copy of a snapshot with its blocks, of a lineage of its own. Its key is its own too."""
    copy = Snapshot(account, region, source.volume.size, description, key=key)
    copy.blocks = Blocks(source.blocks)
    copy.product_codes, copy.billing = list(source.product_codes), source.billing
    copy.complete(seconds)
    return copy


def copy_snapshot(self):
    """CopySnapshot. Assumptions:
    - own snapshots, shared and public ones can be copied when completed;
    - Encrypted without KmsKeyId takes the account's default key; what is encrypted stays so."""
    self.error_on_dryrun()
    params, account = self.params, self.current_account
    source = seen_by(account, params.get("SourceRegion") or self.region, params["SourceSnapshotId"])
    if source.status != "completed":
        raise Refused("IncorrectState", f"The snapshot {source.id} is {source.status}, not completed")
    tags = describing.tags_given(params, ["snapshot"])["snapshot"]
    key = key_of(account, self.region, params.get("KmsKeyId"), params.get("Encrypted") or source.encrypted)
    copy = copied(source, account, self.region, params.get("Description") or "", key)
    copy.add_tags(tags)
    return ActionResult({"SnapshotId": copy.id, "Tags": describing.tag_list(copy)})


def default_key(account, region):
    """The ARN of the key that encrypts where none is named."""
    backend = ec2_backends[account][region]
    if not backend.default_kms_key_id:
        backend._create_default_encryption_key()
    return backend.default_kms_key_id


def encrypts_by_default(account, region):
    return ec2_backends[account][region].ebs_encryption_by_default


def key_of(account, region, named, encrypted):
    """The ARN of the key that a new snapshot gets: the one named (id, ARN or alias), the default one, or none."""
    if named is not None:
        if named.startswith("arn:"):
            return named
        from moto.kms.models import kms_backends

        try:
            return kms_backends[account][region].describe_key(named).arn
        except Exception:  # it is found to be wrong later, as AWS does it
            return f"arn:aws:kms:{region}:{account}:key/{named.removeprefix('key/')}"
    if encrypted or encrypts_by_default(account, region):
        return default_key(account, region)
    return None


def usable_key(arn):
    """Whether a key can be used: it is there, in its own account, enabled, and nobody deletes it."""
    from moto.kms.models import kms_backends

    try:
        _, _, _, region, account, resource = arn.split(":", 5)
        key = kms_backends[account][region].keys.get(resource.removeprefix("key/"))
    except (ValueError, KeyError):
        return False
    return key is not None and key.enabled and key.key_state == "Enabled"


def install(moto):
    for function in (
        describe_snapshots,
        delete_snapshot,
        modify_snapshot_attribute,
        describe_snapshot_attribute,
        copy_snapshot,
    ):
        moto.replace(EC2Response, function.__name__, function)
