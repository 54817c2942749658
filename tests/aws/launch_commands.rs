//! The commands of a launch against the stand-in: what their history tells, and how long they may take.

use serde_json::{Value, json};

use super::launch::Bakery;
use crate::yard::Said;

/// The scripts that ran on instances, with their limits in seconds.
fn scripts(bakery: &Bakery) -> Vec<(String, u64)> {
    let text = |value: &Value| value[0].as_str().unwrap().to_owned();
    let sent = bakery.asked("SendCommand").into_iter().map(|asked| asked["Parameters"].clone());
    sent.map(|asked| (text(&asked["commands"]), text(&asked["executionTimeout"]).parse().unwrap())).collect()
}

/// The addresses in a script of objects called `name`.
fn links(script: &str, name: &str) -> Vec<String> {
    let words = script.split(['\'', ' ', '\n']);
    words.filter(|word| word.contains(&format!("/{name}?"))).map(str::to_owned).collect()
}

/// The history of commands is read by more people than the bucket: an address in it is good for minutes, and what runs
/// after a reboot has its own, however late that is. Nothing secret is in it.
#[test]
fn each_boot_has_a_command_with_links_of_its_own_that_are_good_for_minutes() {
    let Some(bakery) = Bakery::new() else { return };
    bakery.cloud.settings(json!({ "agent_seconds": 2.0 }));
    let before = bakery.held();
    let secret = "secret-env: { TOKEN: { env: BUILD_TOKEN } }";
    let step = |run: &str| format!("  - shell: {{ run: '{run}', {secret} }}\n");
    bakery.recipe(
        ", within: 10m",
        &[
            step("test \"$TOKEN\" = not-to-be-seen && echo it is $TOKEN >/srv/first"),
            "  - reboot: {}\n".to_owned(),
            step("test -e /srv/first && test \"$TOKEN\" = not-to-be-seen && echo again >/srv/again"),
            "  - reboot: {}\n".to_owned(),
            "  - shell: { run: 'test -e /srv/again' }\n".to_owned(),
        ]
        .concat(),
    );
    let mut bake = bakery.command(&["bake"]);
    bake.arg(bakery.yard.path().join("web")).env("BUILD_TOKEN", "not-to-be-seen");
    let said: Said = bake.output().unwrap().into();
    let said = said.ok();
    assert!(!said.err.contains("not-to-be-seen"), "{}", said.err);
    assert_eq!(bakery.held()["objects"], before["objects"]);
    let all = scripts(&bakery);
    let steps: Vec<&(String, u64)> = all.iter().filter(|(script, _)| script.contains("/secrets?")).collect();
    assert_eq!(steps.len(), 3, "{all:?}");
    let mut secrets: Vec<String> = steps.iter().flat_map(|(script, _)| links(script, "secrets")).collect();
    let files = steps.iter().flat_map(|(script, _)| links(script, "bundle")).count();
    for link in &secrets {
        let life = link.split(['?', '&']).find_map(|part| part.strip_prefix("X-Amz-Expires=")).unwrap();
        assert!(life.parse::<u64>().unwrap() <= 900, "{link}");
    }
    // The files lie on the disk already after the first.
    assert_eq!((secrets.len(), files), (3, 1));
    secrets.dedup();
    assert_eq!(secrets.len(), 3, "{secrets:?}");
    // One deadline for all of it, from the launch on: the first boot took two seconds of it at least, and so did the others.
    let limits: Vec<u64> = steps.iter().map(|(_, limit)| *limit).collect();
    assert!(limits[0] <= 598 && limits[1] <= limits[0] - 2 && limits[2] <= limits[1] - 2, "{limits:?}");
    for call in bakery.cloud.exchanges() {
        assert!(!call["parameters"].to_string().contains("not-to-be-seen"), "{call}");
    }
    bakery.cloud.finish();
}

#[test]
fn steps_that_are_not_done_in_time_are_told_with_the_key() {
    let Some(bakery) = Bakery::new() else { return };
    let before = bakery.held();
    bakery.recipe(", within: 8s", "  - shell: { run: 'sleep 300' }\n");
    let said = bakery.bake().code(3);
    for part in ["launch.within", "8 s after the launch", "nothing was left behind"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert_eq!(bakery.held(), before);
    bakery.cloud.finish();
}
