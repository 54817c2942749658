//! dnf, of Fedora, Red Hat Enterprise Linux 8 and later and what is made of it, and Amazon Linux 2023. Its fifth
//! version understands the same words.

use async_trait::async_trait;

use super::{Invocation, PackageManager, PackagesError, excludes};
use crate::host::stop::Stop;
use crate::provision::installed::PackageFormat;
use crate::provision::root::Root;
use crate::recipe::UpdateScope;

/// The name of its program.
#[derive(Debug)]
pub(super) struct Dnf(pub &'static str);

/// A source that is not reached is an error, also where dnf.conf says that it is to be left out: the bake would do
/// less than the recipe says. What the source's own file says of it still counts.
const OPTIONS: [&str; 2] = ["--assumeyes", "--setopt=skip_if_unavailable=False"];

const CONFIG: &str = "/etc/dnf/dnf.conf";

#[async_trait]
impl PackageManager for Dnf {
    fn program(&self) -> &'static str {
        self.0
    }

    fn families(&self) -> &'static [&'static str] {
        &["fedora", "rhel", "centos"]
    }

    fn format(&self) -> PackageFormat {
        PackageFormat::Rpm
    }

    fn sources(&self) -> &'static [&'static str] {
        &[CONFIG, "/etc/yum.repos.d/*.repo", "/etc/dnf/vars/*", "/etc/yum/vars/*"]
    }

    fn refresh(&self) -> Invocation {
        self.invocation(None, &["--refresh"], "makecache", [])
    }

    fn install(&self, names: &[String], files: &[String]) -> Invocation {
        self.invocation(None, &[], "install", names.iter().chain(files).map(String::as_str))
    }

    fn remove(&self, names: &[String]) -> Invocation {
        self.invocation(None, &[], "remove", names.iter().map(String::as_str))
    }

    /// For security `upgrade --security`, as the distributions' manuals have it, and not `upgrade-minimal`: the newest
    /// version of each package that an advisory for security is about, as with apt.
    fn update(
        &self,
        _: &dyn Root,
        scope: UpdateScope,
        release: Option<&str>,
    ) -> Result<Invocation, PackagesError> {
        Ok(match scope {
            UpdateScope::All => self.invocation(release, &[], "upgrade", []),
            UpdateScope::Security => self.invocation(release, &[], "upgrade", ["--security"]),
        })
    }

    fn advisories(&self, release: Option<&str>) -> Option<Invocation> {
        Some(self.invocation(release, &["--quiet"], "updateinfo", ["list", "--all"]))
    }

    async fn hold(&self, root: &dyn Root, names: &[String], _: &Stop) -> Result<Vec<String>, PackagesError> {
        // Else what goes with a package that is held, in exactly its version, fails an update of all others.
        Ok(excludes::add(root.dir(), CONFIG, "excludepkgs", names, &["best=False"])?)
    }

    async fn release(&self, root: &dyn Root, _: &[String]) -> Result<(), PackagesError> {
        Ok(excludes::remove(root.dir(), CONFIG)?)
    }
}

impl Dnf {
    fn invocation<'a>(
        &self,
        release: Option<&str>,
        options: &[&str],
        verb: &str,
        args: impl IntoIterator<Item = &'a str>,
    ) -> Invocation {
        let release = release.map(|release| format!("--releasever={release}"));
        let mut all: Vec<&str> = OPTIONS.to_vec();
        all.extend(options);
        all.extend(release.as_deref());
        Invocation::new(self.0, &all, verb, args)
    }
}
