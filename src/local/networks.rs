//! The network of the local cloud: one subnet, QEMU's.

use async_trait::async_trait;

use super::place::LocalPlace;
use crate::cloud::{Networks, Result, Subnet, SubnetQuery};

#[derive(Debug)]
pub(super) struct LocalNetworks(pub(super) LocalPlace);

#[async_trait]
impl Networks for LocalNetworks {
    async fn subnets(&self, query: &SubnetQuery) -> Result<Vec<Subnet>> {
        // It has no tags.
        Ok(match query {
            SubnetQuery::Tagged(_) => Vec::new(),
            SubnetQuery::Default => vec![Subnet {
                // As the metadata service says it.
                id: "subnet-00000000000000000".to_owned(),
                zone: self.0.zone(),
                // 169.254.169.0/24 without QEMU's own addresses and the metadata service's.
                free: 240,
            }],
        })
    }
}
