//! A VPC of Bakehouse's own, for bakes by an instance in an account that has no network for them: made in a stage before
//! them and taken away in a stage after. The same as cloudformation/vpc.yml makes, but for interface endpoints and what
//! these need: one public subnet with a way out, and a security group that lets nothing in.
//!
//! Every part has the VPC's name as the tag `bakehouse:vpc`, by which a recipe names the subnet; by that and by the stage in
//! their tags all of them are found again.
//!
//! Must never: take away what is not Bakehouse's, or a VPC in which somebody is.

mod create;
mod delete;
mod parts;

use std::time::Duration;

use jiff::Timestamp;

pub use create::{Create, look};
pub use delete::{Delete, Deleted};
pub use parts::{Parts, Step};

use crate::cloud::{CloudError, PartId, Tags, tag};
pub use crate::ledger::vpcs::STAGE;
use crate::ledger::{CreateError, LedgerError, vpcs};

/// The addresses of the VPC and its only subnet where nothing else is said: those of the template.
pub const ADDRESSES: &str = "10.97.0.0/24";

/// What is let out: to package sources, and to AWS.
const PORTS: [u16; 2] = [80, 443];

/// Characters of a name. It is part of the security group's, which has 255.
const LONGEST_NAME: usize = 128;

/// The VPC that is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub name: String,
    /// What the work is called, in its tags: `vpc-0123456789ab`.
    pub run: String,
    pub addresses: String,
    /// The subnet's. `None`: the cloud's choice.
    pub zone: Option<String>,
    /// When a sweep may take it away.
    pub expires: Timestamp,
}

impl Wanted {
    /// What every part is made with.
    #[must_use]
    pub fn tags(&self) -> Tags {
        let mut tags = self.of_run();
        tags.extend(vpcs::tags(&self.name));
        tags.insert("Name".to_owned(), format!("bakehouse-{}", self.name));
        tags
    }

    /// What a run writes on parts that it goes on with.
    fn of_run(&self) -> Tags {
        Tags::from([(tag("bake"), self.run.clone()), (tag("expires"), self.expires.to_string())])
    }
}

/// A VPC that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vpc {
    pub vpc: PartId,
    pub subnet: PartId,
    pub group: PartId,
    /// Whether this run made any of it.
    pub is_new: bool,
    /// When a sweep may take it away.
    pub expires: Timestamp,
}

/// Reads a name.
///
/// # Errors
/// What is wrong with it.
pub fn name(text: &str) -> Result<String, String> {
    let good = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if good && (1..=LONGEST_NAME).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "`{text}` is no name of a VPC; write 1 to {LONGEST_NAME} letters, digits, hyphens, dots and `_`"
    ))
}

/// Reads addresses, as EC2 takes them for a VPC.
///
/// # Errors
/// What is wrong with them.
pub fn addresses(text: &str) -> Result<String, String> {
    let wrong =
        || format!("`{text}` are no addresses of a VPC; write an IPv4 network of /16 to /28: {ADDRESSES}");
    let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
    let bits: u32 = bits.parse().map_err(|_| wrong())?;
    let address: std::net::Ipv4Addr = address.parse().map_err(|_| wrong())?;
    // EC2 would take others for the network that they are in, and answer that.
    let is_network = (16..=28).contains(&bits) && u32::from(address) & (u32::MAX >> bits) == 0;
    if is_network { Ok(format!("{address}/{bits}")) } else { Err(wrong()) }
}

/// Why there is no VPC, or why it stays.
#[derive(Debug, thiserror::Error)]
pub enum VpcError {
    #[error("{0}")]
    Cloud(#[from] CloudError),
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    #[error("a stop was asked for")]
    Stopped,
    #[error("{vpc} cannot be taken away")]
    Refused { vpc: PartId, source: CloudError },
    #[error(
        "{vpc} cannot be taken away, since somebody is in it: {}\nhint: end what may go (aws ec2 terminate-instances) and run \
         this again; what is a bake's goes with that, or with `bakehouse sweep` when it has expired",
        instances.join("; ")
    )]
    Occupied { vpc: PartId, instances: Vec<String> },
    #[error(
        "{vpc} cannot be taken away, since in it is {}\nhint: delete that, and run this again",
        parts.join("; ")
    )]
    Foreign { vpc: PartId, parts: Vec<String> },
    #[error(
        "{vpc} cannot be taken away, since after {} s it is still held up by {}\nhint: when that is gone, run this again, or \
         leave it to `bakehouse sweep`",
        within.as_secs(),
        holders.join("; ")
    )]
    HeldUp { vpc: PartId, within: Duration, holders: Vec<String> },
}

impl From<CreateError> for VpcError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Call(error) => Self::Cloud(error),
            CreateError::Ledger(error) => Self::Ledger(error),
        }
    }
}

impl VpcError {
    /// The VPC, or the part of one, that stays, where one does.
    #[must_use]
    pub fn stays(&self) -> Option<&PartId> {
        match self {
            Self::Refused { vpc, .. }
            | Self::Occupied { vpc, .. }
            | Self::Foreign { vpc, .. }
            | Self::HeldUp { vpc, .. } => Some(vpc),
            Self::Cloud(_) | Self::Ledger(_) | Self::Stopped => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_those_that_ec2_takes() {
        assert_eq!(name("web").as_deref(), Ok("web"));
        for bad in ["", "a b", "ä", "a/b", &"a".repeat(LONGEST_NAME + 1)] {
            name(bad).unwrap_err();
        }
        assert_eq!(addresses("10.97.0.0/24").as_deref(), Ok("10.97.0.0/24"));
        assert_eq!(addresses("192.168.16.16/28").as_deref(), Ok("192.168.16.16/28"));
        for bad in
            ["", "10.97.0.0", "10.97.0.0/15", "10.97.0.0/29", "10.97.0.1/24", "10.97.0/24", "10.97.0.0/x"]
        {
            addresses(bad).unwrap_err();
        }
    }
}
