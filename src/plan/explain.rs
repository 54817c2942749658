//! A plan in words.

use std::fmt::{self, Display, Formatter};

use super::preflight::Verdict;
use super::{BasePlan, Import, MethodKind, Plan};
use crate::cloud::Partition;
use crate::recipe::Scratch;

/// What the method chroot stores.
const OF_A_VOLUME: &str = "one snapshot of a volume that is attached to this machine, and deleted afterwards";

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "image     {} ({}, in {})", self.image_name, self.architecture(), self.place)?;
        match &self.base {
            BasePlan::Scratch { scratch, filesystem } => {
                let Scratch { distribution, suite, .. } = scratch;
                let kind = filesystem.as_str();
                writeln!(f, "base      {distribution:?} {suite} from its packages, on {kind}")?;
            }
            BasePlan::File { path, .. } => writeln!(f, "base      the disk {}", path.display())?,
            BasePlan::Image { id, name, snapshot, size, lineage, import } => {
                writeln!(f, "base      {id} {name} ({snapshot}, {size} GiB)")?;
                if lineage.len() > 1 {
                    let line = lineage[1..].iter().map(ToString::to_string).collect::<Vec<_>>().join(" <- ");
                    writeln!(f, "          which was made from {line}")?;
                }
                match import {
                    Some(Import { found: Some(found), .. }) => {
                        writeln!(f, "import    {found}, which is here already")?;
                    }
                    Some(import) => writeln!(f, "import    will import {id} once, as {}", import.name)?,
                    None => {}
                }
            }
        }
        writeln!(f, "method    {}: {}", self.method.as_str(), self.why)?;
        if let Some(size) = self.size {
            writeln!(f, "disk      {size} GiB")?;
        }
        if self.place.partition != Partition::local() {
            writeln!(f, "encrypted {}", self.encryption.told)?;
        }
        if self.steps.is_empty() {
            writeln!(f, "steps     none")?;
        }
        for (number, step) in self.steps.iter().enumerate() {
            let head = if number == 0 { "steps" } else { "" };
            writeln!(f, "{head:<9} {}. {}", number + 1, step.title())?;
        }
        writeln!(f, "checks    {}", self.checks.len())?;
        if let Some(launch) = &self.launch {
            let types = launch.instance_types.join(", then ");
            let spot = if launch.spot { ", on spot" } else { "" };
            let types = if types.is_empty() { "one of a small type".to_owned() } else { types };
            writeln!(f, "instance  {types}{spot}; ended afterwards")?;
        }
        let parent = match &self.base {
            _ if self.method == MethodKind::Launch => "one snapshot of the instance's disk".to_owned(),
            BasePlan::Image { import, .. } if self.method == MethodKind::Chroot => {
                let makes = import.as_ref().is_some_and(|import| import.found.is_none());
                format!("{}{OF_A_VOLUME}", if makes { "the import, which stays; " } else { "" })
            }
            BasePlan::Image { import: Some(import), .. } => {
                let once = if import.found.is_none() { "the import, which stays; " } else { "" };
                format!("{once}one snapshot, a child of the import's with the changed blocks")
            }
            BasePlan::Image { snapshot, .. } => {
                format!("one snapshot, a child of {snapshot} with the changed blocks")
            }
            BasePlan::Scratch { .. } | BasePlan::File { .. } => "one snapshot with all blocks".to_owned(),
        };
        writeln!(f, "creates   {parent}; one image")?;
        if self.name_taken {
            writeln!(f, "warning   an image called {} exists: a bake would fail", self.image_name)?;
        }
        for finding in self.preflight.iter().filter(|finding| finding.verdict > Verdict::Good) {
            // What a name does is said above.
            if finding.what != "name" {
                writeln!(f, "preflight {finding}")?;
            }
        }
        let unknown = self.preflight.iter().filter(|finding| finding.verdict == Verdict::Unchecked).count();
        if self.preflight.len() > 1 {
            writeln!(f, "preflight {} things looked at, {unknown} could not be", self.preflight.len())?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning   {warning}")?;
        }
        Ok(())
    }
}
