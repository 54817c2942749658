"""What all operations share: tenants with their settings, clock, findings and recorded exchanges. It holds no resource of AWS;
those are with the files named after them."""

import json
import os
import re
import threading
import time

# A test's access keys name their account: moto wants twenty letters and digits.
ACCESS_KEY = re.compile(r"^AKIABAKE(\d{12})$")

# Where nothing else is said. A tenant changes its own by POST /stand-in/settings.
SETTINGS = {
    # Seconds after StartSnapshot in which EBS says that the snapshot does not exist (docs/what-aws-has-seen.md: up to two minutes).
    "put_not_found_seconds": 0.0,
    # Seconds after a snapshot is completed in which EBS does not list its blocks, to its own account either.
    "list_not_found_seconds": 0.0,
    # The same for EC2's calls, and for images.
    "describe_not_found_seconds": 0.0,
    # From CompleteSnapshot until the snapshot is completed.
    "complete_seconds": 0.0,
    # What EBS does to the first block of a snapshot that is told to complete: nothing, changes its `data`, or its data and the
    # `checksum` with which it is read. Or to each block when it is read for the first time: it changes the `answer`.
    "damages": None,
    # From RegisterImage, CopyImage or CreateImage until the image is available.
    "image_seconds": 0.0,
    # From DeregisterImage until nothing of the image shows: it is listed, and its snapshots are in use.
    "deregistered_seconds": 0.0,
    # Most blocks on a page of a listing, whatever MaxResults says; every `empty_page_every`th page is empty.
    "page_blocks": 10000,
    "empty_page_every": 3,
    # Most resources on a page of a Describe call that has a NextToken, whatever MaxResults says.
    "page_resources": 1000,
}


class Tenant:
    """One test's part of the world."""

    def __init__(self, name):
        from .faults import Faults

        self.name = name
        self.lock = threading.RLock()
        self.settings = dict(SETTINGS)
        self.faults = Faults(self)
        self.exchanges = []
        self.findings = []
        # What IAM was asked, each question once, with the account that asked: of the thousand blocks of a snapshot one.
        self._asked = {}
        # How many pages of blocks were given out.
        self.pages = 0
        self._ahead = 0.0

    def now(self):
        """Seconds since the epoch by this tenant's clock, which /stand-in/tick puts forward."""
        return time.time() + self._ahead

    def tick(self, seconds):
        with self.lock:
            self._ahead += seconds

    def find(self, sentence, exchange=None):
        """Keeps something that is wrong: the test fails by it."""
        with self.lock:
            self.findings.append({"exchange": exchange, "finding": sentence})

    def is_asked(self, account, asked):
        """Keeps what IAM was asked about a call (authorization.py)."""
        with self.lock:
            for one in asked:
                self._asked.setdefault(json.dumps([account, one], sort_keys=True), (account, one))

    def take_asked(self, account):
        """What an account asked since it was taken the last time."""
        with self.lock:
            taken = [one for of, one in self._asked.values() if of == account]
            self._asked = {text: known for text, known in self._asked.items() if known[0] != account}
        return taken

    def record(self, exchange):
        with self.lock:
            exchange["number"] = len(self.exchanges) + 1
            self.exchanges.append(exchange)
        return exchange["number"]


class World:
    def __init__(self):
        self._lock = threading.Lock()
        self._tenants = {}
        # Where blocks and disks lie; nothing in it has a name for longer than a call.
        self.folder = os.environ.get("TMPDIR", "/tmp")
        # Where the server listens: for what runs beside it and has to tell or ask it something.
        self.address = None

    def tenant(self, account):
        """The tenant of an account, by its id."""
        with self._lock:
            name = account[:10]
            if name not in self._tenants:
                self._tenants[name] = Tenant(name)
            return self._tenants[name]


WORLD = World()


def account_of(access_key):
    """The account that an access key is of: one of a test's own, or a session that STS gave out."""
    from moto.iam.models import get_account_id_from

    return get_account_id_from(access_key)


def install(moto):
    """Makes moto know our access keys.

    Assumption: which key belongs to which account shows nowhere but in the account."""
    import moto.iam.models as iam

    of_moto = iam.get_account_id_from

    def get_account_id_from(access_key):
        own = ACCESS_KEY.match(access_key)
        return own.group(1) if own else of_moto(access_key)

    moto.replace(iam, "get_account_id_from", get_account_id_from)
