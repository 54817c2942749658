//! Artifacts that are wrong, or that may not be had: each is a named error in the pipeline, and leaves nothing behind.

use std::fs::{self, File};
use std::io::Write;

use serde_json::json;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::fixture::{Pipelines, until};

const RECIPE: &str = "version: 1\nname: web\narchitecture: x86_64\nbase: { family: os-base }\n";
const WAITS: &str = "version: 0.2\nphases: { build: { commands: ['touch \"$YARD/began\"; until [ -e \"$YARD/go\" ]; do sleep 0.1; done'] } }\n\
                     artifacts: { files: [a] }\n";

/// A zip file as nobody should write it.
fn hostile(pipelines: &Pipelines, name: &str, link: Option<&str>) {
    let path = pipelines.yard.path().join("hostile.zip");
    let mut writer = ZipWriter::new(File::create(&path).unwrap());
    let options = SimpleFileOptions::default();
    match link {
        Some(target) => writer.add_symlink(name, target, options).unwrap(),
        None => {
            writer.start_file(name, options).unwrap();
            writer.write_all(b"x").unwrap();
        }
    }
    writer.finish().unwrap();
    pipelines.packed(&path);
}

#[test]
fn a_source_that_is_wrong_is_a_named_error() {
    let pipelines = Pipelines::new();
    pipelines.action_type("Build");
    let worker = pipelines.worker(&[]);
    let plain = pipelines.yard.path().join("plain");
    fs::write(&plain, "no archive at all").unwrap();
    let cases: [(&str, &dyn Fn(), &str); 6] = [
        ("no-zip", &|| pipelines.packed(&plain), "it is no zip file"),
        ("no-recipe", &|| pipelines.source_of(&[("README.md", "")]), "neither buildspec.yml nor bake.yml"),
        (
            "two-recipes",
            &|| pipelines.source_of(&[("a/bake.yml", RECIPE), ("b/bake.yml", RECIPE)]),
            "say which by Recipe",
        ),
        ("zip-slip", &|| hostile(&pipelines, "../../../up", None), "leads out of the folder"),
        ("absolute", &|| hostile(&pipelines, "/etc/up", None), "leads out of the folder"),
        ("link", &|| hostile(&pipelines, "link", Some("/etc")), "which may be anywhere"),
    ];
    for (name, put, told) in cases {
        put();
        let execution = pipelines.pipeline(name, &json!({}), &json!({}));
        let message = pipelines.failed(name, &execution, "ConfigurationError");
        assert!(message.contains("Source") && message.contains(told), "{name}: {message}");
    }
    let log = worker.stop();
    pipelines.assert_secret(&log);
    pipelines.yard.assert_nothing_left();
    pipelines.cloud.finish();
}

#[test]
fn a_key_that_may_not_be_used_is_told_with_what_to_allow() {
    let pipelines = Pipelines::new();
    pipelines.action_type("Build");
    pipelines.source_of(&[
        (
            "buildspec.yml",
            "version: 0.2\nphases: { build: { commands: ['true'] } }\nartifacts: { files: [a] }\n",
        ),
        ("a", "b"),
    ]);
    let worker = pipelines.worker(&[]);
    for operation in ["GetObject", "PutObject"] {
        let denied = "User: arn:aws:sts::123456789012:assumed-role/pipeline is not authorized to perform: kms:Decrypt on this key";
        pipelines.cloud.faults(json!([
            { "kind": "error", "service": "s3", "operation": operation, "code": "AccessDenied", "status": 403, "message": denied },
        ]));
        let execution =
            pipelines.pipeline(operation, &json!({ "outputArtifacts": [{ "name": "Image" }] }), &json!({}));
        let message = pipelines.failed(operation, &execution, "PermissionError");
        assert!(
            message.contains("kms:Decrypt on this key") && message.contains("the pipeline's role needs"),
            "{message}"
        );
    }
    worker.stop();
    pipelines.yard.assert_nothing_left();
    pipelines.cloud.finish();
}

#[test]
fn credentials_that_end_in_the_middle_are_asked_for_anew() {
    let pipelines = Pipelines::new();
    pipelines.action_type("Build");
    pipelines.source_of(&[("buildspec.yml", WAITS), ("a", "b")]);
    let execution =
        pipelines.pipeline("web", &json!({ "outputArtifacts": [{ "name": "Image" }] }), &json!({}));
    let worker = pipelines.worker(&[]);
    let began = pipelines.yard.path().join("began");
    until("the build begins", || began.exists().then_some(()));
    pipelines.cloud.tick(3601);
    fs::write(pipelines.yard.path().join("go"), "").unwrap();
    let ended = pipelines.ended("web", &execution);
    assert_eq!(ended["status"], "Succeeded", "{ended:#}\n{}", worker.log());
    assert_eq!(pipelines.answers("PutObject").iter().flatten().collect::<Vec<_>>(), ["ExpiredToken"]);
    assert_eq!(pipelines.answers("GetJobDetails"), [None]);
    // Those that are over as soon as they are given.
    pipelines.cloud.settings(json!({ "session_seconds": -1 }));
    let execution = pipelines.start("web");
    let message = pipelines.failed("web", &execution, "PermissionError");
    assert!(message.contains("the job's credentials are over"), "{message}");
    let log = worker.stop();
    pipelines.assert_secret(&log);
    pipelines.yard.assert_nothing_left();
    pipelines.cloud.finish();
}
