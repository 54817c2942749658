//! `bakehouse validate [DIR…]`: says of recipes whether they are right. Changes nothing, asks no cloud.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::exit::{Failure, chain};
use super::print;
use super::session::Global;
use crate::recipe::{self, LoadOptions, Loaded, RecipeErrors};

/// Read recipes and tell everything that is wrong with them.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folders with a bake.yml each.
    #[arg(default_value = ".")]
    dirs: Vec<PathBuf>,
    /// Overrides a variable of the recipe.
    #[arg(long, value_name = "NAME=VALUE", value_parser = super::plan::variable)]
    var: Vec<(String, String)>,
}

/// The verb.
pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let options = LoadOptions { vars: args.var.iter().cloned().collect(), ..LoadOptions::default() };
    let checked = check(&args.dirs, &options);
    if global.json {
        print(&format!("{:#}", json(&checked)))?;
        anyhow::ensure!(is_good(&checked), Failure::Input("a recipe is wrong".to_owned()));
        return Ok(());
    }
    let (good, wrong): (Vec<_>, Vec<_>) = checked.into_iter().partition(|one| one.outcome.is_ok());
    if !good.is_empty() {
        print(text(&good).trim_end())?;
    }
    anyhow::ensure!(wrong.is_empty(), Failure::Input(text(&wrong).trim_end().to_owned()));
    Ok(())
}

/// A folder and what became of its recipe.
#[derive(Debug)]
pub struct Checked {
    pub dir: PathBuf,
    pub outcome: Result<Loaded, RecipeErrors>,
}

/// Reads the recipe of each folder; of the current one where none is named.
#[must_use]
pub fn check(dirs: &[PathBuf], options: &LoadOptions) -> Vec<Checked> {
    let here = [PathBuf::from(".")];
    let dirs = if dirs.is_empty() { &here } else { dirs };
    dirs.iter().map(|dir| Checked { dir: dir.clone(), outcome: recipe::load(dir, options) }).collect()
}

/// Whether every recipe is right.
#[must_use]
pub fn is_good(checked: &[Checked]) -> bool {
    checked.iter().all(|one| one.outcome.is_ok())
}

/// As a reader sees it: every error and warning, and a line for each recipe that is right.
#[must_use]
pub fn text(checked: &[Checked]) -> String {
    let mut text = String::new();
    for one in checked {
        // Writing to a String cannot fail.
        let _ = match &one.outcome {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    let _ = writeln!(text, "{}\n", warning.as_warning());
                }
                writeln!(text, "{}: good", shown(&loaded.file))
            }
            Err(errors @ RecipeErrors::Wrong(_)) => writeln!(text, "{errors}"),
            Err(error) => writeln!(text, "error: {}", chain(error)),
        };
    }
    text
}

/// As a program reads it: one object for each folder.
#[must_use]
pub fn json(checked: &[Checked]) -> Value {
    let each = checked.iter().map(|one| match &one.outcome {
        Ok(loaded) => json!({
            "folder": one.dir,
            "good": true,
            "file": loaded.file,
            "name": loaded.recipe.name,
            "digest": loaded.digest.hex(),
            "warnings": loaded.warnings,
        }),
        Err(RecipeErrors::Wrong(problems)) => json!({
            "folder": one.dir,
            "good": false,
            "file": problems.file,
            "errors": problems.problems,
            "more": problems.more,
        }),
        Err(error) => json!({ "folder": one.dir, "good": false, "message": chain(error) }),
    });
    Value::Array(each.collect())
}

fn shown(path: &Path) -> String {
    path.strip_prefix(".").unwrap_or(path).display().to_string()
}
