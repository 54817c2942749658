//! The recipe's steps in a root, and the seal at the end. Knows nothing of clouds, disks or partitions: it is given a
//! folder that is a root, and what the disk's identity is.
//!
//! Order: [`ChrootRoot::enter`], [`run_steps`], [`ChrootRoot::leave`], then [`seal`] on the root left behind. Between
//! enter and leave the root's /run and /tmp are file systems in memory, so the seal would look at the wrong ones.

mod bundle;
mod chroot;
mod cloud;
mod installed;
mod last_of_seal;
mod machine;
mod owner;
mod packages;
mod root;
mod seal;
mod ssm_agent;
mod steps;

pub use bundle::{
    Bundle, BundleError, BundleSecrets, Content, Entry, Outcome, OutcomeEnd, OutcomeFailure, Progress,
};
pub use chroot::{ChrootOptions, ChrootRoot, DiskIdentity, FileSystemIdentity, KernelIdentity};
pub use cloud::set_up_cloud;
pub use installed::{Installed, InstalledError, InstalledPackage, PackageFormat, System, installed};
pub use last_of_seal::LastOfSeal;
pub use machine::{MachineRoot, disks_alone};
pub use packages::{Invocation, PackageManager, PackagesError};
pub use root::{Root, RootCommand, RootError, RootFacts};
pub use seal::{SealError, SealOptions, Sealed, check_remove, remove_build_key, seal};
pub use ssm_agent::{
    SSM_AGENT, SsmAgentError, keep_wanted_ssm_agent, leave_ssm_agent, ssm_agent_is_brought, stop_ssm_agent,
    take_out_ssm_agent,
};
pub use steps::{EspAccess, StepContext, StepError, StepFailed, StepTiming, run_steps};
