//! Networks, as far as a launch has to choose one.

use async_trait::async_trait;
use aws_sdk_ec2::types as ec2;

use super::place::{AwsPlace, tag_filters};
use crate::cloud::{Networks, Result, Subnet, SubnetQuery};

const DESCRIBE: &str = "DescribeSubnets";

#[derive(Clone, Debug)]
pub(super) struct AwsNetworks(pub(super) AwsPlace);

fn filter(name: &str, value: &str) -> ec2::Filter {
    ec2::Filter::builder().name(name).values(value).build()
}

#[async_trait]
impl Networks for AwsNetworks {
    async fn subnets(&self, query: &SubnetQuery) -> Result<Vec<Subnet>> {
        let mut filters = match query {
            SubnetQuery::Tagged(tags) => tag_filters(tags, &[]),
            // Only a default VPC has default subnets, one in each zone.
            SubnetQuery::Default => vec![filter("default-for-az", "true")],
        };
        filters.push(filter("state", "available"));
        let mut pages = self.0.ec2.describe_subnets().set_filters(Some(filters)).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(self.0.failed(DESCRIBE))?;
            found.extend(page.subnets().iter().filter_map(|subnet| {
                Some(Subnet {
                    id: subnet.subnet_id()?.to_owned(),
                    zone: subnet.availability_zone()?.to_owned(),
                    free: u32::try_from(subnet.available_ip_address_count()?).ok()?,
                })
            }));
        }
        Ok(found)
    }
}
