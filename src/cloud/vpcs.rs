//! VPCs: made of parts, each with its tags from the first moment, and taken apart again.

use std::collections::BTreeSet;
use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize, Serializer};

use super::{InstanceId, Result, Tags};

/// Of which kind a part is. In the order in which parts are made; they are taken apart in reverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartKind {
    /// The VPC itself.
    Vpc,
    InternetGateway,
    Subnet,
    RouteTable,
    SecurityGroup,
}

impl PartKind {
    pub const ALL: [Self; 5] =
        [Self::Vpc, Self::InternetGateway, Self::Subnet, Self::RouteTable, Self::SecurityGroup];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vpc => "VPC",
            Self::InternetGateway => "internet gateway",
            Self::Subnet => "subnet",
            Self::RouteTable => "route table",
            Self::SecurityGroup => "security group",
        }
    }

    /// What the ids of this kind begin with.
    fn prefix(self) -> &'static str {
        match self {
            Self::Vpc => "vpc-",
            Self::InternetGateway => "igw-",
            Self::Subnet => "subnet-",
            Self::RouteTable => "rtb-",
            Self::SecurityGroup => "sg-",
        }
    }

    /// The operation that deletes one.
    #[must_use]
    pub fn deletion(self) -> &'static str {
        match self {
            Self::Vpc => "DeleteVpc",
            Self::InternetGateway => "DeleteInternetGateway",
            Self::Subnet => "DeleteSubnet",
            Self::RouteTable => "DeleteRouteTable",
            Self::SecurityGroup => "DeleteSecurityGroup",
        }
    }
}

impl fmt::Display for PartKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The id of a part: `vpc-0123456789abcdef0`. Its prefix says of which kind it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartId {
    kind: PartKind,
    text: String,
}

impl PartId {
    /// Reads an id; `None` where it is of none of the kinds: a prefix and 8 to 17 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let kind = PartKind::ALL.into_iter().find(|kind| text.starts_with(kind.prefix()))?;
        let digits = &text[kind.prefix().len()..];
        let good = (8..=17).contains(&digits.len())
            && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        good.then(|| Self { kind, text: text.to_owned() })
    }

    /// Stands for one that is not made yet.
    #[must_use]
    pub fn unknown(kind: PartKind) -> Self {
        Self { kind, text: format!("{}00000000", kind.prefix()) }
    }

    #[must_use]
    pub fn kind(&self) -> PartKind {
        self.kind
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for PartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for PartId {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

// Checked on the way in, as other ids are.
impl<'de> Deserialize<'de> for PartId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| {
            let wanted = "the id of a part of a VPC, like subnet-0123456789abcdef0";
            serde::de::Error::invalid_value(serde::de::Unexpected::Str(&text), &wanted)
        })
    }
}

/// What a part is made as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewPart {
    /// Its addresses: `10.97.0.0/24`.
    Vpc {
        addresses: String,
    },
    InternetGateway,
    Subnet {
        vpc: PartId,
        addresses: String,
        /// `None`: the cloud's choice.
        zone: Option<String>,
    },
    RouteTable {
        vpc: PartId,
    },
    /// One that lets nothing in. It lets all out until a [`PartChange`] says otherwise.
    SecurityGroup {
        vpc: PartId,
        name: String,
        description: String,
    },
}

impl NewPart {
    #[must_use]
    pub fn kind(&self) -> PartKind {
        match self {
            Self::Vpc { .. } => PartKind::Vpc,
            Self::InternetGateway => PartKind::InternetGateway,
            Self::Subnet { .. } => PartKind::Subnet,
            Self::RouteTable { .. } => PartKind::RouteTable,
            Self::SecurityGroup { .. } => PartKind::SecurityGroup,
        }
    }

    /// The operation that makes it.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self {
            Self::Vpc { .. } => "CreateVpc",
            Self::InternetGateway => "CreateInternetGateway",
            Self::Subnet { .. } => "CreateSubnet",
            Self::RouteTable { .. } => "CreateRouteTable",
            Self::SecurityGroup { .. } => "CreateSecurityGroup",
        }
    }
}

/// What is changed of parts that are there. One that was made already is [`Exists`](super::ErrorKind::Exists), or fine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartChange {
    /// The gateway is the VPC's.
    Attach { gateway: PartId, vpc: PartId },
    /// It is not any more. [`InUse`](super::ErrorKind::InUse) while anything in the VPC has a public address.
    Detach { gateway: PartId, vpc: PartId },
    /// Instances get public addresses.
    PublicAddresses { subnet: PartId },
    /// Whatever has no other route goes out by the gateway.
    WayOut { table: PartId, gateway: PartId },
    /// The table is the subnet's.
    Associate { table: PartId, subnet: PartId },
    /// It is not any more; the VPC's main one is.
    Disassociate { association: String },
    /// TCP to these ports is let out, wherever to.
    LetOut { group: PartId, ports: BTreeSet<u16> },
    /// What a new group lets out, which is everything, is not let out any more.
    HoldBack { group: PartId },
}

impl PartChange {
    /// The operation that makes it.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self {
            Self::Attach { .. } => "AttachInternetGateway",
            Self::Detach { .. } => "DetachInternetGateway",
            Self::PublicAddresses { .. } => "ModifySubnetAttribute",
            Self::WayOut { .. } => "CreateRoute",
            Self::Associate { .. } => "AssociateRouteTable",
            Self::Disassociate { .. } => "DisassociateRouteTable",
            Self::LetOut { .. } => "AuthorizeSecurityGroupEgress",
            Self::HoldBack { .. } => "RevokeSecurityGroupEgress",
        }
    }
}

/// A part as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VpcPart {
    pub id: PartId,
    /// The VPC that it is in, or attached to; of a VPC itself.
    pub vpc: Option<PartId>,
    pub tags: Tags,
    /// It came with its VPC and goes with it: the main route table, the default security group.
    pub of_vpc: bool,
    pub detail: PartDetail,
}

/// What is particular to its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartDetail {
    Vpc {
        addresses: String,
    },
    InternetGateway,
    Subnet {
        /// Whether instances get public addresses.
        public: bool,
    },
    RouteTable {
        /// Where goes what has no other route.
        way_out: Option<PartId>,
        associations: Vec<Association>,
    },
    SecurityGroup {
        /// Whether everything is let out.
        all: bool,
        /// The ports to which TCP is let out, wherever to.
        ports: BTreeSet<u16>,
    },
}

/// That a route table is a subnet's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Association {
    /// `rtbassoc-…`
    pub id: String,
    pub subnet: PartId,
}

/// Which parts `find` gives; an empty query is all of the account's own.
#[derive(Clone, Debug, Default)]
pub struct PartQuery {
    /// One part. There is none where it does not exist.
    pub id: Option<PartId>,
    /// Those that are in it, or attached to it.
    pub vpc: Option<PartId>,
    /// All of these tags, with exactly these values.
    pub tags: Tags,
    /// All of these tags, whatever their values.
    pub tag_keys: Vec<String>,
}

/// A network interface: as long as one is in a VPC, what it hangs on cannot be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// `eni-…`
    pub id: String,
    /// What its maker says of it.
    pub description: String,
    /// `interface`, `vpc_endpoint`, `lambda` and so on.
    pub kind: String,
    /// The instance that it is attached to.
    pub instance: Option<InstanceId>,
    /// Whether it is attached to anything.
    pub in_use: bool,
    /// Whether a service of the cloud made it, and takes it away.
    pub managed: bool,
}

#[async_trait]
pub trait Vpcs: Send + Sync {
    /// [`NewPart::operation`]. It has no idempotency token: what came of a call whose answer was lost is found by its tags.
    async fn create(&self, new: &NewPart, tags: &Tags) -> Result<PartId>;

    /// `DescribeVpcs` and the like.
    async fn find(&self, kind: PartKind, query: &PartQuery) -> Result<Vec<VpcPart>>;

    /// [`PartChange::operation`].
    async fn change(&self, change: &PartChange) -> Result<()>;

    /// `CreateTags`: adds these, and replaces those of the same keys.
    async fn tag(&self, ids: &[PartId], tags: &Tags) -> Result<()>;

    /// [`PartKind::deletion`]. [`InUse`](super::ErrorKind::InUse) while something hangs on it: what is in a VPC, an interface
    /// in a subnet or a group, a subnet that a route table is of, the VPC that a gateway is attached to.
    async fn delete(&self, id: &PartId) -> Result<()>;

    /// `DescribeNetworkInterfaces`, of one VPC.
    async fn interfaces(&self, vpc: &PartId) -> Result<Vec<Interface>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_apart_by_their_ids() {
        for kind in PartKind::ALL {
            let id = PartId::parse(&format!("{}0123456789abcdef0", kind.prefix())).unwrap();
            assert_eq!(id.kind(), kind);
            let written = serde_json::to_value(&id).unwrap();
            assert_eq!(serde_json::from_value::<PartId>(written).unwrap(), id);
        }
        for bad in
            ["vpc-", "vpc-xyz", "VPC-01234567", "snap-01234567", "i-01234567", "subnet-0123456789abcdef01"]
        {
            assert!(PartId::parse(bad).is_none(), "{bad}");
        }
    }
}
