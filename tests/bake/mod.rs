//! Whole bakes, by the program as a user runs it: from packages to a booted machine. Need root, loop devices, the
//! network of the distribution's packages, and QEMU.

#![expect(clippy::disallowed_methods, reason = "the program is started here as a user starts it")]

mod chroot;
#[cfg(feature = "aws")]
mod chroot_on_aws;
mod direct;
mod failure;
mod foreign;
mod import;
#[cfg(feature = "aws")]
mod import_on_aws;
mod launch;
mod loaders;
#[cfg(feature = "aws")]
mod on_aws;
mod quickstart;
#[cfg(feature = "aws")]
mod refused_on_aws;
mod scratch;
mod secret;
mod selinux;
mod vmdb2;
