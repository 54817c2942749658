//! What is left when a bake fails, is killed, or meets a machine that fails it: nothing, or what the error lists and
//! `bakehouse sweep` removes. By the program as users run it, on a base of 64 MiB.

#![expect(clippy::disallowed_methods, reason = "the program is started here as a user starts it")]

#[cfg(feature = "aws")]
mod aws;
mod calls;
mod chroot;
mod cloud;
mod kills;
mod machine;
mod network;
mod real;
pub mod run;
mod source;
mod state;
mod two;
