//! All integration tests, as one binary: one link instead of one per file.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod acceptance;
mod aws;
mod bake;
mod cli;
mod conformance;
mod container;
mod disk;
mod faults;
mod fuzz;
mod gate;
mod hostile;
mod layout;
mod ledger;
mod provision;
mod recipes;
mod store;
mod stored;
mod truth;
mod yard;
