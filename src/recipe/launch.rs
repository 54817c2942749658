//! `launch`: the instance that the method `launch` works on.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;

/// The instance on which the recipe's steps run where the method is `launch`. The local cloud takes of it `within` only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Launch {
    /// Instance types in the order in which they are tried where there is no capacity: `t3.small`. Unset: one small type.
    #[serde(default)]
    pub instance_types: Vec<String>,
    /// On spot capacity.
    #[serde(default)]
    pub spot: bool,
    /// The subnet: `subnet-…`, or the tags that it has. It needs a way out to SSM, S3 and the package sources, and none
    /// in. Unset: one of the default VPC's.
    pub subnet: Option<SubnetChoice>,
    /// `sg-…`. Unset: the VPC's default one.
    #[serde(default)]
    pub security_groups: Vec<String>,
    /// The name or ARN of an instance profile whose role may be reached by SSM (AmazonSSMManagedInstanceCore) and write to
    /// the bucket.
    pub profile: Option<String>,
    /// The bucket by which files come to the instance, below `bakehouse/`; they are deleted afterwards.
    pub bucket: Option<String>,
    /// How long boot and steps may take from the launch on. Unset: 1 hour. One that nobody ends is off 40 minutes later.
    pub within: Option<Span>,
}

/// A subnet by its id, or by tags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SubnetChoice {
    Id(String),
    Tags(BTreeMap<String, String>),
}
