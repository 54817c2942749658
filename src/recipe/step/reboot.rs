//! `reboot`: starts the machine anew before the next step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Limits, StepKind};

/// A reboot of the instance that the method `launch` works on. The other methods change a root that no kernel runs: there
/// is nothing to reboot, and the step does nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Reboot {}

impl StepKind for Reboot {
    fn key(&self) -> &'static str {
        "reboot"
    }

    fn detail(&self) -> String {
        "the machine".to_owned()
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }
}
