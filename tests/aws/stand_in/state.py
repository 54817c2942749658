"""Everything that an account holds, for a look before and after: what is not in it does not exist. It changes nothing."""

import hashlib

from moto.ec2.models import ec2_backends

from . import images, snapshots
from .describing import tags_of


def of_account(account):
    """By kind, then by id."""
    said = {
        "snapshots": {s.id: _snapshot(s) for s in snapshots.of_account(account)},
        "images": {i.id: _image(i) for i in images.of_account(account)},
        "instances": {},
        "volumes": {},
        "interfaces": {},
        "vpcs": {},
        "internet_gateways": {},
        "subnets": {},
        "route_tables": {},
        "security_groups": {},
        "key_pairs": {},
        "launch_templates": {},
        "spot_requests": {},
        "parameters": {},
        "objects": {},
        "grants": {},
        "repositories": {},
        "instance_profiles": {},
    }
    if account in ec2_backends:
        for region in list(ec2_backends[account]):
            _of_ec2(ec2_backends[account][region], region, said)
    _of_others(account, said)
    return said


def _snapshot(snapshot):
    content = hashlib.sha256()
    for index in sorted(snapshot.blocks.all):
        content.update(index.to_bytes(4, "big") + snapshot.blocks.all[index][1])
    return {
        "region": snapshot.region,
        "state": snapshot.status,
        "open": snapshot.is_open,
        "size": snapshot.volume.size,
        "blocks": len(snapshot.blocks.all),
        "own_blocks": len(snapshot.blocks.own),
        # Of indexes and bytes: equal for snapshots of equal content.
        "content": content.hexdigest(),
        "parent": snapshot.parent,
        "key": snapshot.kms_key_id,
        "description": snapshot.description,
        "public": snapshot.is_public(),
        "shared_with": sorted(snapshot.create_volume_permission_userids),
        "tags": tags_of(snapshot),
    }


def _image(image):
    return {
        "region": image.region,
        "name": image.name,
        "state": image.state,
        "snapshots": image.snapshots(),
        "launch_permissions": image.launch_permissions,
        "uefi_data": image.uefi_data,
        "described": image.described(image.account),
        "tags": tags_of(image),
    }


def _of_ec2(backend, region, said):
    for reservation in backend.reservations.values():
        for instance in reservation.instances:
            said["instances"][instance.id] = {
                "region": region,
                "state": instance.state,
                "image": instance.image_id,
                "type": instance.instance_type,
                "tags": dict(backend.tags.get(instance.id, {})),
            }
    for volume in backend.volumes.values():
        said["volumes"][volume.id] = {
            "region": region,
            "size": volume.size,
            "state": volume.status,
            "tags": dict(backend.tags.get(volume.id, {})),
        }
    for interface in backend.enis.values():
        said["interfaces"][interface.id] = {"region": region, "tags": dict(backend.tags.get(interface.id, {}))}
    # What EC2 made by itself, with the account or with a VPC, is left out.
    for vpc in backend.vpcs.values():
        if not vpc.is_default:
            said["vpcs"][vpc.id] = {"region": region, "tags": dict(backend.tags.get(vpc.id, {}))}
    for gateway in backend.internet_gateways.values():
        attached = gateway.vpc.id if gateway.vpc else None
        tags = dict(backend.tags.get(gateway.id, {}))
        said["internet_gateways"][gateway.id] = {"region": region, "vpc": attached, "tags": tags}
    for zone in backend.subnets.values():
        for subnet in zone.values():
            if not subnet.default_for_az:
                said["subnets"][subnet.id] = {
                    "region": region,
                    "vpc": subnet.vpc_id,
                    "addresses": subnet.cidr_block,
                    "public": subnet.map_public_ip_on_launch,
                    "tags": dict(backend.tags.get(subnet.id, {})),
                }
    for table in backend.route_tables.values():
        if table.main_association_id is None:
            said["route_tables"][table.id] = {
                "region": region,
                "vpc": table.vpc_id,
                "routes": {route.destination_cidr_block: route.gateway_id for route in table.routes},
                "subnets": sorted(table._associations.values()),
                "tags": dict(backend.tags.get(table.id, {})),
            }
    for groups in backend.groups.values():
        for group in groups.values():
            if group.name != "default":
                said["security_groups"][group.id] = {
                    "region": region,
                    "name": group.name,
                    "out": sorted(f"{rule.ip_protocol} {rule.to_port}" for rule in group.egress_rules),
                    "in": len(group.ingress_rules),
                    "tags": dict(backend.tags.get(group.id, {})),
                }
    for key in backend.key_pairs.values():
        said["key_pairs"][key.id] = {"region": region, "name": key.name}
    for template in backend.launch_templates.values():
        said["launch_templates"][template.id] = {"region": region, "name": template.name}
    for request in backend.spot_instance_requests.values():
        said["spot_requests"][request.id] = {"region": region, "state": str(getattr(request, "state", ""))}


def _of_others(account, said):
    from moto.ecr.models import ecr_backends
    from moto.iam.models import iam_backends
    from moto.kms.models import kms_backends
    from moto.s3.models import s3_backends
    from moto.ssm.models import ssm_backends

    for region, backend in _regions(ssm_backends, account):
        for name, versions in dict.items(backend._parameters):
            if versions and not name.startswith("/aws/"):
                said["parameters"][f"{region}:{name}"] = {
                    "value": versions[-1].value,
                    "version": versions[-1].version,
                    "type": versions[-1].parameter_type,
                    "tags": {t["Key"]: t["Value"] for t in versions[-1].tags or []},
                }
    for _, backend in _regions(s3_backends, account):
        for bucket in backend.buckets.values():
            for key, versions in bucket.keys.lists():
                said["objects"][f"{bucket.name}/{key}"] = {"versions": len(versions)}
    for region, backend in _regions(kms_backends, account):
        for key in backend.keys.values():
            for grant in key.list_grants(None):
                said["grants"][grant.id] = {"region": region, "key": key.id}
    for region, backend in _regions(ecr_backends, account):
        for repository in backend.repositories.values():
            said["repositories"][f"{region}:{repository.name}"] = {"images": len(repository.images)}
    for _, backend in _regions(iam_backends, account):
        for profile in backend.instance_profiles.values():
            said["instance_profiles"][profile.name] = {}


def _regions(backends, account):
    return list(backends[account].items()) if account in backends else []


def write_disk(asked):
    """Writes a snapshot's volume into a file of this host: `{account, snapshot, path, noise?}`. Absent blocks are noise."""
    snapshot = snapshots.find(asked["snapshot"])
    if snapshot is None:
        raise ValueError(f"{asked['snapshot']} does not exist")
    snapshot.blocks.to_disk(asked["path"], snapshot.volume.size, asked.get("noise", True))
    return {"size": snapshot.volume.size << 30}
