//! Jobs of CodePipeline: a stage that is one, and a worker that does them, by the program against the stand-in.

#![expect(clippy::disallowed_methods, reason = "the program is started here as a user starts it")]

mod artifacts;
mod fixture;
mod stage;
mod worker;
