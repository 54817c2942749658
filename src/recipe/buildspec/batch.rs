//! `batch`: several builds in place of one. Which they are decides CodeBuild; here they are only read.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{OneOrMany, Switch};

/// One of the four kinds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Batch {
    /// Stops the other builds when one fails.
    #[serde(default)]
    pub fast_fail: Switch,
    /// Builds side by side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_list: Option<Vec<Task>>,
    /// A build for each combination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_matrix: Option<Matrix>,
    /// Builds that wait for each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_graph: Option<Vec<Task>>,
    /// Builds that share the tests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_fanout: Option<Fanout>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Task {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identifier: Option<String>,
    /// Another buildspec, by its path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buildspec: Option<String>,
    #[serde(default)]
    pub debug_session: Switch,
    /// Identifiers of the tasks that must be done before; in `build-graph` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depend_on: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<TaskEnv>,
    #[serde(default)]
    pub ignore_failure: Switch,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskEnv {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(default)]
    pub privileged_mode: Switch,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Matrix {
    /// What all builds have.
    #[serde(rename = "static", skip_serializing_if = "Option::is_none")]
    pub fixed: Option<Static>,
    /// What they differ in.
    pub dynamic: Dynamic,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Static {
    #[serde(default)]
    pub debug_session: Switch,
    #[serde(default)]
    pub ignore_failure: Switch,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<TaskEnv>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Dynamic {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buildspec: Option<OneOrMany>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<DynamicEnv>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DynamicEnv {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_type: Option<OneOrMany>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<OneOrMany>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<OneOrMany>,
    #[serde(default)]
    pub variables: BTreeMap<String, OneOrMany>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Fanout {
    /// How many builds share the tests.
    #[schemars(range(min = 1))]
    pub parallelism: u32,
    #[serde(default)]
    pub ignore_failure: Switch,
}
