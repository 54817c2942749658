//! `buildspec.yml` as written, version 0.2: what a build of CodeBuild does. Read with the same passes as a recipe; what
//! would not work when it runs Bakehouse says `advice.rs`.
//!
//! After the build specification reference of CodeBuild's user guide.

mod advice;
mod artifacts;
mod batch;
mod cache;
mod env;
mod load;
mod phase;
mod report;
mod rules;
mod secret;
mod words;

use std::collections::BTreeMap;
use std::sync::LazyLock;

pub use advice::OF_A_RECORD;
pub use artifacts::{Artifact, Artifacts};
pub use batch::{Batch, Dynamic, DynamicEnv, Fanout, Matrix, Static, Task, TaskEnv};
pub use cache::{Cache, CacheAction};
pub use env::{Env, ShellName};
pub use load::{BuildspecErrors, FILE, LoadedBuildspec, load};
pub use phase::{OnFailure, Phase, PhaseName, Phases};
pub use report::Report;
use schemars::JsonSchema;
pub use secret::{SecretName, SecretNameError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::schema;

/// A buildspec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Buildspec {
    /// The version of this format: 0.2.
    pub version: String,
    /// The Linux user that runs all commands. Unset: the one that the build runs as, which in CodeBuild is root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_as: Option<String>,
    #[serde(default)]
    pub env: Env,
    #[serde(default)]
    pub proxy: Proxy,
    /// Several builds in place of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// The commands, by the phase in which they run.
    pub phases: Phases,
    /// Files of test results, by the name or ARN of their report group.
    #[serde(default)]
    pub reports: BTreeMap<String, Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Artifacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
}

/// What goes through an explicit proxy server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Proxy {
    #[serde(default)]
    pub upload_artifacts: Switch,
    #[serde(default)]
    pub logs: Switch,
}

/// On or off. The reference writes `yes` and `no` for some keys, and `true` and `false` for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    Yes,
    #[default]
    No,
    True,
    False,
}

impl Switch {
    #[must_use]
    pub fn is_on(self) -> bool {
        matches!(self, Self::Yes | Self::True)
    }
}

/// One or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    #[must_use]
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

static SCHEMA: LazyLock<Value> =
    LazyLock::new(|| schema::of::<Buildspec>("CodeBuild buildspec, version 0.2"));
