//! A secret of a step is nowhere afterwards: not in the log, the record, the report or the image, free blocks included.

use std::fs;
use std::io::Read;
use std::path::Path;

use crate::yard::Yard;

const FROM_ENVIRONMENT: &str = "s3cret-from-the-environment-4711";
const FROM_FILE: &str = "s3cret-from-a-file-0815";

#[test]
fn a_secret_is_used_and_is_nowhere_afterwards() {
    let Some(yard) = Yard::shared() else { return };
    yard.recipe(
        "secret",
        "version: 1\nname: secret\narchitecture: x86_64\nbase: { family: os-base }\nprovision:\n\
         \x20 - shell:\n\
         \x20     run: |\n\
         \x20       printf %s \"$TOKEN\" | sha256sum > /etc/token.sha256\n\
         \x20       sha256sum < \"$KEY\" > /etc/key.sha256\n\
         \x20       echo \"the token is $TOKEN\"\n\
         \x20       cat \"$KEY\" >&2\n\
         \x20       cp \"$KEY\" /tmp/copy\n\
         \x20     secret-env:\n\
         \x20       TOKEN: { env: TEST_TOKEN }\n\
         \x20       KEY: { file: key.txt }\n",
    );
    yard.file("secret", "key.txt", FROM_FILE);
    let output =
        yard.command().args(["bake", "secret"]).env("TEST_TOKEN", FROM_ENVIRONMENT).output().unwrap();
    let log = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&log));
    let out = yard.out("secret");
    let exported = out.join("secret.raw");
    let image = yard.record("secret")["images"][0]["image"].as_str().unwrap().to_owned();
    // The step did have it.
    let sums =
        yard.run(&["shell", &image, "--", "/bin/cat", "/etc/token.sha256", "/etc/key.sha256"]).ok().out;
    for secret in [FROM_ENVIRONMENT, FROM_FILE] {
        let sum = bakehouse::cloud::Digest::of(secret.as_bytes()).hex();
        assert!(sums.contains(&sum), "{sums}");
        assert!(!contains(&mut &*log, secret), "the log has it");
    }
    assert!(String::from_utf8_lossy(&log).contains("the token is ***"));
    yard.run(&["export", &image, exported.to_str().unwrap()]).ok();
    let mut searched = 0;
    for entry in fs::read_dir(&out).unwrap().flatten() {
        for secret in [FROM_ENVIRONMENT, FROM_FILE] {
            assert!(!file_contains(&entry.path(), secret), "{} has it", entry.path().display());
        }
        searched += 1;
    }
    assert!(searched >= 6);
    fs::remove_file(exported).unwrap();
}

fn file_contains(path: &Path, text: &str) -> bool {
    contains(&mut fs::File::open(path).unwrap(), text)
}

/// Searches a stream, in pieces that overlap.
fn contains(from: &mut dyn Read, text: &str) -> bool {
    const PIECE: usize = 4 << 20;
    let overlap = text.len() - 1;
    let mut buffer = Vec::new();
    loop {
        let kept = buffer.split_off(buffer.len().saturating_sub(overlap));
        buffer = kept;
        let read = from.take(PIECE as u64).read_to_end(&mut buffer).unwrap();
        if buffer
            .windows(text.len())
            .any(|window| window[0] == text.as_bytes()[0] && window == text.as_bytes())
        {
            return true;
        }
        if read == 0 {
            return false;
        }
    }
}

/// The search itself finds what is there, at a piece's edge too.
#[test]
fn the_search_finds_what_is_there() {
    for at in [0, 1, (4 << 20) - 5, 4 << 20, (9 << 20) + 3] {
        let mut bytes = vec![0; 10 << 20];
        bytes[at..at + FROM_FILE.len()].copy_from_slice(FROM_FILE.as_bytes());
        assert!(contains(&mut &*bytes, FROM_FILE), "{at}");
    }
    assert!(!contains(&mut &*vec![b's'; 5 << 20], FROM_FILE));
}
