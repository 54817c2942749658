//! The objects of a launch against the stand-in: whose bucket takes them, and when and how they go.

use serde_json::json;

use super::launch::Bakery;

const STEP: &str = "  - shell: { run: 'echo made >/srv/by' }\n";

/// Whoever takes the name of a bucket gets nothing that was meant for it.
#[test]
fn a_bucket_of_another_account_gets_nothing() {
    let Some(bakery) = Bakery::new() else { return };
    let squatter = bakery.cloud.other_account(1);
    bakery.cloud.seed_of(&squatter, json!({ "bucket": "squatted" }));
    let before = bakery.held();
    bakery.recipe("", STEP);
    let recipe = bakery.yard.path().join("web/bake.yml");
    let text = std::fs::read_to_string(&recipe).unwrap();
    std::fs::write(&recipe, text.replace(&bakery.bucket, "squatted")).unwrap();
    let said = bakery.bake().code(5);
    for part in ["ListObjectVersions", bakery.cloud.account(), "nothing was left behind"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert_eq!(bakery.held(), before);
    assert_eq!(bakery.cloud.state_of(&squatter)["objects"], json!({}));
    assert!(bakery.asked("RunInstances").is_empty());
    bakery.cloud.finish();
}

/// Of a bucket that keeps versions nothing is left either, and no object goes before the instance that may write more of them.
#[test]
fn objects_go_with_all_their_versions_after_the_instance() {
    // Long enough to see which is first.
    const ENDING: f64 = 1.5;
    let Some(bakery) = Bakery::new() else { return };
    bakery.cloud.settings(json!({ "shutting_down_seconds": ENDING, "upload_seconds": 0.5 }));
    bakery.python(&format!(
        "import boto3\nboto3.client('s3').put_bucket_versioning(Bucket='{}', \
         VersioningConfiguration={{'Status': 'Enabled'}})\n",
        bakery.bucket
    ));
    let before = bakery.held();
    bakery.recipe("", "  - shell: { run: 'yes a-line-of-output | head -n 4000; exit 42' }\n");
    let said = bakery.bake().code(3);
    assert!(said.err.contains("nothing was left behind"), "{}", said.err);
    // What did not fit into an answer came by an object that was not there at once.
    assert!(said.err.matches("a-line-of-output").count() > 4000, "{}", said.err);
    assert_eq!(bakery.held(), before);
    let calls = bakery.cloud.exchanges();
    let time = |name: &str| {
        let first = calls.iter().find(|call| call["operation"] == name);
        first.unwrap_or_else(|| panic!("no {name}"))["time"].as_f64().unwrap()
    };
    assert!(time("DeleteObject") >= time("TerminateInstances") + ENDING);
    // Every call says whose the bucket is to be; an address that is fetched says nothing besides what was signed.
    let own =
        calls.iter().filter(|call| call["service"] == "s3" && call["parameters"]["Bucket"] == bakery.bucket);
    let owners: Vec<_> = own.map(|call| call["parameters"]["ExpectedBucketOwner"].as_str()).collect();
    let expected = owners.iter().filter(|owner| **owner == Some(bakery.cloud.account())).count();
    let fetched = ["provisioner", "bundle"].len();
    // And boto3's own, which set the bucket up.
    assert_eq!(owners.len() - expected, fetched + 1, "{owners:?}");
    bakery.cloud.finish();
}

/// An answer of SSM holds what a look at a step sees: what is in the bucket is what the steps and the seal wrote.
#[test]
fn a_look_at_a_step_writes_no_object() {
    let Some(bakery) = Bakery::new() else { return };
    bakery.recipe("", "  - shell: { run: 'echo begun; sleep 8' }\n");
    bakery.bake().ok();
    let sent = bakery.asked("SendCommand");
    let kept = sent.iter().filter(|command| command["OutputS3BucketName"].is_string()).count();
    assert!(sent.len() > 3, "no look: {sent:?}");
    assert_eq!(kept, 2, "{sent:?}");
    bakery.cloud.finish();
}
