//! zypper, of openSUSE and SUSE Linux Enterprise. Exit codes: zypper(8).

use async_trait::async_trait;

use super::{Invocation, PackageManager, PackagesError};
use crate::host::stop::Stop;
use crate::provision::installed::PackageFormat;
use crate::provision::root::Root;
use crate::recipe::UpdateScope;

#[derive(Debug)]
pub(super) struct Zypper;

/// Done, and a reboot is wanted: the image will boot.
const REBOOT: i32 = 102;
/// Done with what concerns zypper itself, which is to be run again for the rest.
const RESTART: i32 = 103;
/// A name that nothing has.
const NOT_FOUND: i32 = 104;
/// Installed, and a script afterwards failed: what dnf and yum count as done.
const SCRIPT: i32 = 107;

/// Those that are updated as a whole: their manuals say that `update` is not for them.
const ROLLING: [&str; 2] = ["opensuse-tumbleweed", "opensuse-slowroll"];

#[async_trait]
impl PackageManager for Zypper {
    fn program(&self) -> &'static str {
        "zypper"
    }

    fn families(&self) -> &'static [&'static str] {
        &["suse", "opensuse", "sles"]
    }

    fn format(&self) -> PackageFormat {
        PackageFormat::Rpm
    }

    fn sources(&self) -> &'static [&'static str] {
        &["/etc/zypp/zypp.conf", "/etc/zypp/repos.d/*.repo", "/etc/zypp/services.d/*.service"]
    }

    fn refresh(&self) -> Invocation {
        zypper("refresh", [])
    }

    fn install(&self, names: &[String], files: &[String]) -> Invocation {
        // Whose files these are the recipe's author knows; they are signed as seldom as .deb files are.
        let unsigned = (!files.is_empty()).then_some("--allow-unsigned-rpm");
        zypper("install", unsigned.into_iter().chain(names.iter().chain(files).map(String::as_str)))
    }

    fn remove(&self, names: &[String]) -> Invocation {
        let fine = &[REBOOT, RESTART, NOT_FOUND, SCRIPT];
        Invocation { fine, ..zypper("remove", names.iter().map(String::as_str)) }
    }

    fn update(
        &self,
        root: &dyn Root,
        scope: UpdateScope,
        _: Option<&str>,
    ) -> Result<Invocation, PackagesError> {
        Ok(match scope {
            UpdateScope::All if ROLLING.contains(&root.facts().distribution.as_str()) => {
                zypper("dist-upgrade", [])
            }
            UpdateScope::All => zypper("update", []),
            UpdateScope::Security => Invocation {
                fine: &[REBOOT, SCRIPT],
                again: Some(RESTART),
                // Without it patches after which a reboot is wanted, those of the kernel, are left out unseen.
                ..Invocation::new(
                    "zypper",
                    &["--non-interactive", "--non-interactive-include-reboot-patches"],
                    "patch",
                    ["--category", "security"],
                )
            },
        })
    }

    fn advisories(&self, _: Option<&str>) -> Option<Invocation> {
        Some(zypper("patches", []))
    }

    async fn hold(
        &self,
        root: &dyn Root,
        names: &[String],
        stop: &Stop,
    ) -> Result<Vec<String>, PackagesError> {
        let already = zypper("locks", []).lines(root, stop).await?;
        let new: Vec<String> = names.iter().filter(|name| !is_locked(name, &already)).cloned().collect();
        if !new.is_empty() {
            zypper("addlock", new.iter().map(String::as_str)).lines(root, stop).await?;
        }
        Ok(new)
    }

    async fn release(&self, root: &dyn Root, names: &[String]) -> Result<(), PackagesError> {
        let names = names.iter().map(String::as_str);
        zypper("removelock", names).lines(root, &Stop::never()).await.map(drop)
    }
}

fn zypper<'a>(verb: &'a str, args: impl IntoIterator<Item = &'a str>) -> Invocation {
    Invocation {
        fine: &[REBOOT, RESTART, SCRIPT],
        ..Invocation::new("zypper", &["--non-interactive"], verb, args)
    }
}

/// `1 | NAME | package | (any)`, as `zypper locks` lists them.
fn is_locked(name: &str, lines: &[String]) -> bool {
    lines.iter().any(|line| line.split('|').nth(1).is_some_and(|cell| cell.trim() == name))
}
