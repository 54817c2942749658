//! The program that runs the steps on an instance: this one, built for any root of the architecture. Where it is found.

use std::path::{Path, PathBuf};

use super::LaunchError;
use crate::cloud::Architecture;
use crate::method::Bench;

/// Names another file than the usual one.
const VARIABLE: &str = "BAKEHOUSE_PROVISIONER";

/// Its file: the one that the environment names, or `bakehouse-provisioner-ARCHITECTURE` beside this program.
pub(super) fn find(architecture: Architecture, bench: &Bench) -> Result<PathBuf, LaunchError> {
    if let Some(named) = bench.environment.get(VARIABLE) {
        let path = PathBuf::from(named);
        return if path.is_file() { Ok(path) } else { Err(LaunchError::NoProvisioner { path }) };
    }
    let program = std::env::current_exe()
        .map_err(|source| LaunchError::File { path: "/proc/self/exe".into(), source })?;
    let folder = program.parent().unwrap_or(Path::new("/"));
    let path = folder.join(format!("bakehouse-provisioner-{architecture}"));
    if path.is_file() { Ok(path) } else { Err(LaunchError::NoProvisioner { path }) }
}
