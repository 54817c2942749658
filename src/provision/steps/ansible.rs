//! `ansible`: a playbook run by the host's ansible-playbook against the root, through a connection plugin of our own
//! that enters the root as every other step does. The root needs Python, the host ansible-core 2.14 or later.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use async_trait::async_trait;

use super::attempt::Attempt;
use super::files::check_from;
use super::{Runs, StepError};
use crate::host::exec::Cmd;
use crate::host::root_dir::RootDir;
use crate::provision::root::shell_word;
use crate::recipe::Ansible;

const PLUGIN: &str = include_str!("ansible_connection.py");

/// One host, so that `hosts: all` is the image. Ansible's own files go to the root's /tmp, which is in memory.
const INVENTORY: &str = "image ansible_connection=bakehouse ansible_remote_tmp=/tmp/ansible \
                         ansible_python_interpreter=auto_silent\n";

/// Of the environment in which Bakehouse runs ansible-playbook gets these, besides what begins with `ANSIBLE_`: to be
/// found, and to find the user's collections.
const HANDED_ON: [&str; 4] = ["PATH", "HOME", "LANG", "SSL_CERT_FILE"];

#[async_trait]
impl Runs for Ansible {
    async fn run(&self, attempt: &Attempt<'_>) -> Result<(), StepError> {
        let context = attempt.context();
        check_from("playbook", &self.playbook)?;
        let recipe = RootDir::open(&context.recipe_dir).map_err(|source| {
            StepError::file("open the recipe's folder", &context.recipe_dir.display().to_string(), source)
        })?;
        recipe
            .open_file(&self.playbook)
            .map_err(|source| StepError::file("open the playbook", &self.playbook, source))?;
        let Some(entry) = attempt.root().entry() else {
            return Err(StepError::Lacks {
                what: "way in for Ansible",
                instead: "run ansible-playbook in the root by a shell step",
            });
        };
        let folder = tempfile::Builder::new()
            .prefix("bakehouse-ansible-")
            .tempdir()
            .map_err(|source| StepError::file("make a folder in", "the host's temporary folder", source))?;
        let at = folder.path();
        write_all(at, &entry, self).map_err(|source| {
            StepError::file("write Ansible's files to", &at.display().to_string(), source)
        })?;

        let mut command = Cmd::new("ansible-playbook").apart_from_the_machine().clear_env();
        for (name, value) in &context.environment {
            if HANDED_ON.contains(&name.as_str()) || name.starts_with("ANSIBLE_") {
                command = command.env(name, value);
            }
        }
        for (name, value) in
            [("ANSIBLE_RETRY_FILES_ENABLED", "0"), ("ANSIBLE_NOCOLOR", "1"), ("ANSIBLE_NOCOWS", "1")]
        {
            command = command.env(name, value);
        }
        for (name, value) in &self.env {
            command = command.env(name, value);
        }
        command = command
            // Without these the playbook does not reach the root: the recipe's own come before.
            .env("ANSIBLE_CONNECTION_PLUGINS", at.join("plugins"))
            .env("ANSIBLE_LOCAL_TEMP", at.join("tmp"))
            // The plugin is a child of ours: nothing else tells it how to enter.
            .env("BAKEHOUSE_ENTER", at.join("enter"))
            .arg("--inventory")
            .arg(at.join("inventory"))
            .arg("--extra-vars")
            .arg(format!("@{}", at.join("vars.json").display()))
            .arg("--")
            .arg(&self.playbook)
            .cwd(&context.recipe_dir);
        let is_set = |name: &str| self.env.contains_key(name) || context.environment.contains_key(name);
        if !is_set("PATH") {
            command = command.env("PATH", crate::provision::root::PATH);
        }
        if !is_set("HOME") {
            command = command.env("HOME", at);
        }
        if !is_set("LANG") {
            // ansible-core refuses to start where the locale is not UTF-8.
            command = command.env("LANG", "C.UTF-8");
        }
        attempt.run_on_host("ansible-playbook", command).await
    }
}

/// The folder is this user's alone (0700): variables may be secrets.
fn write_all(at: &Path, entry: &[OsString], ansible: &Ansible) -> io::Result<()> {
    for folder in ["plugins", "tmp"] {
        std::fs::create_dir(at.join(folder))?;
    }
    std::fs::write(at.join("plugins/bakehouse.py"), PLUGIN)?;
    std::fs::write(at.join("inventory"), INVENTORY)?;
    std::fs::write(at.join("vars.json"), serde_json::to_vec(&ansible.extra_vars)?)?;
    let words: Vec<String> = entry.iter().map(|word| shell_word(&word.to_string_lossy())).collect();
    // Read by a shell rather than run: a file that this process wrote cannot be run while a child of another thread,
    // between its fork and its exec, still has it open.
    std::fs::write(at.join("enter"), format!("exec {} \"$@\"\n", words.join(" ")))
}
