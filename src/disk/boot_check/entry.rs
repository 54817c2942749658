//! What a boot loader would start, in one form for all loaders: a kernel, its initramfs images and its arguments. Says
//! what was found, not whether it is good.

use std::io::ErrorKind;
use std::ops::Range;

use super::Problem;

/// One way to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The file that says so.
    pub file: String,
    pub title: String,
    pub kernel: Image,
    pub initrds: Vec<Image>,
    /// The kernel's command line.
    pub args: Vec<String>,
    /// Whether the loader tells the system which disk it was on, so that systemd finds a root by its partition's type.
    pub tells_disk: bool,
}

/// A kernel or an initramfs: a file, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Image {
    /// As the root sees it.
    pub path: String,
    /// In bytes from the file's beginning; `None` for all of it.
    pub part: Option<Range<u64>>,
}

impl Image {
    #[must_use]
    pub fn file(path: impl Into<String>) -> Self {
        Self { path: path.into(), part: None }
    }
}

/// What one loader would do, and what is wrong with its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub entries: Vec<Entry>,
    pub problems: Vec<Problem>,
    /// What could not be judged, or is odd and boots all the same.
    pub warnings: Vec<String>,
    /// Whether something that may boot could not be judged.
    pub unjudged: bool,
}

impl Found {
    pub(super) fn problem(&mut self, file: &str, reason: impl Into<String>) {
        let problem = Problem { file: file.to_owned(), reason: reason.into() };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    pub(super) fn warning(&mut self, text: String) {
        if !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }

    /// A warning of what may boot, and cannot be judged.
    pub(super) fn unjudged(&mut self, text: String) {
        self.unjudged = true;
        self.warning(text);
    }

    /// A settings file's text; `None` where there is none, or where it cannot be read, which is a problem.
    pub(super) fn text(&mut self, disk: &super::Sight<'_>, file: &str) -> Option<String> {
        match super::read_text(disk.root, file) {
            Ok(text) => Some(text),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                // A link that leads nowhere is a file that the loader will not find.
                if disk.root.symlink_metadata(file).is_ok() {
                    self.problem(file, "it is a link that leads to nothing in the image");
                }
                None
            }
            Err(error) => {
                self.problem(file, format!("it cannot be read: {error}"));
                None
            }
        }
    }
}
