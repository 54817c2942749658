//! The files that a recipe names, and their digests: what a record proves and an unchanged bake is known by.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{BaseFacts, Facts};
use crate::host::glob;
use crate::host::root_dir::RootDir;
use crate::recipe::{Recipe, Step};

/// A file that a recipe brings into the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Input {
    /// Of a regular file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Where a symbolic link leads, as it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Octal digits: `0644`.
    pub mode: String,
    /// Owner and group by number, `1000:1000`, where the recipe keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// By path below the recipe's folder. Folders are in it too: an empty one is brought in as any other.
pub type Inputs = BTreeMap<String, Input>;

/// Everything that the recipe brings into the image. A folder counts with all that is in it; a playbook with its whole
/// folder, since roles and templates lie beside it. Files of secrets are left out, since a digest would give a short one
/// away, and so is `out`, which the bake itself writes.
pub(super) fn of(recipe: &Recipe, dir: &Path, out: &Path) -> Result<Inputs, InputsError> {
    let (mut paths, mut walk) =
        (Vec::new(), Walk { dir, left_out: vec![out.to_owned()], owners: false, found: Inputs::new() });
    for step in &recipe.provision {
        match step {
            Step::Files(files) => {
                walk.owners |= files.owner.as_deref() == Some("keep");
                paths.push(PathBuf::from(files.from.trim_end_matches('/')));
            }
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
            Step::Shell(shell) => {
                let files = shell.secret_env.values().filter_map(|secret| secret.file.as_ref());
                walk.left_out.extend(files.map(|file| dir.join(file)));
            }
            Step::Update(_) | Step::Services(_) | Step::Reboot(_) => {}
        }
    }
    if let Some(file) = &recipe.base.file {
        paths.push(PathBuf::from(file));
    }
    for path in paths {
        // What the recipe names itself is followed; links below it are brought in as links.
        let found = fs::metadata(dir.join(&path));
        walk.add(&path, &found.map_err(|source| InputsError::Unreadable { path: dir.join(&path), source })?)?;
    }
    Ok(walk.found)
}

struct Walk<'a> {
    dir: &'a Path,
    left_out: Vec<PathBuf>,
    /// Whether owners come into the image.
    owners: bool,
    found: Inputs,
}

impl Walk<'_> {
    fn add(&mut self, relative: &Path, about: &Metadata) -> Result<(), InputsError> {
        let path = self.dir.join(relative);
        let unreadable = |source| InputsError::Unreadable { path: path.clone(), source };
        if self.left_out.contains(&path) || relative.file_name().is_some_and(|name| name == ".git") {
            return Ok(());
        }
        let mut input = Input {
            sha256: None,
            link: None,
            mode: format!("{:04o}", about.permissions().mode() & 0o7777),
            owner: self.owners.then(|| format!("{}:{}", about.uid(), about.gid())),
        };
        if about.is_file() {
            input.sha256 = Some(file(&path).map_err(unreadable)?);
        } else if about.is_symlink() {
            input.link = Some(fs::read_link(&path).map_err(unreadable)?.to_string_lossy().into_owned());
        } else if !about.is_dir() {
            // A socket or the like beside a playbook is brought in by nobody.
            return Ok(());
        }
        self.found.insert(relative.to_string_lossy().into_owned(), input);
        if about.is_dir() {
            let mut names = fs::read_dir(&path)
                .and_then(|entries| {
                    entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()
                })
                .map_err(unreadable)?;
            names.sort();
            for name in names {
                let below = relative.join(name);
                let about = fs::symlink_metadata(self.dir.join(&below)).map_err(unreadable)?;
                self.add(&below, &about)?;
            }
        }
        Ok(())
    }
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
    hash.update(serde_json::to_vec(&facts.inputs).unwrap_or_default());
    hex::encode(hash.finalize())
}

#[derive(Debug, thiserror::Error)]
pub enum InputsError {
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(dir: &Path) -> Inputs {
        let recipe = serde_json::json!({
            "version": 1, "name": "web", "architecture": "x86_64", "base": { "family": "b" },
            "provision": [
                { "files": { "from": "current/", "to": "/" } },
                { "ansible": { "playbook": "site.yml" } },
                { "shell": { "run": "x", "secret-env": { "KEY": { "file": "key.txt" } } } },
            ],
        });
        of(&serde_json::from_value(recipe).unwrap(), dir, &dir.join("out")).unwrap()
    }

    #[test]
    fn whatever_changes_the_image_changes_the_inputs_and_secrets_are_not_among_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("releases/1/bin")).unwrap();
        fs::create_dir_all(path("out")).unwrap();
        fs::write(path("releases/1/bin/app"), "one").unwrap();
        fs::write(path("key.txt"), "secret").unwrap();
        fs::write(path("site.yml"), "").unwrap();
        std::os::unix::fs::symlink("releases/1", path("current")).unwrap();
        let first = inputs(dir.path());
        assert!(first.contains_key("current/bin/app"), "{first:?}");
        assert!(!first.keys().any(|name| name.contains("key.txt") || name.starts_with("out")), "{first:?}");
        fs::write(path("out/events.jsonl"), "x").unwrap();
        assert_eq!(first, inputs(dir.path()));
        fs::set_permissions(path("releases/1/bin/app"), fs::Permissions::from_mode(0o755)).unwrap();
        let executable = inputs(dir.path());
        assert_ne!(first, executable);
        fs::write(path("releases/1/bin/app"), "two").unwrap();
        let other = inputs(dir.path());
        assert_ne!(executable, other);
        fs::create_dir(path("releases/1/empty")).unwrap();
        assert_ne!(other, inputs(dir.path()));
    }
}
