"""What an account has around a bake: quotas, keys, settings, objects, repositories; and the metadata service of a guest."""

import datetime
import json
import unittest
import urllib.error
import urllib.request

import boto3
import botocore.config

from stand_in import metadata, objects

from .server import REGION, Case, Server


class Account(Case):
    def test_quotas_have_their_codes_and_are_the_accounts_own(self):
        quotas = self.client("service-quotas")
        asked = dict(ServiceCode="ebs", QuotaCode="L-94D7AB7D")
        self.assertEqual(quotas.get_service_quota(**asked)["Quota"]["Value"], 100.0)
        self.post("settings", settings={"quotas": {"L-94D7AB7D": 2}})
        self.assertEqual(quotas.get_service_quota(**asked)["Quota"]["Value"], 2.0)
        self.assertEqual(quotas.get_aws_default_service_quota(**asked)["Quota"]["Value"], 100.0)
        self.refused("NoSuchResourceException", quotas.get_service_quota, ServiceCode="ebs", QuotaCode="L-00000000")
        names, more = [], {}
        while True:
            said = quotas.list_service_quotas(ServiceCode="ec2", MaxResults=3, **more)
            names += [one["QuotaName"] for one in said["Quotas"]]
            if not said.get("NextToken"):
                break
            more = {"NextToken": said["NextToken"]}
        self.assertEqual(len(names), 4)
        self.assertIn("AMIs", names)

    def test_a_session_ends_by_the_clock(self):
        self.post("settings", settings={"session_seconds": 900})
        role = f"arn:aws:iam::{self.other}:role/bake"
        got = self.client("sts").assume_role(RoleArn=role, RoleSessionName="bake")["Credentials"]
        left = got["Expiration"] - datetime.datetime.now(datetime.timezone.utc)
        self.assertTrue(890 < left.total_seconds() <= 901, left)
        session = dict(
            aws_access_key_id=got["AccessKeyId"],
            aws_secret_access_key=got["SecretAccessKey"],
            aws_session_token=got["SessionToken"],
        )
        ec2, ebs = self.client("ec2", **session), self.client("ebs", **session)
        ec2.describe_images()
        self.post("tick", seconds=901)
        self.refused("RequestExpired", ec2.describe_images)
        self.refused("ExpiredTokenException", ebs.start_snapshot, VolumeSize=1)
        self.refused("ExpiredToken", self.client("sts", **session).get_caller_identity)

    def test_keys_are_found_by_every_name_and_of_other_accounts_by_policy(self):
        kms = self.client("kms")
        self.assertEqual(kms.describe_key(KeyId="alias/aws/ebs")["KeyMetadata"]["KeyManager"], "AWS")
        policy = {"Statement": [{"Principal": {"AWS": f"arn:aws:iam::{self.other}:root"}}]}
        key = kms.create_key(Policy=json.dumps(policy))["KeyMetadata"]
        kms.create_alias(AliasName="alias/bakery", TargetKeyId=key["KeyId"])
        for name in (key["KeyId"], key["Arn"], "alias/bakery"):
            self.assertEqual(kms.describe_key(KeyId=name)["KeyMetadata"]["Arn"], key["Arn"])
        other = self.client("kms", self.other)
        self.assertEqual(other.describe_key(KeyId=key["Arn"])["KeyMetadata"]["Arn"], key["Arn"])
        stranger = self.client("kms", self.account[:10] + "02")
        self.refused("AccessDeniedException", stranger.describe_key, KeyId=key["Arn"])
        self.refused("NotFoundException", kms.describe_key, KeyId="alias/nothing")
        kms.schedule_key_deletion(KeyId=key["KeyId"], PendingWindowInDays=7)
        self.assertEqual(kms.describe_key(KeyId="alias/bakery")["KeyMetadata"]["KeyState"], "PendingDeletion")

    def test_the_default_key_and_public_access_are_what_was_set(self):
        self.assertEqual(self.ec2.get_ebs_default_kms_key_id()["KmsKeyId"], "alias/aws/ebs")
        key = self.client("kms").create_key()["KeyMetadata"]["Arn"]
        self.ec2.modify_ebs_default_kms_key_id(KmsKeyId=key)
        self.assertEqual(self.ec2.get_ebs_default_kms_key_id()["KmsKeyId"], key)
        self.refused("InvalidParameterValue", self.ec2.modify_ebs_default_kms_key_id, KmsKeyId="alias/nothing")
        self.assertEqual(self.ec2.get_snapshot_block_public_access_state()["State"], "unblocked")
        self.ec2.enable_snapshot_block_public_access(State="block-all-sharing")
        self.assertEqual(self.ec2.get_snapshot_block_public_access_state()["State"], "block-all-sharing")

    def test_there_are_default_subnets_and_tagged_ones(self):
        default = self.ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
        self.assertTrue(default)
        vpc = default[0]["VpcId"]
        tags = [{"ResourceType": "subnet", "Tags": [{"Key": "use", "Value": "bake"}]}]
        made = self.ec2.create_subnet(VpcId=vpc, CidrBlock="172.31.200.0/24", TagSpecifications=tags)["Subnet"]["SubnetId"]
        found = self.ec2.describe_subnets(Filters=[{"Name": "tag:use", "Values": ["bake"]}])["Subnets"]
        self.assertEqual([one["SubnetId"] for one in found], [made])

    def test_repositories_are_made_once_and_tokens_have_not_expired(self):
        ecr = self.client("ecr")
        given = dict(repositoryName="bakehouse", imageTagMutability="IMMUTABLE")
        ecr.create_repository(**given, imageScanningConfiguration={"scanOnPush": True})
        self.refused("RepositoryAlreadyExistsException", ecr.create_repository, **given)
        shown = ecr.describe_repositories(repositoryNames=["bakehouse"])["repositories"][0]
        self.assertEqual((shown["imageTagMutability"], shown["imageScanningConfiguration"]["scanOnPush"]), ("IMMUTABLE", True))
        self.refused("RepositoryNotFoundException", ecr.describe_repositories, repositoryNames=["other"])
        token = ecr.get_authorization_token()["authorizationData"][0]
        self.assertGreater(token["expiresAt"].year, 2025)


class Objects(Case):
    def setUp(self):
        super().setUp()
        self.s3 = self.client("s3")
        # S3's names are of all accounts.
        self.bucket = f"bucket-{self.account}"
        self.s3.create_bucket(Bucket=self.bucket)

    def test_every_checksum_of_an_upload_is_verified(self):
        given = dict(Bucket=self.bucket, Key="key", Body=b"hello")
        for algorithm in ("SHA256", "SHA1", "CRC32"):
            self.s3.put_object(**given, ChecksumAlgorithm=algorithm)
        self.refused("BadDigest", self.s3.put_object, **{**given, "Key": "bad"}, ChecksumSHA256="A" * 43 + "=")
        self.refused("BadDigest", self.s3.put_object, **{**given, "Key": "bad"}, ChecksumCRC32="AAAAAA==")
        self.refused("BadDigest", self.s3.put_object, **{**given, "Key": "bad"}, ContentMD5="A" * 22 + "==")
        listed = self.s3.list_objects_v2(Bucket=self.bucket)["Contents"]
        self.assertEqual([one["Key"] for one in listed], ["key"])
        # Of the catalogue of CRCs: what each makes of `123456789`.
        self.assertEqual(objects.checksum("crc32c", b"123456789").hex(), "e3069283")
        self.assertEqual(objects.checksum("crc64nvme", b"123456789").hex(), "ae8b14860a799888")

    def test_a_bucket_of_another_account_than_expected_takes_and_gives_nothing(self):
        given = dict(Bucket=self.bucket, ExpectedBucketOwner=self.account)
        self.s3.put_object(**given, Key="key", Body=b"hello")
        given["ExpectedBucketOwner"] = self.other
        self.refused("AccessDenied", self.s3.put_object, **given, Key="key", Body=b"hello")
        self.refused("AccessDenied", self.s3.get_object, **given, Key="key")
        self.refused("AccessDenied", self.s3.list_object_versions, **given)
        self.refused("AccessDenied", self.s3.delete_object, **given, Key="key")
        # Whoever may not list cannot tell what is not there.
        self.refused("AccessDenied", self.s3.get_object, Bucket=self.bucket, Key="none")

    def test_versions_go_one_by_one_and_one_of_a_plain_bucket_is_null(self):
        def versions():
            said = self.s3.list_object_versions(Bucket=self.bucket, Prefix="a/")
            return [one["VersionId"] for kind in ("Versions", "DeleteMarkers") for one in said.get(kind, [])]

        self.s3.put_object(Bucket=self.bucket, Key="a/key", Body=b"hello")
        self.assertEqual(versions(), ["null"])
        self.s3.delete_object(Bucket=self.bucket, Key="a/key", VersionId="null")
        self.assertEqual(versions(), [])
        self.s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
        self.s3.put_object(Bucket=self.bucket, Key="a/key", Body=b"hello")
        self.s3.put_object(Bucket=self.bucket, Key="a/key", Body=b"again")
        self.s3.delete_object(Bucket=self.bucket, Key="a/key")
        self.assertEqual(len(versions()), 3)
        for one in versions():
            self.s3.delete_object(Bucket=self.bucket, Key="a/key", VersionId=one)
        self.assertEqual(versions(), [])
        self.assertEqual(self.get("state")["objects"], {})

    def test_a_presigned_address_works_until_it_expires(self):
        self.s3.put_object(Bucket=self.bucket, Key="key", Body=b"hello")
        config = botocore.config.Config(signature_version="s3v4", s3={"addressing_style": "path"})
        signer = boto3.client(
            "s3",
            endpoint_url=Server.url(),
            region_name=REGION,
            aws_access_key_id="AKIABAKE" + self.account,
            aws_secret_access_key="x",
            config=config,
        )
        url = signer.generate_presigned_url("get_object", {"Bucket": self.bucket, "Key": "key"}, ExpiresIn=60)
        with urllib.request.urlopen(url) as answer:
            self.assertEqual(answer.read(), b"hello")
        self.post("tick", seconds=61)
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url)
        with caught.exception as error:
            self.assertIn(b"Request has expired", error.read())


class Metadata(unittest.TestCase):
    FACTS = dict(
        account="1", architecture="x86_64", image="ami-1", instance="i-1", interface="eni-1", ip="172.31.0.4", launched="",
        mac="02:00:00:00:00:01", region="us-east-1", reservation="r-1", root="/dev/xvda", secret="s", spot=False,
        subnet="subnet-1", tokens="required", type="t3.small", vpc="vpc-1", zone="us-east-1a",
    )  # fmt: skip

    def test_a_guest_reads_it_with_a_token_alone(self):
        ask = lambda head: metadata.answer(self.FACTS, b"#!/bin/sh\n", head.replace("\n", "\r\n").encode())
        self.assertEqual(ask("GET /latest/meta-data/instance-id HTTP/1.1")[0], 401)
        self.assertEqual(ask("PUT /latest/api/token HTTP/1.1")[0], 400)
        life = "X-aws-ec2-metadata-token-ttl-seconds: 60"
        status, token, _ = ask(f"PUT /latest/api/token HTTP/1.1\n{life}")
        self.assertEqual(status, 200)
        self.assertEqual(ask(f"PUT /latest/api/token HTTP/1.1\n{life}\nX-Forwarded-For: 1.2.3.4")[0], 403)
        given = f"HTTP/1.1\nX-aws-ec2-metadata-token: {token.decode()}"
        self.assertEqual(ask(f"GET /latest/meta-data/instance-id {given}")[:2], (200, b"i-1"))
        self.assertEqual(ask(f"GET /2021-03-23/user-data {given}")[:2], (200, b"#!/bin/sh\n"))
        self.assertIn(b"placement/", ask(f"GET /latest/meta-data/ {given}")[1].split(b"\n"))
        self.assertEqual(ask(f"GET /latest/meta-data/nothing {given}")[0], 404)
