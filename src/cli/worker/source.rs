//! What a job's artifacts ask for: the buildspec that they bring, or one for the recipe or the record that is in them. Reads
//! files only.

use std::path::{Path, PathBuf};

use crate::cloud::{ActionCategory, Configuration};
use crate::pipeline::quoted;
use crate::recipe::buildspec;

/// The keys of an action's configuration, as the action type declares them.
pub(super) const BUILDSPEC: &str = "Buildspec";
pub(super) const RECIPE: &str = "Recipe";
pub(super) const PRIMARY: &str = "PrimarySource";
pub(super) const KEYS: [&str; 3] = [BUILDSPEC, RECIPE, PRIMARY];
/// How deep a recipe may lie in an artifact.
const DEEPEST: usize = 4;
/// How many of those that were found an error names.
const NAMED: usize = 5;

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// The artifact's own buildspec, by its path in the artifact.
    Buildspec(PathBuf),
    /// A buildspec for what is in this folder of the artifact.
    Alone { text: String },
}

/// What the artifact in `source` asks for. `program` is this program's own path.
///
/// # Errors
/// For a person: what is missing, or not one thing.
pub(super) fn work(
    source: &Path,
    name: &str,
    category: ActionCategory,
    configuration: &Configuration,
    program: &Path,
) -> Result<Work, String> {
    let inside = |key: &str, path: &str| {
        let plain = Path::new(path)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir));
        if plain && !path.is_empty() {
            Ok(())
        } else {
            Err(format!("{key}: `{path}` is no path in the artifact {name}"))
        }
    };
    if let Some(path) = configuration.get(BUILDSPEC) {
        inside(BUILDSPEC, path)?;
        if !source.join(path).is_file() {
            return Err(format!("{BUILDSPEC}: the artifact {name} has no file {path}"));
        }
        return Ok(Work::Buildspec(path.into()));
    }
    if let Some(path) = configuration.get(RECIPE) {
        inside(RECIPE, path)?;
    } else if source.join(buildspec::FILE).is_file() {
        return Ok(Work::Buildspec(buildspec::FILE.into()));
    }
    let (file, verb) = match category {
        ActionCategory::Build => ("bake.yml", "bake"),
        ActionCategory::Test => ("image.json", "test --no-wait"),
        ActionCategory::Deploy => {
            return Err(format!(
                "the artifact {name} has no {}; a Deploy action needs one, or {BUILDSPEC} in its configuration",
                buildspec::FILE
            ));
        }
    };
    let folder = folder(source, name, configuration.get(RECIPE), file)?;
    let results = match category {
        ActionCategory::Build => folder.join("bakehouse-out"),
        ActionCategory::Test | ActionCategory::Deploy => folder.clone(),
    };
    let what = match category {
        ActionCategory::Build => folder,
        ActionCategory::Test | ActionCategory::Deploy => folder.join(file),
    };
    let [program, what] = [program, &what].map(|path| quoted(&path.to_string_lossy()));
    let command = format!("{program} {verb} {what}");
    let spec = serde_json::json!({
        "version": "0.2",
        "phases": { "build": { "commands": [command] } },
        // As a buildspec's path, it is filled in by the shell; what a shell would fill in is no part of it.
        "artifacts": { "files": ["**/*"], "base-directory": results },
    });
    // JSON is YAML.
    Ok(Work::Alone { text: format!("{spec:#}\n") })
}

/// The folder, by its path in the artifact, that holds the one file of this name, or the one that was asked for.
fn folder(source: &Path, name: &str, asked: Option<&str>, file: &str) -> Result<PathBuf, String> {
    if let Some(path) = asked {
        return if source.join(path).join(file).is_file() {
            Ok(path.into())
        } else {
            Err(format!("{RECIPE}: the artifact {name} has no {path}/{file}"))
        };
    }
    if source.join(file).is_file() {
        return Ok(".".into());
    }
    let mut found = Vec::new();
    look(source, source, file, DEEPEST, &mut found);
    found.sort();
    match &found[..] {
        [one] if plain(one) => Ok(one.clone()),
        [one] => {
            Err(format!("{}: a folder's name has letters, digits and - _ . / only; rename it", one.display()))
        }
        [] => Err(format!(
            "the artifact {name} has neither {} nor {file}; name the action's source, and what is in it",
            buildspec::FILE
        )),
        all => {
            let some: Vec<String> =
                all.iter().take(NAMED).map(|path| path.join(file).display().to_string()).collect();
            Err(format!(
                "the artifact {name} has {} of {file} ({}); say which by {RECIPE} in the action's configuration, or bring a {}",
                all.len(),
                some.join(", "),
                buildspec::FILE
            ))
        }
    }
}

/// Folders that hold the file; links are not followed.
fn look(source: &Path, at: &Path, file: &str, deeper: usize, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && deeper > 0 {
            look(source, &entry.path(), file, deeper - 1, found);
        } else if kind.is_file() && entry.file_name() == file {
            found.push(at.strip_prefix(source).unwrap_or(at).to_owned());
        }
    }
}

/// Whether a path means itself to a shell and in a pattern.
fn plain(path: &Path) -> bool {
    let of = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    path.to_str().is_some_and(|text| text.chars().all(of))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn artifact(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        dir
    }

    fn asked(
        files: &[&str],
        category: ActionCategory,
        configuration: &[(&str, &str)],
    ) -> Result<Work, String> {
        let dir = artifact(files);
        let configuration: BTreeMap<String, String> =
            configuration.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        work(dir.path(), "Source", category, &Configuration(configuration), Path::new("/usr/bin/bakehouse"))
    }

    #[test]
    fn an_artifacts_own_buildspec_goes_first() {
        use ActionCategory::{Build, Deploy, Test};
        for category in [Build, Test, Deploy] {
            let found = asked(&["buildspec.yml", "bake.yml"], category, &[]);
            assert_eq!(found, Ok(Work::Buildspec("buildspec.yml".into())));
        }
        let named = asked(&["ci/other.yml", "buildspec.yml"], Build, &[(BUILDSPEC, "ci/other.yml")]);
        assert_eq!(named, Ok(Work::Buildspec("ci/other.yml".into())));
    }

    #[test]
    fn a_recipe_alone_is_baked_and_a_record_tested() {
        let command = |found: Result<Work, String>| match found.unwrap() {
            Work::Alone { text } => {
                let spec: serde_json::Value = serde_json::from_str(&text).unwrap();
                let command = spec["phases"]["build"]["commands"][0].as_str().unwrap().to_owned();
                (command, spec["artifacts"]["base-directory"].as_str().unwrap().to_owned())
            }
            other @ Work::Buildspec(_) => panic!("{other:?}"),
        };
        let build = ActionCategory::Build;
        let (line, base) = command(asked(&["web/bake.yml"], build, &[]));
        assert_eq!((line.as_str(), base.as_str()), ("'/usr/bin/bakehouse' bake 'web'", "web/bakehouse-out"));
        // Asked for by name, also beside a buildspec and another recipe.
        let both = ["web/bake.yml", "db/bake.yml", "buildspec.yml"];
        let (line, _) = command(asked(&both, build, &[(RECIPE, "db")]));
        assert_eq!(line, "'/usr/bin/bakehouse' bake 'db'");
        let (line, base) = command(asked(&["image.json"], ActionCategory::Test, &[]));
        assert_eq!(line, "'/usr/bin/bakehouse' test --no-wait './image.json'");
        assert_eq!(base, ".");
    }

    #[test]
    fn what_is_missing_or_not_one_thing_is_told() {
        use ActionCategory::{Build, Deploy, Test};
        type Case<'a> = (&'a [&'a str], ActionCategory, &'a [(&'a str, &'a str)], &'a str);
        let cases: [Case<'_>; 9] = [
            (&["README.md"], Build, &[], "neither buildspec.yml nor bake.yml"),
            (
                &["a/bake.yml", "b/bake.yml"],
                Build,
                &[],
                "2 of bake.yml (a/bake.yml, b/bake.yml); say which by Recipe",
            ),
            (&["a b/bake.yml"], Build, &[], "rename it"),
            (&["bake.yml"], Test, &[], "neither buildspec.yml nor image.json"),
            (&["bake.yml"], Deploy, &[], "a Deploy action needs one"),
            (
                &["bake.yml"],
                Build,
                &[(BUILDSPEC, "no.yml")],
                "Buildspec: the artifact Source has no file no.yml",
            ),
            (&["bake.yml"], Build, &[(BUILDSPEC, "../../etc/passwd")], "is no path in the artifact"),
            (&["bake.yml"], Build, &[(RECIPE, "web")], "Recipe: the artifact Source has no web/bake.yml"),
            (&["bake.yml"], Build, &[(RECIPE, "/etc")], "is no path in the artifact"),
        ];
        for (files, category, configuration, told) in cases {
            let error = asked(files, category, configuration).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
