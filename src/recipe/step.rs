//! `provision`: what is done to the root. A step is a map with one key, its kind.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    Update(Update),
    Packages(Packages),
    Files(Files),
    Shell(Shell),
    Ansible(Ansible),
    Services(Services),
}

impl Step {
    /// The step's key.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Update(_) => "update",
            Self::Packages(_) => "packages",
            Self::Files(_) => "files",
            Self::Shell(_) => "shell",
            Self::Ansible(_) => "ansible",
            Self::Services(_) => "services",
        }
    }

    /// The variables that its commands get.
    #[must_use]
    pub fn env(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        match self {
            Self::Update(Update::Scope(_)) | Self::Files(_) => &NONE,
            Self::Update(Update::Full(to)) => &to.env,
            Self::Packages(packages) => &packages.env,
            Self::Shell(shell) => &shell.env,
            Self::Ansible(ansible) => &ansible.env,
            Self::Services(services) => &services.env,
        }
    }

    /// Where its commands run in the image; `None`: in `/`. A playbook's tasks have directories of their own.
    #[must_use]
    pub fn workdir(&self) -> Option<&str> {
        match self {
            Self::Update(Update::Scope(_)) | Self::Files(_) | Self::Ansible(_) => None,
            Self::Update(Update::Full(to)) => to.workdir.as_deref(),
            Self::Packages(packages) => packages.workdir.as_deref(),
            Self::Shell(shell) => shell.workdir.as_deref(),
            Self::Services(services) => services.workdir.as_deref(),
        }
    }

    /// What a person recognises the step by.
    #[must_use]
    pub fn title(&self) -> String {
        let detail = match self {
            Self::Update(update) => {
                let scope = match update.scope() {
                    UpdateScope::Security => "security",
                    UpdateScope::All => "all",
                };
                update.release().map_or(scope.to_owned(), |release| format!("{scope}, from {release}"))
            }
            Self::Packages(packages) => {
                let all = [&packages.install, &packages.files, &packages.remove];
                all.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ")
            }
            Self::Files(files) => format!("{} to {}", files.from, files.to),
            Self::Shell(shell) => {
                let line =
                    shell.run.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
                line.unwrap_or_default().to_owned()
            }
            Self::Ansible(ansible) => ansible.playbook.clone(),
            Self::Services(services) => {
                let all = [&services.enable, &services.disable, &services.mask];
                all.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ")
            }
        };
        // One line of a terminal.
        let short: String = detail.chars().filter(|c| !c.is_control()).take(60).collect();
        let more = if detail.chars().count() > 60 { "…" } else { "" };
        format!("{}: {short}{more}", self.kind())
    }
}

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
        match self {
            Self::Scope(_) => None,
            Self::Full(to) => to.release.as_deref(),
        }
    }
}

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

/// Files copied from the recipe's folder into the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Files {
    /// A file or folder, relative to the recipe's folder. A folder that ends in `/` gives its content, else itself.
    pub from: String,
    /// An absolute path in the image. One that ends in `/` is a folder.
    pub to: String,
    /// `user`, or `user:group`, as the image knows them, or numbers. `keep`: the numbers of user and group that each
    /// file has in the recipe's folder. Unset: root.
    pub owner: Option<String>,
    /// `keep` (the default) or octal digits: `"0644"`.
    pub mode: Option<String>,
    /// Modes by pattern, relative to `from`: `usr/local/bin/*: "0755"`. `*` and `?` as in a shell, `**` for any number
    /// of folders; a pattern that ends in `/` is for folders, which keep their modes where the image has them already.
    /// Where several fit, the longest counts; where none does, `mode`.
    #[serde(default)]
    pub modes: BTreeMap<String, String>,
    /// How long one attempt may take. Unset: 30 minutes.
    pub timeout: Option<Span>,
    /// Attempts after one that took too long. At most 20: more mend nothing.
    #[serde(default)]
    #[schemars(range(max = 20))]
    pub retries: u32,
}

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

/// Services as systemd has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Services {
    #[serde(default)]
    pub enable: Vec<String>,
    #[serde(default)]
    pub disable: Vec<String>,
    #[serde(default)]
    pub mask: Vec<String>,
    /// Variables for systemctl, besides PATH, HOME and LANG.
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
