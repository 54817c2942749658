//! The command line as a user meets it, where no bake is needed: results, messages and exit codes.

#![expect(clippy::disallowed_methods, reason = "programs are started here as a user starts them")]

mod snapshot;
mod vpc;

use std::fs;

use bakehouse::cloud::{BootMode, NewImage, Tags};
use serde_json::Value;

use crate::stored;
use crate::yard::{Said, Yard};

const RECIPE: &str = "version: 1\nname: web\narchitecture: x86_64\nbase: { family: os-base }\n";

/// Wrong input is exit code 2, whatever the verb, with a message that says what to do.
#[test]
fn wrong_input_is_told_with_what_to_do() {
    let yard = Yard::new();
    yard.recipe("web", RECIPE);
    yard.recipe("wrong", "version: 1\nnmae: web\n");
    yard.file("specs", "wrong.yml", "version: 0.2\nartefacts: {}\nphases: { build: { commands: [make] } }\n");
    yard.file("newer", "bakehouse-out/image.json", r#"{"format": 99}"#);
    yard.file("garbage", "bakehouse-out/image.json", "no JSON");
    let cases: [(&[&str], &[&str]); 15] = [
        (&["validate", "wrong"], &["did you mean `name`?", "wrong/bake.yml:2:1"]),
        (&["validate", "nowhere"], &["nowhere", "bakehouse init"]),
        (&["validate", "specs/wrong.yml"], &["error: `artefacts`", "specs/wrong.yml:2:1"]),
        (&["plan", "wrong"], &["did you mean `name`?"]),
        (&["plan", "web"], &["base.family", "no image of the family `os-base`", "bake it first"]),
        (&["plan", "web", "--commit", "not-a-commit"], &["--commit", "hexadecimal"]),
        (&["plan", "web", "--account", "1"], &["--account", "twelve digits"]),
        (&["plan", "web", "--region", "Über"], &["--region", "eu-west-1"]),
        (
            &["images", "show", "ami-00000000000000000"],
            &["no image `ami-00000000000000000`", "bakehouse images"],
        ),
        (&["export", "web", "disk.vmdk"], &[".raw, .img or .qcow2"]),
        (&["export", "web", "web/bake.yml.raw"], &["no image `web`"]),
        (&["shell", "bake-000000000000"], &["no root of bake-000000000000 is kept"]),
        (&["bake", "--drop", "../.."], &["is kept"]),
        (&["init", "web"], &["web/bake.yml", "move"]),
        (&["init", "new", "--from", "quickstrat"], &["did you mean `quickstart`?"]),
    ];
    for (args, parts) in cases {
        let said = yard.run(args).code(2);
        for part in parts {
            assert!(said.err.contains(part), "{args:?}: {part}\n{}", said.err);
        }
        assert!(said.out.is_empty(), "{args:?}: {}", said.out);
    }
}

/// A record of a newer version, or none at all, is refused by name.
#[test]
fn a_record_that_cannot_be_read_is_refused() {
    let yard = Yard::new();
    yard.file("newer", "bakehouse-out/image.json", r#"{"format": 99}"#);
    yard.file("garbage", "bakehouse-out/image.json", "no JSON");
    for (record, part) in [("newer", "the format 99"), ("garbage", "is no record"), ("none", "bake first")] {
        fs::create_dir_all(yard.path().join(record)).unwrap();
        let said = yard.run(&["test", record]).code(2);
        assert!(said.err.contains(part), "{record}: {}", said.err);
    }
}

/// Without --local and without a region there is no cloud, and the program says which there are.
#[test]
fn without_a_cloud_the_program_says_which_there_is() {
    let yard = Yard::new();
    yard.recipe("web", RECIPE);
    let mut command = yard.command();
    for name in ["BAKEHOUSE_LOCAL", "BAKEHOUSE_REGION", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"] {
        command.env_remove(name);
    }
    // No profile of the user who runs the tests.
    command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_EC2_METADATA_DISABLED", "true");
    let said: crate::yard::Said = command.args(["plan", "web"]).output().unwrap().into();
    assert!(said.code(2).err.contains("--local"));
}

/// What `init` writes is right, and the schema is JSON.
#[test]
fn init_validate_and_schema_agree() {
    let yard = Yard::new();
    let written = yard.run(&["init", "mine", "--from", "web"]).ok().out;
    assert!(written.lines().any(|line| line.ends_with("mine/bake.yml")), "{written}");
    let validated = yard.run(&["validate", "mine"]).ok().out;
    assert!(
        validated.contains("mine/bake.yml: good") && validated.contains("mine/buildspec.yml: good"),
        "{validated}"
    );
    let json: Value = serde_json::from_str(&yard.run(&["validate", "mine", "--json"]).ok().out).unwrap();
    assert_eq!(json[0]["good"], true);
    let schema: Value = serde_json::from_str(&yard.run(&["schema"]).ok().out).unwrap();
    assert_eq!(schema["title"], "Bakehouse recipe (bake.yml)");
}

/// A plan is shown as text and as JSON, and nothing is made by it.
#[test]
fn a_plan_changes_nothing() {
    let yard = Yard::new();
    yard.recipe(
        "base",
        "version: 1\nname: base\narchitecture: x86_64\nbase: { scratch: { distribution: debian, suite: bookworm } }\n\
         vars: { greeting: hello }\nprovision:\n  - shell: { run: \"echo ${greeting}\" }\n",
    );
    let text = yard.run(&["plan", "base", "--var", "greeting=good-day"]).ok().out;
    for part in ["method    scratch: ", "shell: echo good-day", "one snapshot with all blocks"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json: Value = serde_json::from_str(&yard.run(&["plan", "base", "--json"]).ok().out).unwrap();
    assert_eq!(json["method"], "scratch");
    let dry = yard.run(&["bake", "base", "--dry-run"]).ok().out;
    assert!(dry.contains("method    scratch: "), "{dry}");
    assert!(!yard.out("base").exists() && !yard.work().exists() && yard.snapshots().is_empty());
}

/// Where a deletion ends in the middle, what is left of the images before it is told.
#[tokio::test]
async fn what_is_left_of_deleted_images_is_told() {
    let yard = Yard::new();
    let (cloud, _) = stored::cloud(&yard.store());
    let image = stored::image(&cloud, [7_u8; 512].as_slice(), 1, None).await;
    let snapshot = image.root().unwrap().1.as_str();
    let other = NewImage {
        name: "other".to_owned(),
        description: String::new(),
        attributes: image.attributes.clone(),
        tags: Tags::new(),
    };
    let other = cloud.images.register(&other).await.unwrap();
    let fault = "call:DeleteSnapshot#1:before:denied:lasting";
    let mut command = yard.command();
    command.args(["images", "delete", image.id.as_str(), other.as_str()]).env("BAKEHOUSE_FAULT", fault);
    let said = Said::from(command.output().unwrap()).code(4);
    assert!(said.err.contains("DeregisterImage") && said.err.contains(snapshot), "{}", said.err);
    yard.run(&["images", "delete", other.as_str()]).ok();
    assert!(yard.snapshots().is_empty());
}

/// Images are listed, shown, exported and deleted; an export is whole or not there.
#[tokio::test]
async fn images_are_listed_shown_exported_and_deleted() {
    let yard = Yard::new();
    assert!(yard.run(&["images"]).ok().out.is_empty());
    let disk = b"the beginning of a disk".repeat(100_000);
    let (cloud, _) = stored::cloud(&yard.store());
    let image = stored::image(&cloud, &*disk, 1, Some(BootMode::Uefi)).await;
    let id = image.id.as_str();

    let list = yard.run(&["images"]).ok().out;
    assert!(list.lines().nth(1).unwrap().starts_with(id), "{list}");
    let json: Value = serde_json::from_str(&yard.run(&["images", "--json"]).ok().out).unwrap();
    assert_eq!(json[0]["image"]["id"], id);
    for name in [id, "test"] {
        let shown = yard.run(&["images", "show", name]).ok().out;
        assert!(shown.contains("root device") && shown.contains(id), "{shown}");
    }

    // What a killed export left.
    let left = yard.path().join(".bakehouse-unfinished-123456");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("disk.raw"), "half").unwrap();
    yard.run(&["export", id, "disk.raw"]).ok();
    assert!(!left.exists());
    let exported = fs::read(yard.path().join("disk.raw")).unwrap();
    assert_eq!(exported.len(), 1 << 30);
    assert_eq!(exported[..disk.len()], *disk);
    // What was never written is noise.
    assert!(exported[600 << 20..].iter().take(4096).any(|byte| *byte != 0));
    assert!(yard.run(&["export", id, "disk.raw"]).code(2).err.contains("exists"));
    fs::remove_file(yard.path().join("disk.raw")).unwrap();

    let dry = yard.run(&["images", "delete", id, "--dry-run"]).ok();
    assert!(dry.out.contains("would delete"), "{}", dry.out);
    yard.run(&["images", "delete", id]).ok();
    assert!(yard.run(&["images"]).ok().out.is_empty());
    assert!(yard.snapshots().is_empty());
    yard.run(&["images", "delete", id]).code(2);
}
