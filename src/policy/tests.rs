//! The policy of recipes as they are written: what it allows, and what it must not.

use std::collections::BTreeSet;

use super::*;
use crate::recipe::{self, LoadOptions};

fn recipe_of(base: &str, more: &str) -> recipe::Recipe {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("version: 1\nname: web\narchitecture: x86_64\nbase: {base}\n{more}\n");
    std::fs::write(dir.path().join("bake.yml"), text).unwrap();
    recipe::load(dir.path(), &LoadOptions::default()).unwrap().recipe
}

fn bake(base: &str, more: &str) -> Value {
    let wish = Wish { stages: [Stage::Bake].into(), ..Wish::default() };
    policy(&Needs::of(Some(&recipe_of(base, more)), None, &wish), &scope())
}

fn scope() -> Scope {
    Scope { region: Region::parse("eu-west-1"), account: AccountId::parse("111122223333") }
}

fn statement<'a>(policy: &'a Value, sid: &str) -> &'a Value {
    let all = policy["Statement"].as_array().unwrap();
    all.iter().find(|one| one["Sid"] == sid).unwrap_or_else(|| panic!("no {sid} in {policy:#}"))
}

fn sids(policy: &Value) -> BTreeSet<&str> {
    policy["Statement"].as_array().unwrap().iter().map(|one| one["Sid"].as_str().unwrap()).collect()
}

/// The statements that allow an action.
fn allowing<'a>(policy: &'a Value, action: &str) -> BTreeSet<&'a str> {
    let all = policy["Statement"].as_array().unwrap().iter();
    let allowing = all.filter(|one| one["Action"].as_array().unwrap().contains(&json!(action)));
    allowing.map(|one| one["Sid"].as_str().unwrap()).collect()
}

const READ: &str = "ebs:GetSnapshotBlock";
const COPY: &str = "ec2:CopyImage";

#[test]
fn a_child_of_a_family_reads_that_family_and_writes_its_own() {
    let policy = bake("{ family: os-base, channel: release }", "");
    let read = statement(&policy, "ReadFamily");
    assert_eq!(read["Condition"]["StringEquals"]["aws:ResourceTag/bakehouse:family"], "os-base");
    assert_eq!(read["Resource"], json!(["arn:aws:ec2:eu-west-1::snapshot/*"]));
    let write = statement(&policy, "Own");
    assert_eq!(write["Condition"]["StringEquals"]["aws:ResourceTag/bakehouse:family"], "web");
    let make = statement(&policy, "Make");
    assert_eq!(make["Condition"]["StringEquals"]["aws:RequestTag/bakehouse:family"], "web");
    let parameter = &statement(&policy, "Parameters")["Resource"][0];
    assert_eq!(parameter, "arn:aws:ssm:eu-west-1:111122223333:parameter/bakehouse/os-base/x86_64/release");
    assert_eq!(allowing(&policy, READ), ["Own", "ReadFamily"].into());
    assert!(allowing(&policy, COPY).is_empty());
}

#[test]
fn whose_the_base_is_decides_what_is_read_and_whether_anything_is_copied() {
    let public = bake("{ parameter: /aws/service/debian/release/12/latest/amd64 }", "");
    assert!(sids(&public).contains("TagImports"));
    assert_eq!(allowing(&public, COPY), ["Base"].into());
    assert_eq!(allowing(&public, READ), ["Own", "Imports"].into());
    let parameter = &statement(&public, "Parameters")["Resource"][0];
    assert_eq!(parameter, "arn:aws:ssm:eu-west-1::parameter/aws/service/debian/release/12/latest/amd64");

    let amazon = bake("{ newest: { owners: [amazon], name: 'al2023-*' } }", "");
    assert_eq!(allowing(&amazon, READ), ["Own", "Imports"].into());
    assert_eq!(allowing(&amazon, COPY), ["Base"].into());
    let own = bake("{ newest: { owners: [self], name: 'x-*' } }", "");
    // What every snapshot allows, the own ones need not allow again.
    assert_eq!(allowing(&own, READ), ["Base"].into());
    assert!(allowing(&own, COPY).is_empty());

    // An id tells nothing: both are allowed, and it is said.
    let by_id = recipe_of("{ image: ami-0123456789abcdef0 }", "");
    let wish = Wish { stages: [Stage::Bake].into(), ..Wish::default() };
    let needs = Needs::of(Some(&by_id), None, &wish);
    assert!(needs.parts.contains(&Part::Import) && needs.parts.contains(&Part::ReadOwn));
    assert!(needs.notes.iter().any(|note| note.contains("--base")), "{:?}", needs.notes);
    let foreign = Needs::of(Some(&by_id), None, &Wish { base: Some(BaseOwner::Foreign), ..wish });
    assert!(!foreign.parts.contains(&Part::ReadOwn));
    assert!(!foreign.notes.iter().any(|note| note.contains("--base")));
}

#[test]
fn what_a_launch_is_connected_to_and_launched_from_is_named_where_the_recipe_names_it() {
    let from = |base: &str, launch: &str, stages: &[Stage]| {
        let launch = format!("method: launch\nlaunch: {{ profile: baker, bucket: bakery{launch} }}");
        let wish = Wish { stages: stages.iter().copied().collect(), ..Wish::default() };
        let policy = policy(&Needs::of(Some(&recipe_of(base, &launch)), None, &wish), &scope());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let resources = |sid| {
            let all = statement(&policy, sid)["Resource"].as_array().unwrap().iter().map(text);
            all.map(|arn| arn.rsplit_once(':').unwrap().1.to_owned()).collect::<Vec<_>>()
        };
        (resources("LaunchFrom"), resources("Make"))
    };
    let image = "{ image: ami-0123456789abcdef0 }";
    let named =
        ", subnet: subnet-0123456789abcdef0, security-groups: [sg-0123456789abcdef0, sg-0123456789abcdef1]";
    let (uses, makes) = from(image, named, &[Stage::Bake]);
    assert_eq!(
        uses,
        [
            "image/ami-0123456789abcdef0",
            "snapshot/*",
            "subnet/subnet-0123456789abcdef0",
            "security-group/sg-0123456789abcdef0",
            "security-group/sg-0123456789abcdef1"
        ]
    );
    assert_eq!(makes, ["image/*", "snapshot/*", "instance/*", "volume/*", "network-interface/*"]);
    // A test is in the default network.
    let (uses, _) = from(image, named, &[Stage::Bake, Stage::Test]);
    assert_eq!(uses, ["image/ami-0123456789abcdef0", "snapshot/*", "subnet/*", "security-group/*"]);
    let (uses, makes) = from("{ family: os-base }", ", subnet: { tier: build }, spot: true", &[Stage::Bake]);
    assert_eq!(uses, ["image/*", "snapshot/*", "security-group/*"]);
    assert!(makes.contains(&"spot-instances-request/*".to_owned()));
    let launch = "method: launch\nlaunch: { profile: baker, bucket: bakery, subnet: { tier: build } }";
    let tagged = bake("{ family: os-base }", launch);
    let condition = &statement(&tagged, "LaunchIn")["Condition"];
    assert_eq!(*condition, json!({ "StringEquals": { "aws:ResourceTag/tier": "build" } }));
}

/// It is another one after each `vpc create`, so its id cannot be in a policy.
#[test]
fn the_group_of_a_vpc_that_is_made_for_the_bake_is_told_by_its_tag() {
    let launch = |subnet: &str, groups: &str| {
        let launch = format!("launch: {{ profile: baker, bucket: bakery, subnet: {subnet}{groups} }}");
        bake("{ family: os-base }", &format!("method: launch\n{launch}"))
    };
    let (made, group) = ("{ 'bakehouse:vpc': web }", ", security-groups: [sg-0123456789abcdef0]");
    let policy = launch(made, group);
    let with = statement(&policy, "LaunchWith");
    assert_eq!(with["Action"], json!(["ec2:RunInstances"]));
    assert_eq!(with["Resource"], json!(["arn:aws:ec2:eu-west-1:111122223333:security-group/*"]));
    assert_eq!(with["Condition"], json!({ "StringEquals": { "aws:ResourceTag/bakehouse:vpc": "web" } }));
    // Without a group it is the VPC's default one, which has no tag.
    for other in [launch(made, ""), launch("{ tier: build }", group), launch("subnet-01234567", group)] {
        assert!(!sids(&other).contains("LaunchWith"), "{other:#}");
    }
}

#[test]
fn a_recipes_role_takes_no_other_recipes_vpc_away() {
    let of = |recipe: Option<&recipe::Recipe>, stages: &[Stage]| {
        let wish = Wish { stages: stages.iter().copied().collect(), ..Wish::default() };
        policy(&Needs::of(recipe, None, &wish), &scope())
    };
    let recipe =
        recipe_of("{ family: os-base }", "method: launch\nlaunch: { profile: baker, bucket: bakery }");
    let own = of(Some(&recipe), &[Stage::Bake, Stage::Vpc]);
    for (sid, tag) in [
        ("MakeVpc", "aws:RequestTag/bakehouse:vpc"),
        ("TagVpc", "aws:RequestTag/bakehouse:vpc"),
        ("TakeVpcOver", "aws:ResourceTag/bakehouse:vpc"),
        ("OfVpcs", "aws:ResourceTag/bakehouse:vpc"),
    ] {
        assert_eq!(statement(&own, sid)["Condition"]["StringEquals"][tag], "web", "{sid}");
    }
    assert_eq!(allowing(&own, "ec2:DeleteVpc"), ["OfVpcs"].into());
    // Any, where no recipe says which; and by a sweep.
    let null = json!({ "Null": { "aws:ResourceTag/bakehouse:vpc": "false" } });
    let sweeps = [Stage::Bake, Stage::Sweep, Stage::Vpc];
    for any in [of(None, &[Stage::Vpc]), of(Some(&recipe), &sweeps[..2]), of(Some(&recipe), &sweeps)] {
        assert_eq!(statement(&any, "OfVpcs")["Condition"], null);
    }
}

#[test]
fn a_volume_is_of_this_family_and_is_attached_by_its_tags() {
    let family = bake("{ family: os-base }", "method: chroot");
    let statements = |action| allowing(&family, action);
    assert_eq!(statements("ec2:AttachVolume"), ["AttachTo", "Own"].into());
    assert_eq!(statements("ec2:DeleteVolume"), ["Own"].into());
    assert_eq!(statements("ec2:CreateVolume"), ["AttachTo", "Make"].into());
    assert_eq!(statements("ec2:CreateSnapshot"), ["Make", "Own"].into());
    // Blocks are read of what it made, and none is put.
    assert_eq!(statements(READ), ["Own"].into());
    assert!(statements("ebs:StartSnapshot").is_empty() && statements(COPY).is_empty());
    let attach = statement(&family, "AttachTo")["Resource"].as_array().unwrap();
    assert_eq!(
        *attach,
        ["arn:aws:ec2:eu-west-1::snapshot/*", "arn:aws:ec2:eu-west-1:111122223333:instance/*"]
    );
    let calls = &statement(&family, "TagMade")["Condition"]["StringEquals"]["ec2:CreateAction"];
    assert_eq!(*calls, json!(["CreateSnapshot", "CreateVolume", "RegisterImage"]));
    // The import of a foreign base is made, and its blocks are not read.
    let foreign = bake("{ parameter: /aws/service/debian/release/12/latest/amd64 }", "method: chroot");
    assert_eq!(allowing(&foreign, COPY), ["Base"].into());
    assert_eq!(allowing(&foreign, READ), ["Own"].into());
}

#[test]
fn an_image_from_scratch_reads_no_foreign_block() {
    let policy = bake("{ scratch: { distribution: debian, suite: bookworm } }", "");
    assert_eq!(allowing(&policy, READ), ["Own"].into());
    assert!(!sids(&policy).contains("UseKey"));
}

#[test]
fn a_key_is_named_as_narrowly_as_its_name_allows() {
    let with = |key: &str| {
        bake(
            "{ scratch: { distribution: debian, suite: bookworm } }",
            &format!("disk: {{ encrypt: '{key}' }}"),
        )
    };
    let arn = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    assert_eq!(statement(&with(arn), "UseKey")["Resource"][0], arn);
    let alias = with("alias/bakery");
    let use_key = statement(&alias, "UseKeyByAlias");
    assert_eq!(use_key["Resource"][0], "arn:aws:kms:eu-west-1:111122223333:key/*");
    assert_eq!(use_key["Condition"]["ForAnyValue:StringEquals"]["kms:ResourceAliases"][0], "alias/bakery");
    assert_eq!(use_key["Condition"]["StringLike"]["kms:ViaService"][0], "ec2.eu-west-1.amazonaws.com");
    assert_eq!(
        statement(&alias, "GrantKeyByAlias")["Condition"]["Bool"]["kms:GrantIsForAWSResource"],
        "true"
    );
    assert!(!sids(&alias).contains("UseKey"));
    // Each in its own way: one without an alias has none to be asked for.
    let scratch = "{ scratch: { distribution: debian, suite: bookworm } }";
    let recipe = recipe_of(scratch, "disk: { encrypt: alias/bakery }");
    let wish = Wish { stages: [Stage::Bake].into(), keys: vec![arn.to_owned()], ..Wish::default() };
    let both = policy(&Needs::of(Some(&recipe), None, &wish), &scope());
    let of_id = statement(&both, "UseKey");
    assert_eq!(of_id["Resource"], json!([arn]));
    assert!(of_id["Condition"].get("ForAnyValue:StringEquals").is_none());
    assert_eq!(*statement(&both, "UseKeyByAlias"), *use_key);
}

#[test]
fn the_role_of_a_bases_account_may_be_taken_and_no_other() {
    let more = |role: &str| {
        format!(
            "accounts: [{{ id: '444455556666', role: {role}, external-id: team }}, {{ id: '777788889999', role: Publish }}]"
        )
    };
    let base = "{ family: os-base, channel: release, account: '444455556666' }";
    let named = bake(base, &more("Bakery"));
    let take = statement(&named, "TakeRoles");
    assert_eq!(take["Resource"], json!(["arn:aws:iam::444455556666:role/Bakery"]));
    assert_eq!(take["Action"], json!(["sts:AssumeRole"]));
    // Its parameter and its snapshots are another account's: the one is the role's, and the others are copied.
    assert_eq!(allowing(&named, COPY), ["Base"].into());
    assert!(!sids(&named).contains("Parameters") && !sids(&named).contains("ReadFamily"));
    let arn = "arn:aws:iam::444455556666:role/ci/Bakery";
    assert_eq!(statement(&bake(base, &more(arn)), "TakeRoles")["Resource"], json!([arn]));
    let of_base = "{ family: os-base, account: '444455556666', role: Bakery }";
    assert!(sids(&bake(of_base, "")).contains("TakeRoles"));
    // Named, and nothing asks for it.
    assert!(!sids(&bake("{ family: os-base }", &more("Bakery"))).contains("TakeRoles"));
}

/// What changes or reads data is bound to a resource by its tags, or the table says why it cannot be.
#[test]
fn nothing_changes_everything() {
    for statement in STATEMENTS {
        for grant in statement.grants {
            let looks = ["Describe", "Get", "List"].iter().any(|verb| grant.action.contains(verb));
            // Of one command, or of one job, and no resource (SAR, AWS Systems Manager and AWS CodePipeline).
            let nameless = grant.action == "ssm:CancelCommand" || grant.action.starts_with("codepipeline:");
            assert!(looks || nameless || grant.on != On::Everything, "{} on everything", grant.action);
            // What is used to make something else, and need not be ours.
            let unbound = ["ec2:RegisterImage", "ec2:CopyImage", "ec2:RunInstances", "sts:AssumeRole"];
            let changes =
                ["Delete", "Deregister", "Terminate", "Stop", "Put", "Start", "CreateTags", "CreateImage"];
            if changes.iter().any(|verb| grant.action.contains(verb)) && grant.action.starts_with('e') {
                let bound = !statement.only.is_empty() || grant.on == On::Repositories;
                assert!(bound || unbound.contains(&grant.action), "{} in {}", grant.action, statement.sid);
            }
            assert!(!grant.source.is_empty() && !grant.parts.is_empty());
        }
    }
}

/// The kinds of resources whose tags a call is asked for, and of those that it makes with tags of its own (SAR, Amazon
/// EC2). All other actions know one kind.
const KINDS: [(&str, &[&str], &[&str]); 15] = [
    (
        "ec2:RunInstances",
        &["image", "snapshot", "network"],
        &["instance", "volume", "network-interface", "spot"],
    ),
    ("ec2:CreateImage", &["instance"], &["image", "snapshot"]),
    ("ec2:CopyImage", &["image"], &["image", "snapshot"]),
    ("ec2:RegisterImage", &["snapshot"], &["image"]),
    ("ec2:CreateVolume", &["snapshot"], &["volume"]),
    ("ec2:CreateSnapshot", &["volume"], &["snapshot"]),
    ("ec2:AttachVolume", &["volume", "instance"], &[]),
    ("ec2:DetachVolume", &["volume", "instance"], &[]),
    ("ec2:CreateSubnet", &["vpc"], &["subnet"]),
    ("ec2:CreateRouteTable", &["vpc"], &["route table"]),
    ("ec2:CreateSecurityGroup", &["vpc"], &["security group"]),
    ("ec2:AttachInternetGateway", &["internet gateway", "vpc"], &[]),
    ("ec2:DetachInternetGateway", &["internet gateway", "vpc"], &[]),
    ("ec2:AssociateRouteTable", &["route table", "subnet"], &[]),
    ("ec2:DisassociateRouteTable", &["route table", "subnet"], &[]),
];

fn kinds(on: On) -> &'static [&'static str] {
    match on {
        On::Snapshots => &["snapshot"],
        On::Images | On::BaseImages => &["image"],
        On::ImagesAndSnapshots => &["image", "snapshot"],
        On::Instances => &["instance"],
        On::Volumes => &["volume"],
        On::Vpcs => &["vpc"],
        On::InternetGateways => &["internet gateway"],
        On::Subnets => &["subnet"],
        On::RouteTables => &["route table"],
        On::SecurityGroups => &["security group"],
        On::VpcParts => &["vpc", "internet gateway", "subnet", "route table", "security group"],
        On::LaunchMakes => &["instance", "volume", "network-interface", "spot"],
        On::Networks | On::TaggedSubnets | On::GroupsOfVpc => &["network"],
        On::Everything => &["everything"],
        On::Parameters => &["parameter"],
        On::Secrets => &["secret"],
        On::Keys => &["key"],
        On::Roles | On::ProfileRole => &["role"],
        On::CommandDocument => &["document"],
        On::Objects => &["object"],
        On::Buckets => &["bucket"],
        On::Repositories => &["repository"],
        On::ActionTypes => &["actiontype"],
    }
}

/// A statement's resources are those of all its actions. None of them is allowed anything by another's.
#[test]
fn no_action_gains_by_the_resources_of_its_neighbours() {
    let everywhere = |action: &str| -> BTreeSet<&str> {
        let unbound = STATEMENTS.iter().filter(|statement| statement.only.is_empty());
        let grants = unbound.flat_map(|statement| statement.grants).filter(|grant| grant.action == action);
        grants.flat_map(|grant| kinds(grant.on)).copied().collect()
    };
    let mut several = 0;
    for statement in STATEMENTS {
        let all: BTreeSet<&str> =
            statement.grants.iter().flat_map(|grant| kinds(grant.on)).copied().collect();
        for grant in statement.grants {
            let same = statement.grants.iter().filter(|other| other.action == grant.action);
            let own: BTreeSet<&str> = same.flat_map(|other| kinds(other.on)).copied().collect();
            let Some((_, uses, makes)) = KINDS.iter().find(|(action, _, _)| *action == grant.action) else {
                let tags = grant.action.ends_with("Tags");
                assert!(!tags || own == all, "{} in {}", grant.action, statement.sid);
                assert!(tags || own.len() == 1, "{} has several kinds: KINDS wants it", grant.action);
                continue;
            };
            several += 1;
            let makes_of = [Only::MakesOfFamily, Only::MakesVpcs];
            let of_request = makes_of.iter().any(|only| statement.only.contains(only));
            let relevant = match statement.only {
                [] => [*uses, *makes].concat(),
                _ if of_request => makes.to_vec(),
                _ => uses.to_vec(),
            };
            for kind in relevant.iter().filter(|kind| all.contains(*kind)) {
                let allowed = own.contains(kind) || everywhere(grant.action).contains(kind);
                assert!(allowed, "{} on {kind} in {}", grant.action, statement.sid);
            }
        }
    }
    assert!(several > 6, "{several}");
}

/// Names as long as they are in practice, and everything that a recipe can ask for.
fn largest() -> Vec<recipe::Recipe> {
    let key = "arn:aws:kms:ap-southeast-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let launch = "launch: { profile: bakery-instance-profile, bucket: company-bakery-ap-southeast-2, spot: true,\n  \
                  subnet: subnet-0123456789abcdef0, security-groups: [sg-0123456789abcdef0, sg-0123456789abcdef1] }\n";
    let bases = [
        "{ image: ami-0123456789abcdef0 }",
        "{ parameter: /company/images/hardened/debian-12/latest }",
        "{ newest: { owners: ['444455556666'], name: 'hardened-*' } }",
        "{ family: company-os-base, channel: release }",
        "{ family: company-os-base, account: '444455556666', role: BakeryReader }",
    ];
    let mut all = Vec::new();
    for base in bases {
        for method in ["method: direct\n", "method: launch\n", "method: chroot\n", "method: auto\n"] {
            // Launch does not take a key of its own.
            let launches = method == "method: launch\n";
            let encrypt = if launches { String::new() } else { format!("disk: {{ encrypt: '{key}' }}\n") };
            let has_launch = !["method: direct\n", "method: chroot\n"].contains(&method);
            let launch = if has_launch { launch } else { "" };
            let text = format!("{method}{encrypt}{launch}");
            let mut recipe = recipe_of(base, &text);
            "payments-web-frontend".clone_into(&mut recipe.name);
            all.push(recipe);
        }
    }
    all
}

#[test]
fn no_two_statements_have_one_name_and_a_policy_fits_into_a_managed_one() {
    let names: BTreeSet<&str> = STATEMENTS.iter().map(|statement| statement.sid).collect();
    assert_eq!(names.len(), STATEMENTS.len());
    assert!(names.iter().all(|sid| sid.bytes().all(|byte| byte.is_ascii_alphanumeric())));
    let key = "arn:aws:kms:ap-southeast-2:111122223333:key/abcd1234-12ab-34cd-56ef-1234567890ab".to_owned();
    let scope = Scope { region: Region::parse("ap-southeast-2"), account: AccountId::parse("111122223333") };
    let long = |recipe: &recipe::Recipe, stages: &[Stage]| {
        let stages = stages.iter().copied().collect();
        let repositories = vec!["bakehouse".to_owned()];
        let wish = Wish { stages, keys: vec![key.clone()], repositories, ..Wish::default() };
        length(&policy(&Needs::of(Some(recipe), None, &wish), &scope))
    };
    use Stage::{Bake, Download, Registry, Sweep, Test, Upload, Vpc, Worker};
    let mut longest = (0, 0);
    for recipe in largest() {
        longest.0 = longest.0.max(long(&recipe, &[Bake, Test]));
        longest.1 =
            longest.1.max(long(&recipe, &[Bake, Test, Sweep, Upload, Download, Registry, Worker, Vpc]));
    }
    assert!(longest.0 < MANAGED, "{longest:?}");
    // All of it at once goes into the role itself.
    assert!(MANAGED < longest.1 && longest.1 < OF_A_ROLE, "{longest:?}");
}

#[test]
fn partitions_are_told_by_the_region() {
    let arn = |region: &str| {
        let scope = Scope { region: Region::parse(region), account: None };
        scope.arn("ec2", "", "snapshot/*")
    };
    assert_eq!(arn("cn-north-1"), "arn:aws-cn:ec2:cn-north-1::snapshot/*");
    assert_eq!(arn("us-gov-west-1"), "arn:aws-us-gov:ec2:us-gov-west-1::snapshot/*");
    assert_eq!(Scope::default().arn("ec2", "", "snapshot/*"), "arn:aws:ec2:*::snapshot/*");
}
