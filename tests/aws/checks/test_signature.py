"""That a signature is verified: botocore's own is right, and nothing that it covers can be changed."""

import unittest

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from stand_in import signature

TARGET = "/snapshots/snap-0123456789abcdef0/blocks/3"


def signed(method="PUT", target=TARGET, secret="of-the-stand-in"):
    headers = {"x-amz-Checksum": "QQ==", "x-amz-content-sha256": "UNSIGNED-PAYLOAD"}
    request = AWSRequest(method, f"http://127.0.0.1:1{target}", headers=headers, data=b"")
    SigV4Auth(Credentials("AKIABAKE100000000100", secret), "ebs", "us-east-1").add_auth(request)
    return {"host": "127.0.0.1:1", **{name.lower(): value for name, value in request.headers.items()}}


class Signature(unittest.TestCase):
    def test_botocores_is_right(self):
        for target in [TARGET, TARGET + "?blockToken=a%2Bb%3D%3D&z=", TARGET + "?maxResults=3&pageToken=x~y"]:
            self.assertIsNone(signature.wrong_with("PUT", target, signed(target=target), b""))

    def test_what_is_changed_afterwards_is_seen(self):
        wrong = "the signature is wrong"
        self.assertEqual(signature.wrong_with("GET", TARGET, signed(), b""), wrong)
        self.assertEqual(signature.wrong_with("PUT", TARGET + "0", signed(), b""), wrong)
        self.assertEqual(signature.wrong_with("PUT", TARGET + "?a=b", signed(), b""), wrong)
        for name in ["x-amz-checksum", "x-amz-date", "host", "x-amz-content-sha256"]:
            self.assertEqual(signature.wrong_with("PUT", TARGET, {**signed(), name: "other"}, b""), wrong, name)
        self.assertEqual(signature.wrong_with("PUT", TARGET, signed(secret="other"), b""), wrong)
        unsigned = {**signed(), "x-amz-checksum-algorithm": "SHA256"}
        self.assertIn("not all that must be signed", signature.wrong_with("PUT", TARGET, unsigned, b""))


if __name__ == "__main__":
    unittest.main()
