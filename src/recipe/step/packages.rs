//! `packages`: installs and removes packages.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Limits, StepKind};
use crate::recipe::Span;

/// Packages by name, or as files of the recipe's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Packages {
    #[serde(default)]
    pub install: Vec<String>,
    /// Package files (.deb or .rpm, as the image's package manager takes them), relative to the recipe's folder; `*`
    /// and `?` as in a shell.
    #[serde(default)]
    pub files: Vec<String>,
    #[serde(default)]
    pub remove: Vec<String>,
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

impl StepKind for Packages {
    fn key(&self) -> &'static str {
        "packages"
    }

    fn detail(&self) -> String {
        let all = [&self.install, &self.files, &self.remove];
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
