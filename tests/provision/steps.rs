//! What all steps have in common, and shell steps.

use bakehouse::provision::StepError;
use serde_json::json;

use super::roots::{Recipe, chain, enter, sh, small};
use crate::gate;

#[tokio::test]
async fn steps_run_in_order_and_are_told() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = small().await;
    let root = enter(dir.path()).await;
    let recipe = Recipe::new();
    let steps = json!([
        {"shell": {"run": "echo one >>/root/log\n"}},
        {"shell": {"run": "echo two >>/root/log; echo on-error >&2", "workdir": "/var/log"}},
    ]);
    let done = recipe.run(&root, steps.clone()).await.unwrap();
    assert_eq!(done.iter().map(|step| step.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(std::fs::read_to_string(dir.path().join("root/log")).unwrap(), "one\ntwo\n");
    assert!(recipe.shown.text().contains(r#"Line { step: "2 shell", text: "on-error" }"#));
    // From a later step on.
    let mut recipe = Recipe::new();
    recipe.context.from = 1;
    let done = recipe.run(&root, steps).await.unwrap();
    assert_eq!(done.iter().map(|step| step.number).collect::<Vec<_>>(), [2]);
    assert_eq!(std::fs::read_to_string(dir.path().join("root/log")).unwrap(), "one\ntwo\ntwo\n");
    root.leave().await.unwrap();
}

#[tokio::test]
async fn a_failure_names_the_step_its_code_and_its_last_lines() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = small().await;
    let root = enter(dir.path()).await;
    let recipe = Recipe::new();
    let steps = json!([
        {"shell": {"run": "true"}},
        // sh -e: the line after the failing one is not run.
        {"shell": {"run": "i=0; while [ $i -lt 50 ]; do echo line $i; i=$((i+1)); done\n(exit 7)\necho not reached"}},
        {"shell": {"run": "touch /root/not-reached"}},
    ]);
    let failed = recipe.run(&root, steps).await.unwrap_err();
    assert_eq!((failed.number, failed.done.len()), (2, 1));
    let text = chain(&failed);
    assert!(text.contains("step 2 (shell: ") && text.contains("exit code 7"), "{text}");
    assert!(
        text.contains("line 49") && !text.contains("line 9\n") && !text.contains("not reached"),
        "{text}"
    );
    assert!(!dir.path().join("root/not-reached").exists());
    root.leave().await.unwrap();
}

#[tokio::test]
async fn a_step_has_its_time_and_its_tries() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = small().await;
    let root = enter(dir.path()).await;
    let recipe = Recipe::new();
    let again =
        json!([{"shell": {"run": "test -e /root/tried || { touch /root/tried; exit 1; }", "retries": 1}}]);
    recipe.run(&root, again).await.unwrap();
    assert!(recipe.shown.text().contains("try 2 of 2 follows in 2 s"), "{}", recipe.shown.text());
    let long = json!([{"shell": {"run": "echo waiting; sleep 1000", "timeout": "1s"}}]);
    let failed = recipe.run(&root, long).await.unwrap_err();
    let StepError::TimedOut { limit, tail, .. } = &failed.source else { panic!("{failed:?}") };
    assert_eq!((limit.as_secs(), tail.as_slice()), (1, &["waiting".to_owned()][..]));
    root.leave().await.unwrap();
}

#[tokio::test]
async fn a_stop_ends_the_step_and_is_not_tried_again() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = small().await;
    let root = enter(dir.path()).await;
    let recipe = Recipe::new();
    let stop = recipe.context.stop.clone();
    let watched = recipe.shown.clone();
    let steps = json!([{"shell": {"run": "echo running; sleep 1000", "retries": 5}}]);
    let asker = tokio::spawn(async move {
        while !watched.text().contains("text: \"running\"") {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        stop.request(15);
    });
    let failed = recipe.run(&root, steps).await.unwrap_err();
    asker.await.unwrap();
    assert!(matches!(failed.source, StepError::Stopped), "{failed:?}");
    root.leave().await.unwrap();
}

#[tokio::test]
async fn a_script_has_its_interpreter_its_folder_and_an_input_that_is_empty() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = small().await;
    let root = enter(dir.path()).await;
    let recipe = Recipe::new();
    let steps = json!([
        {"shell": {"run": "readlink /proc/self/cwd\ncat\necho \"$A\"\n", "workdir": "/var/log", "env": {"A": "b c"}}},
        // `cat` shows the script itself.
        {"shell": {"run": "shown by cat", "interpreter": "/bin/cat"}},
    ]);
    recipe.run(&root, steps).await.unwrap();
    for text in ["/var/log", "b c", "shown by cat"] {
        assert!(recipe.shown.text().contains(&format!("text: {text:?}")), "{text}");
    }
    for (step, word) in [
        (json!({"run": "true", "interpreter": "/usr/bin/python9"}), "is not in the root"),
        (json!({"run": "true", "interpreter": "bash"}), "absolute"),
        (json!({"run": "true", "workdir": "/nowhere"}), "not a folder"),
        (json!({"run": "true", "workdir": "etc"}), "absolute"),
        (json!({"run": "true", "env": {"A B": "c"}}), "not a name for a variable"),
    ] {
        let text = chain(&recipe.run(&root, json!([{"shell": step}])).await.unwrap_err());
        assert!(text.contains(word), "{text}");
    }
    root.leave().await.unwrap();
    // The script was on no disk.
    assert_eq!(std::fs::read_dir(dir.path().join("run")).unwrap().count(), 0);
}

#[tokio::test]
async fn steps_say_what_the_root_lacks() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = small().await;
    let root = enter(dir.path()).await;
    let recipe = Recipe::new();
    for (step, word) in [
        (json!({"update": "all"}), "needs apt"),
        (json!({"packages": {"install": ["nginx"]}}), "needs apt"),
        (json!({"services": {"enable": ["nginx"]}}), "no systemd"),
    ] {
        let text = chain(&recipe.run(&root, json!([step])).await.unwrap_err());
        assert!(text.contains(word), "{text}");
    }
    root.leave().await.unwrap();
}

#[tokio::test]
async fn aws_credentials_are_there_only_where_the_step_asks() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = small().await;
    let root = enter(dir.path()).await;
    let mut recipe = Recipe::new();
    for (name, value) in
        [("AWS_SECRET_ACCESS_KEY", "s3cret-key"), ("AWS_REGION", "eu-west-1"), ("OTHER", "x")]
    {
        recipe.context.environment.insert(name.into(), value.into());
    }
    let run = "echo region=$AWS_REGION key=$AWS_SECRET_ACCESS_KEY other=$OTHER";
    recipe.run(&root, json!([{"shell": {"run": run, "aws": true}}, {"shell": {"run": run}}])).await.unwrap();
    let shown = recipe.shown.text();
    assert!(shown.contains("region=eu-west-1 key=*** other=\""), "{shown}");
    assert!(shown.contains("region= key= other=\""), "{shown}");
    root.leave().await.unwrap();
}

#[tokio::test]
async fn a_steps_variables_reach_its_commands() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = small().await;
    // Programs in the places of apt-get and systemctl which tell what they find. They are made by a program of the
    // root: see `fill_small`.
    let root = enter(dir.path()).await;
    let tells = "for name in apt-get systemctl; do\n\
                 echo '#!/bin/sh\necho ${0##*/} $MODE; test -e /root/again || { touch /root/again; exit 1; }' \
                 >/usr/bin/$name; chmod 755 /usr/bin/$name; done\n\
                 mkdir -p /usr/lib/systemd; touch /usr/lib/systemd/systemd; chmod 755 /usr/lib/systemd/systemd";
    let made = sh(&root, tells).await;
    assert!(made.success(), "{made:?}");
    root.leave().await.unwrap();
    let root = enter(dir.path()).await;
    let recipe = Recipe::new();
    let steps = json!([
        // The first try of all fails.
        {"services": {"enable": ["app"], "env": {"MODE": "one"}, "retries": 1}},
        {"update": {"scope": "all", "env": {"MODE": "two"}}},
        {"packages": {"install": ["app"], "env": {"MODE": "three"}}},
        {"packages": {"install": ["app"]}},
    ]);
    recipe.run(&root, steps).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let shown = recipe.shown.text();
    for (line, times) in [
        (r#"Line { step: "1 services", text: "systemctl one" }"#, 2),
        // The lists and the packages.
        (r#"Line { step: "2 update", text: "apt-get two" }"#, 2),
        (r#"Line { step: "3 packages", text: "apt-get three" }"#, 1),
        (r#"Line { step: "4 packages", text: "apt-get" }"#, 1),
    ] {
        assert_eq!(shown.matches(line).count(), times, "{line}\n{shown}");
    }
    let bad = json!([{"services": {"enable": ["app"], "env": {"A B": "c"}}}]);
    assert!(chain(&recipe.run(&root, bad).await.unwrap_err()).contains("not a name for a variable"));
    root.leave().await.unwrap();
}
