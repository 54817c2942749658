//! `bakehouse policy` against the calls that whole bakes and the other stages make, with what those imply: each is allowed on
//! each of its resources as IAM would judge it (`iam.rs`), and with any action, resource or condition changed one is denied.

#![expect(clippy::disallowed_methods, reason = "a test without a runtime sleeps")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use bakehouse::policy::{By, FREE, PUSH, STATEMENTS};
use serde_json::{Value, json};

use super::fixture::{REGION, python};
use super::launch::Bakery;
use super::{Host, StandIn, iam};
use crate::yard::{Said, Yard};

/// The commit of a bake that registers.
const REGISTER: &str = "call:RegisterImage#1:before:denied";

/// Allowed for ways that no bake here takes: where an image loses its billing, an import failed, an instance does not turn
/// itself off, or a bake is stopped while a command runs; and what only an account that encrypts by default is asked.
const SELDOM: [&str; 10] = [
    "Own: ec2:DeregisterImage",
    "Own: arn:aws:ec2:us-east-1::image/*",
    "Imports: ec2:DeregisterImage",
    "Imports: ec2:DeleteSnapshot",
    "Imports: arn:aws:ec2:us-east-1::image/*",
    "Own: ec2:StopInstances",
    "Look: ssm:CancelCommand",
    "Look: ec2:GetEbsDefaultKmsKeyId",
    // By which of its two names EBS asks for the key of a block is not known (IAM-VIA-SERVICE).
    "UseKey: ec2.us-east-1.amazonaws.com",
    "UseKeyByAlias: ec2.us-east-1.amazonaws.com",
];

fn run(yard: &Yard, cloud: &StandIn, args: &[&str]) -> Said {
    command(yard, cloud).args(args).output().unwrap().into()
}

fn command(yard: &Yard, cloud: &StandIn) -> Command {
    let mut command = yard.command();
    command.env_remove("BAKEHOUSE_LOCAL").envs(cloud.environment()).env("BAKEHOUSE_AWS_SETTLES", "1s");
    command
}

/// What a stage called, held against its policy.
pub(super) struct Judge<'a> {
    yard: &'a Yard,
    cloud: &'a StandIn,
    policy: Value,
    from: usize,
}

impl<'a> Judge<'a> {
    /// With the policy that `bakehouse policy` prints with these words.
    pub fn new(yard: &'a Yard, cloud: &'a StandIn, args: &[&str]) -> Self {
        let place = ["policy", "--region", REGION, "--account", cloud.account()];
        let said = run(yard, cloud, &[&place[..], args].concat()).ok();
        cloud.take_asked();
        Self { yard, cloud, policy: serde_json::from_str(&said.out).unwrap(), from: cloud.exchanges().len() }
    }

    /// Everything that was asked since then is allowed. What of the policy none of it needs is told.
    pub fn allowed(self) -> Vec<String> {
        let asked = self.cloud.take_asked();
        let calls: BTreeSet<&str> = asked.iter().map(|one| one["call"].as_str().unwrap()).collect();
        for exchange in &self.cloud.exchanges()[self.from..] {
            // What comes with a job's own credentials the pipeline's role allows.
            let of_us = exchange["account"] == self.cloud.account() && exchange["of_job"] != true;
            let action = exchange["action"].as_str().unwrap();
            assert!(
                !of_us || calls.contains(action) || FREE.contains(&action),
                "nobody asked about {exchange}"
            );
        }
        self.allowed_of(&asked)
    }

    /// The same of what was asked by the stage alone, where a test asks in between.
    fn allowed_of(&self, asked: &[Value]) -> Vec<String> {
        let denied = iam::denied(&self.policy, asked);
        assert!(denied.is_empty(), "denied: {:#}\n{:#}", json!(denied), self.policy);
        for one in asked {
            let (action, call) = (one["action"].as_str().unwrap(), one["call"].as_str().unwrap());
            assert!(
                action == call || is_in_the_table(action, call),
                "{call} implies {action}, and no row says so"
            );
        }
        iam::needless(&self.policy, asked)
    }

    /// Bakes; and again with an error, so that what was made is taken away: in another second, which is in the image's
    /// name.
    #[track_caller]
    fn bakes(self, recipe: &str, fault: &str) -> Vec<String> {
        run(self.yard, self.cloud, &["bake", recipe]).ok();
        thread::sleep(Duration::from_secs(1));
        let mut failing = command(self.yard, self.cloud);
        let failed = failing.env("BAKEHOUSE_FAULT", fault).args(["bake", recipe, "--fresh"]).output();
        let failed: Said = failed.unwrap().into();
        assert!(failed.code == 5 && failed.err.contains("nothing was left behind"), "{}", failed.err);
        self.allowed()
    }
}

fn is_in_the_table(action: &str, call: &str) -> bool {
    let mut grants = STATEMENTS.iter().flat_map(|statement| statement.grants);
    let implied = |by: By| matches!(by, By::Implied(calls) if calls.contains(&call));
    grants.any(|grant| implied(grant.by) && iam::like(grant.action, action))
}

/// All that is needless is what is only seldom called.
#[track_caller]
fn assert_seldom(needless: &[String], of: &str) {
    let often: Vec<&String> = needless.iter().filter(|one| !SELDOM.contains(&one.as_str())).collect();
    assert!(often.is_empty(), "{of}: nothing needs {often:#?}");
}

/// In AWS, with the names and values of the environment.
pub(super) fn boto(cloud: &StandIn, script: &str, args: &[&str]) -> String {
    let said = Command::new(python())
        .arg("-c")
        .arg(format!("import boto3, sys\n{script}"))
        .args(args)
        .envs(cloud.environment())
        .output()
        .unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

/// A disk, a child of it, and a foreign image, all with one key: by its alias, as the base's own, and by its ARN.
#[test]
fn a_policy_allows_what_bakes_call_and_nothing_besides() {
    let Some(yard) = Yard::small() else { return };
    let cloud = StandIn::start();
    cloud.seed(json!({ "setting": { "encrypt_by_default": true } }));
    let key = boto(
        &cloud,
        "kms = boto3.client('kms')\n\
         key = kms.create_key()['KeyMetadata']\n\
         kms.create_alias(AliasName='alias/bakery', TargetKeyId=key['KeyId'])\n\
         print(key['Arn'])\n",
        &[],
    );
    let recipe = crate::yard::small::recipe;
    let steps = "provision:\n  - shell: { run: 'echo made >/etc/by' }\n";
    yard.recipe("small", &recipe("small", "{ file: disk.raw }", "disk: { encrypt: alias/bakery }\n"));
    let needless = Judge::new(&yard, &cloud, &["small", "--for", "bake"]).bakes("small", REGISTER);
    assert_seldom(&needless, "a disk file");
    let child = Judge::new(&yard, &cloud, &["direct", "--for", "bake", "--key", &key]);
    assert_seldom(&child.bakes("direct", REGISTER), "a child of a family");
    let disk = Path::new(env!("CARGO_TARGET_TMPDIR")).join("small/scratch/disk.raw");
    let vendors =
        json!({ "name": "vendor", "disk": disk, "public": true, "snapshot_public": true, "holes": true });
    let (image, _) = cloud.seed_image(&cloud.other_account(1), vendors);
    let of_vendor = format!("disk: {{ encrypt: '{key}' }}\n{steps}");
    yard.recipe("foreign", &recipe("foreign", &format!("{{ image: {image} }}"), &of_vendor));
    let foreign = Judge::new(&yard, &cloud, &["foreign", "--for", "bake", "--base", "foreign"]);
    assert_seldom(&foreign.bakes("foreign", REGISTER), "a foreign image");
    cloud.finish();
}

/// Also where the image is there already, and everything is undone.
#[test]
fn a_policy_allows_what_a_launch_calls_and_nothing_besides() {
    let Some(bakery) = Bakery::new() else { return };
    let (yard, cloud) = (&bakery.yard, &bakery.cloud);
    let networks = boto(
        cloud,
        "ec2 = boto3.client('ec2')\n\
         subnet = ec2.describe_subnets()['Subnets'][0]\n\
         ec2.create_tags(Resources=[subnet['SubnetId']], Tags=[{'Key': 'tier', 'Value': 'build'}])\n\
         group = ec2.create_security_group(GroupName='build', Description='-', VpcId=subnet['VpcId'])\n\
         print(subnet['SubnetId'], group['GroupId'])\n",
        &[],
    );
    let (subnet, group) = networks.split_once(' ').unwrap();
    let recipe = |name: &str, more: &str| {
        let launch = format!("launch: {{ profile: baker, bucket: {}, {more} }}", bakery.bucket);
        let steps = "provision:\n  - shell: { run: 'yes a-line-of-output | head -n 4000' }";
        let base = format!("{{ image: {} }}", bakery.base);
        let rest = format!("method: launch\n{launch}\n{steps}\n");
        yard.recipe(name, &crate::yard::small::recipe(name, &base, &rest));
        Judge::new(yard, cloud, &[name, "--for", "bake"])
    };
    let judge = recipe("web", "subnet: { tier: build }");
    assert_seldom(&judge.bakes("web", "call:DeleteTags#1:before:denied"), "a launch");
    // On spot, in what the recipe names. Nothing of this one is undone.
    let judge = recipe("spot", &format!("spot: true, subnet: {subnet}, security-groups: [{group}]"));
    run(yard, cloud, &["bake", "spot"]).ok();
    let needless = judge.allowed();
    let named = ["LaunchFrom", "Make", "TagMade", "PassProfile"];
    let of_these = needless.iter().filter(|one| named.contains(&one.split(':').next().unwrap()));
    assert_eq!(of_these.collect::<Vec<_>>(), Vec::<&String>::new());
    bakery.cloud.finish();
}

/// A base of the account's own under a key, and one that is imported; and everything is undone.
#[test]
fn a_policy_allows_what_a_volume_calls_and_nothing_besides() {
    let Some(yard) = Yard::small() else { return };
    let cloud = StandIn::start();
    cloud.seed(json!({ "setting": { "encrypt_by_default": true } }));
    let host = Host::new(&yard, &cloud);
    let key = boto(&cloud, "print(boto3.client('kms').create_key()['KeyMetadata']['Arn'])\n", &[]);
    let disk = Path::new(env!("CARGO_TARGET_TMPDIR")).join("small/scratch/disk.raw");
    let vendors =
        json!({ "name": "vendor", "disk": disk, "public": true, "snapshot_public": true, "holes": true });
    let (image, _) = cloud.seed_image(&cloud.other_account(1), vendors);
    let steps = "provision:\n  - shell: { run: 'echo made >/etc/by' }\n";
    let rest = format!("method: chroot\n{steps}");
    let encrypted = format!("disk: {{ encrypt: '{key}' }}\n{rest}");
    // The second is of what the first baked, and has its key.
    let bakes: [(&str, String, &str, &[&str]); 2] = [
        ("foreign", format!("{{ image: {image} }}"), &encrypted, &["--base", "foreign"]),
        ("child", "{ family: foreign }".to_owned(), &rest, &["--key", &key]),
    ];
    for (name, base, rest, args) in bakes {
        yard.recipe(name, &crate::yard::small::recipe(name, &base, rest));
        let judge = Judge::new(&yard, &cloud, &[&[name, "--for", "bake"], args].concat());
        host.run(&["bake", name]).ok();
        thread::sleep(Duration::from_secs(1));
        let failed = host.faulty(REGISTER, &["bake", name, "--fresh"]);
        assert!(failed.code == 5 && failed.err.contains("nothing was left behind"), "{}", failed.err);
        // No block is put, and a key's statement is the same for every method; an import is taken away where it failed alone.
        let mut needless = judge.allowed();
        needless.retain(|one| one != "UseKey: kms:Encrypt" && !one.starts_with("Imports: "));
        assert_seldom(&needless, name);
    }
    cloud.finish();
}

/// What expired, whoever made it.
#[test]
fn a_policy_allows_what_a_sweep_calls_and_nothing_besides() {
    let (yard, cloud) = (Yard::new(), StandIn::start());
    let disk = yard.path().join("disk.raw");
    std::fs::write(&disk, vec![7u8; 600_000]).unwrap();
    let tags = json!({ "bakehouse:bake": "bake-0123456789ab", "bakehouse:expires": "2026-01-02T03:04:05Z" });
    let old = json!({ "name": "old", "disk": disk, "tags": tags, "snapshot_tags": tags });
    let (image, snapshot) = cloud.seed_image(cloud.account(), old);
    boto(
        &cloud,
        "tags = [{'Key': 'bakehouse:bake', 'Value': 'bake-0123456789ab'},\n\
         \x20       {'Key': 'bakehouse:expires', 'Value': '2026-01-02T03:04:05Z'}]\n\
         boto3.client('ec2').run_instances(ImageId=sys.argv[1], MinCount=1, MaxCount=1, InstanceType='t3.small',\n\
         \x20   TagSpecifications=[{'ResourceType': 'instance', 'Tags': tags}])\n\
         ec2 = boto3.client('ec2')\n\
         worker = ec2.run_instances(ImageId=sys.argv[1], MinCount=1, MaxCount=1, InstanceType='t3.small')['Instances'][0]\n\
         volume = ec2.create_volume(SnapshotId=sys.argv[2], AvailabilityZone=worker['Placement']['AvailabilityZone'],\n\
         \x20   TagSpecifications=[{'ResourceType': 'volume',\n\
         \x20       'Tags': tags + [{'Key': 'bakehouse:volume', 'Value': 'own'}]}])['VolumeId']\n\
         ec2.get_waiter('instance_running').wait(InstanceIds=[worker['InstanceId']], WaiterConfig={'Delay': 1})\n\
         ec2.attach_volume(VolumeId=volume, InstanceId=worker['InstanceId'], Device='/dev/sdf')\n",
        &[&image, &snapshot],
    );
    run(&yard, &cloud, &["vpc", "create", "--name", "web", "--expires-after", "1s"]).ok();
    // The table of one that was killed is a subnet's, and is taken away before that.
    let mut killed = command(&yard, &cloud);
    killed.env("BAKEHOUSE_FAULT", "call:CreateSecurityGroup#1:before:kill");
    let killed: Said = killed.args(["vpc", "create", "--name", "killed"]).output().unwrap().into();
    killed.code(-1);
    thread::sleep(Duration::from_secs(2));
    let judge = Judge::new(&yard, &cloud, &["--for", "sweep"]);
    // A snapshot goes once its image is gone.
    for _ in 0..2 {
        run(&yard, &cloud, &["sweep"]).ok();
    }
    assert_eq!(judge.allowed(), Vec::<String>::new());
    cloud.finish();
}

/// Made, gone on with and taken away, with a bake's instance in it that has expired.
#[test]
fn a_policy_allows_what_vpcs_call_and_nothing_besides() {
    let (yard, cloud) = (Yard::new(), StandIn::start());
    let disk = yard.path().join("disk.raw");
    std::fs::write(&disk, vec![7u8; 600_000]).unwrap();
    let (image, _) = cloud.seed_image(cloud.account(), json!({ "name": "old", "disk": disk }));
    let judge = Judge::new(&yard, &cloud, &["--for", "vpc"]);
    for word in ["create", "create"] {
        run(&yard, &cloud, &["vpc", word, "--name", "web"]).ok();
    }
    // One that fails takes away what it made, the table before its subnet.
    let mut failing = command(&yard, &cloud);
    failing.env("BAKEHOUSE_FAULT", "call:CreateSecurityGroup#1:before:denied");
    let failed: Said = failing.args(["vpc", "create", "--name", "failing"]).output().unwrap().into();
    failed.code(5);
    let mut asked = cloud.take_asked();
    boto(
        &cloud,
        "ec2 = boto3.client('ec2')\n\
         tags = [{'Key': 'bakehouse:bake', 'Value': 'bake-0123456789ab'},\n\
         \x20       {'Key': 'bakehouse:expires', 'Value': '2026-01-02T03:04:05Z'}]\n\
         subnet = ec2.describe_subnets(Filters=[{'Name': 'tag:bakehouse:vpc', 'Values': ['web']}])['Subnets'][0]\n\
         ec2.run_instances(ImageId=sys.argv[1], MinCount=1, MaxCount=1, InstanceType='t3.small',\n\
         \x20   SubnetId=subnet['SubnetId'], TagSpecifications=[{'ResourceType': 'instance', 'Tags': tags}])\n",
        &[&image],
    );
    cloud.take_asked();
    run(&yard, &cloud, &["vpc", "delete", "--name", "web"]).ok();
    asked.extend(cloud.take_asked());
    assert_eq!(judge.allowed_of(&asked), Vec::<String>::new());
    cloud.finish();
}

#[test]
fn a_policy_allows_what_uploads_and_downloads_call_and_nothing_besides() {
    let (yard, cloud) = (Yard::new(), StandIn::start());
    std::fs::write(yard.path().join("disk.raw"), vec![7u8; 600_000]).unwrap();
    let snapshot = |args: &[&str]| run(&yard, &cloud, &[&["snapshot"], args].concat());
    let judge = Judge::new(&yard, &cloud, &["--for", "upload"]);
    let uploaded = snapshot(&["upload", "disk.raw"]).ok();
    let parent = uploaded.out.lines().last().unwrap().to_owned();
    snapshot(&["upload", "disk.raw", "--parent", &parent]).ok();
    let mut failing = command(&yard, &cloud);
    failing.env("BAKEHOUSE_FAULT", "call:CompleteSnapshot#1:before:denied");
    let failed: Said = failing.args(["snapshot", "upload", "disk.raw"]).output().unwrap().into();
    assert!(failed.code == 5 && failed.err.contains("nothing was left behind"), "{}", failed.err);
    assert_eq!(judge.allowed(), Vec::<String>::new());
    let judge = Judge::new(&yard, &cloud, &["--for", "download"]);
    snapshot(&["download", &parent, "back.raw"]).ok();
    assert_eq!(judge.allowed(), Vec::<String>::new());
    cloud.finish();
}

#[test]
fn a_policy_allows_what_a_buildspecs_variables_need_and_nothing_besides() {
    let (yard, cloud) = (Yard::new(), StandIn::start());
    boto(
        &cloud,
        "boto3.client('ssm').put_parameter(Name='/app/port', Value='22', Type='String')\n\
         boto3.client('secretsmanager').create_secret(Name='team/app', SecretString='{\"token\": \"t0p-s3cret\"}')\n",
        &[],
    );
    let spec = "version: 0.2\n\
                env: { parameter-store: { PORT: '/app/port:1' }, secrets-manager: { TOKEN: 'team/app:token:AWSCURRENT' } }\n\
                phases: { build: { commands: ['[ \"$PORT $TOKEN\" = \"22 t0p-s3cret\" ]'] } }\n";
    yard.file("source", "buildspec.yml", spec);
    let judge = Judge::new(&yard, &cloud, &["source", "--for", "run"]);
    run(&yard, &cloud, &["run", "source"]).ok();
    assert_eq!(judge.allowed(), Vec::<String>::new());
    cloud.finish();
}

/// What docker does with the login that we give it, nobody sees here: the user guide says it.
#[test]
fn a_policy_allows_what_ecr_calls_and_besides_only_what_a_push_needs() {
    let (yard, cloud) = (Yard::new(), StandIn::start());
    let judge = Judge::new(&yard, &cloud, &["--for", "ecr", "--repository", "team/bakehouse"]);
    run(&yard, &cloud, &["ecr", "prepare", "team/bakehouse"]).ok();
    run(&yard, &cloud, &["ecr", "login"]).ok();
    run(&yard, &cloud, &["ecr", "digest", "team/bakehouse:1"]).code(3);
    let needless: BTreeSet<String> = judge.allowed().into_iter().collect();
    let grants = STATEMENTS.iter().flat_map(|statement| statement.grants);
    let pushed =
        grants.filter(|grant| grant.by == By::Implied(PUSH)).map(|grant| format!("Push: {}", grant.action));
    assert_eq!(needless, pushed.collect::<BTreeSet<_>>());
    cloud.finish();
}
