//! How the bytes come to be: from a plan to a completed snapshot. One file per method.

mod base;
mod change;
mod chroot;
mod direct;
pub mod disk_file;
mod import;
pub mod keep;
mod kernels;
mod launch;
mod made;
pub mod orphans;
mod parent;
mod scratch;
mod store;
pub mod upload;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;

pub use chroot::ChrootError;
pub use launch::LaunchError;
pub use work::{WorkDir, WorkError};

use crate::cloud::{Cloud, CloudError, Image, ImageId, SnapshotId};
use crate::disk::boot_check::BootCheckError;
use crate::disk::boot_config::BootConfigError;
use crate::disk::format::FormatError;
use crate::disk::grow::GrowError;
use crate::disk::ids::IdsError;
use crate::disk::layout::LayoutError;
use crate::disk::sparse::SparseError;
use crate::disk::tree::TreeError;
use crate::disk::{BlockMap, TransferError};
use crate::host::exec::ExecError;
use crate::host::stop::Stop;
use crate::ledger::{CreateError, Ledger, LedgerError, Left};
use crate::plan::{MethodKind, Plan};
use crate::provision::{Installed, InstalledError, RootError, SealError, StepFailed};
use crate::report::{Reporter, Timing};

/// What a bake works with.
#[derive(Debug)]
pub struct Bench {
    pub cloud: Cloud,
    pub work: WorkDir,
    /// What the bake creates in the cloud. Whoever made it unwinds it on an error.
    pub ledger: Ledger,
    /// The recipe's folder: what `files` and the like are relative to.
    pub recipe_dir: PathBuf,
    pub reporter: Reporter,
    pub stop: Stop,
    /// The step to begin at (from 0) on a root that an earlier bake left; `None` for a new bake.
    pub resume: Option<usize>,
    /// The environment in which Bakehouse runs: steps take secrets and credentials from it, and inherit nothing.
    pub environment: BTreeMap<String, String>,
    /// That the root is kept where a step fails.
    pub keep: Option<keep::Wish>,
}

/// A finished disk in the cloud, not registered yet; or an image that is not kept yet.
#[derive(Clone, Debug)]
pub struct Baked {
    pub snapshot: SnapshotId,
    /// The image that there is already, where the method made one. It is undone until it is kept.
    pub image: Option<ImageId>,
    pub map: BlockMap,
    /// Blocks that were put.
    pub changed: u64,
    pub installed: Installed,
    pub timings: Vec<Timing>,
    /// What it was made from; `None` where that is no image.
    pub base: Option<OwnBase>,
}

/// The image of this account whose snapshot is the parent.
#[derive(Clone, Debug)]
pub struct OwnBase {
    pub image: Image,
    /// Whether it is a copy, made of another one to be this.
    pub imported: bool,
    /// Base64. No look shows it of another account's image.
    pub uefi_data: Option<String>,
}

#[async_trait]
pub trait Method: Send + Sync {
    /// Bakes. On an error what was created is in the bench's ledger, for the caller to unwind, and what is left on this
    /// host is in the error.
    async fn bake(&self, plan: &Plan, bench: &Bench) -> Result<Baked, BakeError>;
}

/// The method that a plan names.
#[must_use]
pub fn of(kind: MethodKind) -> &'static dyn Method {
    match kind {
        MethodKind::Direct => &direct::Direct,
        MethodKind::Scratch => &scratch::ScratchMethod,
        MethodKind::Launch => &launch::Launch,
        MethodKind::Chroot => &chroot::Chroot,
    }
}

/// Why a bake failed, and what it left on this host.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct BakeError {
    #[source]
    pub cause: BakeCause,
    pub left: Left,
}

impl<T: Into<BakeCause>> From<T> for BakeError {
    fn from(cause: T) -> Self {
        Self { cause: cause.into(), left: Left::Nothing }
    }
}

impl From<CreateError> for BakeCause {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Call(error) => Self::Cloud(error),
            CreateError::Ledger(error) => Self::Ledger(error),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BakeCause {
    #[error("{0}")]
    Cloud(#[from] CloudError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("{0}")]
    Transfer(#[from] TransferError),
    #[error(transparent)]
    Sparse(#[from] SparseError),
    #[error(transparent)]
    Ids(#[from] IdsError),
    #[error("the base {base} cannot be baked on: {source}")]
    Layout { base: String, source: LayoutError },
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(
        "{image} is called {name} and is no import of the base; rename it (deregister it and copy it under another name) or delete it"
    )]
    NotAnImport { image: ImageId, name: String },
    #[error("the import {image} is disabled; enable it, or deregister it and a new one is made")]
    ImportDisabled { image: ImageId },
    #[error(
        "{image} cannot be copied into this account; ask its owner to share its snapshots, or write `method: launch`"
    )]
    NotCopyable { image: ImageId, source: CloudError },
    #[error("the base {base} cannot be made larger: {source}")]
    Grow { base: String, source: GrowError },
    #[error(transparent)]
    BootConfig(#[from] BootConfigError),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    BootCheck(#[from] BootCheckError),
    #[error(transparent)]
    Root(#[from] RootError),
    #[error(transparent)]
    Step(#[from] StepFailed),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error(transparent)]
    Chroot(#[from] ChrootError),
    #[error("{cause}")]
    Kept {
        #[source]
        cause: Box<BakeCause>,
        bake: String,
        until: jiff::Timestamp,
    },
    #[error(transparent)]
    Installed(#[from] InstalledError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error(transparent)]
    Work(#[from] WorkError),
    #[error("cannot use {}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{what}")]
    Other { what: String },
}
