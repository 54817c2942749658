//! The network goes away in the middle of a package: told as that, and nothing is left. By a real apt, in the base of
//! real size.

use super::source::{PACKAGE, Then, serve};
use super::state::State;
use crate::yard::Yard;
use crate::yard::small::recipe;

/// A recipe that installs the package from the server alone.
fn installs(source: &str, limits: &str) -> String {
    let only = format!("rm -f /etc/apt/sources.list.d/*; echo \"{source}\" >/etc/apt/sources.list");
    // apt waits longer from try to try.
    let once = "echo \"Acquire::Retries::Delay \\\"false\\\";\" >/etc/apt/apt.conf.d/zz-once";
    recipe(
        "half",
        "{ family: os-base }",
        &format!(
            "provision:\n  - shell: {{ run: '{only}; {once}' }}\n  - packages: {{ install: [{PACKAGE}]{limits} }}\n"
        ),
    )
}

#[test]
fn a_package_whose_server_goes_away_fails_the_step_and_leaves_nothing() {
    let Some(yard) = Yard::of_shared() else { return };
    let before = State::of(&yard);
    yard.recipe("half", &installs(&serve(Then::Ends), ""));
    let said = yard.bake("half", &[]).code(3);
    for part in
        ["step 2", "`apt-get install` failed with exit code 100", "is the network there?", "nothing was left"]
    {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    before.assert_again(&yard, "the server went away");

    yard.recipe("half", &installs(&serve(Then::Stalls), ", timeout: 5s"));
    let said = yard.bake("half", &[]).code(3);
    for part in ["step 2", "`apt-get install` did not end within 5 s", "nothing was left"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    before.assert_again(&yard, "the server stalled");
}
