//! `bakehouse vpc` against the stand-in: made, found by a bake, taken away, and what holds one.

use std::time::Duration;

use serde_json::{Value, json};

use super::StandIn;
use super::launch::Bakery;
use super::policy::boto;
use crate::yard::{Said, Yard};

/// By what a VPC's parts are counted in an account.
pub const PARTS: [&str; 5] = ["vpcs", "internet_gateways", "subnets", "route_tables", "security_groups"];

const RECIPE: &str = "version: 1\nname: web\narchitecture: x86_64\nbase: { family: os-base }\n";

/// How many of each the account holds.
pub fn counts(state: &Value) -> [usize; 5] {
    PARTS.map(|kind| state[kind].as_object().unwrap().len())
}

/// That the account has one VPC as the template makes one, with all its tags.
#[track_caller]
pub fn assert_whole(state: &Value, after: &str) {
    assert_eq!(counts(state), [1; 5], "{after}: {state:#}");
    let only = |kind: &str| state[kind].as_object().unwrap().iter().next().unwrap();
    let ((vpc, _), (gateway, of_gateway)) = (only("vpcs"), only("internet_gateways"));
    let ((subnet, of_subnet), (_, table), (_, group)) =
        (only("subnets"), only("route_tables"), only("security_groups"));
    for part in [of_gateway, of_subnet, table] {
        assert_eq!(part["vpc"], json!(vpc), "{after}");
    }
    assert_eq!(
        (&of_subnet["public"], &of_subnet["addresses"]),
        (&json!(true), &json!("10.97.0.0/24")),
        "{after}"
    );
    assert_eq!(
        (&table["routes"]["0.0.0.0/0"], &table["subnets"]),
        (&json!(gateway), &json!([subnet])),
        "{after}"
    );
    assert_eq!((&group["out"], &group["in"]), (&json!(["tcp 443", "tcp 80"]), &json!(0)), "{after}");
    for kind in PARTS {
        let tags = &only(kind).1["tags"];
        assert_eq!(
            (&tags["bakehouse:vpc"], &tags["bakehouse:stage"]),
            (&json!("web"), &json!("vpc")),
            "{after}"
        );
        for key in ["bakehouse:bake", "bakehouse:expires", "Name"] {
            assert!(tags[key].is_string(), "{after}: {kind} without {key}");
        }
    }
}

pub(super) fn run(yard: &Yard, cloud: &StandIn, args: &[&str]) -> Said {
    cloud.program(yard).args(args).output().unwrap().into()
}

pub(super) fn in_yard() -> (Yard, StandIn) {
    let (yard, cloud) = (Yard::new(), StandIn::start());
    yard.recipe("web", RECIPE);
    (yard, cloud)
}

/// An instance in the only subnet of the VPC: its id.
pub(super) fn instance(cloud: &StandIn, yard: &Yard, tags: &[(&str, &str)]) -> String {
    let disk = yard.path().join("disk.raw");
    std::fs::write(&disk, "disk").unwrap();
    let name = format!("image-{}", tags.len());
    let (image, _) = cloud.seed_image(cloud.account(), json!({ "name": name, "disk": disk }));
    let tags: Vec<Value> = tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect();
    boto(
        cloud,
        "import json\n\
         ec2 = boto3.client('ec2')\n\
         subnet = ec2.describe_subnets(Filters=[{'Name': 'tag:bakehouse:vpc', 'Values': ['web']}])['Subnets'][0]\n\
         tags = json.loads(sys.argv[2])\n\
         one = ec2.run_instances(ImageId=sys.argv[1], MinCount=1, MaxCount=1, InstanceType='t3.small',\n\
         \x20   SubnetId=subnet['SubnetId'],\n\
         \x20   TagSpecifications=[{'ResourceType': 'instance', 'Tags': tags}] if tags else [])['Instances'][0]\n\
         ec2.get_waiter('instance_running').wait(InstanceIds=[one['InstanceId']], WaiterConfig={'Delay': 1})\n\
         print(one['InstanceId'])\n",
        &[&image, &json!(tags).to_string()],
    )
}

/// By its tag, without that an id is copied.
#[test]
fn a_bake_finds_the_subnet_of_a_vpc_that_was_made_before_it() {
    let Some(bakery) = Bakery::new() else { return };
    let before = bakery.held();
    bakery.recipe(", subnet: { \"bakehouse:vpc\": web }", "  - shell: { run: 'echo made >/srv/by' }\n");
    let recipe = bakery.yard.path().join("web");
    let vpc = |word: &str| -> Said { bakery.command(&["vpc", word]).arg(&recipe).output().unwrap().into() };
    let subnet = vpc("create").ok().out.trim().to_owned();
    assert_whole(&bakery.held(), "create");
    bakery.bake().ok();
    assert_eq!(bakery.asked("RunInstances")[0]["SubnetId"], json!(subnet));
    let said = vpc("delete").ok();
    assert!(said.err.contains("is gone: vpc-"), "{}", said.err);
    let after = bakery.held();
    assert_eq!(after["images"].as_object().unwrap().len(), before["images"].as_object().unwrap().len() + 1);
    for kind in PARTS.into_iter().chain(["instances", "volumes", "interfaces", "objects"]) {
        assert_eq!(after[kind], before[kind], "{kind}");
    }
    bakery.cloud.finish();
}

#[test]
fn a_second_create_gives_the_same_vpc_and_a_second_delete_finds_nothing() {
    let (yard, cloud) = in_yard();
    let first = run(&yard, &cloud, &["vpc", "create", "web"]).ok();
    assert_whole(&cloud.state(), "create");
    let subnet = first.out.trim();
    let environment = std::fs::read_to_string(yard.out("web").join("vpc.env")).unwrap();
    let state = cloud.state();
    for (name, kind) in
        [("VPC_ID", "vpcs"), ("SUBNET_ID", "subnets"), ("SECURITY_GROUP_ID", "security_groups")]
    {
        let id = state[kind].as_object().unwrap().keys().next().unwrap();
        assert!(environment.contains(&format!("export {name}='{id}'\n")), "{environment}");
    }
    let expires = |state: &Value| {
        state["vpcs"].as_object().unwrap().values().next().unwrap()["tags"]["bakehouse:expires"].clone()
    };
    let again = run(&yard, &cloud, &["vpc", "create", "web", "--json", "--expires-after", "2d"]).ok();
    assert!(again.err.contains("was there"), "{}", again.err);
    let told: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!((&told["subnet"], &told["name"]), (&json!(subnet), &json!("web")));
    let later = cloud.state();
    assert_whole(&later, "create again");
    assert_eq!(told["expires"], expires(&later));
    assert!(expires(&later).as_str() > expires(&state).as_str());
    // A shorter time takes nothing away.
    run(&yard, &cloud, &["vpc", "create", "web", "--expires-after", "1h"]).ok();
    assert_eq!(expires(&cloud.state()), expires(&later));
    for (word, part) in [("delete", "is gone: vpc-"), ("delete", "there is no VPC web")] {
        let said = run(&yard, &cloud, &["vpc", word, "web"]).ok();
        assert!(said.err.contains(part) && said.out.is_empty(), "{}", said.err);
        assert_eq!(counts(&cloud.state()), [0; 5]);
    }
    assert!(!yard.out("web").join("vpc.env").exists());
    yard.assert_nothing_left();
    cloud.finish();
}

#[test]
fn a_dry_run_says_what_is_missing_and_what_would_go() {
    let (yard, cloud) = in_yard();
    let dry = |word: &str| run(&yard, &cloud, &["vpc", word, "web", "--dry-run"]).ok();
    let said = dry("create");
    assert!(
        said.out.starts_with("would call CreateVpc\n") && said.out.ends_with("11 calls\n"),
        "{}",
        said.out
    );
    assert!(dry("delete").out.ends_with("0 to remove\n"));
    let killed = cloud
        .program(&yard)
        .env("BAKEHOUSE_FAULT", "call:CreateRoute#1:before:kill")
        .args(["vpc", "create", "web"])
        .output();
    assert!(killed.unwrap().status.code().is_none());
    let state = cloud.state();
    let said = dry("create");
    assert!(
        said.out.starts_with("would call CreateRoute\n") && said.out.ends_with("5 calls\n"),
        "{}",
        said.out
    );
    let theirs = instance(&cloud, &yard, &[("Name", "their db")]);
    let said = dry("delete");
    assert!(
        said.out.ends_with("4 to remove\n") && said.out.contains("would remove VPC vpc-"),
        "{}",
        said.out
    );
    assert!(said.err.contains(&theirs) && said.err.contains("their db"), "{}", said.err);
    for kind in PARTS {
        assert_eq!(cloud.state()[kind], state[kind], "{kind}");
    }
    assert!(!yard.out("web").exists());
    cloud.finish();
}

/// Another VPC, whatever its name, is nobody's business.
#[test]
fn two_vpcs_of_two_names_know_nothing_of_each_other() {
    let (yard, cloud) = in_yard();
    run(&yard, &cloud, &["vpc", "create", "--name", "one"]).ok();
    run(&yard, &cloud, &["vpc", "create", "--name", "two", "--cidr", "10.98.0.0/28", "--zone", "us-east-1b"])
        .ok();
    assert_eq!(counts(&cloud.state()), [2; 5]);
    run(&yard, &cloud, &["vpc", "delete", "--name", "one"]).ok();
    let state = cloud.state();
    assert_eq!(counts(&state), [1; 5]);
    let subnet = state["subnets"].as_object().unwrap().values().next().unwrap();
    assert_eq!(
        (&subnet["addresses"], &subnet["tags"]["bakehouse:vpc"]),
        (&json!("10.98.0.0/28"), &json!("two"))
    );
    cloud.finish();
}

#[test]
fn who_is_in_a_vpc_is_named_and_keeps_it() {
    let (yard, cloud) = in_yard();
    run(&yard, &cloud, &["vpc", "create", "web"]).ok();
    let theirs = instance(&cloud, &yard, &[("Name", "their db")]);
    let said = run(&yard, &cloud, &["vpc", "delete", "web"]).code(4);
    for part in [theirs.as_str(), "their db", "hint: end what may go", "left behind"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert_whole(&cloud.state(), "refused");
    assert_eq!(cloud.state()["instances"][&theirs]["state"], "running");
    let end = "ec2 = boto3.client('ec2')\nec2.terminate_instances(InstanceIds=[sys.argv[1]])\n";
    boto(&cloud, end, &[&theirs]);
    // One that ends is waited for; an interface that stays is named when the time is over.
    let network_interface = boto(
        &cloud,
        "ec2 = boto3.client('ec2')\n\
         subnet = ec2.describe_subnets(Filters=[{'Name': 'tag:bakehouse:vpc', 'Values': ['web']}])['Subnets'][0]\n\
         print(ec2.create_network_interface(SubnetId=subnet['SubnetId'], Description='of a load balancer')\n\
         \x20   ['NetworkInterface']['NetworkInterfaceId'])\n",
        &[],
    );
    let said = run(&yard, &cloud, &["vpc", "delete", "web", "--within", "3s"]).code(4);
    for part in [network_interface.as_str(), "of a load balancer", "delete-network-interface", "after 3 s"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert_whole(&cloud.state(), "held up");
    boto(
        &cloud,
        "boto3.client('ec2').delete_network_interface(NetworkInterfaceId=sys.argv[1])\n",
        &[&network_interface],
    );
    // What is in it besides is named too.
    let group = boto(
        &cloud,
        "ec2 = boto3.client('ec2')\n\
         vpc = ec2.describe_vpcs(Filters=[{'Name': 'tag:bakehouse:vpc', 'Values': ['web']}])['Vpcs'][0]['VpcId']\n\
         print(ec2.create_security_group(GroupName='theirs', Description='-', VpcId=vpc)['GroupId'])\n",
        &[],
    );
    let said = run(&yard, &cloud, &["vpc", "delete", "web"]).code(4);
    assert!(
        said.err.contains(&format!("the security group {group}, which is not Bakehouse's")),
        "{}",
        said.err
    );
    boto(&cloud, "boto3.client('ec2').delete_security_group(GroupId=sys.argv[1])\n", &[&group]);
    run(&yard, &cloud, &["vpc", "delete", "web"]).ok();
    assert_eq!(counts(&cloud.state()), [0; 5]);
    cloud.finish();
}

/// What a bake left in it that was killed.
#[test]
fn a_bakes_instance_that_has_expired_is_ended_with_its_vpc() {
    let (yard, cloud) = in_yard();
    run(&yard, &cloud, &["vpc", "create", "web"]).ok();
    let bake = ("bakehouse:bake", "bake-0123456789ab");
    let expired = instance(&cloud, &yard, &[bake, ("bakehouse:expires", "2026-01-02T03:04:05Z")]);
    let said = run(&yard, &cloud, &["vpc", "delete", "web"]).ok();
    assert!(said.err.contains(&format!("{expired} is a bake's that has expired")), "{}", said.err);
    let state = cloud.state();
    assert_eq!((counts(&state), &state["instances"][&expired]["state"]), ([0; 5], &json!("terminated")));
    cloud.finish();
}

/// By a sweep on another host, which knows its tags alone.
#[test]
fn a_forgotten_vpc_is_swept_when_it_has_expired_and_nobody_is_in_it() {
    let (yard, cloud) = in_yard();
    run(&yard, &cloud, &["vpc", "create", "web"]).ok();
    let elsewhere = Yard::new();
    let sweep = |args: &[&str]| run(&elsewhere, &cloud, &[&["sweep"], args].concat()).ok();
    let said = sweep(&[]);
    assert!(said.err.contains("it expires at"), "{}", said.err);
    run(&yard, &cloud, &["vpc", "delete", "web"]).ok();
    run(&yard, &cloud, &["vpc", "create", "web", "--expires-after", "1s"]).ok();
    std::thread::sleep(Duration::from_secs(2));
    let theirs = instance(&cloud, &yard, &[]);
    let said = sweep(&[]);
    assert!(said.err.contains(&format!("the instance {theirs} is in it")), "{}", said.err);
    assert_whole(&cloud.state(), "held");
    boto(&cloud, "boto3.client('ec2').terminate_instances(InstanceIds=[sys.argv[1]])\n", &[&theirs]);
    // A bake's goes with the same sweep, and is waited for.
    let bake = ("bakehouse:bake", "bake-0123456789ab");
    let expired = instance(&cloud, &yard, &[bake, ("bakehouse:expires", "2026-01-02T03:04:05Z")]);
    let dry = sweep(&["--dry-run"]);
    assert!(dry.out.contains("would remove VPC vpc-") && dry.out.contains(&expired), "{}", dry.out);
    assert_whole(&cloud.state(), "dry");
    let said = sweep(&[]);
    assert!(said.out.contains("removed VPC vpc-"), "{}", said.out);
    assert_eq!(counts(&cloud.state()), [0; 5], "{}", said.err);
    cloud.finish();
}

#[test]
fn where_there_may_be_no_more_vpcs_the_quota_is_named() {
    let (yard, cloud) = in_yard();
    // The default one is one of them.
    cloud.settings(json!({ "vpcs": 1 }));
    let said = run(&yard, &cloud, &["vpc", "create", "web"]).code(3);
    for part in ["VpcLimitExceeded", "VPCs per Region", "vpc delete", "nothing was left behind"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert_eq!(counts(&cloud.state()), [0; 5]);
    yard.assert_nothing_left();
    cloud.finish();
}

/// What was just made does not show yet, and other calls do not know it.
#[test]
fn what_does_not_show_at_once_is_waited_for() {
    let (yard, cloud) = in_yard();
    cloud.settings(json!({ "describe_not_found_seconds": 1 }));
    run(&yard, &cloud, &["vpc", "create", "web"]).ok();
    assert_whole(&cloud.state(), "late");
    std::thread::sleep(Duration::from_secs(1));
    run(&yard, &cloud, &["vpc", "delete", "web"]).ok();
    assert_eq!(counts(&cloud.state()), [0; 5]);
    cloud.finish();
}

/// As a worker reads it, and as CodePipeline is told it.
#[test]
fn a_stage_answers_with_the_ids_of_what_it_made() {
    let (yard, cloud) = in_yard();
    let answered = |args: &[&str], code: i32| -> Value {
        let file = yard.path().join("answer");
        let mut command = cloud.program(&yard);
        let said: Said = command.env("BAKEHOUSE_ANSWER", &file).args(args).output().unwrap().into();
        said.code(code);
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
    };
    let made = answered(&["vpc", "create", "web"], 0);
    let state = cloud.state();
    let id = |kind: &str| state[kind].as_object().unwrap().keys().next().unwrap().clone();
    assert_eq!(made["answer"], "done");
    assert_eq!(
        made["variables"],
        json!({ "VPC_ID": id("vpcs"), "SUBNET_ID": id("subnets"), "SECURITY_GROUP_ID": id("security_groups") })
    );
    let theirs = instance(&cloud, &yard, &[]);
    let failed = answered(&["vpc", "delete", "web"], 4);
    assert_eq!(failed["answer"], "failed");
    assert!(failed["message"].as_str().unwrap().contains(&theirs), "{failed}");
    boto(&cloud, "boto3.client('ec2').terminate_instances(InstanceIds=[sys.argv[1]])\n", &[&theirs]);
    assert_eq!(answered(&["vpc", "delete", "web"], 0)["variables"], json!({}));
    cloud.finish();
}
