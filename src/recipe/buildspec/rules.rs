//! What a buildspec must obey beyond the types of its keys, as CodeBuild's reference has it: a table of places and small
//! functions, run by `recipe/rules`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{OnFailure, SecretName};
use crate::recipe::problem::{At, Findings, ProblemKind, either, nearest, quoted};
use crate::recipe::rules::Rule::{Key, Text, Whole};
use crate::recipe::rules::{Look, Rule, Verdict, word, wrong};

/// Report groups of one project (CodeBuild, quotas of test reports).
const MOST_REPORTS: usize = 5;
/// `cache.fallback-keys` (CodeBuild, build specification reference).
const MOST_FALLBACKS: usize = 5;

/// Formats of reports; their case means nothing.
const FORMATS: [&str; 10] = [
    "JUNITXML",
    "CUCUMBERJSON",
    "NUNITXML",
    "NUNIT3XML",
    "TESTNGXML",
    "VISUALSTUDIOTRX",
    "CLOVERXML",
    "COBERTURAXML",
    "JACOCOXML",
    "SIMPLECOV",
];

/// Where each rule holds: keys, and `*` for every item of a list or every key of a map.
pub(super) const RULES: &[(&str, Rule)] = &[
    ("version", Text(version)),
    ("run-as", Text(user)),
    ("env", Whole(exported)),
    ("env.variables.*", Key(variable)),
    ("env.parameter-store.*", Key(variable)),
    ("env.parameter-store.*", Text(word::filled)),
    ("env.secrets-manager.*", Key(variable)),
    ("env.secrets-manager.*", Text(secret)),
    ("env.exported-variables.*", Text(exportable)),
    ("batch", Whole(batch)),
    ("batch.build-list", Whole(tasks)),
    ("batch.build-graph", Whole(tasks)),
    ("batch.build-graph", Whole(graph)),
    ("phases", Whole(phases)),
    ("phases.*", Whole(phase)),
    ("phases.*.run-as", Text(user)),
    ("phases.*.on-failure", Text(on_failure)),
    ("phases.*.commands.*", Text(word::filled)),
    ("phases.*.finally.*", Text(word::filled)),
    ("reports", Whole(reports)),
    ("reports.*.files", Whole(files)),
    ("reports.*.files.*", Text(word::filled)),
    ("reports.*.file-format", Text(format)),
    ("artifacts", Whole(artifacts)),
    ("artifacts.files.*", Text(word::filled)),
    ("artifacts.secondary-artifacts.*", Key(identifier)),
    ("artifacts.secondary-artifacts.*.files", Whole(files)),
    ("artifacts.secondary-artifacts.*.files.*", Text(word::filled)),
    ("cache.paths.*", Text(word::filled)),
    ("cache.fallback-keys", Whole(fallbacks)),
];

fn version(text: &str) -> Verdict {
    match text {
        "0.1" | "0.2" => Ok(()),
        _ => wrong(format!("{} is no version of a buildspec", quoted(text)), "write `version: 0.2`"),
    }
}

/// As useradd(8) takes it, and a number.
fn user(text: &str) -> Verdict {
    let good = !text.is_empty()
        && !text.starts_with('-')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-$".contains(&byte));
    if good {
        return Ok(());
    }
    wrong(format!("{} is not the name of a user", quoted(text)), "write one that the image of the build has")
}

fn variable(name: &str) -> Verdict {
    word::environment(name)?;
    if name.starts_with("CODEBUILD_") {
        return wrong(
            format!("{}: names that begin with `CODEBUILD_` are CodeBuild's own", quoted(name)),
            "give it another name",
        );
    }
    Ok(())
}

fn exportable(name: &str) -> Verdict {
    word::environment(name)?;
    if name.starts_with("AWS_") {
        return wrong(
            format!(
                "{} cannot be exported: CodeBuild exports no variable that begins with `AWS_`",
                quoted(name)
            ),
            "export its value under another name",
        );
    }
    Ok(())
}

fn secret(text: &str) -> Verdict {
    word::filled(text)?;
    SecretName::parse(text).map(drop).or_else(|error| wrong(error.message, error.hint))
}

fn on_failure(text: &str) -> Verdict {
    const WORDS: [&str; 3] = ["ABORT", "CONTINUE", "RETRY"];
    match OnFailure::parse(text) {
        Ok(_) => Ok(()),
        Err(why) => match nearest(text, WORDS) {
            Some(near) => wrong(why, format!("did you mean `{near}`?")),
            None => wrong(
                why,
                "write ABORT, CONTINUE, RETRY, RETRY-3 (0 to 100 times), RETRY-pattern or RETRY-3-pattern",
            ),
        },
    }
}

fn format(text: &str) -> Verdict {
    if FORMATS.iter().any(|one| one.eq_ignore_ascii_case(text)) {
        return Ok(());
    }
    let hint = match nearest(text, FORMATS) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("write {}", either(&FORMATS)),
    };
    wrong(format!("{} is no format of a report", quoted(text)), hint)
}

fn identifier(text: &str) -> Verdict {
    let good =
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if good {
        return Ok(());
    }
    wrong(
        format!("{} is not an artifact's identifier", quoted(text)),
        "write the one that the project has under `secondaryArtifacts`: letters, digits, `_` and `-`",
    )
}

fn keys(value: Option<&Value>) -> impl Iterator<Item = &str> {
    value.and_then(Value::as_object).into_iter().flat_map(Map::keys).map(String::as_str)
}

fn texts(value: Option<&Value>) -> Vec<&str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn exported(look: &Look<'_>, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (number, name) in texts(look.get("exported-variables")).into_iter().enumerate() {
        let path = look.path.key("exported-variables").item(number);
        let mut conflict = |message: String, hint: &str| {
            findings.error(ProblemKind::Conflict, &path, At::Value, message, hint);
        };
        for from in ["parameter-store", "secrets-manager"] {
            if look.get(from).is_some_and(|all| all.get(name).is_some()) {
                conflict(
                    format!("{} comes from `{from}`, and what does is not exported", quoted(name)),
                    "take it out: who needs the value can read it there",
                );
            }
        }
        if !seen.insert(name) {
            conflict(format!("{} is named twice", quoted(name)), "take one of them out");
        }
    }
}

fn batch(look: &Look<'_>, findings: &mut Findings) {
    const KINDS: [&str; 4] = ["build-list", "build-matrix", "build-graph", "build-fanout"];
    let there: Vec<&str> = KINDS.into_iter().filter(|kind| look.get(kind).is_some()).collect();
    match there.as_slice() {
        [_] => {}
        [] => findings.error(
            ProblemKind::MissingKey,
            &look.path,
            At::Key,
            "`batch` names no builds",
            format!("write {} below it", either(&KINDS)),
        ),
        [first, second, ..] => look.conflict(
            second,
            findings,
            format!("`{first}` and `{second}` are two kinds of batch"),
            "keep one of them",
        ),
    }
}

/// Tasks are told apart by their identifiers.
fn tasks(look: &Look<'_>, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (number, task) in look.value.as_array().into_iter().flatten().enumerate() {
        let path = look.path.item(number);
        if let Some(name) = task.get("identifier").and_then(Value::as_str)
            && !seen.insert(name)
        {
            let message = format!("another task has the identifier {}", quoted(name));
            let path = path.key("identifier");
            findings.error(ProblemKind::Conflict, &path, At::Value, message, "give it one of its own");
        }
        if look.path.name() == Some("build-list") && task.get("depend-on").is_some() {
            findings.error(
                ProblemKind::Conflict,
                &path.key("depend-on"),
                At::Key,
                "the tasks of a `build-list` wait for nothing",
                "write `build-graph` in place of `build-list`",
            );
        }
    }
}

/// Every task of a graph has an identifier, waits for tasks that there are, and comes to its turn.
fn graph(look: &Look<'_>, findings: &mut Findings) {
    let Some(all) = look.value.as_array() else {
        return;
    };
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, task) in all.iter().enumerate() {
        match task.get("identifier").and_then(Value::as_str) {
            Some(name) => {
                numbers.insert(name, number);
            }
            None => findings.error(
                ProblemKind::MissingKey,
                &look.path.item(number),
                At::Value,
                "`identifier` is missing in this task",
                "add `identifier:`, by which other tasks name it",
            ),
        }
    }
    // For how many others each waits, and which wait for it.
    let mut waits = vec![0_usize; all.len()];
    let mut followers = vec![Vec::new(); all.len()];
    for (number, task) in all.iter().enumerate() {
        for (at, other) in texts(task.get("depend-on")).into_iter().enumerate() {
            if findings.are_full() {
                return;
            }
            let Some(before) = numbers.get(other) else {
                findings.error(
                    ProblemKind::BadValue,
                    &look.path.item(number).key("depend-on").item(at),
                    At::Value,
                    format!("no task has the identifier {}", quoted(other)),
                    match nearest(other, numbers.keys().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "name a task of this graph".to_owned(),
                    },
                );
                continue;
            };
            waits[number] += 1;
            followers[*before].push(number);
        }
    }
    let mut ready: Vec<usize> = (0..all.len()).filter(|number| waits[*number] == 0).collect();
    while let Some(number) = ready.pop() {
        for follower in std::mem::take(&mut followers[number]) {
            waits[follower] -= 1;
            if waits[follower] == 0 {
                ready.push(follower);
            }
        }
    }
    if let Some(number) = waits.iter().position(|count| *count > 0) {
        findings.error(
            ProblemKind::Conflict,
            &look.path.item(number).key("depend-on"),
            At::Key,
            "this task waits, by way of others, for itself",
            "take one of the dependencies out",
        );
    }
}

fn phases(look: &Look<'_>, findings: &mut Findings) {
    if look.value.as_object().is_some_and(Map::is_empty) {
        findings.error(
            ProblemKind::MissingKey,
            &look.path,
            At::Key,
            "there is no phase",
            "write install, pre_build, build or post_build below it",
        );
    }
}

fn phase(look: &Look<'_>, findings: &mut Findings) {
    let name = look.path.name().unwrap_or_default();
    if look.get("commands").is_none() && name != "install" {
        findings.error(
            ProblemKind::MissingKey,
            &look.path.key("commands"),
            At::Key,
            format!("`commands` is missing in `{name}`"),
            "add `commands:` and what it runs",
        );
    }
    if look.get("runtime-versions").is_some() && name != "install" {
        look.conflict(
            "runtime-versions",
            findings,
            "`runtime-versions` belongs to the phase `install`",
            "move it there",
        );
    }
}

fn reports(look: &Look<'_>, findings: &mut Findings) {
    if look.value.as_object().is_some_and(|all| all.len() > MOST_REPORTS) {
        findings.error(
            ProblemKind::BadValue,
            &look.path,
            At::Key,
            format!("a project has at most {MOST_REPORTS} report groups"),
            "put the files of several into one",
        );
    }
}

fn files(look: &Look<'_>, findings: &mut Findings) {
    if look.value.as_array().is_some_and(Vec::is_empty) {
        findings.error(
            ProblemKind::BadValue,
            &look.path,
            At::Key,
            "no file is named",
            "write `\"**/*\"` for all",
        );
    }
}

fn artifacts(look: &Look<'_>, findings: &mut Findings) {
    if texts(look.get("files")).is_empty() && keys(look.get("secondary-artifacts")).next().is_none() {
        findings.error(
            ProblemKind::MissingKey,
            &look.path.key("files"),
            At::Key,
            "`files` is missing in `artifacts`",
            "add `files:` and what belongs to the artifact; `\"**/*\"` is all",
        );
    }
}

fn fallbacks(look: &Look<'_>, findings: &mut Findings) {
    if look.value.as_array().is_some_and(|all| all.len() > MOST_FALLBACKS) {
        findings.error(
            ProblemKind::BadValue,
            &look.path,
            At::Key,
            format!("there are at most {MOST_FALLBACKS} fallback keys"),
            "take the others out",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::buildspec::SCHEMA;
    use crate::recipe::rules::tests::every_rule_has_its_place;

    #[test]
    fn every_rule_names_a_place_that_the_schema_has() {
        every_rule_has_its_place(RULES, &SCHEMA);
    }
}
