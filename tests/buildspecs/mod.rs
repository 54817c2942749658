//! Reading buildspecs: files that are right, wrong and doubtful, each named after what it is about. What a user is told
//! of them is kept beside them, in `snapshots`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bakehouse::recipe::buildspec::{self, BuildspecErrors, OF_A_RECORD, OnFailure, PhaseName, ShellName};

/// All buildspecs of one sort, by name.
fn files(sort: &str) -> BTreeMap<String, PathBuf> {
    let folder = Path::new("tests/buildspecs").join(sort);
    let all = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let named = all.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path));
    let files: BTreeMap<String, PathBuf> = named.collect();
    assert!(!files.is_empty());
    files
}

fn snapshot(name: &str, text: &str) {
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name.to_owned(), text.replace("tests/buildspecs/", ""));
    });
}

#[test]
fn a_wrong_buildspec_is_told_what_is_wrong_where_and_what_to_do() {
    for (name, file) in &files("invalid") {
        let errors = buildspec::load(file).expect_err(name);
        let BuildspecErrors::Wrong(problems) = &errors else {
            panic!("{name}: {errors}");
        };
        for problem in &problems.problems {
            assert!(!problem.message.is_empty() && !problem.hint.is_empty(), "{name}: {problem}");
        }
        if name != "all-errors-in-one-go" {
            assert_eq!(problems.problems.len(), 1, "{name} breaks one rule only:\n{errors}");
        }
        snapshot(name, &errors.to_string());
    }
}

#[test]
fn what_would_not_work_is_told_and_stops_nothing() {
    for (name, file) in files("warned") {
        let loaded = buildspec::load(&file).unwrap_or_else(|errors| panic!("{name}\n{errors}"));
        assert!(!loaded.warnings.is_empty(), "{name}");
        let mut told: Vec<String> = loaded.warnings.iter().map(|one| one.as_warning()).collect();
        told.extend(loaded.notes.iter().map(|one| one.as_note()));
        snapshot(&name, &told.join("\n\n"));
    }
}

#[test]
fn no_snapshot_is_of_a_file_that_is_gone() {
    let mut files_there = files("invalid");
    files_there.extend(files("warned"));
    for entry in Path::new("tests/buildspecs/snapshots").read_dir().unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(files_there.contains_key(name.trim_end_matches(".snap")), "{name}");
    }
}

/// Those of the tests, of the examples and of Bakehouse itself.
#[test]
fn a_right_buildspec_is_read_without_a_warning() {
    let mut all = files("valid");
    all.insert("bakehouse".to_owned(), "buildspec.yml".into());
    all.insert("quickstart".to_owned(), "examples/quickstart/buildspec.yml".into());
    all.insert("worker".to_owned(), "examples/worker/buildspec.yml".into());
    for (name, file) in all {
        let loaded = buildspec::load(&file).unwrap_or_else(|errors| panic!("{name}\n{errors}"));
        assert!(loaded.warnings.is_empty(), "{name}\n{}", loaded.warnings[0].as_warning());
        // What was read is what a reader of its JSON reads.
        let json = serde_json::to_value(&loaded.buildspec).unwrap();
        assert_eq!(serde_json::from_value::<buildspec::Buildspec>(json).unwrap(), loaded.buildspec, "{name}");
        // A bake needs the privileged mode, wherever it stands.
        let bakes = ["quickstart", "worker", "every-key"].contains(&name.as_str());
        assert_eq!(loaded.notes.len(), usize::from(bakes), "{name}");
    }
}

#[test]
fn values_come_out_as_they_were_written() {
    let spec = buildspec::load(&files("valid")["every-key"]).unwrap().buildspec;
    assert_eq!(spec.version, "0.2");
    assert_eq!(spec.env.shell, Some(ShellName::Bash));
    let variables: Vec<(&str, &str)> =
        spec.env.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let right =
        [("EMPTY", ""), ("PORT", "8080"), ("RELEASE", "1.20"), ("STAGE", "bake"), ("VERBOSE", "true")];
    assert_eq!(variables, right);
    assert!(spec.env.git_credential_helper.is_on() && !spec.proxy.upload_artifacts.is_on());
    let phases: Vec<PhaseName> = spec.phases.all().map(|(name, _)| name).collect();
    assert_eq!(phases, PhaseName::ALL);
    let install = spec.phases.install.as_ref().unwrap();
    assert_eq!(install.on_failure, Some(OnFailure::Abort));
    assert_eq!(install.runtime_versions["python"], "3.12");
    let build = spec.phases.build.as_ref().unwrap();
    assert_eq!(build.commands[1], "bakehouse test out/image.json\n. out/bakehouse.env\n");
    let artifacts = spec.artifacts.as_ref().unwrap();
    assert_eq!(artifacts.primary().unwrap().exclude_paths.unwrap().all(), ["**/*.log"]);
    assert_eq!(artifacts.secondary_artifacts["record"].exclude_paths.as_ref().unwrap().all(), ["*.tmp"]);
}

/// A variable that the file beside a record does not export would be told to be set by it.
#[test]
fn what_a_records_file_exports_is_known() {
    let record = include_bytes!("../../fuzz/seeds/record/whole");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("image.json"), record).unwrap();
    let record = bakehouse::image::Record::read(&dir.path().join("image.json")).unwrap();
    let text = bakehouse::image::environment(&record);
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
        .map(|one| one.0)
        .collect();
    assert_eq!(names, OF_A_RECORD);
}

#[test]
fn what_is_no_buildspec_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("buildspec.yml");
    assert!(matches!(buildspec::load(&file).unwrap_err(), BuildspecErrors::Missing { .. }));
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &file, mode).unwrap();
    assert!(matches!(buildspec::load(&file).unwrap_err(), BuildspecErrors::Unreadable { .. }));
    std::fs::remove_file(&file).unwrap();
    std::fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(buildspec::load(&file).unwrap_err(), BuildspecErrors::Unreadable { .. }));
    std::fs::write(&file, b"version: \xff\n").unwrap();
    assert!(buildspec::load(&file).unwrap_err().to_string().contains(":1:10"));
}
