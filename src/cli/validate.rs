//! `bakehouse validate [PATH…]`: says of recipes, and of the buildspecs beside them, whether they are right. Changes
//! nothing, asks no cloud.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::exit::{Failure, chain};
use super::print;
use super::session::Global;
use crate::recipe::buildspec::{self, BuildspecErrors, LoadedBuildspec};
use crate::recipe::{self, LoadOptions, Loaded, Problem, RecipeErrors};

/// Read recipes and buildspecs and tell everything that is wrong with them.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folders with a bake.yml each, and a buildspec.yml where there is one; or a buildspec's own file.
    #[arg(default_value = ".", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Overrides a variable of the recipe.
    #[arg(long, value_name = "NAME=VALUE", value_parser = super::plan::variable)]
    var: Vec<(String, String)>,
}

/// The verb.
pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let options = LoadOptions { vars: args.var.iter().cloned().collect(), ..LoadOptions::default() };
    let checked = check(&args.paths, &options);
    if global.json {
        print(&format!("{:#}", json(&checked)))?;
        anyhow::ensure!(is_good(&checked), Failure::Input("a recipe or buildspec is wrong".to_owned()));
        return Ok(());
    }
    let (good, wrong): (Vec<_>, Vec<_>) = checked.iter().flat_map(files).partition(|(good, _)| *good);
    let text =
        |all: Vec<(bool, String)>| all.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("\n");
    if !good.is_empty() {
        print(&text(good))?;
    }
    anyhow::ensure!(wrong.is_empty(), Failure::Input(text(wrong)));
    Ok(())
}

/// A path and what became of its files.
#[derive(Debug)]
pub struct Checked {
    pub path: PathBuf,
    /// `None`: the path is that of a buildspec.
    pub recipe: Option<Result<Loaded, RecipeErrors>>,
    /// `None`: there is none.
    pub buildspec: Option<Result<LoadedBuildspec, BuildspecErrors>>,
}

/// Reads the files of each path; of the current folder where none is named.
#[must_use]
pub fn check(paths: &[PathBuf], options: &LoadOptions) -> Vec<Checked> {
    let here = [PathBuf::from(".")];
    let paths = if paths.is_empty() { &here } else { paths };
    let one = |path: &PathBuf| {
        if path.is_file() && !path.ends_with(recipe::FILE) {
            return Checked { path: path.clone(), recipe: None, buildspec: Some(buildspec::load(path)) };
        }
        let buildspec = match buildspec::load(&path.join(buildspec::FILE)) {
            Err(BuildspecErrors::Missing { .. }) => None,
            _ if !path.is_dir() => None,
            read => Some(read),
        };
        Checked { path: path.clone(), recipe: Some(recipe::load(path, options)), buildspec }
    };
    paths.iter().map(one).collect()
}

/// Whether every file is right.
#[must_use]
pub fn is_good(checked: &[Checked]) -> bool {
    checked.iter().flat_map(files).all(|(good, _)| good)
}

/// As a reader sees it: every error, warning and note, and a line for each file that is right.
#[must_use]
pub fn text(checked: &[Checked]) -> String {
    checked.iter().flat_map(files).map(|(_, text)| text + "\n").collect()
}

/// What there is to tell of each file, and whether that is good.
fn files(checked: &Checked) -> impl Iterator<Item = (bool, String)> {
    let recipe = checked.recipe.as_ref().map(|read| match read {
        Ok(loaded) => (true, good(&loaded.file, &loaded.warnings, &[])),
        Err(errors @ RecipeErrors::Wrong(_)) => (false, errors.to_string()),
        Err(error) => (false, format!("error: {}", chain(error))),
    });
    let buildspec = checked.buildspec.as_ref().map(|read| match read {
        Ok(loaded) => (true, good(&loaded.file, &loaded.warnings, &loaded.notes)),
        Err(errors @ BuildspecErrors::Wrong(_)) => (false, errors.to_string()),
        Err(error) => (false, format!("error: {}", chain(error))),
    });
    recipe.into_iter().chain(buildspec)
}

fn good(file: &Path, warnings: &[Problem], notes: &[Problem]) -> String {
    let warnings = warnings.iter().map(Problem::as_warning);
    let told: String = warnings.chain(notes.iter().map(Problem::as_note)).map(|one| one + "\n\n").collect();
    format!("{told}{}: good", file.strip_prefix(".").unwrap_or(file).display())
}

/// As a program reads it: one object for each path.
#[must_use]
pub fn json(checked: &[Checked]) -> Value {
    let each = checked.iter().map(|one| {
        let mut all = match &one.recipe {
            None => json!({ "good": true }),
            Some(Ok(loaded)) => json!({
                "folder": one.path,
                "good": true,
                "file": loaded.file,
                "name": loaded.recipe.name,
                "digest": loaded.digest.hex(),
                "warnings": loaded.warnings,
            }),
            Some(Err(RecipeErrors::Wrong(problems))) => json!({
                "folder": one.path,
                "good": false,
                "file": problems.file,
                "errors": problems.problems,
                "more": problems.more,
            }),
            Some(Err(error)) => json!({ "folder": one.path, "good": false, "message": chain(error) }),
        };
        if let Some(read) = &one.buildspec {
            all["good"] = (all["good"] == true && read.is_ok()).into();
            all["buildspec"] = of_buildspec(read);
        }
        all
    });
    Value::Array(each.collect())
}

fn of_buildspec(read: &Result<LoadedBuildspec, BuildspecErrors>) -> Value {
    match read {
        Ok(loaded) => json!({
            "good": true,
            "file": loaded.file,
            "digest": loaded.digest.hex(),
            "warnings": loaded.warnings,
            "notes": loaded.notes,
        }),
        Err(BuildspecErrors::Wrong(problems)) => json!({
            "good": false,
            "file": problems.file,
            "errors": problems.problems,
            "more": problems.more,
        }),
        Err(error) => json!({ "good": false, "message": chain(error) }),
    }
}
