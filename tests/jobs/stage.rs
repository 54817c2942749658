//! A stage that is a job itself (`--job`): it is given its result, once, whatever becomes of the stage.

use std::fs;
use std::process::Stdio;

use bakehouse::pipeline;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::fixture::{Pipelines, text};
use crate::faults::run::{continued, until_stopped};
use crate::yard::small::recipe;
use crate::yard::{Said, Yard};

/// A yard with the small base, and a recipe of it that bakes on AWS.
fn small() -> Option<Pipelines> {
    let pipelines = Pipelines::of(Yard::small()?);
    pipelines.yard.recipe("web", &recipe("web", "{ file: disk.raw }", "boot: { within: 1s }\n"));
    let disk = pipelines.yard.path().join("scratch/disk.raw");
    fs::copy(disk, pipelines.yard.path().join("web/disk.raw")).unwrap();
    pipelines.source_of(&[("a", "b")]);
    Some(pipelines)
}

fn run(pipelines: &Pipelines, job: &str, args: &[&str]) -> Said {
    pipelines.program().args(args).env("BAKEHOUSE_JOB_ID", job).output().unwrap().into()
}

#[test]
fn a_bake_gives_its_job_what_bakehouse_env_has() {
    let Some(pipelines) = small() else { return };
    // The second time nothing has changed, and the result is the same. An answer that is lost is asked for again.
    for (name, when) in [("web", None), ("again", Some("before")), ("lost", Some("after"))] {
        let (execution, job) = pipelines.function(name);
        let drop =
            |when| json!([{ "kind": "drop", "operation": "PutJobSuccessResult", "nth": 1, "when": when }]);
        pipelines.cloud.faults(when.map_or(json!([]), drop));
        let before = pipelines.answers("PutJobSuccessResult").len();
        let said = run(&pipelines, &job, &["bake", "web"]).ok();
        assert!(said.err.contains("was told that it succeeded"), "{}", said.err);
        let ended = pipelines.ended(name, &execution);
        let beside = fs::read_to_string(pipelines.yard.out("web").join("bakehouse.env")).unwrap();
        assert_eq!(ended["output"]["outputVariables"], json!(pipeline::exported(&beside)), "{name}");
        let record = pipelines.yard.record("web");
        let image = text(&record["images"][0]["image"]);
        assert_eq!(said.out.trim(), image);
        let result = &ended["output"]["executionResult"];
        assert_eq!(result["externalExecutionId"], record["bake"], "{name}");
        assert!(text(&result["externalExecutionSummary"]).contains(&image), "{name}: {result}");
        let state = pipelines.call("GetPipelineState", &json!({ "name": name }));
        let action = &state["stageStates"][1]["actionStates"][0];
        assert_eq!(action["currentRevision"]["revisionId"], image.as_str(), "{name}: {action}");
        assert_eq!(action["latestExecution"]["percentComplete"], 100);
        assert_eq!(
            pipelines.answers("PutJobSuccessResult").len() - before,
            if when.is_some() { 2 } else { 1 }
        );
        pipelines.assert_secret(&said.err);
    }
    assert!(pipelines.answers("PutJobFailureResult").is_empty());
    pipelines.yard.assert_nothing_left();
    pipelines.cloud.finish();
}

#[test]
fn what_went_wrong_is_told_by_its_kind() {
    let Some(pipelines) = small() else { return };
    pipelines.yard.recipe("wrong", "version: 1\nname: wrong\narchitecture: x86_64\nbsae: { family: a }\n");
    pipelines.yard.recipe("fails", &recipe("fails", "{ file: ../web/disk.raw }", ""));
    pipelines.yard.recipe(
        "step",
        &recipe("step", "{ file: disk.raw }", "provision:\n  - shell: { run: 'echo no; exit 9' }\n"),
    );
    fs::copy(pipelines.yard.path().join("web/disk.raw"), pipelines.yard.path().join("step/disk.raw"))
        .unwrap();
    let error = |service: &str, operation: &str, code: &str, status: u16| json!([{ "kind": "error", "service": service, "operation": operation, "code": code, "status": status }]);
    let cases = [
        ("wrong", json!([]), 2, "ConfigurationError", "wrong/bake.yml:4"),
        ("step", json!([]), 3, "JobFailed", "exit code 9"),
        (
            "web",
            error("ebs", "StartSnapshot", "AccessDeniedException", 403),
            5,
            "PermissionError",
            "ebs:StartSnapshot",
        ),
        (
            "web",
            error("ebs", "StartSnapshot", "InternalServerException", 500),
            75,
            "SystemUnavailable",
            "try again",
        ),
    ];
    for (number, (name, faults, code, kind, part)) in cases.into_iter().enumerate() {
        let pipeline = format!("pipeline-{number}");
        let (execution, job) = pipelines.function(&pipeline);
        pipelines.cloud.faults(faults);
        let said = run(&pipelines, &job, &["bake", "--fresh", name]).code(code);
        let told = pipelines.failed(&pipeline, &execution, kind);
        assert!(told.contains(part), "{name}: {told}");
        // What is told there is what stands on the terminal.
        assert!(said.err.contains(told.lines().next().unwrap()), "{told}\n{}", said.err);
    }
    assert!(pipelines.answers("PutJobSuccessResult").is_empty());
    pipelines.yard.assert_nothing_left();
}

#[test]
fn a_panic_and_a_signal_are_told_too() {
    let Some(pipelines) = small() else { return };
    let (execution, job) = pipelines.function("panic");
    let mut command = pipelines.program();
    command.args(["bake", "web"]).env("BAKEHOUSE_JOB_ID", &job).env("BAKEHOUSE_FAULT", "boundary:2:panic");
    let said = Said::from(command.output().unwrap()).code(101);
    let told = pipelines.failed("panic", &execution, "JobFailed");
    assert!(told.contains("a panic on purpose") && told.contains("report it"), "{told}\n{}", said.err);

    for (signal, code, word) in [(Signal::TERM, 143, "SIGTERM"), (Signal::INT, 130, "SIGINT")] {
        let (execution, job) = pipelines.function(word);
        let mut command = pipelines.program();
        command.args(["bake", "--fresh", "web"]).env("BAKEHOUSE_JOB_ID", &job);
        command.env("BAKEHOUSE_FAULT", "boundary:3:stop");
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until_stopped(child.id());
        kill_process(Pid::from_child(&child), signal).unwrap();
        let said = continued(child).code(code);
        let told = pipelines.failed(word, &execution, "SystemUnavailable");
        assert!(told.contains(word) && told.contains("nothing was left behind"), "{told}\n{}", said.err);
    }
    assert_eq!(pipelines.answers("PutJobFailureResult"), [None, None, None]);
    pipelines.cloud.finish();
}

#[test]
fn a_job_that_is_not_there_or_over_is_told_before_or_after_the_work() {
    let Some(pipelines) = small() else { return };
    let nobodys = "01234567-89ab-cdef-0123-456789abcdef";
    let said = run(&pipelines, nobodys, &["bake", "web"]).code(2);
    assert!(said.err.contains("is 01234567") && said.err.contains("nothing was begun"), "{}", said.err);
    assert!(!pipelines.cloud.operations().contains(&"ebs:StartSnapshot".to_owned()));
    run(&pipelines, "no id", &["bake", "web"]).code(2);
    // A command line that is none.
    let (execution, job) = pipelines.function("line");
    run(&pipelines, &job, &["bake", "web", "--frehs"]).code(2);
    let told = pipelines.failed("line", &execution, "ConfigurationError");
    assert!(told.contains("--frehs"), "{told}");
    let mut local = pipelines.yard.command();
    local.args(["bake", "web"]).env("BAKEHOUSE_JOB_ID", nobodys);
    let said = Said::from(local.output().unwrap()).code(2);
    assert!(said.err.contains("the local cloud has no pipelines"), "{}", said.err);

    // The pipeline has stopped meanwhile: the image is good, and the job was not told.
    let (execution, job) = pipelines.function("web");
    let stop = json!({ "pipelineName": "web", "pipelineExecutionId": execution, "abandon": true });
    pipelines.call("StopPipelineExecution", &stop);
    let said = run(&pipelines, &job, &["bake", "web"]).code(3);
    assert!(
        said.err.contains("was not told that it succeeded") && said.err.contains("was stopped"),
        "{}",
        said.err
    );
    assert!(said.out.trim().starts_with("ami-"), "{}", said.out);
    assert_eq!(pipelines.action("web", &execution)["status"], "Abandoned");
}

/// A test looks once a job; its token goes from job to job, and the last one ends the instance.
#[test]
fn a_test_that_waits_is_a_continuation() {
    let Some(pipelines) = small() else { return };
    run_plain(&pipelines, &["bake", "web"]);
    let (execution, job) = pipelines.function("test");
    let record = pipelines.yard.out("web").join("image.json").display().to_string();
    let said = run(&pipelines, &job, &["test", &record]).ok();
    let next = pipelines.cloud.jobs().pop().unwrap();
    assert_eq!(next["continuation"], said.out.trim(), "{}", said.err);
    assert_eq!((&next["state"], &next["execution"]), (&json!("InProgress"), &json!(execution)));
    let waiting = pipelines.action("test", &execution);
    assert_eq!(waiting["status"], "InProgress");
    assert!(
        text(&waiting["output"]["executionResult"]["externalExecutionSummary"]).starts_with("test: "),
        "{waiting}"
    );
    // Another host: nothing is there but the record.
    fs::remove_file(pipelines.yard.out("web").join("test.token")).unwrap();
    let mut job = text(&next["id"]);
    // What does not boot is over when its time is.
    let told = loop {
        let said = run(&pipelines, &job, &["test", &record]);
        if said.code != 0 {
            break said.code(6);
        }
        let next = pipelines.cloud.jobs().pop().unwrap();
        assert_ne!(next["id"], job.as_str(), "{}", said.err);
        job = text(&next["id"]);
    };
    let message = pipelines.failed("test", &execution, "JobFailed");
    assert!(message.contains("checks failed"), "{message}\n{}", told.err);
    let instances = pipelines.cloud.state()["instances"].clone();
    let states: Vec<&Value> = instances.as_object().unwrap().values().map(|one| &one["state"]).collect();
    assert_eq!(states.len(), 1, "one boot, whoever looks: {states:?}");
    assert!(states[0] == "terminated" || states[0] == "shutting-down", "{states:?}");
    pipelines.cloud.finish();
}

fn run_plain(pipelines: &Pipelines, args: &[&str]) {
    Said::from(pipelines.program().args(args).output().unwrap()).ok();
}
