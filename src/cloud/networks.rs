//! Networks: where an instance can be placed.

use async_trait::async_trait;

use super::{Result, Tags};

/// A subnet, as far as a launch needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// `subnet-…`
    pub id: String,
    pub zone: String,
    /// Addresses that are free.
    pub free: u32,
}

/// Which subnets `subnets` gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubnetQuery {
    /// All of these tags, with exactly these values.
    Tagged(Tags),
    /// The default subnets of the default VPC.
    Default,
}

#[async_trait]
pub trait Networks: Send + Sync {
    /// `DescribeSubnets`, available ones only.
    async fn subnets(&self, query: &SubnetQuery) -> Result<Vec<Subnet>>;
}
