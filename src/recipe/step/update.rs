//! `update`: brings the root's packages up to date.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Limits, StepKind};
use crate::recipe::Span;

/// Which packages are brought up to date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Update {
    Scope(UpdateScope),
    Full(UpdateTo),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateScope {
    Security,
    All,
}

/// An update with limits and variables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UpdateTo {
    pub scope: UpdateScope,
    /// For Amazon Linux 2023 only: the release whose packages to take, `2023.6.20241212`. Unset: the newest.
    pub release: Option<String>,
    /// Variables for the package manager, besides PATH, HOME, LANG and DEBIAN_FRONTEND: `http_proxy`.
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

impl Update {
    #[must_use]
    pub fn scope(&self) -> UpdateScope {
        match self {
            Self::Scope(scope) => *scope,
            Self::Full(to) => to.scope,
        }
    }

    /// The release to update to, where the recipe names one.
    #[must_use]
    pub fn release(&self) -> Option<&str> {
        self.full()?.release.as_deref()
    }

    fn full(&self) -> Option<&UpdateTo> {
        match self {
            Self::Scope(_) => None,
            Self::Full(to) => Some(to),
        }
    }
}

impl StepKind for Update {
    fn key(&self) -> &'static str {
        "update"
    }

    fn detail(&self) -> String {
        let scope = match self.scope() {
            UpdateScope::Security => "security",
            UpdateScope::All => "all",
        };
        self.release().map_or(scope.to_owned(), |release| format!("{scope}, from {release}"))
    }

    fn limits(&self) -> Limits {
        self.full().map_or(Limits::default(), |to| Limits { timeout: to.timeout, retries: to.retries })
    }

    fn env(&self) -> Option<&BTreeMap<String, String>> {
        self.full().map(|to| &to.env)
    }

    fn workdir(&self) -> Option<&str> {
        self.full()?.workdir.as_deref()
    }
}
