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
pub mod launch;
#[cfg(feature = "aws")]
mod machines;
#[cfg(feature = "aws")]
mod policy;
#[cfg(feature = "aws")]
mod registry;
mod stand_in;

#[cfg(feature = "aws")]
pub use fixture::REGION;
pub use fixture::StandIn;
