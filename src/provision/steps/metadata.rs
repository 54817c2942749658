//! Whether what the package sources have is known. It is fetched once per bake, and again where a step in between
//! changed what it is fetched from.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::StepError;
use super::attempt::Attempt;
use crate::provision::packages::{self, PackageManager};

#[derive(Debug, Default)]
pub(super) struct Metadata {
    fetched_for: Mutex<Option<String>>,
}

impl Metadata {
    pub(super) async fn fetch(
        &self,
        attempt: &Attempt<'_>,
        manager: &dyn PackageManager,
    ) -> Result<(), StepError> {
        let now = packages::sources(manager, attempt.root().dir())?;
        if self.fetched_for().as_deref() == Some(now.as_str()) {
            return Ok(());
        }
        attempt.invoke(manager.refresh()).await?;
        *self.fetched_for() = Some(now);
        Ok(())
    }

    fn fetched_for(&self) -> MutexGuard<'_, Option<String>> {
        self.fetched_for.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
