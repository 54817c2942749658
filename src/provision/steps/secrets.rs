//! Secrets of a step: taken from the environment or a file of the host, hidden from everything that is shown, and
//! gone with the step.
//!
//! Never on the image's disk: a value is a variable of the step's processes, a file lies in the root's /run, which is
//! in memory.

use std::collections::BTreeMap;
use std::io::{self, Read};

use rustix::fs::{Mode, OFlags};

use super::attempt::Attempt;
use super::{StepContext, StepError};
use crate::host::root_dir::RootDir;
use crate::provision::root::RootError;
use crate::recipe::SecretFrom;
use crate::report::can_hide;

/// In memory: /run is a tmpfs while steps run.
const FOLDER: &str = "/run/bakehouse/secrets";
/// `TMPFS_MAGIC` of the kernel's include/uapi/linux/magic.h.
const TMPFS: i64 = 0x0102_1994;
/// Keys, certificates and tokens are far smaller.
const LARGEST: u64 = 1024 * 1024;

/// A step's secrets. Their files are in the root until it is dropped.
pub(super) struct Secrets<'a> {
    root: &'a RootDir,
    /// Variables, with values or the paths of files in the root.
    pub variables: BTreeMap<String, String>,
}

impl<'a> Secrets<'a> {
    pub(super) fn lend(
        attempt: &Attempt<'a>,
        from: &BTreeMap<String, SecretFrom>,
    ) -> Result<Self, StepError> {
        let context = attempt.context();
        let mut secrets = Self { root: attempt.root().dir(), variables: BTreeMap::new() };
        for (name, from) in from {
            let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if name.is_empty() || !letters || name.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(RootError::Variable { name: name.clone() }.into());
            }
            let value = match (&from.env, &from.file) {
                (Some(variable), None) => from_environment(context, name, variable)?,
                (None, Some(path)) => {
                    let bytes = from_file(context, name, path)?;
                    secrets.put(name, &bytes)?
                }
                _ => {
                    return Err(StepError::recipe(
                        "secret-env",
                        name,
                        "needs exactly one of `env` and `file`",
                    ));
                }
            };
            secrets.variables.insert(name.clone(), value);
        }
        Ok(secrets)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<String, StepError> {
        let path = format!("{FOLDER}/{name}");
        self.root
            .make_dirs(FOLDER, 0o700)
            .and_then(|()| in_memory(self.root))
            .and_then(|()| self.root.write(&path, bytes, 0o600))
            .map_err(|source| RootError::file("write", &path, source))?;
        Ok(path)
    }
}

/// A step that ran before could have taken the tmpfs away, with some effort; then the folder would be on the disk.
fn in_memory(root: &RootDir) -> io::Result<()> {
    let folder = root.open_at(FOLDER, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    if rustix::fs::fstatfs(&folder)?.f_type == TMPFS {
        Ok(())
    } else {
        Err(io::Error::other("the root's /run is not in memory any more"))
    }
}

impl Drop for Secrets<'_> {
    fn drop(&mut self) {
        // The tmpfs that they lie on goes in any case.
        let _ = self.root.remove(FOLDER);
    }
}

fn from_environment(context: &StepContext, name: &str, variable: &str) -> Result<String, StepError> {
    let Some(value) = context.environment.get(variable) else {
        let wrong = format!("takes the variable {variable}, which is not set where Bakehouse runs");
        return Err(StepError::recipe("secret-env", name, wrong));
    };
    hide(context, name, &format!("the variable {variable}"), value)?;
    Ok(value.clone())
}

/// # Errors
/// Where the secret could be seen in what the step writes.
fn hide(context: &StepContext, name: &str, source: &str, secret: &str) -> Result<(), StepError> {
    can_hide(secret).map_err(|why| {
        StepError::recipe("secret-env", name, format!("takes {source}, whose content is {why}"))
    })?;
    context.reporter.hide(secret);
    Ok(())
}

fn from_file(context: &StepContext, name: &str, path: &str) -> Result<Vec<u8>, StepError> {
    let from = context.recipe_dir.join(path);
    let failed = |source| StepError::file("read the secret", &from.display().to_string(), source);
    let metadata = std::fs::metadata(&from).map_err(failed)?;
    if !metadata.is_file() {
        return Err(StepError::recipe("file", path, "is not a regular file"));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(&from).map_err(failed)?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(StepError::recipe("file", path, "is larger than 1 MiB: not a secret"));
    }
    hide(context, name, &format!("the file {path}"), &String::from_utf8_lossy(&bytes))?;
    Ok(bytes)
}

/// What `aws: true` hands on: the variables that AWS's SDKs take credentials and a region from.
pub(super) fn aws(context: &StepContext) -> BTreeMap<String, String> {
    /// The first four are secret.
    const NAMES: [&str; 9] = [
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_ACCESS_KEY_ID",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_STS_REGIONAL_ENDPOINTS",
    ];
    let mut variables = BTreeMap::new();
    for (at, name) in NAMES.into_iter().enumerate() {
        if let Some(value) = context.environment.get(name) {
            if at < 4 {
                context.reporter.hide(value);
            }
            variables.insert(name.to_owned(), value.clone());
        }
    }
    variables
}
