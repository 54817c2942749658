//! `bakehouse policy` against the calls that whole bakes make: nothing that they call is missing, nothing is allowed that no
//! bake calls. Conditions are judged as IAM would judge them, as far as the stand-in knows the tags.

#![expect(clippy::disallowed_methods, reason = "a test without a runtime sleeps")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread;
use std::time::Duration;

use bakehouse::policy::{By, FREE, STATEMENTS};
use serde_json::{Value, json};

use super::StandIn;
use super::fixture::REGION;
use super::launch::Bakery;
use crate::yard::{Said, Yard};

/// Allowed, but called only on ways that no bake here takes: where an image lost its billing or an import failed, where
/// the account encrypts by default, where an instance does not turn itself off, and where a bake is stopped while a command
/// runs.
const SELDOM: [&str; 4] =
    ["ec2:DeregisterImage", "ec2:GetEbsDefaultKmsKeyId", "ec2:StopInstances", "ssm:CancelCommand"];

/// The commit of a bake that registers.
const REGISTER: &str = "call:RegisterImage#1:before:denied";

fn run(yard: &Yard, cloud: &StandIn, args: &[&str]) -> Said {
    let mut command = yard.command();
    command.env_remove("BAKEHOUSE_LOCAL").envs(cloud.environment()).env("BAKEHOUSE_AWS_SETTLES", "1s");
    command.args(args).output().unwrap().into()
}

/// Tags of everything that was seen in the account so far: what is deleted had them too.
struct Tags(BTreeMap<String, BTreeMap<String, String>>);

impl Tags {
    fn look(&mut self, cloud: &StandIn) {
        for kind in ["images", "snapshots", "instances"] {
            for (id, found) in cloud.state()[kind].as_object().into_iter().flatten() {
                let tags = found["tags"].as_object().into_iter().flatten();
                let tags =
                    tags.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()));
                self.0.entry(id.clone()).or_default().extend(tags);
            }
        }
    }
}

/// The ids that a call names, whose tags its conditions are about.
fn ids(parameters: &Value) -> Vec<String> {
    let text = parameters.to_string();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words
        .filter(|word| ["snap-", "ami-", "i-"].iter().any(|kind| word.starts_with(kind)))
        .map(str::to_owned)
        .collect()
}

/// The tags that a call makes something with.
fn request_tags(parameters: &Value) -> BTreeMap<String, String> {
    fn walk(value: &Value, into: &mut BTreeMap<String, String>) {
        match value {
            Value::Array(all) => all.iter().for_each(|one| walk(one, into)),
            Value::Object(object) => match (object.get("Key"), object.get("Value")) {
                (Some(Value::String(key)), Some(Value::String(value))) => {
                    into.insert(key.clone(), value.clone());
                }
                _ => object
                    .iter()
                    .filter(|(key, _)| key.starts_with("Tag"))
                    .for_each(|(_, one)| walk(one, into)),
            },
            _ => {}
        }
    }
    let mut tags = BTreeMap::new();
    walk(parameters, &mut tags);
    tags
}

/// What is known of one call.
struct Call<'a> {
    resource: Option<&'a BTreeMap<String, String>>,
    request: &'a BTreeMap<String, String>,
    made_by: Option<&'a str>,
    /// Of a listing of objects.
    prefix: Option<&'a str>,
}

fn holds(operator: &str, key: &str, wanted: &Value, call: &Call<'_>) -> bool {
    let wants =
        |text: &str| wanted == text || wanted.as_array().is_some_and(|all| all.contains(&json!(text)));
    let of =
        |tags: Option<&BTreeMap<String, String>>, name: &str| tags.and_then(|tags| tags.get(name)).cloned();
    let value = if let Some(name) = key.strip_prefix("aws:ResourceTag/") {
        // Of what the stand-in does not know nothing can be said here.
        let Some(tags) = call.resource else { return true };
        of(Some(tags), name)
    } else if let Some(name) = key.strip_prefix("aws:RequestTag/") {
        of(Some(call.request), name)
    } else if key == "ec2:CreateAction" {
        return call.made_by.is_some_and(wants);
    } else if key == "aws:TagKeys" {
        return call.request.keys().all(|key| wants(key));
    } else if key == "s3:prefix" {
        let folder = wanted.as_str().and_then(|wanted| wanted.strip_suffix('*')).unwrap();
        return call.prefix.is_some_and(|prefix| prefix.starts_with(folder));
    } else {
        // Keys and roles are not used in these bakes.
        return true;
    };
    match operator {
        "Null" => value.is_some(),
        "StringEquals" => value.is_some_and(|value| wants(&value)),
        other => panic!("{other} is judged by nobody"),
    }
}

fn allows(policy: &Value, action: &str, call: &Call<'_>) -> bool {
    policy["Statement"].as_array().unwrap().iter().any(|statement| {
        let named = statement["Action"].as_array().unwrap().contains(&json!(action));
        let conditions = statement["Condition"].as_object();
        named
            && conditions.into_iter().flatten().all(|(operator, keys)| {
                keys.as_object().unwrap().iter().all(|(key, wanted)| holds(operator, key, wanted, call))
            })
    })
}

fn actions(policy: &Value) -> BTreeSet<String> {
    let all = policy["Statement"].as_array().unwrap().iter();
    all.flat_map(|one| one["Action"].as_array().unwrap())
        .map(|one| one.as_str().unwrap().to_owned())
        .collect()
}

/// Every call from number `from` on is allowed; gives the actions.
fn judge(cloud: &StandIn, from: usize, policy: &Value, tags: &Tags) -> BTreeSet<String> {
    let mut called = BTreeSet::new();
    for exchange in cloud.exchanges().into_iter().skip(from) {
        let action = exchange["action"].as_str().unwrap().to_owned();
        if FREE.contains(&action.as_str()) {
            continue;
        }
        let request = request_tags(&exchange["parameters"]);
        let named = ids(&exchange["parameters"]);
        let prefix = exchange["parameters"]["Prefix"].as_str();
        let known: Vec<_> = named.iter().filter_map(|id| tags.0.get(id)).collect();
        // A call that makes something has its conditions on that; one on several things must be allowed on each.
        let each: Vec<_> = if known.is_empty() { vec![None] } else { known.into_iter().map(Some).collect() };
        for resource in each {
            let call = Call { resource, request: &request, made_by: None, prefix };
            assert!(allows(policy, &action, &call), "{action} is not allowed: {exchange}\n{policy:#}");
        }
        let operation = exchange["operation"].as_str().unwrap();
        if !request.is_empty() && operation != "CreateTags" && operation != "DeleteTags" {
            let call = Call { resource: None, request: &request, made_by: Some(operation), prefix };
            assert!(allows(policy, "ec2:CreateTags", &call), "tags of {action} are not allowed: {exchange}");
        }
        called.insert(action);
    }
    called
}

/// Bakes and gives the actions that the policy allows and no call needed.
#[track_caller]
fn bake(yard: &Yard, cloud: &StandIn, recipe: &str, more: &[&str], fault: &str) -> BTreeSet<String> {
    let asked =
        [&["policy", recipe, "--region", REGION, "--account", cloud.account(), "--for", "bake"], more]
            .concat();
    let policy: Value = serde_json::from_str(&run(yard, cloud, &asked).ok().out).unwrap();
    let (from, mut tags) = (cloud.exchanges().len(), Tags(BTreeMap::new()));
    tags.look(cloud);
    run(yard, cloud, &["bake", recipe]).ok();
    tags.look(cloud);
    let mut called = judge(cloud, from, &policy, &tags);
    // The same with an error at the commit: what was made is taken away. In another second, which is in the image's name.
    thread::sleep(Duration::from_secs(1));
    let from = cloud.exchanges().len();
    let mut failing = yard.command();
    failing.env_remove("BAKEHOUSE_LOCAL").envs(cloud.environment()).env("BAKEHOUSE_AWS_SETTLES", "1s");
    let failed: Said =
        failing.env("BAKEHOUSE_FAULT", fault).args(["bake", recipe, "--fresh"]).output().unwrap().into();
    assert!(failed.code == 5 && failed.err.contains("nothing was left behind"), "{}", failed.err);
    called.extend(judge(cloud, from, &policy, &tags));
    let implied: BTreeSet<String> = STATEMENTS
        .iter()
        .flat_map(|statement| statement.grants)
        .filter(
            |grant| matches!(grant.by, By::Implied(calls) if calls.iter().any(|call| called.contains(*call))),
        )
        .map(|grant| grant.action.to_owned())
        .collect();
    let unused = |action: &String| {
        !called.contains(action) && !implied.contains(action) && !SELDOM.contains(&action.as_str())
    };
    actions(&policy).into_iter().filter(unused).collect()
}

#[test]
fn a_policy_allows_what_bakes_call_and_nothing_besides() {
    let Some(yard) = Yard::small() else { return };
    let cloud = StandIn::start();
    assert_eq!(bake(&yard, &cloud, "small", &[], REGISTER), BTreeSet::new(), "a disk file");
    assert_eq!(bake(&yard, &cloud, "direct", &[], REGISTER), BTreeSet::new(), "a child of a family");
    let vendor = cloud.other_account(1);
    let disk = yard.path().join("scratch/disk.raw");
    let (image, _) = seed(&cloud, &vendor, &disk);
    yard.recipe(
        "foreign",
        &crate::yard::small::recipe(
            "foreign",
            &format!("{{ image: {image} }}"),
            "provision:\n  - shell: { run: 'echo made >/etc/by' }\n",
        ),
    );
    assert_eq!(
        bake(&yard, &cloud, "foreign", &["--base", "foreign"], REGISTER),
        BTreeSet::new(),
        "a foreign image"
    );
    cloud.finish();
}

/// Also where the image is there already, and everything is undone.
#[test]
fn a_policy_allows_what_a_launch_calls_and_nothing_besides() {
    let Some(bakery) = Bakery::new() else { return };
    let (yard, cloud) = (&bakery.yard, &bakery.cloud);
    let steps = "provision:\n  - shell: { run: 'yes a-line-of-output | head -n 4000' }\n";
    let launch = format!("method: launch\nlaunch: {{ profile: baker, bucket: {} }}\n{steps}", bakery.bucket);
    let base = format!("{{ image: {} }}", bakery.base);
    yard.recipe("web", &crate::yard::small::recipe("web", &base, &launch));
    let unused = bake(yard, cloud, "web", &[], "call:DeleteTags#1:before:denied");
    assert_eq!(unused, BTreeSet::new());
    bakery.cloud.finish();
}

fn seed(cloud: &StandIn, account: &str, disk: &Path) -> (String, String) {
    cloud.seed_image(
        account,
        json!({ "name": "vendor", "disk": disk, "public": true, "snapshot_public": true, "holes": true }),
    )
}
