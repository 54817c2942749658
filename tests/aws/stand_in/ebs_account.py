"""What an account has set for EBS in a region: its default key, and whether snapshots may be made public."""

from moto.core.responses import ActionResult
from moto.ec2.responses import EC2Response

from . import snapshots
from .errors import Refused


def get_ebs_default_kms_key_id(self):
    """GetEbsDefaultKmsKeyId. Assumption: `alias/aws/ebs` while nobody chose another, else that key's ARN."""
    self.error_on_dryrun()
    chosen = getattr(self.ec2_backend, "chosen_kms_key", None)
    return ActionResult({"KmsKeyId": chosen or "alias/aws/ebs"})


def modify_ebs_default_kms_key_id(self):
    """ModifyEbsDefaultKmsKeyId. Assumption: the key must be there, enabled, in this account."""
    self.error_on_dryrun()
    arn = snapshots.key_of(self.current_account, self.region, self._get_param("KmsKeyId"), True)
    if not snapshots.usable_key(arn):
        raise Refused("InvalidParameterValue", f"The key {arn} does not exist or cannot be used")
    self.ec2_backend.default_kms_key_id = self.ec2_backend.chosen_kms_key = arn
    return ActionResult({"KmsKeyId": arn})


def reset_ebs_default_kms_key_id(self):
    """ResetEbsDefaultKmsKeyId: AWS's own key again."""
    self.error_on_dryrun()
    self.ec2_backend.chosen_kms_key, self.ec2_backend.default_kms_key_id = None, ""
    return ActionResult({"KmsKeyId": snapshots.default_key(self.current_account, self.region)})


def get_snapshot_block_public_access_state(self):
    """GetSnapshotBlockPublicAccessState. Assumption: unblocked in an account that said nothing."""
    self.error_on_dryrun()
    state = getattr(self.ec2_backend, "snapshot_block_public", None) or "unblocked"
    return ActionResult({"State": state, "ManagedBy": "account"})


def enable_snapshot_block_public_access(self):
    """EnableSnapshotBlockPublicAccess: at once; what is public already stays so."""
    self.error_on_dryrun()
    self.ec2_backend.snapshot_block_public = self._get_param("State")
    return ActionResult({"State": self.ec2_backend.snapshot_block_public})


def disable_snapshot_block_public_access(self):
    """DisableSnapshotBlockPublicAccess: at once."""
    self.error_on_dryrun()
    self.ec2_backend.snapshot_block_public = None
    return ActionResult({"State": "unblocked"})


def install(moto):
    moto.replace(EC2Response, "modify_ebs_default_kms_key_id", modify_ebs_default_kms_key_id)
    for function in (
        get_ebs_default_kms_key_id,
        reset_ebs_default_kms_key_id,
        get_snapshot_block_public_access_state,
        enable_snapshot_block_public_access,
        disable_snapshot_block_public_access,
    ):
        moto.add(EC2Response, function.__name__, function)
