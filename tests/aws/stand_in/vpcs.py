"""EC2's VPCs: their parts, in which order these are made and may go, and what holds one.

moto keeps the objects (tags, routes, rules, addresses); what depends on what is ours.

Assumptions:
- What was made a moment ago is neither described nor known to other calls for `describe_not_found_seconds`.
- A part that something hangs on is not deleted (DependencyViolation), whatever that is: an interface in a subnet or a group,
  what is in a VPC. A subnet takes its association with a route table along.
- A gateway is not detached while an interface in the VPC has a public address.
- Account limits: as many VPCs in a region as the setting `vpcs` says, the default one too, and as many internet gateways.
- A group that others' rules name is not looked for: nothing here makes such rules."""

from moto.core.responses import ActionResult
from moto.ec2.responses import EC2Response

from . import describing
from .errors import Refused
from .world import SETTINGS, WORLD

# VPCs in a region, and internet gateways.
SETTINGS.update({"vpcs": 5})

NOT_FOUND = {
    "vpc": ("InvalidVpcID.NotFound", "The vpc ID '{}' does not exist"),
    "igw": ("InvalidInternetGatewayID.NotFound", "The internetGateway ID '{}' does not exist"),
    "subnet": ("InvalidSubnetID.NotFound", "The subnet ID '{}' does not exist"),
    "rtb": ("InvalidRouteTableID.NotFound", "The routeTable ID '{}' does not exist"),
    "sg": ("InvalidGroup.NotFound", "The security group '{}' does not exist"),
}


def all_of(backend, kind):
    """Every part of a kind, by what its ids begin with."""
    return {
        "vpc": lambda: list(backend.vpcs.values()),
        "igw": lambda: list(backend.internet_gateways.values()),
        "subnet": lambda: [one for zone in backend.subnets.values() for one in zone.values()],
        "rtb": lambda: list(backend.route_tables.values()),
        "sg": lambda: [one for groups in backend.groups.values() for one in groups.values()],
    }[kind]()


def shows(part):
    """Whether it was made long enough ago."""
    made = getattr(part, "made_at", None)
    if made is None:
        return True
    tenant = WORLD.tenant(part.ec2_backend.account_id)
    return tenant.now() >= made + tenant.settings["describe_not_found_seconds"]


def find(backend, part_id):
    """A part by its id, whether it shows or not; None where there is none."""
    kind = (part_id or "").partition("-")[0]
    if kind not in NOT_FOUND:
        return None
    return next((one for one in all_of(backend, kind) if one.id == part_id), None)


def known(self, part_id, kind):
    """A part that a call names."""
    found = find(self.ec2_backend, part_id)
    if found is None or not shows(found) or not (part_id or "").startswith(kind + "-"):
        code, message = NOT_FOUND[kind]
        raise Refused(code, message.format(part_id))
    return found


def in_use(kind, part_id):
    raise Refused("DependencyViolation", f"The {kind} '{part_id}' has dependencies and cannot be deleted.")


def interfaces_in(backend, vpc_id):
    return [one for one in backend.enis.values() if one.subnet.vpc_id == vpc_id]


def _makes(name, tagged, kind, look=lambda self: None):
    """moto's operation, behind the looks of ours, and with what it made noted."""
    of_moto = getattr(EC2Response, name)

    def create(self):
        tags = describing.tags_given(self.params, [tagged])[tagged]
        look(self)
        before = {one.id for one in all_of(self.ec2_backend, kind)}
        answer = of_moto(self)
        for one in all_of(self.ec2_backend, kind):
            if one.id not in before and not getattr(one, "main_association_id", None) and getattr(one, "name", "") != "default":
                one.made_at = WORLD.tenant(self.current_account).now()
                assert describing.tags_of(one) == tags, f"moto gave {one.id} other tags"
        return answer

    create.__doc__ = f"{name}: moto's, with tags of its own kind alone. Assumption: nothing besides the module's."
    return create


def _within_limit(kind, code, of):
    def look(self):
        limit = WORLD.tenant(self.current_account).settings["vpcs"]
        if len(all_of(self.ec2_backend, kind)) >= limit:
            raise Refused(code, f"The maximum number of {of} has been reached.")

    return look


def _in_vpc(self):
    known(self, self._get_param("VpcId"), "vpc")


def _described(name, key, kind, values_of, ids):
    """A Describe operation with all filters that are asked for anywhere."""

    def describe(self):
        backend = all_of(self.ec2_backend, kind)
        wanted = self._get_param(ids, [])
        for one in wanted:
            known(self, one, kind)
        shown = [one for one in backend if shows(one) and (not wanted or one.id in wanted)]
        filters = self.params.get("Filters")
        kept = [one for one in shown if describing.matches(filters, values_of(one), describing.tags_of(one))]
        most = 100 if kind == "rtb" else 1000
        page, more = describing.page(kept, self.params, WORLD.tenant(self.current_account), 5, most, wanted)
        return ActionResult({key: page, "NextToken": more})

    describe.__doc__ = f"{name}. Assumption: an id that is not there is refused, for all ids together; another filter too."
    return describe


def vpc_values(vpc):
    return {"vpc-id": vpc.id, "cidr": vpc.cidr_block, "cidr-block": vpc.cidr_block, "is-default": vpc.is_default, "state": vpc.state}


def gateway_values(gateway):
    attached = gateway.vpc.id if gateway.vpc else None
    return {"internet-gateway-id": gateway.id, "attachment.vpc-id": attached, "attachment.state": gateway.attachment_state}


def subnet_values(subnet):
    return {
        "subnet-id": subnet.id,
        "vpc-id": subnet.vpc_id,
        "state": subnet.state,
        "default-for-az": subnet.default_for_az,
        "availability-zone": subnet.availability_zone,
        "cidr-block": subnet.cidr_block,
    }


def table_values(table):
    return {
        "route-table-id": table.id,
        "vpc-id": table.vpc_id,
        "association.main": table.main_association_id is not None,
        "association.subnet-id": list(table._associations.values()),
        "association.route-table-association-id": list(table.all_associations_ids),
    }


def group_values(group):
    return {"group-id": group.id, "vpc-id": group.vpc_id, "group-name": group.name, "description": group.description}


def attach_internet_gateway(self):
    """AttachInternetGateway. Assumptions: a gateway that has a VPC is Resource.AlreadyAssociated, also with the same one; a VPC
    that has a gateway takes no other."""
    gateway = known(self, self._get_param("InternetGatewayId"), "igw")
    vpc = known(self, self._get_param("VpcId"), "vpc")
    if gateway.vpc is not None:
        raise Refused("Resource.AlreadyAssociated", f"resource {gateway.id} is already attached to network {gateway.vpc.id}")
    if any(one.vpc is vpc for one in self.ec2_backend.internet_gateways.values()):
        raise Refused("InvalidParameterValue", f"Network {vpc.id} already has an internet gateway attached")
    return of_moto["attach_internet_gateway"](self)


def detach_internet_gateway(self):
    """DetachInternetGateway. Assumption: one that is not attached to this VPC is Gateway.NotAttached."""
    gateway, vpc_id = known(self, self._get_param("InternetGatewayId"), "igw"), self._get_param("VpcId")
    if gateway.vpc is not None and any(one.public_ip for one in interfaces_in(self.ec2_backend, vpc_id)):
        raise Refused(
            "DependencyViolation",
            f"Network {vpc_id} has some mapped public address(es). Please unmap those public address(es) before detaching "
            "the gateway.",
        )
    return of_moto["detach_internet_gateway"](self)


def delete_internet_gateway(self):
    """DeleteInternetGateway. Assumption: one that is attached is a DependencyViolation."""
    known(self, self._get_param("InternetGatewayId"), "igw")
    return of_moto["delete_internet_gateway"](self)


def modify_subnet_attribute(self):
    """ModifySubnetAttribute. Assumption: it holds at once."""
    known(self, self._get_param("SubnetId"), "subnet")
    return of_moto["modify_subnet_attribute"](self)


def delete_subnet(self):
    """DeleteSubnet. Assumption: its association with a route table goes with it."""
    backend, subnet = self.ec2_backend, known(self, self._get_param("SubnetId"), "subnet")
    if any(one.subnet.id == subnet.id for one in backend.enis.values()):
        in_use("subnet", subnet.id)
    for table in backend.route_tables.values():
        for association in [key for key, of in table._associations.items() if of == subnet.id]:
            del table._associations[association]
    return of_moto["delete_subnet"](self)


def create_route(self):
    """CreateRoute. Assumptions: a gateway must be attached to the table's VPC; a destination that has a route is
    RouteAlreadyExists, also where it is the same."""
    table = known(self, self._get_param("RouteTableId"), "rtb")
    gateway_id = self._get_param("GatewayId") or ""
    if gateway_id.startswith("igw-"):
        gateway = known(self, gateway_id, "igw")
        if gateway.vpc is None or gateway.vpc.id != table.vpc_id:
            raise Refused("InvalidParameterValue", f"route table {table.id} and network gateway {gateway_id} belong to different networks")
    return of_moto["create_route"](self)


def associate_route_table(self):
    """AssociateRouteTable. Assumption: a subnet that has a table is Resource.AlreadyAssociated, also with the same one."""
    table = known(self, self._get_param("RouteTableId"), "rtb")
    subnet_id = self._get_param("SubnetId")
    if subnet_id:
        known(self, subnet_id, "subnet")
        if any(subnet_id in one._associations.values() for one in self.ec2_backend.route_tables.values()):
            raise Refused(
                "Resource.AlreadyAssociated",
                f"the specified association for route table {table.id} conflicts with an existing association",
            )
    return of_moto["associate_route_table"](self)


def delete_route_table(self):
    """DeleteRouteTable. Assumption: a main one is a DependencyViolation, as one that has an association."""
    table = known(self, self._get_param("RouteTableId"), "rtb")
    if table.main_association_id is not None or table._associations:
        in_use("routeTable", table.id)
    return of_moto["delete_route_table"](self)


def authorize_security_group_egress(self):
    """AuthorizeSecurityGroupEgress. Assumption: of several rules all are made, or none where one is there."""
    known(self, self._get_param("GroupId"), "sg")
    return of_moto["authorize_security_group_egress"](self)


def revoke_security_group_egress(self):
    """RevokeSecurityGroupEgress. Assumption: a rule that is not there is InvalidPermission.NotFound."""
    known(self, self._get_param("GroupId"), "sg")
    return of_moto["revoke_security_group_egress"](self)


def delete_security_group(self):
    """DeleteSecurityGroup. Assumption: a default one is CannotDelete."""
    group_id = self._get_param("GroupId")
    if group_id:
        group = known(self, group_id, "sg")
        if group.name == "default":
            raise Refused("CannotDelete", f"the specified group: \"{group_id}\" name: \"default\" cannot be deleted by a user")
        if any(group in one.group_set for one in self.ec2_backend.enis.values()):
            raise Refused("DependencyViolation", f"resource {group_id} has a dependent object")
    return of_moto["delete_security_group"](self)


def delete_vpc(self):
    """DeleteVpc. Assumption: what EC2 made with it goes with it, and everything else has to be gone."""
    backend, vpc = self.ec2_backend, known(self, self._get_param("VpcId"), "vpc")
    own = [one for one in all_of(backend, "sg") if one.vpc_id == vpc.id and one.name != "default"]
    attached = [one for one in all_of(backend, "igw") if one.vpc is vpc]
    endpoints = [one for one in backend.vpc_end_points.values() if one.vpc_id == vpc.id]
    if own or attached or endpoints or interfaces_in(backend, vpc.id):
        in_use("vpc", vpc.id)
    return of_moto["delete_vpc"](self)


of_moto = {}


def install(moto):
    limits = {"vpc": ("VpcLimitExceeded", "VPCs"), "igw": ("InternetGatewayLimitExceeded", "internet gateways")}
    for name, tagged, kind, look in (
        ("create_vpc", "vpc", "vpc", _within_limit("vpc", *limits["vpc"])),
        ("create_internet_gateway", "internet-gateway", "igw", _within_limit("igw", *limits["igw"])),
        ("create_subnet", "subnet", "subnet", _in_vpc),
        ("create_route_table", "route-table", "rtb", _in_vpc),
        ("create_security_group", "security-group", "sg", _in_vpc),
    ):
        moto.replace(EC2Response, name, _makes(name, tagged, kind, look))
    for name, key, kind, values_of, ids in (
        ("describe_vpcs", "Vpcs", "vpc", vpc_values, "VpcIds"),
        ("describe_internet_gateways", "InternetGateways", "igw", gateway_values, "InternetGatewayIds"),
        ("describe_subnets", "Subnets", "subnet", subnet_values, "SubnetIds"),
        ("describe_route_tables", "RouteTables", "rtb", table_values, "RouteTableIds"),
        ("describe_security_groups", "SecurityGroups", "sg", group_values, "GroupIds"),
    ):
        moto.replace(EC2Response, name, _described(name, key, kind, values_of, ids))
    for function in (
        attach_internet_gateway,
        detach_internet_gateway,
        delete_internet_gateway,
        modify_subnet_attribute,
        delete_subnet,
        create_route,
        associate_route_table,
        delete_route_table,
        authorize_security_group_egress,
        revoke_security_group_egress,
        delete_security_group,
        delete_vpc,
    ):
        of_moto[function.__name__] = moto.replace(EC2Response, function.__name__, function)
