"""What IAM is asked about the calls that make VPCs and take them apart (service authorization reference, Amazon EC2).

Assumptions:
- What a part is made in, or hung on, is asked about with its own tags; what is made with those of the request.
- A rule of a group is no resource of its own where it is given no tags.
- CreateRoute is asked about the table alone, DisassociateRouteTable about the table and the subnet."""

from . import vpcs
from .describing import tags_of

ARNS = {"vpc": "vpc", "igw": "internet-gateway", "subnet": "subnet", "rtb": "route-table", "sg": "security-group"}


def arn_of(call, part_id):
    return call.own(f"{ARNS[part_id.partition('-')[0]]}/{part_id}")


def on(call, part_id, context=None):
    part = vpcs.find(call.backend(), part_id)
    if part is not None:
        tags = {f"aws:ResourceTag/{key}": value for key, value in tags_of(part).items()}
        call.ask(arn_of(call, part_id), {**tags, **(context or {})})


def about(*names):
    """Those that the call names."""

    def asks(call):
        for name in names:
            on(call, call.params.get(name))

    return asks


def makes(kind, *names):
    """A part, of what the call names."""

    def asks(call):
        about(*names)(call)
        call.makes(kind, call.own(f"{kind}/*"))

    return asks


def disassociate(call):
    wanted = call.params.get("AssociationId")
    for table in list(call.backend().route_tables.values()):
        if wanted in table._associations:
            on(call, table.id)
            on(call, table._associations[wanted])


OPERATIONS = {
    ("ec2", "CreateVpc"): makes("vpc"),
    ("ec2", "CreateInternetGateway"): makes("internet-gateway"),
    ("ec2", "CreateSubnet"): makes("subnet", "VpcId"),
    ("ec2", "CreateRouteTable"): makes("route-table", "VpcId"),
    ("ec2", "CreateSecurityGroup"): makes("security-group", "VpcId"),
    ("ec2", "AttachInternetGateway"): about("InternetGatewayId", "VpcId"),
    ("ec2", "DetachInternetGateway"): about("InternetGatewayId", "VpcId"),
    ("ec2", "ModifySubnetAttribute"): about("SubnetId"),
    ("ec2", "CreateRoute"): about("RouteTableId"),
    ("ec2", "AssociateRouteTable"): about("RouteTableId", "SubnetId"),
    ("ec2", "DisassociateRouteTable"): disassociate,
    ("ec2", "AuthorizeSecurityGroupEgress"): about("GroupId"),
    ("ec2", "RevokeSecurityGroupEgress"): about("GroupId"),
    ("ec2", "DeleteSecurityGroup"): about("GroupId"),
    ("ec2", "DeleteRouteTable"): about("RouteTableId"),
    ("ec2", "DeleteSubnet"): about("SubnetId"),
    ("ec2", "DeleteInternetGateway"): about("InternetGatewayId"),
    ("ec2", "DeleteVpc"): about("VpcId"),
}
