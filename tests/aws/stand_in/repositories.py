"""ECR, as far as a push looks at it: moto's repositories, with a token that has not expired yet, and images whose digest is
that of their manifest. There is no registry behind the address: what is pushed goes to one that the test has."""

import base64
import datetime
import hashlib

from moto.core.responses import ActionResult
from moto.ecr.models import Image
from moto.ecr.responses import ECRResponse

from .world import WORLD

HOURS = 12


def get_authorization_token(self):
    """GetAuthorizationToken: good for twelve hours. Assumption: the password is no secret and opens nothing."""
    now = datetime.datetime.fromtimestamp(WORLD.tenant(self.current_account).now(), datetime.timezone.utc)
    registries = self._get_param("registryIds") or [self.current_account]
    data = [
        {
            "authorizationToken": base64.b64encode(f"AWS:{registry}-auth-token".encode()).decode(),
            "expiresAt": now + datetime.timedelta(hours=HOURS),
            "proxyEndpoint": f"https://{registry}.dkr.ecr.{self.region}.amazonaws.com",
        }
        for registry in registries
    ]
    return ActionResult({"authorizationData": data})


def create_digest(self):
    """PutImage: an image's digest is the SHA-256 of its manifest's bytes, as OCI's registries have it. No assumption."""
    self._image_digest = f"sha256:{hashlib.sha256(self.image_manifest.encode()).hexdigest()}"


def install(moto):
    moto.replace(Image, "_create_digest", create_digest)
    moto.replace(ECRResponse, "get_authorization_token", get_authorization_token)
