"""Whether a request is signed as Signature Version 4 wants it: of the services that Bakehouse signs for by itself.

Assumptions: of all that a signature is made of, only the signature is compared; how old it is, is not looked at."""

import hashlib
import hmac
import re
import urllib.parse

from . import sessions

# The services whose requests no SDK's own operation signs.
SERVICES = {"ebs"}
# What every account's key of the tests has.
_PREFIX, _SECRET = "AKIABAKE", "of-the-stand-in"


def _hmac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def wrong_with(method, target, headers, body):
    """What is wrong with the signature of a request with an Authorization header, or None."""
    found = re.search(
        r"Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, *SignedHeaders=([^,]+), *Signature=([0-9a-f]+)",
        headers.get("authorization", ""),
    )
    if found is None or found[4] not in SERVICES:
        return None
    key, day, region, service, signed, claimed = found.groups()
    secret = _SECRET if key.startswith(_PREFIX) else sessions.secret_of(key)
    if secret is None:
        return None
    if "host" not in signed.split(";") or any(
        name.startswith("x-amz-") and name not in signed.split(";") for name in headers
    ):
        return f"not all that must be signed is: {signed}"
    path, _, query = target.partition("?")
    pairs = sorted(urllib.parse.parse_qsl(query, keep_blank_values=True))
    query = "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in pairs)
    lines = [f"{name}:{' '.join(headers.get(name, '').split())}" for name in signed.split(";")]
    payload = headers.get("x-amz-content-sha256") or hashlib.sha256(body).hexdigest()
    # The path is encoded once more than it is sent.
    parts = [method, urllib.parse.quote(path, safe="/-_.~"), query, *lines, "", signed, payload]
    canonical = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    scope = f"{day}/{region}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{headers.get('x-amz-date', '')}\n{scope}\n{canonical}"
    signing = _hmac(_hmac(_hmac(_hmac(b"AWS4" + secret.encode(), day), region), service), "aws4_request")
    return None if _hmac(signing, text).hex() == claimed else "the signature is wrong"


def _encoded(text):
    return urllib.parse.quote(text, safe="-_.~")
