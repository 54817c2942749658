//! `bakehouse vpc` and `bakehouse sweep`, with what others do to a VPC in the meantime.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::StandIn;
use super::policy::boto;
use super::vpc::{PARTS, assert_whole, counts, in_yard, instance, run};
use crate::faults::run::{continued, until_stopped};
use crate::yard::{Said, Yard};

/// The program, held before the first of these calls.
fn held(yard: &Yard, cloud: &StandIn, call: &str, args: &[&str]) -> Child {
    let mut command = cloud.program(yard);
    command.args(args).env("BAKEHOUSE_FAULT", format!("call:{call}#1:before:stop"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until_stopped(child.id());
    child
}

/// Of all that is in a VPC the subnet alone is refused then: it is asked for first.
#[test]
fn whoever_comes_in_when_a_vpc_is_about_to_go_keeps_all_of_it() {
    let (yard, cloud) = in_yard();
    run(&yard, &cloud, &["vpc", "create", "web"]).ok();
    let child = held(&yard, &cloud, "DeleteSubnet", &["vpc", "delete", "web"]);
    let theirs = instance(&cloud, &yard, &[]);
    let said = continued(child).code(4);
    assert!(said.err.contains(&theirs), "{}", said.err);
    assert_whole(&cloud.state(), "refused");
    run(&yard, &cloud, &["vpc", "delete", "web"]).code(4);
    assert_eq!(counts(&cloud.state()), [1; 5]);
    cloud.finish();
}

/// The only part of a kind, by its tag.
fn named(state: &Value, kind: &str) -> String {
    let all = state[kind].as_object().unwrap();
    assert_eq!(all.len(), 1, "{all:#?}");
    all.values().next().unwrap()["tags"]["bakehouse:vpc"].as_str().unwrap().to_owned()
}

/// Two that have expired: while the one goes, the other is given to a run.
#[test]
fn a_sweep_leaves_what_another_run_goes_on_with_since_it_looked() {
    let (yard, cloud) = in_yard();
    for name in ["one", "two"] {
        run(&yard, &cloud, &["vpc", "create", "--name", name, "--expires-after", "1s"]).ok();
    }
    std::thread::sleep(Duration::from_secs(2));
    let elsewhere = Yard::new();
    let child = held(&elsewhere, &cloud, "DeleteVpc", &["sweep"]);
    let name = named(&cloud.state(), "subnets");
    run(&yard, &cloud, &["vpc", "create", "--name", &name]).ok();
    let said = continued(child).ok();
    assert!(said.err.contains("it expires at"), "{}", said.err);
    let state = cloud.state();
    assert_eq!((counts(&state), named(&state, "vpcs")), ([1; 5], name));
    cloud.finish();
}

#[test]
fn a_sweep_that_is_refused_looks_again_who_came_in() {
    let (yard, cloud) = in_yard();
    run(&yard, &cloud, &["vpc", "create", "web", "--expires-after", "1s"]).ok();
    std::thread::sleep(Duration::from_secs(2));
    let elsewhere = Yard::new();
    let child = held(&elsewhere, &cloud, "DeleteSubnet", &["sweep"]);
    let theirs = instance(&cloud, &yard, &[]);
    let said = continued(child).ok();
    assert!(said.err.contains(&format!("the instance {theirs} is in it")), "{}", said.err);
    assert_whole(&cloud.state(), "swept");
    cloud.finish();
}

/// What has no interface is nobody's obstacle until the VPC itself is to go: so it is looked for before anything goes.
#[test]
fn what_is_somebodys_in_a_vpc_keeps_all_of_it() {
    let (yard, cloud) = in_yard();
    run(&yard, &cloud, &["vpc", "create", "web", "--expires-after", "1s"]).ok();
    std::thread::sleep(Duration::from_secs(2));
    let find = "ec2 = boto3.client('ec2')\n\
                named = [{'Name': 'tag:bakehouse:vpc', 'Values': ['web']}]\n\
                vpc = ec2.describe_vpcs(Filters=named)['Vpcs'][0]['VpcId']\n";
    for (make, kind, end) in [
        (
            "ec2.create_security_group(GroupName='theirs', Description='-', VpcId=vpc)['GroupId']",
            "security group",
            "ec2.delete_security_group(GroupId=sys.argv[1])",
        ),
        (
            "ec2.create_route_table(VpcId=vpc)['RouteTable']['RouteTableId']",
            "route table",
            "ec2.delete_route_table(RouteTableId=sys.argv[1])",
        ),
    ] {
        let theirs = boto(&cloud, &format!("{find}print({make})\n"), &[]);
        let told = format!("the {kind} {theirs}, which is not Bakehouse's");
        let before = cloud.state();
        let dry = run(&yard, &cloud, &["vpc", "delete", "web", "--dry-run"]).ok();
        let (refused, swept) =
            (run(&yard, &cloud, &["vpc", "delete", "web"]).code(4), run(&yard, &cloud, &["sweep"]).ok());
        for said in [dry, refused, swept] {
            assert!(said.err.contains(&told), "{}", said.err);
        }
        for kind in PARTS {
            assert_eq!(cloud.state()[kind], before[kind], "{kind}");
        }
        boto(&cloud, &format!("{find}{end}\n"), &[&theirs]);
    }
    run(&yard, &cloud, &["vpc", "delete", "web"]).ok();
    assert_eq!(counts(&cloud.state()), [0; 5]);
    cloud.finish();
}

/// Recipes name the tag, so a team may write it on a VPC that it keeps.
#[test]
fn a_vpc_that_only_has_the_name_is_not_taken_for_bakehouses() {
    let (yard, cloud) = in_yard();
    boto(
        &cloud,
        "ec2 = boto3.client('ec2')\n\
         tags = [{'Key': 'bakehouse:vpc', 'Value': 'web'}, {'Key': 'bakehouse:expires', 'Value': '2026-01-02T03:04:05Z'}]\n\
         of = lambda kind: [{'ResourceType': kind, 'Tags': tags}]\n\
         vpc = ec2.create_vpc(CidrBlock='10.1.0.0/16', TagSpecifications=of('vpc'))['Vpc']['VpcId']\n\
         ec2.create_subnet(VpcId=vpc, CidrBlock='10.1.0.0/24', TagSpecifications=of('subnet'))\n\
         ec2.create_internet_gateway(TagSpecifications=of('internet-gateway'))\n",
        &[],
    );
    let theirs = cloud.state();
    let assert_theirs = || {
        for kind in PARTS {
            assert_eq!(cloud.state()[kind], theirs[kind], "{kind}");
        }
    };
    let said = run(&yard, &cloud, &["vpc", "delete", "web"]).ok();
    assert!(said.err.contains("there is no VPC web"), "{}", said.err);
    run(&yard, &cloud, &["sweep"]).ok();
    assert_theirs();
    run(&yard, &cloud, &["vpc", "create", "web"]).ok();
    assert_eq!(cloud.state()["vpcs"].as_object().unwrap().len(), 2);
    run(&yard, &cloud, &["vpc", "delete", "web"]).ok();
    assert_theirs();
    cloud.finish();
}

/// A second VPC of the name, and a gateway that none has, as of runs that were killed.
#[test]
fn of_several_one_that_stays_keeps_no_other_and_is_told() {
    let (yard, cloud) = in_yard();
    run(&yard, &cloud, &["vpc", "create", "web"]).ok();
    let first = cloud.state()["vpcs"].as_object().unwrap().keys().next().unwrap().clone();
    let theirs = instance(&cloud, &yard, &[]);
    boto(
        &cloud,
        "ec2 = boto3.client('ec2')\n\
         tags = [{'Key': 'bakehouse:vpc', 'Value': 'web'}, {'Key': 'bakehouse:stage', 'Value': 'vpc'}]\n\
         of = lambda kind: [{'ResourceType': kind, 'Tags': tags}]\n\
         ec2.create_vpc(CidrBlock='10.97.0.0/24', TagSpecifications=of('vpc'))\n\
         ec2.create_internet_gateway(TagSpecifications=of('internet-gateway'))\n",
        &[],
    );
    let said = run(&yard, &cloud, &["vpc", "delete", "web"]).code(4);
    for part in
        [theirs, format!("left behind (`bakehouse sweep` removes what it may):\n  {first}, of the VPC web")]
    {
        assert!(said.err.contains(&part), "{part}: {}", said.err);
    }
    assert_whole(&cloud.state(), "refused");
    cloud.finish();
}

/// By a signal, while it waits for an interface.
#[test]
fn a_delete_that_is_interrupted_says_that_its_vpc_stays() {
    let (yard, cloud) = in_yard();
    run(&yard, &cloud, &["vpc", "create", "web"]).ok();
    boto(
        &cloud,
        "ec2 = boto3.client('ec2')\n\
         subnet = ec2.describe_subnets(Filters=[{'Name': 'tag:bakehouse:vpc', 'Values': ['web']}])['Subnets'][0]\n\
         ec2.create_network_interface(SubnetId=subnet['SubnetId'])\n",
        &[],
    );
    let mut command = cloud.program(&yard);
    command.args(["vpc", "delete", "web", "--within", "5m"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let looks = || cloud.operations().iter().filter(|one| *one == "ec2:DescribeNetworkInterfaces").count();
    let began = Instant::now();
    while looks() < 2 {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not wait");
        std::thread::sleep(Duration::from_millis(50));
    }
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    let said = Said::from(child.wait_with_output().unwrap()).code(4);
    let vpc = cloud.state()["vpcs"].as_object().unwrap().keys().next().unwrap().clone();
    assert!(said.err.contains(&format!("{vpc}, of the VPC web")), "{}", said.err);
    assert_whole(&cloud.state(), "interrupted");
    cloud.finish();
}

/// Two builds of one recipe: the first to end leaves the VPC to the other.
#[test]
fn a_delete_leaves_a_vpc_that_another_run_was_given_since() {
    let (yard, cloud) = in_yard();
    let elsewhere = Yard::new();
    let other = |word: &str, more: &[&str]| {
        run(&elsewhere, &cloud, &[&["vpc", word, "--name", "web"], more].concat()).ok()
    };
    run(&yard, &cloud, &["vpc", "create", "web"]).ok();
    other("create", &[]);
    // Asked again it says the same.
    for args in [&["--dry-run"][..], &[], &[]] {
        let said = run(&yard, &cloud, &[&["vpc", "delete", "web"], args].concat()).ok();
        assert!(said.err.contains("stays: it is the run vpc-"), "{}", said.err);
        assert!(said.out.is_empty() || said.out == "0 to remove\n", "{}", said.out);
        assert_whole(&cloud.state(), "another's");
    }
    other("delete", &[]);
    assert_eq!(counts(&cloud.state()), [0; 5]);
    // One that has expired is nobody's.
    run(&yard, &cloud, &["vpc", "create", "web", "--expires-after", "1s"]).ok();
    other("create", &["--expires-after", "1s"]);
    std::thread::sleep(Duration::from_secs(2));
    let said = run(&yard, &cloud, &["vpc", "delete", "web"]).ok();
    assert!(said.err.contains("is gone"), "{}", said.err);
    assert_eq!(counts(&cloud.state()), [0; 5]);
    assert!(!yard.out("web").join("vpc.json").exists());
    cloud.finish();
}

/// What was there before is in no run's ledger, so the run that failed tells of it.
#[test]
fn a_create_that_fails_tells_of_what_was_there_before() {
    let (yard, cloud) = in_yard();
    let failing = |yard: &Yard, fault: &str| -> Said {
        let mut command = cloud.program(yard);
        command
            .env("BAKEHOUSE_FAULT", fault)
            .args(["vpc", "create", "--name", "web"])
            .output()
            .unwrap()
            .into()
    };
    failing(&yard, "call:CreateSecurityGroup#1:before:kill").code(-1);
    let before = cloud.state();
    let vpc = before["vpcs"].as_object().unwrap().keys().next().unwrap();
    let elsewhere = Yard::new();
    for fault in ["call:CreateTags#1:before:denied", "call:CreateSecurityGroup#1:before:denied"] {
        let said = failing(&elsewhere, fault).code(4);
        let told = format!(
            "the VPC {vpc} of web, which was there before: `bakehouse vpc delete` takes it away, or a sweep after 20"
        );
        assert!(said.err.contains(&told), "{}", said.err);
        assert_eq!(counts(&cloud.state()), counts(&before), "{fault}");
    }
    run(&elsewhere, &cloud, &["vpc", "delete", "--name", "web"]).ok();
    assert_eq!(counts(&cloud.state()), [0; 5]);
    cloud.finish();
}
