//! A base's disk, copied into the work folder or on a volume: looked at and made larger. Errors name the base, which the user knows, beside
//! the copy.

use std::path::Path;

use super::{BakeCause, Bench};
use crate::disk::Layout;
use crate::disk::grow;
use crate::plan::{BasePlan, Plan};

/// What is where on it.
pub(super) async fn look(disk: &Path, plan: &Plan, bench: &Bench) -> Result<Layout, BakeCause> {
    Layout::find(disk, &bench.stop).await.map_err(|source| BakeCause::Layout { base: name(plan), source })
}

/// Makes it `bytes` large.
pub(super) async fn enlarge(
    disk: &Path,
    layout: &Layout,
    bytes: u64,
    plan: &Plan,
    bench: &Bench,
) -> Result<(), BakeCause> {
    let grown = grow::grow(disk, layout, bytes, &bench.stop).await;
    grown.map(drop).map_err(|source| BakeCause::Grow { base: name(plan), source })
}

/// Lets the root of a volume have all of the volume's room.
pub(super) async fn fill(disk: &Path, layout: &Layout, plan: &Plan, bench: &Bench) -> Result<(), BakeCause> {
    let filled = grow::fill(disk, layout, &bench.stop).await;
    filled.map(drop).map_err(|source| BakeCause::Grow { base: name(plan), source })
}

/// Where nobody asked for more than the base's own volume, a root that can never grow stays as it would on an instance.
pub(super) fn unless_asked(
    grown: Result<(), BakeCause>,
    asked: bool,
    bench: &Bench,
) -> Result<(), BakeCause> {
    match grown {
        Err(BakeCause::Grow { source, .. }) if source.is_for_good() && !asked => {
            bench.reporter.note(format!("the room of the base's volume stays unused: {source}"));
            Ok(())
        }
        grown => grown,
    }
}

fn name(plan: &Plan) -> String {
    match &plan.base {
        BasePlan::Scratch { scratch, .. } => scratch.suite.clone(),
        BasePlan::File { path, .. } => path.display().to_string(),
        BasePlan::Image { id, name, .. } => format!("{name} ({id})"),
    }
}
