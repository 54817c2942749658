//! What is right by itself and would not work in a build that runs Bakehouse: told as warnings, since a script that the
//! commands call may do what they do not show, and what the project has to give as notes.

use std::collections::BTreeSet;

use super::words::{self, Simple};
use super::{Buildspec, OnFailure};
use crate::recipe::key::KeyPath;
use crate::recipe::problem::{At, Findings, nearest, quoted};

/// What `bakehouse.env`, which stands beside a record, exports when it is sourced.
pub const OF_A_RECORD: [&str; 8] = [
    "BAKEHOUSE_FAMILY",
    "BAKEHOUSE_BAKE",
    "AMI_NAME",
    "AMI_ARCHITECTURE",
    "AMI_ID",
    "AMI_SNAPSHOT_ID",
    "AMI_ACCOUNT",
    "AMI_REGION",
];
/// The file's name.
const RECORD_ENV: &str = "bakehouse.env";
/// The report that a stage of Bakehouse writes into OUT, also where it fails, and the stages that do.
const RESULTS: &str = "junit.xml";
const REPORTING: [&str; 2] = ["bake", "test"];
/// Where OUT is, in the recipe's folder.
const OUT: &str = "bakehouse-out";
/// What mounts file systems, among the verbs of Bakehouse.
const MOUNTING: [&str; 2] = ["bake", "test"];
/// What every image of a build has in its environment, besides `CODEBUILD_…` and `AWS_…`.
const GIVEN: [&str; 6] = ["HOME", "PATH", "PWD", "USER", "HOSTNAME", "LANG"];

/// Looks at a buildspec that is right.
pub(super) fn look(spec: &Buildspec, findings: &mut Findings) {
    let top = KeyPath::default();
    if spec.version == "0.1" {
        findings.doubt(
            &top.key("version"),
            At::Value,
            "with version 0.1 every command has a shell of its own: what one exports, the next does not have",
            "write `version: 0.2`",
        );
    }
    let scripts = scripts(spec);
    exported(spec, &scripts, findings);
    results(spec, &scripts, findings);
    for (name, phase) in spec.phases.all() {
        if let Some(OnFailure::Retry { .. }) = &phase.on_failure {
            findings.doubt(
                &top.key("phases").key(name.key()).key("on-failure"),
                At::Value,
                "CodeBuild does not retry in images other than its own, such as Bakehouse's",
                "take it out; Bakehouse itself tries again what is worth it, and a recipe's steps have `retries`",
            );
        }
    }
    if let Some(artifacts) = &spec.artifacts
        && artifacts.files.is_empty()
    {
        findings.doubt(
            &top.key("artifacts"),
            At::Key,
            "`files` is missing: CodeBuild's reference wants it beside `secondary-artifacts` too",
            "add `files:` and what belongs to the primary artifact",
        );
    }
    let mounting = scripts.iter().find_map(|script| {
        let mut verbs = script.commands.iter().filter_map(verb);
        let verb = verbs.find(|verb| MOUNTING.contains(&verb.as_str()))?;
        Some((&script.path, verb))
    });
    if let Some((path, verb)) = mounting {
        findings.need(
            path,
            At::Text(format!("bakehouse {verb}")),
            format!("`bakehouse {verb}` mounts file systems: the build needs the privileged mode"),
            "set `privilegedMode` in the environment of the build's project; a bake by `method: launch` does without",
        );
    }
}

/// One of the buildspec's commands.
struct Script<'a> {
    path: KeyPath,
    text: &'a str,
    commands: Vec<Simple>,
}

fn scripts(spec: &Buildspec) -> Vec<Script<'_>> {
    let mut all = Vec::new();
    for (name, phase) in spec.phases.all() {
        for (group, list) in [("commands", &phase.commands), ("finally", &phase.finally)] {
            let path = KeyPath::default().key("phases").key(name.key()).key(group);
            for (number, text) in list.iter().enumerate() {
                all.push(Script { path: path.item(number), text, commands: words::commands(text) });
            }
        }
    }
    all
}

/// The verb of Bakehouse that a command runs, also by way of docker or sudo.
fn verb(command: &Simple) -> Option<String> {
    let is_program = |word: &String| word.rsplit('/').next() == Some("bakehouse");
    let program = command.words.iter().position(is_program)?;
    let words: Vec<&String> =
        command.words[program + 1..].iter().filter(|word| !word.starts_with('-')).collect();
    // An option's value may stand before the verb.
    let known = words.iter().find(|word| MOUNTING.contains(&word.as_str()));
    known.or(words.first()).map(|word| (*word).clone())
}

/// What the commands do to the variables of their shell.
#[derive(Default)]
struct Sets {
    exported: BTreeSet<String>,
    assigned: BTreeSet<String>,
    /// Something is sourced or evaluated that may set anything.
    anything: bool,
    /// `set -a`.
    all: bool,
}

impl Sets {
    fn take(&mut self, command: &Simple) {
        let [first, arguments @ ..] = command.words.as_slice() else {
            return;
        };
        match first.as_str() {
            "export" => self.names(arguments, true),
            "declare" | "typeset" | "local" | "readonly" => {
                let exports = arguments.iter().any(|word| word.starts_with('-') && word.contains('x'));
                self.names(arguments, exports);
            }
            "read" | "mapfile" | "readarray" | "printf" => self.names(arguments, false),
            "set" => self.all |= arguments.iter().any(|word| word == "-a" || word == "allexport"),
            "." | "source" => match arguments.first() {
                Some(file) if file.rsplit('/').next() == Some(RECORD_ENV) => {
                    self.exported.extend(OF_A_RECORD.map(str::to_owned));
                }
                _ => self.anything = true,
            },
            "eval" => self.anything = true,
            // With a command behind them they are of that command alone.
            _ if command.words.iter().all(|word| assigned(word).is_some()) => {
                self.assigned.extend(command.words.iter().filter_map(|word| assigned(word)));
            }
            _ => {}
        }
    }

    fn names(&mut self, arguments: &[String], exported: bool) {
        let into = if exported { &mut self.exported } else { &mut self.assigned };
        into.extend(arguments.iter().filter_map(|word| assigned(word).or_else(|| name(word))));
    }
}

fn name(word: &str) -> Option<String> {
    let good = word.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    good.then(|| word.to_owned())
}

/// The variable of `NAME=value`.
fn assigned(word: &str) -> Option<String> {
    let (before, _) = word.split_once('=')?;
    name(before.strip_suffix('+').unwrap_or(before))
}

fn exported(spec: &Buildspec, scripts: &[Script<'_>], findings: &mut Findings) {
    let mut sets = Sets::default();
    for command in scripts.iter().flat_map(|script| &script.commands).filter(|command| !command.apart) {
        sets.take(command);
    }
    if sets.all {
        sets.exported.append(&mut sets.assigned);
    }
    sets.exported.extend(spec.env.variables.keys().cloned());
    for (number, name) in spec.env.exported_variables.iter().enumerate() {
        let given = name.starts_with("CODEBUILD_") || GIVEN.contains(&name.as_str());
        if given || sets.anything || sets.exported.contains(name) {
            continue;
        }
        if findings.are_full_of_warnings() {
            return;
        }
        let path = KeyPath::default().key("env").key("exported-variables").item(number);
        let (message, hint) = if sets.assigned.contains(name) {
            (
                format!("{} is set, but the shell does not export it", quoted(name)),
                format!("write `export {name}=…`, or `export {name}` afterwards"),
            )
        } else {
            let hint = if OF_A_RECORD.contains(&name.as_str()) {
                format!("after the bake: `. bakehouse-out/{RECORD_ENV}`, or where `--out` leads to")
            } else {
                match nearest(name, sets.exported.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("`export {name}=…` in a command, unless the project sets it"),
                }
            };
            (format!("{} is to be exported, and no command here sets it", quoted(name)), hint)
        };
        findings.doubt(&path, At::Value, message, hint);
    }
}

/// A report that nobody writes, or that is written elsewhere.
fn results(spec: &Buildspec, scripts: &[Script<'_>], findings: &mut Findings) {
    let commands = || scripts.iter().flat_map(|script| &script.commands);
    let verbs: BTreeSet<String> = commands().filter_map(verb).collect();
    let named_elsewhere = scripts.iter().any(|script| script.text.to_lowercase().contains("junit"));
    if verbs.is_empty() || named_elsewhere {
        return;
    }
    let written = REPORTING.iter().any(|verb| verbs.contains(*verb));
    // Where a command says where results go, they may be anywhere.
    let says_where = spec.env.variables.contains_key("BAKEHOUSE_OUT")
        || commands().any(|command| {
            command.words.iter().any(|word| {
                word == "--out" || word.starts_with("--out=") || word.starts_with("BAKEHOUSE_OUT=")
            })
        });
    for (group, report) in &spec.reports {
        for (number, file) in report.files.iter().enumerate() {
            let path = format!("{}/{file}", report.base_directory.as_deref().unwrap_or_default());
            let mut parts = path.rsplit('/').filter(|part| !part.is_empty());
            if parts.next() != Some(RESULTS) {
                continue;
            }
            let folder = parts.next();
            let elsewhere = folder.is_none_or(|folder| folder != OUT && !folder.contains(['*', '$']));
            let (message, hint) = if !written {
                (
                    format!(
                        "no command here runs `bakehouse bake` or `bakehouse test`, which write {RESULTS}"
                    ),
                    "run one of them, or take the report out".to_owned(),
                )
            } else if elsewhere && !says_where {
                (
                    format!("{RESULTS} is written into {OUT} in the recipe's folder, and this is not there"),
                    format!(
                        "write `{OUT}/{RESULTS}` behind the recipe's folder, or say by `--out` where it is to be"
                    ),
                )
            } else {
                continue;
            };
            let key = KeyPath::default().key("reports").key(group).key("files").item(number);
            findings.doubt(&key, At::Value, message, hint);
        }
    }
}
