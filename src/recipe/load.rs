//! From a folder to a recipe: reads the file, runs every pass over it, and gives either the recipe or all that is wrong
//! with it. Each pass is a file of its own; this one says in which order they go.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::key::KeyPath;
use super::places::{Places, Spot};
use super::problem::{At, Findings, Problem, ProblemKind, Problems};
use super::{Recipe, form, rules, schema, shape, vars, yaml};
use crate::cloud::Digest;
use crate::host::file::{self, Unread};

/// The largest file that is read, in bytes. The longest recipes are some hundred lines.
pub const LARGEST: u64 = 1024 * 1024;
/// What a recipe is called.
pub const FILE: &str = "bake.yml";

/// What is given besides the folder.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Values in place of those under `vars`.
    pub vars: BTreeMap<String, String>,
    /// The recipe's file, relative to the folder. Unset: [`FILE`].
    pub file: Option<PathBuf>,
}

/// A recipe, and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub recipe: Recipe,
    /// The folder that the recipe's paths are relative to.
    pub dir: PathBuf,
    pub file: PathBuf,
    /// Of the file's bytes as they are.
    pub digest: Digest,
    /// What has no effect, in the file's order.
    pub warnings: Vec<Problem>,
    places: Arc<Places>,
}

impl Loaded {
    /// `FILE:LINE:COLUMN` of the key that an error of a later stage begins with, as `disk.encrypt: …`; of the file where
    /// it begins with none. A key that is not written is shown at what it would stand in.
    #[must_use]
    pub fn place_of(&self, message: &str) -> String {
        let file = self.file.display();
        let word = message.split(':').next().unwrap_or_default();
        let is_key =
            |one: &str| !one.is_empty() && one.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        let keys: Vec<&str> = word.split('.').collect();
        let known = schema::SCHEMA["properties"].get(keys[0]).is_some();
        if !known || !keys.iter().all(|key| is_key(key)) {
            return file.to_string();
        }
        let path = keys.iter().fold(KeyPath::default(), |path, key| path.key(key));
        let Spot { line, column, .. } = self.places.key(&path);
        format!("{file}:{line}:{column}")
    }
}

/// Reads the recipe of a folder.
///
/// # Errors
/// That the file cannot be read, or everything that is wrong with it.
pub fn load(dir: &Path, options: &LoadOptions) -> Result<Loaded, RecipeErrors> {
    let file = dir.join(options.file.as_deref().unwrap_or(Path::new(FILE)));
    let bytes = read(&file)?;
    let mut findings = Findings::default();
    let (recipe, text, places) = parse(&bytes, dir, options, &mut findings);
    match recipe {
        Some(recipe) if findings.is_empty() => Ok(Loaded {
            recipe,
            dir: dir.to_owned(),
            warnings: findings.warnings(&file, &text, &places),
            digest: Digest::of(&bytes),
            file,
            places: Arc::new(places),
        }),
        _ => Err(RecipeErrors::Wrong(findings.errors(&file, &text, &places))),
    }
}

/// All passes over a file's bytes. Gives no recipe only where it has found an error.
fn parse(
    bytes: &[u8],
    dir: &Path,
    options: &LoadOptions,
    findings: &mut Findings,
) -> (Option<Recipe>, String, Places) {
    let (text, read) = decoded(bytes, findings);
    if !read {
        return (None, text, Places::default());
    }
    let Some((mut value, places)) = yaml::read(&text, &form::RECIPE, findings) else {
        return (None, text, Places::default());
    };
    vars::apply(&mut value, &options.vars, findings);
    shape::check(&form::RECIPE, &schema::SCHEMA, &mut value, &places, findings);
    rules::check(rules::OF_A_RECIPE, &value, dir, findings);
    if !findings.is_empty() {
        return (None, text, places);
    }
    match serde_json::from_value::<Recipe>(value) {
        Ok(recipe) => (Some(recipe), text, places),
        Err(error) => {
            // The check against the schema has let something through that the types do not take.
            findings.error(
                ProblemKind::BadValue,
                &KeyPath::default(),
                At::Value,
                format!("the recipe cannot be read: {error}"),
                "correct the value that this speaks of",
            );
            (None, text, places)
        }
    }
}

/// The bytes as a text, and whether they are one.
pub(super) fn decoded(bytes: &[u8], findings: &mut Findings) -> (String, bool) {
    // Some editors begin a file with a byte order mark; it is no part of the text.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = String::from_utf8_lossy(bytes).into_owned();
    let Err(error) = std::str::from_utf8(bytes) else {
        return (text, true);
    };
    let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    findings.error(
        ProblemKind::Syntax,
        &KeyPath::default(),
        At::Spot(Spot::at(line, column)),
        "this is not text in UTF-8",
        "save the file in UTF-8",
    );
    (text, false)
}

/// The bytes of a file, if it is one and not too large.
fn read(path: &Path) -> Result<Vec<u8>, RecipeErrors> {
    let owned = || path.to_owned();
    file::read(path, LARGEST).map_err(|why| match why {
        Unread::NoFile => RecipeErrors::NotAFile { path: owned() },
        Unread::TooLarge { .. } => RecipeErrors::TooLarge { path: owned() },
        Unread::Io(source) => match source.kind() {
            io::ErrorKind::NotFound => RecipeErrors::Missing { path: owned() },
            io::ErrorKind::NotADirectory => {
                RecipeErrors::NotAFolder { path: path.parent().unwrap_or(path).to_owned() }
            }
            _ => RecipeErrors::Unreadable { path: owned(), source },
        },
    })
}

impl Recipe {
    /// The recipe as YAML, with every variable put in; [`load`] gives the same recipe for it.
    ///
    /// # Errors
    /// What the writer of YAML says. Nothing is known that it refuses.
    pub fn to_yaml(&self) -> Result<String, String> {
        let mut value = serde_json::to_value(self).map_err(|error| error.to_string())?;
        drop_unset(&mut value);
        vars::escape(&mut value);
        yaml::write(&value)
    }
}

/// Takes out the keys that are not set. A playbook's variables are the user's own, and may well be null.
fn drop_unset(value: &mut Value) {
    match value {
        Value::Object(keys) => {
            keys.retain(|_, value| !value.is_null());
            let ours = keys.iter_mut().filter(|(key, _)| *key != "extra-vars");
            ours.for_each(|(_, value)| drop_unset(value));
        }
        Value::Array(items) => items.iter_mut().for_each(drop_unset),
        _ => {}
    }
}

/// Why there is no recipe.
#[derive(Debug, thiserror::Error)]
pub enum RecipeErrors {
    #[error(
        "there is no {}; name the folder that holds the recipe, or write one with `bakehouse init`",
        .path.display()
    )]
    Missing { path: PathBuf },
    #[error("{} is not a folder; name the folder that holds the recipe", .path.display())]
    NotAFolder { path: PathBuf },
    #[error("{} is not a file; a recipe is a file of YAML", .path.display())]
    NotAFile { path: PathBuf },
    #[error(
        "{} is larger than {} MiB and is not read; put long scripts into files beside it",
        .path.display(), LARGEST >> 20
    )]
    TooLarge { path: PathBuf },
    #[error("cannot read {}; check its permissions", .path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Wrong(Problems),
}
