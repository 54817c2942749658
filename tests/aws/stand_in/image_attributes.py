"""What can be asked of an image attribute by attribute, and what can be changed later (docs/what-aws-has-seen.md)."""

from botocore.utils import parse_timestamp
from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.responses import EC2Response

from . import images
from .errors import Refused
from .world import WORLD

YEAR = 365.25 * 24 * 3600


def describe_image_attribute(self):
    """DescribeImageAttribute. Assumptions: to the owner alone; an attribute that is not set has no value; blockDeviceMapping
    is refused with AuthFailure, as AWS does it (aws/aws-cli#1083)."""
    image = images.owned_by(self.current_account, self.region, self._get_param("ImageId"))
    attribute = self._get_param("Attribute")
    self.error_on_dryrun()
    said = {"ImageId": image.id}

    def value(name, its):
        said[name] = {"Value": its} if its is not None else {}

    if attribute == "launchPermission":
        said["LaunchPermissions"] = image.launch_permissions
    elif attribute == "productCodes":
        said["ProductCodes"] = [
            {"ProductCodeId": code, "ProductCodeType": "marketplace"} for code in image.product_codes
        ]
    elif attribute == "blockDeviceMapping":
        raise Refused("AuthFailure", "Unauthorized attempt to access restricted resource")
    elif attribute == "uefiData":
        value("UefiData", image.uefi_data)
    elif attribute == "description":
        value("Description", image.description)
    elif attribute == "lastLaunchedTime":
        value("LastLaunchedTime", None)
    elif attribute == "deregistrationProtection":
        value("DeregistrationProtection", image.protection)
    else:
        its = {
            "bootMode": "BootMode",
            "imdsSupport": "ImdsSupport",
            "kernel": "KernelId",
            "ramdisk": "RamdiskId",
            "sriovNetSupport": "SriovNetSupport",
            "tpmSupport": "TpmSupport",
        }.get(attribute)
        if its is None:
            raise Refused("InvalidParameterValue", f"Value ({attribute}) for parameter attribute is invalid")
        value(its, image.fields.get(its))
    return ActionResult(said)


def modify_image_attribute(self):
    """ModifyImageAttribute. Assumptions:
    - at most 500 permissions in a call; nothing is changed if one is wrong;
    - an image with a snapshot under the account's default key cannot be shared; an encrypted one, one with product codes,
      and any where block public access is on cannot be made public;
    - ImdsSupport v2.0 is set once and stays; Description may be changed."""
    params, account = self.params, self.current_account
    image = images.owned_by(account, self.region, params.get("ImageId"))
    add = list((params.get("LaunchPermission") or {}).get("Add") or [])
    take = list((params.get("LaunchPermission") or {}).get("Remove") or [])
    into = {"add": add, "remove": take}.get(params.get("OperationType"), [])
    into += [{"UserId": one} for one in params.get("UserIds") or []]
    into += [{"Group": one} for one in params.get("UserGroups") or []]
    into += [{"OrganizationArn": one} for one in params.get("OrganizationArns") or []]
    into += [{"OrganizationalUnitArn": one} for one in params.get("OrganizationalUnitArns") or []]
    if len(add) + len(take) > 500:
        raise Refused("InvalidParameterValue", "at most 500 launch permissions can be changed in a call")
    image.ec2_backend.validate_permission_targets(add + take)
    used = [images.snapshots.find(one) for one in image.snapshots()]
    if add and any(s is not None and s.kms_key_id and s.kms_key_id == s.ec2_backend.default_kms_key_id for s in used):
        raise Refused(
            "InvalidParameter", f"Snapshots encrypted with the AWS managed key cannot be shared ({image.id})"
        )
    if any(one.get("Group") == "all" for one in add):
        if any(s is not None and s.encrypted for s in used) or image.product_codes:
            raise Refused("OperationNotPermitted", f"The image {image.id} cannot be made public")
        if public_access_state(image.ec2_backend) == "block-new-sharing":
            raise Refused("OperationNotPermitted", "You can't publicly share this image because block public access is on")
    self.error_on_dryrun()
    for one in add:
        if one not in image.launch_permissions:
            image.launch_permissions.append(one)
    image.launch_permissions = [one for one in image.launch_permissions if one not in take]
    attribute, value = params.get("Attribute"), params.get("Value")
    given = {"imdsSupport": params.get("ImdsSupport"), "description": params.get("Description")}
    given = {k: (v or {}).get("Value") if isinstance(v, dict) else v for k, v in given.items()}
    if attribute in given and given[attribute] is None:
        given[attribute] = value
    if given["imdsSupport"] is not None:
        if given["imdsSupport"] != "v2.0":
            raise Refused("InvalidParameterValue", "imdsSupport can only become v2.0")
        image.fields["ImdsSupport"] = "v2.0"
    if given["description"] is not None:
        image.description = given["description"]
    return EmptyResult()


def reset_image_attribute(self):
    """ResetImageAttribute: launchPermission alone can be reset."""
    image = images.owned_by(self.current_account, self.region, self._get_param("ImageId"))
    if self._get_param("Attribute") != "launchPermission":
        raise Refused("InvalidParameterValue", "only launchPermission can be reset")
    self.error_on_dryrun()
    image.launch_permissions = []
    return EmptyResult()


def enable_image_deprecation(self):
    """EnableImageDeprecation. Assumptions: within ten years and not in the past, public images within two; to the minute."""
    image = images.owned_by(self.current_account, self.region, self._get_param("ImageId"))
    at, now = self._get_param("DeprecateAt"), WORLD.tenant(self.current_account).now()
    at = at if hasattr(at, "timestamp") else parse_timestamp(at)
    seconds = at.timestamp()
    if not now < seconds <= now + (2 if image.is_public else 10) * YEAR:
        raise Refused("InvalidParameterValue", "DeprecateAt is in the past or too far away")
    self.error_on_dryrun()
    image.deprecated_at = seconds - seconds % 60
    return ActionResult({"Return": True})


def disable_image_deprecation(self):
    """DisableImageDeprecation."""
    image = images.owned_by(self.current_account, self.region, self._get_param("ImageId"))
    self.error_on_dryrun()
    image.deprecated_at = None
    return ActionResult({"Return": True})


def enable_image_deregistration_protection(self):
    """EnableImageDeregistrationProtection. Assumption: it answers the new state as text."""
    image = images.owned_by(self.current_account, self.region, self._get_param("ImageId"))
    self.error_on_dryrun()
    image.protection = "enabled-with-cooldown" if self._get_param("WithCooldown") else "enabled-without-cooldown"
    return ActionResult({"Return": image.protection})


def disable_image_deregistration_protection(self):
    """DisableImageDeregistrationProtection. Assumption: with a cooldown the image stays protected for 24 hours; the
    stand-in then keeps it protected until the protection is disabled a second time after them."""
    image = images.owned_by(self.current_account, self.region, self._get_param("ImageId"))
    self.error_on_dryrun()
    now = WORLD.tenant(self.current_account).now()
    if image.protection == "enabled-with-cooldown":
        image.protection, image.cooldown_ends = "disabled-with-cooldown", now + 24 * 3600
    elif image.protection != "disabled-with-cooldown" or now >= image.cooldown_ends:
        image.protection = "disabled"
    return ActionResult({"Return": image.protection})


def disable_image(self):
    """DisableImage: takes every launch permission away, and the image from whoever does not ask for disabled ones."""
    image = images.owned_by(self.current_account, self.region, self._get_param("ImageId"))
    self.error_on_dryrun()
    image.disabled, image.launch_permissions = True, []
    return ActionResult({"Return": True})


def enable_image(self):
    """EnableImage: the permissions do not come back."""
    image = images.owned_by(self.current_account, self.region, self._get_param("ImageId"))
    self.error_on_dryrun()
    image.disabled = False
    return ActionResult({"Return": True})


def public_access_state(backend):
    return getattr(backend, "image_public_access", "unblocked")


def get_image_block_public_access_state(self):
    """GetImageBlockPublicAccessState. Assumption: unblocked in an account that said nothing (new ones of AWS block)."""
    self.error_on_dryrun()
    return ActionResult(
        {"ImageBlockPublicAccessState": public_access_state(self.ec2_backend), "ManagedBy": "account"}
    )


def enable_image_block_public_access(self):
    """EnableImageBlockPublicAccess: at once (AWS says within ten minutes)."""
    self.error_on_dryrun()
    self.ec2_backend.image_public_access = self._get_param("ImageBlockPublicAccessState")
    return ActionResult({"ImageBlockPublicAccessState": self.ec2_backend.image_public_access})


def disable_image_block_public_access(self):
    """DisableImageBlockPublicAccess: at once."""
    self.error_on_dryrun()
    self.ec2_backend.image_public_access = "unblocked"
    return ActionResult({"ImageBlockPublicAccessState": "unblocked"})


def install(moto):
    for function in (
        describe_image_attribute,
        modify_image_attribute,
        reset_image_attribute,
        disable_image,
        enable_image,
    ):
        moto.replace(EC2Response, function.__name__, function)
    for function in (
        enable_image_deprecation,
        disable_image_deprecation,
        enable_image_deregistration_protection,
        disable_image_deregistration_protection,
        get_image_block_public_access_state,
        enable_image_block_public_access,
        disable_image_block_public_access,
    ):
        moto.add(EC2Response, function.__name__, function)
