//! `bakehouse metadata`: answers one connection to the metadata service of a local instance. Started by QEMU, never by
//! a person.

use std::path::PathBuf;

use crate::local::metadata;

#[derive(clap::Args, Debug)]
pub struct Args {
    folder: PathBuf,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    Ok(metadata::serve(&args.folder)?)
}
