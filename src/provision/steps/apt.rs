//! apt-get, as every step that uses it runs it.

use std::sync::{Mutex, PoisonError};

use super::StepError;
use super::attempt::Attempt;
use crate::provision::root::{PackageManager, RootCommand};

/// Whether the package lists are up to date. They are fetched once per bake, and again where a step in between
/// changed what they are fetched from.
#[derive(Debug, Default)]
pub(super) struct Lists {
    fetched_for: Mutex<Option<String>>,
}

impl Lists {
    pub(super) async fn fetch(&self, attempt: &Attempt<'_>) -> Result<(), StepError> {
        let now = super::sources::text(attempt.root().dir())?;
        if self.fetched_for().as_deref() == Some(now.as_str()) {
            return Ok(());
        }
        // Without the option a list that could not be fetched is a warning, and an old one is used.
        let command = apt_get(["-o", "APT::Update::Error-Mode=any", "update"]);
        attempt.run("apt-get update", command).await?;
        *self.fetched_for() = Some(now);
        Ok(())
    }

    fn fetched_for(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.fetched_for.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// # Errors
/// Where the root has no apt.
pub(super) fn needed(attempt: &Attempt<'_>) -> Result<(), StepError> {
    match attempt.root().facts().package_manager {
        Some(PackageManager::Apt) => Ok(()),
        None => Err(StepError::Lacks {
            what: "package manager known to Bakehouse",
            instead: "it needs apt; use a shell step for anything else",
        }),
    }
}

/// An apt-get that asks nothing, draws no progress bar, and keeps configuration files that were changed. Which
/// packages are recommended is left to the root's own configuration: as an administrator's apt-get would do it.
pub(super) fn apt_get<'a>(args: impl IntoIterator<Item = &'a str>) -> RootCommand {
    let fixed = [
        "apt-get",
        "--assume-yes",
        "--quiet",
        "-o",
        "Dpkg::Use-Pty=0",
        "-o",
        "Dpkg::Options::=--force-confdef",
        "-o",
        "Dpkg::Options::=--force-confold",
        "-o",
        "Acquire::Retries=3",
    ];
    RootCommand::new(fixed.into_iter().chain(args))
}
