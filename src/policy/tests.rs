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
    policy(&Needs::of(Some(&recipe_of(base, more)), &wish), &scope())
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

#[test]
fn a_child_of_a_family_reads_that_family_and_writes_its_own() {
    let policy = bake("{ family: os-base, channel: release }", "");
    let read = statement(&policy, "ReadBaseFamily");
    assert_eq!(read["Condition"]["StringEquals"]["aws:ResourceTag/bakehouse:family"], "os-base");
    assert_eq!(read["Resource"][0], "arn:aws:ec2:eu-west-1::snapshot/*");
    let write = statement(&policy, "StoreBlocks");
    assert_eq!(write["Condition"]["StringEquals"]["aws:ResourceTag/bakehouse:family"], "web");
    let parameter = &statement(&policy, "ReadParameters")["Resource"][0];
    assert_eq!(parameter, "arn:aws:ssm:eu-west-1:111122223333:parameter/bakehouse/os-base/x86_64/release");
    assert!(!sids(&policy).contains("Import") && !sids(&policy).contains("ReadAnySnapshot"));
}

#[test]
fn whose_the_base_is_decides_what_is_read_and_whether_anything_is_copied() {
    let public = bake("{ parameter: /aws/service/debian/release/12/latest/amd64 }", "");
    assert!(sids(&public).is_superset(&["Import", "TagImports", "ReadImports"].into()));
    assert!(!sids(&public).contains("ReadAnySnapshot"));
    let parameter = &statement(&public, "ReadParameters")["Resource"][0];
    assert_eq!(parameter, "arn:aws:ssm:eu-west-1::parameter/aws/service/debian/release/12/latest/amd64");

    let amazon = bake("{ newest: { owners: [amazon], name: 'al2023-*' } }", "");
    assert!(sids(&amazon).contains("Import") && !sids(&amazon).contains("ReadAnySnapshot"));
    let own = bake("{ newest: { owners: [self], name: 'x-*' } }", "");
    assert!(!sids(&own).contains("Import") && sids(&own).contains("ReadAnySnapshot"));

    // An id tells nothing: both are allowed, and it is said.
    let by_id = recipe_of("{ image: ami-0123456789abcdef0 }", "");
    let wish = Wish { stages: [Stage::Bake].into(), ..Wish::default() };
    let needs = Needs::of(Some(&by_id), &wish);
    assert!(needs.parts.contains(&Part::Import) && needs.parts.contains(&Part::ReadOwn));
    assert!(needs.notes.iter().any(|note| note.contains("--base")), "{:?}", needs.notes);
    let foreign = Needs::of(Some(&by_id), &Wish { base: Some(BaseOwner::Foreign), ..wish });
    assert!(!foreign.parts.contains(&Part::ReadOwn));
    assert!(!foreign.notes.iter().any(|note| note.contains("--base")));
}

#[test]
fn an_image_from_scratch_reads_no_foreign_block() {
    let policy = bake("{ scratch: { distribution: debian, suite: bookworm } }", "");
    for statement in policy["Statement"].as_array().unwrap() {
        let actions = statement["Action"].as_array().unwrap();
        if actions.iter().any(|action| action == "ebs:GetSnapshotBlock") {
            assert_eq!(statement["Condition"]["StringEquals"]["aws:ResourceTag/bakehouse:family"], "web");
        }
    }
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
    let use_key = statement(&alias, "UseKey");
    assert_eq!(use_key["Resource"][0], "arn:aws:kms:eu-west-1:111122223333:key/*");
    assert_eq!(use_key["Condition"]["ForAnyValue:StringEquals"]["kms:ResourceAliases"][0], "alias/bakery");
    assert_eq!(use_key["Condition"]["StringLike"]["kms:ViaService"][0], "ec2.eu-west-1.amazonaws.com");
    assert_eq!(statement(&alias, "GrantKey")["Condition"]["Bool"]["kms:GrantIsForAWSResource"], "true");
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
    assert!(sids(&named).contains("Import"));
    assert!(!sids(&named).contains("ReadParameters") && !sids(&named).contains("ReadBaseFamily"));
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
            // Of one command and no resource (SAR, AWS Systems Manager).
            let nameless = grant.action == "ssm:CancelCommand";
            assert!(looks || nameless || statement.on != On::Everything, "{} on everything", grant.action);
            let unbound = ["ec2:RegisterImage", "ec2:CopyImage", "ec2:RunInstances", "sts:AssumeRole"];
            let deletes = ["Delete", "Deregister", "Terminate", "Stop", "Put", "CreateTags"];
            if deletes.iter().any(|verb| grant.action.contains(verb)) && grant.action.starts_with('e') {
                let bound =
                    !statement.only.is_empty() || matches!(statement.on, On::Repositories | On::Objects);
                assert!(bound || unbound.contains(&grant.action), "{} in {}", grant.action, statement.sid);
            }
            assert!(!grant.source.is_empty() && !grant.parts.is_empty());
        }
    }
}

#[test]
fn no_two_statements_have_one_name_and_a_policy_fits_into_a_managed_one() {
    let names: BTreeSet<&str> = STATEMENTS.iter().map(|statement| statement.sid).collect();
    assert_eq!(names.len(), STATEMENTS.len());
    assert!(names.iter().all(|sid| sid.bytes().all(|byte| byte.is_ascii_alphanumeric())));
    // IAM and STS quotas: a managed policy has at most 6,144 characters, white space not counted.
    let recipe = recipe_of("{ image: ami-0123456789abcdef0 }", "disk: { encrypt: alias/bakery }");
    let stages = [Stage::Bake, Stage::Test, Stage::Sweep].into();
    let largest = policy(&Needs::of(Some(&recipe), &Wish { stages, ..Wish::default() }), &scope());
    let length = largest.to_string().chars().filter(|c| !c.is_whitespace()).count();
    assert!(length < 6144, "{length}");
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
