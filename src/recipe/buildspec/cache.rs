//! `cache`: what one build leaves for the next.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Cache {
    /// Files, with `*` and `**`.
    pub paths: Vec<String>,
    /// Builds with the same key share a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Keys that are looked for where there is no cache of `key`, by their beginnings; at most 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback_keys: Vec<String>,
    /// Unset: both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<CacheAction>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CacheAction {
    Restore,
    Save,
}
