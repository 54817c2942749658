//! All integration tests, as one binary: one link instead of one per file.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod acceptance;
mod aws;
mod bake;
mod buildspecs;
mod cli;
mod conformance;
mod container;
mod disk;
mod faults;
mod fuzz;
mod gate;
mod hostile;
#[cfg(feature = "aws")]
mod jobs;
mod layout;
mod ledger;
#[cfg(feature = "aws")]
mod live;
mod pipeline;
mod provision;
mod recipes;
mod store;
mod stored;
mod truth;
mod yard;
