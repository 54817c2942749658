//! `bakehouse ecr`, by the program against the stand-in.

#![expect(clippy::disallowed_methods, reason = "the program is started here as a user starts it")]

use std::process::Command;

use super::StandIn;
use super::fixture::python;
use crate::yard::Said;

fn run(cloud: &StandIn, args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bakehouse"));
    command.env_clear().envs(cloud.environment()).args(args);
    command.output().unwrap().into()
}

/// Pushes an image's manifest, as docker would at the end of a push, and gives the digest that ECR has for it.
fn push(cloud: &StandIn, repository: &str, tag: &str) -> String {
    let script = "import boto3, json, sys\n\
        manifest = json.dumps({'schemaVersion': 2, 'mediaType': 'application/vnd.oci.image.manifest.v1+json',\n\
        'config': {'mediaType': 'application/vnd.oci.image.config.v1+json', 'size': 2, 'digest': 'sha256:' + '0' * 64},\n\
        'layers': []})\n\
        client = boto3.client('ecr')\n\
        image = client.put_image(repositoryName=sys.argv[1], imageTag=sys.argv[2], imageManifest=manifest)\n\
        print(image['image']['imageId']['imageDigest'])\n";
    let said = Command::new(python())
        .args(["-c", script, repository, tag])
        .envs(cloud.environment())
        .output()
        .unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_repository_is_made_once_with_tags_that_stay_and_a_scan() {
    let cloud = StandIn::start();
    let uri = format!("{}.dkr.ecr.us-east-1.amazonaws.com/team/bakehouse", cloud.account());
    let first = run(&cloud, &["ecr", "prepare", "team/bakehouse", "--json"]).ok();
    let made: serde_json::Value = serde_json::from_str(&first.out).unwrap();
    assert_eq!((&made["uri"], &made["made"]), (&uri.clone().into(), &true.into()));
    assert_eq!((&made["immutable-tags"], &made["scans-on-push"]), (&true.into(), &true.into()));
    // Found again, not made again.
    let again = run(&cloud, &["ecr", "prepare", "team/bakehouse"]).ok();
    assert_eq!((again.out.trim(), again.err.as_str()), (uri.as_str(), ""));
    let made = cloud.operations().iter().filter(|name| *name == "ecr:CreateRepository").count();
    assert_eq!(made, 1);
    cloud.finish();
}

#[test]
fn a_login_is_a_password_and_a_pushed_image_has_a_digest() {
    let cloud = StandIn::start();
    run(&cloud, &["ecr", "prepare", "bakehouse"]).ok();
    let login = run(&cloud, &["ecr", "login"]).ok();
    assert!(!login.out.trim().is_empty() && !login.out.contains(':') && login.err.is_empty());
    let missing = run(&cloud, &["ecr", "digest", "bakehouse:1"]).code(3);
    assert!(missing.err.contains("ImageNotFoundException"), "{}", missing.err);
    let digest = push(&cloud, "bakehouse", "1");
    assert_eq!(run(&cloud, &["ecr", "digest", "bakehouse:1"]).ok().out.trim(), digest);
    assert!(digest.starts_with("sha256:"), "{digest}");
    let unnamed = run(&cloud, &["ecr", "digest", "bakehouse"]).code(2);
    assert!(unnamed.err.contains("NAME:TAG"), "{}", unnamed.err);
    cloud.finish();
}
