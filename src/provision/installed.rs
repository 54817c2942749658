//! What a root is and which packages it has. No program of the root is run, so it works on a root that is mounted
//! read-only, and on one of another architecture.

mod dpkg;
mod ndb;
mod rpm;

use std::io;

use serde::{Deserialize, Serialize};

use super::root::{RootError, RootFacts};
use crate::host::exec::ExecError;
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;

/// A package that is installed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct InstalledPackage {
    pub name: String,
    /// As the package manager writes it, with the epoch where it has one: `1:1.2.13-1`.
    pub version: String,
    /// As the package manager names it: `amd64`, `all`, `x86_64`, `noarch`.
    pub architecture: String,
}

/// A kind of packages: what their files are called, and in which order versions stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PackageFormat {
    Deb,
    Rpm,
}

impl PackageFormat {
    /// How its files' names end, and its name in a package URL.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Deb => "deb",
            Self::Rpm => "rpm",
        }
    }
}

/// Which system a root is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct System {
    /// `ID` of os-release: `debian`, `amzn`. Empty where the root does not say.
    pub distribution: String,
    /// `VERSION_ID` of os-release: `12`, `24.04`. On Amazon Linux the version of its package system-release, which is
    /// what its package sources go by: `2023.6.20241212`. Empty where the root does not say.
    pub release: String,
    /// What kind of packages it has; `None` where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<PackageFormat>,
}

/// A root's system and its packages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Installed {
    pub system: System,
    /// Sorted by name; of some there are several versions (kernels).
    pub packages: Vec<InstalledPackage>,
}

/// Looks at a root. The list that counts is that of its package manager; where it has none that is known here, the
/// list that is there. No packages where there is none.
///
/// # Errors
/// Where os-release or the list cannot be read, is not what it must be, or the host lacks the program that reads it.
pub async fn installed(root: &RootDir, stop: &Stop) -> Result<Installed, InstalledError> {
    let facts = RootFacts::read(root)?;
    let (format, mut packages) = match facts.package_manager.map(|manager| manager.format()) {
        Some(PackageFormat::Deb) => (Some(PackageFormat::Deb), dpkg::list(root)?.unwrap_or_default()),
        Some(PackageFormat::Rpm) => {
            (Some(PackageFormat::Rpm), rpm::list(root, stop).await?.unwrap_or_default())
        }
        None => {
            if let Some(packages) = dpkg::list(root)? {
                (Some(PackageFormat::Deb), packages)
            } else if let Some(packages) = rpm::list(root, stop).await? {
                (Some(PackageFormat::Rpm), packages)
            } else {
                (None, Vec::new())
            }
        }
    };
    packages.sort();
    let system =
        System { release: release(&facts, &packages), distribution: facts.distribution, packages: format };
    Ok(Installed { system, packages })
}

fn release(facts: &RootFacts, packages: &[InstalledPackage]) -> String {
    let own =
        packages.iter().find(|package| facts.distribution == "amzn" && package.name == "system-release");
    let version = own.map_or(facts.version.as_str(), |package| package.version.as_str());
    // `2023.6.20241212-0.amzn2023`: a release of a distribution has no release of a package.
    version.split('-').next().unwrap_or_default().to_owned()
}

/// Why the packages could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum InstalledError {
    #[error(transparent)]
    Root(#[from] RootError),
    #[error("cannot read {path} in the root")]
    Read { path: String, source: io::Error },
    #[error("{} of the root is damaged: a package has no `{field}`{package}", dpkg::STATUS)]
    Field { field: &'static str, package: String },
    #[error("{path} in the root is larger than 1 GiB, which no package database is")]
    Large { path: String },
    #[error("cannot copy the root's package database to a temporary folder of the host")]
    Copy { source: io::Error },
    #[error("cannot list the packages in {path} of the root")]
    Rpm { path: String, source: ExecError },
    #[error("{path} of the root is damaged: {what}")]
    Damaged { path: String, what: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &RootDir, path: &str, text: &str) {
        let folder = path.rsplit_once('/').unwrap().0;
        root.make_dirs(folder, 0o755).unwrap();
        root.write(path, text.as_bytes(), 0o644).unwrap();
    }

    #[tokio::test]
    async fn a_root_without_a_list_has_no_packages() {
        let dir = tempfile::tempdir().unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        assert_eq!(installed(&root, &Stop::never()).await.unwrap(), Installed::default());
        put(&root, "/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n");
        put(&root, dpkg::STATUS, "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n");
        let found = installed(&root, &Stop::never()).await.unwrap();
        assert_eq!((found.system.distribution.as_str(), found.system.release.as_str()), ("debian", "12"));
        assert_eq!((found.system.packages, found.packages.len()), (Some(PackageFormat::Deb), 1));
    }

    #[test]
    fn amazon_linux_tells_its_release_by_a_package() {
        let package = |version: &str| InstalledPackage {
            name: "system-release".into(),
            version: version.into(),
            architecture: "noarch".into(),
        };
        let facts = |distribution: &str| RootFacts {
            distribution: distribution.into(),
            version: "2023".into(),
            codename: String::new(),
            package_manager: None,
            systemd: true,
        };
        let packages = [package("2023.6.20241212-0.amzn2023")];
        assert_eq!(release(&facts("amzn"), &packages), "2023.6.20241212");
        assert_eq!(release(&facts("amzn"), &[]), "2023");
        assert_eq!(release(&facts("fedora"), &packages), "2023");
    }
}
