//! `env`: the shell, and the variables of its environment.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Switch;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Env {
    /// What runs the commands. Unset: `/bin/sh`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<ShellName>,
    /// Values in plain text, by the names of their variables.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// Names of parameters in Parameter Store, by the names of their variables.
    #[serde(default)]
    pub parameter_store: BTreeMap<String, String>,
    /// Secrets, as `secret-id:json-key:version-stage:version-id`, by the names of their variables.
    #[serde(default)]
    pub secrets_manager: BTreeMap<String, String>,
    /// Variables that later actions of the pipeline can read.
    #[serde(default)]
    pub exported_variables: Vec<String>,
    #[serde(default)]
    pub git_credential_helper: Switch,
}

/// A shell that CodeBuild has. The last three are those of Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ShellName {
    #[serde(rename = "bash")]
    Bash,
    #[serde(rename = "/bin/sh")]
    BinSh,
    #[serde(rename = "sh")]
    Sh,
    #[serde(rename = "powershell.exe")]
    PowerShell,
    #[serde(rename = "pwsh.exe")]
    Pwsh,
    #[serde(rename = "cmd.exe")]
    Cmd,
}
