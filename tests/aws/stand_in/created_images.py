"""CreateImage: an image of an instance, whose snapshots hold what is really on its disk."""

import hashlib
import threading
import time

from moto.core.responses import ActionResult
from moto.ec2.responses import EC2Response

from . import describing, images, snapshots
from .errors import Refused
from .instances import machine_of, refuse_state
from .world import SETTINGS

SETTINGS.update(
    {
        # A reason: images that CreateImage makes fail with it, after they were pending.
        "create_image_failure": None,
    }
)

CARRIED = ("Architecture", "BootMode", "EnaSupport", "ImdsSupport", "RootDeviceName", "SriovNetSupport", "TpmSupport",
           "VirtualizationType")  # fmt: skip


def create_image(self):
    """CreateImage. Assumptions:
    - the instance is running or stopped; a running one is rebooted unless NoReboot, and goes down before its disk is read;
    - the image's snapshots are children of those that the volumes were made from, of the same encryption; a block that nobody
      ever wrote stays absent;
    - image and snapshots are pending until the disk was read, then for `image_seconds` and `complete_seconds`;
    - a mapping of the request changes a volume's size, type, DeleteOnTermination, iops and throughput, leaves a volume out
      (NoDevice) or adds one from a snapshot or an empty one; it cannot change the root's snapshot or encryption;
    - boot mode, UEFI data, TPM, IMDS, ENA, billing and product codes are those of the instance's image, also where that image
      is gone by now;
    - after a failure the image is `failed` with a StateReason, and its snapshots are `error`."""
    params, account, region = self.params, self.current_account, self.region
    (instance,) = self.ec2_backend.get_multi_instances_by_id([self._get_param("InstanceId")])
    machine = machine_of(instance)
    images.check_name(account, region, params.get("Name"))
    tags = describing.tags_given(params, ["image", "snapshot"])
    if machine.state not in ("running", "stopped"):
        refuse_state(instance, "imaged")
    volumes = {
        device: self.ec2_backend.volumes[attached.volume_id] for device, attached in instance.block_device_mapping.items()
    }
    changed, added = changes_of(params, volumes, machine.image["RootDeviceName"], account, region)
    self.error_on_dryrun()
    fields = {k: machine.image[k] for k in CARRIED if k in machine.image}
    billing = (machine.image["PlatformDetails"], machine.image["UsageOperation"])
    image = images.Image(
        account, region, params["Name"], params.get("Description") or "", fields, [], billing, seconds=float("inf")
    )
    origin = images.find(instance.image_id)
    image.uefi_data = origin.uefi_data if origin is not None else None
    image.product_codes = [one["ProductCodeId"] for one in machine.image.get("ProductCodes", [])]
    image.source = {"SourceInstanceId": instance.id}
    image.add_tags(tags["image"])
    made = []
    for device, volume in volumes.items():
        if changed[device] is None:
            continue
        snapshot = snapshot_of(volume, image, account, region)
        snapshot.add_tags(tags["snapshot"])
        made.append((device, snapshot))
        ebs = {
            "SnapshotId": snapshot.id,
            "VolumeSize": volume.size,
            "VolumeType": volume.volume_type,
            "DeleteOnTermination": instance.block_device_mapping[device].delete_on_termination,
            "Encrypted": snapshot.encrypted,
        }
        for key, value in (("Iops", volume.iops), ("Throughput", volume.throughput)):
            if value and volume.volume_type != "gp2":
                ebs[key] = int(value)
        ebs.update(changed[device])
        image.mappings.append({"DeviceName": device, "Ebs": ebs})
    image.mappings += added
    work = threading.Thread(
        target=capture, args=(machine, image, made, self._get_bool_param("NoReboot", False)), daemon=True
    )
    work.start()
    return ActionResult({"ImageId": image.id})


def changes_of(params, volumes, root, account, region):
    """({device: what the request changes of its mapping, or None where it is left out}, further mappings)."""
    changed, added = {device: {} for device in volumes}, []
    for mapping in params.get("BlockDeviceMappings") or []:
        device, ebs = mapping.get("DeviceName"), dict(mapping.get("Ebs") or {})
        if device not in volumes:
            added += images.checked_mappings(account, region, [mapping])
        elif "NoDevice" in mapping:
            if device == root:
                raise Refused("InvalidBlockDeviceMapping", f"The root device {root} cannot be left out")
            changed[device] = None
        else:
            if ebs.get("SnapshotId") or ebs.get("Encrypted") is not None or ebs.get("KmsKeyId"):
                raise Refused(
                    "InvalidBlockDeviceMapping", f"snapshot and encryption of {device} are those of the instance's volume"
                )
            if int(ebs.get("VolumeSize") or volumes[device].size) < volumes[device].size:
                raise Refused("InvalidBlockDeviceMapping", f"{device} has {volumes[device].size}GB and cannot be made smaller")
            changed[device] = ebs
    return changed, added


def snapshot_of(volume, image, account, region):
    """A pending snapshot of a volume, with what its parent has."""
    parent = snapshots.find(volume.snapshot_id)
    key = volume.kms_key_id if volume.encrypted else None
    snapshot = snapshots.Snapshot(
        account, region, volume.size, f"Created by CreateImage({image.source['SourceInstanceId']}) for {image.id}", parent, key=key
    )
    snapshot.volume.id = volume.id
    return snapshot


def capture(machine, image, made, no_reboot):
    """Reads the root's disk into its snapshot, and ends what is pending."""
    try:
        if machine.state == "running" and not no_reboot:
            machine.down_for(lambda: read_disk(machine, made))
        else:
            machine.settle()
            read_disk(machine, made)
        why = machine.setting("create_image_failure")
        # A failure shows only after it was pending.
        time.sleep(0.2 if why else 0)
    except Exception as error:  # told as the stand-in's failure: the test fails by it
        why = f"{type(error).__name__}: {error}"
        image.tenant.find(f"CreateImage of {machine.instance.id}: {why}")
    for _, snapshot in made:
        if why:
            snapshot.fail(why)
        else:
            snapshot.complete()
    if why:
        image.fail("Client.InternalError", why)
    else:
        done = max(image.tenant.settings["complete_seconds"], image.tenant.settings["image_seconds"])
        image._available_at = image.tenant.now() + done


def read_disk(machine, made):
    for device, snapshot in made:
        if device != machine.facts["root"]:
            continue
        for index, block in machine.blocks():
            digest = hashlib.sha256(block).digest()
            known = snapshot.blocks.all.get(index)
            if known is None or known[1] != digest:
                snapshot.blocks.put(index, block, digest)


def install(moto):
    moto.replace(EC2Response, "create_image", create_image)
