"""S3's objects: moto's, with every checksum of an upload verified, presigned requests that expire, buckets that belong to
somebody, and versions that go one by one."""

import base64
import binascii
import datetime
import hashlib
import re
import urllib.parse

from moto.core.responses import ActionResult
from moto.s3.exceptions import S3ClientError
from moto.s3.models import FakeDeleteMarker, s3_backends
from moto.s3.responses import S3Response

from .world import WORLD, account_of

TRAILER = re.compile(rb"x-amz-checksum-(\w+):([A-Za-z0-9+/=]+)\s*$")

POLYNOMIALS = {"crc32c": (32, 0x82F63B78), "crc64nvme": (64, 0x9A6C9329AC4BC9B5)}
_tables = {}


def reflected_crc(name, data):
    """A CRC with reflected bits, by its table: for the small objects of tests."""
    bits, polynomial = POLYNOMIALS[name]
    if name not in _tables:
        table = []
        for value in range(256):
            for _ in range(8):
                value = value >> 1 ^ (polynomial if value & 1 else 0)
            table.append(value)
        _tables[name] = table
    table, whole = _tables[name], (1 << bits) - 1
    crc = whole
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return (crc ^ whole).to_bytes(bits // 8, "big")


def checksum(algorithm, data):
    algorithm = algorithm.lower()
    if algorithm in ("sha1", "sha256"):
        return hashlib.new(algorithm, data).digest()
    if algorithm == "crc32":
        return binascii.crc32(data).to_bytes(4, "big")
    if algorithm in POLYNOMIALS:
        return reflected_crc(algorithm, data)
    return None


def put_object(self):
    """PutObject: Content-MD5 and every x-amz-checksum, in a header or in the trailer, must be that of the body; else
    BadDigest, and nothing is stored."""
    body = self.body or b""
    body = body.encode() if isinstance(body, str) else body
    md5 = self.headers.get("Content-MD5")
    if md5 and base64.b64decode(md5) != hashlib.md5(body, usedforsecurity=False).digest():
        raise S3ClientError("BadDigest", "The Content-MD5 you specified did not match what we received.")
    given = {
        name.lower().removeprefix("x-amz-checksum-"): value
        for name, value in self.headers.items()
        if name.lower().startswith("x-amz-checksum-")
    }
    if isinstance(self.raw_body, bytes) and "x-amz-trailer" in self.headers:
        trailer = TRAILER.search(self.raw_body.rstrip(b"\r\n"))
        if trailer is None:
            raise S3ClientError("MalformedTrailerError", "The request contained trailing data that was not well-formed")
        given[trailer.group(1).decode()] = trailer.group(2).decode()
    for algorithm, value in given.items():
        expected = checksum(algorithm, body)
        if expected is not None and base64.b64encode(expected).decode() != value:
            raise S3ClientError(
                "BadDigest", f"The {algorithm.upper()} you specified did not match the calculated checksum."
            )
    return put_object_of_moto(self)


def refused_presigned(request):
    """Why a presigned request is refused, or None.

    Assumptions: the signature itself is not computed; its time and its life are looked at."""
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(request.url).query))
    if "X-Amz-Signature" not in query:
        return None
    tenant = WORLD.tenant(account_of(query.get("X-Amz-Credential", "").split("/")[0]))
    try:
        begun = datetime.datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
        life = int(query["X-Amz-Expires"])
    except (KeyError, ValueError):
        return "AuthorizationQueryParametersError", "Query-string authentication needs X-Amz-Date and X-Amz-Expires"
    if not 1 <= life <= 604800:
        return "AuthorizationQueryParametersError", "X-Amz-Expires must be less than a week (in seconds)"
    if tenant.now() > begun.timestamp() + life:
        return "AccessDenied", "Request has expired"
    return None


def check_owner(self, request, full_url):
    """A bucket of another account than the one that the request expects takes nothing and gives nothing."""
    expected = request.headers.get("x-amz-expected-bucket-owner")
    owner = s3_backends.bucket_accounts.get(self.parse_bucket_name_from_url(request, full_url))
    if expected and owner and owner[1] != expected:
        raise S3ClientError("AccessDenied", "Access Denied")


def get_object(self):
    """GetObject. Assumption: nobody here has s3:ListBucket, so that an object that is not there is AccessDenied."""
    if self.parse_key_name() not in self.backend.get_bucket(self.bucket_name).keys:
        raise S3ClientError("AccessDenied", "Access Denied")
    return get_object_of_moto(self)


def list_object_versions(self):
    """ListObjectVersions: the first keys with a prefix, the newest of each first; in a bucket that keeps no versions each is
    `null`. Moto's own copies every object's content.

    Assumption: without delimiter and markers, which nobody asks for."""
    if {"delimiter", "key-marker", "version-id-marker"} & set(self.querystring):
        raise NotImplementedError("ListObjectVersions with a delimiter or a marker")
    bucket = self.backend.get_bucket(self.bucket_name)
    prefix = self.querystring.get("prefix", [""])[0]
    most = min(int(self.querystring.get("max-keys", ["1000"])[0]), 1000)
    found = [
        {
            "Key": name,
            "VersionId": one.version_id,
            "IsLatest": number == 0,
            "LastModified": one.last_modified_ISO8601,
            "mark": isinstance(one, FakeDeleteMarker),
            "Size": getattr(one, "size", 0),
        }
        for name, versions in sorted(bucket.keys.lists())
        if name.startswith(prefix)
        for number, one in enumerate(reversed(versions))
    ]
    shown = found[:most]
    said = {"Name": bucket.name, "Prefix": prefix, "MaxKeys": most, "IsTruncated": len(found) > most}
    said["Versions"] = [{k: v for k, v in one.items() if k != "mark"} for one in shown if not one["mark"]]
    said["DeleteMarkers"] = [{k: v for k, v in one.items() if k not in ("mark", "Size")} for one in shown if one["mark"]]
    self.data["Action"] = "ListObjectVersions"
    return self.serialized(ActionResult(said))


def delete_object(self):
    """DeleteObject. One version goes for good, also the one called `null` of a bucket that keeps none; without a version a
    bucket that keeps them gets a mark of deletion."""
    version = self._get_param("versionId")
    if version is None:
        return delete_object_of_moto(self)
    name, keys = self.parse_key_name(), self.backend.get_bucket(self.bucket_name).keys
    kept = [one for one in keys.getlist(name, []) if one.version_id != version]
    if name in keys:
        keys.setlist(name, kept)
    if not kept:
        dict.pop(keys, name, None)
    return 204, {"x-amz-version-id": version}, ""


def install(moto):
    global put_object_of_moto, get_object_of_moto, delete_object_of_moto
    put_object_of_moto = moto.replace(S3Response, "put_object", put_object)
    get_object_of_moto = moto.replace(S3Response, "get_object", get_object)
    delete_object_of_moto = moto.replace(S3Response, "delete_object", delete_object)
    moto.replace(S3Response, "list_object_versions", list_object_versions)
    key_response, bucket_response = S3Response._key_response, S3Response._bucket_response

    def _key_response(self, request, full_url):
        refused = refused_presigned(request)
        if refused is not None:
            raise S3ClientError(*refused)
        check_owner(self, request, full_url)
        return key_response(self, request, full_url)

    def _bucket_response(self, request, full_url):
        check_owner(self, request, full_url)
        return bucket_response(self, request, full_url)

    moto.replace(S3Response, "_key_response", _key_response)
    moto.replace(S3Response, "_bucket_response", _bucket_response)
