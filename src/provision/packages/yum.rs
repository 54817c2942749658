//! yum 3, of Red Hat Enterprise Linux 7 and Amazon Linux 2. Where dnf is there, `yum` is a name of dnf's.

use async_trait::async_trait;

use super::{Invocation, PackageManager, PackagesError, excludes};
use crate::host::stop::Stop;
use crate::provision::installed::PackageFormat;
use crate::provision::root::Root;
use crate::recipe::UpdateScope;

#[derive(Debug)]
pub(super) struct Yum;

const OPTIONS: [&str; 1] = ["--assumeyes"];
/// Else a name that no source has is left out, and that is a success if another one is installed.
const NO_NAME_LEFT_OUT: &str = "--setopt=skip_missing_names_on_install=0";

const CONFIG: &str = "/etc/yum.conf";

#[async_trait]
impl PackageManager for Yum {
    fn program(&self) -> &'static str {
        "yum"
    }

    fn families(&self) -> &'static [&'static str] {
        &["fedora", "rhel", "centos"]
    }

    fn format(&self) -> PackageFormat {
        PackageFormat::Rpm
    }

    fn sources(&self) -> &'static [&'static str] {
        &[CONFIG, "/etc/yum.repos.d/*.repo", "/etc/yum/vars/*"]
    }

    fn refresh(&self) -> Invocation {
        yum("makecache", [])
    }

    fn install(&self, names: &[String], files: &[String]) -> Invocation {
        let names = names.iter().chain(files).map(String::as_str);
        Invocation::new("yum", &[OPTIONS[0], NO_NAME_LEFT_OUT], "install", names)
    }

    fn remove(&self, names: &[String]) -> Invocation {
        yum("remove", names.iter().map(String::as_str))
    }

    fn update(&self, _: &dyn Root, scope: UpdateScope, _: Option<&str>) -> Result<Invocation, PackagesError> {
        Ok(match scope {
            UpdateScope::All => yum("update", []),
            UpdateScope::Security => yum("update", ["--security"]),
        })
    }

    fn advisories(&self, _: Option<&str>) -> Option<Invocation> {
        Some(yum("updateinfo", ["list", "all"]))
    }

    async fn hold(&self, root: &dyn Root, names: &[String], _: &Stop) -> Result<Vec<String>, PackagesError> {
        Ok(excludes::add(root.dir(), CONFIG, "exclude", names, &[])?)
    }

    async fn release(&self, root: &dyn Root, _: &[String]) -> Result<(), PackagesError> {
        Ok(excludes::remove(root.dir(), CONFIG)?)
    }
}

fn yum<'a>(verb: &'a str, args: impl IntoIterator<Item = &'a str>) -> Invocation {
    Invocation::new("yum", &OPTIONS, verb, args)
}
