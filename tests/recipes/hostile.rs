//! Files that are made to do harm: each is an error, told in a moment and in little memory.

use std::path::Path;

use bakehouse::recipe::{self, LoadOptions, RecipeErrors};

const HEAD: &str = "version: 1\nname: web\narchitecture: x86_64\nbase: { family: os-base }\n";

/// What is told of a file with this in it.
fn told(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bake.yml"), bytes).unwrap();
    let text = recipe::load(dir.path(), &LoadOptions::default()).unwrap_err().to_string();
    assert!(text.len() < 256 * 1024, "{} bytes", text.len());
    text
}

fn with_head(rest: &str) -> String {
    told(format!("{HEAD}{rest}").as_bytes())
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("bake.yml")).unwrap();
    file.set_len(1 << 40).unwrap();
    let error = recipe::load(dir.path(), &LoadOptions::default()).unwrap_err();
    assert!(matches!(error, RecipeErrors::TooLarge { .. }), "{error}");
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let load = || recipe::load(dir.path(), &LoadOptions::default()).unwrap_err();
    assert!(matches!(load(), RecipeErrors::Missing { .. }));
    let path = dir.path().join("bake.yml");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
    assert!(matches!(load(), RecipeErrors::NotAFile { .. }));
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(load(), RecipeErrors::NotAFile { .. }));
    let inside = recipe::load(Path::new("/proc/self/stat"), &LoadOptions::default()).unwrap_err();
    assert!(matches!(inside, RecipeErrors::NotAFolder { .. }), "{inside}");
}

#[test]
fn bytes_that_are_no_text_are_told_with_their_place() {
    let text = told(b"version: 1\nname: w\xffb\n");
    assert!(text.contains("bake.yml:2:8"), "{text}");
    told(&[0; 4096]);
    told(&[0xef, 0xbb, 0xbf]);
    told(b"version: 1\0\nname: \x1b[2J\n");
}

/// Aliases that double at each line, and a long text that is named again and again.
#[test]
fn what_grows_without_end_is_refused() {
    let mut doubling = String::from("vars:\n  a0: &a0 x\n");
    for number in 1..60 {
        let last = number - 1;
        doubling += &format!("  a{number}: &a{number} [*a{last}, *a{last}]\n");
    }
    assert!(with_head(&doubling).contains("too large when every alias is written out"));
    let long = format!("vars:\n  a: &a {}\n  b: [{}]\n", "x".repeat(400_000), "*a,".repeat(100_000));
    assert!(with_head(&long).contains("too large when every alias is written out"));
    let filled = format!(
        "vars: {{ a: {} }}\nseal:\n  remove:\n{}",
        "x".repeat(400_000),
        "    - ${a}\n".repeat(20_000)
    );
    assert!(with_head(&filled).contains("with its variables put in"));
}

#[test]
fn what_is_nested_without_end_is_refused() {
    for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", "")] {
        let text = format!("{}{}", open.repeat(100_000), close.repeat(100_000));
        told(text.as_bytes());
    }
    let mut deep = String::from("vars:\n");
    for depth in 1..500 {
        deep += &format!("{}a:\n", " ".repeat(depth));
    }
    assert!(with_head(&deep).contains("within each other"));
}

#[test]
fn a_file_with_very_many_mistakes_is_told_some_of_them() {
    let keys: String = (0..30_000).map(|number| format!("key{number}: 1\n")).collect();
    let text = with_head(&keys);
    assert!(text.ends_with("more than 100 errors"), "{}", &text[text.len() - 200..]);
    let same = "same: 1\n".repeat(30_000);
    assert!(with_head(&same).ends_with("more than 100 errors"));
    let steps = "  - {}\n".repeat(30_000);
    with_head(&format!("provision:\n{steps}"));
    let items = "${a} ".repeat(100_000);
    with_head(&format!("image:\n  description: {items}\n"));
    with_head(&format!("image:\n  description: {}\n", "\"".repeat(500_000)));
    with_head(&format!("{}: 1\n", "k".repeat(1000)));
}

/// Every beginning of a long recipe, and the recipe with any one of its characters replaced by one that means something
/// to YAML: nothing panics, whatever comes of it.
#[test]
fn a_broken_recipe_is_an_error_and_never_a_panic() {
    let text = std::fs::read_to_string("tests/recipes/valid/every-key.yml").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bake.yml");
    let try_it = |text: &str| {
        std::fs::write(&path, text).unwrap();
        if let Err(error) = recipe::load(dir.path(), &LoadOptions::default()) {
            assert!(!error.to_string().is_empty());
        }
    };
    for end in (0..text.len()).step_by(7) {
        try_it(&text[..end]);
    }
    let characters = ":{}[],&*#?|-<>=!%@`\"'\\\n\t \u{0}é";
    for (number, at) in (0..text.len()).step_by(11).enumerate() {
        let other = characters.chars().nth(number % characters.chars().count()).unwrap();
        try_it(&format!("{}{other}{}", &text[..at], &text[at + 1..]));
    }
}
