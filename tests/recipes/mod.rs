//! Reading recipes: files that are right and files that are wrong, each named after the rule it breaks. What a user is
//! told of a wrong one is kept beside it, in `snapshots`.

mod examples;
mod hostile;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bakehouse::recipe::{self, Check, LoadOptions, Loaded, RecipeErrors, Step};

/// The folder that the files of all test recipes are in.
const FOLDER: &str = "tests/recipes/folder";

fn load(file: &Path, vars: &[(&str, &str)]) -> Result<Loaded, RecipeErrors> {
    let vars = vars.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    let options = LoadOptions { vars: vars.collect(), file: Some(Path::new("../..").join("..").join(file)) };
    recipe::load(Path::new(FOLDER), &options)
}

/// All recipes of one sort, by name.
fn recipes(sort: &str) -> BTreeMap<String, PathBuf> {
    let folder = Path::new("tests/recipes").join(sort);
    let files: BTreeMap<String, PathBuf> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    assert!(!files.is_empty());
    files
}

/// What is told, without the way to the file.
fn told(text: &str) -> String {
    text.replace(&format!("{FOLDER}/../../../tests/recipes/"), "")
}

fn snapshot(name: &str, text: &str) {
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name.to_owned(), told(text));
    });
}

#[test]
fn a_wrong_recipe_is_told_what_is_wrong_where_and_what_to_do() {
    let files = recipes("invalid");
    assert!(files.len() >= 40);
    for (name, file) in &files {
        let errors = load(file, &[]).expect_err(name);
        let RecipeErrors::Wrong(problems) = &errors else {
            panic!("{name}: {errors}");
        };
        for problem in &problems.problems {
            assert!(problem.line >= 1 && problem.column >= 1, "{name}: {problem}");
            assert!(!problem.message.is_empty() && !problem.hint.is_empty(), "{name}: {problem}");
        }
        if name != "all-errors-in-one-go" {
            assert_eq!(problems.problems.len(), 1, "{name} breaks one rule only:\n{errors}");
        }
        snapshot(name, &errors.to_string());
    }
}

#[test]
fn no_snapshot_is_of_a_file_that_is_gone() {
    let mut files = recipes("invalid");
    files.extend(recipes("warned"));
    for entry in Path::new("tests/recipes/snapshots").read_dir().unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(files.contains_key(name.trim_end_matches(".snap")), "{name}");
    }
}

#[test]
fn a_right_recipe_is_read_and_reads_the_same_when_written() {
    for (name, file) in recipes("valid") {
        let first = load(&file, &[]).unwrap_or_else(|errors| panic!("{name}\n{errors}"));
        assert!(first.warnings.iter().all(|warning| warning.path.starts_with("vars")), "{name}");
        let dir = tempfile::tempdir().unwrap();
        let again = dir.path().join("again.yml");
        std::fs::write(&again, first.recipe.to_yaml().unwrap()).unwrap();
        let options = LoadOptions { file: Some(again.clone()), ..LoadOptions::default() };
        let second = recipe::load(Path::new(FOLDER), &options).unwrap_or_else(|errors| {
            panic!("{name}\n{}\n{errors}", std::fs::read_to_string(&again).unwrap())
        });
        assert_eq!(first.recipe, second.recipe, "{name}");
    }
}

#[test]
fn what_has_no_effect_is_told_and_stops_nothing() {
    for (name, file) in recipes("warned") {
        let loaded = load(&file, &[]).unwrap_or_else(|errors| panic!("{name}\n{errors}"));
        let warnings: Vec<String> = loaded.warnings.iter().map(|warning| warning.as_warning()).collect();
        assert!(!warnings.is_empty(), "{name}");
        snapshot(&name, &warnings.join("\n\n"));
    }
}

#[test]
fn values_come_out_as_they_were_written() {
    let file = &recipes("valid")["every-key"];
    let loaded = load(file, &[]).unwrap();
    let recipe = loaded.recipe;
    assert_eq!(recipe.image.description.as_deref(), Some("release 1.20"));
    let Step::Shell(shell) = &recipe.provision[4] else {
        panic!("{:?}", recipe.provision[4]);
    };
    assert!(shell.run.contains(r#"echo "$HOME ${HOME} 1.20""#), "{}", shell.run);
    assert!(shell.run.ends_with("kill -0 $$\n"), "{}", shell.run);
    assert_eq!(shell.env["NUMBER"], "007");
    assert_eq!(shell.env["TEXT"], "it is ${NOT} a variable");
    let Step::Ansible(ansible) = &recipe.provision[5] else {
        panic!("{:?}", recipe.provision[5]);
    };
    assert_eq!(
        serde_json::to_value(&ansible.extra_vars).unwrap(),
        serde_json::json!({ "list": [1, 2.5, true, { "a": "b" }], "nothing": null, "text": "1.20" })
    );
    let Check::Port(port) = &recipe.checks[3] else {
        panic!("{:?}", recipe.checks[3]);
    };
    assert_eq!(port.tcp, 65535);
    assert_eq!(loaded.dir, Path::new(FOLDER));
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(loaded.digest, bakehouse::cloud::Digest::of(&bytes));
}

#[test]
fn a_given_variable_takes_the_place_of_the_files_own() {
    let file = &recipes("valid")["every-key"];
    let loaded = load(file, &[("release", "2.0${x}")]).unwrap();
    assert_eq!(loaded.recipe.image.description.as_deref(), Some("release 2.0${x}"));
    assert_eq!(loaded.recipe.vars["release"], "2.0${x}");
}

#[test]
fn a_given_variable_that_the_file_has_not_is_an_error() {
    let errors = load(&recipes("valid")["every-key"], &[("relase", "2")]).unwrap_err();
    let text = errors.to_string();
    assert!(text.contains("`--var` gives `relase`"), "{text}");
    assert!(text.contains("every-key.yml:4:1 at vars"), "{text}");
    assert!(text.contains("hint: did you mean `release`?"), "{text}");
}

/// The committed schema is the one that editors are pointed to. `BAKEHOUSE_UPDATE=1` writes it anew.
#[test]
fn the_published_schema_is_the_programs_own() {
    let path = Path::new("docs/bake.schema.json");
    let text = bakehouse::cli::schema::text();
    if std::env::var_os("BAKEHOUSE_UPDATE").is_some() {
        std::fs::create_dir_all("docs").unwrap();
        std::fs::write(path, &text).unwrap();
    }
    let published = std::fs::read_to_string(path).unwrap();
    assert!(published == text, "run the tests with BAKEHOUSE_UPDATE=1 and commit docs/bake.schema.json");
}

/// The schema says of itself what a recipe may not be: unknown keys are refused everywhere, and nothing is null.
#[test]
fn the_schema_is_as_strict_as_the_program() {
    fn walk(schema: &serde_json::Value, maps: &mut usize) {
        match schema {
            serde_json::Value::Object(keys) => {
                if keys.contains_key("properties") {
                    *maps += 1;
                    assert_eq!(keys["additionalProperties"], false, "{schema}");
                }
                assert_ne!(keys.get("type"), Some(&"null".into()), "{schema}");
                keys.values().for_each(|value| walk(value, maps));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| walk(item, maps)),
            _ => {}
        }
    }
    let schema = recipe::schema();
    let mut maps = 0;
    walk(&schema, &mut maps);
    assert!(maps > 20, "{maps}");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(!schema.to_string().contains("\"null\""));
}
