//! Whether an image is as its recipe demands: checks in its root before it is stored, and the same checks and more
//! inside an instance of it. Reads, launches and judges; never changes an image.

mod boot;
mod console;
mod frame;
mod in_root;
mod judge;
mod junit;
mod outcome;
mod script;
mod unit;
mod version;

pub use boot::{AcceptanceError, Boot, BootReport, BootSpec, BootStage, LaunchOptions, Until};
pub use console::{Stage, stage, tail};
pub use frame::{Answer, Judged, Verdict, find_answer};
pub use in_root::{has_cloud_init, static_checks};
pub use junit::{Case, End, junit};
pub use outcome::{Outcome, Status, combined, kind, name};
pub use script::{LARGEST_USER_DATA, Script, ScriptError};
pub use unit::{Enabled, enabled};
pub use version::{Relation, Requirement};
