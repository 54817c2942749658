//! `shell`: runs a script in the root.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Limits, StepKind};
use crate::recipe::Span;

/// A script run by `/bin/sh -e`, or by `interpreter`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Shell {
    pub run: String,
    /// The environment besides PATH, HOME, LANG and DEBIAN_FRONTEND. Nothing else is inherited.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Variables whose values come from the build's environment or a file; never logged, never in the image.
    #[serde(default)]
    pub secret_env: BTreeMap<String, SecretFrom>,
    /// An absolute path in the image. Unset: `/`.
    pub workdir: Option<String>,
    /// `/bin/bash`, `/usr/bin/python3`. Unset: `/bin/sh`.
    pub interpreter: Option<String>,
    /// How long one attempt may take. Unset: 30 minutes.
    pub timeout: Option<Span>,
    /// Attempts after one that failed. At most 20: more mend nothing.
    #[serde(default)]
    #[schemars(range(max = 20))]
    pub retries: u32,
    /// Gives the step the build's AWS credentials.
    #[serde(default)]
    pub aws: bool,
}

/// Where a secret comes from: exactly one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SecretFrom {
    /// A variable of the environment in which Bakehouse runs.
    pub env: Option<String>,
    /// A file on the host; relative to the recipe's folder. The step gets the path of a copy that lies in memory.
    pub file: Option<String>,
}

impl StepKind for Shell {
    fn key(&self) -> &'static str {
        "shell"
    }

    fn detail(&self) -> String {
        let line = self.run.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        line.unwrap_or_default().to_owned()
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
