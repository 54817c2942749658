//! The step `reboot`, on a root that no kernel runs. A machine's own is whoever runs the steps' to do: it ends before this
//! one and goes on after it.

use async_trait::async_trait;

use super::attempt::Attempt;
use super::{Runs, StepError};
use crate::recipe::Reboot;

#[async_trait]
impl Runs for Reboot {
    async fn run(&self, attempt: &Attempt<'_>) -> Result<(), StepError> {
        attempt.context().reporter.note("no kernel of this root runs here: there is nothing to reboot");
        Ok(())
    }
}
