//! Which packages a root has. Read from the package manager's own file; nothing is run, so it works on a root that is
//! mounted read-only, and on one of another architecture.

use std::io;

use serde::{Deserialize, Serialize};

use crate::host::root_dir::RootDir;

const STATUS: &str = "/var/lib/dpkg/status";

/// A package that is installed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct InstalledPackage {
    pub name: String,
    pub version: String,
    /// As the package manager names it: `amd64`, `all`.
    pub architecture: String,
}

/// The installed packages, sorted by name. Empty where the root has no package manager that is known here.
///
/// # Errors
/// Where the package manager's file cannot be read, or is not what it must be.
pub fn installed(root: &RootDir) -> Result<Vec<InstalledPackage>, InstalledError> {
    match root.read_text(STATUS) {
        Ok(text) => parse(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(InstalledError::Read { path: STATUS, source }),
    }
}

fn parse(status: &str) -> Result<Vec<InstalledPackage>, InstalledError> {
    let mut packages = Vec::new();
    // A blank line ends a paragraph. Lines that begin with white space go on with the field above.
    for paragraph in status.split("\n\n").filter(|text| !text.trim().is_empty()) {
        let field = |name: &str| {
            let mut lines = paragraph.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
        };
        // dpkg(1): want, error, state. These three states mean that the package is unpacked and configured.
        let state = field("Status").and_then(|status| status.split_whitespace().nth(2));
        if !matches!(state, Some("installed" | "triggers-awaited" | "triggers-pending")) {
            continue;
        }
        let name =
            field("Package").ok_or(InstalledError::Field { field: "Package", package: String::new() })?;
        let needed = |key: &'static str| {
            field(key)
                .map(str::to_owned)
                .ok_or_else(|| InstalledError::Field { field: key, package: format!(" of {name}") })
        };
        packages.push(InstalledPackage {
            name: name.to_owned(),
            version: needed("Version")?,
            architecture: needed("Architecture")?,
        });
    }
    packages.sort();
    Ok(packages)
}

/// Why the packages could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum InstalledError {
    #[error("cannot read {path} in the root")]
    Read { path: &'static str, source: io::Error },
    #[error("{STATUS} of the root is damaged: a package has no `{field}`{package}")]
    Field { field: &'static str, package: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_installed_is_listed() {
        let text = "Package: zlib1g\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: same\n\
                    Version: 1:1.2.13\nDescription: text\n a line: with a colon\n\n\
                    Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n\n\
                    Package: adduser\nStatus: install ok triggers-pending\nArchitecture: all\nVersion: 3.134\n";
        let names: Vec<_> = parse(text).unwrap().into_iter().map(|p| (p.name, p.version)).collect();
        let expected = [("adduser", "3.134"), ("zlib1g", "1:1.2.13")];
        assert_eq!(names, expected.map(|(name, version)| (name.to_owned(), version.to_owned())));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_no_file_is_no_packages() {
        let damaged = "Package: a\nStatus: install ok installed\nArchitecture: all\n";
        assert!(matches!(parse(damaged), Err(InstalledError::Field { field: "Version", .. })));
        let dir = tempfile::tempdir().unwrap();
        assert!(installed(&RootDir::open(dir.path()).unwrap()).unwrap().is_empty());
    }
}
