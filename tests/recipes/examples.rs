//! The examples: each is right, and `bakehouse init` writes one that is.

use std::path::{Path, PathBuf};

use bakehouse::cli::init::{self, InitError};
use bakehouse::cli::{schema, validate};
use bakehouse::recipe::{self, Check, LoadOptions, Step};

/// Every folder below this one that has a recipe.
fn folders(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in below.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(folders(&path));
        } else if path.ends_with(recipe::FILE) {
            found.push(below.to_owned());
        }
    }
    found.sort();
    found
}

#[test]
fn every_example_is_a_right_recipe() {
    let folders = folders(Path::new("examples"));
    for name in ["quickstart/web", "codebuild-stage", "existing-pipeline"] {
        assert!(folders.contains(&Path::new("examples").join(name)), "{folders:?}");
    }
    for checked in validate::check(&folders, &LoadOptions::default()) {
        let loaded = checked.recipe.unwrap().unwrap_or_else(|errors| panic!("{errors}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings[0]);
        let Some(buildspec) = checked.buildspec else { continue };
        let buildspec = buildspec.unwrap_or_else(|errors| panic!("{errors}"));
        assert!(buildspec.warnings.is_empty(), "{}", buildspec.warnings[0].as_warning());
    }
}

/// What the page says, and what the checks look for, are one text in two files.
#[test]
fn the_quickstarts_page_is_the_one_that_is_checked() {
    let dir = Path::new("examples/quickstart/web");
    let recipe = recipe::load(dir, &LoadOptions::default()).unwrap().recipe;
    let page = std::fs::read_to_string(dir.join("rootfs/var/www/html/index.html")).unwrap();
    let wanted: Vec<&str> = recipe
        .checks
        .iter()
        .filter_map(|check| match check {
            Check::File(file) => file.contains.as_deref(),
            Check::Command(command) => command.contains.as_deref(),
            _ => None,
        })
        .collect();
    assert_eq!(wanted.len(), 2);
    assert!(wanted.iter().all(|text| page.contains(text)));
    assert!(
        recipe.provision.iter().any(|step| matches!(step, Step::Files(files) if files.from == "rootfs/"))
    );
}

#[test]
fn what_init_writes_is_a_right_recipe() {
    for example in init::examples() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("new/folder");
        let written = init::write_example(&target, Some(example.name)).unwrap();
        assert!(written.iter().all(|path| path.is_file()), "{written:?}");
        let folders = folders(&target);
        assert!(!folders.is_empty(), "{}", example.name);
        for checked in validate::check(&folders, &LoadOptions::default()) {
            checked.recipe.unwrap().unwrap_or_else(|errors| panic!("{}\n{errors}", example.name));
        }
    }
}

/// Every file of the examples that are embedded whole is in the program.
#[test]
fn the_examples_are_embedded_with_all_their_files() {
    fn files(below: &Path) -> Vec<PathBuf> {
        let entries = below.read_dir().unwrap().map(|entry| entry.unwrap().path());
        entries
            // What a bake of the example left there is no part of it.
            .filter(|path| !path.ends_with("bakehouse-out"))
            .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
            .collect()
    }
    for name in ["quickstart", "codebuild-stage", "existing-pipeline"] {
        let whole = Path::new("examples").join(name);
        let dir = tempfile::tempdir().unwrap();
        init::write_example(dir.path(), Some(name)).unwrap();
        for path in files(&whole) {
            let copy = dir.path().join(path.strip_prefix(&whole).unwrap());
            assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(copy).unwrap(), "{}", path.display());
        }
    }
}

#[test]
fn init_overwrites_nothing_and_then_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("buildspec.yml"), "mine").unwrap();
    let error = init::write_example(dir.path(), None).unwrap_err();
    assert!(matches!(&error, InitError::Exists { paths } if paths.len() == 1), "{error}");
    assert!(error.to_string().contains("buildspec.yml"), "{error}");
    assert_eq!(std::fs::read(dir.path().join("buildspec.yml")).unwrap(), b"mine");
    assert!(!dir.path().join("bake.yml").exists());
    // A link that leads nowhere is in the way too.
    std::fs::remove_file(dir.path().join("buildspec.yml")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("bake.yml")).unwrap();
    assert!(matches!(init::write_example(dir.path(), None), Err(InitError::Exists { .. })));
    assert!(!dir.path().join("nowhere").exists());
}

#[test]
fn an_example_that_is_not_there_is_told_with_those_that_are() {
    let dir = tempfile::tempdir().unwrap();
    let error = init::write_example(dir.path(), Some("quickstrat")).unwrap_err().to_string();
    assert!(error.contains("did you mean `quickstart`?"), "{error}");
    assert!(dir.path().read_dir().unwrap().next().is_none());
}

#[test]
fn validate_says_of_each_folder_how_it_is() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("bake.yml"),
        "version: 1\nnmae: a\narchitecture: arm64\nbase: { family: b }\n",
    )
    .unwrap();
    let dirs = [PathBuf::from("examples/quickstart/web"), dir.path().to_owned(), dir.path().join("none")];
    let checked = validate::check(&dirs, &LoadOptions::default());
    assert!(!validate::is_good(&checked));
    let text = validate::text(&checked);
    assert!(text.contains("examples/quickstart/web/bake.yml: good"), "{text}");
    assert!(text.contains("did you mean `name`?"), "{text}");
    assert!(text.contains("there is no"), "{text}");
    let json = validate::json(&checked);
    assert_eq!(json[0]["good"], true);
    assert_eq!(json[1]["good"], false);
    assert_eq!(json[1]["errors"][0]["kind"], "unknown-key");
    assert_eq!(json[1]["errors"][0]["line"], 2);
    assert!(json[2]["message"].as_str().unwrap().contains("bakehouse init"), "{json}");
    assert!(validate::is_good(&checked[..1]));
}

/// A buildspec is looked at beside its recipe, or by its own path.
#[test]
fn validate_says_of_buildspecs_how_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    };
    let recipe = "version: 1\nname: a\narchitecture: arm64\nbase: { family: b }\n";
    put("good/bake.yml", recipe);
    put("good/buildspec.yml", "version: 0.2\nphases: { build: { commands: [bakehouse bake] } }\n");
    put("wrong/bake.yml", recipe);
    put("wrong/buildspec.yml", "version: 0.2\nphases: { biuld: { commands: [make] } }\n");
    put("alone/buildspec.yml", "version: 0.2\nphases: { build: { on-failure: RETRY, commands: [make] } }\n");
    let check = |path: &str| validate::check(&[dir.path().join(path)], &LoadOptions::default());

    let good = check("good");
    assert!(validate::is_good(&good));
    let text = validate::text(&good);
    assert!(text.contains("bake.yml: good") && text.contains("buildspec.yml: good"), "{text}");
    assert!(text.contains("note: `bakehouse bake` mounts file systems"), "{text}");
    assert_eq!(validate::json(&good)[0]["buildspec"]["notes"][0]["kind"], "need");

    let wrong = check("wrong");
    assert!(!validate::is_good(&wrong));
    assert!(validate::text(&wrong).contains("did you mean `build`?"));
    let json = validate::json(&wrong);
    assert_eq!((json[0]["good"].clone(), json[0]["buildspec"]["good"].clone()), (false.into(), false.into()));
    assert_eq!(json[0]["buildspec"]["errors"][0]["path"], "phases.biuld");

    // Where a recipe is missing, a buildspec does not make up for it.
    assert!(!validate::is_good(&check("alone")));
    let file = check("alone/buildspec.yml");
    assert!(validate::is_good(&file) && file[0].recipe.is_none());
    assert!(validate::text(&file).contains("warning: CodeBuild does not retry"));
    assert_eq!(validate::json(&file)[0]["buildspec"]["warnings"][0]["kind"], "doubt");
    // A recipe's own path is no buildspec's.
    assert!(matches!(check("good/bake.yml")[0].recipe, Some(Err(recipe::RecipeErrors::NotAFolder { .. }))));
}

#[test]
fn schema_is_json_that_ends_its_last_line() {
    let text = schema::text();
    assert!(text.ends_with("}\n"));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value, recipe::schema());
}
