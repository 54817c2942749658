//! Secrets are on no disk, in no line and in no error.

use serde_json::json;

use super::roots::{Recipe, chain, enter, fill_small, mounted_ext4, unmount};
use crate::gate;

/// A root on a small ext4 image, of which every byte can be looked at afterwards, those of freed blocks too.
#[tokio::test]
async fn secrets_are_in_no_byte_of_the_disk_and_no_line() {
    if !gate::has_root(&["unshare", "mke2fs", "mount", "umount"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, top) = mounted_ext4(dir.path()).await;
    fill_small(&top).await;
    let root = enter(&top).await;
    let mut recipe = Recipe::new();
    // Put together here, so that it is not in this test's own files.
    let value = ["hunter2", "by", "environment"].join("-");
    let file = ["hunter2", "by", "file"].join("-");
    recipe.context.environment.insert("HOST_TOKEN".into(), value.clone());
    recipe.write("key.pem", &format!("first line\n{file}\n"));
    let run = "echo $TOKEN; echo $TOKEN >&2; cat $KEY; stat -c 'mode %a' $KEY\n
        test -e /run/bakehouse/secrets/KEY\necho marker >/root/marker; echo $TOKEN >/tmp/t; exit 3";
    let secrets = json!({"TOKEN": {"env": "HOST_TOKEN"}, "KEY": {"file": "key.pem"}});
    let steps = json!([{"shell": {"run": run, "secret-env": secrets}}]);
    let failed = recipe.run(&root, steps).await.unwrap_err();
    let texts = [recipe.shown.text(), chain(&failed), format!("{failed:?}")];
    assert!(texts[0].contains("mode 600"), "{}", texts[0]);
    assert!(texts[1].contains("***") && texts[1].contains("exit code 3"), "{}", texts[1]);
    // Gone with the step.
    let after = recipe
        .run(&root, json!([{"shell": {"run": "test -z \"$TOKEN\"; test ! -e /run/bakehouse/secrets"}}]))
        .await;
    after.unwrap();
    root.leave().await.unwrap();
    unmount(&top).await;

    let disk = std::fs::read(&image).unwrap();
    let holds = |needle: &str| disk.windows(needle.len()).any(|window| window == needle.as_bytes());
    // The search finds what is there.
    assert!(holds("marker"));
    for secret in [&value, &file] {
        assert!(!holds(secret), "on the disk");
        for text in &texts {
            assert!(!text.contains(secret.as_str()), "{text}");
        }
    }
}

#[tokio::test]
async fn a_secret_that_is_not_there_or_not_one_is_an_error() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = super::roots::small().await;
    let root = enter(dir.path()).await;
    let mut recipe = Recipe::new();
    recipe.write("big", &"x".repeat(2 * 1024 * 1024));
    recipe.write("short", "abc\n");
    recipe.write("long", &format!("begin\n{}\n", "x".repeat(4097)));
    for (name, value) in [("EMPTY", String::new()), ("SHORT", "abc".into()), ("LONG", "x".repeat(4097))] {
        recipe.context.environment.insert(name.into(), value);
    }
    for (secret, word) in [
        (json!({"TOKEN": {"env": "NOT_SET"}}), "NOT_SET, which is not set"),
        (json!({"TOKEN": {"file": "nowhere"}}), "cannot read the secret"),
        (json!({"TOKEN": {"file": "/dev/zero"}}), "not a regular file"),
        (json!({"TOKEN": {"file": "big"}}), "1 MiB"),
        (
            json!({"TOKEN": {"env": "EMPTY"}}),
            "`secret-env: TOKEN` takes the variable EMPTY, whose content is shorter",
        ),
        (json!({"TOKEN": {"env": "SHORT"}}), "shorter than 4 characters"),
        (json!({"TOKEN": {"env": "LONG"}}), "longer than 4 KiB in one line"),
        (
            json!({"TOKEN": {"file": "short"}}),
            "takes the file short, whose content is shorter than 4 characters",
        ),
        (json!({"TOKEN": {"file": "long"}}), "longer than 4 KiB in one line"),
        (json!({"TOKEN": {}}), "exactly one of"),
        (json!({"TOKEN": {"env": "A", "file": "b"}}), "exactly one of"),
        (json!({"../escape": {"env": "A"}}), "not a name for a variable"),
    ] {
        let steps = json!([{"shell": {"run": "true", "secret-env": secret}}]);
        let text = chain(&recipe.run(&root, steps).await.unwrap_err());
        assert!(text.contains(word), "{text}");
    }
    root.leave().await.unwrap();
}

/// The longest line that a secret may have, written where the line that it is in is cut, and among control characters.
#[tokio::test]
async fn no_part_of_a_secret_is_shown_where_a_line_is_cut() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = super::roots::small().await;
    let root = enter(dir.path()).await;
    let mut recipe = Recipe::new();
    let secret = "s3cret".repeat(4096 / 6);
    recipe.context.environment.insert("TOKEN".into(), secret);
    recipe.write("short-lines", "a1\nb2\n");
    // x is 8 KiB long, y 4 KiB. The pipe is read in lines of 16 KiB, of which 12 KiB are shown.
    let run = "y=-; while [ ${#y} -lt 4096 ]; do y=$y$y; done; x=$y$y\n\
               for before in $x $x${y%?????} $x${y%?} $x$y $x$y- $x${x%????}; do echo $before$TOKEN$x; done\n\
               echo $TOKEN$TOKEN$TOKEN$TOKEN$TOKEN >&2\n\
               printf 's3\\033cr\\033et%s\\n' \"${TOKEN#s3cret}\"\nexit 3";
    let from = json!({"TOKEN": {"env": "TOKEN"}, "FILE": {"file": "short-lines"}});
    let failed = recipe.run(&root, json!([{"shell": {"run": run, "secret-env": from}}])).await.unwrap_err();
    root.leave().await.unwrap();
    for text in [recipe.shown.text(), chain(&failed), format!("{failed:?}")] {
        assert!(text.contains("***") && !text.contains("s3cr"), "{text}");
    }
}
