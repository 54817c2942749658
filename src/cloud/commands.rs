//! Commands in a running instance, without a port that is open to the network: SSM's Run Command, and on the local cloud
//! ssh on the loopback address.

use std::time::Duration;

use async_trait::async_trait;

use super::{InstanceId, Result};

/// A script for one instance.
#[derive(Clone, Debug)]
pub struct NewCommand {
    /// Run by `/bin/sh` as root. One that ends with [`REBOOT`] is run again, from its beginning, once the machine was
    /// rebooted.
    pub script: String,
    /// From its beginning to its end, reboots among it.
    pub within: Duration,
    /// Where what it writes is kept as a whole, where the cloud's own answer is cut.
    pub output: Option<OutputTo>,
}

/// A place among objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputTo {
    pub bucket: String,
    /// Without a slash at its end.
    pub prefix: String,
}

/// The exit code by which a script asks for a reboot (SSM user guide, "Rebooting managed nodes from scripts").
pub const REBOOT: i32 = 194;

/// What the key that lets commands into an instance says of itself, where there is one: by it the seal knows the key.
pub const BUILD_KEY: &str = "bakehouse-build-instance";

/// The id of a command that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandId(pub String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandState {
    /// It was not begun yet.
    Pending,
    Running,
    /// With its exit code.
    Ended(i32),
    TimedOut,
    Cancelled,
    /// It did not reach the instance.
    Undelivered,
}

/// What is known of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    pub state: CommandState,
    /// What it wrote, once it ended. Cut by the cloud where `cut` says so.
    pub output: String,
    pub errors: String,
    pub cut: bool,
    /// The object that has all of its output, where it was kept and that was asked for.
    pub object: Option<String>,
}

#[async_trait]
pub trait Commands: Send + Sync {
    /// Whether commands reach the instance (`DescribeInstanceInformation`).
    async fn ready(&self, instance: &InstanceId) -> Result<bool>;

    /// `SendCommand`.
    async fn send(&self, instance: &InstanceId, new: &NewCommand) -> Result<CommandId>;

    /// `GetCommandInvocation`. One that was just sent may be [`NotYet`](super::ErrorKind::NotYet).
    async fn poll(&self, instance: &InstanceId, id: &CommandId) -> Result<Execution>;

    /// `CancelCommand`. One that ended is fine.
    async fn cancel(&self, instance: &InstanceId, id: &CommandId) -> Result<()>;

    /// What root runs at the instance's first boot so that commands reach it: a script of its own, or nothing.
    fn agent(&self) -> &'static str;

    /// How long an instance may take from its launch to its first command.
    fn ready_within(&self) -> Duration;
}
