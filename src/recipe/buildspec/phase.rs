//! `phases`: the commands of a build, and what their failure means.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Phases {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub install: Option<Phase>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_build: Option<Phase>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<Phase>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_build: Option<Phase>,
}

impl Phases {
    #[must_use]
    pub fn get(&self, name: PhaseName) -> Option<&Phase> {
        match name {
            PhaseName::Install => self.install.as_ref(),
            PhaseName::PreBuild => self.pre_build.as_ref(),
            PhaseName::Build => self.build.as_ref(),
            PhaseName::PostBuild => self.post_build.as_ref(),
        }
    }

    /// Those that are written, in the order in which they run.
    pub fn all(&self) -> impl Iterator<Item = (PhaseName, &Phase)> {
        PhaseName::ALL.into_iter().filter_map(|name| Some((name, self.get(name)?)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PhaseName {
    Install,
    PreBuild,
    Build,
    PostBuild,
}

impl PhaseName {
    pub const ALL: [Self; 4] = [Self::Install, Self::PreBuild, Self::Build, Self::PostBuild];

    /// The key that it stands under.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::PreBuild => "pre_build",
            Self::Build => "build",
            Self::PostBuild => "post_build",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Phase {
    /// The Linux user that runs this phase's commands, in place of the one for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_as: Option<String>,
    /// `ABORT`, `CONTINUE`, or one of the forms of `RETRY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// Languages that an image of CodeBuild's own installs; in the phase `install` only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub runtime_versions: BTreeMap<String, String>,
    /// What is run, one after the other, until one fails.
    #[serde(default)]
    pub commands: Vec<String>,
    /// What is run afterwards, also where a command failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finally: Vec<String>,
}

/// What becomes of the build when a phase fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(into = "String", try_from = "String")]
#[schemars(with = "String")]
pub enum OnFailure {
    /// It ends.
    Abort,
    /// The next phase runs.
    Continue,
    /// The phase is tried again, where its error fits the pattern.
    Retry { times: Option<u8>, pattern: Option<String> },
}

impl OnFailure {
    /// The most that a phase may be tried again.
    const MOST: u8 = 100;

    /// # Errors
    /// What is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not what a failure can do");
        match text {
            "ABORT" => return Ok(Self::Abort),
            "CONTINUE" => return Ok(Self::Continue),
            "RETRY" => return Ok(Self::Retry { times: None, pattern: None }),
            _ => {}
        }
        let rest = text.strip_prefix("RETRY-").filter(|rest| !rest.is_empty()).ok_or_else(wrong)?;
        let (number, pattern) =
            rest.split_once('-').map_or((rest, None), |(number, rest)| (number, Some(rest)));
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::Retry { times: None, pattern: Some(rest.to_owned()) });
        }
        let times = number.parse().ok().filter(|times| *times <= Self::MOST);
        let times = times.ok_or_else(|| format!("{number} is more often than a phase may be tried again"))?;
        Ok(Self::Retry { times: Some(times), pattern: pattern.map(str::to_owned) })
    }
}

impl TryFrom<String> for OnFailure {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<OnFailure> for String {
    fn from(it: OnFailure) -> Self {
        match it {
            OnFailure::Abort => "ABORT".to_owned(),
            OnFailure::Continue => "CONTINUE".to_owned(),
            OnFailure::Retry { times, pattern } => {
                let times = times.map(|times| format!("-{times}")).unwrap_or_default();
                let pattern = pattern.map(|pattern| format!("-{pattern}")).unwrap_or_default();
                format!("RETRY{times}{pattern}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_on_failure_is_read_and_written() {
        let retry =
            |times, pattern: Option<&str>| OnFailure::Retry { times, pattern: pattern.map(str::to_owned) };
        for (text, right) in [
            ("ABORT", OnFailure::Abort),
            ("CONTINUE", OnFailure::Continue),
            ("RETRY", retry(None, None)),
            ("RETRY-3", retry(Some(3), None)),
            ("RETRY-100", retry(Some(100), None)),
            ("RETRY-time.*out", retry(None, Some("time.*out"))),
            ("RETRY-a-b", retry(None, Some("a-b"))),
            ("RETRY-2-a-b", retry(Some(2), Some("a-b"))),
        ] {
            assert_eq!(OnFailure::parse(text).as_ref(), Ok(&right), "{text}");
            assert_eq!(String::from(right), text);
        }
        for wrong in ["", "abort", "RETRY-", "RETRY3", "RETRY-101", "RETRY-999-a", "STOP"] {
            assert!(OnFailure::parse(wrong).is_err(), "{wrong}");
        }
    }
}
