//! The roles of cloudformation/ against `bakehouse policy`: each has what it prints, word for word. Python resolves the
//! templates (`checks/templates.py`).

use std::process::Command;

use serde_json::Value;

use super::fixture::{REGION, folder, python};
use crate::yard::{Said, Yard, repository};

const ACCOUNT: &str = "123456789012";
const KEY: &str = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555";

/// A policy of the role in a template, with the defaults of its parameters but for these.
fn of_the_template(template: &str, policy: &str, parameters: &[&str]) -> Value {
    let mut command = Command::new(python());
    command.args(["-m", "checks.templates", template, policy]).args(parameters);
    let said = command.current_dir(folder()).env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
    serde_json::from_str(&Said::from(said).ok().out).unwrap()
}

fn printed(args: &[&str]) -> Value {
    let yard = Yard::new();
    let mut command = yard.command();
    command.env_remove("BAKEHOUSE_LOCAL").args(["policy", "--account", ACCOUNT]).args(args);
    serde_json::from_str(&Said::from(command.output().unwrap()).ok().out).unwrap()
}

#[test]
fn builds_and_workers_may_do_what_bakehouse_policy_prints_for_their_examples() {
    let key = format!("ImageKeyArn={KEY}");
    for (template, example) in [("codebuild-role", "codebuild-stage"), ("worker", "worker")] {
        let folder = repository().join("examples").join(example);
        let place = ["--region", REGION, folder.to_str().unwrap()];
        assert_eq!(of_the_template(template, "Bake", &[]), printed(&place), "{template}");
        let with_key = [&place[..], &["--key", KEY]].concat();
        assert_eq!(of_the_template(template, "Bake", &[&key]), printed(&with_key), "{template}");
    }
    let of_an_application = repository().join("examples/existing-pipeline");
    let place = ["--region", REGION, of_an_application.to_str().unwrap()];
    assert_eq!(of_the_template("codebuild-role", "Bake", &["Family=app"]), printed(&place));
}

#[test]
fn a_worker_may_take_jobs_and_a_janitor_may_sweep_every_region() {
    let jobs = printed(&["--region", REGION, "--for", "worker"]);
    assert_eq!(of_the_template("worker", "Worker", &[]), jobs);
    assert_eq!(of_the_template("janitor", "Sweep", &[]), printed(&["--for", "sweep"]));
}
