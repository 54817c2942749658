//! `provision`: what is done to the root. A step is a map with one key, its kind; each kind is a file here.

mod ansible;
mod files;
mod packages;
mod reboot;
mod services;
mod shell;
mod update;

use std::collections::BTreeMap;
use std::fmt;

pub use ansible::Ansible;
pub use files::Files;
pub use packages::Packages;
pub use reboot::Reboot;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use services::Services;
pub use shell::{SecretFrom, Shell};
pub use update::{Update, UpdateScope, UpdateTo};

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
    Reboot(Reboot),
}

/// What a kind of step says of itself.
pub trait StepKind: fmt::Debug {
    /// The key that it stands under.
    fn key(&self) -> &'static str;

    /// What a person recognises this one by, among others of its kind.
    fn detail(&self) -> String;

    fn limits(&self) -> Limits;

    /// The variables that its commands get.
    fn env(&self) -> Option<&BTreeMap<String, String>> {
        None
    }

    /// Where its commands run in the image; `None`: in `/`, or where the kind itself says.
    fn workdir(&self) -> Option<&str> {
        None
    }
}

/// How long a step may take, and how often it is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of one attempt; `None`: as long as any.
    pub timeout: Option<Span>,
    /// Attempts after one that failed.
    pub retries: u32,
}

impl Step {
    /// The step as what all kinds have in common: the table of kinds.
    #[must_use]
    pub fn as_kind(&self) -> &dyn StepKind {
        match self {
            Self::Update(update) => update,
            Self::Packages(packages) => packages,
            Self::Files(files) => files,
            Self::Shell(shell) => shell,
            Self::Ansible(ansible) => ansible,
            Self::Services(services) => services,
            Self::Reboot(reboot) => reboot,
        }
    }

    /// What a person recognises the step by, on one line of a terminal.
    #[must_use]
    pub fn title(&self) -> String {
        let detail = self.as_kind().detail();
        let short: String = detail.chars().filter(|c| !c.is_control()).take(60).collect();
        let more = if detail.chars().count() > 60 { "…" } else { "" };
        format!("{}: {short}{more}", self.as_kind().key())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_names_the_key_that_it_stands_under() {
        let steps = json!([
            {"update": "all"},
            {"packages": {"install": ["a"], "remove": ["b"]}},
            {"files": {"from": "a/", "to": "/a"}},
            {"shell": {"run": "\n# note\n  make install\n"}},
            {"ansible": {"playbook": "site.yml"}},
            {"services": {"mask": ["c"], "enable": ["a", "b"]}},
            {"reboot": {}},
        ]);
        let steps: Vec<Step> = serde_json::from_value(steps).unwrap();
        for step in &steps {
            let written = serde_json::to_value(step).unwrap();
            assert_eq!(written.as_object().unwrap().keys().next().unwrap(), step.as_kind().key());
        }
        let titles: Vec<String> = steps.iter().map(Step::title).collect();
        let wanted = [
            "update: all",
            "packages: a b",
            "files: a/ to /a",
            "shell: make install",
            "ansible: site.yml",
            "services: a b c",
            "reboot: the machine",
        ];
        assert_eq!(titles, wanted);
    }

    #[test]
    fn a_title_is_one_short_line() {
        let long = "x".repeat(100);
        let step: Step = serde_json::from_value(json!({"packages": {"install": [long]}})).unwrap();
        assert_eq!(step.title().chars().count(), "packages: ".len() + 61);
    }

    #[test]
    fn an_update_in_short_has_no_limits_of_its_own() {
        let short: Step = serde_json::from_value(json!({"update": "security"})).unwrap();
        assert_eq!(short.as_kind().limits(), Limits::default());
        assert!(short.as_kind().env().is_none() && short.as_kind().workdir().is_none());
        let full = json!({"update": {"scope": "all", "workdir": "/srv", "timeout": "1h", "retries": 3}});
        let full: Step = serde_json::from_value(full).unwrap();
        let Limits { timeout, retries } = full.as_kind().limits();
        assert_eq!((timeout.unwrap().duration().as_secs(), retries), (3600, 3));
        assert_eq!(full.as_kind().workdir(), Some("/srv"));
    }
}
