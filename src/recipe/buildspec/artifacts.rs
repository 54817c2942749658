//! `artifacts`: the files that a build gives.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{OneOrMany, Switch};

/// The primary artifact, and others beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Artifacts {
    /// Files, with `*` and `**`, relative to `base-directory`.
    #[serde(default)]
    pub files: Vec<String>,
    /// The artifact's name; in the language of the shell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Puts all files into one folder.
    #[serde(default)]
    pub discard_paths: Switch,
    /// Folders, with `*`. Unset: the folder of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_directory: Option<String>,
    /// Files that are left out, with `*` and `**`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_paths: Option<OneOrMany>,
    /// Keeps links that lead to other files of the artifact.
    #[serde(default)]
    pub enable_symlinks: Switch,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3_prefix: Option<String>,
    /// Other artifacts, by their identifiers.
    #[serde(default)]
    pub secondary_artifacts: BTreeMap<String, Artifact>,
}

impl Artifacts {
    /// The primary one; `None` where there are secondary ones only.
    #[must_use]
    pub fn primary(&self) -> Option<Artifact> {
        (!self.files.is_empty()).then(|| Artifact {
            files: self.files.clone(),
            name: self.name.clone(),
            discard_paths: self.discard_paths,
            base_directory: self.base_directory.clone(),
            exclude_paths: self.exclude_paths.clone(),
            enable_symlinks: self.enable_symlinks,
            s3_prefix: self.s3_prefix.clone(),
        })
    }
}

/// An artifact by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Artifact {
    pub files: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default)]
    pub discard_paths: Switch,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_directory: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_paths: Option<OneOrMany>,
    #[serde(default)]
    pub enable_symlinks: Switch,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3_prefix: Option<String>,
}
