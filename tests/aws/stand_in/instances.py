"""EC2's instances: RunInstances and what becomes of them. What they are made of is in machine.py.

moto keeps the objects (reservations, volumes, network interfaces, tags, filters); the rules, the states and the effects are
ours."""

import base64
import hashlib
import json
import re

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import Instance
from moto.ec2.models.spot_requests import LaunchSpecification, SpotInstanceRequest
from moto.ec2.responses import EC2Response
from moto.ec2.utils import random_spot_request_id

from . import images, snapshots
from .blocks import Blocks
from .errors import Refused, written
from .machine import Machine
from .world import SETTINGS, WORLD

SETTINGS.update(
    {
        # Instance types of which there are none left just now.
        "no_capacity": [],
        # Those whose instances end while they are pending, and with which code: {"t3.small": "Server.InsufficientInstanceCapacity"}.
        "ends_pending": {},
        # Instance types whose vCPU quota is used up.
        "no_quota": [],
    }
)

USER_DATA_LIMIT = 16384
CAPACITY = (
    "We currently do not have sufficient {0} capacity in the Availability Zone you requested ({1}). Our system will be working "
    "on provisioning additional capacity. You can currently get {0} capacity by not specifying an Availability Zone in your "
    "request or choosing another one."
)
# EC2's API model, StateReason.
ENDINGS = {
    "Server.InsufficientInstanceCapacity": "There was insufficient capacity available to satisfy the launch request.",
    "Server.InternalError": "An internal error caused the instance to terminate during launch.",
    "Client.VolumeLimitExceeded": "The limit on the number of EBS volumes or total storage was exceeded.",
}
QUOTA = (
    "You have requested more vCPU capacity than your current vCPU limit of 0 allows for the instance bucket that the specified "
    "instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit."
)


def machine_of(instance):
    return getattr(instance, "machine", None)


def tokens_of(backend):
    """What each ClientToken was used for: {token: (digest of the parameters, reservation)}."""
    if not hasattr(backend, "stand_in_tokens"):
        backend.stand_in_tokens = {}
    return backend.stand_in_tokens


def digest_of(params):
    plain = {k: v for k, v in params.items() if k not in ("ClientToken", "DryRun")}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()


def run_instances(self):
    """RunInstances.

    Assumptions:
    - Order of refusals: image, type, architecture, subnet, groups, profile, user data, mappings, DryRun, quota, capacity.
    - A ClientToken never expires here. The same token with the same parameters answers the same reservation, terminated or not;
      with others it is IdempotentParameterMismatch.
    - Without a subnet the default VPC's default subnet in the first zone is taken; where there is none, VPCIdNotSpecified.
    - InsufficientInstanceCapacity is answered with status 500, as EC2 does; what is found out after the answer ends the
      instance while it is pending (`ends_pending`).
    - A volume is encrypted as its snapshot, else by the mapping, else by the account's default; a key that cannot be used lets
      the call pass and terminates the instance (Client.InvalidKMSKey.InvalidState).
    - Only one-time and persistent spot requests by InstanceMarketOptions; they are fulfilled at once.
    - An image whose ImdsSupport is v2.0 launches with HttpTokens required and a hop limit of 2 unless told otherwise."""
    backend, params = self.ec2_backend, self.params
    account, region = self.current_account, self.region
    tenant = WORLD.tenant(account)
    image_id = self._get_param("ImageId")
    if not image_id:
        raise Refused("MissingParameter", "The request must contain the parameter ImageId")
    digest, token = digest_of(params), self._get_param("ClientToken")
    if token and token in tokens_of(backend):
        known, reservation = tokens_of(backend)[token]
        if known != digest:
            raise Refused(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
            )
        return ActionResult(reservation)
    image = launchable(account, region, image_id)
    kind = self._get_param("InstanceType", "m1.small")
    check_type(kind, image)
    subnet = subnet_of(self)
    profile = profile_of(self)
    user_data = user_data_of(self)
    mappings = mappings_of(image, self._get_param("BlockDeviceMappings", []), account, region)
    groups = self._get_param("SecurityGroupIds", [])
    interfaces = self._get_param("NetworkInterfaces", [])
    if interfaces and (self._get_param("SubnetId") or groups):
        raise Refused(
            "InvalidParameterCombination",
            "Network interfaces and an instance-level subnet ID or security groups may not be specified on the same request",
        )
    for interface in interfaces:
        groups = groups + (interface.get("Groups") or [])
    self.error_on_dryrun()
    if kind in tenant.settings["no_quota"]:
        raise Refused("VcpuLimitExceeded", QUOTA)
    if kind in tenant.settings["no_capacity"]:
        message = CAPACITY.format(kind, subnet.availability_zone)
        _, headers, body = written("ec2", 500, "InsufficientInstanceCapacity", message)
        return body.decode(), {**dict(headers), "status": 500}
    tags = self._parse_tag_specification()
    market = self._get_param("InstanceMarketOptions", {}) or {}
    spot = market.get("MarketType") == "spot"
    reservation = backend.run_instances(
        image_id,
        int(self._get_param("MinCount", if_none="1")),
        self._get_param("UserData"),
        self._get_param("SecurityGroups", []),
        instance_type=kind,
        is_instance_type_default=False,
        region_name=region,
        subnet_id=subnet.id,
        key_name=self._get_param("KeyName"),
        security_group_ids=groups,
        associate_public_ip=any(i.get("AssociatePublicIpAddress") for i in interfaces) or None,
        tags={"instance": tags.get("instance", {}), "volume": tags.get("volume", {})},
        block_device_mappings=[],
        instance_initiated_shutdown_behavior=self._get_param("InstanceInitiatedShutdownBehavior"),
        metadata_options=metadata_options_of(self, image),
        client_token=token,
        lifecycle="spot" if spot else None,
    )
    for instance in reservation.instances:
        equip(instance, backend, tenant, image, mappings, tags, user_data, profile, market if spot else None)
    if token:
        tokens_of(backend)[token] = (digest, reservation)
    return ActionResult(reservation)


def launchable(account, region, image_id):
    """An image as RunInstances sees it, described.

    Assumption: one that is pending, failed or disabled is InvalidAMIID.Unavailable; whom it is shared with may launch it without
    a share of its snapshots."""
    image = images.seen_by(account, region, image_id)
    if image.state != "available":
        raise Refused("InvalidAMIID.Unavailable", f"The image ID '{image_id}' is not available")
    return image.described(account)


def check_type(kind, image):
    """The instance type, for an image.

    Assumptions: which types there are, and what they support, is moto's list, the same in every region and zone; a type of
    another architecture is InvalidParameterValue, one without the image's boot mode Unsupported (`uefi-preferred` fits all)."""
    known = INSTANCE_TYPES.get(kind)
    if known is None:
        raise Refused("InvalidParameterValue", f"Invalid value '{kind}' for InstanceType.")
    supported = known["ProcessorInfo"]["SupportedArchitectures"]
    if image["Architecture"] not in supported:
        raise Refused(
            "InvalidParameterValue",
            f"The architecture '{','.join(supported)}' of the specified instance type does not match the architecture "
            f"'{image['Architecture']}' of the specified AMI. Specify an instance type and an AMI that have matching "
            "architectures, and try again. You can use 'describe-instance-types' or 'describe-images' to discover the "
            "architecture of the instance type or AMI.",
        )
    modes = known.get("SupportedBootModes") or ["legacy-bios"]
    wanted = image.get("BootMode")
    if wanted in ("uefi", "legacy-bios") and wanted not in modes:
        raise Refused(
            "Unsupported", f"The instance type '{kind}' does not support the boot mode '{wanted}' of the specified AMI."
        )


def subnet_of(self):
    """The subnet: the one of the call, or of its first network interface, or the default VPC's.

    Assumptions: of several default subnets the first zone's by its name is taken; one without free addresses does not occur."""
    backend, wanted = self.ec2_backend, self._get_param("SubnetId")
    if not wanted:
        wanted = next((i["SubnetId"] for i in self._get_param("NetworkInterfaces", []) if i.get("SubnetId")), None)
    if wanted:
        return backend.get_subnet(wanted)
    default = backend.get_default_vpc()
    subnets = [s for s in backend.get_default_subnets().values() if default is not None and s.vpc_id == default.id]
    zone = self._get_param("Placement.AvailabilityZone")
    subnets = sorted((s for s in subnets if zone in (None, s.availability_zone)), key=lambda s: s.availability_zone)
    if not subnets:
        raise Refused("VPCIdNotSpecified", "No default VPC for this user. GroupName is only supported for EC2-Classic and default VPC.")
    return subnets[0]


def profile_of(self):
    """The instance profile, which must exist and hold a role.

    Assumptions: one that was just made is known at once, where AWS may take seconds; iam:PassRole is not asked for."""
    from moto.iam import iam_backends

    name, arn = self._get_param("IamInstanceProfile.Name"), self._get_param("IamInstanceProfile.Arn")
    if not name and not arn:
        return None
    profiles = iam_backends[self.current_account][self.partition].instance_profiles.values()
    found = next((p for p in profiles if (name and p.name == name) or (arn and p.arn == arn)), None)
    if found is None:
        key, value = ("iamInstanceProfile.name", name) if name else ("iamInstanceProfile.arn", arn)
        wrong = "Invalid IAM Instance Profile name" if name else "Invalid IAM Instance Profile ARN"
        raise Refused("InvalidParameterValue", f"Value ({value}) for parameter {key} is invalid. {wrong}")
    if not found.roles:
        raise Refused(
            "InvalidParameterValue", f"Value ({found.name}) for parameter iamInstanceProfile.name is invalid. The profile has no role"
        )
    return found


def user_data_of(self):
    """The user data, decoded.

    Assumption: 16 KiB are counted after base64 is decoded."""
    text = self._get_param("UserData")
    if not text:
        return b""
    try:
        raw = base64.b64decode(str(text), validate=True)
    except ValueError:
        raise Refused("InvalidParameterValue", "Invalid BASE64 encoding of user data.") from None
    if len(raw) > USER_DATA_LIMIT:
        raise Refused("InvalidParameterValue", f"User data is limited to {USER_DATA_LIMIT} bytes")
    return raw


def size_of(snapshot_id):
    """GiB of a mapping's snapshot. That of a shared image need not be shared itself."""
    snapshot = snapshots.find(snapshot_id)
    if snapshot is None:
        raise Refused("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")
    return snapshot.volume.size


def mappings_of(image, given, account, region):
    """[(device, Ebs)] of the volumes that an instance gets: the image's, changed by the request's. The root's is first.

    Assumptions: a mapping of the request replaces single fields of the image's and keeps the rest; another snapshot than the
    image's is refused for every device that the image has; a size of 0 is the snapshot's; a device without EBS (VirtualName)
    makes no volume."""
    own = {(m.get("Ebs") or {}).get("SnapshotId") for m in image["BlockDeviceMappings"]}
    for mapping in given:
        named = (mapping.get("Ebs") or {}).get("SnapshotId")
        if named and named not in own:
            snapshots.seen_by(account, region, named)
    merged = {m["DeviceName"]: dict(m.get("Ebs") or {}) for m in image["BlockDeviceMappings"] if m.get("Ebs")}
    for mapping in given:
        name = mapping.get("DeviceName")
        if not name:
            raise Refused("InvalidBlockDeviceMapping", "The device name is missing")
        if mapping.get("NoDevice") is not None:
            merged.pop(name, None)
        elif mapping.get("VirtualName") is None:
            ebs = {k: v for k, v in (mapping.get("Ebs") or {}).items() if v is not None}
            if name in merged and ebs.get("SnapshotId", merged[name].get("SnapshotId")) != merged[name].get("SnapshotId"):
                raise Refused(
                    "InvalidBlockDeviceMapping", f"snapshotId can only be modified on EBS devices other than the root {name}"
                )
            merged[name] = {**merged.get(name, {}), **ebs}
    if image["RootDeviceName"] not in merged:
        raise Refused("InvalidBlockDeviceMapping", f"The image has no root volume at {image['RootDeviceName']}")
    for ebs in merged.values():
        least = size_of(ebs["SnapshotId"]) if ebs.get("SnapshotId") else 0
        size = int(ebs.get("VolumeSize") or least)
        if size < max(least, 1):
            raise Refused(
                "InvalidBlockDeviceMapping",
                f"Volume of size {size}GB is smaller than snapshot '{ebs.get('SnapshotId')}', expect size >= {least}GB",
            )
        ebs["VolumeSize"] = size
    return sorted(merged.items(), key=lambda item: item[0] != image["RootDeviceName"])


def metadata_options_of(self, image):
    """The metadata options.

    Assumption: those of the call win over what the image asks for, and the account has none of its own."""
    options = dict(self._get_param("MetadataOptions", {}) or {})
    if image.get("ImdsSupport") == "v2.0":
        options.setdefault("HttpTokens", "required")
        options.setdefault("HttpPutResponseHopLimit", 2)
    return options


def equip(instance, backend, tenant, image, mappings, tags, user_data, profile, market):
    """Gives moto's instance its volumes, profile, spot request and machine.

    Assumptions: a volume of no type is gp2; what has no DeleteOnTermination goes with the instance, the network interface too;
    tags of `volume` and `network-interface` are on each of them from the first moment."""
    for device, ebs in mappings:
        volume = backend.create_volume(
            size=ebs["VolumeSize"],
            zone_name=instance.availability_zone,
            snapshot_id=None,
            encrypted=False,
            volume_type=ebs.get("VolumeType") or "gp2",
            iops=None if (ebs.get("VolumeType") or "gp2") == "gp2" else ebs.get("Iops"),
            throughput=ebs.get("Throughput"),
        )
        volume.snapshot_id = ebs.get("SnapshotId")
        source = snapshots.find(ebs.get("SnapshotId"))
        key = source.kms_key_id if source is not None and source.encrypted else None
        if ebs.get("KmsKeyId") or key is None:
            key = snapshots.key_of(backend.account_id, backend.region_name, ebs.get("KmsKeyId"), ebs.get("Encrypted"))
        volume.encrypted, volume.kms_key_id = key is not None, key
        keep = ebs.get("DeleteOnTermination")
        backend.attach_volume(volume.id, instance.id, device, True if keep is None else keep)
        volume.add_tags(tags.get("volume", {}))
    for interface in instance.nics.values():
        interface.delete_on_termination = True
        interface.add_tags(tags.get("network-interface", {}))
    instance.architecture = image["Architecture"]
    instance.virtualization_type = image.get("VirtualizationType") or "hvm"
    instance.root_device_name, instance.root_device_type = image["RootDeviceName"], "ebs"
    instance.hypervisor, instance.platform, instance.ena_support = "xen", None, image.get("EnaSupport", True)
    if not instance.security_groups:
        instance.security_groups = list(instance.nics[0].group_set)
    instance.boot_mode = image.get("BootMode")
    instance.current_instance_boot_mode = "uefi" if boots_uefi(image, instance.instance_type) else "legacy-bios"
    instance.platform_details = image.get("PlatformDetails") or "Linux/UNIX"
    instance.usage_operation = image.get("UsageOperation") or "RunInstances"
    if profile is not None:
        instance.iam_instance_profile = {"Arn": profile.arn, "Id": profile.id}
    if market is not None:
        request = spot_request_of(backend, instance, market, tags)
        instance.lifecycle, instance.spot_instance_request_id = "spot", request.id
    root_device, root = mappings[0]
    interface = instance.nics[0]
    facts = {
        "account": backend.account_id,
        "architecture": image["Architecture"],
        "image": image["ImageId"],
        "instance": instance.id,
        "interface": interface.id,
        "ip": instance.private_ip,
        "launched": instance.launch_time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "mac": interface.mac_address,
        "profile": profile.name if profile is not None else None,
        "region": backend.region_name,
        "reservation": "r-" + instance.id[2:],
        "root": root_device,
        "spot": market is not None,
        "subnet": instance.subnet_id,
        "tokens": instance.metadata_options.http_tokens,
        "type": instance.instance_type,
        "volume": instance.block_device_mapping[root_device].volume_id,
        "vpc": instance.vpc_id,
        "zone": instance.availability_zone,
    }
    blocks = snapshots.find(root["SnapshotId"]).blocks if root.get("SnapshotId") else Blocks()
    instance.machine = Machine(
        instance, tenant, facts, user_data, boots_uefi(image, instance.instance_type), int(root["VolumeSize"]), blocks
    )
    instance.machine.image = image
    instance.machine.gone = lambda: take_what_goes(instance, backend)
    keys = [backend.volumes[attached.volume_id].kms_key_id for attached in instance.block_device_mapping.values()]
    ending = tenant.settings["ends_pending"].get(instance.instance_type)
    if ending is not None:
        instance.machine.terminate(ending, f"{ending}: {ENDINGS[ending]}")
    elif all(key is None or snapshots.usable_key(key) for key in keys):
        instance.machine.start()
    else:
        code = "Client.InvalidKMSKey.InvalidState"
        instance.machine.terminate(code, f"{code}: The KMS key provided is in an incorrect state")


def boots_uefi(image, kind):
    """Whether the machine starts from UEFI.

    Assumptions: an image without a boot mode starts from BIOS on x86_64 and from UEFI on arm64, whatever the type could
    (docs/what-aws-has-seen.md: AMI-FIRMWARE)."""
    mode = image.get("BootMode")
    if mode in ("uefi", "legacy-bios"):
        return mode == "uefi"
    supported = INSTANCE_TYPES[kind].get("SupportedBootModes") or ["legacy-bios"]
    if mode == "uefi-preferred":
        return "uefi" in supported
    return image["Architecture"] == "arm64"


def spot_request_of(backend, instance, market, tags):
    """A fulfilled spot request, made without the instance that moto's own would launch.

    Assumptions: it is one-time and its instance is terminated on interruption unless the call says otherwise; there is always
    capacity, and nothing is ever interrupted."""
    options = market.get("SpotOptions") or {}
    request = SpotInstanceRequest.__new__(SpotInstanceRequest)
    request.ec2_backend, request.id, request.instance = backend, random_spot_request_id(), instance
    request.launch_specification = LaunchSpecification(
        None, None, instance.image_id, None, instance.instance_type, instance.availability_zone, False, instance.subnet_id
    )
    request.state, request._status_code, request.status_message = "active", "fulfilled", "Your spot request is fulfilled."
    request.type = options.get("SpotInstanceType") or "one-time"
    request.price = options.get("MaxPrice") or "0.010000"
    request.instance_interruption_behaviour = options.get("InstanceInterruptionBehavior") or "terminate"
    request.valid_from = request.valid_until = request.launch_group = request.availability_zone_group = None
    request.spot_fleet_id = request.user_data = request.launch_spec = None
    request.add_tags(tags.get("spot-instances-request", {}))
    backend.spot_instance_requests[request.id] = request
    instance.spot_request = request
    return request


def take_what_goes(instance, backend):
    """Volumes, interfaces and the spot request that go with a terminated instance.

    Assumptions: all of it at once; a one-time request is closed, a persistent one stays active and launches nothing here, where
    EC2 would launch another instance."""
    from .app import one_at_a_time

    with one_at_a_time:
        take(instance, backend)


def take(instance, backend):
    for device in list(instance.block_device_mapping):
        attached = instance.block_device_mapping[device]
        volume_id, goes = attached.volume_id, attached.delete_on_termination
        backend.detach_volume(volume_id, instance.id, device)
        if goes:
            backend.delete_volume(volume_id)
    for interface in list(instance.nics.values()):
        goes = interface.delete_on_termination
        instance.detach_eni(interface)
        if goes:
            interface.delete()
    request = getattr(instance, "spot_request", None)
    if request is not None and request.state == "active" and request.type == "one-time":
        request.state, request._status_code = "closed", "instance-terminated-by-user"
    instance._subnet_id = None


def forget_old(backend):
    """Takes instances that were terminated long ago out of what is described.

    Assumption: all at the same age (the setting `terminated_seconds`), where EC2 says about an hour."""
    now = WORLD.tenant(backend.account_id).now()
    for key, reservation in list(backend.reservations.items()):
        for instance in list(reservation.instances):
            machine = machine_of(instance)
            old = machine and machine.state == "terminated"
            if old and now - machine.since >= machine.setting("terminated_seconds"):
                reservation.instances.remove(instance)
        if not reservation.instances:
            del backend.reservations[key]


def each_of(self):
    """The instances that a call names, all or none.

    Assumptions: an id of another form is InvalidInstanceID.Malformed, one that is unknown InvalidInstanceID.NotFound; the
    permission (DryRun) is asked after that."""
    ids = self._get_param("InstanceIds", [])
    for given in ids:
        if not re.fullmatch(r"i-(?:[0-9a-f]{8}|[0-9a-f]{17})", given):
            raise Refused("InvalidInstanceID.Malformed", f'Invalid id: "{given}"')
    forget_old(self.ec2_backend)
    found = self.ec2_backend.get_multi_instances_by_id(ids)
    self.error_on_dryrun()
    return found


def changes(instances, before):
    return [
        {
            "InstanceId": instance.id,
            "CurrentState": {"Code": instance._state.code, "Name": instance._state.name},
            "PreviousState": {"Code": old.code, "Name": old.name},
        }
        for instance, old in zip(instances, before)
    ]


def refuse_state(instance, verb):
    raise Refused(
        "IncorrectInstanceState",
        f"The instance '{instance.id}' is not in a state from which it can be {verb}.",
    )


def terminate_instances(self):
    """TerminateInstances: shutting-down, then terminated; one that is terminated already is answered as it is.

    Assumption: volumes and interfaces are gone as soon as it is terminated."""
    instances = each_of(self)
    before = [instance._state for instance in instances]
    for instance in instances:
        if instance.disable_api_termination is True:
            raise Refused(
                "OperationNotPermitted",
                f"The instance '{instance.id}' may not be terminated. Modify its 'disableApiTermination' instance attribute "
                "and try again.",
            )
    for instance in instances:
        instance.machine.terminate()
    return ActionResult({"TerminatingInstances": changes(instances, before)})


def stop_instances(self):
    """StopInstances: stopping, then stopped, the guest shut down by its power button.

    Assumptions: a pending instance cannot be stopped; one that stops or is stopped is answered as it is; an instance of a
    one-time spot request cannot be stopped (UnsupportedOperation), one of a persistent request can."""
    instances = each_of(self)
    before = [instance._state for instance in instances]
    for instance in instances:
        if instance._state.name not in ("running", "stopping", "stopped"):
            refuse_state(instance, "stopped")
        request = getattr(instance, "spot_request", None)
        if request is not None and request.type == "one-time":
            raise Refused(
                "UnsupportedOperation",
                f"You can't stop the Spot Instance '{instance.id}' because it is associated with a one-time Spot Instance "
                "request. You can only stop Spot Instances associated with persistent Spot Instance requests.",
            )
    for instance in instances:
        if instance._state.name == "running":
            instance.machine.stop()
    return ActionResult({"StoppingInstances": changes(instances, before)})


def start_instances(self):
    """StartInstances: pending, then running; the disk is as it was left.

    Assumption: one that runs or is pending is answered as it is; one that still stops is refused."""
    instances = each_of(self)
    before = [instance._state for instance in instances]
    for instance in instances:
        if instance._state.name not in ("stopped", "running", "pending"):
            refuse_state(instance, "started")
    for instance in instances:
        if instance._state.name == "stopped":
            instance.machine.start()
    return ActionResult({"StartingInstances": changes(instances, before)})


def reboot_instances(self):
    """RebootInstances: the state stays `running`; every process ends, the disk stays.

    Assumption: a guest in QEMU is reset, without the four minutes that EC2 gives it to go down."""
    instances = each_of(self)
    for instance in instances:
        if instance._state.name != "running":
            refuse_state(instance, "rebooted")
    for instance in instances:
        instance.machine.reboot()
    return EmptyResult()


def get_console_output(self):
    """GetConsoleOutput: with `Latest` the newest 64 KiB of the serial console; without it the text that was kept after the
    last boot, or after termination. No `Output` where there is none yet.

    Assumptions: `Latest` is refused on types that are not of the Nitro system; a terminated instance still gives its last
    console."""
    backend, wanted = self.ec2_backend, self._get_param("InstanceId")
    self.error_on_dryrun()
    (instance,) = backend.get_multi_instances_by_id([wanted])
    machine = machine_of(instance)
    latest = self._get_bool_param("Latest", False)
    if latest and INSTANCE_TYPES[instance.instance_type].get("Hypervisor", "nitro") != "nitro":
        raise Refused(
            "UnsupportedOperation", "This instance type does not support retrieving the latest console logs. Only available on Nitro"
        )
    text = machine.console() if latest else machine.kept_console
    answer = {"InstanceId": wanted, "Timestamp": machine.tenant.now()}
    if text:
        answer["Output"] = base64.b64encode(text).decode()
    return ActionResult(answer)


def install(moto):
    from moto import settings

    # Ours sees shared images too.
    settings.ENABLE_AMI_VALIDATION = False
    for function in (
        run_instances,
        terminate_instances,
        stop_instances,
        start_instances,
        reboot_instances,
        get_console_output,
    ):
        moto.replace(EC2Response, function.__name__, function)
    described = EC2Response.describe_instances

    def describe_instances(self):
        """DescribeInstances: moto's, without those that were terminated long ago.

        Assumptions: moto's, which knows the filters by tag, state and id; a new instance is described at once."""
        forget_old(self.ec2_backend)
        return described(self)

    moto.replace(EC2Response, "describe_instances", describe_instances)
    # A terminated instance has no interface any more, and so none of these.
    for name, without in (
        ("private_ip", None),
        ("private_ip_address", None),
        ("public_ip", None),
        ("public_ip_address", None),
        ("private_dns_name", ""),
        ("public_dns_name", ""),
    ):
        of_moto = getattr(Instance, name)
        moto.replace(Instance, name, property(lambda self, of=of_moto, no=without: of.fget(self) if self.nics else no))
