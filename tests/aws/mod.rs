//! The stand-in of AWS: moto with what it lacks, in Python below `stand_in/`, and what a test of ours has of it. README.md
//! says what it is, and what it is not.

#![expect(clippy::disallowed_methods, reason = "programs are started here as a user starts them")]
#![allow(dead_code, reason = "most tests that ask for it are those of the feature aws")]

#[cfg(feature = "aws")]
mod accounts;
#[cfg(feature = "aws")]
mod boot;
#[cfg(feature = "aws")]
mod connect;
mod fixture;
#[cfg(feature = "aws")]
mod host;
#[cfg(feature = "aws")]
pub mod iam;
#[cfg(feature = "aws")]
pub mod launch;
#[cfg(feature = "aws")]
mod launch_commands;
#[cfg(feature = "aws")]
mod launch_instance;
#[cfg(feature = "aws")]
mod launch_objects;
#[cfg(feature = "aws")]
mod launch_seal;
#[cfg(feature = "aws")]
mod listings;
#[cfg(feature = "aws")]
mod machines;
#[cfg(feature = "aws")]
mod policy;
#[cfg(feature = "aws")]
mod registry;
#[cfg(feature = "aws")]
mod settling;
mod stand_in;
#[cfg(feature = "aws")]
mod templates;
#[cfg(feature = "aws")]
pub mod vpc;
#[cfg(feature = "aws")]
mod vpc_others;

pub use fixture::StandIn;
#[cfg(feature = "aws")]
pub use fixture::{REGION, python};
#[cfg(feature = "aws")]
pub use host::Host;
