//! What became of a check, and what a check is called: the same name wherever it is judged.

use serde::{Deserialize, Serialize};

use crate::recipe::Check;

/// How a check came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Passed,
    /// With the reason.
    Failed(String),
    /// It could not be told here, and why.
    NotJudged(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Outcome {
    /// `package nginx >=1.22`.
    pub name: String,
    /// `package`, `file`, `service`, `port`, `command`; `boot` for the boot itself.
    pub kind: String,
    pub status: Status,
    /// How long it took; 0 where nothing was run.
    pub seconds: f64,
}

impl Outcome {
    #[must_use]
    pub fn new(check: &Check, status: Status) -> Self {
        Self { name: name(check), kind: kind(check).to_owned(), status, seconds: 0.0 }
    }

    #[must_use]
    pub fn failed(&self) -> bool {
        matches!(self.status, Status::Failed(_))
    }
}

/// One outcome a check from what its file system and its boot say of it: `in_root` has an outcome a check, `booted` the
/// boot's own first. A check that either finds wrong is wrong; one that only one of them can judge is judged by that.
#[must_use]
pub fn combined(in_root: Vec<Outcome>, mut booted: Vec<Outcome>) -> Vec<Outcome> {
    let checks = booted.split_off(booted.len().saturating_sub(in_root.len()));
    let each =
        in_root.into_iter().zip(checks).map(|(still, running)| match (&still.status, &running.status) {
            (Status::Failed(_), _) | (Status::Passed, Status::NotJudged(_)) => still,
            // Where neither could tell, the boot's reason is the one that could be mended.
            _ => running,
        });
    booted.extend(each);
    booted
}

/// The check's kind, as in the recipe.
#[must_use]
pub fn kind(check: &Check) -> &'static str {
    match check {
        Check::Package(_) => "package",
        Check::File(_) => "file",
        Check::Service(_) => "service",
        Check::Port(_) => "port",
        Check::Command(_) => "command",
    }
}

/// A name of one line for a person: `service nginx enabled running`. Depends on nothing but the check.
#[must_use]
pub fn name(check: &Check) -> String {
    let mut words = vec![kind(check).to_owned()];
    match check {
        Check::Package(package) => {
            words.push(package.name.clone());
            words.extend(package.version.clone());
            if package.installed == Some(false) {
                words.push("not installed".to_owned());
            }
        }
        Check::File(file) => {
            words.push(file.path.clone());
            if file.exists == Some(false) {
                words.push("not there".to_owned());
            }
            words.extend(file.mode.as_ref().map(|mode| format!("mode {mode}")));
            words.extend(file.owner.as_ref().map(|owner| format!("owner {owner}")));
            words.extend(file.contains.as_ref().map(|text| format!("contains {}", brief(text))));
        }
        Check::Service(service) => {
            words.push(service.name.clone());
            let mut add = |is: Option<bool>, word: &str| match is {
                Some(true) => words.push(word.to_owned()),
                Some(false) => words.push(format!("not {word}")),
                None => {}
            };
            add(service.enabled, "enabled");
            add(service.running, "running");
        }
        Check::Port(port) => words.push(format!("tcp {}", port.tcp)),
        Check::Command(command) => {
            words.push(brief(&command.run));
            words.extend(command.exit.filter(|exit| *exit != 0).map(|exit| format!("exit {exit}")));
        }
    }
    words.join(" ")
}

/// The first line of a text, at most 60 characters of it.
fn brief(text: &str) -> String {
    const LONGEST: usize = 60;
    let text = text.trim();
    let line = text.lines().next().unwrap_or_default();
    let cut: String = line.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    if cut.len() < text.len() { cut + "…" } else { cut }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{CommandCheck, FileCheck, PackageCheck, PortCheck, ServiceCheck};

    #[test]
    fn a_check_is_as_bad_as_either_finds_it() {
        let one = |status: Status| Outcome { name: "x".into(), kind: "file".into(), status, seconds: 0.0 };
        let (good, bad, none) =
            (Status::Passed, Status::Failed("f".into()), |why: &str| Status::NotJudged(why.into()));
        let cases = [
            (good.clone(), good.clone(), good.clone()),
            (bad.clone(), good.clone(), bad.clone()),
            (good.clone(), bad.clone(), bad.clone()),
            (good.clone(), none("boot"), good.clone()),
            (bad.clone(), none("boot"), bad.clone()),
            (none("root"), good.clone(), good.clone()),
            (none("root"), none("boot"), none("boot")),
        ];
        for (still, running, expected) in cases {
            let boot = Outcome { name: "boot".into(), ..one(Status::Passed) };
            let all = combined(vec![one(still)], vec![boot.clone(), one(running)]);
            assert_eq!(all, [boot, one(expected)]);
        }
    }

    #[test]
    fn names_say_what_is_checked() {
        let package = |version: Option<&str>, installed| {
            name(&Check::Package(PackageCheck {
                name: "nginx".into(),
                version: version.map(Into::into),
                installed,
            }))
        };
        assert_eq!(package(Some(">=1.22"), None), "package nginx >=1.22");
        assert_eq!(package(None, Some(false)), "package nginx not installed");
        let service =
            Check::Service(ServiceCheck { name: "nginx".into(), enabled: Some(true), running: Some(false) });
        assert_eq!(name(&service), "service nginx enabled not running");
        assert_eq!(name(&Check::Port(PortCheck { tcp: 80 })), "port tcp 80");
        let file = Check::File(FileCheck {
            path: "/etc/x".into(),
            exists: None,
            mode: Some("0644".into()),
            owner: Some("root:root".into()),
            contains: Some("a\nb".into()),
        });
        assert_eq!(name(&file), "file /etc/x mode 0644 owner root:root contains a…");
        let command = Check::Command(CommandCheck {
            run: "nginx -t\n".into(),
            exit: Some(2),
            stdout: None,
            contains: None,
        });
        assert_eq!(name(&command), "command nginx -t exit 2");
    }
}
