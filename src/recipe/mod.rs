//! `bake.yml` as written, and `buildspec.yml` in a folder of its own: one file per key group. Says what the user wants,
//! never what will happen; the plan does that, and the runner of buildspecs.

mod account;
mod base;
pub mod buildspec;
mod check;
mod duration;
mod form;
mod image;
mod key;
mod launch;
mod load;
mod places;
mod problem;
mod rules;
mod schema;
mod shape;
mod size;
mod step;
mod vars;
mod yaml;

use std::collections::BTreeMap;

pub use account::{Account, EnteredAccount};
pub use base::{Base, Distribution, FileBase, Newest, Scratch};
pub use check::{BootTest, Check, CommandCheck, FileCheck, PackageCheck, PortCheck, ServiceCheck};
pub use duration::Span;
pub use image::{Disk, Encrypt, ImageOutput, Imds, RootFilesystem, Volume};
pub use launch::{Launch, SubnetChoice};
pub use load::{FILE, LARGEST, LoadOptions, Loaded, RecipeErrors, load};
pub(crate) use problem::nearest;
pub use problem::{Problem, ProblemKind, Problems};
pub use schema::schema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use size::Size;
pub use step::{
    Ansible, Files, Limits, Packages, Reboot, SecretFrom, Services, Shell, Step, StepKind, Update,
    UpdateScope, UpdateTo,
};

use crate::cloud::Architecture;

/// A recipe: what to bake, from what, how it is checked and what it is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Recipe {
    /// The version of this format: 1.
    pub version: u32,
    /// The image family: the name under which its images, its channel and its children find each other.
    pub name: String,
    /// `x86_64` or `arm64`; a list bakes one image each, on a host of each.
    pub architecture: Architectures,
    /// Values for `${name}` anywhere in this file; overridden by `--var name=value`.
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
    /// Other accounts that the recipe names, each as an id or as `{ id, role, external-id }`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<Account>,
    pub base: Base,
    /// How the bytes come to be. `auto` picks `direct` where it can and says why not where it cannot. `chroot` works on an
    /// EC2 instance alone, and only by wish.
    #[serde(default)]
    pub method: MethodChoice,
    /// The instance that the method `launch` works on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch: Option<Launch>,
    #[serde(default)]
    pub disk: Disk,
    /// What is done to the root, in this order.
    #[serde(default)]
    pub provision: Vec<Step>,
    /// What besides the usual is taken out of the image before it is stored: paths, with `*` for anything in a folder.
    #[serde(default)]
    pub seal: Seal,
    /// What must hold of the image.
    #[serde(default)]
    pub checks: Vec<Check>,
    #[serde(default)]
    pub boot: BootTest,
    #[serde(default)]
    pub image: ImageOutput,
}

impl Recipe {
    /// The role by which another account is entered, and the external id that it asks for.
    #[must_use]
    pub fn role_of(&self, account: &str) -> Option<(&str, Option<&str>)> {
        let of_base = || {
            let role = self.base.role.as_deref()?;
            (self.base.account.as_deref() == Some(account)).then_some((role, None))
        };
        let named = self.accounts.iter().find_map(|one| match one {
            Account::Entered(one) if one.id == account => {
                Some((one.role.as_str(), one.external_id.as_deref()))
            }
            _ => None,
        });
        named.or_else(of_base)
    }
}

/// How the bytes come to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MethodChoice {
    #[default]
    Auto,
    Direct,
    Scratch,
    Launch,
    Chroot,
}

/// One architecture or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Architectures {
    One(Architecture),
    Many(Vec<Architecture>),
}

impl Architectures {
    #[must_use]
    pub fn all(&self) -> &[Architecture] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// What the seal removes besides the usual.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Seal {
    /// Absolute paths in the image; `*` stands for any name within one folder.
    #[serde(default)]
    pub remove: Vec<String>,
}
