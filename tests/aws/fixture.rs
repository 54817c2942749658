//! One stand-in for all tests of the process, and an account of its own for each: a test fails on any exchange that AWS's
//! models do not know, and on any that the stand-in does not emulate, whether it asks or not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::yard::Yard;

/// Where everything is unless a test says otherwise.
pub const REGION: &str = "us-east-1";

/// A test's part of the stand-in. Its accounts are those that begin with the same ten digits.
pub struct StandIn {
    server: &'static Server,
    account: String,
    looked: bool,
}

impl StandIn {
    /// With a fresh account. The process has one server, which is started by whoever needs it first.
    pub fn start() -> Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        // Other processes share nothing of this server, so that counting is enough.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let server = SERVER.get_or_init(Server::start);
        let account = format!("{:010}00", 1_000_000_000 + NEXT.fetch_add(1, Ordering::Relaxed));
        Self { server, account, looked: false }
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// The test's own account.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Another account of the same test, from 1 to 99: what is shared or public is seen among these, and nothing else.
    pub fn other_account(&self, number: u8) -> String {
        assert!((1..100).contains(&number));
        format!("{}{number:02}", &self.account[..10])
    }

    /// The access key of an account; any secret goes with it.
    pub fn access_key(account: &str) -> String {
        format!("AKIABAKE{account}")
    }

    /// What a program needs to meet the stand-in as this account, and nothing of the real AWS.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_ACCESS_KEY_ID", Self::access_key(&self.account)),
            ("AWS_SECRET_ACCESS_KEY", "of-the-stand-in".to_owned()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_DEFAULT_REGION", REGION.to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
        ]
    }

    /// The program in a yard, as this account: without the yard's store, and with a cloud that settles soon.
    pub fn program(&self, yard: &Yard) -> Command {
        let mut command = yard.command();
        command.env_remove("BAKEHOUSE_LOCAL").envs(self.environment()).env("BAKEHOUSE_AWS_SETTLES", "2s");
        command
    }

    /// An image from a disk file: the fields of `seed.py`, of any account. Answers its id and its snapshot's.
    pub fn seed_image(&self, account: &str, mut image: Value) -> (String, String) {
        image["disk"] = json!(seen_from_outside(Path::new(image["disk"].as_str().unwrap())));
        let said = self.post("seed", json!({ "account": account, "image": image }));
        (text(&said["image"]), text(&said["snapshot"]))
    }

    /// Whatever else of `seed.py` the test's own account is to have: an instance profile, a bucket, a setting.
    pub fn seed(&self, what: Value) {
        self.seed_of(&self.account, what);
    }

    /// The same of another account of the test.
    pub fn seed_of(&self, account: &str, what: Value) {
        let mut asked = json!({ "account": account });
        asked.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        self.post("seed", asked);
    }

    /// This machine as an instance of the test's own account: its id, its zone, and where its metadata service is. What is
    /// attached to it shows in the folders `sys` and `dev`.
    pub fn host(&self, sys: &Path, dev: &Path) -> (String, String, String) {
        let (sys, dev) = (seen_from_outside(sys), seen_from_outside(dev));
        let said = self.post("host", json!({ "account": self.account, "sys": sys, "dev": dev }));
        (text(&said["instance"]), text(&said["zone"]), text(&said["metadata"]))
    }

    /// Puts a file into a bucket of the test's own account.
    pub fn seed_object(&self, bucket: &str, key: &str, path: &Path) {
        self.seed(json!({ "object": { "bucket": bucket, "key": key, "path": seen_from_outside(path) } }));
    }

    /// A role that CodePipeline may take: its ARN.
    pub fn seed_pipeline_role(&self) -> String {
        text(&self.post("seed", json!({ "account": self.account, "pipeline_role": "pipeline" }))["role"])
    }

    /// Every job of the test's own account, the oldest first: id, state, nonce, pipeline, execution, action, continuation,
    /// and the secrets that were handed out for it (`pipeline_jobs.py`).
    pub fn jobs(&self) -> Vec<Value> {
        list(self.get("jobs"))
    }

    /// Rules as `faults.py` has them; those before go.
    pub fn faults(&self, rules: Value) {
        self.post("faults", json!({ "account": self.account, "clear": true, "rules": rules }));
    }

    /// The rules, with how many exchanges each has `seen` and `struck`.
    pub fn told_faults(&self) -> Vec<Value> {
        list(self.get("faults"))
    }

    /// The settings of `world.py`.
    pub fn settings(&self, settings: Value) {
        self.post("settings", json!({ "account": self.account, "settings": settings }));
    }

    /// Puts the clock of this test's accounts forward.
    pub fn tick(&self, seconds: u64) {
        self.post("tick", json!({ "account": self.account, "seconds": seconds }));
    }

    /// Everything that the test's own account holds, by kind and id.
    pub fn state(&self) -> Value {
        self.state_of(&self.account)
    }

    pub fn state_of(&self, account: &str) -> Value {
        self.server.call("GET", &format!("/stand-in/state?account={account}"), None)
    }

    /// Every call of all its accounts so far: service, operation, parameters, status, error, fault.
    pub fn exchanges(&self) -> Vec<Value> {
        list(self.get("exchanges"))
    }

    /// The operations called, as `ec2:DescribeImages`, in order.
    pub fn operations(&self) -> Vec<String> {
        let name = |e: &Value| format!("{}:{}", text(&e["service"]), text(&e["operation"]));
        self.exchanges().iter().map(name).collect()
    }

    /// What IAM was asked about the calls of the test's own account since this was called the last time: `action`, `resource`,
    /// `context` and the action of the `call` itself (`authorization.py`). Each question is there once.
    pub fn take_asked(&self) -> Vec<Value> {
        list(self.post("asked", json!({ "account": self.account })))
    }

    /// A call of a service that speaks JSON, by the name that goes on the wire (`CodeBuild_20161006.StartBuild`), as the test's own
    /// account; it must succeed. The stand-in looks at no signature, and holds it against the models like all others.
    pub fn call(&self, target: &str, parameters: &Value) -> Value {
        let service = match target.split_once(['_', '.']).map_or(target, |(service, _)| service) {
            "CodeBuild" => "codebuild",
            "CodeCommit" => "codecommit",
            "CodePipeline" => "codepipeline",
            "AWSEvents" => "events",
            "secretsmanager" => "secretsmanager",
            other => panic!("{other} is not known here"),
        };
        let head = format!(
            "X-Amz-Target: {target}\r\nContent-Type: application/x-amz-json-1.1\r\n{}",
            self.signed(service)
        );
        serde_json::from_str(&self.server.send("POST", "/", &head, &parameters.to_string())).unwrap()
    }

    /// The same of EC2 and others that speak the query protocol.
    pub fn query(&self, service: &str, query: &str) -> String {
        let head = format!("Content-Type: application/x-www-form-urlencoded\r\n{}", self.signed(service));
        self.server.send("POST", "/", &head, query)
    }

    fn signed(&self, service: &str) -> String {
        let key = Self::access_key(&self.account);
        format!(
            "Authorization: AWS4-HMAC-SHA256 Credential={key}/20260101/{REGION}/{service}/aws4_request, \
             SignedHeaders=host, Signature=none\r\n"
        )
    }

    /// A build of CodeBuild by its id: as BatchGetBuilds has it, with its `log` and the `cases` of its reports.
    pub fn build(&self, id: &str) -> Value {
        let path = format!("/stand-in/build?account={}&id={id}", self.account);
        self.server.call("GET", &path, None)
    }

    /// Writes a snapshot's volume into a file; what was never written is noise.
    pub fn write_disk(&self, snapshot: &str, to: &Path) {
        let to = seen_from_outside(to);
        self.post("disk", json!({ "account": self.account, "snapshot": snapshot, "path": to }));
    }

    /// What is wrong so far.
    pub fn findings(&self) -> Vec<Value> {
        list(self.get("findings"))
    }

    /// Takes the findings that a test makes on purpose.
    pub fn expect_findings(&mut self) -> Vec<Value> {
        self.looked = true;
        self.findings()
    }

    /// Fails on any finding. A test that does not call it fails when it drops the stand-in.
    pub fn finish(mut self) {
        self.look();
    }

    fn look(&mut self) {
        if std::mem::replace(&mut self.looked, true) {
            return;
        }
        let findings = self.findings();
        let all: Vec<String> = findings.iter().take(20).map(ToString::to_string).collect();
        assert!(
            findings.is_empty(),
            "AWS would not understand this, or it is not emulated:\n{}",
            all.join("\n")
        );
    }

    fn get(&self, what: &str) -> Value {
        self.server.call("GET", &format!("/stand-in/{what}?account={}", self.account), None)
    }

    fn post(&self, what: &str, body: Value) -> Value {
        self.server.call("POST", &format!("/stand-in/{what}"), Some(body))
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // One panic is enough; two would abort the whole run.
        if !std::thread::panicking() {
            self.look();
        }
    }
}

/// A path as the server sees it: a test's thread may have mounts of its own.
fn seen_from_outside(path: &Path) -> PathBuf {
    let (process, thread) = (std::process::id(), rustix::thread::gettid().as_raw_nonzero());
    let path = std::path::absolute(path).unwrap();
    PathBuf::from(format!("/proc/{process}/task/{thread}/root")).join(path.strip_prefix("/").unwrap())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn list(value: Value) -> Vec<Value> {
    value.as_array().unwrap().clone()
}

/// The Python that has moto in it. `make test` makes it beforehand.
pub fn python() -> PathBuf {
    let script = root().join("scripts/stand-in-venv");
    let made = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(made.status.success(), "scripts/stand-in-venv failed");
    String::from_utf8(made.stdout).unwrap().trim().into()
}

pub fn folder() -> PathBuf {
    root().join("tests/aws")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

struct Server {
    address: String,
    /// Ends with its standard input, which is ours: however this process ends, the server goes.
    _process: Child,
}

impl Server {
    fn start() -> Self {
        let mut process = Command::new(python())
            .args(["-m", "stand_in", "--while-stdin"])
            .current_dir(folder())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        stdout.read_line(&mut first).unwrap();
        let address = first.trim().strip_prefix("listening http://").unwrap_or_else(|| {
            panic!("the stand-in did not start: {first}");
        });
        // What it prints later must not block it.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        Self { address: address.to_owned(), _process: process }
    }

    /// One call of the stand-in itself, as HTTP/1.0 has it: the answer ends with the connection.
    fn call(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        serde_json::from_str(&self.send(method, path, "", &body)).unwrap()
    }

    /// The body of an answer, which must be a good one; `head` are further lines of the request's.
    fn send(&self, method: &str, path: &str, head: &str, body: &str) -> String {
        let mut connection = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nContent-Length: {}\r\n{head}\r\n",
            self.address,
            body.len()
        );
        connection.write_all((head + body).as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        let (head, answered) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200"), "{method} {path} {body}: {answered}");
        answered.to_owned()
    }
}
