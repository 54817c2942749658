//! `files`: copies files of the recipe's folder.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Limits, StepKind};
use crate::recipe::Span;

/// Files copied from the recipe's folder into the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Files {
    /// A file or folder, relative to the recipe's folder. A folder that ends in `/` gives its content, else itself.
    pub from: String,
    /// An absolute path in the image. One that ends in `/` is a folder.
    pub to: String,
    /// `user`, or `user:group`, as the image knows them, or numbers. `keep`: the numbers of user and group that each
    /// file has in the recipe's folder. Unset: root.
    pub owner: Option<String>,
    /// `keep` (the default) or octal digits: `"0644"`.
    pub mode: Option<String>,
    /// Modes by pattern, relative to `from`: `usr/local/bin/*: "0755"`. `*` and `?` as in a shell, `**` for any number
    /// of folders; a pattern that ends in `/` is for folders, which keep their modes where the image has them already.
    /// Where several fit, the longest counts; where none does, `mode`.
    #[serde(default)]
    pub modes: BTreeMap<String, String>,
    /// How long one attempt may take. Unset: 30 minutes.
    pub timeout: Option<Span>,
    /// Attempts after one that took too long. At most 20: more mend nothing.
    #[serde(default)]
    #[schemars(range(max = 20))]
    pub retries: u32,
}

impl StepKind for Files {
    fn key(&self) -> &'static str {
        "files"
    }

    fn detail(&self) -> String {
        format!("{} to {}", self.from, self.to)
    }

    fn limits(&self) -> Limits {
        Limits { timeout: self.timeout, retries: self.retries }
    }
}
