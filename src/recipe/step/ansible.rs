//! `ansible`: runs a playbook against the root.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Limits, StepKind};
use crate::recipe::Span;

/// A playbook run against the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ansible {
    /// Relative to the recipe's folder.
    pub playbook: String,
    #[serde(default)]
    pub extra_vars: BTreeMap<String, serde_json::Value>,
    /// Variables for ansible-playbook itself, which runs on the host: `ANSIBLE_VERBOSITY`. Tasks have their own, by
    /// Ansible's `environment`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// How long one attempt may take. Unset: 30 minutes.
    pub timeout: Option<Span>,
    /// Attempts after one that failed. At most 20: more mend nothing.
    #[serde(default)]
    #[schemars(range(max = 20))]
    pub retries: u32,
}

impl StepKind for Ansible {
    fn key(&self) -> &'static str {
        "ansible"
    }

    fn detail(&self) -> String {
        self.playbook.clone()
    }

    fn limits(&self) -> Limits {
        Limits { timeout: self.timeout, retries: self.retries }
    }

    fn env(&self) -> Option<&BTreeMap<String, String>> {
        Some(&self.env)
    }
}
