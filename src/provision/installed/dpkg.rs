//! dpkg's list of packages: a text file.

use std::io;

use super::{InstalledError, InstalledPackage};
use crate::host::root_dir::RootDir;

pub(super) const STATUS: &str = "/var/lib/dpkg/status";

/// `None` where the root has no such list.
pub(super) fn list(root: &RootDir) -> Result<Option<Vec<InstalledPackage>>, InstalledError> {
    match root.read_text(STATUS) {
        Ok(text) => parse(&text).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(InstalledError::Read { path: STATUS.to_owned(), source }),
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
    Ok(packages)
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
        let expected = [("zlib1g", "1:1.2.13"), ("adduser", "3.134")];
        assert_eq!(names, expected.map(|(name, version)| (name.to_owned(), version.to_owned())));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_no_file_is_no_list() {
        let damaged = "Package: a\nStatus: install ok installed\nArchitecture: all\n";
        assert!(matches!(parse(damaged), Err(InstalledError::Field { field: "Version", .. })));
        let dir = tempfile::tempdir().unwrap();
        assert!(list(&RootDir::open(dir.path()).unwrap()).unwrap().is_none());
    }
}
