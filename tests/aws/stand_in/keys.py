"""KMS's keys, as far as a bake looks at them. moto has the keys themselves."""

import json

from moto.kms.exceptions import NotFoundException
from moto.kms.models import kms_backends
from moto.kms.responses import KmsResponse

from . import snapshots
from .errors import Refused


def named(self):
    """(account, region, rest) of the KeyId, which may be an ARN of another account or region."""
    key = self._get_param("KeyId") or ""
    parts = key.split(":", 5)
    if len(parts) == 6 and parts[0] == "arn":
        return parts[4], parts[3], parts[5]
    return self.current_account, self.region, key


def describe_key(self):
    """DescribeKey, by id, ARN or alias.

    Assumptions:
    - a key of another account is found by its ARN or its alias's ARN, if its policy names this account's id (moto's policies
      are not looked at otherwise); else AccessDeniedException, whether it is there or not;
    - a key of another region is found nowhere;
    - alias/aws/ebs is made when it is first asked for, and is AWS's own (KeyManager AWS)."""
    account, region, rest = named(self)
    if region != self.region:
        raise NotFoundException(f"Invalid arn {region}")
    if rest == "alias/aws/ebs" and account == self.current_account:
        arn = aws_key(account, region)
        return json.dumps(kms_backends[account][region].keys[arn.rpartition("/")[2]].to_dict())
    if account == self.current_account:
        self._validate_key_id(self._get_param("KeyId"))
        backend = kms_backends[account][region]
        return json.dumps(backend.describe_key(backend.get_key_id(self._get_param("KeyId"))).to_dict())
    key = shared_key(account, region, rest, self.current_account)
    if key is None:
        raise Refused(
            "AccessDeniedException",
            f"User: arn:aws:iam::{self.current_account}:root is not authorized to perform: kms:DescribeKey on this resource because "
            "the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy "
            "explicitly denies access",
        )
    return json.dumps(key.to_dict())


def aws_key(account, region):
    """The ARN of the key that AWS keeps for EBS in an account."""
    backend = kms_backends[account][region]
    if not backend.alias_exists("alias/aws/ebs"):
        from moto.ec2.models import ec2_backends

        chosen = ec2_backends[account][region].default_kms_key_id
        ec2_backends[account][region]._create_default_encryption_key()
        ec2_backends[account][region].default_kms_key_id = chosen
    key = backend.describe_key("alias/aws/ebs")
    key.key_manager = "AWS"
    return key.arn


def shared_key(account, region, rest, caller):
    if account not in kms_backends:
        return None
    backend = kms_backends[account][region]
    if rest.startswith("alias/"):
        found = backend.get_key_id_from_alias(rest)
    else:
        found = rest.removeprefix("key/")
    key = backend.keys.get(found)
    return key if key is not None and caller in str(key.policy) else None


def install(moto):
    default_key = snapshots.default_key

    def default_key_of_aws(account, region):
        """AWS's own key says that it is AWS's."""
        arn = default_key(account, region)
        key = kms_backends[account][region].keys.get(arn.rpartition("/")[2])
        if key is not None and kms_backends[account][region].get_key_id_from_alias("alias/aws/ebs") == key.id:
            key.key_manager = "AWS"
        return arn

    snapshots.default_key = default_key_of_aws
    moto.replace(KmsResponse, "describe_key", describe_key)
