"""The instance metadata service, for a guest in QEMU: as much of it as cloud-init's Ec2 datasource reads.

QEMU starts `metadata.py FOLDER` for every connection that the guest opens to 169.254.169.254:80; it answers one request from
`metadata.json` and `user-data` of that folder. Imports nothing but the standard library's quick parts.

Assumptions: a token is any that this machine's secret made; its life is not checked. All versions of the tree are alike."""

import hashlib
import json
import sys

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Not Allowed"}


def tree_of(facts):
    """The values below a version, by path."""
    host = "ip-" + facts["ip"].replace(".", "-") + f".{facts['region']}.compute.internal"
    mac, region = facts["mac"], facts["region"]
    document = {
        "accountId": facts["account"],
        "architecture": facts["architecture"],
        "availabilityZone": facts["zone"],
        "imageId": facts["image"],
        "instanceId": facts["instance"],
        "instanceType": facts["type"],
        "pendingTime": facts["launched"],
        "privateIp": facts["ip"],
        "region": region,
        "version": "2017-09-30",
    }
    tree = {
        "meta-data/ami-id": facts["image"],
        "meta-data/ami-launch-index": "0",
        "meta-data/ami-manifest-path": "(unknown)",
        "meta-data/block-device-mapping/ami": facts["root"],
        "meta-data/block-device-mapping/root": facts["root"],
        "meta-data/hostname": host,
        "meta-data/instance-action": "none",
        "meta-data/instance-id": facts["instance"],
        "meta-data/instance-life-cycle": "spot" if facts["spot"] else "on-demand",
        "meta-data/instance-type": facts["type"],
        "meta-data/local-hostname": host,
        "meta-data/local-ipv4": facts["ip"],
        "meta-data/mac": mac,
        "meta-data/placement/availability-zone": facts["zone"],
        "meta-data/placement/region": region,
        "meta-data/profile": "default-hvm",
        "meta-data/reservation-id": facts["reservation"],
        "meta-data/security-groups": "default",
        "meta-data/services/domain": "amazonaws.com",
        "meta-data/services/partition": "aws",
        "dynamic/instance-identity/document": json.dumps(document),
    }
    interface = {
        "device-number": "0",
        "interface-id": facts["interface"],
        "local-hostname": host,
        "local-ipv4s": facts["ip"],
        "mac": mac,
        "owner-id": facts["account"],
        "security-groups": "default",
        "subnet-id": facts["subnet"],
        "subnet-ipv4-cidr-block": "169.254.169.0/24",
        "vpc-id": facts["vpc"],
        "vpc-ipv4-cidr-block": "169.254.169.0/24",
        "vpc-ipv4-cidr-blocks": "169.254.169.0/24",
    }
    for name, value in interface.items():
        tree[f"meta-data/network/interfaces/macs/{mac}/{name}"] = value
    return tree


def look(tree, path):
    """A value, or the names in a folder, one a line, folders with a slash; None where there is neither."""
    if path in tree:
        return tree[path]
    prefix = path + "/" if path else ""
    names = {}
    for key in sorted(tree):
        if key.startswith(prefix):
            head, slash, _ = key[len(prefix) :].partition("/")
            names[head + slash] = None
    return "\n".join(names) if names else None


def answer(facts, user_data, head):
    """(status, body, further headers) of a request, given its line and headers."""
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[1].startswith("/"):
        return 400, b"", {}
    method, path = words[0], words[1].partition("?")[0].strip("/")
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:]) if k}
    token = hashlib.sha256(facts["secret"].encode()).hexdigest()
    if method == "PUT" and path == "latest/api/token":
        life = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
        if "x-forwarded-for" in headers:
            return 403, b"", {}
        if not life.isdigit() or not 1 <= int(life) <= 21600:
            return 400, b"", {}
        return 200, token.encode(), {"X-aws-ec2-metadata-token-ttl-seconds": life}
    if method != "GET":
        return 405, b"", {}
    given = headers.get("x-aws-ec2-metadata-token")
    if given != token and (given is not None or facts["tokens"] == "required"):
        return 401, b"", {}
    _, _, rest = path.partition("/")
    if rest == "user-data":
        return (200, user_data, {}) if user_data else (404, b"", {})
    value = look(tree_of(facts), rest)
    if value is None:
        return 404, b"", {}
    if not rest and user_data:
        value += "\nuser-data"
    return 200, value.encode(), {}


def main(folder):
    with open(f"{folder}/metadata.json", encoding="utf-8") as file:
        facts = json.load(file)
    with open(f"{folder}/user-data", "rb") as file:
        user_data = file.read()
    head = b""
    while b"\r\n\r\n" not in head and len(head) < 8192:
        chunk = sys.stdin.buffer.raw.read(1024)
        if not chunk:
            break
        head += chunk
    if not head:
        return
    status, body, more = answer(facts, user_data, head.split(b"\r\n\r\n")[0])
    lines = [f"HTTP/1.1 {status} {REASONS[status]}", "Content-Type: text/plain", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in more.items()] + ["Connection: close", "Server: EC2ws"]
    sys.stdout.buffer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1])
