//! What direct cannot bake on AWS, and what stands in a bake's way there: told before anything is made, or taken away again.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::aws::StandIn;
use crate::faults::run::{continued, until_stopped};
use crate::yard::small::recipe;
use crate::yard::{Said, Yard};

const STEP: &str = "provision:\n  - shell: { run: 'echo made >/etc/made' }\n";

struct Account {
    yard: Yard,
    cloud: StandIn,
    base: String,
}

/// An account, and a vendor's public base with `more` of the fields of `seed.py`; the recipe `web` bakes it.
fn account(more: Value, rest: &str) -> Option<Account> {
    let yard = Yard::small()?;
    let cloud = StandIn::start();
    let disk = Path::new(env!("CARGO_TARGET_TMPDIR")).join("small/scratch/disk.raw");
    let mut image = json!({
        "name": "vendors-1", "disk": disk, "size": 1, "holes": true, "public": true, "snapshot_public": true,
    });
    image.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (base, _) = cloud.seed_image(&cloud.other_account(1), image);
    let account = Account { yard, cloud, base };
    account.recipe(rest);
    Some(account)
}

impl Account {
    fn recipe(&self, rest: &str) {
        let text = recipe("web", &format!("{{ image: {} }}", self.base), &format!("{rest}{STEP}"));
        self.yard.recipe("web", &text);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.cloud.program(&self.yard);
        command.args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Said {
        self.command(args).output().unwrap().into()
    }

    /// A call of KMS by another client.
    fn kms(&self, operation: &str, body: &Value) -> Value {
        let asked = Command::new("curl")
            .args(["--silent", "--fail", "--aws-sigv4", "aws:amz:us-east-1:kms", "--user"])
            .arg(format!("{}:secret", StandIn::access_key(self.cloud.account())))
            .args(["--header", "Content-Type: application/x-amz-json-1.1", "--header"])
            .arg(format!("X-Amz-Target: TrentService.{operation}"))
            .args(["--data", &body.to_string(), &self.cloud.endpoint()])
            .output()
            .unwrap();
        assert!(asked.status.success(), "{operation}: {asked:?}");
        serde_json::from_slice(&asked.stdout).unwrap_or_default()
    }

    fn key(&self) -> (String, String) {
        let made = self.kms("CreateKey", &json!({}));
        let of = |name: &str| made["KeyMetadata"][name].as_str().unwrap().to_owned();
        (of("KeyId"), of("Arn"))
    }

    /// A call of EC2 by another client, on one of the account's images.
    fn ec2(&self, operation: &str, image: &str) {
        let asked = Command::new("curl")
            .args(["--silent", "--fail", "--aws-sigv4", "aws:amz:us-east-1:ec2", "--user"])
            .arg(format!("{}:secret", StandIn::access_key(self.cloud.account())))
            .args(["--data", &format!("Action={operation}&Version=2016-11-15&ImageId={image}")])
            .arg(self.cloud.endpoint())
            .output()
            .unwrap();
        assert!(asked.status.success(), "{operation}: {asked:?}");
    }

    /// Ids of what the account has of a kind.
    fn ids(&self, kind: &str) -> Vec<String> {
        self.cloud.state()[kind].as_object().into_iter().flatten().map(|(id, _)| id.clone()).collect()
    }

    /// Nobody asked EC2 or EBS to change anything.
    #[track_caller]
    fn assert_only_looked(&self) {
        let changes = |call: &String| {
            let (service, operation) = call.split_once(':').unwrap();
            let looks = ["Describe", "Get", "List"].iter().any(|verb| operation.starts_with(verb));
            service != "kms" && !looks
        };
        let changed: Vec<String> = self.cloud.operations().into_iter().filter(changes).collect();
        assert!(changed.is_empty(), "{changed:?}");
    }
}

fn gains_billing() -> Value {
    json!({ "snapshot_billing": ["Red Hat Enterprise Linux", "RunInstances:0010"] })
}

#[test]
fn an_image_that_is_billed_otherwise_is_taken_away_and_the_bake_says_what_to_do() {
    let Some(account) = account(gains_billing(), "") else { return };
    let said = account.run(&["bake", "web"]).code(3);
    for part in [
        "RunInstances:0010 (Red Hat Enterprise Linux)",
        "was discarded",
        "method: launch",
        "nothing was left",
    ] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert!(account.cloud.operations().iter().any(|call| call == "ec2:RegisterImage"));
    // The import stays, and its snapshot.
    assert_eq!((account.ids("images").len(), account.ids("snapshots").len()), (1, 1));
    assert!(!account.yard.out("web").join("image.json").exists());
    account.yard.assert_nothing_left();
}

/// Killed when the image was there and nobody had looked how it is billed: whoever clears up looks before anything of it is
/// delivered.
#[test]
fn the_billing_of_a_killed_bakes_image_is_compared_before_its_record_is_delivered() {
    let Some(account) = account(gains_billing(), "") else { return };
    for verb in [&["sweep"][..], &["bake", "web"]] {
        let mut command = account.command(&["bake", "web"]);
        let killed: Said =
            command.env("BAKEHOUSE_FAULT", "call:RegisterImage#1:after:kill").output().unwrap().into();
        assert_eq!(killed.code, -1, "{}", killed.err);
        assert_eq!(account.ids("images").len(), 2);
        let said = account.run(verb);
        assert!(said.err.contains("is billed otherwise than its base: it was discarded"), "{}", said.err);
        assert!(said.err.contains("method: launch"), "{}", said.err);
        assert!(!account.yard.out("web").join("image.json").exists());
        assert_eq!((account.ids("images").len(), account.ids("snapshots").len()), (1, 1));
    }
    account.yard.assert_nothing_left();
}

/// The same kill, and an image as it should be: its record is delivered.
#[test]
fn the_record_of_a_killed_bakes_image_that_is_billed_as_its_base_is_delivered() {
    let Some(account) = account(json!({}), "") else { return };
    let mut command = account.command(&["bake", "web"]);
    let killed: Said =
        command.env("BAKEHOUSE_FAULT", "call:RegisterImage#1:after:kill").output().unwrap().into();
    assert_eq!(killed.code, -1, "{}", killed.err);
    account.run(&["sweep"]).ok();
    let record = account.yard.record("web");
    let image = record["images"][0]["image"].as_str().unwrap();
    assert!(account.ids("images").iter().any(|id| id == image));
    account.yard.assert_nothing_left();
}

#[test]
fn a_base_with_billing_codes_is_launched_by_auto_and_refused_by_direct_at_its_line() {
    let billed = json!({ "billing": ["Red Hat Enterprise Linux", "RunInstances:0010"] });
    let Some(account) = account(billed, "launch: { profile: bakery, bucket: bakery }\n") else { return };
    let plan = account.run(&["plan", "web"]).ok();
    assert!(
        plan.out.contains("direct cannot take this base: its usage operation is RunInstances:0010"),
        "{}",
        plan.out
    );
    assert!(plan.out.contains("launch"), "{}", plan.out);
    account.recipe("method: direct\n");
    for verb in ["plan", "bake"] {
        let said = account.run(&[verb, "web"]).code(2);
        for part in ["web/bake.yml:4:", account.base.as_str(), "RunInstances:0010", "method: launch"] {
            assert!(said.err.contains(part), "{part}: {}", said.err);
        }
    }
    account.assert_only_looked();
}

#[test]
fn an_import_that_fails_later_says_why_and_is_replaced_by_the_next_bake() {
    let Some(account) = account(json!({}), "") else { return };
    let (id, arn) = account.key();
    account.recipe(&format!("disk: {{ encrypt: '{arn}' }}\n"));
    let mut command = account.command(&["bake", "web"]);
    // The key can be used when it is looked at, and not any more when EC2 copies.
    command.env("BAKEHOUSE_FAULT", "call:CopyImage#1:before:stop");
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    until_stopped(child.id());
    account.kms("DisableKey", &json!({ "KeyId": id }));
    let failed = continued(child).code(3);
    for part in ["Given key ID is not accessible", &arn, "may the key"] {
        assert!(failed.err.contains(part), "{part}: {}", failed.err);
    }
    let before = account.ids("images");
    assert_eq!(before.len(), 1);

    account.kms("EnableKey", &json!({ "KeyId": id }));
    let said = account.run(&["bake", "web"]).ok();
    assert!(said.err.contains("failed (") && said.err.contains("it is replaced"), "{}", said.err);
    let record = account.yard.record("web");
    let import = record["base"]["image"]["import"].as_str().unwrap();
    let after = account.ids("images");
    assert!(
        after.len() == 2 && !after.contains(&before[0]) && after.iter().any(|id| id == import),
        "{after:?}"
    );
    let state = account.cloud.state();
    assert_eq!(state["snapshots"].as_object().unwrap().len(), 2);
    account.yard.assert_nothing_left();
}

#[test]
fn a_pending_import_is_waited_for_and_its_progress_shown() {
    let Some(account) = account(json!({}), "") else { return };
    // The image is there before its snapshot says 100.
    account.cloud.settings(json!({ "image_seconds": 3.0, "complete_seconds": 4.0 }));
    let said = account.run(&["--log", "json", "bake", "web"]).ok();
    let told: Vec<Value> = said.err.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let percent = told.iter().filter(|event| event["name"] == "percent imported");
    let percent: Vec<u64> = percent.map(|event| event["done"].as_u64().unwrap()).collect();
    assert!(!percent.is_empty() && percent.iter().all(|done| *done < 100), "{percent:?}: {}", said.err);
    assert!(percent.is_sorted(), "{percent:?}");
}

#[test]
fn another_image_of_an_imports_name_is_told_and_left_alone() {
    let Some(account) = account(json!({}), "") else { return };
    let plan = account.run(&["plan", "web"]).ok();
    let at = plan.out.find("bakehouse-import-").unwrap();
    let name: String =
        plan.out[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let disk = Path::new(env!("CARGO_TARGET_TMPDIR")).join("small/scratch/disk.raw");
    let (other, _) = account.cloud.seed_image(account.cloud.account(), json!({ "name": name, "disk": disk }));
    let said = account.run(&["bake", "web"]);
    assert_ne!(said.code, 0);
    assert!(said.err.contains(&other) && said.err.contains(&name), "{}", said.err);
    assert_eq!(account.ids("images"), [other]);
    account.assert_only_looked();
}

/// EC2 lists a disabled image only for whoever asks for those too.
#[test]
fn a_disabled_image_keeps_its_name_and_a_disabled_import_is_told_at_once() {
    let Some(account) = account(json!({}), "image: { name: web-1 }\n") else { return };
    let image = account.run(&["bake", "web"]).ok().out.trim().to_owned();
    account.ec2("DisableImage", &image);
    let plan = account.run(&["plan", "web"]).ok();
    assert!(plan.out.contains("an image called web-1 exists"), "{}", plan.out);
    let said = account.run(&["bake", "--fresh", "web"]).code(2);
    assert!(said.err.contains("an image called `web-1` exists"), "{}", said.err);

    let import = account.ids("images").into_iter().find(|id| *id != image).unwrap();
    account.ec2("DisableImage", &import);
    account.recipe("");
    let said = account.run(&["bake", "web"]).code(3);
    assert!(said.err.contains(&format!("the import {import} is disabled; enable it")), "{}", said.err);
    // Nothing was made, or waited for: it was found by the first look.
    let copies = account.cloud.operations().iter().filter(|call| *call == "ec2:CopyImage").count();
    assert_eq!((copies, account.ids("images").len()), (1, 2));
    account.ec2("EnableImage", &import);
    account.run(&["bake", "web"]).ok();
    account.yard.assert_nothing_left();
}

#[test]
fn all_that_stands_in_a_bakes_way_is_told_at_once_and_before_anything_is_made() {
    let Some(account) = account(json!({}), "") else { return };
    let (id, arn) = account.key();
    account.kms("DisableKey", &json!({ "KeyId": id }));
    let disk = Path::new(env!("CARGO_TARGET_TMPDIR")).join("small/scratch/disk.raw");
    account.cloud.seed_image(account.cloud.account(), json!({ "name": "taken", "disk": disk }));
    // AMIs of the account, and snapshots that are pending (quotas.py).
    account.cloud.settings(json!({ "quotas": { "L-B665C33B": 2, "L-94D7AB7D": 0 } }));
    account.recipe(&format!("disk: {{ encrypt: '{arn}' }}\nimage: {{ name: taken }}\n"));
    let parts = [
        "web/bake.yml:5:9: key: would fail:",
        "Disabled",
        "web/bake.yml:6:10: name: would fail:",
        "quota of images: would fail: 1 of 2 are used, and the bake makes 2",
        "quota of pending snapshots: would fail: 0 of 0 are used",
    ];
    let said = account.run(&["bake", "web"]).code(2);
    for part in parts {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    let plan = account.run(&["plan", "web"]).ok();
    for part in ["key: would fail", "an image called taken exists", "quota of images: would fail"] {
        assert!(plan.out.contains(part), "{part}: {}", plan.out);
    }

    // A key that is not there is told with the others too.
    account.recipe("disk: { encrypt: alias/none }\nimage: { name: taken }\n");
    let said = account.run(&["bake", "web"]).code(2);
    for part in ["there is no key alias/none", "name: would fail", "quota of images"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    account.assert_only_looked();
}

#[test]
fn encrypt_false_is_refused_where_the_account_encrypts_by_default() {
    let Some(account) = account(json!({}), "disk: { encrypt: false }\n") else { return };
    account.run(&["plan", "web"]).ok();
    account.cloud.seed(json!({ "setting": { "encrypt_by_default": true } }));
    for verb in ["plan", "bake"] {
        let said = account.run(&[verb, "web"]).code(2);
        for part in ["web/bake.yml:5:9: disk.encrypt:", "the account encrypts every new snapshot", "aws/ebs"]
        {
            assert!(said.err.contains(part), "{part}: {}", said.err);
        }
    }
    account.assert_only_looked();
}
