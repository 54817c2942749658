"""One server for all checks, and a tenant for each."""

import base64
import hashlib
import itertools
import json
import subprocess
import sys
import unittest
import urllib.parse
import urllib.request

import boto3
import botocore.config
import botocore.exceptions

BLOCK = 524288
REGION = "us-east-1"


def speaking_json():
    """boto3 speaks to CodePipeline as the SDK of Rust does: its newest protocol is not emulated."""
    boto3.setup_default_session()
    loader = boto3.DEFAULT_SESSION._session.get_component("data_loader")
    loader.load_service_model("codepipeline", "service-2")["metadata"].update(protocol="json", protocols=["json"])


speaking_json()


class Server:
    _process = None

    @classmethod
    def url(cls):
        if cls._process is None:
            cls._process = subprocess.Popen(
                [sys.executable, "-m", "stand_in", "--while-stdin"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            cls._url = cls._process.stdout.readline().split()[1]
        return cls._url


def block(number):
    return number.to_bytes(8, "little") * (BLOCK // 8)


def checksum(data):
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def linear(blocks):
    whole = b"".join(hashlib.sha256(blocks[i]).digest() for i in sorted(blocks))
    return base64.b64encode(hashlib.sha256(whole).digest()).decode()


class Case(unittest.TestCase):
    """With accounts of its own; what the oracle finds fails it."""

    _numbers = itertools.count(1)

    def setUp(self):
        self.account = f"{2_000_000_000 + next(self._numbers):010d}00"
        self.other = self.account[:10] + "01"
        self.ebs, self.ec2 = self.client("ebs"), self.client("ec2")
        self.expected_findings = 0

    def tearDown(self):
        findings = self.get("findings")
        self.assertEqual(len(findings), self.expected_findings, findings)

    def client(self, service, account=None, **credentials):
        given = {
            "aws_access_key_id": "AKIABAKE" + (account or self.account),
            "aws_secret_access_key": "of-the-stand-in",
            **credentials,
        }
        config = botocore.config.Config(
            retries={"total_max_attempts": 1}, parameter_validation=False, read_timeout=30, s3={"addressing_style": "path"}
        )
        return boto3.client(service, endpoint_url=Server.url(), region_name=REGION, config=config, **given)

    def get(self, what, **more):
        query = urllib.parse.urlencode({"account": self.account, **more})
        return self._call(urllib.request.Request(f"{Server.url()}/stand-in/{what}?{query}"))

    def post(self, what, account=None, **body):
        data = json.dumps({"account": account or self.account, **body}).encode()
        return self._call(urllib.request.Request(f"{Server.url()}/stand-in/{what}", data))

    def _call(self, request):
        try:
            return json.load(urllib.request.urlopen(request))
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None

    def refused(self, code, call, reason=None, **given):
        with self.assertRaises(botocore.exceptions.ClientError) as caught:
            call(**given)
        said = caught.exception.response
        self.assertEqual(said["Error"]["Code"], code, said)
        if reason is not None:
            self.assertEqual(said.get("Reason"), reason, said)
        return said

    def put(self, snapshot, index, data, **other):
        given = dict(DataLength=len(data), Checksum=checksum(data), ChecksumAlgorithm="SHA256")
        return self.ebs.put_snapshot_block(
            SnapshotId=snapshot, BlockIndex=index, BlockData=data, **{**given, **other}
        )

    def complete(self, snapshot, blocks, **other):
        given = dict(
            ChangedBlocksCount=len(blocks),
            Checksum=linear(blocks),
            ChecksumAlgorithm="SHA256",
            ChecksumAggregationMethod="LINEAR",
        )
        return self.ebs.complete_snapshot(SnapshotId=snapshot, **{**given, **other})

    def made(self, blocks, **given):
        """A completed snapshot of the given blocks."""
        snapshot = self.ebs.start_snapshot(**{"VolumeSize": 1, **given})["SnapshotId"]
        for index, data in blocks.items():
            self.put(snapshot, index, data)
        self.complete(snapshot, blocks)
        return snapshot

    def listed(self, snapshot, **given):
        """Index → token, over all pages; and the sizes of the pages."""
        found, pages, more = {}, [], {}
        while True:
            said = self.ebs.list_snapshot_blocks(SnapshotId=snapshot, **given, **more)
            pages.append(len(said["Blocks"]))
            for one in said["Blocks"]:
                self.assertTrue(not found or one["BlockIndex"] > max(found), "not ascending")
                found[one["BlockIndex"]] = one["BlockToken"]
            if not said.get("NextToken"):
                return found, pages
            more = {"NextToken": said["NextToken"]}

    def content(self, snapshot):
        tokens, _ = self.listed(snapshot)
        get = self.ebs.get_snapshot_block
        return {
            i: get(SnapshotId=snapshot, BlockIndex=i, BlockToken=t)["BlockData"].read() for i, t in tokens.items()
        }

    def registered(self, snapshot, name, **given):
        fields = dict(
            Name=name,
            Architecture="x86_64",
            VirtualizationType="hvm",
            RootDeviceName="/dev/xvda",
            BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}],
        )
        return self.ec2.register_image(**{**fields, **given})["ImageId"]

    def image(self, image, client=None):
        return (client or self.ec2).describe_images(ImageIds=[image])["Images"][0]
