//! A client run against an endpoint, with what it took.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::process::{Cost, run};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    Bakehouse,
    Coldsnap,
}

/// The programs that are compared, and where they work.
pub struct Clients {
    pub bakehouse: PathBuf,
    pub coldsnap: PathBuf,
    pub folder: PathBuf,
}

/// Where an endpoint is.
pub struct Target {
    pub url: String,
    /// Whom to trust.
    pub authority: Option<PathBuf>,
    /// Whether it takes as many calls as EBS does, and no more.
    pub is_limited: bool,
}

/// More blocks a second than any endpoint here takes: coldsnap keeps to no rate at all, and Bakehouse to EBS's.
const ANY: &str = "1000000";

impl Clients {
    fn command(&self, client: Client, target: &Target) -> Command {
        let mut command = Command::new(match client {
            Client::Bakehouse => &self.bakehouse,
            Client::Coldsnap => &self.coldsnap,
        });
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.folder)
            .env("BAKEHOUSE_WORK", self.folder.join("work"));
        self.reach(&mut command, target);
        command
    }

    /// Tells a program where its AWS is.
    pub fn reach(&self, command: &mut Command, target: &Target) {
        command
            .env("AWS_ENDPOINT_URL", &target.url)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
            .env("AWS_EC2_METADATA_DISABLED", "true");
        if let Some(authority) = &target.authority {
            command.env("SSL_CERT_FILE", authority);
        }
        if !target.is_limited {
            command.env("BAKEHOUSE_AWS_BLOCK_RATE", ANY);
        }
    }

    /// Stores `disk`, and gives the snapshot's id.
    pub fn upload(
        &self,
        client: Client,
        target: &Target,
        disk: &Path,
        more: &[&str],
    ) -> anyhow::Result<(String, Cost)> {
        let mut command = self.command(client, target);
        match client {
            Client::Bakehouse => command.args(["--quiet", "snapshot", "upload"]).args(more).arg(disk),
            Client::Coldsnap => command.args(["upload", "--no-progress"]).args(more).arg(disk),
        };
        let (out, cost) = run(&mut command)?;
        Ok((out.lines().last().context("no snapshot id")?.to_owned(), cost))
    }

    /// Reads a snapshot into `disk`.
    pub fn download(
        &self,
        client: Client,
        target: &Target,
        snapshot: &str,
        disk: &Path,
    ) -> anyhow::Result<Cost> {
        let mut command = self.command(client, target);
        match client {
            Client::Bakehouse => command.args(["--quiet", "snapshot", "download", snapshot]).arg(disk),
            Client::Coldsnap => command.args(["download", "--no-progress", snapshot]).arg(disk),
        };
        Ok(run(&mut command)?.1)
    }
}
