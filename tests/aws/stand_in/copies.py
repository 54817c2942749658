"""CopyImage (docs/what-aws-has-seen.md): into the account that asks, with the blocks of its snapshots."""

import json

from moto.core.responses import ActionResult
from moto.ec2.responses import EC2Response

from . import describing, images, snapshots
from .errors import Refused
from .world import WORLD

# (account, region, client token) → (what was asked, the image's id)
_asked = {}


def copy_image(self):
    """CopyImage. Assumptions:
    - the same ClientToken with the same request gives the same image, with another IdempotentParameterMismatch;
    - the caller sees the image; each of its snapshots is the caller's own, public, or shared with it: else InvalidRequest,
      "You do not have permission to access the storage of this ami";
    - an image with product codes of another account, or one that is seeded as not copyable, is refused;
    - Encrypted or KmsKeyId encrypt the copies, encrypted ones stay so; a key that cannot be used shows later: the image is
      `failed` with a StateReason and its snapshots are in error;
    - launch permissions are not copied; tags only with CopyImageTags and from an own image; TagSpecifications of `image`
      and `snapshot` are set in the call;
    - the copy is pending until its snapshots are completed; it keeps billing and UEFI data."""
    params, account = self.params, self.current_account
    tenant = WORLD.tenant(account)
    asked = json.dumps({k: v for k, v in params.items() if k != "ClientToken"}, sort_keys=True, default=str)
    token = (account, self.region, params.get("ClientToken"))
    if token[2] is not None and token in _asked:
        before, image_id = _asked[token]
        if before != asked:
            raise Refused("IdempotentParameterMismatch", "The client token was used with other parameters")
        return ActionResult({"ImageId": image_id})
    source = images.seen_by(account, params.get("SourceRegion") or self.region, params["SourceImageId"])
    images.check_name(account, self.region, params.get("Name"))
    tags = describing.tags_given(params, ["image", "snapshot"])
    if source.state != "available":
        raise Refused("InvalidAMIID.Unavailable", f"The image {source.id} is {source.state}")
    if source.account != account and (source.product_codes or not source.can_be_copied):
        raise Refused("InvalidRequest", f"The image {source.id} cannot be copied")
    pairs = []
    for mapping in source.mappings:
        snapshot = snapshots.find((mapping.get("Ebs") or {}).get("SnapshotId"))
        if snapshot is not None:
            allowed = snapshot.account == account or snapshot.is_public() or snapshot.is_shared_with(account)
            if not allowed:
                raise Refused("InvalidRequest", "You do not have permission to access the storage of this ami")
        pairs.append((mapping, snapshot))
    self.error_on_dryrun()
    named = params.get("KmsKeyId")
    if named is not None and params.get("Encrypted") is False:
        raise Refused("InvalidParameterCombination", "KmsKeyId needs Encrypted")
    wait = max(tenant.settings["image_seconds"], tenant.settings["complete_seconds"])
    mappings, wrong_key = [], None
    for mapping, snapshot in pairs:
        if snapshot is None:
            mappings.append(mapping)
            continue
        encrypted = snapshot.encrypted or params.get("Encrypted") or named is not None
        key = snapshots.key_of(account, self.region, named, encrypted)
        description = f"Copied for DestinationAmi from SourceAmi {source.id} for SourceSnapshot {snapshot.id}"
        copy = snapshots.copied(snapshot, account, self.region, description, key, wait)
        copy.add_tags(tags["snapshot"])
        if key is not None and not snapshots.usable_key(key):
            wrong_key = key
            copy.fail(f"Given key ID is not accessible: {key}")
        mappings.append({**mapping, "Ebs": {**mapping["Ebs"], "SnapshotId": copy.id, "Encrypted": copy.encrypted}})
    image = images.Image(
        account,
        self.region,
        params["Name"],
        params.get("Description") or "",
        source.fields,
        mappings,
        source.billing,
        wait,
    )
    image.uefi_data = source.uefi_data
    image.product_codes = list(source.product_codes)
    image.source = {"SourceImageId": source.id, "SourceImageRegion": source.region}
    if wrong_key is not None:
        image.fail("Client.InvalidSnapshot.KmsKey", f"Given key ID is not accessible: {wrong_key}")
    if params.get("CopyImageTags") and source.account == account:
        image.add_tags({k: v for k, v in describing.tags_of(source).items() if not k.startswith("aws:")})
    image.add_tags(tags["image"])
    if token[2] is not None:
        _asked[token] = (asked, image.id)
    return ActionResult({"ImageId": image.id})


def install(moto):
    moto.replace(EC2Response, "copy_image", copy_image)
