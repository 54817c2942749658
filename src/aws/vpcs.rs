//! VPCs, as EC2 has them.

use std::collections::BTreeSet;

use async_trait::async_trait;
use aws_sdk_ec2::types as ec2;

use super::place::{AwsPlace, ec2_tags, some, tag_filters, tagged, tags_of};
use crate::cloud::{
    Association, InstanceId, Interface, NewPart, PartChange, PartDetail, PartId, PartKind, PartQuery, Result,
    Tags, VpcPart, Vpcs,
};

const CREATE_VPC: &str = "CreateVpc";
const CREATE_GATEWAY: &str = "CreateInternetGateway";
const CREATE_SUBNET: &str = "CreateSubnet";
const CREATE_TABLE: &str = "CreateRouteTable";
const CREATE_GROUP: &str = "CreateSecurityGroup";
/// Everywhere.
const ANYWHERE: &str = "0.0.0.0/0";
/// All protocols.
const ALL: &str = "-1";

#[derive(Clone, Debug)]
pub(super) struct AwsVpcs(pub(super) AwsPlace);

/// An id in an answer.
fn part(id: Option<&str>) -> Option<PartId> {
    id.and_then(PartId::parse)
}

/// The filters of a query; each kind has its own names for them.
fn filters(query: &PartQuery, id: &str, vpc: &str) -> Option<Vec<ec2::Filter>> {
    let of = |name: &str, part: &PartId| ec2::Filter::builder().name(name).values(part.as_str()).build();
    let mut filters = tag_filters(&query.tags, &query.tag_keys);
    filters.extend(query.id.as_ref().map(|part| of(id, part)));
    filters.extend(query.vpc.as_ref().map(|part| of(vpc, part)));
    some(filters)
}

/// What a group lets out: TCP to one port, anywhere.
fn to_port(port: u16) -> ec2::IpPermission {
    let permission = ec2::IpPermission::builder().ip_protocol("tcp").from_port(port.into());
    permission.to_port(port.into()).ip_ranges(ec2::IpRange::builder().cidr_ip(ANYWHERE).build()).build()
}

fn everything() -> ec2::IpPermission {
    let anywhere = ec2::IpRange::builder().cidr_ip(ANYWHERE).build();
    ec2::IpPermission::builder().ip_protocol(ALL).ip_ranges(anywhere).build()
}

fn is_anywhere(permission: &ec2::IpPermission) -> bool {
    permission.ip_ranges().iter().any(|range| range.cidr_ip() == Some(ANYWHERE))
}

impl AwsVpcs {
    async fn vpcs(&self, query: &PartQuery) -> Result<Vec<VpcPart>> {
        let filters = filters(query, "vpc-id", "vpc-id");
        let mut pages = self.0.ec2.describe_vpcs().set_filters(filters).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(self.0.failed("DescribeVpcs"))?;
            found.extend(page.vpcs().iter().filter_map(|vpc| {
                let id = part(vpc.vpc_id())?;
                let addresses = vpc.cidr_block().unwrap_or_default().to_owned();
                let detail = PartDetail::Vpc { addresses };
                Some(VpcPart { vpc: Some(id.clone()), id, tags: tags_of(vpc.tags()), of_vpc: false, detail })
            }));
        }
        Ok(found)
    }

    async fn gateways(&self, query: &PartQuery) -> Result<Vec<VpcPart>> {
        let filters = filters(query, "internet-gateway-id", "attachment.vpc-id");
        let mut pages = self.0.ec2.describe_internet_gateways().set_filters(filters).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(self.0.failed("DescribeInternetGateways"))?;
            found.extend(page.internet_gateways().iter().filter_map(|gateway| {
                let attached = gateway.attachments().iter().find_map(|one| part(one.vpc_id()));
                Some(VpcPart {
                    id: part(gateway.internet_gateway_id())?,
                    vpc: attached,
                    tags: tags_of(gateway.tags()),
                    of_vpc: false,
                    detail: PartDetail::InternetGateway,
                })
            }));
        }
        Ok(found)
    }

    async fn subnets(&self, query: &PartQuery) -> Result<Vec<VpcPart>> {
        let filters = filters(query, "subnet-id", "vpc-id");
        let mut pages = self.0.ec2.describe_subnets().set_filters(filters).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(self.0.failed("DescribeSubnets"))?;
            found.extend(page.subnets().iter().filter_map(|subnet| {
                let public = subnet.map_public_ip_on_launch().unwrap_or_default();
                Some(VpcPart {
                    id: part(subnet.subnet_id())?,
                    vpc: part(subnet.vpc_id()),
                    tags: tags_of(subnet.tags()),
                    of_vpc: false,
                    detail: PartDetail::Subnet { public },
                })
            }));
        }
        Ok(found)
    }

    async fn tables(&self, query: &PartQuery) -> Result<Vec<VpcPart>> {
        let filters = filters(query, "route-table-id", "vpc-id");
        let mut pages = self.0.ec2.describe_route_tables().set_filters(filters).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(self.0.failed("DescribeRouteTables"))?;
            found.extend(page.route_tables().iter().filter_map(table));
        }
        Ok(found)
    }

    async fn groups(&self, query: &PartQuery) -> Result<Vec<VpcPart>> {
        let filters = filters(query, "group-id", "vpc-id");
        let mut pages = self.0.ec2.describe_security_groups().set_filters(filters).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(self.0.failed("DescribeSecurityGroups"))?;
            found.extend(page.security_groups().iter().filter_map(group));
        }
        Ok(found)
    }
}

fn table(table: &ec2::RouteTable) -> Option<VpcPart> {
    let default = |route: &&ec2::Route| route.destination_cidr_block() == Some(ANYWHERE);
    let way_out = table.routes().iter().find(default).and_then(|route| part(route.gateway_id()));
    let associations = table.associations().iter().filter_map(|one| {
        let id = one.route_table_association_id()?.to_owned();
        Some(Association { id, subnet: part(one.subnet_id())? })
    });
    let is_main = |one: &ec2::RouteTableAssociation| one.main() == Some(true);
    Some(VpcPart {
        id: part(table.route_table_id())?,
        vpc: part(table.vpc_id()),
        tags: tags_of(table.tags()),
        of_vpc: table.associations().iter().any(is_main),
        detail: PartDetail::RouteTable { way_out, associations: associations.collect() },
    })
}

fn group(group: &ec2::SecurityGroup) -> Option<VpcPart> {
    let out = || group.ip_permissions_egress().iter().filter(|permission| is_anywhere(permission));
    let single = |permission: &ec2::IpPermission| {
        let (from, to) = (permission.from_port()?, permission.to_port()?);
        (permission.ip_protocol() == Some("tcp") && from == to).then(|| u16::try_from(from).ok()).flatten()
    };
    let ports: BTreeSet<u16> = out().filter_map(single).collect();
    let all = out().any(|permission| permission.ip_protocol() == Some(ALL));
    Some(VpcPart {
        id: part(group.group_id())?,
        vpc: part(group.vpc_id()),
        tags: tags_of(group.tags()),
        // Its name is reserved, and it cannot be deleted (EC2 user guide, "Default security groups").
        of_vpc: group.group_name() == Some("default"),
        detail: PartDetail::SecurityGroup { all, ports },
    })
}

#[async_trait]
impl Vpcs for AwsVpcs {
    async fn create(&self, new: &NewPart, tags: &Tags) -> Result<PartId> {
        let ec2 = &self.0.ec2;
        let of = |kind| tagged(kind, tags).map(|tags| vec![tags]);
        let (id, operation) = match new {
            NewPart::Vpc { addresses } => {
                let call = ec2.create_vpc().cidr_block(addresses);
                let call = call.set_tag_specifications(of(ec2::ResourceType::Vpc));
                let answer = call.send().await.map_err(self.0.failed(CREATE_VPC))?;
                (part(answer.vpc().and_then(|vpc| vpc.vpc_id())), CREATE_VPC)
            }
            NewPart::InternetGateway => {
                let call = ec2.create_internet_gateway();
                let call = call.set_tag_specifications(of(ec2::ResourceType::InternetGateway));
                let answer = call.send().await.map_err(self.0.failed(CREATE_GATEWAY))?;
                let gateway = answer.internet_gateway();
                (part(gateway.and_then(|gateway| gateway.internet_gateway_id())), CREATE_GATEWAY)
            }
            NewPart::Subnet { vpc, addresses, zone } => {
                let call = ec2.create_subnet().vpc_id(vpc.as_str()).cidr_block(addresses);
                let call = call.set_availability_zone(zone.clone());
                let call = call.set_tag_specifications(of(ec2::ResourceType::Subnet));
                let answer = call.send().await.map_err(self.0.failed(CREATE_SUBNET))?;
                (part(answer.subnet().and_then(|subnet| subnet.subnet_id())), CREATE_SUBNET)
            }
            NewPart::RouteTable { vpc } => {
                let call = ec2.create_route_table().vpc_id(vpc.as_str());
                let call = call.set_tag_specifications(of(ec2::ResourceType::RouteTable));
                let answer = call.send().await.map_err(self.0.failed(CREATE_TABLE))?;
                (part(answer.route_table().and_then(|table| table.route_table_id())), CREATE_TABLE)
            }
            NewPart::SecurityGroup { vpc, name, description } => {
                let call = ec2.create_security_group().vpc_id(vpc.as_str()).group_name(name);
                let call = call.description(description);
                let call = call.set_tag_specifications(of(ec2::ResourceType::SecurityGroup));
                let answer = call.send().await.map_err(self.0.failed(CREATE_GROUP))?;
                (part(answer.group_id()), CREATE_GROUP)
            }
        };
        id.ok_or_else(|| self.0.odd(operation, "no id of what was made"))
    }

    async fn find(&self, kind: PartKind, query: &PartQuery) -> Result<Vec<VpcPart>> {
        match kind {
            PartKind::Vpc => self.vpcs(query).await,
            PartKind::InternetGateway => self.gateways(query).await,
            PartKind::Subnet => self.subnets(query).await,
            PartKind::RouteTable => self.tables(query).await,
            PartKind::SecurityGroup => self.groups(query).await,
        }
    }

    async fn change(&self, change: &PartChange) -> Result<()> {
        let ec2 = &self.0.ec2;
        match change {
            PartChange::Attach { gateway, vpc } => {
                let call = ec2.attach_internet_gateway().internet_gateway_id(gateway.as_str());
                let sent = call.vpc_id(vpc.as_str()).send().await;
                sent.map(drop).map_err(self.0.failed("AttachInternetGateway"))
            }
            PartChange::Detach { gateway, vpc } => {
                let call = ec2.detach_internet_gateway().internet_gateway_id(gateway.as_str());
                let sent = call.vpc_id(vpc.as_str()).send().await;
                sent.map(drop).map_err(self.0.failed("DetachInternetGateway"))
            }
            PartChange::PublicAddresses { subnet } => {
                let yes = ec2::AttributeBooleanValue::builder().value(true).build();
                let call = ec2.modify_subnet_attribute().subnet_id(subnet.as_str());
                let sent = call.map_public_ip_on_launch(yes).send().await;
                sent.map(drop).map_err(self.0.failed("ModifySubnetAttribute"))
            }
            PartChange::WayOut { table, gateway } => {
                let call = ec2.create_route().route_table_id(table.as_str());
                let call = call.destination_cidr_block(ANYWHERE).gateway_id(gateway.as_str());
                call.send().await.map(drop).map_err(self.0.failed("CreateRoute"))
            }
            PartChange::Associate { table, subnet } => {
                let call = ec2.associate_route_table().route_table_id(table.as_str());
                let sent = call.subnet_id(subnet.as_str()).send().await;
                sent.map(drop).map_err(self.0.failed("AssociateRouteTable"))
            }
            PartChange::Disassociate { association } => {
                let sent = ec2.disassociate_route_table().association_id(association).send().await;
                sent.map(drop).map_err(self.0.failed("DisassociateRouteTable"))
            }
            PartChange::LetOut { group, ports } => {
                let permissions = ports.iter().copied().map(to_port).collect();
                let call = ec2.authorize_security_group_egress().group_id(group.as_str());
                let sent = call.set_ip_permissions(Some(permissions)).send().await;
                sent.map(drop).map_err(self.0.failed("AuthorizeSecurityGroupEgress"))
            }
            PartChange::HoldBack { group } => {
                let call = ec2.revoke_security_group_egress().group_id(group.as_str());
                let sent = call.ip_permissions(everything()).send().await;
                sent.map(drop).map_err(self.0.failed("RevokeSecurityGroupEgress"))
            }
        }
    }

    async fn tag(&self, ids: &[PartId], tags: &Tags) -> Result<()> {
        let resources = ids.iter().map(ToString::to_string).collect();
        let call = self.0.ec2.create_tags().set_resources(Some(resources)).set_tags(Some(ec2_tags(tags)));
        call.send().await.map(drop).map_err(self.0.failed("CreateTags"))
    }

    async fn delete(&self, id: &PartId) -> Result<()> {
        let (ec2, text) = (&self.0.ec2, id.as_str());
        match id.kind() {
            PartKind::Vpc => {
                let sent = ec2.delete_vpc().vpc_id(text).send().await;
                sent.map(drop).map_err(self.0.failed("DeleteVpc"))
            }
            PartKind::InternetGateway => {
                let sent = ec2.delete_internet_gateway().internet_gateway_id(text).send().await;
                sent.map(drop).map_err(self.0.failed("DeleteInternetGateway"))
            }
            PartKind::Subnet => {
                let sent = ec2.delete_subnet().subnet_id(text).send().await;
                sent.map(drop).map_err(self.0.failed("DeleteSubnet"))
            }
            PartKind::RouteTable => {
                let sent = ec2.delete_route_table().route_table_id(text).send().await;
                sent.map(drop).map_err(self.0.failed("DeleteRouteTable"))
            }
            PartKind::SecurityGroup => {
                let sent = ec2.delete_security_group().group_id(text).send().await;
                sent.map(drop).map_err(self.0.failed("DeleteSecurityGroup"))
            }
        }
    }

    async fn interfaces(&self, vpc: &PartId) -> Result<Vec<Interface>> {
        let of_vpc = ec2::Filter::builder().name("vpc-id").values(vpc.as_str()).build();
        let mut pages = self.0.ec2.describe_network_interfaces().filters(of_vpc).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(self.0.failed("DescribeNetworkInterfaces"))?;
            found.extend(page.network_interfaces().iter().filter_map(interface));
        }
        Ok(found)
    }
}

fn interface(interface: &ec2::NetworkInterface) -> Option<Interface> {
    let attached = interface.attachment().and_then(|attachment| attachment.instance_id());
    Some(Interface {
        id: interface.network_interface_id()?.to_owned(),
        description: interface.description().unwrap_or_default().to_owned(),
        kind: interface.interface_type().map_or("interface", |kind| kind.as_str()).to_owned(),
        instance: attached.and_then(InstanceId::parse),
        in_use: interface.status() == Some(&ec2::NetworkInterfaceStatus::InUse),
        managed: interface.requester_managed().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_group_lets_out_is_read_by_protocol_and_port() {
        let read = |permissions: Vec<ec2::IpPermission>| {
            let of = ec2::SecurityGroup::builder().group_id("sg-01234567").group_name("bakehouse-web");
            group(&of.set_ip_permissions_egress(Some(permissions)).build()).unwrap()
        };
        let detail =
            |all, ports: &[u16]| PartDetail::SecurityGroup { all, ports: ports.iter().copied().collect() };
        assert_eq!(read(vec![everything()]).detail, detail(true, &[]));
        assert_eq!(read(vec![to_port(80), to_port(443)]).detail, detail(false, &[80, 443]));
        let range = ec2::IpPermission::builder().ip_protocol("tcp").from_port(1).to_port(443);
        let anywhere = ec2::IpRange::builder().cidr_ip(ANYWHERE).build();
        let elsewhere = to_port(443);
        let elsewhere = ec2::IpPermission::builder()
            .ip_protocol("tcp")
            .from_port(443)
            .to_port(443)
            .set_ip_ranges(
                elsewhere.ip_ranges.map(|_| vec![ec2::IpRange::builder().cidr_ip("10.0.0.0/8").build()]),
            )
            .build();
        assert_eq!(read(vec![range.ip_ranges(anywhere).build(), elsewhere]).detail, detail(false, &[]));
    }

    #[test]
    fn a_main_table_is_its_vpcs_and_a_subnets_is_not() {
        let association = |main: bool, subnet: Option<&str>| {
            let of =
                ec2::RouteTableAssociation::builder().route_table_association_id("rtbassoc-1").main(main);
            of.set_subnet_id(subnet.map(str::to_owned)).build()
        };
        let read = |association| {
            let of = ec2::RouteTable::builder().route_table_id("rtb-01234567").vpc_id("vpc-01234567");
            let local =
                ec2::Route::builder().destination_cidr_block("10.97.0.0/24").gateway_id("local").build();
            let out =
                ec2::Route::builder().destination_cidr_block(ANYWHERE).gateway_id("igw-01234567").build();
            table(&of.associations(association).routes(local).routes(out).build()).unwrap()
        };
        assert!(read(association(true, None)).of_vpc);
        let own = read(association(false, Some("subnet-01234567")));
        assert!(!own.of_vpc);
        let PartDetail::RouteTable { way_out, associations } = own.detail else { panic!("no table") };
        assert_eq!(way_out, PartId::parse("igw-01234567"));
        assert_eq!(associations[0].subnet.as_str(), "subnet-01234567");
    }
}
