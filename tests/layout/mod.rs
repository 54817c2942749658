//! The layout's rules, enforced: which folder may name which, where the SDK may be named, and how large a file may be.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What each folder of `src/` may name. Data flows from the recipe down to a registered image; the seam and the host
/// are below all of it and know nothing of it. `cli` may name everything and is named by nothing.
const MAY_NAME: [(&str, &[&str]); 17] = [
    ("host", &[]),
    ("cloud", &["host"]),
    ("report", &["host"]),
    ("ledger", &["cloud", "host"]),
    ("stage", &["cloud", "host"]),
    ("vpc", &["report", "ledger", "cloud", "host"]),
    ("local", &["cloud", "host"]),
    ("aws", &["cloud", "host"]),
    ("recipe", &["cloud", "host"]),
    ("plan", &["recipe", "cloud", "host"]),
    ("policy", &["plan", "recipe", "cloud"]),
    ("disk", &["report", "cloud", "host"]),
    ("provision", &["recipe", "report", "host"]),
    ("method", &["plan", "disk", "provision", "recipe", "report", "ledger", "cloud", "host"]),
    ("image", &["method", "plan", "provision", "recipe", "report", "ledger", "cloud", "host"]),
    ("acceptance", &["provision", "recipe", "report", "stage", "ledger", "cloud", "host"]),
    ("pipeline", &["recipe", "report", "cloud", "host"]),
];

/// A file longer than this is two nouns.
const LONGEST: usize = 600;

fn sources() -> BTreeMap<PathBuf, String> {
    fn walk(dir: &Path, into: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.insert(path.clone(), fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path(), &mut found);
    assert!(found.len() > 20, "the sources were not found");
    found
}

/// The folders of `src/` that a text names by `crate::`, comments left out.
fn named(text: &str) -> Vec<String> {
    let code =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    code.split("crate::")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn no_folder_names_one_that_it_may_not() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let folders: BTreeMap<&str, &[&str]> = MAY_NAME.into_iter().collect();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let folder = path.strip_prefix(&src).unwrap().iter().next().unwrap().to_str().unwrap().to_owned();
        if ["cli", "main.rs", "lib.rs"].contains(&folder.as_str()) {
            continue;
        }
        let may = folders.get(folder.as_str()).unwrap_or_else(|| panic!("{folder} is in no rule"));
        for name in named(&text) {
            let is_folder = folders.contains_key(name.as_str()) || name == "cli";
            if is_folder && name != folder && !may.contains(&name.as_str()) {
                wrong.push(format!("{} names {name}", path.strip_prefix(&src).unwrap().display()));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that point the wrong way:\n{}", wrong.join("\n"));
}

#[test]
fn only_cli_picks_a_cloud_and_only_aws_names_the_sdk() {
    for (path, text) in sources() {
        let path = path.to_str().unwrap();
        if !path.contains("/src/aws/") {
            for sdk in ["aws_sdk_", "aws_config", "aws_smithy", "aws_credential_types", "aws_types"] {
                assert!(!text.contains(sdk), "{path} names {sdk}");
            }
        }
        if !path.contains("/src/recipe/") {
            assert!(!text.contains("serde_yaml"), "{path} names serde_yaml");
        }
        if !path.contains("/src/cli/") {
            assert!(!text.contains("anyhow"), "{path} names anyhow");
            // What a unit test prints is none of the library's.
            let library = text.split("#[cfg(test)]").next().unwrap_or_default();
            for print in ["println!", "print!("] {
                assert!(!library.contains(print), "{path} prints; emit an event");
            }
        }
    }
}

#[test]
fn a_file_is_one_noun() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LONGEST, "{} has {lines} lines", path.display());
        assert!(text.starts_with("//!"), "{} does not say what it owns", path.display());
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(
            !["util", "utils", "helper", "helpers", "common", "manager", "misc"].contains(&name),
            "{name}"
        );
    }
}

#[test]
fn every_test_file_is_part_of_the_one_binary() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let main = fs::read_to_string(tests.join("main.rs")).unwrap();
    for entry in fs::read_dir(&tests).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.join("mod.rs").exists() {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            assert!(main.contains(&format!("mod {name};")), "tests/main.rs does not name {name}");
        }
    }
}
