//! The seal: what makes one machine that machine, and what the bake left behind, is taken out of a root before it is
//! stored. What is taken comes back by itself at first boot, or was of use only to the bake.
//!
//! Reaches files through [`RootDir`] only, runs nothing but the root's own tools for SELinux labels, and may run twice:
//! the second time it finds nothing to do.

mod build_key;
mod identity;
mod labels;
mod logs;
mod paths;
mod selinux;

use std::io;
use std::path::PathBuf;

use crate::host::exec::ExecError;
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;
use crate::report::Reporter;

use crate::host::glob;
pub use build_key::remove_build_key;
use paths::{Kind, PATHS};

/// What the seal needs to know besides the root.
#[derive(Clone, Copy, Debug)]
pub struct SealOptions<'a> {
    /// What the recipe wants removed: see [`check_remove`].
    pub remove: &'a [String],
    /// Leaves what lets commands into a machine that runs, so that it can be told what came of this: it is sealed once
    /// more, without this.
    pub reachable: bool,
    pub reporter: &'a Reporter,
    /// Ends the labelling, which on a large root is the seal's longest part.
    pub stop: &'a Stop,
}

/// One thing that the seal did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// What it is: `ssh host keys`.
    pub what: String,
    /// The file or folder in the root.
    pub path: String,
}

/// Seals a root. Nothing may be mounted on its /run and /tmp, or what is beneath is not seen: after
/// [`super::ChrootRoot::leave`]. Where the root uses SELinux (selinux(8)) all its files get their labels, at the end:
/// what makes or replaces files in it later must label them itself.
///
/// # Errors
/// The first thing that cannot be taken out, or files that are left without a label: the image must not be stored
/// then.
pub async fn seal(root: &RootDir, options: SealOptions<'_>) -> Result<Vec<Sealed>, SealError> {
    for pattern in options.remove {
        check_remove(pattern)?;
    }
    let mut done = Vec::new();
    identity::machine_id(root, &mut done)?;
    identity::host_name(root, &mut done)?;
    for (what, kind, patterns) in PATHS {
        for pattern in *patterns {
            remove(root, what, *kind, pattern, options, &mut done)?;
        }
    }
    logs::clear(root, "/var/log", &mut done)?;
    for pattern in options.remove {
        remove(root, "named by the recipe", Kind::Whole, pattern, options, &mut done)?;
    }
    selinux::label(root, options, &mut done).await?;
    if done.iter().any(|sealed| sealed.what == paths::HOST_KEYS) && !root.exists("/usr/bin/cloud-init") {
        options.reporter.warning(
            "the image has no cloud-init, and its ssh host keys were removed: something else must make new ones at \
             first boot",
        );
    }
    let mut told: Vec<&str> = Vec::new();
    for sealed in &done {
        if told.contains(&sealed.what.as_str()) {
            continue;
        }
        told.push(&sealed.what);
        let count = done.iter().filter(|other| other.what == sealed.what).count();
        let more = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        options.reporter.note(format!("sealed: {} ({}{more})", sealed.what, sealed.path));
    }
    Ok(done)
}

/// Checks a path of the recipe's `seal.remove`: absolute, with `*` and `?` within one folder, without `..`, and
/// neither the root itself nor everything in it.
///
/// # Errors
/// [`SealError::Pattern`], which says what is wrong.
pub fn check_remove(pattern: &str) -> Result<(), SealError> {
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let wrong = if !pattern.starts_with('/') {
        "must be an absolute path in the image"
    } else if parts.is_empty() {
        "is the whole image"
    } else if parts.contains(&"..") {
        "must not hold `..`"
    } else if pattern.contains('\0') {
        "holds a NUL character"
    } else if parts[0].chars().all(|c| c == '*' || c == '?') {
        "would remove whole top-level folders; name one"
    } else {
        return Ok(());
    };
    Err(SealError::Pattern { pattern: pattern.to_owned(), wrong })
}

fn remove(
    root: &RootDir,
    what: &str,
    kind: Kind,
    pattern: &str,
    options: SealOptions<'_>,
    done: &mut Vec<Sealed>,
) -> Result<(), SealError> {
    let found = glob::expand_bytes(root, pattern);
    for path in found.map_err(|source| SealError::file("look for", pattern, source))? {
        if options.reachable && paths::is_way_in(&path) {
            continue;
        }
        let shown = path.display().to_string();
        let failed = |source| SealError::file("remove", &shown, source);
        let removed = match kind {
            Kind::Whole => root.remove(&path).map_err(failed)?,
            Kind::Content => root.remove_content(&path).map_err(failed)? > 0,
            Kind::ContentBut(kept) => {
                let mut any = false;
                for name in glob::expand_bytes(root, &format!("{shown}/*")).map_err(failed)? {
                    if !kept.iter().any(|kept| name.ends_with(kept)) {
                        any |= root.remove(&name).map_err(failed)?;
                    }
                }
                any
            }
        };
        if removed {
            done.push(Sealed { what: what.to_owned(), path: shown });
        }
    }
    Ok(())
}

/// Why a root could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("cannot {doing} {path} in the root")]
    File { doing: &'static str, path: String, source: io::Error },
    #[error("`seal.remove: {pattern}` {wrong}")]
    Pattern { pattern: String, wrong: &'static str },
    #[error(
        "the root's /etc/selinux/config names the policy `{name}`: SELINUXTYPE must be the name of a folder in /etc/selinux"
    )]
    Policy { name: String },
    #[error(
        "the root has the SELinux policy `{policy}` and no {program}, which labels its files: install {package} by a \
         `packages` step, or write SELINUX=disabled to /etc/selinux/config"
    )]
    NoProgram { program: &'static str, package: &'static str, policy: String },
    #[error(
        "the root uses SELinux, and the file system of {} takes no labels (security.selinux): use a work folder on \
         ext4, xfs or btrfs",
        root.display()
    )]
    NoLabels { root: PathBuf },
    #[error("cannot label the root for SELinux by its own policy")]
    Label { source: ExecError },
    #[error(
        "{count} files of the root have no SELinux label, though its policy has one for them: {some}; run `setfiles` on \
         them in a last step to see why, remove them by `seal.remove`, or write SELINUX=disabled to /etc/selinux/config"
    )]
    Unlabelled { count: usize, some: String },
}

impl SealError {
    fn file(doing: &'static str, path: &str, source: io::Error) -> Self {
        Self::File { doing, path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_cannot_have_the_whole_image_removed() {
        for fine in ["/opt/build", "/home/*/cache", "/a*", "/var/lib/x/./y"] {
            check_remove(fine).unwrap();
        }
        for wrong in ["", "/", "//", "/.", "/./", "opt", "/opt/../..", "/..", "/*", "/??", "/*/bin", "/a\0"] {
            assert!(check_remove(wrong).is_err(), "{wrong:?}");
        }
    }
}
