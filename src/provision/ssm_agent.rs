//! The SSM agent of a machine that is going to be an image: stopped before its folder is emptied and, where it was
//! brought in for the bake alone, taken out. On a machine without one there is nothing to do.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::host::exec::{Cmd, ExecError};
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;
use crate::recipe::Step;

/// Its package, whoever manages those.
pub const SSM_AGENT: &str = "amazon-ssm-agent";
/// Put there by the user data that installed it.
const BROUGHT: &str = "/var/lib/bakehouse/ssm-agent-installed";
/// The service of its package, and that of Ubuntu's snap.
const SERVICES: [&str; 2] = ["amazon-ssm-agent.service", "snap.amazon-ssm-agent.amazon-ssm-agent.service"];
/// Its programs (amazon-ssm-agent, `makefile`): what writes to its folder.
const PROGRAMS: [&str; 5] =
    [SSM_AGENT, "ssm-agent-worker", "ssm-document-worker", "ssm-session-worker", "ssm-session-logger"];
/// What it wrote, which its package does not own, and the folders of AWS's that may be empty without it.
const WRITTEN: [&str; 3] = ["/etc/amazon/ssm", "/var/lib/amazon/ssm", "/var/log/amazon/ssm"];
const EMPTY: [&str; 3] = ["/etc/amazon", "/var/lib/amazon", "/var/log/amazon"];
/// Control groups that are nobody's service: of version 2, and of systemd's own hierarchy of version 1.
const NO_SERVICE: [&str; 2] = ["/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/systemd/cgroup.procs"];
/// For one command: its service stops within seconds, and its package has some twenty files.
const COMMAND: Duration = Duration::from_secs(60);
/// How often dpkg is asked, and how long after each time, while another holds its lock: two minutes.
const TRIES: u32 = 24;
const BETWEEN: Duration = Duration::from_secs(5);

/// Whether it is there for the bake alone.
#[must_use]
pub fn ssm_agent_is_brought(root: &RootDir) -> bool {
    root.exists(BROUGHT)
}

/// Leaves it in where the recipe's steps install it too.
///
/// # Errors
/// Where its mark cannot be removed.
pub fn keep_wanted_ssm_agent(root: &RootDir, steps: &[Step]) -> Result<(), SsmAgentError> {
    if is_installed_by(steps) {
        root.remove(BROUGHT).map_err(|source| SsmAgentError::File { path: BROUGHT, source })?;
    }
    Ok(())
}

/// By a name, with a version behind it or not, or by a file of such a name.
fn is_installed_by(steps: &[Step]) -> bool {
    steps.iter().any(|step| {
        let Step::Packages(packages) = step else { return false };
        let files = packages.files.iter().filter_map(|file| file.rsplit('/').next());
        files.chain(packages.install.iter().map(String::as_str)).any(|name| name.starts_with(SSM_AGENT))
    })
}

/// Takes this process out of the agent's service, by whose command it was started: a snap's service ends all of its
/// processes when it is stopped. Where that is not possible nothing is lost but this process.
pub fn leave_ssm_agent() {
    for group in NO_SERVICE {
        // There is one of them, or none.
        let _ = fs::write(group, "0");
    }
}

/// Stops it, so that nothing writes to its folder any more.
pub async fn stop_ssm_agent() {
    // A service that is not there is an error of systemctl's; what runs all the same is ended below.
    let _ = systemctl("stop", &SERVICES).await;
    // Its own service ends its first process alone (KillMode=process), and a machine may have no systemd.
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let id = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let (Some(id), Ok(program)) = (id, fs::read_link(process.path().join("exe"))) else { continue };
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // So the kernel names one whose file was replaced.
        if PROGRAMS.contains(&name.trim_end_matches(" (deleted)")) {
            // It may have ended meanwhile.
            let _ = kill_process(id, Signal::KILL);
        }
    }
}

async fn systemctl(verb: &str, services: &[&str]) -> Result<(), ExecError> {
    let command = Cmd::new("systemctl").arg(verb).args(services).timeout(COMMAND);
    command.run(&Stop::never()).await.map(drop)
}

/// Takes out one that was brought in, with its package's settings and what it wrote. `root` is the machine's own.
///
/// # Errors
/// Where its package manager does not let it go: the image must not be made then, for half of it may be there.
pub async fn take_out_ssm_agent(root: &RootDir) -> Result<(), SsmAgentError> {
    // Its package does not take away the link by which it starts. Where there is no systemd there is none.
    let _ = systemctl("disable", &SERVICES[..1]).await;
    // In the order in which it was looked for how to install it.
    let words = if Path::new("/usr/bin/dpkg").exists() {
        ["dpkg", "--purge", SSM_AGENT]
    } else {
        ["rpm", "--erase", SSM_AGENT]
    };
    let command = Cmd::new(words[0]).args(&words[1..]).env("LC_ALL", "C").timeout(COMMAND);
    let mut tries = 1;
    loop {
        match command.clone().run(&Stop::never()).await {
            Ok(_) => break,
            // dpkg does not wait for it, and rpm does by itself.
            Err(ExecError::Failed { tail, .. })
                if tries < TRIES && tail.iter().any(|line| line.contains("lock")) =>
            {
                tries += 1;
                tokio::time::sleep(BETWEEN).await;
            }
            Err(source) => return Err(SsmAgentError::Package { source }),
        }
    }
    for path in WRITTEN {
        root.remove(path).map_err(|source| SsmAgentError::File { path, source })?;
    }
    for path in EMPTY {
        if root.list(path).is_ok_and(|names| names.is_empty()) {
            root.remove(path).map_err(|source| SsmAgentError::File { path, source })?;
        }
    }
    Ok(())
}

/// Why the agent could not be taken out.
#[derive(Debug, thiserror::Error)]
pub enum SsmAgentError {
    #[error("the SSM agent, which was installed for the bake alone, cannot be taken out")]
    Package { source: ExecError },
    #[error("cannot remove {path}")]
    File { path: &'static str, source: std::io::Error },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_the_recipe_installs_is_the_recipes() {
        let steps = |text: &str| -> Vec<Step> { serde_json::from_str(text).unwrap() };
        for own in [
            r#"[{"packages": {"install": ["jq", "amazon-ssm-agent"]}}]"#,
            r#"[{"packages": {"install": ["amazon-ssm-agent=3.3.1"]}}]"#,
            r#"[{"shell": {"run": "true"}}, {"packages": {"files": ["debs/amazon-ssm-agent.deb"]}}]"#,
        ] {
            assert!(is_installed_by(&steps(own)), "{own}");
        }
        for other in [
            r#"[{"packages": {"install": ["jq"], "remove": ["amazon-ssm-agent"]}}]"#,
            r#"[{"shell": {"run": "true"}}]"#,
        ] {
            assert!(!is_installed_by(&steps(other)), "{other}");
        }
    }
}
