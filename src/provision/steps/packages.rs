//! `packages`: installs packages by name or from files of the recipe's folder, with what they depend on, and removes
//! packages.

use std::path::Path;

use async_trait::async_trait;

use super::attempt::Attempt;
use super::{Runs, StepError};
use crate::host::glob;
use crate::host::root_dir::RootDir;
use crate::provision::packages::PackageManager;
use crate::provision::root::RootError;
use crate::recipe::Packages;

/// In memory: /tmp is a tmpfs while steps run. Not below /run/bakehouse, which apt's own user may not enter.
const FILES: &str = "/tmp/bakehouse-packages";

#[async_trait]
impl Runs for Packages {
    async fn run(&self, attempt: &Attempt<'_>) -> Result<(), StepError> {
        let manager = attempt.package_manager()?;
        for (key, names) in [("install", &self.install), ("remove", &self.remove)] {
            for name in names {
                check_name(key, name)?;
            }
        }
        let root = attempt.root().dir();
        let files = copy_files(attempt, manager, &self.files)?;
        let result = async {
            if !self.install.is_empty() || !files.is_empty() {
                attempt.session.metadata.fetch(attempt, manager).await?;
                attempt.invoke(manager.install(&self.install, &files)).await?;
            }
            if !self.remove.is_empty() {
                attempt.invoke(manager.remove(&self.remove)).await?;
            }
            Ok(())
        };
        let result = result.await;
        // They would be gone with the tmpfs; sooner saves its memory.
        root.remove(FILES).map_err(|source| RootError::file("remove", FILES, source))?;
        result
    }
}

/// A name as package managers have it: `nginx`, `nginx-1.22-1.el9`, `libc6:arm64`, `nginx=1.22.1-9`,
/// `nginx/bookworm-backports`.
fn check_name(key: &'static str, name: &str) -> Result<(), StepError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "+-._:=/~*?^".contains(c);
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(fine) {
        return Ok(());
    }
    Err(StepError::recipe(key, name, "is not a package's name"))
}

/// Copies the package files into the root's memory and gives their paths there.
fn copy_files(
    attempt: &Attempt<'_>,
    manager: &dyn PackageManager,
    patterns: &[String],
) -> Result<Vec<String>, StepError> {
    let folder = &attempt.context().recipe_dir;
    let recipe = RootDir::open(folder).map_err(|source| {
        StepError::file("open the recipe's folder", &folder.display().to_string(), source)
    })?;
    let root = attempt.root().dir();
    let mut paths: Vec<String> = Vec::new();
    for pattern in patterns {
        super::files::check_from("files", pattern)?;
        let found =
            glob::expand(&recipe, pattern).map_err(|source| StepError::file("look for", pattern, source))?;
        if found.is_empty() {
            return Err(StepError::recipe("files", pattern, "fits no file in the recipe's folder"));
        }
        for from in found {
            let name = from.rsplit('/').next().unwrap_or_default();
            let kind = manager.format().extension();
            if Path::new(name).extension().is_none_or(|extension| extension != kind) {
                let wrong = format!("is not a .{kind} file, which is what {} installs", manager.program());
                return Err(StepError::recipe("files", &from, wrong));
            }
            let to = format!("{FILES}/{name}");
            if paths.contains(&to) {
                continue;
            }
            let mut file = recipe
                .open_file(&from)
                .map_err(|source| StepError::file("open", from.trim_start_matches('/'), source))?;
            root.make_dirs(FILES, 0o755)
                .and_then(|()| root.write_from(&to, &mut file, 0o644, None))
                .map_err(|source| RootError::file("write", &to, source))?;
            paths.push(to);
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_option_and_no_path() {
        for name in ["nginx", "libc6:arm64", "g++", "nginx=1.22.1-9~deb12u1", "a/b-backports", "php*"] {
            check_name("install", name).unwrap();
        }
        for name in ["", "-o", "--allow-unauthenticated", "./a.deb", "/a.deb", "a b", "a;b", "é"] {
            assert!(check_name("install", name).is_err(), "{name}");
        }
    }
}
