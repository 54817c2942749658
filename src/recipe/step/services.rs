//! `services`: which services start when the image boots.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Limits, StepKind};
use crate::recipe::Span;

/// Services as systemd has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Services {
    #[serde(default)]
    pub enable: Vec<String>,
    #[serde(default)]
    pub disable: Vec<String>,
    #[serde(default)]
    pub mask: Vec<String>,
    /// Variables for systemctl, besides PATH, HOME and LANG.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// An absolute path in the image, where the commands run. Unset: `/`.
    pub workdir: Option<String>,
    /// How long one attempt may take. Unset: 30 minutes.
    pub timeout: Option<Span>,
    /// Attempts after one that failed. At most 20: more mend nothing.
    #[serde(default)]
    #[schemars(range(max = 20))]
    pub retries: u32,
}

impl StepKind for Services {
    fn key(&self) -> &'static str {
        "services"
    }

    fn detail(&self) -> String {
        let all = [&self.enable, &self.disable, &self.mask];
        all.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    fn limits(&self) -> Limits {
        Limits { timeout: self.timeout, retries: self.retries }
    }

    fn env(&self) -> Option<&BTreeMap<String, String>> {
        Some(&self.env)
    }

    fn workdir(&self) -> Option<&str> {
        self.workdir.as_deref()
    }
}
