"""That the oracle sees what is broken: each request of a list is broken in every way that its protocol has, one at a time."""

import json
import unittest
import urllib.parse

import botocore.awsrequest
import botocore.session
from stand_in import oracle

SESSION = botocore.session.get_session()
BLOCK = bytes(524288)

# (service, operation, parameters): those that a bake makes, over all protocols.
REQUESTS = [
    ("ec2", "DescribeImages", {"Owners": ["self"], "Filters": [{"Name": "name", "Values": ["a"]}]}),
    ("ec2", "RegisterImage", {
        "Name": "abc",
        "Architecture": "arm64",
        "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": "snap-1", "VolumeSize": 8}}],
        "TagSpecifications": [{"ResourceType": "image", "Tags": [{"Key": "k", "Value": "v"}]}],
        "EnaSupport": True,
    }),
    ("ec2", "RunInstances", {"MinCount": 1, "MaxCount": 1, "ImageId": "ami-1", "MetadataOptions": {"HttpTokens": "required"}}),
    ("ec2", "DeleteSnapshot", {"SnapshotId": "snap-1"}),
    ("sts", "AssumeRole", {"RoleArn": "arn:aws:iam::123456789012:role/r", "RoleSessionName": "ab"}),
    ("ssm", "SendCommand", {"DocumentName": "AWS-RunShellScript", "InstanceIds": ["i-0123456789abcdef0"]}),
    ("ssm", "PutParameter", {"Name": "/a", "Value": "b", "Type": "String"}),
    ("kms", "DescribeKey", {"KeyId": "alias/a"}),
    ("ecr", "CreateRepository", {"repositoryName": "ab", "imageTagMutability": "IMMUTABLE"}),
    ("ebs", "StartSnapshot", {"VolumeSize": 1, "Tags": [{"Key": "k", "Value": "v"}], "Timeout": 60}),
    ("ebs", "PutSnapshotBlock", {
        "SnapshotId": "snap-1", "BlockIndex": 3, "BlockData": BLOCK, "DataLength": 524288, "Checksum": "QQ==",
        "ChecksumAlgorithm": "SHA256",
    }),
    ("ebs", "CompleteSnapshot", {"SnapshotId": "snap-1", "ChangedBlocksCount": 3}),
    ("ebs", "ListSnapshotBlocks", {"SnapshotId": "snap-1", "MaxResults": 100}),
]  # fmt: skip


def written(service, operation, params):
    """(method, target, headers, body) as botocore writes it."""
    model = SESSION.get_service_model(service)
    from botocore.serialize import create_serializer

    protocol = model.metadata["protocol"] if "protocols" not in model.metadata else model.metadata["protocols"][0]
    if service == "ebs":
        protocol = "rest-json"
    elif protocol not in ("ec2", "query"):
        protocol = "json"
    made = create_serializer(protocol, False).serialize_to_request(params, model.operation_model(operation))
    headers = {k.lower(): v for k, v in made["headers"].items()}
    signing = model.signing_name
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/{signing}/aws4_request, Signature=0"
    body = made["body"]
    if isinstance(body, dict):
        body = urllib.parse.urlencode(body).encode()
        headers["content-type"] = "application/x-www-form-urlencoded; charset=utf-8"
    query = urllib.parse.urlencode(made.get("query_string") or {})
    target = made["url_path"] + (f"?{query}" if query else "")
    return made["method"], target, headers, body if isinstance(body, bytes) else body.encode()


def breaks(service, method, target, headers, body):
    """(what is broken, the request)."""
    content_type = headers.get("content-type", "")
    if content_type.startswith("application/x-www-form"):
        pairs = urllib.parse.parse_qsl(body.decode(), keep_blank_values=True)
        for i, (key, value) in enumerate(pairs):
            if key in ("Version", "Action"):
                changed = (key, "2010-01-01" if key == "Version" else value + "X")
            else:
                changed = (key.replace(".", ".X", 1) if "." in key else key + "x", value)
            other = pairs[:i] + [changed] + pairs[i + 1 :]
            yield f"{key} is {changed}", (method, target, headers, urllib.parse.urlencode(other).encode())
    elif "x-amz-target" in headers:
        yield "another target", (method, target, {**headers, "x-amz-target": headers["x-amz-target"] + "X"}, body)
        yield "another prefix", (method, target, {**headers, "x-amz-target": "X" + headers["x-amz-target"]}, body)
        yield "another type", (method, target, {**headers, "content-type": "application/json"}, body)
    else:
        yield "another path", (method, "/zz" + target, headers, body)
        yield "another method", ("PATCH", target, headers, body)
        yield "a query of nothing", (method, target + ("&" if "?" in target else "?") + "bogus=1", headers, body)
        for key in [k for k in headers if k.startswith("x-amz-")]:
            other = {(k + "z" if k == key else k): v for k, v in headers.items()}
            yield f"{key} is misspelt", (method, target, other, body)
    if body[:1] == b"{":
        said = json.loads(body)
        for key in said:
            other = {(k + "x" if k == key else k): v for k, v in said.items()}
            yield f"{key} is misspelt", (method, target, headers, json.dumps(other).encode())
            other = {**said, key: 5 if isinstance(said[key], (dict, list, str)) else {"z": 1}}
            yield f"{key} is of another type", (method, target, headers, json.dumps(other).encode())


class Oracle(unittest.TestCase):
    def test_whole_requests_are_right_and_every_broken_one_is_seen(self):
        tried, missed = 0, []
        for service, operation, params in REQUESTS:
            request = written(service, operation, params)
            read = oracle.Request(*request)
            self.assertEqual((read.name, list(read.wrong)), (operation, []))
            for what, broken in breaks(service, *request):
                tried += 1
                if not oracle.Request(*broken).wrong:
                    missed.append((operation, what))
        self.assertEqual(missed, [])
        self.assertGreater(tried, 70)

    def test_a_required_parameter_that_is_missing_is_seen(self):
        for service, operation, params in REQUESTS:
            required = SESSION.get_service_model(service).operation_model(operation).input_shape.required_members
            for name in required:
                shape = SESSION.get_service_model(service).operation_model(operation).input_shape.members[name]
                if shape.serialization.get("location") == "uri" or name == "BlockData":
                    continue
                left = {k: v for k, v in params.items() if k != name}
                self.assertTrue(oracle.Request(*written(service, operation, left)).wrong, (operation, name))

    def test_an_answer_that_no_sdk_would_read_is_seen(self):
        request = oracle.Request(*written("ebs", "StartSnapshot", {"VolumeSize": 1}))
        good = {"SnapshotId": "snap-1", "OwnerId": "123456789012", "Status": "pending", "StartTime": 1.5, "VolumeSize": 1}

        def wrong(status, body, **headers):
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            return list(oracle.check_answer(request, status, headers, body)[0])

        self.assertEqual(wrong(201, good), [])
        self.assertTrue(wrong(201, {**good, "Snapshot": 1}))
        self.assertTrue(wrong(201, {**good, "Status": "done"}))
        self.assertTrue(wrong(201, b"<html>"))
        self.assertTrue(wrong(400, {"Message": "no"}, **{"x-amzn-errortype": "NoSuchException"}))
        self.assertEqual(wrong(400, {"Message": "no"}, **{"x-amzn-errortype": "ValidationException"}), [])

    def test_operations_of_one_path_are_told_apart_by_what_they_require(self):
        headers = {"authorization": "AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/s3/aws4_request, Signature=0"}
        for method, target, more, name in (
            ("PUT", "/bucket/key?x-id=PutObject", {}, "PutObject"),
            ("PUT", "/bucket/key", {"x-amz-copy-source": "/bucket/other"}, "CopyObject"),
            ("PUT", "/bucket/key?partNumber=1&uploadId=u", {}, "UploadPart"),
            ("DELETE", "/bucket/key", {}, "DeleteObject"),
            ("DELETE", "/bucket/key?uploadId=u", {}, "AbortMultipartUpload"),
            ("GET", "/bucket/key", {}, "GetObject"),
            ("GET", "/bucket?list-type=2", {}, "ListObjectsV2"),
        ):
            request = oracle.Request(method, target, {**headers, **more}, b"")
            self.assertEqual((request.name, list(request.wrong)), (name, []))
