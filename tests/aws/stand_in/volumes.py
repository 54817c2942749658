"""EC2's volumes that are made by themselves: CreateVolume and what is done with one. Those of instances are instances.py's.

moto keeps the objects (volumes, attachments, tags, filters); the rules, the states and the content are ours.

Assumptions:
- A volume's content is its snapshot's, with noise where nothing was ever written, up to `noise_mebibytes` (machine.py).
- What is written to an attached volume is in its snapshots from the moment that it is written and synced.
- A volume is `creating` for `volume_seconds`, `attaching` for no time, `detaching` as long as something on the machine uses
  its device."""

import hashlib
import os
import shutil
import subprocess
import tempfile

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.models.elastic_block_store import Volume
from moto.ec2.responses import EC2Response

from . import describing, hosts, snapshots
from .blocks import BLOCK_SIZE
from .ending import when_ending
from .errors import Refused
from .instances import digest_of
from .world import SETTINGS, WORLD

HOLE = bytes(BLOCK_SIZE)

# From CreateVolume until the volume is available.
SETTINGS.update({"volume_seconds": 0.0})

# Loop devices that are attached for an instance that is this machine.
_loops = set()


def _end_all():
    for loop in list(_loops):
        subprocess.run(["losetup", "--detach", loop], check=False)


when_ending(_end_all)


class Disk:
    """The content of a volume as a file, made when it is attached to this machine."""

    def __init__(self, blocks, gib, noise_mebibytes):
        self.folder = tempfile.mkdtemp(prefix="volume-", dir=WORLD.folder)
        self.path = os.path.join(self.folder, "disk.raw")
        self.blocks, self.count = blocks, (gib << 30) // BLOCK_SIZE
        self.noise, self.noisy = os.urandom(4096) * (BLOCK_SIZE // 4096), (noise_mebibytes << 20) // BLOCK_SIZE
        with open(self.path, "wb") as file:
            file.truncate(gib << 30)
            for index in range(self.count):
                data = self._at_first(index)
                if data != HOLE:
                    os.pwrite(file.fileno(), data, index * BLOCK_SIZE)
        self.loop = None

    def _at_first(self, index):
        known = self.blocks.get(index)
        if known is not None:
            return known[0]
        return self.noise if index < self.noisy else HOLE

    def changed(self):
        """(index, bytes) of the blocks that are not as they were at first. Zeros where nothing ever was are left out."""
        with open(self.path, "rb") as file:
            for index in range(self.count):
                data = os.pread(file.fileno(), BLOCK_SIZE, index * BLOCK_SIZE)
                if data != self._at_first(index):
                    yield index, data

    def attach(self):
        said = subprocess.run(["losetup", "--find", "--show", self.path], check=True, capture_output=True, text=True)
        self.loop = said.stdout.strip()
        _loops.add(self.loop)
        return os.stat(self.loop).st_rdev

    def detach(self):
        """Where somebody uses it, it goes with the last who does."""
        subprocess.run(["losetup", "--detach", self.loop], check=True)

    def is_attached(self):
        if self.loop is None:
            return False
        if os.path.exists(f"/sys/block/{os.path.basename(self.loop)}/loop/backing_file"):
            return True
        _loops.discard(self.loop)
        self.loop = None
        return False

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def of_its_own(volume):
    return getattr(volume, "made", None) is not None


def status(volume):
    """Assumption: one that an instance was launched with is there at once."""
    if of_its_own(volume) and WORLD.tenant(volume.ec2_backend.account_id).now() < volume.available_at:
        return "creating"
    settle(volume)
    return "in-use" if volume.attachment else "available"


def settle(volume):
    """Ends a detaching whose device nobody uses any more."""
    disk = getattr(volume, "disk", None)
    if volume.attachment and volume.attachment.status == "detaching" and not (disk and disk.is_attached()):
        volume.attachment.instance.block_device_mapping.pop(volume.attachment.device, None)
        volume.attachment = None


def found(self):
    volume_id = self._get_param("VolumeId")
    volume = self.ec2_backend.volumes.get(volume_id)
    if volume is None:
        raise Refused("InvalidVolume.NotFound", f"The volume '{volume_id}' does not exist.")
    settle(volume)
    return volume


def create_volume(self):
    """CreateVolume. Assumptions:
    - only from a completed snapshot; its size is the snapshot's at least;
    - it is encrypted as its snapshot, else by the account's default;
    - a ClientToken with the same parameters gives the same volume, with others IdempotentParameterMismatch."""
    backend, params = self.ec2_backend, self.params
    account, region = self.current_account, self.region
    tenant = WORLD.tenant(account)
    if not hasattr(backend, "stand_in_volume_tokens"):
        backend.stand_in_volume_tokens = {}
    digest, token = digest_of(params), self._get_param("ClientToken")
    if token and token in backend.stand_in_volume_tokens:
        known, volume = backend.stand_in_volume_tokens[token]
        if known != digest:
            raise Refused(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
            )
        return ActionResult(volume)
    zone = self._get_param("AvailabilityZone")
    if zone not in [one.name for one in backend.describe_availability_zones()]:
        raise Refused("InvalidZone.NotFound", f"The zone '{zone}' does not exist.")
    source = snapshots.seen_by(account, region, self._get_param("SnapshotId"))
    if source.status != "completed":
        raise Refused("IncorrectState", f"Snapshot is in invalid state - {source.status}")
    size = int(self._get_param("Size") or source.volume.size)
    if size < source.volume.size:
        raise Refused("InvalidParameterValue", f"Volume of size {size}GB is smaller than snapshot '{source.id}', expect size >= {source.volume.size}GB")
    tags = describing.tags_given(params, ["volume"])["volume"]
    self.error_on_dryrun()
    kind = self._get_param("VolumeType") or "gp2"
    volume = backend.create_volume(size=size, zone_name=zone, snapshot_id=None, encrypted=False, volume_type=kind)
    volume.snapshot_id = source.id
    key = source.kms_key_id if source.encrypted else snapshots.key_of(account, region, None, False)
    volume.encrypted, volume.kms_key_id = key is not None, key
    volume.made, volume.available_at = tenant.now(), tenant.now() + tenant.settings["volume_seconds"]
    volume.source, volume.disk = source.blocks, None
    volume.add_tags(tags)
    if token:
        backend.stand_in_volume_tokens[token] = (digest, volume)
    return ActionResult(volume)


def describe_volumes(self):
    """DescribeVolumes. Assumptions:
    - an id that is not there is InvalidVolume.NotFound, for all ids together;
    - right after it was made a volume may be missing (describe_not_found_seconds);
    - filters by tag, state, attachment and some more; another is refused."""
    params, backend = self.params, self.ec2_backend
    tenant = WORLD.tenant(self.current_account)
    late = tenant.settings["describe_not_found_seconds"]
    shown = [v for v in backend.volumes.values() if not of_its_own(v) or tenant.now() >= v.made + late]
    ids = self._get_param("VolumeIds", [])
    for one in ids:
        if one not in [v.id for v in shown]:
            raise Refused("InvalidVolume.NotFound", f"The volume '{one}' does not exist.")
    for volume in shown:
        settle(volume)
    named = [v for v in shown if not ids or v.id in ids]
    kept = [v for v in named if describing.matches(params.get("Filters"), values_of(v), describing.tags_of(v))]
    page, more = describing.page(kept, params, tenant, 5, 1000, ids)
    return ActionResult({"Volumes": page, "NextToken": more})


def values_of(volume):
    """What filters compare."""
    attachment = volume.attachment
    return {
        "attachment.device": attachment.device if attachment else None,
        "attachment.instance-id": attachment.instance.id if attachment else None,
        "attachment.status": attachment.status if attachment else None,
        "availability-zone": volume.zone.name,
        "encrypted": volume.encrypted,
        "size": volume.size,
        "snapshot-id": volume.snapshot_id,
        "status": volume.status,
        "volume-id": volume.id,
        "volume-type": volume.volume_type,
    }


def attach_volume(self):
    """AttachVolume. Assumptions:
    - the volume is available, the instance running or stopped, both in one zone, and nothing else at that name;
    - where the instance is this machine (hosts.py), the volume shows there as an NVMe device."""
    volume = found(self)
    instance_id, device = self._get_param("InstanceId"), self._get_param("Device")
    instance = self.ec2_backend.get_instance_by_id(instance_id)
    if instance is None:
        raise Refused("InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist")
    self.error_on_dryrun()
    if instance.state not in ("running", "stopped"):
        raise Refused("IncorrectState", f"Instance '{instance_id}' is not 'running'.")
    if volume.attachment:
        raise Refused("VolumeInUse", f"{volume.id} is already attached to an instance")
    if volume.status != "available":
        raise Refused("IncorrectState", f"{volume.id} is not 'available'.")
    if volume.zone.name != instance.availability_zone:
        raise Refused("InvalidVolume.ZoneMismatch", f"The volume '{volume.id}' is not in the same availability zone as instance '{instance_id}'")
    if device in instance.block_device_mapping:
        raise Refused("InvalidParameterValue", f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use")
    host = hosts.of_instance(instance_id)
    if host is not None:
        if volume.disk is None:
            volume.disk = Disk(volume.source, volume.size, WORLD.tenant(self.current_account).settings["noise_mebibytes"])
        host.show(volume.id, volume.disk.attach())
    attachment = self.ec2_backend.attach_volume(volume.id, instance_id, device)
    return ActionResult(_of(attachment, "attaching"))


def detach_volume(self):
    """DetachVolume. Assumption: a volume that is not attached is IncorrectState; one that detaches already is answered alike."""
    volume = found(self)
    self.error_on_dryrun()
    attachment = volume.attachment
    if attachment is None:
        raise Refused("IncorrectState", f"Volume '{volume.id}' is in the 'available' state.")
    host = hosts.of_instance(attachment.instance.id)
    if host is not None and attachment.status != "detaching":
        host.hide(volume.id)
        volume.disk.detach()
    attachment.status = "detaching"
    return ActionResult(_of(attachment, "detaching"))


def _of(attachment, state):
    return {
        "VolumeId": attachment.volume.id,
        "InstanceId": attachment.instance.id,
        "Device": attachment.device,
        "State": state,
        "AttachTime": attachment.attach_time,
    }


def delete_volume(self):
    """DeleteVolume. Assumption: it is gone at once."""
    volume = found(self)
    self.error_on_dryrun()
    if volume.attachment:
        raise Refused("VolumeInUse", f"Volume {volume.id} is currently attached to {volume.attachment.instance.id}")
    if of_its_own(volume) and volume.disk is not None:
        volume.disk.remove()
    del self.ec2_backend.volumes[volume.id]
    self.ec2_backend.tags.pop(volume.id, None)
    return EmptyResult()


def create_snapshot(self):
    """CreateSnapshot. Assumptions:
    - it is a child of the snapshot that the volume was made from, with the blocks that were written since; a block that nobody
      ever wrote stays absent;
    - it is encrypted as the volume is, pending, and completed `complete_seconds` later."""
    volume = found(self)
    tags = describing.tags_given(self.params, ["snapshot"])["snapshot"]
    self.error_on_dryrun()
    if volume.status == "creating":
        raise Refused("IncorrectState", f"{volume.id} is not 'available'.")
    parent = snapshots.find(volume.snapshot_id)
    key = volume.kms_key_id if volume.encrypted else None
    description = self._get_param("Description") or ""
    snapshot = snapshots.Snapshot(self.current_account, self.region, volume.size, description, parent, key=key)
    snapshot.volume.id = volume.id
    snapshot.add_tags(tags)
    for index, data in volume.disk.changed() if of_its_own(volume) and volume.disk is not None else []:
        snapshot.blocks.put(index, data, hashlib.sha256(data).digest())
    snapshot.complete()
    return ActionResult(snapshot.described())


def install(moto):
    for function in (create_volume, describe_volumes, attach_volume, detach_volume, delete_volume, create_snapshot):
        moto.replace(EC2Response, function.__name__, function)
    moto.replace(Volume, "status", property(status))
