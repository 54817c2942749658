//! The recipe's steps in a root, and the seal at the end. Knows nothing of clouds, disks or partitions: it is given a
//! folder that is a root, and what the disk's identity is.
//!
//! Order: [`ChrootRoot::enter`], [`run_steps`], [`ChrootRoot::leave`], then [`seal`] on the root left behind. Between
//! enter and leave the root's /run and /tmp are file systems in memory, so the seal would look at the wrong ones.

mod bundle;
mod chroot;
mod cloud;
mod installed;
mod machine;
mod owner;
mod packages;
mod root;
mod seal;
mod steps;

pub use bundle::{
    Bundle, BundleError, BundleSecrets, Content, Entry, Outcome, OutcomeEnd, OutcomeFailure, Progress,
};
pub use chroot::{ChrootOptions, ChrootRoot, DiskIdentity, FileSystemIdentity, KernelIdentity};
pub use cloud::set_up_cloud;
pub use installed::{Installed, InstalledError, InstalledPackage, PackageFormat, System, installed};
pub use machine::{MachineRoot, disks_alone};
pub use packages::{Invocation, PackageManager, PackagesError};
pub use root::{Root, RootCommand, RootError, RootFacts};
pub use seal::{SealError, SealOptions, Sealed, check_remove, remove_build_key, seal};
pub use steps::{EspAccess, StepContext, StepError, StepFailed, StepTiming, run_steps};
