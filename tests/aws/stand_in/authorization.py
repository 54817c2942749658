"""What IAM is asked about a call: each action on each resource by itself, with what a policy's conditions can see of both
(service authorization reference, November 2026). Nothing is refused by it: a test holds a policy against it.

What a call implies besides its own action (tags in the call, a role that is passed, the use of a key) is told here from the
call alone, and not by the table of src/policy.

Assumptions:
- What does not exist is answered as not found, and IAM is not asked about it.
- The tags of what belongs to another account are not seen.
- Which of the actions that EBS needs of a key belong to which call: of StartSnapshot, CreateVolume, CopyImage and RunInstances all, of a
  block that is read kms:Decrypt, of one that is put kms:Encrypt and kms:Decrypt. Of AWS's own key nothing is asked: its policy
  allows it.
- Tags of StartSnapshot are asked about without ec2:CreateAction."""

import functools

from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends
from moto.kms.models import kms_backends

from . import images, snapshots, vpc_authorization
from .actions import action_of
from .describing import tags_of

# Of these nothing is asked: they need no permission.
FREE = {("sts", "GetCallerIdentity")}

# Below this SSM passes on what is asked of it.
SECRETS = "aws/reference/secretsmanager/"

# What EBS needs of a key for a new snapshot or volume (EBS user guide, "Requirements for Amazon EBS encryption" and "Control
# access to EBS direct APIs using IAM").
OF_A_NEW_ONE = ("DescribeKey", "Decrypt", "GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo", "CreateGrant")


class Call:
    """A call, and what is asked about it."""

    def __init__(self, request, account):
        self.params, self.account, self.region = request.params, account, request.region
        self.operation, self.action = request.name, action_of(request.service, request.name, request.params)
        self.asked = []

    def ask(self, resource, context=None, action=None):
        asked = {"action": action or self.action, "resource": resource, "context": context or {}}
        self.asked.append({**asked, "call": self.action})

    def shared(self, rest, service="ec2"):
        return f"arn:aws:{service}:{self.region}::{rest}"

    def own(self, rest, service="ec2"):
        return f"arn:aws:{service}:{self.region}:{self.account}:{rest}"

    def backend(self):
        return ec2_backends[self.account][self.region]

    # What is there.

    def on_image(self, image_id, context=None):
        image = images.find(image_id)
        if image is not None:
            self.ask(self.shared(f"image/{image_id}"), {**self._tags_of(image), **(context or {})})

    def on_snapshot(self, snapshot_id, context=None):
        snapshot = snapshots.find(snapshot_id)
        if snapshot is not None:
            self.ask(self.shared(f"snapshot/{snapshot_id}"), {**self._tags_of(snapshot), **(context or {})})

    def on_instance(self, instance_id, context=None):
        instance = self.backend().get_instance_by_id(instance_id)
        if instance is not None:
            self.ask(self.own(f"instance/{instance_id}"), {**resource_tags(tags_of(instance)), **(context or {})})

    def on_volume(self, volume_id, context=None):
        volume = self.backend().volumes.get(volume_id)
        if volume is not None:
            self.ask(self.own(f"volume/{volume_id}"), {**resource_tags(tags_of(volume)), **(context or {})})

    def on_any(self, resource_id, context):
        """A resource by its id. What is of another kind is everything: nothing here tags it."""
        on = {"ami": self.on_image, "snap": self.on_snapshot, "i": self.on_instance}
        on.update({kind: functools.partial(vpc_authorization.on, self) for kind in vpc_authorization.ARNS})
        on.get(resource_id.partition("-")[0], lambda *_: self.ask("*", context))(resource_id, context)

    def _tags_of(self, one):
        return resource_tags(tags_of(one)) if one.account == self.account else {}

    # What the call makes, and so its tags.

    def makes(self, kind, arn):
        """A resource that the call makes with the tags that it gives this kind."""
        given = self.params.get("TagSpecifications") or []
        tags = [tag for one in given if one.get("ResourceType") == kind for tag in one.get("Tags") or []]
        self.ask(arn, request_tags(tags))
        if tags:
            made_by = {"ec2:CreateAction": self.operation}
            self.ask(arn, {**request_tags(tags), **made_by}, action="ec2:CreateTags")

    # What is used by the service, in the caller's name.

    def uses_key(self, arn, actions, service="ec2"):
        key = key_of(arn)
        if key is None or key.key_manager == "AWS":
            return
        context = {**aliases_of(key), "kms:ViaService": f"{service}.{self.region}.amazonaws.com"}
        for action in actions:
            grants = {"kms:GrantIsForAWSResource": "true"} if action == "CreateGrant" else {}
            self.ask(arn, {**context, **grants}, action=f"kms:{action}")

    def passes_role(self, name, arn):
        for profile in iam_backends[self.account]["aws"].instance_profiles.values():
            if name == profile.name or arn == profile.arn:
                for role in profile.roles:
                    self.ask(role.arn, {"iam:PassedToService": "ec2.amazonaws.com"}, action="iam:PassRole")


def resource_tags(tags):
    return {f"aws:ResourceTag/{key}": value for key, value in tags.items()}


def request_tags(tags):
    if not tags:
        return {}
    said = {f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in tags if "Value" in tag}
    return {**said, "aws:TagKeys": sorted(tag["Key"] for tag in tags)}


def key_of(arn):
    """A key by its ARN, or None."""
    if arn is None:
        return None
    _, _, _, region, account, rest = arn.split(":", 5)
    return kms_backends[account][region].keys.get(rest.removeprefix("key/"))


def aliases_of(key):
    return {"kms:ResourceAliases": sorted(key.aliases)}


def run_instances(call):
    params = call.params
    image = images.find(params.get("ImageId"))
    call.on_image(params.get("ImageId"))
    for snapshot in image.snapshots() if image is not None else []:
        call.on_snapshot(snapshot)
    subnet = subnet_of(call)
    if subnet is not None:
        call.ask(call.own(f"subnet/{subnet.id}"), resource_tags(call.backend().tags.get(subnet.id, {})))
        default = [one.id for one in call.backend().groups[subnet.vpc_id].values() if one.name == "default"]
        for group in params.get("SecurityGroupIds") or default:
            call.ask(call.own(f"security-group/{group}"), resource_tags(call.backend().tags.get(group, {})))
    for kind in ("instance", "volume", "network-interface"):
        call.makes(kind, call.own(f"{kind}/*"))
    if (params.get("InstanceMarketOptions") or {}).get("MarketType") == "spot":
        call.makes("spot-instances-request", call.own("spot-instances-request/*"))
    profile = params.get("IamInstanceProfile") or {}
    call.passes_role(profile.get("Name"), profile.get("Arn"))
    keys = [snapshots.find(snapshot).kms_key_id for snapshot in image.snapshots()] if image is not None else []
    # A volume that is asked for with a key is encrypted with that.
    keys += [(mapping.get("Ebs") or {}).get("KmsKeyId") for mapping in params.get("BlockDeviceMappings") or []]
    for key_arn in dict.fromkeys(keys):
        call.uses_key(key_arn, OF_A_NEW_ONE)


def subnet_of(call):
    """The subnet that is named, or the one that is taken: as instances.py takes it."""
    named, all_of_them = call.params.get("SubnetId"), call.backend().describe_subnets()
    if named:
        return next((one for one in all_of_them if one.id == named), None)
    defaults = sorted((one for one in all_of_them if one.default_for_az), key=lambda one: one.availability_zone)
    return defaults[0] if defaults else None


def register_image(call):
    call.makes("image", call.shared("image/*"))
    for mapping in call.params.get("BlockDeviceMappings") or []:
        call.on_snapshot((mapping.get("Ebs") or {}).get("SnapshotId"))


def copy_image(call):
    """The source and the copies. Assumption: the source's snapshots are no resource of the call."""
    params = call.params
    call.on_image(params.get("SourceImageId"))
    call.makes("image", call.shared("image/*"))
    call.makes("snapshot", call.shared("snapshot/*"))
    source = images.find(params.get("SourceImageId"))
    for snapshot in source.snapshots() if source is not None else []:
        encrypted = params.get("Encrypted") or snapshots.find(snapshot).encrypted
        call.uses_key(snapshots.key_of(call.account, call.region, params.get("KmsKeyId"), encrypted), OF_A_NEW_ONE)


def create_image(call):
    call.on_instance(call.params.get("InstanceId"))
    call.makes("image", call.shared("image/*"))
    call.makes("snapshot", call.shared("snapshot/*"))


def create_volume(call):
    call.makes("volume", call.own("volume/*"))
    call.on_snapshot(call.params.get("SnapshotId"))
    source = snapshots.find(call.params.get("SnapshotId"))
    if source is not None:
        key = source.kms_key_id if source.encrypted else snapshots.key_of(call.account, call.region, None, False)
        call.uses_key(key, OF_A_NEW_ONE)


def attachment(call):
    """The volume and the instance: the one that is named, or that it is attached to."""
    volume = call.backend().volumes.get(call.params.get("VolumeId"))
    call.on_volume(call.params.get("VolumeId"))
    attached = volume.attachment.instance.id if volume is not None and volume.attachment else None
    call.on_instance(call.params.get("InstanceId") or attached)


def create_snapshot(call):
    call.on_volume(call.params.get("VolumeId"))
    call.makes("snapshot", call.shared("snapshot/*"))


def change_tags(call):
    for resource in call.params.get("Resources") or []:
        call.on_any(resource, request_tags(call.params.get("Tags") or []))


def each_instance(call):
    for instance in call.params.get("InstanceIds") or [call.params.get("InstanceId")]:
        call.on_instance(instance)


def start_snapshot(call):
    params, new = call.params, call.shared("snapshot/*")
    tags = request_tags(params.get("Tags") or [])
    call.ask(new, tags)
    if tags:
        call.ask(new, tags, action="ec2:CreateTags")
    parent = snapshots.find(params.get("ParentSnapshotId"))
    key = parent.kms_key_id if parent is not None else params.get("KmsKeyArn")
    if key is None and (params.get("Encrypted") or snapshots.encrypts_by_default(call.account, call.region)):
        key = snapshots.default_key(call.account, call.region)
    call.uses_key(key, OF_A_NEW_ONE, "ebs")


def blocks(*of_key):
    def asks(call):
        snapshot = snapshots.find(call.params.get("SnapshotId"))
        call.on_snapshot(call.params.get("SnapshotId"))
        if snapshot is not None:
            call.uses_key(snapshot.kms_key_id, of_key, "ebs")

    return asks


def send_command(call):
    each_instance(call)
    call.ask(call.shared(f"document/{call.params['DocumentName']}", "ssm"))


def parameter(call):
    """One of AWS's own is of no account; a version or a label is no part of its name. Of a secret Secrets Manager is asked."""
    name = call.params["Name"].partition(":")[0].lstrip("/")
    arn = call.shared if name.startswith("aws/service/") else call.own
    call.ask(arn(f"parameter/{name}", "ssm"))
    if name.startswith(SECRETS):
        # Six characters of AWS's choice end its ARN.
        secret = f"secret:{name.removeprefix(SECRETS)}-Ab12Cd"
        call.ask(call.own(secret, "secretsmanager"), action="secretsmanager:GetSecretValue")


def bucket(call):
    call.ask(f"arn:aws:s3:::{call.params['Bucket']}", {"s3:prefix": call.params.get("Prefix", "")})


def an_object(call):
    arn = f"arn:aws:s3:::{call.params['Bucket']}/{call.params['Key']}"
    call.ask(arn)
    if call.params.get("Tagging"):
        call.ask(arn, action="s3:PutObjectTagging")


def delete_object(call):
    """Assumption: of the version `null` both actions are asked about, and of any other that of versions alone."""
    arn = f"arn:aws:s3:::{call.params['Bucket']}/{call.params['Key']}"
    call.ask(arn)
    if call.params.get("VersionId") == "null":
        call.ask(arn, action="s3:DeleteObject")


def repository(call):
    for name in call.params.get("repositoryNames") or [call.params.get("repositoryName")]:
        call.ask(call.own(f"repository/{name}", "ecr") if name else "*")


def jobs_of_a_type(call):
    of = call.params["actionTypeId"]
    rest = "/".join(of[name] for name in ("owner", "category", "provider", "version"))
    call.ask(call.own(f"actiontype:{rest}", "codepipeline"))


def key(call):
    found = key_of(snapshots.key_of(call.account, call.region, call.params["KeyId"], None))
    if found is not None:
        call.ask(found.arn, aliases_of(found))


def everything(call):
    """No narrower resource: the action has none, or nobody has said here which. Then a policy that names one refuses."""
    call.ask("*")


OPERATIONS = {
    **vpc_authorization.OPERATIONS,
    ("ec2", "RunInstances"): run_instances,
    ("ec2", "RegisterImage"): register_image,
    ("ec2", "CopyImage"): copy_image,
    ("ec2", "CreateImage"): create_image,
    ("ec2", "CreateVolume"): create_volume,
    ("ec2", "AttachVolume"): attachment,
    ("ec2", "DetachVolume"): attachment,
    ("ec2", "DeleteVolume"): lambda call: call.on_volume(call.params.get("VolumeId")),
    ("ec2", "CreateSnapshot"): create_snapshot,
    ("ec2", "CreateTags"): change_tags,
    ("ec2", "DeleteTags"): change_tags,
    ("ec2", "DeregisterImage"): lambda call: call.on_image(call.params.get("ImageId")),
    ("ec2", "ModifyImageAttribute"): lambda call: call.on_image(call.params.get("ImageId")),
    ("ec2", "DescribeImageAttribute"): lambda call: call.on_image(call.params.get("ImageId")),
    ("ec2", "DeleteSnapshot"): lambda call: call.on_snapshot(call.params.get("SnapshotId")),
    ("ec2", "GetConsoleOutput"): each_instance,
    ("ec2", "StopInstances"): each_instance,
    ("ec2", "TerminateInstances"): each_instance,
    ("ebs", "StartSnapshot"): start_snapshot,
    ("ebs", "PutSnapshotBlock"): blocks("Encrypt", "Decrypt"),
    ("ebs", "CompleteSnapshot"): blocks(),
    ("ebs", "ListSnapshotBlocks"): blocks(),
    ("ebs", "GetSnapshotBlock"): blocks("Decrypt"),
    ("ssm", "SendCommand"): send_command,
    ("ssm", "GetParameter"): parameter,
    ("s3", "PutObject"): an_object,
    ("s3", "GetObject"): an_object,
    ("s3", "HeadObject"): an_object,
    ("s3", "DeleteObject"): delete_object,
    ("s3", "ListObjectVersions"): bucket,
    ("s3", "HeadBucket"): bucket,
    ("codepipeline", "PollForJobs"): jobs_of_a_type,
    ("kms", "DescribeKey"): key,
    ("sts", "AssumeRole"): lambda call: call.ask(call.params["RoleArn"]),
}


def asked_about(request, account):
    """[{action, resource, context, call}]: `call` is the action of the call itself, where the other one is implied by it."""
    if (request.service, request.name) in FREE:
        return []
    call = Call(request, account)
    of_service = {"ecr": repository}.get(request.service, everything)
    OPERATIONS.get((request.service, request.name), of_service)(call)
    return call.asked
