//! Bakehouse bakes machine images without an instance: it reads a base image's blocks, changes its file system in
//! place, and stores the blocks that changed as a child snapshot.

pub mod acceptance;
#[cfg(feature = "aws")]
pub mod aws;
pub mod cli;
pub mod cloud;
pub mod disk;
pub mod host;
pub mod image;
pub mod ledger;
pub mod local;
pub mod method;
pub mod pipeline;
pub mod plan;
pub mod policy;
pub mod provision;
pub mod recipe;
pub mod report;
pub mod stage;
pub mod vpc;
