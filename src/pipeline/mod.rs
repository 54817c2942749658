//! The pipeline's side: a buildspec is run as CodeBuild does, a build of CodeBuild is known by its environment, an artifact
//! unpacked and packed, a job given its result. Knows neither which cloud it is nor who asked.
//!
//! What CodeBuild does is told in docs/what-aws-has-seen.md, in the rows that begin with `BUILD`.

mod answer;
pub mod archive;
mod artifacts;
mod build;
mod codebuild;
mod environment;
mod outcome;
mod report;
mod secret;
mod shell;

pub use answer::{Done, JobResult, StageAnswer, exported};
pub use artifacts::ArtifactsError;
pub use build::{Build, BuildError, run};
pub use codebuild::CodeBuild;
pub use environment::{
    Identity, SecretsError, Source, Unread, asks_for_parameters, from_parameters, variables,
};
pub use outcome::{Collected, Context, Outcome, PhaseOutcome, Status};
pub use report::{Taken, put};
pub use shell::quoted;
