//! The worker: jobs are taken, done at the same time, given one result each, and none is lost.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::fixture::{Pipelines, example_type, text, until};
use crate::aws::{REGION, iam};
use crate::gate;
use crate::yard::small::recipe;
use crate::yard::{Said, Yard};

/// A buildspec with these commands.
fn spec(commands: &[&str]) -> String {
    format!("{}\n", json!({ "version": "0.2", "phases": { "build": { "commands": commands } } }))
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_job_is_built_from_its_artifacts_and_gives_its_own() {
    let pipelines = Pipelines::new();
    pipelines.action_type("Build");
    let spec = r#"
version: 0.2
env: { exported-variables: [ANSWER] }
phases:
  build:
    commands:
      - export ANSWER="$CODEBUILD_INITIATOR $BAKEHOUSE_PIPELINE_EXECUTION ${BAKEHOUSE_JOB_ID-no job} ${BAKEHOUSE_OUT-no out}"
      - test -n "$CODEBUILD_RESOLVED_SOURCE_VERSION" && test -x "$CODEBUILD_SRC_DIR/run.sh" || true
      - mkdir out && env >out/env && cp data/* out/
artifacts:
  files: ["**/*"]
  base-directory: out
  secondary-artifacts:
    Second: { base-directory: data, files: ["*"] }
"#;
    pipelines.source_of(&[("buildspec.yml", spec), ("data/a.txt", "content"), ("run.sh", "")]);
    let key = format!(
        "arn:aws:kms:us-east-1:{}:key/01234567-89ab-cdef-0123-456789abcdef",
        pipelines.cloud.account()
    );
    let store = json!({
        "artifactStore": {
            "type": "S3", "location": format!("artifacts-{}", pipelines.cloud.account()),
            "encryptionKey": { "id": key, "type": "KMS" },
        },
    });
    let action = json!({ "outputArtifacts": [{ "name": "Image" }], "configuration": { "Token": "hunter2" } });
    let both = json!({ "outputArtifacts": [{ "name": "Second" }, { "name": "Third" }] });
    let worker = pipelines.worker(&[]);
    let execution = pipelines.pipeline("web", &action, &store);
    let ended = pipelines.ended("web", &execution);
    assert_eq!(ended["status"], "Succeeded", "{ended:#}\n{}", worker.log());
    let variables = &ended["output"]["outputVariables"];
    assert_eq!(variables, &json!({ "ANSWER": format!("codepipeline/web {execution} no job no out") }));
    let folder = pipelines.output(&ended, 0);
    assert_eq!(fs::read_to_string(folder.join("a.txt")).unwrap(), "content");
    let environment = fs::read_to_string(folder.join("env")).unwrap();
    // Two outputs: each must be an artifact of its name.
    let execution = pipelines.pipeline("two", &both, &json!({}));
    let told = pipelines.failed("two", &execution, "ConfigurationError");
    assert!(told.contains("awaits the artifact Third"), "{told}");
    // Objects are read and written with the job's credentials alone, and encrypted with the pipeline's key.
    let exchanges = pipelines.cloud.exchanges();
    let own: Vec<&Value> =
        exchanges.iter().filter(|one| one["service"] == "s3" && one["of_job"] == true).collect();
    let puts: Vec<_> = own.iter().filter(|one| one["operation"] == "PutObject").collect();
    assert_eq!(puts[0]["parameters"]["SSEKMSKeyId"], key.as_str());
    assert!(puts.iter().all(|put| put["parameters"]["ServerSideEncryption"] == "aws:kms"), "{puts:?}");
    let log = worker.stop();
    pipelines.assert_secret(&log);
    pipelines.assert_secret(&environment);
    assert!(
        exchanges
            .iter()
            .all(|one| one["service"] != "s3" || one["of_job"] == true || one["operation"] == "GetObject")
    );
    pipelines.yard.assert_nothing_left();
    pipelines.cloud.finish();
}

#[test]
fn a_build_that_fails_says_why() {
    let pipelines = Pipelines::new();
    pipelines.action_type("Build");
    let worker = pipelines.worker(&[]);
    pipelines.source_of(&[("buildspec.yml", &spec(&["echo the compiler says no", "(exit 7)"]))]);
    let execution = pipelines.pipeline("web", &json!({}), &json!({}));
    let told = pipelines.failed("web", &execution, "JobFailed");
    assert!(told.contains("exit status 7") && told.contains("the compiler says no"), "{told}");
    // What is wrong with the buildspec, by its place in the artifact.
    pipelines.source_of(&[("ci/buildspec.yml", "version: 0.2\nphases: { biuld: { commands: [make] } }\n")]);
    let named = json!({ "configuration": { "Buildspec": "ci/buildspec.yml" } });
    let execution = pipelines.pipeline("wrong", &named, &json!({}));
    let told = pipelines.failed("wrong", &execution, "ConfigurationError");
    assert!(told.contains(" ci/buildspec.yml:2") && told.contains("did you mean `build`?"), "{told}");
    worker.stop();
    pipelines.yard.assert_nothing_left();
}

/// A bake's own answer is better than that a command failed: also through a buildspec.
#[test]
fn a_recipe_that_is_wrong_is_told_with_its_line() {
    let pipelines = Pipelines::new();
    pipelines.action_type("Build");
    let worker = pipelines.worker(&[]);
    let wrong = "version: 1\nname: web\narchitecture: x86_64\nbsae: { family: os-base }\n";
    for (name, files) in [
        ("alone", vec![("web/bake.yml", wrong)]),
        ("by-buildspec", vec![("web/bake.yml", wrong), ("buildspec.yml", &spec(&["bakehouse bake web"]))]),
    ] {
        pipelines.source_of(&files);
        let execution = pipelines.pipeline(name, &json!({}), &json!({}));
        let told = pipelines.failed(name, &execution, "ConfigurationError");
        assert!(told.contains("web/bake.yml:4") && told.contains("did you mean `base`?"), "{name}: {told}");
        assert!(!told.contains(&pipelines.yard.path().display().to_string()), "{name}: {told}");
    }
    worker.stop();
    pipelines.yard.assert_nothing_left();
}

/// Each job waits for the others: they are done at the same time, each in a folder of its own.
#[test]
fn jobs_are_done_at_once_and_each_of_them_once() {
    let pipelines = Pipelines::new();
    pipelines.action_type("Build");
    let together =
        r#"pwd >>"$YARD/folders"; until [ "$(wc -l <"$YARD/folders")" -ge 3 ]; do sleep 0.1; done"#;
    pipelines
        .source_of(&[("buildspec.yml", &spec(&[together, r#"echo "$CODEBUILD_BUILD_ID" >>"$YARD/done""#]))]);
    let mut executions = vec![pipelines.pipeline("web", &json!({}), &json!({}))];
    executions.extend((0..2).map(|_| pipelines.start("web")));
    // Neither could do it alone.
    let workers = [pipelines.worker(&["--jobs", "2"]), pipelines.worker(&["--jobs", "2"])];
    for execution in &executions {
        assert_eq!(pipelines.ended("web", execution)["status"], "Succeeded");
    }
    for worker in workers {
        worker.stop();
    }
    for file in ["folders", "done"] {
        let mut all = lines(&pipelines.yard.path().join(file));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 3, "{file}: {all:?}");
    }
    assert_eq!(pipelines.answers("PutJobSuccessResult"), [None, None, None]);
    pipelines.yard.assert_nothing_left();
    pipelines.cloud.finish();
}

#[test]
fn a_stop_cleans_up_and_fails_the_jobs_at_hand() {
    let pipelines = Pipelines::new();
    pipelines.action_type("Build");
    let long = r#"sh -c 'trap "echo cleaned >$YARD/cleaned; exit 143" TERM; echo >"$YARD/began"; sleep 1000 & wait'"#;
    pipelines.source_of(&[("buildspec.yml", &spec(&[long, "echo never >$YARD/never"]))]);
    let execution = pipelines.pipeline("web", &json!({}), &json!({}));
    let worker = pipelines.worker(&[]);
    let began = pipelines.yard.path().join("began");
    until("the build begins", || began.exists().then_some(()));
    worker.stop();
    let told = pipelines.failed("web", &execution, "SystemUnavailable");
    assert!(told.contains("SIGTERM"), "{told}");
    assert_eq!(lines(&pipelines.yard.path().join("cleaned")), ["cleaned"]);
    assert!(!pipelines.yard.path().join("never").exists());
    pipelines.yard.assert_nothing_left();
    pipelines.cloud.finish();
}

#[test]
fn the_job_of_a_worker_that_was_killed_is_failed_by_the_next_one() {
    let pipelines = Pipelines::new();
    pipelines.action_type("Build");
    let long = r#"echo "$$" >"$YARD/began"; sleep 1000"#;
    pipelines.source_of(&[("buildspec.yml", &spec(&[long]))]);
    let execution = pipelines.pipeline("web", &json!({}), &json!({}));
    let mut worker = pipelines.worker(&[]);
    let began = pipelines.yard.path().join("began");
    let shell = until("the build begins", || lines(&began).pop());
    worker.signal(Signal::KILL);
    worker.child.wait().unwrap();
    let next = pipelines.worker(&[]);
    let told = pipelines.failed("web", &execution, "SystemUnavailable");
    assert!(told.contains("the worker was killed"), "{told}");
    // What it had begun is ended too.
    until("the build is gone", || (!Path::new("/proc").join(&shell).exists()).then_some(()));
    next.stop();
    pipelines.yard.assert_nothing_left();
    pipelines.cloud.finish();
}

#[test]
fn a_stage_that_waits_goes_on_in_another_job_with_any_worker() {
    let pipelines = Pipelines::new();
    pipelines.action_type("Build");
    // What `bakehouse test --no-wait` answers; a test that boots is in stage.rs.
    let waits = r#"echo "${BAKEHOUSE_TOKEN-none}" >>"$YARD/tokens"
case "${BAKEHOUSE_TOKEN-none}" in
none) echo '{"answer":"waits","stage":"test","token":"first","percent":40}' >"$BAKEHOUSE_ANSWER" ;;
first) echo '{"answer":"waits","stage":"test","token":"second","percent":70}' >"$BAKEHOUSE_ANSWER" ;;
esac"#;
    pipelines.source_of(&[("buildspec.yml", &spec(&[waits, "mkdir out; echo >out/a"]))]);
    // What goes on later is offered when the first worker has gone.
    pipelines.cloud.settings(json!({ "continuation_seconds": 600.0 }));
    let execution = pipelines.pipeline("web", &json!({}), &json!({}));
    let first = pipelines.worker(&[]);
    let handed = || -> Vec<Option<String>> {
        let jobs = pipelines.cloud.jobs();
        jobs.iter().map(|job| job["continuation"].as_str().map(str::to_owned)).collect()
    };
    until("the token is given", || (handed().len() == 2).then_some(()));
    let log = first.stop();
    assert!(log.contains("goes on later"), "{log}");
    assert_eq!(pipelines.action("web", &execution)["status"], "InProgress");
    pipelines.cloud.settings(json!({ "continuation_seconds": 0.0 }));
    pipelines.cloud.tick(601);
    let second = pipelines.worker(&[]);
    assert_eq!(pipelines.ended("web", &execution)["status"], "Succeeded");
    second.stop();
    let tokens = lines(&pipelines.yard.path().join("tokens"));
    assert_eq!(tokens, ["none", "first", "second"]);
    assert_eq!(handed(), [None, Some("first".to_owned()), Some("second".to_owned())]);
    pipelines.yard.assert_nothing_left();
    pipelines.cloud.finish();
}

/// Answers that are lost, at the level of HTTP: the call took effect, or it did not.
#[test]
fn a_lost_answer_loses_no_job_and_does_none_twice() {
    for when in ["before", "after"] {
        for operation in ["PollForJobs", "AcknowledgeJob", "PutJobSuccessResult", "GetObject", "PutObject"] {
            let pipelines = Pipelines::new();
            pipelines.action_type("Build");
            // A poll that was answered nobody is answered again when the job is offered again.
            pipelines.cloud.settings(json!({ "dispatch_seconds": 1.0 }));
            let text = "version: 0.2\nphases: { build: { commands: ['echo done >>\"$YARD/done\"'] } }\nartifacts: { files: [a] }\n";
            pipelines.source_of(&[("buildspec.yml", text), ("a", "b")]);
            let execution =
                pipelines.pipeline("web", &json!({ "outputArtifacts": [{ "name": "Image" }] }), &json!({}));
            pipelines
                .cloud
                .faults(json!([{ "kind": "drop", "operation": operation, "nth": 1, "when": when }]));
            let worker = pipelines.worker(&[]);
            let ended = pipelines.ended("web", &execution);
            let at = format!("{operation}, {when}");
            assert_eq!(ended["status"], "Succeeded", "{at}: {ended:#}\n{}", worker.log());
            assert_eq!(pipelines.cloud.told_faults()[0]["struck"], 1, "{at}");
            let log = worker.stop();
            assert_eq!(lines(&pipelines.yard.path().join("done")), ["done"], "{at}: {log}");
            assert!(pipelines.answers("PutJobFailureResult").is_empty(), "{at}");
            if operation == "PutJobSuccessResult" && when == "after" {
                let taken = Some("InvalidJobStateException".to_owned());
                assert_eq!(pipelines.answers(operation), [None, taken], "{at}");
                assert!(log.contains("succeeded"), "{log}");
            }
            pipelines.yard.assert_nothing_left();
            pipelines.cloud.finish();
        }
    }
}

#[test]
fn a_worker_outlasts_an_outage_and_ends_where_it_is_wrong() {
    let pipelines = Pipelines::new();
    let missing = pipelines.program().args(["worker", "--every", "1s"]).output().unwrap();
    let told = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert_eq!(missing.status.code(), Some(2), "{told}");
    assert!(
        told.contains("Build/Custom/Bakehouse/1") && told.contains("create-custom-action-type"),
        "{told}"
    );
    let local = pipelines.yard.command().args(["worker"]).output().unwrap();
    let told = String::from_utf8_lossy(&local.stderr).into_owned();
    assert_eq!(local.status.code(), Some(2), "{told}");
    assert!(told.contains("the local cloud has no pipelines"), "{told}");

    pipelines.action_type("Build");
    let outage = json!([
        { "kind": "error", "operation": "PollForJobs", "nth": 1, "times": 2 },
        { "kind": "throttle", "operation": "PollForJobs", "nth": 3 },
    ]);
    pipelines.cloud.faults(outage);
    pipelines.source_of(&[("buildspec.yml", &spec(&["true"]))]);
    let execution = pipelines.pipeline("web", &json!({}), &json!({}));
    let worker = pipelines.worker(&[]);
    assert_eq!(pipelines.ended("web", &execution)["status"], "Succeeded");
    let log = worker.stop();
    assert_eq!(log.matches("is asked again").count(), 1, "{log}");
    assert!(log.contains("answers again"), "{log}");
    // Nobody else may poll.
    pipelines.cloud.faults(json!([{ "kind": "error", "operation": "PollForJobs", "code": "AccessDeniedException", "status": 400 }]));
    let denied = pipelines.program().args(["worker"]).output().unwrap();
    let told = String::from_utf8_lossy(&denied.stderr).into_owned();
    assert_eq!(denied.status.code(), Some(5), "{told}");
    assert!(told.contains("codepipeline:PollForJobs"), "{told}");
    pipelines.cloud.finish();
}

/// A recipe and nothing else in the artifact: baked on AWS, with its record as the artifact and the image as a variable.
#[test]
fn a_recipe_alone_is_baked_and_its_image_is_the_actions_variable() {
    let Some(yard) = Yard::small() else { return };
    let pipelines = Pipelines::of(yard);
    pipelines.action_type("Build");
    let disk = Path::new(env!("CARGO_TARGET_TMPDIR")).join("small/scratch/disk.raw");
    let vendors =
        json!({ "name": "vendor", "disk": disk, "holes": true, "public": true, "snapshot_public": true });
    let (base, _) = pipelines.cloud.seed_image(&pipelines.cloud.other_account(1), vendors);
    let steps = "provision:\n  - shell: { run: 'echo made >/etc/made' }\n";
    pipelines.source_of(&[("web/bake.yml", &recipe("web", &format!("{{ image: {base} }}"), steps))]);
    let worker = pipelines.worker(&[]);
    let execution =
        pipelines.pipeline("web", &json!({ "outputArtifacts": [{ "name": "Image" }] }), &json!({}));
    let ended = pipelines.ended("web", &execution);
    assert_eq!(ended["status"], "Succeeded", "{ended:#}\n{}", worker.log());
    let folder = pipelines.output(&ended, 0);
    let record: Value = serde_json::from_slice(&fs::read(folder.join("image.json")).unwrap()).unwrap();
    let variables = &ended["output"]["outputVariables"];
    let image = text(&variables["AMI_ID"]);
    assert_eq!(record["images"][0]["image"], image.as_str());
    assert_eq!(record["source"]["pipeline-execution"], execution.as_str());
    let result = &ended["output"]["executionResult"];
    assert_eq!(result["externalExecutionId"], record["bake"]);
    assert!(text(&result["externalExecutionSummary"]).contains(&image), "{result}");
    assert_eq!(pipelines.cloud.state()["images"][&image]["state"], "available");
    pipelines.assert_secret(&worker.stop());
    pipelines.yard.assert_nothing_left();
    pipelines.cloud.finish();
}

/// What README.md tells to make is what a pipeline takes, with the files beside it.
#[test]
fn the_examples_action_type_is_made_and_its_buildspec_read() {
    if !gate::has(&["curl"]) {
        return;
    }
    let pipelines = Pipelines::new();
    let said = pipelines.call("CreateCustomActionType", &example_type());
    assert_eq!(said["actionType"]["id"]["owner"], "Custom", "{said}");
    let readme = fs::read_to_string(crate::yard::repository().join("examples/worker/README.md")).unwrap();
    for property in example_type()["configurationProperties"].as_array().unwrap() {
        assert!(readme.contains(&format!("`{}`", text(&property["name"]))), "{property}");
    }
    pipelines.source(&crate::yard::repository().join("examples/worker"));
    let stopped = json!([{ "kind": "error", "operation": "GetParameter", "code": "AccessDeniedException", "status": 400 }]);
    pipelines.cloud.faults(stopped);
    let worker = pipelines.worker(&[]);
    let execution =
        pipelines.pipeline("web", &json!({ "outputArtifacts": [{ "name": "Image" }] }), &json!({}));
    // As far as it gets without Debian's image: the bake asks for its parameter, and tells whom to ask.
    let kind = if rustix::process::geteuid().is_root() { "ssm:GetParameter" } else { "root" };
    let told = pipelines.failed("web", &execution, "PermissionError");
    assert!(told.contains(kind), "{told}");
    worker.stop();
    pipelines.yard.assert_nothing_left();
}

/// What `bakehouse policy --for worker` allows is what a worker calls, and nothing besides.
#[test]
fn a_policy_allows_what_a_worker_calls_and_nothing_besides() {
    let pipelines = Pipelines::new();
    pipelines.action_type("Build");
    let spec = "version: 0.2\nphases: { build: { commands: ['test ! -e a'] } }\n";
    let printed = pipelines
        .program()
        .args(["policy", "--for", "worker", "--region", REGION, "--account", pipelines.cloud.account()])
        .output()
        .unwrap();
    let policy: Value = serde_json::from_str(&Said::from(printed).ok().out).unwrap();
    pipelines.cloud.take_asked();
    // What the test itself calls, somebody else is asked about.
    let mut asked = Vec::new();
    let worker = pipelines.worker(&[]);
    pipelines.source_of(&[("buildspec.yml", spec)]);
    let execution = pipelines.pipeline("good", &json!({}), &json!({}));
    assert_eq!(pipelines.ended("good", &execution)["status"], "Succeeded");
    pipelines.source_of(&[("buildspec.yml", spec), ("a", "b")]);
    let execution = pipelines.pipeline("bad", &json!({}), &json!({}));
    pipelines.failed("bad", &execution, "JobFailed");
    // Credentials that are over before they are used.
    pipelines.cloud.settings(json!({ "session_seconds": -1 }));
    let execution = pipelines.start("good");
    pipelines.failed("good", &execution, "PermissionError");
    worker.stop();
    const OURS: [&str; 5] =
        ["PollForJobs", "AcknowledgeJob", "GetJobDetails", "PutJobSuccessResult", "PutJobFailureResult"];
    for one in pipelines.cloud.take_asked() {
        let action = text(&one["action"]);
        if action.strip_prefix("codepipeline:").is_none_or(|name| OURS.contains(&name)) {
            asked.push(one);
        }
    }
    let denied = iam::denied(&policy, &asked);
    assert!(denied.is_empty(), "denied: {:#}\n{policy:#}", json!(denied));
    assert_eq!(iam::needless(&policy, &asked), Vec::<String>::new());
}
