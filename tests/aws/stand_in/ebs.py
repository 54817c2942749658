"""The EBS direct APIs (docs/what-aws-has-seen.md). They do not pass through moto: a block costs little more than its SHA-256."""

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import struct
import uuid

from . import errors, snapshots
from .blocks import BLOCK_SIZE

# Tokens are signed with it: one that was not given out here is known.
_SECRET = secrets.token_bytes(32)
BLOCK_TOKEN_SECONDS = 7 * 24 * 3600
PAGE_TOKEN_SECONDS = 60 * 60

STATUS = {
    "AccessDeniedException": 403,
    "ValidationException": 400,
    "ResourceNotFoundException": 404,
    "ConflictException": 409,
    "ConcurrentLimitExceededException": 400,
}
# (account, region, token) → (what was asked, snapshot)
_started = {}


class EbsRefused(Exception):
    def __init__(self, code, message, reason=None):
        super().__init__(message)
        self.code, self.message, self.reason = code, message, reason


def invalid(reason, message):
    return EbsRefused("ValidationException", message, reason)


def answer(request, account, tenant):
    """(status, headers, body) of one of the six operations."""
    if request.wrong:
        # AWS refuses it too; the oracle's finding says what is wrong.
        refused = invalid("INVALID_PARAMETER_VALUE", "; ".join(request.wrong))
        return errors.written("rest-json", 400, refused.code, refused.message, refused.reason)
    call = OPERATIONS[request.name]
    try:
        status, headers, body = call(account, request.region, tenant, request.params)
    except EbsRefused as refused:
        status = STATUS[refused.code]
        return errors.written("rest-json", status, refused.code, refused.message, refused.reason)
    headers.append(("x-amzn-RequestId", str(uuid.uuid4())))
    if isinstance(body, dict):
        headers.append(("Content-Type", "application/json"))
        body = json.dumps({k: v for k, v in body.items() if v is not None}).encode()
    return status, headers, body


def found(account, region, snapshot_id, write):
    """The snapshot of a call, if the account may."""
    snapshot = snapshots.find(snapshot_id)
    there = snapshot is not None and snapshot.region == region and snapshot.tenant.name == account[:10]
    if there and write and snapshot.account == account:
        hidden = snapshot.started + snapshot.tenant.settings["put_not_found_seconds"]
        there = snapshot.tenant.now() >= hidden
    if not there:
        raise EbsRefused(
            "ResourceNotFoundException", f"The snapshot '{snapshot_id}' does not exist.", "SNAPSHOT_NOT_FOUND"
        )
    if snapshot.account != account and (write or snapshot.is_public() or not snapshot.is_shared_with(account)):
        raise EbsRefused(
            "AccessDeniedException", f"The account may not do this to {snapshot_id}", "UNAUTHORIZED_ACCOUNT"
        )
    return snapshot


def readable(account, region, snapshot_id):
    """Reading. Assumptions:
    - a public snapshot cannot be read by any account but its owner's; shared ones can;
    - one that is not completed is refused as INVALID_SNAPSHOT_ID, and so is one that EBS does not yet know to be
      (list_not_found_seconds);
    - what is encrypted needs its key enabled."""
    snapshot = found(account, region, snapshot_id, write=False)
    if not snapshot.is_listed:
        raise invalid("INVALID_SNAPSHOT_ID", f"The snapshot {snapshot_id} is not completed")
    if snapshot.kms_key_id and not snapshots.usable_key(snapshot.kms_key_id):
        raise EbsRefused(
            "AccessDeniedException", f"The key {snapshot.kms_key_id} cannot be used", "DEPENDENCY_ACCESS_DENIED"
        )
    return snapshot


def start_snapshot(account, region, tenant, params):
    """StartSnapshot. Assumptions:
    - a parent belongs to the account itself, or is shared with it, and is completed;
    - a child is at least as large as its parent, else INVALID_VOLUME_SIZE;
    - the encryption table is docs/what-aws-has-seen.md; a key without Encrypted=true is refused;
    - a key that is missing, disabled or being deleted is INVALID_CUSTOMER_KEY, one of another account DEPENDENCY_ACCESS_DENIED;
    - a repeated ClientToken gives the first answer with the state of now; with other parameters it is a conflict."""
    asked = json.dumps({k: v for k, v in params.items() if k != "ClientToken"}, sort_keys=True, default=str)
    token = (account, region, params.get("ClientToken"))
    with tenant.lock:
        if token[2] is not None and token in _started:
            before, snapshot = _started[token]
            if before != asked:
                raise EbsRefused("ConflictException", "The client token was used with other parameters")
            return 201, [], told(snapshot, params)
        size = params["VolumeSize"]
        if not 1 <= size <= 65536:
            raise invalid("INVALID_VOLUME_SIZE", "a volume has from 1 to 65536 GiB")
        tags = {tag["Key"]: tag.get("Value", "") for tag in params.get("Tags") or []}
        if len(tags) > 50 or any(key.startswith("aws:") for key in tags):
            raise invalid("INVALID_TAG", "at most 50 tags, none of which begins with aws:")
        parent = None
        if params.get("ParentSnapshotId"):
            parent = readable(account, region, params["ParentSnapshotId"])
            if size < parent.volume.size:
                raise invalid("INVALID_VOLUME_SIZE", f"the parent has {parent.volume.size} GiB")
        key = key_for(account, region, params, parent)
        snapshot = snapshots.Snapshot(
            account, region, size, params.get("Description") or "", parent, key=key, timeout=params.get("Timeout", 60)
        )
        snapshot.add_tags(tags)
        if token[2] is not None:
            _started[token] = (asked, snapshot)
    return 201, [], told(snapshot, params)


def told(snapshot, params):
    return {
        "SnapshotId": snapshot.id,
        "OwnerId": snapshot.account,
        "Status": snapshot.status,
        "StartTime": snapshot.started,
        "VolumeSize": snapshot.volume.size,
        "BlockSize": BLOCK_SIZE,
        "Description": snapshot.description or None,
        "Tags": params.get("Tags"),
        "ParentSnapshotId": snapshot.parent,
        "KmsKeyArn": snapshot.kms_key_id,
    }


def key_for(account, region, params, parent):
    """The table of docs/what-aws-has-seen.md."""
    encrypted, named = params.get("Encrypted"), params.get("KmsKeyArn")
    by_default = snapshots.encrypts_by_default(account, region)

    def refuse(message):
        raise invalid("INVALID_PARAMETER_VALUE", message)

    if parent is not None:
        if encrypted is not None or named is not None:
            refuse("Encrypted and KmsKeyArn cannot be given together with ParentSnapshotId")
        if parent.kms_key_id is None and by_default:
            refuse("the parent is not encrypted and the account encrypts by default; copy it encrypted first")
        return parent.kms_key_id
    if encrypted is False and (by_default or named is not None):
        refuse("Encrypted=false is against the account's default, or against KmsKeyArn")
    if named is not None and encrypted is not True:
        refuse("KmsKeyArn needs Encrypted=true")
    if named is not None:
        if named.split(":")[4] != account and not snapshots.usable_key(named):
            raise EbsRefused("AccessDeniedException", f"{named} cannot be used", "DEPENDENCY_ACCESS_DENIED")
        if not snapshots.usable_key(named):
            raise invalid("INVALID_CUSTOMER_KEY", f"the key {named} is not there or not enabled")
        return named
    return snapshots.default_key(account, region) if encrypted or by_default else None


def put_snapshot_block(account, region, tenant, params):
    """PutSnapshotBlock. Assumptions:
    - only the owner puts, only while the snapshot is pending and not told to complete: else INVALID_SNAPSHOT_ID;
    - DataLength and the body are 524,288 bytes, the checksum is the body's SHA-256 as base64: else INVALID_PARAMETER_VALUE;
    - an index beyond the volume is INVALID_BLOCK; the same index again overwrites."""
    snapshot = found(account, region, params["SnapshotId"], write=True)
    if not snapshot.is_open:
        raise invalid("INVALID_SNAPSHOT_ID", f"The snapshot {snapshot.id} is not pending")
    index, data = params["BlockIndex"], params["BlockData"]
    if params["DataLength"] != BLOCK_SIZE or len(data) != BLOCK_SIZE:
        raise invalid("INVALID_PARAMETER_VALUE", f"a block has {BLOCK_SIZE} bytes, not {len(data)}")
    if index >= snapshot.volume.size * (1 << 30) // BLOCK_SIZE:
        raise invalid("INVALID_BLOCK", f"block {index} is beyond the volume")
    digest = hashlib.sha256(data).digest()
    if params["ChecksumAlgorithm"] != "SHA256" or base64.b64encode(digest).decode() != params["Checksum"]:
        raise invalid("INVALID_PARAMETER_VALUE", "the checksum is not the data's")
    with snapshot.tenant.lock:
        snapshot.blocks.put(index, data, digest)
        snapshot.touched = tenant.now()
    said = [("x-amz-Checksum", params["Checksum"]), ("x-amz-Checksum-Algorithm", "SHA256")]
    return 201, said, {}


def complete_snapshot(account, region, tenant, params):
    """CompleteSnapshot. Assumptions:
    - ChangedBlocksCount counts distinct indexes put into this snapshot, not those of its parent;
    - a checksum, if given, is SHA256 LINEAR: else, or with a wrong one, INVALID_PARAMETER_VALUE;
    - again with the same values it answers the state of now, with others INVALID_SNAPSHOT_ID;
    - it answers pending and is completed `complete_seconds` later."""
    snapshot = found(account, region, params["SnapshotId"], write=True)
    given = {k: params.get(k) for k in ("ChangedBlocksCount", "Checksum")}
    with snapshot.tenant.lock:
        if snapshot.completed_with == given and snapshot.status != "error":
            return 202, [], {"Status": snapshot.status}
        if not snapshot.is_open:
            raise invalid("INVALID_SNAPSHOT_ID", f"The snapshot {snapshot.id} is not pending")
        if given["ChangedBlocksCount"] != len(snapshot.blocks.own):
            raise invalid("INVALID_PARAMETER_VALUE", f"{len(snapshot.blocks.own)} blocks were put")
        if given["Checksum"] is not None:
            if params.get("ChecksumAlgorithm") != "SHA256" or params.get("ChecksumAggregationMethod") != "LINEAR":
                raise invalid("INVALID_PARAMETER_VALUE", "a checksum needs the algorithm SHA256 and the method LINEAR")
            if given["Checksum"] != snapshot.blocks.linear_checksum():
                raise invalid("INVALID_PARAMETER_VALUE", "the checksum is not the snapshot's")
        snapshot.completed_with = given
        if snapshot.blocks.own and tenant.settings["damages"] in ("data", "checksum"):
            snapshot.blocks.damage(checksum_too=tenant.settings["damages"] == "checksum")
        snapshot.complete()
    return 202, [], {"Status": "pending"}


def signed(kind, snapshot_ids, number, seconds, tenant):
    """A token: when it expires, what it is for, and something that no other has."""
    body = struct.pack(">QI", int(tenant.now() + seconds), number) + secrets.token_bytes(4)
    mac = hmac.digest(_SECRET, kind + repr(snapshot_ids).encode() + body, "sha256")[:16]
    return base64.b64encode(body + mac).decode()


def number_of(kind, snapshot_ids, token, tenant):
    """The number of a token that is good, or None."""
    try:
        raw = base64.b64decode(token, validate=True)
        body, mac = raw[:16], raw[16:]
        expires, number = struct.unpack(">QI", body[:12])
    except (binascii.Error, struct.error):
        return None
    good = hmac.compare_digest(mac, hmac.digest(_SECRET, kind + repr(snapshot_ids).encode() + body, "sha256")[:16])
    return number if good and tenant.now() < expires else None


def paged(indexes, params, key, tenant):
    """(the page's indexes, the next page's token). Assumptions:
    - a page may be empty though more follow: every `empty_page_every`th one is;
    - NextToken carries where to go on, StartingBlockIndex then says nothing more."""
    start, skip = params.get("StartingBlockIndex") or 0, 0
    if params.get("NextToken") is not None:
        start = number_of(b"page", key, params["NextToken"], tenant)
        if start is None:
            raise invalid("INVALID_PAGE_TOKEN", "the page token is not of this listing, or is too old")
        # The highest bit says that the page before was empty.
        skip, start = start >> 31, start & 0x7FFFFFFF
    rest = [i for i in indexes if i >= start]
    every = tenant.settings["empty_page_every"]
    tenant.pages += 1
    if rest and every and not skip and params.get("NextToken") is not None and tenant.pages % every == 0:
        return [], signed(b"page", key, start | 1 << 31, PAGE_TOKEN_SECONDS, tenant)
    most = min(params.get("MaxResults") or 10000, tenant.settings["page_blocks"])
    if len(rest) <= most:
        return rest, None
    return rest[:most], signed(b"page", key, rest[most], PAGE_TOKEN_SECONDS, tenant)


def expiry(tenant):
    return tenant.now() + BLOCK_TOKEN_SECONDS


def list_snapshot_blocks(account, region, tenant, params):
    """ListSnapshotBlocks: what was written, here or in an ancestor, ascending. Block tokens last seven days, page tokens an hour."""
    snapshot = readable(account, region, params["SnapshotId"])
    indexes, more = paged(sorted(snapshot.blocks.all), params, snapshot.id, tenant)
    listed = [
        {"BlockIndex": i, "BlockToken": signed(b"block", snapshot.id, i, BLOCK_TOKEN_SECONDS, tenant)} for i in indexes
    ]
    return 200, [], {
        "Blocks": listed,
        "ExpiryTime": expiry(tenant),
        "VolumeSize": snapshot.volume.size,
        "BlockSize": BLOCK_SIZE,
        "NextToken": more,
    }


def list_changed_blocks(account, region, tenant, params):
    """ListChangedBlocks. Assumptions:
    - without FirstSnapshotId it lists every block of the second as new;
    - snapshots of different lineages are UNRELATED_SNAPSHOTS; a copy begins a lineage of its own;
    - a block that was put again counts as changed whatever it holds; FirstBlockToken is absent where the first has none."""
    second = readable(account, region, params["SecondSnapshotId"])
    first = readable(account, region, params["FirstSnapshotId"]) if params.get("FirstSnapshotId") else None
    if first is not None and first.lineage != second.lineage:
        raise invalid("UNRELATED_SNAPSHOTS", f"{first.id} and {second.id} are not of one lineage")
    changed = sorted(second.blocks.all)
    if first is not None:
        gone = set(first.blocks.differing(second.blocks))
        changed = sorted(set(second.blocks.differing(first.blocks)) | gone)
    indexes, more = paged(changed, params, (params.get("FirstSnapshotId"), second.id), tenant)

    def token(snapshot, index):
        if snapshot is None or index not in snapshot.blocks.all:
            return None
        return signed(b"block", snapshot.id, index, BLOCK_TOKEN_SECONDS, tenant)

    listed = []
    for index in indexes:
        one = {"BlockIndex": index, "FirstBlockToken": token(first, index), "SecondBlockToken": token(second, index)}
        listed.append({k: v for k, v in one.items() if v is not None})
    return 200, [], {
        "ChangedBlocks": listed,
        "ExpiryTime": expiry(tenant),
        "VolumeSize": second.volume.size,
        "BlockSize": BLOCK_SIZE,
        "NextToken": more,
    }


def get_snapshot_block(account, region, tenant, params):
    """GetSnapshotBlock. Assumptions:
    - a token is good for the snapshot and index that it was listed for, for seven days: else INVALID_BLOCK_TOKEN;
    - a block that was never written is INVALID_BLOCK."""
    snapshot = readable(account, region, params["SnapshotId"])
    index = params["BlockIndex"]
    if number_of(b"block", snapshot.id, params["BlockToken"], tenant) != index:
        raise invalid("INVALID_BLOCK_TOKEN", "the token is not of this block, or is too old")
    block = snapshot.blocks.get(index)
    if block is None:
        raise invalid("INVALID_BLOCK", f"{snapshot.id} has no block {index}")
    data, digest = block
    if tenant.settings["damages"] == "answer" and snapshot.blocks.is_first_answer(index):
        data = data[:-1] + bytes([data[-1] ^ 0xFF])
    said = [
        ("x-amz-Data-Length", str(BLOCK_SIZE)),
        ("x-amz-Checksum", base64.b64encode(digest).decode()),
        ("x-amz-Checksum-Algorithm", "SHA256"),
        ("Content-Type", "application/octet-stream"),
    ]
    return 200, said, data


OPERATIONS = {
    "StartSnapshot": start_snapshot,
    "PutSnapshotBlock": put_snapshot_block,
    "CompleteSnapshot": complete_snapshot,
    "ListSnapshotBlocks": list_snapshot_blocks,
    "ListChangedBlocks": list_changed_blocks,
    "GetSnapshotBlock": get_snapshot_block,
}
