//! `bakehouse schema`: the JSON Schema of `bake.yml`, for editors and for other programs.

use super::print;
use crate::recipe;

/// Print the JSON Schema of bake.yml.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// The verb.
pub(super) fn run(_: &Args) -> anyhow::Result<()> {
    print(text().trim_end())
}

/// The schema as it is printed and published.
#[must_use]
pub fn text() -> String {
    // The alternate form of a value is indented JSON.
    format!("{:#}\n", recipe::schema())
}
