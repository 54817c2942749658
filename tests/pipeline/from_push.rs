//! From a real `git push` to an answer: a repository, the event of its push, an execution of a pipeline, a build of CodeBuild
//! that bakes in the container image, and what the pipeline learns of it. All of it in the stand-in, by the declarations of
//! examples/codebuild-stage.

#![expect(clippy::disallowed_methods, reason = "programs are started here as a user starts them")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::codebuild::example;
use crate::aws::{REGION, StandIn};
use crate::yard::{Yard, loops, repository, small};
use crate::{container, gate};

const PIPELINE: &str = "images";
/// How often is looked whether something has come.
const LOOK: Duration = Duration::from_millis(100);
const WRITES: &str = "provision:\n  - shell: { run: 'echo made >/made' }\n\
                      checks:\n  - file: { path: /made, contains: made }\n";

/// The JSON of an example's page that has this name behind ```` ```json ````.
fn declared(example: &str, name: &str, cloud: &StandIn) -> Value {
    let page = fs::read_to_string(repository().join("examples").join(example).join("README.md")).unwrap();
    let text = page.split(&format!("```json {name}\n")).nth(1).unwrap().split("```").next().unwrap();
    serde_json::from_str(&text.replace("123456789012", cloud.account())).unwrap()
}

/// A repository, and a pipeline that its pushes start.
struct Line {
    cloud: StandIn,
    yard: Yard,
    /// The base's image.
    base: String,
}

impl Line {
    /// With the small base; `None` where this machine cannot bake.
    fn new() -> Option<Self> {
        let yard = Yard::small_on_disk()?;
        let disk = yard.path().join("scratch/disk.raw");
        Self::on(yard, &disk)
    }

    fn on(yard: Yard, disk: &Path) -> Option<Self> {
        if !gate::has(&["git", "unshare", "setpriv"]) {
            return None;
        }
        let files = container::files()?;
        let cloud = StandIn::start();
        let base = json!({ "name": "base", "disk": disk, "holes": true });
        let (base, _) = cloud.seed_image(cloud.account(), base);
        cloud.seed(json!({ "bucket": format!("pipeline-{}", cloud.account()), "pipeline_role": "pipeline" }));
        let mut project = declared("codebuild-stage", "project", &cloud);
        let image = project["environment"]["image"].clone();
        cloud.seed(json!({ "build_image": { "name": image, "folder": files } }));
        project["environment"]["environmentVariables"] =
            json!([{ "name": "BAKEHOUSE_AWS_SETTLES", "value": "1s", "type": "PLAINTEXT" }]);
        cloud.call("CodeBuild_20161006.CreateProject", &project);
        let line = Self { cloud, yard, base };
        let repository = json!({ "repositoryName": PIPELINE });
        let made = line.cloud.call("CodeCommit_20150413.CreateRepository", &repository);
        line.git(&["init", "--quiet", "--initial-branch=main"]);
        line.git(&["remote", "add", "origin", made["repositoryMetadata"]["cloneUrlHttp"].as_str().unwrap()]);
        Some(line)
    }

    /// The pipeline of these stages behind the source's, and the rule that starts it.
    fn pipeline(&self, stages: &[Value]) {
        let source = json!({ "name": "Source", "actions": [{
            "name": "Source",
            "actionTypeId": { "category": "Source", "owner": "AWS", "provider": "CodeCommit", "version": "1" },
            "namespace": "SourceVariables",
            "configuration": { "RepositoryName": PIPELINE, "BranchName": "main", "PollForSourceChanges": "false" },
            "outputArtifacts": [{ "name": "Source" }],
        }] });
        let stages: Vec<Value> = std::iter::once(source).chain(stages.iter().cloned()).collect();
        let role = format!("arn:aws:iam::{}:role/pipeline", self.cloud.account());
        let pipeline = json!({ "pipeline": {
            "name": PIPELINE, "roleArn": role, "version": 1, "pipelineType": "V2", "executionMode": "QUEUED",
            "artifactStore": { "type": "S3", "location": format!("pipeline-{}", self.cloud.account()) }, "stages": stages,
        } });
        self.cloud.call("CodePipeline_20150709.CreatePipeline", &pipeline);
        let pattern = json!({
            "source": ["aws.codecommit"], "detail-type": ["CodeCommit Repository State Change"],
            "detail": { "referenceType": ["branch"], "referenceName": ["main"] },
        });
        let rule = json!({ "Name": "pushed", "EventPattern": pattern.to_string() });
        self.cloud.call("AWSEvents.PutRule", &rule);
        let pipeline = format!("arn:aws:codepipeline:{REGION}:{}:{PIPELINE}", self.cloud.account());
        let transformer = json!({
            "InputPathsMap": { "commit": "$.detail.commitId" },
            "InputTemplate": "{\"sourceRevisions\":[{\"actionName\":\"Source\",\"revisionType\":\"COMMIT_ID\",\"revisionValue\":\"<commit>\"}]}",
        });
        let target = json!({ "Id": "1", "Arn": pipeline, "RoleArn": role, "InputTransformer": transformer });
        self.cloud.call("AWSEvents.PutTargets", &json!({ "Rule": "pushed", "Targets": [target] }));
    }

    /// The pipeline of the example alone.
    fn of_the_example() -> Option<Self> {
        let line = Self::new()?;
        line.pipeline(&[declared("codebuild-stage", "stage", &line.cloud)]);
        Some(line)
    }

    fn clone_folder(&self) -> PathBuf {
        let folder = self.yard.path().join("repository");
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn git(&self, args: &[&str]) -> String {
        let mut git = Command::new("git");
        git.arg("-C").arg(self.clone_folder()).args([
            "-c",
            "user.name=Ada",
            "-c",
            "user.email=ada@example.com",
        ]);
        let said = git.args(args).env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
        assert!(said.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    }

    /// A recipe of the base's.
    fn recipe(&self, rest: &str) -> String {
        small::recipe("web", &format!("{{ image: {} }}", self.base), rest)
    }

    /// Commits the example's repository with this recipe, and pushes it; the commit.
    fn push(&self, recipe: &str) -> String {
        if self.clone_folder().join("buildspec.yml").exists() {
            self.yard.recipe("repository", recipe);
        } else {
            example(&self.yard, "codebuild-stage/.", "repository", recipe);
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "A change"]);
        self.git(&["push", "--quiet", "origin", "main"]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// The executions that pushes have started, the oldest first.
    fn executions(&self) -> Vec<Value> {
        let said = json!({ "pipelineName": PIPELINE });
        let said = self.cloud.call("CodePipeline_20150709.ListPipelineExecutions", &said);
        let all = said["pipelineExecutionSummaries"].as_array().unwrap().iter().rev();
        all.filter(|one| one["trigger"]["triggerType"] == "CloudWatchEvent").cloned().collect()
    }

    /// As many executions, when all of them have ended.
    fn ended(&self, count: usize) -> Vec<Value> {
        loop {
            let all = self.executions();
            if all.len() == count && all.iter().all(|one| one["status"] != "InProgress") {
                return all;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The execution of the only push.
    fn only(&self) -> Value {
        self.ended(1).remove(0)
    }

    fn actions(&self, execution: &Value) -> Vec<Value> {
        let wanted = json!({ "pipelineName": PIPELINE, "filter": { "pipelineExecutionId": execution["pipelineExecutionId"] } });
        let said = self.cloud.call("CodePipeline_20150709.ListActionExecutions", &wanted);
        said["actionExecutionDetails"].as_array().unwrap().clone()
    }

    /// An action of an execution.
    fn action(&self, execution: &Value, name: &str) -> Value {
        let mut all = self.actions(execution);
        let at = all.iter().position(|one| one["actionName"] == name);
        all.swap_remove(at.unwrap_or_else(|| panic!("no {name} in {all:?}")))
    }

    /// The build behind an action.
    fn build(&self, action: &Value) -> Value {
        self.cloud.build(action["output"]["executionResult"]["externalExecutionId"].as_str().unwrap())
    }

    /// That beside the base there are the images of these ids, with a snapshot each, and nothing else.
    #[track_caller]
    fn assert_holds(&self, images: &[&str]) {
        let state = self.cloud.state();
        let there: BTreeSet<&str> = state["images"].as_object().unwrap().keys().map(String::as_str).collect();
        let wanted = images.iter().copied().chain([self.base.as_str()]).collect();
        assert_eq!(there, wanted);
        assert_eq!(state["snapshots"].as_object().unwrap().len(), wanted.len(), "{}", state["snapshots"]);
        for image in images {
            assert!(state["images"][image]["tags"].get("bakehouse:expires").is_none(), "{image}");
        }
        assert!(state["volumes"].as_object().unwrap().is_empty(), "{}", state["volumes"]);
        let loops = loops();
        for build in self.executions().iter().flat_map(|execution| self.builds(execution)) {
            let folder = Path::new(build["folder"].as_str().unwrap());
            assert!(!loops.iter().any(|file| Path::new(file).starts_with(folder)), "{loops:?}");
        }
    }

    /// All builds of an execution.
    fn builds(&self, execution: &Value) -> Vec<Value> {
        let of_a_build =
            |action: &&Value| action["output"]["executionResult"]["externalExecutionId"].is_string();
        self.actions(execution).iter().filter(of_a_build).map(|action| self.build(action)).collect()
    }
}

/// What the last command wrote, and not CodeBuild.
fn last_line(build: &Value) -> String {
    let log = build["log"].as_str().unwrap();
    log.lines().rfind(|line| !line.starts_with("[Container]")).unwrap().to_owned()
}

/// The only case of a build's reports that failed.
#[track_caller]
fn failed_case(build: &Value) -> &Value {
    let all = build["cases"].as_array().unwrap().iter();
    let failed: Vec<_> = all.filter(|case| case["status"] == "FAILED").collect();
    assert_eq!(failed.len(), 1, "{}", build["cases"]);
    failed[0]
}

#[test]
fn a_push_becomes_an_image_which_the_next_stage_takes() {
    let Some(line) = Line::new() else { return };
    // It has the variable from the stage's namespace, and the record from its artifact.
    let looks = "version: 0.2\nphases:\n  build:\n    commands:\n      \
                 - 'grep -q \"\\\"image\\\": \\\"$AMI_ID\\\"\" image.json'\n      \
                 - 'grep -q \"\\\"pipeline-execution\\\": \\\"$EXECUTION\\\"\" image.json'\n      \
                 - . ./bakehouse.env\n";
    let mut project = declared("codebuild-stage", "project", &line.cloud);
    project["name"] = json!("look");
    project["source"]["buildspec"] = json!(looks);
    project["environment"]["privilegedMode"] = json!(false);
    line.cloud.call("CodeBuild_20161006.CreateProject", &project);
    let variables = json!([
        { "name": "AMI_ID", "value": "#{Bake.AMI_ID}" },
        { "name": "EXECUTION", "value": "#{codepipeline.PipelineExecutionId}" },
    ]);
    let look = json!({ "name": "Look", "actions": [{
        "name": "Look",
        "actionTypeId": { "category": "Test", "owner": "AWS", "provider": "CodeBuild", "version": "1" },
        "configuration": { "ProjectName": "look", "EnvironmentVariables": variables.to_string() },
        "inputArtifacts": [{ "name": "Image" }],
    }] });
    line.pipeline(&[declared("codebuild-stage", "stage", &line.cloud), look]);

    let commit = line.push(&line.recipe(&format!("{WRITES}image: {{ name: 'web-{{commit}}' }}\n")));
    let execution = line.only();
    let action = line.action(&execution, "Bake");
    let build = line.build(&action);
    assert_eq!(action["status"], "Succeeded", "{}", build["log"]);
    let look = line.action(&execution, "Look");
    assert_eq!(look["status"], "Succeeded", "{}", line.build(&look)["log"]);
    assert_eq!(execution["status"], "Succeeded");
    let image = action["output"]["outputVariables"]["AMI_ID"].as_str().unwrap();
    let state = line.cloud.state();
    let found = &state["images"][image];
    assert_eq!(found["name"], format!("web-{}", &commit[..12]), "{found}");
    for (name, value) in [
        ("commit", json!(commit)),
        ("pipeline", json!(PIPELINE)),
        ("pipeline-execution", execution["pipelineExecutionId"].clone()),
        ("build", build["id"].clone()),
    ] {
        assert_eq!(found["tags"][format!("bakehouse:{name}")], value);
    }
    let cases: Vec<_> =
        build["cases"].as_array().unwrap().iter().map(|case| (&case["name"], &case["status"])).collect();
    let (bake, made, good) = (json!("bake"), json!("file /made contains made"), json!("SUCCEEDED"));
    assert_eq!(cases, [(&bake, &good), (&made, &good)]);
    // The direct method: no instance.
    assert!(!line.cloud.operations().iter().any(|name| name == "ec2:RunInstances"));
    line.assert_holds(&[image]);
    line.cloud.finish();
}

#[test]
fn a_wrong_recipe_is_told_in_the_log_the_report_and_the_pipeline() {
    let Some(line) = Line::of_the_example() else { return };
    line.push(&line.recipe("provision:\n  - shel: { run: 'true' }\n"));
    let execution = line.only();
    assert_eq!(execution["status"], "Failed");
    let action = line.action(&execution, "Bake");
    let error = &action["output"]["executionResult"]["errorDetails"];
    let told = error["message"].as_str().unwrap();
    assert!(told.contains("Error while executing command: bakehouse bake. Reason: exit status 2"), "{told}");
    let build = line.build(&action);
    let last = last_line(&build);
    let reason = last.strip_prefix("failed with exit code 2: ").unwrap_or_else(|| panic!("{}", build["log"]));
    assert!(reason.contains("bake.yml:6:5: ") && reason.contains("did you mean `shell`?"), "{reason}");
    let case = failed_case(&build);
    assert_eq!((&case["name"], &case["message"]), (&json!("bake"), &json!(reason)));
    assert_eq!(build["exportedEnvironmentVariables"], json!([]));
    // Nothing was asked of EC2.
    assert!(!line.cloud.operations().iter().any(|name| name.starts_with("ec2:")));
    line.assert_holds(&[]);
    line.cloud.finish();
}

/// On Debian, since the small base has no packages.
#[test]
fn a_package_that_does_not_exist_is_told_by_its_name() {
    let Some(shared) = Yard::shared() else { return };
    let yard = Yard::new();
    let disk = yard.path().join("debian.raw");
    let image = shared.record("os-base")["images"][0]["image"].as_str().unwrap().to_owned();
    shared.run(&["export", &image, disk.to_str().unwrap()]).ok();
    let Some(line) = Line::on(yard, &disk) else { return };
    line.pipeline(&[declared("codebuild-stage", "stage", &line.cloud)]);
    line.push(&line.recipe("provision:\n  - packages: { install: [nginx-of-nobody] }\n"));
    let execution = line.only();
    assert_eq!(execution["status"], "Failed");
    let build = line.build(&line.action(&execution, "Bake"));
    let last = last_line(&build);
    assert!(last.starts_with("failed with exit code 3: step 1 (packages: "), "{last}");
    assert!(last.contains("nginx-of-nobody"), "{last}");
    assert!(failed_case(&build)["message"].as_str().unwrap().contains("nginx-of-nobody"));
    line.assert_holds(&[]);
    line.cloud.finish();
}

#[test]
fn a_build_that_is_stopped_half_way_leaves_nothing_after_a_sweep() {
    let Some(line) = Line::of_the_example() else { return };
    // No block is taken: the bake tries again until it is stopped.
    line.cloud.faults(json!([{ "kind": "throttle", "service": "ebs", "operation": "PutSnapshotBlock" }]));
    line.push(&line.recipe(WRITES));
    while !line.cloud.operations().iter().any(|name| name == "ebs:PutSnapshotBlock") {
        std::thread::sleep(LOOK);
    }
    let running = line.executions().remove(0);
    let id = line.action(&running, "Bake")["output"]["executionResult"]["externalExecutionId"].clone();
    line.cloud.call("CodeBuild_20161006.StopBuild", &json!({ "id": id }));
    let execution = line.only();
    assert_eq!(execution["status"], "Failed");
    let action = line.action(&execution, "Bake");
    assert_eq!(
        action["output"]["executionResult"]["errorDetails"]["message"],
        "Build terminated with state: STOPPED"
    );
    line.cloud.faults(json!([]));

    // What it began carries a time at which it is over. A sweep takes it then, on another host, and nothing before.
    let state = line.cloud.state();
    let begun: Vec<_> =
        state["snapshots"].as_object().unwrap().iter().filter(|(_, one)| one["open"] == true).collect();
    let [(snapshot, of)] = begun.as_slice() else { panic!("{}", state["snapshots"]) };
    assert!(of["tags"]["bakehouse:expires"].is_string(), "{of}");
    let sweep = || line.cloud.program(&line.yard).arg("sweep").status().unwrap();
    assert!(sweep().success());
    assert!(line.cloud.state()["snapshots"].get(snapshot.as_str()).is_some());
    let over = "Tag.1.Key=bakehouse%3Aexpires&Tag.1.Value=2020-01-01T00%3A00%3A00Z";
    line.cloud.query("ec2", &format!("Action=CreateTags&Version=2016-11-15&ResourceId.1={snapshot}&{over}"));
    assert!(sweep().success());
    line.assert_holds(&[]);
    line.cloud.finish();
}

#[test]
fn ten_pushes_in_a_row_have_an_answer_each() {
    let Some(line) = Line::of_the_example() else { return };
    let is_good = |number: usize| !number.is_multiple_of(3);
    let commits: Vec<String> = (0..10)
        .map(|number| {
            let step = if is_good(number) { "shell" } else { "shel" };
            line.push(&line.recipe(&format!(
                "provision:\n  - {step}: {{ run: 'echo {number} >/number' }}\n\
                 checks:\n  - file: {{ path: /number, contains: '{number}' }}\n\
                 image: {{ name: 'number-{number}-{{commit}}' }}\n"
            )))
        })
        .collect();
    let executions = line.ended(10);
    let state = line.cloud.state();
    let mut images = Vec::new();
    for (number, (execution, commit)) in executions.iter().zip(&commits).enumerate() {
        let source = line.action(execution, "Source");
        assert_eq!(source["output"]["outputVariables"]["CommitId"], json!(commit));
        let action = line.action(execution, "Bake");
        let build = line.build(&action);
        assert_eq!(build["resolvedSourceVersion"], json!(commit));
        if !is_good(number) {
            assert_eq!(execution["status"], "Failed");
            assert!(last_line(&build).contains("bake.yml:6:5: "), "{}", build["log"]);
            failed_case(&build);
            continue;
        }
        assert_eq!(execution["status"], "Succeeded", "{}", build["log"]);
        let image = action["output"]["outputVariables"]["AMI_ID"].as_str().unwrap().to_owned();
        let found = &state["images"][&image];
        assert_eq!(found["name"], format!("number-{number}-{}", &commit[..12]));
        assert_eq!(found["tags"]["bakehouse:pipeline-execution"], execution["pipelineExecutionId"]);
        images.push(image);
    }
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    line.assert_holds(&images);
    line.cloud.finish();
}

/// A bake mounts: without the privileged mode it says so.
#[test]
fn a_project_without_the_privileged_mode_is_told_what_it_lacks() {
    let Some(line) = Line::new() else { return };
    let mut project = declared("codebuild-stage", "project", &line.cloud);
    project["name"] = json!("unprivileged");
    project["environment"]["privilegedMode"] = json!(false);
    line.cloud.call("CodeBuild_20161006.CreateProject", &project);
    let mut stage = declared("codebuild-stage", "stage", &line.cloud);
    stage["actions"][0]["configuration"]["ProjectName"] = json!("unprivileged");
    line.pipeline(&[stage]);
    line.push(&line.recipe(WRITES));
    let execution = line.only();
    let build = line.build(&line.action(&execution, "Bake"));
    assert_eq!(execution["status"], "Failed", "{}", build["log"]);
    let last = last_line(&build);
    assert!(last.starts_with("failed with exit code 5: ") && last.contains("privileged"), "{last}");
    assert!(failed_case(&build)["message"].as_str().unwrap().contains("privileged"));
    line.cloud.finish();
}

/// The example for a pipeline that is there already: the application's artifact is a second source.
#[test]
fn a_stage_of_an_existing_pipeline_puts_what_was_built_before_into_the_image() {
    let Some(line) = Line::new() else { return };
    let mut project = declared("codebuild-stage", "project", &line.cloud);
    let builds = "version: 0.2\nphases:\n  build:\n    commands:\n      - mkdir -p app/bin && echo hello >app/bin/app\n\
                  artifacts: { base-directory: app, files: ['**/*'] }\n";
    for (name, spec) in [("build-app", builds), ("bake-app", "image/buildspec.yml")] {
        project["name"] = json!(name);
        project["source"]["buildspec"] = json!(spec);
        line.cloud.call("CodeBuild_20161006.CreateProject", &project);
    }
    let build = json!({ "name": "Build", "actions": [{
        "name": "Build",
        "actionTypeId": { "category": "Build", "owner": "AWS", "provider": "CodeBuild", "version": "1" },
        "configuration": { "ProjectName": "build-app" },
        "inputArtifacts": [{ "name": "Source" }],
        "outputArtifacts": [{ "name": "App" }],
    }] });
    line.pipeline(&[build, declared("existing-pipeline", "stage", &line.cloud)]);
    let recipe = line.recipe(
        "provision:\n  - files: { from: rootfs/, to: /, modes: { 'opt/app/bin/*': '0755' } }\n\
         checks:\n  - file: { path: /opt/app/bin/app, mode: '0755', contains: hello }\n",
    );
    line.clone_folder();
    example(&line.yard, "existing-pipeline", "repository/image", &recipe);
    line.git(&["add", "--all"]);
    line.git(&["commit", "--quiet", "--message", "An image"]);
    line.git(&["push", "--quiet", "origin", "main"]);
    let execution = line.only();
    let action = line.action(&execution, "Image");
    let build = line.build(&action);
    assert_eq!(execution["status"], "Succeeded", "{}", build["log"]);
    line.assert_holds(&[action["output"]["outputVariables"]["AMI_ID"].as_str().unwrap()]);
    line.cloud.finish();
}
