//! apt, of Debian, Ubuntu and what is made of them.

mod sources;

use async_trait::async_trait;

use super::{Invocation, PackageManager, PackagesError};
use crate::host::stop::Stop;
use crate::provision::installed::PackageFormat;
use crate::provision::root::{Root, RootError};
use crate::recipe::UpdateScope;

#[derive(Debug)]
pub(super) struct Apt;

/// Asks nothing, draws no progress bar, and keeps configuration files that were changed. apt itself tries a download
/// only once.
const OPTIONS: [&str; 10] = [
    "--assume-yes",
    "--quiet",
    "-o",
    "Dpkg::Use-Pty=0",
    "-o",
    "Dpkg::Options::=--force-confdef",
    "-o",
    "Dpkg::Options::=--force-confold",
    "-o",
    "Acquire::Retries=3",
];

/// In memory: /run is a tmpfs while steps run.
const SECURITY: &str = "/run/bakehouse/security";

#[async_trait]
impl PackageManager for Apt {
    fn program(&self) -> &'static str {
        "apt-get"
    }

    fn families(&self) -> &'static [&'static str] {
        &["debian", "ubuntu"]
    }

    fn format(&self) -> PackageFormat {
        PackageFormat::Deb
    }

    fn sources(&self) -> &'static [&'static str] {
        &sources::FILES
    }

    fn refresh(&self) -> Invocation {
        // Without the option a list that could not be fetched is a warning, and an old one is used.
        let mut options = OPTIONS.to_vec();
        options.extend(["-o", "APT::Update::Error-Mode=any"]);
        Invocation::new("apt-get", &options, "update", [])
    }

    fn install(&self, names: &[String], files: &[String]) -> Invocation {
        apt_get("install", ["--"].into_iter().chain(names.iter().chain(files).map(String::as_str)))
    }

    fn remove(&self, names: &[String]) -> Invocation {
        apt_get("remove", ["--"].into_iter().chain(names.iter().map(String::as_str)))
    }

    fn update(
        &self,
        root: &dyn Root,
        scope: UpdateScope,
        _: Option<&str>,
    ) -> Result<Invocation, PackagesError> {
        match scope {
            UpdateScope::All => Ok(apt_get("full-upgrade", [])),
            UpdateScope::Security => security(root),
        }
    }

    fn advisories(&self, _: Option<&str>) -> Option<Invocation> {
        None
    }

    /// Packages that the image's maker holds are left alone.
    async fn hold(
        &self,
        root: &dyn Root,
        names: &[String],
        stop: &Stop,
    ) -> Result<Vec<String>, PackagesError> {
        let already = apt_mark("showhold", &[]).lines(root, stop).await?;
        let new: Vec<String> = names.iter().filter(|name| !already.contains(name)).cloned().collect();
        if !new.is_empty() {
            apt_mark("hold", &new).lines(root, stop).await?;
        }
        Ok(new)
    }

    async fn release(&self, root: &dyn Root, names: &[String]) -> Result<(), PackagesError> {
        // A step may have removed one of them: its hold went with it.
        let still = apt_mark("showhold", &[]).lines(root, &Stop::never()).await?;
        let still: Vec<String> = names.iter().filter(|name| still.contains(name)).cloned().collect();
        if !still.is_empty() {
            apt_mark("unhold", &still).lines(root, &Stop::never()).await?;
        }
        Ok(())
    }
}

fn apt_get<'a>(verb: &'a str, args: impl IntoIterator<Item = &'a str>) -> Invocation {
    Invocation::new("apt-get", &OPTIONS, verb, args)
}

fn apt_mark(action: &str, names: &[String]) -> Invocation {
    Invocation::new("apt-mark", &[], action, names.iter().map(String::as_str))
}

/// apt sees nothing but the security suites, so what it installs can come from nowhere else. The lists of all suites
/// were fetched; those of the ones it does not see stay unread.
fn security(root: &dyn Root) -> Result<Invocation, PackagesError> {
    let root = root.dir();
    let security = sources::security(root)?.ok_or(PackagesError::NoSecuritySuite)?;
    root.make_dirs(SECURITY, 0o755)
        .and_then(|()| root.write(&format!("{SECURITY}/security.list"), security.list.as_bytes(), 0o644))
        .and_then(|()| {
            root.write(&format!("{SECURITY}/security.sources"), security.sources.as_bytes(), 0o644)
        })
        .map_err(|source| RootError::file("write", SECURITY, source))?;
    let parts = format!("Dir::Etc::SourceParts={SECURITY}");
    let mut options = OPTIONS.to_vec();
    // A new kernel is a new package that the installed one of a fixed name depends on.
    options.extend(["-o", "Dir::Etc::SourceList=/dev/null", "-o", &parts, "--with-new-pkgs"]);
    Ok(Invocation::new("apt-get", &options, "upgrade", []))
}
