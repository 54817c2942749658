//! `bakehouse vpc` and `bakehouse sweep`, with what others do to a VPC in the meantime.

use std::process::{Child, Stdio};

use super::StandIn;
use super::vpc::{assert_whole, counts, in_yard, instance, run};
use crate::faults::run::{continued, until_stopped};
use crate::yard::Yard;

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
