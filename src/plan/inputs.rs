//! The files that a recipe names, and their digests: what a record proves and an unchanged bake is known by.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{BaseFacts, Facts};
use crate::host::glob;
use crate::host::root_dir::RootDir;
use crate::recipe::{Recipe, Step};

/// Digests of every file that the recipe brings into the image, by its path below the recipe's folder. A folder counts
/// with all that is in it; a playbook with its whole folder, since roles and templates lie beside it. Files of secrets
/// are left out: a digest would give a short one away.
pub(super) fn of(recipe: &Recipe, dir: &Path) -> Result<BTreeMap<String, String>, InputsError> {
    let mut paths = Vec::new();
    for step in &recipe.provision {
        match step {
            Step::Files(files) => paths.push(PathBuf::from(files.from.trim_end_matches('/'))),
            Step::Packages(packages) => {
                let root = RootDir::open(dir)
                    .map_err(|source| InputsError::Unreadable { path: dir.to_owned(), source })?;
                for pattern in &packages.files {
                    let found = glob::expand(&root, pattern)
                        .map_err(|source| InputsError::Unreadable { path: dir.join(pattern), source })?;
                    paths.extend(found.iter().map(|path| PathBuf::from(path.trim_start_matches('/'))));
                }
            }
            Step::Ansible(ansible) => {
                paths.push(Path::new(&ansible.playbook).parent().map(Path::to_owned).unwrap_or_default());
            }
            Step::Update(_) | Step::Shell(_) | Step::Services(_) => {}
        }
    }
    if let Some(file) = &recipe.base.file {
        paths.push(PathBuf::from(file));
    }
    digest_of_inputs(dir, &paths)
}

/// Digests of files and folders below `dir`.
///
/// # Errors
/// [`InputsError`]: one cannot be read.
pub fn digest_of_inputs(dir: &Path, paths: &[PathBuf]) -> Result<BTreeMap<String, String>, InputsError> {
    let mut digests = BTreeMap::new();
    for path in paths {
        walk(dir, path, &mut digests)?;
    }
    Ok(digests)
}

fn walk(dir: &Path, relative: &Path, into: &mut BTreeMap<String, String>) -> Result<(), InputsError> {
    let path = dir.join(relative);
    let unreadable = |source| InputsError::Unreadable { path: path.clone(), source };
    let found = fs::symlink_metadata(&path).map_err(unreadable)?;
    let name = relative.to_string_lossy().into_owned();
    if found.is_dir() {
        // What a bake wrote is no input of the next one.
        if matches!(relative.file_name().map(OsStrExt::as_bytes), Some(b"bakehouse-out" | b".git")) {
            return Ok(());
        }
        let mut names = fs::read_dir(&path)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>())
            .map_err(unreadable)?;
        names.sort();
        for name in names {
            walk(dir, &relative.join(name), into)?;
        }
    } else if found.is_symlink() {
        let target = fs::read_link(&path).map_err(unreadable)?;
        into.insert(name, format!("link to {}", target.display()));
    } else if found.is_file() {
        into.insert(name, file(&path).map_err(unreadable)?);
    } else {
        return Err(InputsError::NotAFile { path });
    }
    Ok(())
}

fn file(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(&buffer[..read]);
    }
}

/// One digest over all that decides what comes out: the recipe as resolved, the base and the inputs.
pub(super) fn fingerprint(recipe: &Recipe, facts: &Facts) -> String {
    let mut hash = Sha256::new();
    // Keys stand in the order of the types, so the same recipe gives the same text.
    hash.update(serde_json::to_vec(recipe).unwrap_or_default());
    hash.update(facts.host.as_str());
    match &facts.base {
        BaseFacts::Scratch(_) => hash.update("scratch"),
        BaseFacts::File { .. } => hash.update("file"),
        BaseFacts::Image { image, .. } => hash.update(image.id.as_str()),
    }
    for (path, digest) in &facts.inputs {
        hash.update(format!("\n{path}\0{digest}"));
    }
    hex::encode(hash.finalize())
}

#[derive(Debug, thiserror::Error)]
pub enum InputsError {
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is no file, folder or link, and cannot go into an image", path.display())]
    NotAFile { path: PathBuf },
}
