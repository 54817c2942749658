//! A pipeline in the stand-in: an object of S3 as its source, and one action behind it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bakehouse::host::stop::Stop;
use bakehouse::pipeline::archive::{self, Bounds};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::aws::{REGION, StandIn};
use crate::yard::{Said, Yard, repository};

/// How long something may take to be seen, and how often is looked.
const SEEN: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);
const SOURCE: &str = "source.zip";

pub struct Pipelines {
    pub cloud: StandIn,
    pub yard: Yard,
    bucket: String,
    role: String,
}

impl Pipelines {
    pub fn new() -> Self {
        Self::of(Yard::new())
    }

    /// With a yard that bakes.
    pub fn of(yard: Yard) -> Self {
        let cloud = StandIn::start();
        let bucket = format!("artifacts-{}", cloud.account());
        cloud.seed(json!({ "bucket": bucket }));
        let role = cloud.seed_pipeline_role();
        Self { cloud, yard, bucket, role }
    }

    /// A call of CodePipeline by somebody else than the program.
    #[track_caller]
    pub fn call(&self, operation: &str, parameters: &Value) -> Value {
        let mut curl = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--aws-sigv4",
                &format!("aws:amz:{REGION}:codepipeline"),
                "--user",
            ])
            .arg(format!("{}:secret", StandIn::access_key(self.cloud.account())))
            .args(["--header", &format!("X-Amz-Target: CodePipeline_20150709.{operation}")])
            .args(["--header", "Content-Type: application/x-amz-json-1.1", "--data-binary", "@-"])
            .arg(self.cloud.endpoint())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        curl.stdin.take().unwrap().write_all(parameters.to_string().as_bytes()).unwrap();
        let said = Said::from(curl.wait_with_output().unwrap()).ok();
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{operation}: {error}: {}", said.out))
    }

    /// The action type of the example, with a secret property, in this category.
    #[track_caller]
    pub fn action_type(&self, category: &str) {
        let mut made = example_type();
        made["category"] = json!(category);
        let secret = json!({ "name": "Token", "required": false, "key": false, "secret": true });
        made["configurationProperties"].as_array_mut().unwrap().push(secret);
        let said = self.call("CreateCustomActionType", &made);
        assert_eq!(said["actionType"]["id"]["provider"], "Bakehouse", "{said}");
    }

    /// The pipelines' source: a folder of the yard, packed.
    pub fn source(&self, folder: &Path) {
        let packed = self.yard.path().join(SOURCE);
        let _ = fs::remove_file(&packed);
        archive::pack(folder, &packed, &Stop::never()).unwrap();
        self.packed(&packed);
    }

    /// The same of these files.
    pub fn source_of(&self, files: &[(&str, &str)]) {
        let folder = tempfile::tempdir_in(self.yard.path()).unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        self.source(folder.path());
    }

    /// The same of whatever a file holds.
    pub fn packed(&self, file: &Path) {
        self.cloud.seed_object(&self.bucket, SOURCE, file);
    }

    /// Makes a pipeline, which starts it: a source, and the action `Bake`. Gives the execution.
    #[track_caller]
    pub fn pipeline(&self, name: &str, action: &Value, more: &Value) -> String {
        let mut bake = json!({
            "name": "Bake",
            "actionTypeId": { "owner": "Custom", "category": "Build", "provider": "Bakehouse", "version": "1" },
            "inputArtifacts": [{ "name": "Source" }],
            "namespace": "Bake",
        });
        merge(&mut bake, action);
        let source = json!({
            "name": "Source",
            "actionTypeId": { "owner": "AWS", "category": "Source", "provider": "S3", "version": "1" },
            "outputArtifacts": [{ "name": "Source" }],
            "configuration": { "S3Bucket": self.bucket, "S3ObjectKey": SOURCE },
        });
        let mut pipeline = json!({
            "name": name,
            "roleArn": self.role,
            "pipelineType": "V2",
            "executionMode": "PARALLEL",
            "artifactStore": { "type": "S3", "location": self.bucket },
            "stages": [
                { "name": "Source", "actions": [source] },
                { "name": "Bake", "actions": [bake] },
            ],
        });
        merge(&mut pipeline, more);
        let said = self.call("CreatePipeline", &json!({ "pipeline": pipeline }));
        assert_eq!(said["pipeline"]["name"], name, "{said}");
        let all = self.call("ListPipelineExecutions", &json!({ "pipelineName": name }));
        text(&all["pipelineExecutionSummaries"][0]["pipelineExecutionId"])
    }

    /// A pipeline whose action is this Lambda function's, which is whoever has the job's id. Gives execution and job.
    #[track_caller]
    pub fn function(&self, name: &str) -> (String, String) {
        let of = json!({
            "actionTypeId": { "owner": "AWS", "category": "Invoke", "provider": "Lambda", "version": "1" },
            "configuration": { "FunctionName": "bake" },
        });
        let execution = self.pipeline(name, &of, &json!({}));
        let jobs = self.cloud.jobs();
        let job = jobs.iter().find(|job| job["execution"] == execution.as_str()).unwrap();
        (execution, text(&job["id"]))
    }

    pub fn start(&self, name: &str) -> String {
        text(&self.call("StartPipelineExecution", &json!({ "name": name }))["pipelineExecutionId"])
    }

    /// What the action came to, and all that is told of it. It waits for the end.
    #[track_caller]
    pub fn ended(&self, name: &str, execution: &str) -> Value {
        until("the action ends", || {
            Some(self.action(name, execution)).filter(|action| action["status"] != "InProgress")
        })
    }

    /// The action as it is.
    pub fn action(&self, name: &str, execution: &str) -> Value {
        let filter = json!({ "pipelineName": name, "filter": { "pipelineExecutionId": execution } });
        let all = self.call("ListActionExecutions", &filter);
        let mut all = all["actionExecutionDetails"].as_array().unwrap().iter();
        all.find(|one| one["actionName"] == "Bake").cloned().unwrap_or_default()
    }

    /// Fails unless the action failed with this type; gives its message.
    #[track_caller]
    pub fn failed(&self, name: &str, execution: &str, kind: &str) -> String {
        let action = self.ended(name, execution);
        let error = &action["output"]["executionResult"]["errorDetails"];
        assert_eq!((&action["status"], &error["code"]), (&json!("Failed"), &json!(kind)), "{action:#}");
        text(&error["message"])
    }

    /// Unpacks the action's output artifact.
    pub fn output(&self, action: &Value, number: usize) -> PathBuf {
        let at = &action["output"]["outputArtifacts"][number]["s3location"];
        let name = text(&action["output"]["outputArtifacts"][number]["name"]);
        let (packed, folder) = (self.yard.path().join(format!("{name}.zip")), self.yard.path().join(&name));
        let said = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--fail",
                "--aws-sigv4",
                &format!("aws:amz:{REGION}:s3"),
                "--user",
            ])
            .arg(format!("{}:secret", StandIn::access_key(self.cloud.account())))
            .arg(format!("{}/{}/{}", self.cloud.endpoint(), text(&at["bucket"]), text(&at["key"])))
            .arg("--output")
            .arg(&packed)
            .output()
            .unwrap();
        Said::from(said).ok();
        fs::create_dir(&folder).unwrap();
        archive::unpack(&packed, &folder, Bounds::OF_A_JOB, &Stop::never()).unwrap();
        folder
    }

    /// The program in the yard, found by builds as `bakehouse`.
    pub fn program(&self) -> Command {
        let mut command = self.cloud.program(&self.yard);
        let own = Path::new(env!("CARGO_BIN_EXE_bakehouse")).parent().unwrap().display().to_string();
        command.env("PATH", format!("{own}:{}", std::env::var("PATH").unwrap()));
        command.env("YARD", self.yard.path());
        command
    }

    pub fn worker(&self, args: &[&str]) -> Worker {
        let log = self.yard.path().join(format!("worker-{}.log", uuid::Uuid::new_v4().simple()));
        let file = fs::File::create(&log).unwrap();
        let mut command = self.program();
        command
            .args(["worker", "--every", "1s"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        Worker { child: command.spawn().unwrap(), log }
    }

    /// How often an operation of CodePipeline was called, and how it was answered: its error, or nothing.
    pub fn answers(&self, operation: &str) -> Vec<Option<String>> {
        let all = self.cloud.exchanges();
        let of_it = all.iter().filter(|one| one["operation"] == operation);
        of_it.map(|one| one["error"].as_str().map(str::to_owned)).collect()
    }

    /// That every job was given one result, and that none of its secrets stands in a log.
    #[track_caller]
    pub fn assert_secret(&self, log: &str) {
        for job in self.cloud.jobs() {
            for secret in job["secrets"].as_array().unwrap() {
                assert!(
                    !log.contains(secret.as_str().unwrap()),
                    "a secret of {} is shown:\n{log}",
                    job["id"]
                );
            }
        }
        assert!(!log.contains("hunter2"), "a secret of the configuration is shown:\n{log}");
    }
}

/// A worker that runs.
pub struct Worker {
    pub child: Child,
    log: PathBuf,
}

impl Worker {
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops it, and gives its log.
    #[track_caller]
    pub fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let status = self.child.wait().unwrap();
        let log = self.log();
        assert_eq!(status.code(), Some(143), "{log}");
        log
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A test that failed leaves none behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The definition of the action type that the example has.
pub fn example_type() -> Value {
    serde_json::from_slice(&fs::read(repository().join("examples/worker/action-type.json")).unwrap()).unwrap()
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Looks until there is something.
#[track_caller]
pub fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < SEEN, "it is waited for that {what}");
        std::thread::sleep(LOOK);
    }
}

fn merge(into: &mut Value, more: &Value) {
    let more = more.as_object().unwrap().clone();
    into.as_object_mut().unwrap().extend(more);
}
