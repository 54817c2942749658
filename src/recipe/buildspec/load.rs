//! From a file to a buildspec: the passes of a recipe, but for its variables, and then a look at what the commands do.

use std::io;
use std::path::{Path, PathBuf};

use super::{Buildspec, SCHEMA, advice, rules};
use crate::cloud::Digest;
use crate::host::file::{self, Unread};
use crate::recipe::key::KeyPath;
use crate::recipe::load::decoded;
use crate::recipe::places::Places;
use crate::recipe::problem::{At, Findings, ProblemKind};
use crate::recipe::rules as passes;
use crate::recipe::{LARGEST, Problem, Problems, form, shape, yaml};

/// What a buildspec is called where nobody says otherwise.
pub const FILE: &str = "buildspec.yml";

/// A buildspec, and where it came from.
#[derive(Clone, Debug)]
pub struct LoadedBuildspec {
    pub buildspec: Buildspec,
    pub file: PathBuf,
    /// Of the file's bytes as they are.
    pub digest: Digest,
    /// What would probably not work, and what has no effect, in the file's order.
    pub warnings: Vec<Problem>,
    /// What the build's project has to give.
    pub notes: Vec<Problem>,
}

/// Reads a buildspec.
///
/// # Errors
/// That the file cannot be read, or everything that is wrong with it.
pub fn load(file: &Path) -> Result<LoadedBuildspec, BuildspecErrors> {
    let path = || file.to_owned();
    let bytes = file::read(file, LARGEST).map_err(|why| match why {
        Unread::Io(source) if source.kind() == io::ErrorKind::NotFound => {
            BuildspecErrors::Missing { path: path() }
        }
        why => BuildspecErrors::Unreadable { path: path(), source: why.into() },
    })?;
    let mut findings = Findings::default();
    let (buildspec, text, places) = parse(&bytes, &mut findings);
    match buildspec {
        Some(buildspec) if findings.is_empty() => Ok(LoadedBuildspec {
            buildspec,
            file: path(),
            digest: Digest::of(&bytes),
            warnings: findings.warnings(file, &text, &places),
            notes: findings.notes(file, &text, &places),
        }),
        _ => Err(BuildspecErrors::Wrong(findings.errors(file, &text, &places))),
    }
}

fn parse(bytes: &[u8], findings: &mut Findings) -> (Option<Buildspec>, String, Places) {
    let (text, read) = decoded(bytes, findings);
    if !read {
        return (None, text, Places::default());
    }
    let Some((mut value, places)) = yaml::read(&text, &form::BUILDSPEC, findings) else {
        return (None, text, Places::default());
    };
    shape::check(&form::BUILDSPEC, &SCHEMA, &mut value, &places, findings);
    // No rule of a buildspec looks at the folder: its files are made by the build.
    passes::check(rules::RULES, &value, Path::new(""), findings);
    if !findings.is_empty() {
        return (None, text, places);
    }
    match serde_json::from_value::<Buildspec>(value) {
        Ok(buildspec) => {
            advice::look(&buildspec, findings);
            (Some(buildspec), text, places)
        }
        Err(error) => {
            // The check against the schema has let something through that the types do not take.
            findings.error(
                ProblemKind::BadValue,
                &KeyPath::default(),
                At::Value,
                format!("the buildspec cannot be read: {error}"),
                "correct the value that this speaks of",
            );
            (None, text, places)
        }
    }
}

/// Why there is no buildspec.
#[derive(Debug, thiserror::Error)]
pub enum BuildspecErrors {
    #[error(
        "there is no {}; name the folder that holds the buildspec, or the file itself",
        .path.display()
    )]
    Missing { path: PathBuf },
    #[error("cannot read the buildspec {}", .path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Wrong(Problems),
}
