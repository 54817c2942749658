//! What the making and the taking away of VPCs needs: the part of the table that is theirs.

use super::super::needs::Part::{Sweep, Vpc};
use super::super::{On, Only};
use super::{Statement, call, implied};

const MADE_IN_VPC: &str = "SAR, Amazon EC2: the new resource*, aws:RequestTag, and vpc*, aws:ResourceTag";
const PART_OF_VPC: &str = "SAR, Amazon EC2: the resource*, aws:ResourceTag";
const TAGGED_PART: &str =
    "SDK: TagSpecifications; SAR, Amazon EC2: each of these depends on ec2:CreateTags; ec2:CreateAction";

/// What a subnet, a table and a group are made in is a resource of the call too, and carries no tag of the request: it is
/// with what is changed.
pub(super) const MAKE: Statement = Statement {
    sid: "MakeVpc",
    only: &[Only::MakesVpcs],
    grants: &[
        call("ec2:CreateVpc", On::Vpcs, &[Vpc], "SAR, Amazon EC2: vpc*, aws:RequestTag"),
        call(
            "ec2:CreateInternetGateway",
            On::InternetGateways,
            &[Vpc],
            "SAR, Amazon EC2: internet-gateway*, aws:RequestTag",
        ),
        call("ec2:CreateSubnet", On::Subnets, &[Vpc], MADE_IN_VPC),
        call("ec2:CreateRouteTable", On::RouteTables, &[Vpc], MADE_IN_VPC),
        call("ec2:CreateSecurityGroup", On::SecurityGroups, &[Vpc], MADE_IN_VPC),
    ],
};

pub(super) const TAG: Statement = Statement {
    sid: "TagVpc",
    only: &[Only::MakesVpcs, Only::TagsInCall],
    grants: &[implied(
        "ec2:CreateTags",
        &[
            "ec2:CreateVpc",
            "ec2:CreateInternetGateway",
            "ec2:CreateSubnet",
            "ec2:CreateRouteTable",
            "ec2:CreateSecurityGroup",
        ],
        On::VpcParts,
        &[Vpc],
        TAGGED_PART,
    )],
};

/// A run that goes on with what is there writes its own name on it, and when it expires.
pub(super) const TAKE_OVER: Statement = Statement {
    sid: "TakeVpcOver",
    only: &[Only::OfVpcs, Only::TagsVpcs],
    grants: &[call("ec2:CreateTags", On::VpcParts, &[Vpc], "SAR, Amazon EC2: aws:ResourceTag, aws:TagKeys")],
};

pub(super) const OWN: Statement = Statement {
    sid: "OfVpcs",
    only: &[Only::OfVpcs],
    grants: &[
        call("ec2:CreateSubnet", On::Vpcs, &[Vpc], MADE_IN_VPC),
        call("ec2:CreateRouteTable", On::Vpcs, &[Vpc], MADE_IN_VPC),
        call("ec2:CreateSecurityGroup", On::Vpcs, &[Vpc], MADE_IN_VPC),
        call("ec2:AttachInternetGateway", On::Vpcs, &[Vpc], PART_OF_VPC),
        call("ec2:AttachInternetGateway", On::InternetGateways, &[Vpc], PART_OF_VPC),
        call("ec2:ModifySubnetAttribute", On::Subnets, &[Vpc], PART_OF_VPC),
        call("ec2:CreateRoute", On::RouteTables, &[Vpc], PART_OF_VPC),
        call("ec2:AssociateRouteTable", On::RouteTables, &[Vpc], PART_OF_VPC),
        call("ec2:AssociateRouteTable", On::Subnets, &[Vpc], PART_OF_VPC),
        call("ec2:AuthorizeSecurityGroupEgress", On::SecurityGroups, &[Vpc], PART_OF_VPC),
        call("ec2:RevokeSecurityGroupEgress", On::SecurityGroups, &[Vpc], PART_OF_VPC),
        call("ec2:DetachInternetGateway", On::Vpcs, &[Sweep, Vpc], PART_OF_VPC),
        call("ec2:DetachInternetGateway", On::InternetGateways, &[Sweep, Vpc], PART_OF_VPC),
        call("ec2:DisassociateRouteTable", On::RouteTables, &[Sweep, Vpc], PART_OF_VPC),
        call("ec2:DisassociateRouteTable", On::Subnets, &[Sweep, Vpc], PART_OF_VPC),
        call("ec2:DeleteSecurityGroup", On::SecurityGroups, &[Sweep, Vpc], PART_OF_VPC),
        call("ec2:DeleteRouteTable", On::RouteTables, &[Sweep, Vpc], PART_OF_VPC),
        call("ec2:DeleteSubnet", On::Subnets, &[Sweep, Vpc], PART_OF_VPC),
        call("ec2:DeleteInternetGateway", On::InternetGateways, &[Sweep, Vpc], PART_OF_VPC),
        call("ec2:DeleteVpc", On::Vpcs, &[Sweep, Vpc], PART_OF_VPC),
    ],
};
