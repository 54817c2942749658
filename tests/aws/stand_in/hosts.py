"""An instance that is this machine: what bakes by the method chroot runs on it. It has a metadata service of its own, and
folders that play /sys/block and /dev, into which a test bends both for the program: what is attached to the instance shows
there as an NVMe device does on the Nitro system.

Assumptions:
- The serial number of the device is the volume's id without its hyphen, padded with blanks (docs/what-aws-has-seen.md); its
  name is the first that is free, and says nothing.
- The metadata service is metadata.py's, and wants a token."""

import os
import shutil
import stat
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from moto.ec2.models import ec2_backends
from moto.ec2.models.instances import InstanceState

from . import metadata

_hosts = {}


def of_instance(instance_id):
    return _hosts.get(instance_id)


class Host:
    """`sys` and `dev` are folders of the test's, as this process sees them."""

    def __init__(self, sys, dev):
        self.sys, self.dev, self.names = sys, dev, {}

    def show(self, volume_id, number):
        taken = set(self.names.values()) | {name for name in os.listdir(self.sys) if name.startswith("nvme")}
        name = next(f"nvme{n}n1" for n in range(1, 1000) if f"nvme{n}n1" not in taken)
        os.mknod(os.path.join(self.dev, name), stat.S_IFBLK | 0o600, number)
        folder = os.path.join(self.sys, name, "device")
        os.makedirs(folder)
        with open(os.path.join(folder, "serial"), "w", encoding="ascii") as file:
            file.write(f"{volume_id.replace('-', ''):<20}\n")
        self.names[volume_id] = name

    def hide(self, volume_id):
        name = self.names.pop(volume_id)
        shutil.rmtree(os.path.join(self.sys, name), ignore_errors=True)
        os.unlink(os.path.join(self.dev, name))


def plant(asked):
    """`{account, region, sys, dev}`: this machine as an instance: {instance, zone, metadata: the endpoint of its service}."""
    account, region = asked["account"], asked.get("region", "us-east-1")
    backend = ec2_backends[account][region]
    (instance,) = backend.run_instances(
        "ami-00000000", 1, None, [], instance_type="t3.small", is_instance_type_default=False, region_name=region,
        block_device_mappings=[],
    ).instances  # fmt: skip
    instance._state = InstanceState("running", 16)
    _hosts[instance.id] = Host(asked["sys"], asked["dev"])
    facts = {
        "account": account,
        "architecture": "x86_64",
        "image": instance.image_id,
        "instance": instance.id,
        "interface": instance.nics[0].id,
        "ip": instance.private_ip,
        "launched": instance.launch_time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "mac": instance.nics[0].mac_address,
        "region": region,
        "reservation": "r-" + instance.id[2:],
        "root": "/dev/xvda",
        "secret": uuid.uuid4().hex,
        "spot": False,
        "subnet": instance.subnet_id,
        "tokens": "required",
        "type": instance.instance_type,
        "vpc": instance.vpc_id,
        "zone": instance.availability_zone,
    }
    return {"instance": instance.id, "zone": instance.availability_zone, "metadata": serve(facts)}


def serve(facts):
    """Starts the metadata service of an instance; it lasts as long as this process."""

    class Service(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def _serve(self):
            head = f"{self.command} {self.path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in self.headers.items())
            status, body, more = metadata.answer(facts, b"", head.rstrip("\r\n").encode("latin-1"))
            self.send_response_only(status)
            for name, value in {"Content-Type": "text/plain", "Content-Length": str(len(body)), **more}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = _serve

    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"
