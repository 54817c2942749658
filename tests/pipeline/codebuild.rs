//! Bakes in a build of CodeBuild, by the variables that one has: what of it is in the record and the tags, and how the
//! build is answered.

#![expect(clippy::disallowed_methods, reason = "programs are started here as a user starts them")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bakehouse::cloud::{ImageId, ImageQuery, tag};
use serde_json::{Value, json};

use crate::stored;
use crate::yard::{Said, Yard, repository, small};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const EXECUTION: &str = "4f9c2f0e-6a3e-4d4b-9c55-0c8a5f3b2d11";
const BUILD: &str = "bake-web:83f421eb-d28a-4d56-8242-95ec01c869d6";
/// A recipe of the small base's, with a check that needs no boot.
const REST: &str = "provision:\n  - shell: { run: 'mkdir -p /etc/made; echo made >/etc/made/by' }\n\
                    checks:\n  - file: { path: /etc/made/by, contains: made }\n\
                    image: { name: '{name}-{date}-{commit}' }\n";

/// The program in the yard's folder, as a pipeline's build of `source` runs it.
fn in_build(yard: &Yard, source: &Path, args: &[&str]) -> Command {
    let mut command = yard.command();
    command
        .args(args)
        .env("CODEBUILD_BUILD_ID", BUILD)
        .env("CODEBUILD_BUILD_ARN", format!("arn:aws:codebuild:us-east-1:123456789012:build/{BUILD}"))
        .env("CODEBUILD_BUILD_URL", "https://console/build")
        .env("CODEBUILD_INITIATOR", "codepipeline/images")
        .env("CODEBUILD_SOURCE_VERSION", "arn:aws:s3:::bucket/images/Source/x")
        .env("CODEBUILD_RESOLVED_SOURCE_VERSION", COMMIT)
        .env("CODEBUILD_SRC_DIR", source);
    command
}

fn said(command: &mut Command) -> Said {
    command.output().unwrap().into()
}

fn last_line(said: &Said) -> &str {
    said.err.trim_end().lines().last().unwrap()
}

fn report(out: &Path) -> String {
    fs::read_to_string(out.join("junit.xml")).unwrap()
}

/// A variable as a shell has it that sources what stands beside a record.
fn sourced(out: &Path, variable: &str) -> String {
    let script = format!(". {}/bakehouse.env; sh -c 'echo ${variable}'", out.display());
    let said = Command::new("sh").args(["-euc", &script]).output().unwrap();
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_build_and_its_pipeline_are_in_the_record_and_the_tags() {
    let Some(yard) = Yard::small() else { return };
    let source = yard.recipe("source", &small::recipe("web", "{ family: small }", REST));
    // The commands have gone elsewhere, and name no folder.
    let mut command = in_build(&yard, &source, &["bake"]);
    let baked = said(command.env("BAKEHOUSE_PIPELINE_EXECUTION", EXECUTION)).ok();
    let record = yard.record("source");
    let right = json!({
        "commit": COMMIT,
        "pipeline": "images",
        "pipeline-execution": EXECUTION,
        "build": {
            "id": BUILD,
            "arn": format!("arn:aws:codebuild:us-east-1:123456789012:build/{BUILD}"),
            "url": "https://console/build",
            "initiator": "codepipeline/images",
        },
    });
    assert_eq!(record["source"], right);
    assert!(record["name"].as_str().unwrap().ends_with("-0123456789ab"), "{record}");
    let image = baked.out.trim();
    let (cloud, _) = stored::cloud(&yard.store());
    let query = ImageQuery { ids: vec![ImageId::parse(image).unwrap()], ..ImageQuery::default() };
    let tags = cloud.images.find(&query).await.unwrap().remove(0).tags;
    for (name, value) in
        [("commit", COMMIT), ("pipeline", "images"), ("pipeline-execution", EXECUTION), ("build", BUILD)]
    {
        assert_eq!(tags[&tag(name)], value);
    }
    let out = yard.out("source");
    assert_eq!(sourced(&out, "AMI_ID"), image);
    let first = report(&out);
    assert!(
        first.contains("classname=\"web.stage\" name=\"bake\"") && first.contains("failures=\"0\""),
        "{first}"
    );

    // The test adds its own cases.
    said(&mut in_build(&yard, &source, &["test", "--no-boot"])).ok();
    let both = report(&out);
    assert!(both.contains("tests=\"2\" failures=\"0\"") && both.contains("name=\"bake\""), "{both}");
    assert!(both.contains("name=\"file /etc/made/by contains made\""), "{both}");
}

#[test]
fn an_objects_version_is_no_commit_and_an_execution_is_one() {
    let Some(yard) = Yard::small() else { return };
    let rest = REST.replace("-{commit}", "");
    let source = yard.recipe("source", &small::recipe("web", "{ family: small }", &rest));
    let version = "3sL4kqtJlcpXroDTDmJ.rmSpXd3dIbrHY_MTRCxf3vjVBH40Nr8X8gdRQBpUMLUo";
    let mut command = in_build(&yard, &source, &["bake"]);
    // A variable that the action passes in empty is none.
    said(command.env("CODEBUILD_RESOLVED_SOURCE_VERSION", version).env("BAKEHOUSE_COMMIT", "")).ok();
    let found = &yard.record("source")["source"];
    assert_eq!((&found["commit"], &found["version"]), (&Value::Null, &json!(version)));

    for (name, value, part) in [
        (
            "BAKEHOUSE_PIPELINE_EXECUTION",
            "#{codepipeline.PipelineExecutionId}",
            "the action's EnvironmentVariables",
        ),
        ("BAKEHOUSE_PIPELINE_EXECUTION", "the-last-one", "is no execution's id"),
        ("BAKEHOUSE_COMMIT", "#{SourceVariables.CommitId}", "the action's EnvironmentVariables"),
        ("BAKEHOUSE_COMMIT", version, "is no commit id"),
    ] {
        let wrong = said(in_build(&yard, &source, &["bake", "--fresh"]).env(name, value)).code(2);
        assert!(last_line(&wrong).contains(part), "{}", wrong.err);
        assert!(report(&yard.out("source")).contains(&part.replace('\'', "&apos;")));
    }
}

#[test]
fn a_wrong_recipe_is_the_last_line_of_the_log_and_a_failed_case() {
    let yard = Yard::new();
    let text = small::recipe("web", "{ family: small }", "provision:\n  - shel: { run: 'true' }\n");
    let source = yard.recipe("source", &text);
    let wrong = said(&mut in_build(&yard, &source, &["bake"])).code(2);
    let reason = last_line(&wrong).strip_prefix("failed with exit code 2: ").unwrap();
    let place = format!("{}:6:5: ", source.join("bake.yml").display());
    assert!(reason.starts_with(&place) && reason.contains("did you mean `shell`?"), "{reason}");
    let out = yard.out("source");
    let first = report(&out);
    assert!(first.contains("<testcase classname=\"bakehouse.stage\" name=\"bake\""), "{first}");
    assert!(first.contains("<failure type=\"ConfigurationError\" message=\""), "{first}");
    assert!(first.contains("bake.yml:6:5: ") && first.contains("failures=\"1\""), "{first}");
    // A test that is not guarded finds no record, and leaves the bake's answer.
    let test = said(&mut in_build(&yard, &source, &["test"])).code(2);
    assert!(last_line(&test).contains("bake first"), "{}", test.err);
    assert_eq!(report(&out), first);

    // Elsewhere than in a build no folder is made for it, and the log is a person's.
    fs::remove_dir_all(&out).unwrap();
    let person = yard.run(&["bake", "source"]).code(2);
    assert!(person.err.trim_end().ends_with("bake.yml: 1 error") && !out.exists(), "{}", person.err);
    // Nor is one that was named by mistake.
    said(&mut in_build(&yard, &source, &["bake", "nowhere"])).code(2);
    assert!(!yard.path().join("nowhere").exists());
    // An option that is wrong is told in a line too.
    let option = said(&mut in_build(&yard, &source, &["bake", "--frehs"])).code(2);
    assert_eq!(last_line(&option), "failed with exit code 2: unexpected argument '--frehs' found");
}

#[test]
fn a_step_that_fails_is_a_failed_case_without_its_secret() {
    let Some(yard) = Yard::small() else { return };
    let step = "provision:\n  - shell:\n      run: 'echo the token is $TOKEN; exit 7'\n      \
                secret-env: { TOKEN: { env: APP_TOKEN } }\n";
    let source = yard.recipe("source", &small::recipe("web", "{ family: small }", step));
    let mut command = in_build(&yard, &source, &["bake"]);
    let failed = said(command.env("APP_TOKEN", "s3cret-value")).code(3);
    let reason = last_line(&failed);
    assert!(
        reason
            .starts_with("failed with exit code 3: step 1 (shell: echo the token is $TOKEN; exit 7) failed"),
        "{reason}"
    );
    assert!(reason.ends_with("failed with exit code 7: the token is ***"), "{reason}");
    let found = report(&yard.out("source"));
    assert!(found.contains("type=\"JobFailed\"") && found.contains("the token is ***"), "{found}");
    assert!(!found.contains("s3cret") && !failed.err.contains("s3cret"), "{found}");
    assert!(!yard.out("source").join("bakehouse.env").exists());
    yard.assert_nothing_left();
}

/// A bake that was killed has no answer; the report says so, and does not say that nothing failed.
#[test]
fn a_bake_that_is_killed_leaves_a_failed_case() {
    let Some(yard) = Yard::small() else { return };
    let source = yard.recipe("source", &small::recipe("web", "{ family: small }", REST));
    let mut command = in_build(&yard, &source, &["bake"]);
    let killed = command.env("BAKEHOUSE_FAULT", "call:1:before:kill").output().unwrap();
    assert_eq!(killed.status.code(), None);
    assert!(report(&yard.out("source")).contains("was ended before it had an answer"));
    said(&mut in_build(&yard, &source, &["bake"])).ok();
    assert!(report(&yard.out("source")).contains("failures=\"0\""));
    yard.assert_nothing_left();
}

#[test]
fn of_several_sources_the_one_with_the_recipe_is_named() {
    let yard = Yard::new();
    let other = yard.recipe("other", &small::recipe("web", "{ family: small }", REST));
    fs::create_dir(yard.path().join("source")).unwrap();
    let mut command = in_build(&yard, &yard.path().join("source"), &["bake"]);
    let told = said(command.env("CODEBUILD_SRC_DIR_Recipe", &other)).code(2);
    let wanted = format!("of the build's sources these have one: Recipe ({})", other.display());
    assert!(last_line(&told).contains(&wanted), "{}", told.err);
}

/// What an example's repository holds, with a recipe of the small base in place of its own.
pub fn example(yard: &Yard, name: &str, into: &str, recipe: &str) -> PathBuf {
    fs::create_dir_all(yard.path().join(into).parent().unwrap()).unwrap();
    let copied = Command::new("cp")
        .arg("-R")
        .arg(repository().join("examples").join(name))
        .arg(yard.path().join(into))
        .status();
    assert!(copied.unwrap().success());
    yard.recipe(into, recipe)
}

/// A run of a buildspec as a person tries it on a laptop, and the variables that it exports.
fn tried(yard: &Yard, args: &[&str]) -> Value {
    let programs = Path::new(env!("CARGO_BIN_EXE_bakehouse")).parent().unwrap().display();
    let mut command = yard.command();
    command.env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap()));
    let said = Said::from(command.args(["run", "--json"]).args(args).output().unwrap()).ok();
    serde_json::from_str(&said.out).unwrap()
}

#[test]
fn the_examples_buildspecs_run_on_a_small_base() {
    let Some(yard) = Yard::small() else { return };
    // Of two names: a name is taken once a second.
    let recipe = |name: &str, rest: &str| small::recipe(name, "{ family: small }", rest);
    let page = "provision:\n  - files: { from: rootfs/, to: / }\n\
                checks:\n  - file: { path: /var/www/html/index.html, contains: Baked by a pipeline }\n";
    example(&yard, "codebuild-stage", "stage", &recipe("web", page));
    let done = tried(&yard, &["stage", "--artifacts", "artifacts"]);
    let exported = &done["exported-variables"];
    assert_eq!(exported["AMI_ID"], yard.record("stage")["images"][0]["image"]);
    assert!(exported["AMI_NAME"].as_str().unwrap().starts_with("web-") && exported["AMI_REGION"] == "local");
    for file in ["image.json", "junit.xml", "bakehouse.env", "events.jsonl", "blocks.map", "sbom.cdx.json"] {
        assert!(yard.path().join("artifacts/primary").join(file).is_file(), "{file}");
    }

    let app = "provision:\n  - files: { from: rootfs/, to: /, modes: { 'opt/app/bin/*': '0755' } }\n\
               checks:\n  - file: { path: /opt/app/bin/app, mode: '0755', contains: hello }\n";
    example(&yard, "existing-pipeline", "whole/image", &recipe("app", app));
    yard.file("built", "bin/app", "#!/bin/sh\necho hello\n");
    let source = format!("App={}", yard.path().join("built").display());
    let done = tried(&yard, &["whole", "--buildspec", "image/buildspec.yml", "--source", &source]);
    let record = yard.record("whole/image");
    assert_eq!(done["exported-variables"]["AMI_ID"], record["images"][0]["image"]);
    // The other source's files are inputs like all others.
    assert!(record["inputs"].to_string().contains("opt/app/bin/app"), "{}", record["inputs"]);
}
