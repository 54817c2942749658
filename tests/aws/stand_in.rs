//! The stand-in itself: each of its rules by AWS's own Python SDK, and that the oracle sees a request that is broken.

use std::process::Command;

use serde_json::json;

use super::StandIn;
use super::fixture::{folder, python};

#[test]
fn every_rule_of_the_stand_in_holds_for_awss_own_client() {
    let tests = Command::new(python())
        .args(["-m", "unittest", "discover", "--start-directory", "checks", "--top-level-directory", "."])
        .current_dir(folder())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(tests.status.success(), "{}", String::from_utf8_lossy(&tests.stderr));
}

#[test]
fn a_request_that_aws_does_not_know_is_a_finding() {
    let mut cloud = StandIn::start();
    let asked = Command::new("curl")
        .args(["--silent", "--aws-sigv4", "aws:amz:us-east-1:ec2", "--user"])
        .arg(format!("{}:secret", StandIn::access_key(cloud.account())))
        .args(["--data", "Action=DescribeImages&Version=2016-11-15&Ownr.1=self"])
        .arg(cloud.endpoint())
        .output()
        .unwrap();
    assert!(asked.status.success());
    let findings = json!(cloud.expect_findings()).to_string();
    assert!(findings.contains("DescribeImages.Ownr: unknown member"), "{findings}");
    assert_eq!(cloud.operations(), ["ec2:DescribeImages"]);
}

#[test]
fn tests_do_not_see_each_others_accounts() {
    let (one, two) = (StandIn::start(), StandIn::start());
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.raw");
    std::fs::write(&disk, vec![7u8; 600_000]).unwrap();
    let (image, snapshot) =
        one.seed_image(one.account(), json!({ "name": "one", "disk": disk, "public": true }));
    assert_eq!(one.state()["images"][&image]["snapshots"], json!([snapshot]));
    assert_eq!(two.state()["images"], json!({}));
    assert_eq!(one.state_of(&one.other_account(1))["images"], json!({}));
    let back = folder.path().join("back.raw");
    one.write_disk(&snapshot, &back);
    let back = std::fs::read(back).unwrap();
    assert_eq!((&back[..600_000], back.len()), (&vec![7u8; 600_000][..], 1 << 30));
    assert!(back[1 << 20..2 << 20].iter().any(|byte| *byte != 0), "absent blocks read as zeros");
    one.finish();
}
