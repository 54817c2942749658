//! The instance of a launch against the stand-in: on spot, in which subnet, of which type where one has no room, and what an
//! image that fails leaves.

use serde_json::{Value, json};

use super::launch::Bakery;
use crate::yard::Said;

const STEP: &str = "  - shell: { run: 'echo made >/srv/by' }\n";

/// What came into the account of a kind.
fn new(before: &Value, after: &Value, kind: &str) -> usize {
    let known = before[kind].as_object().unwrap();
    after[kind].as_object().unwrap().keys().filter(|id| !known.contains_key(*id)).count()
}

/// One image with its snapshot, and nothing else.
fn assert_one_image(before: &Value, after: &Value) {
    assert_eq!((new(before, after, "images"), new(before, after, "snapshots")), (1, 1));
    for kind in ["instances", "volumes", "interfaces", "objects", "spot_requests", "security_groups"] {
        assert_eq!(after[kind], before[kind], "{kind}");
    }
}

/// EC2 stops no instance of a one-time request: its image is made while it runs, and its request ends with it.
#[test]
fn a_bake_on_spot_asks_one_time_and_makes_its_image_of_what_runs() {
    let Some(bakery) = Bakery::new() else { return };
    let before = bakery.held();
    bakery.recipe(", spot: true", STEP);
    bakery.bake().ok();
    assert_one_image(&before, &bakery.held());
    let run = bakery.asked("RunInstances").remove(0);
    let wanted = json!({ "MarketType": "spot", "SpotOptions": { "SpotInstanceType": "one-time" } });
    assert_eq!(run["InstanceMarketOptions"], wanted);
    assert_eq!(run["InstanceInitiatedShutdownBehavior"], "terminate");
    assert!(run["TagSpecifications"].to_string().contains("spot-instances-request"), "{run}");
    let operations = bakery.cloud.operations();
    let at = |name: &str| operations.iter().position(|one| one == name);
    assert!(at("ec2:CreateImage").unwrap() < at("ec2:TerminateInstances").unwrap(), "{operations:?}");
    assert_eq!(at("ec2:StopInstances"), None);
    bakery.cloud.finish();
}

/// By its id, with security groups, as far as the call that launches; found by its tags in a whole bake, which takes the
/// image's name and so comes last.
#[test]
fn an_instance_is_launched_in_the_subnet_and_groups_that_the_recipe_names() {
    const SETUP: &str = "import boto3\n\
        ec2 = boto3.client('ec2')\n\
        subnets = sorted(ec2.describe_subnets()['Subnets'], key=lambda s: s['SubnetId'])\n\
        ec2.create_tags(Resources=[subnets[2]['SubnetId']], Tags=[{'Key': 'tier', 'Value': 'build'}])\n\
        group = ec2.create_security_group(GroupName='out', Description='out', VpcId=subnets[2]['VpcId'])\n\
        print(subnets[2]['SubnetId'], subnets[3]['SubnetId'], group['GroupId'])\n";
    let Some(bakery) = Bakery::new() else { return };
    let made = bakery.python(SETUP);
    let [tagged, named, group] = made.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{made}") };
    bakery.recipe(&format!(", subnet: {named}, security-groups: [{group}]"), STEP);
    let mut bake = bakery.command(&["bake", "--fresh", "--out"]);
    bake.arg(bakery.yard.path().join("out")).arg(bakery.yard.path().join("web"));
    bake.env("BAKEHOUSE_FAULT", "call:RunInstances#1:after:denied");
    let said: Said = bake.output().unwrap().into();
    assert!(said.err.contains("nothing was left behind"), "{}", said.err);
    let run = bakery.asked("RunInstances").remove(0);
    assert_eq!((run["SubnetId"].as_str(), &run["SecurityGroupIds"]), (Some(named), &json!([group])), "{run}");
    let before = bakery.held();
    bakery.recipe(", subnet: { tier: build }", STEP);
    bakery.bake().ok();
    assert_one_image(&before, &bakery.held());
    assert_eq!(bakery.asked("RunInstances").remove(1)["SubnetId"], tagged);
    bakery.cloud.finish();
}

#[test]
fn an_image_that_fails_says_why_and_leaves_nothing() {
    let Some(bakery) = Bakery::new() else { return };
    let before = bakery.held();
    bakery.cloud.settings(json!({ "create_image_failure": "the snapshots were too many" }));
    bakery.recipe("", STEP);
    let said = bakery.bake().code(3);
    for part in ["ami-", "the snapshots were too many", "nothing was left behind"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert_eq!(bakery.held(), before);
    bakery.cloud.finish();
}

/// EC2 may find out after its answer that there is no room.
#[test]
fn where_an_instance_ends_before_it_runs_the_next_type_is_tried() {
    let Some(bakery) = Bakery::new() else { return };
    let ends = json!({ "t3.nano": "Server.InsufficientInstanceCapacity" });
    bakery.cloud.settings(json!({ "ends_pending": ends }));
    let before = bakery.held();
    bakery.recipe(", instance-types: [t3.nano, t3.small]", STEP);
    let said = bakery.bake().ok();
    assert!(said.err.contains("Server.InsufficientInstanceCapacity"), "{}", said.err);
    assert_one_image(&before, &bakery.held());
    let mut types: Vec<Value> =
        bakery.asked("RunInstances").into_iter().map(|run| run["InstanceType"].clone()).collect();
    // One after the other in each of the default VPC's subnets.
    types.dedup();
    assert_eq!(types, ["t3.nano", "t3.small"]);
    bakery.cloud.finish();
}

#[test]
fn where_none_comes_up_the_last_reason_is_told() {
    let Some(bakery) = Bakery::new() else { return };
    bakery.cloud.settings(json!({
        "ends_pending": { "t3.nano": "Server.InternalError", "t3.small": "Client.VolumeLimitExceeded" },
    }));
    let before = bakery.held();
    bakery.recipe(", instance-types: [t3.nano, t3.small]", STEP);
    let said = bakery.bake().code(3);
    for part in ["launch.instance-types", "Client.VolumeLimitExceeded", "nothing was left behind"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert_eq!(bakery.held(), before);
    bakery.cloud.finish();
}

/// The instance's volume has them, and so the image: EC2 encrypts it as it is made, and no copy of the base is.
#[test]
fn the_disk_of_the_recipe_is_that_of_the_instance_and_of_its_image() {
    const SETUP: &str = "import boto3\nprint(boto3.client('kms').create_key()['KeyMetadata']['Arn'])\n";
    let Some(bakery) = Bakery::new() else { return };
    let key = bakery.python(SETUP).trim().to_owned();
    let before = bakery.held();
    bakery.recipe("", STEP);
    let recipe = bakery.yard.path().join("web/bake.yml");
    let text = std::fs::read_to_string(&recipe).unwrap();
    let disk = format!("disk: {{ type: gp3, iops: 4000, throughput: 250MiB, encrypt: '{key}' }}\n");
    let text = text.replace("{ name: \"web-1\" }", "{ name: \"web-1\", imds: required }") + &disk;
    std::fs::write(&recipe, text).unwrap();
    let image = bakery.bake().ok().out.trim().to_owned();
    let after = bakery.held();
    assert_one_image(&before, &after);
    let described = &after["images"][&image]["described"];
    assert_eq!(described["ImdsSupport"], "v2.0");
    let root = &described["BlockDeviceMappings"][0]["Ebs"];
    let wanted = (&json!("gp3"), &json!(4000), &json!(250));
    assert_eq!((&root["VolumeType"], &root["Iops"], &root["Throughput"]), wanted, "{root}");
    let snapshot = root["SnapshotId"].as_str().unwrap();
    assert_eq!(after["snapshots"][snapshot]["key"], json!(key));
    assert!(bakery.asked("CopyImage").is_empty());
    bakery.cloud.finish();
}
