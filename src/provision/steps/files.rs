//! `files`: copies files of the recipe's folder into the root.
//!
//! Both sides are opened through a [`RootDir`]: no path and no link of the recipe leads out of its folder, and none
//! of the root out of the root.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use async_trait::async_trait;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};

use super::attempt::Attempt;
use super::modes::Modes;
use super::{Runs, StepError};
use crate::host::root_dir::RootDir;
use crate::provision::owner;
use crate::provision::root::RootError;
use crate::recipe::Files;

/// What every file of one step gets.
struct Copy<'a> {
    from: &'a RootDir,
    to: &'a RootDir,
    /// User and group; `None`: those that it has in the recipe's folder.
    owner: Option<(u32, u32)>,
    modes: Modes<'a>,
    attempt: &'a Attempt<'a>,
}

#[async_trait]
impl Runs for Files {
    async fn run(&self, attempt: &Attempt<'_>) -> Result<(), StepError> {
        let context = attempt.context();
        check_from("from", &self.from)?;
        check_to(&self.to)?;
        let recipe = RootDir::open(&context.recipe_dir).map_err(|source| {
            StepError::file("open the recipe's folder", &context.recipe_dir.display().to_string(), source)
        })?;
        let root = attempt.root().dir();
        let owner = match self.owner.as_deref() {
            None => Some((0, 0)),
            Some("keep") => None,
            Some(name) => Some(
                owner::ids(root, name)
                    .map_err(|error| StepError::recipe("owner", name, error.to_string()))?,
            ),
        };
        let copy = Copy { from: &recipe, to: root, owner, modes: Modes::new(self)?, attempt };
        let is_folder = recipe
            .metadata(&self.from)
            .map_err(|source| StepError::file("read the recipe's", &self.from, source))?
            .is_dir();
        let name = self.from.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let content = is_folder && (self.from.ends_with('/') || name == "." || name.is_empty());
        if self.from.ends_with('/') && !is_folder {
            return Err(StepError::recipe("from", &self.from, "is not a folder"));
        }
        let to =
            if self.to.ends_with('/') && !content { format!("{}{name}", self.to) } else { self.to.clone() };
        let above = to.trim_end_matches('/').rsplit_once('/').map_or("", |(above, _)| above);
        copy.make_folders(above)?;
        // A file that is named by itself is known to patterns by its name.
        let below = if is_folder { "" } else { name };
        copy.entry(self.from.trim_end_matches('/'), to.trim_end_matches('/'), below, true)?;
        if let Some(warning) = copy.modes.done()? {
            context.reporter.warning(warning);
        }
        Ok(())
    }
}

/// A path in the recipe's folder: relative, without `..`.
pub(super) fn check_from(key: &'static str, path: &str) -> Result<(), StepError> {
    if path.is_empty() || path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(StepError::recipe(key, path, "must be a path inside the recipe's folder, without `..`"));
    }
    no_nul(key, path)
}

fn check_to(path: &str) -> Result<(), StepError> {
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(StepError::recipe("to", path, "must be an absolute path in the image, without `..`"));
    }
    no_nul("to", path)
}

fn no_nul(key: &'static str, path: &str) -> Result<(), StepError> {
    if path.contains('\0') {
        return Err(StepError::recipe(key, path, "holds a NUL character"));
    }
    Ok(())
}

impl Copy<'_> {
    /// Copies what is at `from`: a link as it is, but the one that the recipe itself names is followed. `below` is the
    /// path that patterns know it by.
    fn entry(&self, from: &str, to: &str, below: &str, named: bool) -> Result<(), StepError> {
        if self.attempt.context().stop.is_requested() {
            return Err(StepError::Stopped);
        }
        self.attempt.check_time("copying files")?;
        let read = |source| StepError::file("read the recipe's", from, source);
        let found =
            if named { self.from.metadata(from) } else { self.from.symlink_metadata(from) }.map_err(read)?;
        let mode = found.permissions().mode() & 0o7777;
        let owner = self.owner.unwrap_or((found.uid(), found.gid()));
        if found.is_dir() {
            // One that is there keeps its mode and owner: `rootfs/etc` is not meant to change /etc.
            self.make_folder(to, self.modes.folder(below, mode)?, owner)?;
            for name in self.from.list(from).map_err(read)? {
                let below = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
                self.entry(&format!("{from}/{name}"), &format!("{to}/{name}"), &below, false)?;
            }
            return Ok(());
        }
        let written = if found.is_file() {
            let mut file = self.from.open_file(from).map_err(read)?;
            let mode = self.modes.file(below, mode, || is_script(&mut file).map_err(read))?;
            self.to.write_from(to, &mut file, mode, Some(owner))
        } else if found.is_symlink() {
            self.link(&self.from.read_link(from).map_err(read)?, to, owner)
        } else {
            let source = io::Error::new(io::ErrorKind::InvalidData, "it is no file, folder or link");
            return Err(StepError::file("copy the recipe's", from, source));
        };
        written.map_err(|source| not_written("write", to, source))
    }

    fn link(&self, target: &str, to: &str, (user, group): (u32, u32)) -> io::Result<()> {
        self.to.symlink(target, to)?;
        let (folder, name) = self.to.parent(to)?;
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        Ok(rustix::fs::chownat(&folder, &*name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// The folders above what is copied: those that are not there are root's and 0755.
    fn make_folders(&self, path: &str) -> Result<(), StepError> {
        let mut so_far = String::new();
        for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
            so_far.push('/');
            so_far.push_str(part);
            self.make_folder(&so_far, 0o755, (0, 0))?;
        }
        Ok(())
    }

    fn make_folder(&self, path: &str, mode: u32, owner: (u32, u32)) -> Result<(), StepError> {
        let make = || -> io::Result<()> {
            // A link to a folder counts as one: /lib is a link in today's distributions.
            match self.to.metadata(path) {
                Ok(found) if found.is_dir() => return Ok(()),
                Ok(_) => {
                    return Err(io::Error::new(io::ErrorKind::NotADirectory, "something else is there"));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            let (folder, name) = self.to.parent(path)?;
            rustix::fs::mkdirat(&folder, &*name, Mode::from_raw_mode(0o700))?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = File::from(rustix::fs::openat(&folder, &*name, flags, Mode::empty())?);
            rustix::fs::fchown(&made, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
            Ok(rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?)
        };
        // The root itself is always there.
        if path.is_empty() {
            return Ok(());
        }
        make().map_err(|source| not_written("make the folder", path, source))
    }
}

/// Whether a file begins with `#!`; it is read from its beginning afterwards.
fn is_script(file: &mut File) -> io::Result<bool> {
    let mut start = Vec::new();
    file.by_ref().take(2).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(start == b"#!")
}

fn not_written(doing: &'static str, path: &str, source: io::Error) -> StepError {
    if source.kind() == io::ErrorKind::StorageFull {
        return StepError::Full { path: path.to_owned(), source };
    }
    RootError::file(doing, path, source).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_where_they_belong() {
        for wrong in ["", "/etc/passwd", "../x", "a/../../x", "a\0b"] {
            assert!(check_from("from", wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["", "etc", "/../x", "/a/..", "/a\0b"] {
            assert!(check_to(wrong).is_err(), "{wrong:?}");
        }
    }
}
