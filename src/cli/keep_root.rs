//! `bakehouse keep-root`: the keeper of a failed root. Started by a bake, never by a person.

use std::path::PathBuf;

use super::exit::Failure;
use crate::ledger::Left;
use crate::method::keep;

#[derive(clap::Args, Debug)]
pub struct Args {
    work: PathBuf,
    seconds: u64,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    // Not `session::block_on`: SIGTERM means something else here.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let held = runtime.block_on(keep::hold_until(&args.work, args.seconds));
    Ok(held.map_err(|error| Failure::of(&error, Left::These(vec![args.work.display().to_string()])))?)
}
