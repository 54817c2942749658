//! Rules of paths in the recipe's folder: what is named is there, is of the right sort, and does not lie outside.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::{Verdict, Wrong, wrong};
use crate::host::glob;
use crate::host::root_dir::RootDir;
use crate::recipe::problem::quoted;

/// The disk that an image is made from.
pub(super) fn base_file(folder: &Path, text: &str) -> Verdict {
    if text.starts_with("s3://") {
        return wrong(
            "disks in S3 belong to a form of `base` that this version does not have yet",
            "fetch the disk into the recipe's folder before the bake",
        );
    }
    file(folder, text)
}

/// A file in the recipe's folder.
pub(super) fn file(folder: &Path, text: &str) -> Verdict {
    inside(text)?;
    let path = found(folder, text)?;
    is_file(&path, text)
}

/// A file or folder in the recipe's folder.
pub(super) fn source(folder: &Path, text: &str) -> Verdict {
    inside(text)?;
    found(folder, text).map(|_| ())
}

/// A file of the host, where it is not in the recipe's folder.
pub(super) fn host_file(folder: &Path, text: &str) -> Verdict {
    if text.is_empty() || text.contains('\0') {
        return wrong("this is not a path", "write the path of a file");
    }
    let path = folder.join(text);
    match path.metadata() {
        Ok(_) => is_file(&path, text),
        Err(error) => Err(missing(text, &error)),
    }
}

/// Files in the recipe's folder, with `*` and `?`; at least one.
pub(super) fn some_file(folder: &Path, text: &str) -> Verdict {
    inside(text)?;
    if !text.contains(['*', '?']) {
        return file(folder, text);
    }
    let found = RootDir::open(folder).and_then(|root| {
        let found = glob::expand(&root, text)?;
        Ok(found.into_iter().find(|path| root.metadata(path).is_ok_and(|found| found.is_file())))
    });
    match found {
        Ok(Some(first)) => file(folder, first.trim_start_matches('/')),
        Ok(None) => wrong(
            format!("no file in the recipe's folder fits {}", quoted(text)),
            "build it before the bake, or correct the path",
        ),
        Err(error) => wrong(error.to_string(), "name the files more closely"),
    }
}

/// Whether a path as it is written stays in the folder.
fn inside(text: &str) -> Verdict {
    let hint = "write a path relative to the recipe's folder";
    if text.is_empty() || text.contains('\0') {
        return wrong("this is not a path", hint);
    }
    let path = Path::new(text);
    if path.is_absolute() {
        return wrong(format!("{} is not in the recipe's folder", quoted(text)), hint);
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return wrong(
            format!("{} leads out of the recipe's folder", quoted(text)),
            "put what is needed into the recipe's folder; `..` is not taken",
        );
    }
    Ok(())
}

/// Where a path leads to, with its links; that must be in the folder too.
fn found(folder: &Path, text: &str) -> Result<PathBuf, Wrong> {
    let real = |path: &Path| path.canonicalize().map_err(|error| missing(text, &error));
    let path = real(&folder.join(text))?;
    if path.starts_with(real(folder)?) {
        return Ok(path);
    }
    Err(Wrong {
        message: format!("{} is a link that leads out of the recipe's folder", quoted(text)),
        hint: "put the file itself there".to_owned(),
    })
}

fn is_file(path: &Path, text: &str) -> Verdict {
    if path.is_file() {
        Ok(())
    } else {
        wrong(format!("{} is not a file", quoted(text)), "name the file itself")
    }
}

fn missing(text: &str, error: &io::Error) -> Wrong {
    match error.kind() {
        io::ErrorKind::NotFound => Wrong {
            message: format!("{} is not there", quoted(text)),
            hint: "paths are relative to the recipe's folder; make the file, or correct the path".to_owned(),
        },
        io::ErrorKind::NotADirectory => Wrong {
            message: format!("{} goes through a file as if it were a folder", quoted(text)),
            hint: "take off the `/` after a file's name".to_owned(),
        },
        _ => Wrong {
            message: format!("{} cannot be reached: {error}", quoted(text)),
            hint: "correct the path, or its permissions".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_in_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("recipe");
        std::fs::create_dir_all(folder.join("build")).unwrap();
        std::fs::write(dir.path().join("secret"), "").unwrap();
        std::fs::write(folder.join("build/app_1.deb"), "").unwrap();
        std::os::unix::fs::symlink("../secret", folder.join("out")).unwrap();
        std::os::unix::fs::symlink("build/app_1.deb", folder.join("in")).unwrap();
        for good in ["build/app_1.deb", "in", "./build/app_1.deb"] {
            assert!(file(&folder, good).is_ok(), "{good}");
        }
        for bad in ["out", "../secret", "/etc/passwd", "", "build", "none", "build/app_1.deb/", "a\0"] {
            assert!(file(&folder, bad).is_err(), "{bad}");
        }
        for good in ["build/*.deb", "*/app_?.deb", "build/app_1.deb"] {
            assert!(some_file(&folder, good).is_ok(), "{good}");
        }
        for bad in ["*.deb", "../*", "bui*", "o?t"] {
            assert!(some_file(&folder, bad).is_err(), "{bad}");
        }
        for number in 0..20 {
            std::os::unix::fs::symlink(".", folder.join(format!("circle{number}"))).unwrap();
        }
        let many = some_file(&folder, "*/*/*/*/*/*").unwrap_err();
        assert!(many.message.contains("fits too many paths"), "{}", many.message);
        assert!(source(&folder, "build/").is_ok());
        assert!(host_file(&folder, "../secret").is_ok());
        assert!(host_file(&folder, "build").is_err());
    }
}
