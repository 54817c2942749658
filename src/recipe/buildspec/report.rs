//! `reports`: files of test results, and of what tests cover.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Switch;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Report {
    /// Files, with `*` and `**`, relative to `base-directory`.
    pub files: Vec<String>,
    /// Unset: the folder of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_directory: Option<String>,
    #[serde(default)]
    pub discard_paths: Switch,
    /// `JUNITXML` where it is unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_format: Option<String>,
}
