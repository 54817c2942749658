//! This machine as an instance of EC2, for a program that bakes on it: a mount namespace in which /dev and /sys/block are
//! folders of the test's, where the stand-in shows what it attaches (`hosts.py`), and the instance's metadata service.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use super::StandIn;
use crate::yard::{Said, Yard};

/// Loop devices that the program may come to use: more than a machine has at a time.
const LOOPS: u32 = 1024;
/// What a program finds in /dev besides.
const NODES: [&str; 7] = ["null", "zero", "full", "random", "urandom", "tty", "loop-control"];

pub struct Host<'a> {
    yard: &'a Yard,
    cloud: &'a StandIn,
    folder: PathBuf,
    pub instance: String,
    pub zone: String,
    metadata: String,
}

impl<'a> Host<'a> {
    pub fn new(yard: &'a Yard, cloud: &'a StandIn) -> Self {
        let folder = yard.path().join(format!("host-{}", cloud.account()));
        let (sys, dev) = (folder.join("sys"), folder.join("dev"));
        fs::create_dir_all(&sys).unwrap();
        // As in /sys/block, where all are links.
        for number in 0..LOOPS {
            let name = format!("loop{number}");
            symlink(format!("../devices/virtual/block/{name}"), sys.join(name)).unwrap();
        }
        fs::create_dir_all(dev.join("shm")).unwrap();
        let nodes = NODES.iter().map(|name| format!("/dev/{name}"));
        assert!(Command::new("cp").arg("-a").args(nodes).arg(&dev).status().unwrap().success());
        symlink("/proc/self/fd", dev.join("fd")).unwrap();
        let (instance, zone, metadata) = cloud.host(&sys, &dev);
        Self { yard, cloud, folder, instance, zone, metadata }
    }

    /// The program on that instance.
    pub fn command(&self, args: &[&str]) -> Command {
        let program = self.cloud.program(self.yard);
        let prepare = format!(
            "mount --bind '{0}/sys' /sys/block && mount --bind '{0}/dev' /dev && exec \"$@\"",
            self.folder.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &prepare, "sh"]).arg(program.get_program()).args(args);
        command.current_dir(self.yard.path()).env_clear();
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &self.metadata);
        command
    }

    pub fn run(&self, args: &[&str]) -> Said {
        self.command(args).output().unwrap().into()
    }

    /// With a fault in it.
    pub fn faulty(&self, fault: &str, args: &[&str]) -> Said {
        self.command(args).env("BAKEHOUSE_FAULT", fault).output().unwrap().into()
    }

    /// The volumes of the account, by their ids; and that none shows on this machine that is not there.
    pub fn volumes(&self) -> Vec<String> {
        let held = self.cloud.state()["volumes"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let shown = |folder: &str| {
            let all = fs::read_dir(self.folder.join(folder)).unwrap().flatten();
            all.filter(|one| one.file_name().to_string_lossy().starts_with("nvme")).count()
        };
        assert!(shown("sys") <= held.len() && shown("dev") <= held.len(), "{held:?}");
        held
    }
}
