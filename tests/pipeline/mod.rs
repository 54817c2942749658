//! Buildspecs that are run, by the program itself and in real shells.

mod codebuild;
#[cfg(feature = "aws")]
mod from_push;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use bakehouse::cloud::NewParameter;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::gate;
use crate::stored;
use crate::yard::{Said, Yard};

/// A source with this buildspec.
fn source(text: &str) -> Yard {
    let yard = Yard::new();
    yard.file("source", "buildspec.yml", &format!("version: 0.2\n{text}"));
    yard
}

/// Runs it and gives what was said and the result.
fn run(yard: &Yard, args: &[&str]) -> (Said, Value) {
    let said = yard.run(&[&["run", "source", "--json"], args].concat());
    let json =
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}\n{}", said.out, said.err));
    (said, json)
}

/// The phases that were reached, with what became of them.
fn phases(json: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = json["phases"].as_array().unwrap().iter();
    all.map(|phase| format!("{} {}", text(&phase["phase"]), text(&phase["status"]))).collect()
}

/// What the commands themselves wrote into `log`.
fn log(yard: &Yard) -> Vec<String> {
    let text = fs::read_to_string(yard.path().join("source/log")).unwrap();
    text.lines().map(str::to_owned).collect()
}

const WHOLE: [&str; 4] =
    ["INSTALL SUCCEEDED", "PRE_BUILD SUCCEEDED", "BUILD SUCCEEDED", "POST_BUILD SUCCEEDED"];

#[test]
fn commands_run_in_one_shell_with_codebuilds_variables() {
    for shell in ["bash", "/bin/sh"] {
        let yard = source(&format!(
            r#"
env:
  shell: {shell}
  variables: {{ GREETING: "it's me", OVERRIDDEN: buildspec, PORT: 8080 }}
  exported-variables: [DIGEST, GREETING, NEVER_SET, CODEBUILD_BUILD_NUMBER]
phases:
  install:
    commands:
      - greet() {{ echo "$GREETING $1"; }}
      - mkdir below && cd below
      - PLAIN=kept
  build:
    commands:
      - |
        greet "$PLAIN $PORT $OVERRIDDEN" >"$CODEBUILD_SRC_DIR/log"
        pwd >>../log
      - echo "$CODEBUILD_BUILD_SUCCEEDING ${{CODEBUILD_WEBHOOK_EVENT-unset}} ${{CODEBUILD_BUILD_ID%%:*}}" >>../log
      - echo "$CODEBUILD_INITIATOR ${{CODEBUILD_BUILD_ARN%:*}} $FROM_IMAGE" >>../log
      - cat
  post_build:
    commands:
      - export DIGEST=sha256:1
"#
        ));
        let mut command = yard.command();
        command.env("USER", "ada").env("CODEBUILD_WEBHOOK_EVENT", "PUSH").env("FROM_IMAGE", "inherited");
        command.args(["run", "source", "--json", "--env", "OVERRIDDEN=given"]);
        let said = Said::from(command.output().unwrap()).ok();
        let json: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(json["status"], "SUCCEEDED");
        assert_eq!(phases(&json), WHOLE);
        let right = json!({ "DIGEST": "sha256:1", "GREETING": "it's me", "CODEBUILD_BUILD_NUMBER": "1" });
        assert_eq!(json["exported-variables"], right, "{shell}");
        let source = yard.path().join("source").canonicalize().unwrap();
        let id = json["build"].as_str().unwrap();
        assert!(id.starts_with("source:"), "{id}");
        let wanted = [
            "it's me kept 8080 given".to_owned(),
            source.join("below").display().to_string(),
            "1 unset source".to_owned(),
            "ada arn:local:codebuild:local:000000000000:build/source inherited".to_owned(),
        ];
        assert_eq!(log(&yard), wanted, "{shell}");
        // In a shell's order, each line under its phase.
        assert!(said.err.contains("==> BUILD") && said.err.contains("==> step 1/4: greet"), "{}", said.err);
    }
}

#[test]
fn without_json_the_exported_variables_are_the_result() {
    let yard = source(
        "env: { variables: { A: b }, exported-variables: [A] }\nphases: { build: { commands: [make || echo no] } }\n",
    );
    let said = yard.run(&["run", "source"]).ok();
    assert_eq!(said.out, "A=b\n");
    assert!(said.err.contains("build | no"), "{}", said.err);
}

/// What install, pre_build and build have; the phases that are reached; what the commands write.
type Case = (&'static str, &'static str, &'static str, &'static [&'static str], &'static [&'static str]);

/// Which phases run after a failure, what `finally` sees of it, and what the build comes to.
#[test]
fn a_failure_means_what_it_means_in_codebuild() {
    const SPEC: &str = r#"
phases:
  install: { @1, finally: ["echo install finally >>$CODEBUILD_SRC_DIR/log"] }
  pre_build: { @2 }
  build:
    @3
    finally:
      - echo build finally $CODEBUILD_BUILD_SUCCEEDING >>$CODEBUILD_SRC_DIR/log
  post_build:
    commands:
      - echo post_build $CODEBUILD_BUILD_SUCCEEDING >>$CODEBUILD_SRC_DIR/log
"#;
    let fine = "commands: [\"true\"]";
    let fails = "commands: [echo begun, exit 7, echo never >>$CODEBUILD_SRC_DIR/log]";
    const AFTER_BUILD: [&str; 4] =
        ["INSTALL SUCCEEDED", "PRE_BUILD SUCCEEDED", "BUILD FAILED", "POST_BUILD SUCCEEDED"];
    let cases: [Case; 6] = [
        (fine, fine, fine, &WHOLE, &["install finally", "build finally 1", "post_build 1"]),
        (fails, fine, fine, &["INSTALL FAILED"], &["install finally"]),
        (fine, fails, fine, &["INSTALL SUCCEEDED", "PRE_BUILD FAILED"], &["install finally"]),
        (fine, fine, fails, &AFTER_BUILD, &["install finally", "build finally 0", "post_build 0"]),
        (
            fine,
            fine,
            "on-failure: ABORT\n    commands: [\"false\"]",
            &["INSTALL SUCCEEDED", "PRE_BUILD SUCCEEDED", "BUILD FAILED"],
            &["install finally", "build finally 0"],
        ),
        (
            fine,
            "on-failure: CONTINUE, commands: [\"false\"]",
            fine,
            &["INSTALL SUCCEEDED", "PRE_BUILD FAILED", "BUILD SUCCEEDED", "POST_BUILD SUCCEEDED"],
            &["install finally", "build finally 0", "post_build 0"],
        ),
    ];
    for (install, pre_build, build, right, lines) in cases {
        let yard = source(&SPEC.replace("@1", install).replace("@2", pre_build).replace("@3", build));
        let (said, json) = run(&yard, &[]);
        assert_eq!(phases(&json), right, "{}", said.err);
        assert_eq!(log(&yard), lines);
        let good = right.iter().all(|phase| phase.ends_with("SUCCEEDED"));
        assert_eq!(json["status"], if good { "SUCCEEDED" } else { "FAILED" });
        let failed = json["phases"].as_array().unwrap().iter().find(|phase| phase["status"] == "FAILED");
        let said = said.code(if good { 0 } else { 3 });
        if let Some(failed) = failed {
            let why = failed["contexts"][0]["message"].as_str().unwrap();
            assert_eq!(failed["contexts"][0]["status-code"], "COMMAND_EXECUTION_ERROR");
            assert!(why.contains("Reason: exit status"), "{why}");
            let name = failed["phase"].as_str().unwrap();
            assert!(said.err.contains(&format!("the build failed in {name}: {why}")), "{}", said.err);
        }
    }
}

#[test]
fn artifacts_are_collected_also_of_a_build_that_failed() {
    let yard = source(
        r#"
env: { variables: { STAGE: dev } }
phases:
  build:
    commands:
      - mkdir -p out/sub && echo a >out/a.txt && echo b >out/sub/b.txt && echo c >out/c.log
      - "false"
artifacts:
  files: ["**/*"]
  base-directory: $CODEBUILD_SRC_DIR/out
  exclude-paths: ["**/*.log"]
  name: web-$STAGE-$(echo 1)
  secondary-artifacts:
    flat: { files: ["out/**/*"], discard-paths: yes }
"#,
    );
    let (said, json) = run(&yard, &["--artifacts", "source/results"]);
    said.code(3);
    assert_eq!(phases(&json)[2..], ["BUILD FAILED", "POST_BUILD SUCCEEDED", "UPLOAD_ARTIFACTS SUCCEEDED"]);
    let results = yard.path().join("source/results");
    let read = |path: &str| fs::read_to_string(results.join(path)).unwrap();
    assert_eq!((read("web-dev-1/a.txt"), read("web-dev-1/sub/b.txt")), ("a\n".into(), "b\n".into()));
    assert!(!results.join("web-dev-1/c.log").exists());
    assert_eq!((read("flat/b.txt"), read("flat/c.log")), ("b\n".into(), "c\n".into()));
    let artifacts = json["artifacts"].as_array().unwrap();
    assert_eq!((artifacts[0]["name"].clone(), artifacts[0]["files"].clone()), (json!("web-dev-1"), json!(2)));
    assert_eq!(
        (artifacts[1]["identifier"].clone(), artifacts[1]["files"].clone()),
        (json!("flat"), json!(3))
    );
    // What is there is another build's.
    let again = yard.run(&["run", "source", "--artifacts", "source/results"]).code(2);
    assert!(again.err.contains("--artifacts: source/results is not empty"), "{}", again.err);
}

#[test]
fn an_artifact_that_no_file_fits_fails_the_build() {
    let yard = source("phases: { build: { commands: [\"true\"] } }\nartifacts: { files: [none.txt] }\n");
    let (said, json) = run(&yard, &["--artifacts", "to"]);
    assert_eq!(phases(&json).last().unwrap(), "UPLOAD_ARTIFACTS FAILED");
    assert!(said.code(3).err.contains("no file fits none.txt"));
    // Nobody asked for it.
    let (said, json) = run(&yard, &[]);
    assert_eq!(phases(&json), WHOLE);
    assert!(said.ok().err.contains("the artifacts are not collected; --artifacts"));
}

/// A parameter's value is a variable, and stands in nothing that is shown.
#[tokio::test]
async fn parameters_come_through_the_seam_and_are_never_shown() {
    let yard = source(
        r#"
env:
  parameter-store: { TOKEN: /app/token }
  exported-variables: [COPY]
phases:
  build:
    commands:
      - 'echo "token: $TOKEN"; [ "$TOKEN" = s3cret-value ]'
      - export COPY="x-$TOKEN"
      - 'false # s3cret-value'
"#,
    );
    let (cloud, _) = stored::cloud(&yard.store());
    let parameter = NewParameter {
        name: "/app/token".into(),
        value: "s3cret-value".into(),
        data_type: "text".into(),
        overwrite: false,
    };
    cloud.parameters.put(&parameter).await.unwrap();
    let (said, json) = run(&yard, &[]);
    let message = json["phases"][2]["contexts"][0]["message"].as_str().unwrap();
    assert!(message.contains("false # ***"), "{message}");
    assert_eq!(json["exported-variables"]["COPY"], "x-***");
    let said = said.code(3);
    assert!(said.err.contains("build | token: ***"), "{}", said.err);
    assert!(!said.err.contains("s3cret") && !said.out.contains("s3cret"), "{}{}", said.out, said.err);
    // What is given is stronger, and needs no cloud.
    let given = yard.run(&["run", "source", "--env", "TOKEN=another-secret"]).code(3);
    assert!(given.err.contains("build | token: ***") && !given.err.contains("another"), "{}", given.err);
}

/// A secret comes by way of Parameter Store, whole or by a key of its JSON, and by the stage of its version.
#[cfg(feature = "aws")]
#[test]
fn secrets_come_by_their_keys_and_stages_and_are_never_shown() {
    let yard = source(
        r#"
env:
  secrets-manager: { WHOLE: plain, TOKEN: 'team/app:token', BEFORE: 'team/app:token:AWSPREVIOUS' }
phases: { build: { commands: ['[ "$WHOLE $TOKEN $BEFORE" = "pl4in-text n3w-value 0ld-value" ] && echo "has $TOKEN"'] } }
"#,
    );
    let cloud = crate::aws::StandIn::start();
    let secret = |operation: &str, name: &str, value: &str| {
        let id = if operation == "CreateSecret" { "Name" } else { "SecretId" };
        let token = uuid::Uuid::new_v4().to_string();
        let said = json!({ id: name, "SecretString": value, "ClientRequestToken": token });
        cloud.call(&format!("secretsmanager.{operation}"), &said);
    };
    secret("CreateSecret", "plain", "pl4in-text");
    secret("CreateSecret", "team/app", r#"{"token": "0ld-value"}"#);
    secret("PutSecretValue", "team/app", r#"{"token": "n3w-value"}"#);
    let run = |dir: &str| -> Said { cloud.program(&yard).args(["run", dir]).output().unwrap().into() };
    let said = run("source").ok();
    assert!(said.err.contains("build | has ***"), "{}", said.err);
    for value in ["pl4in", "n3w-value", "0ld-value"] {
        assert!(!said.err.contains(value) && !said.out.contains(value), "{}{}", said.out, said.err);
    }
    yard.file("none", "buildspec.yml", "version: 0.2\nenv: { secrets-manager: { A: 'team/app:none' } }\nphases: { build: { commands: ['true'] } }\n");
    let said = run("none").code(2);
    assert!(said.err.contains("the secret has no key none") && !said.err.contains("n3w"), "{}", said.err);
    cloud.finish();
}

#[test]
fn what_cannot_be_run_here_is_refused_before_anything_runs() {
    let commands = "phases: { build: { commands: [touch ran] } }\n";
    let cases = [
        ("env: { parameter-store: { A: /none } }\n", 3, "env.parameter-store: A cannot be had from /none"),
        ("env: { secrets-manager: { A: app } }\n", 3, "env.secrets-manager: A cannot be had from app"),
        ("env: { secrets-manager: { A: 'a:b:c:d' } }\n", 2, "a version's stage and its id are one too many"),
        ("env: { shell: powershell.exe }\n", 2, "write bash or sh"),
        ("artifact: { files: [a] }\n", 2, "did you mean `artifacts`?"),
    ];
    for (more, code, part) in cases {
        let yard = source(&format!("{commands}{more}"));
        let said = yard.run(&["run", "source"]).code(code);
        assert!(said.err.contains(part), "{}", said.err);
        assert!(!yard.path().join("source/ran").exists(), "{more}");
    }
    let yard = Yard::new();
    for (dir, part) in [("none", "name the folder of the source"), (".", "there is no ./buildspec.yml")] {
        let said = yard.run(&["run", dir]).code(2);
        assert!(said.err.contains(part), "{}", said.err);
    }
}

#[test]
fn what_is_codebuilds_to_do_is_named() {
    let yard = source(
        "phases: { install: { runtime-versions: { python: 3.12 } }, build: { on-failure: RETRY-2, commands: [\"true\"] } }\n\
         reports: { tests: { files: [\"*.xml\"] } }\ncache: { paths: [\"*\"] }\n\
         proxy: { logs: yes }\nbatch: { build-fanout: { parallelism: 2 } }\n",
    );
    let (said, json) = run(&yard, &[]);
    let right = json!(["batch", "cache", "on-failure: RETRY", "proxy", "reports", "runtime-versions"]);
    assert_eq!(json["not-done"], right);
    let said = said.ok();
    assert!(said.err.contains("`reports` means something in CodeBuild only"), "{}", said.err);
    assert!(said.err.contains("warning: ") && said.err.contains("does not retry"), "{}", said.err);
}

/// The shell and what it started end with a signal; `finally` does not run.
#[test]
fn a_signal_ends_the_shell_and_its_children() {
    let yard = source(
        r#"
phases:
  build:
    commands:
      - sleep 1000 & echo $! >child; mkfifo wait; echo ready >started; cat wait
    finally: [touch finally]
"#,
    );
    let path = |name: &str| yard.path().join("source").join(name);
    let mut command = yard.command();
    command
        .args(["run", "source", "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    while !path("started").exists() {
        std::thread::yield_now();
    }
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let said = Said::from(child.wait_with_output().unwrap()).code(143);
    let json: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["status"], "STOPPED");
    assert_eq!(phases(&json)[2], "BUILD STOPPED");
    assert!(!path("finally").exists());
    let grandchild = fs::read_to_string(path("child")).unwrap();
    let stat =
        fs::read_to_string(Path::new("/proc").join(grandchild.trim()).join("stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').map_or("", |(_, rest)| rest.trim_start());
    assert!(state.is_empty() || state.starts_with('Z'), "{stat}");
}

#[test]
fn commands_run_as_the_user_that_the_buildspec_names() {
    if !gate::has_root(&["setpriv"]) {
        return;
    }
    let yard = source(
        r#"
run-as: nobody
phases:
  install: { run-as: root, commands: ["export FROM=root; id -un >log; chmod 666 log"] }
  build: { commands: ['echo "$(id -un) $(id -gn) $FROM" >>log'] }
"#,
    );
    // Another user may look into the source, wherever it lies.
    fs::set_permissions(yard.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (said, _) = run(&yard, &[]);
    said.ok();
    assert_eq!(log(&yard), ["root", "nobody nogroup root"]);
    let yard = source("phases: { build: { run-as: nobody-by-this-name, commands: [\"true\"] } }\n");
    let (said, json) = run(&yard, &[]);
    assert_eq!(phases(&json)[2], "BUILD FAILED");
    assert!(said.code(3).err.contains("there is no user `nobody-by-this-name`"));
}

/// In version 0.1 each command begins anew.
#[test]
fn in_version_0_1_every_command_has_a_shell_of_its_own() {
    let yard = Yard::new();
    let text =
        "version: 0.1\nphases: { build: { commands: [\"export A=1; cd /\", 'echo \"[$A]\" >log'] } }\n";
    yard.file("source", "buildspec.yml", text);
    run(&yard, &[]).0.ok();
    assert_eq!(log(&yard), ["[]"]);
}

/// A command that starts Bakehouse finds the same cloud, and what a bake leaves is sourced and exported.
#[test]
fn bakehouse_in_a_build_works_on_the_same_cloud() {
    let yard = source(
        "env: { exported-variables: [AMI_ID] }\nphases:\n  build:\n    commands:\n      - $BAKEHOUSE images\n\
         \x20     - . ./bakehouse.env\n",
    );
    yard.file("source", "bakehouse.env", "export AMI_ID='ami-0123456789abcdef0'\n");
    let other = yard.path().join("other");
    let mut command = yard.command();
    command.env_remove("BAKEHOUSE_LOCAL").env("BAKEHOUSE", env!("CARGO_BIN_EXE_bakehouse"));
    command.args(["run", "source", "--json"]).arg(format!("--local={}", other.display()));
    let said = Said::from(command.output().unwrap()).ok();
    let json: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["exported-variables"]["AMI_ID"], "ami-0123456789abcdef0");
    assert!(other.is_dir());
}
