//! The checks that can be judged in the image's root without booting it. Reads only; runs nothing of the root.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::outcome::{Outcome, Status};
use super::unit::{self, Enabled};
use super::version::Requirement;
use crate::host::error::chain;
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;
use crate::provision::{Installed, InstalledError, InstalledPackage, installed};
use crate::recipe::{Check, FileCheck, PackageCheck, ServiceCheck};

/// Why ports, commands and running services are left for later.
const BOOT_ONLY: &str = "only the boot test can tell";

/// One outcome per check, in their order. A stop that is asked for makes checks of packages fail.
pub async fn static_checks(root: &RootDir, checks: &[Check], stop: &Stop) -> Vec<Outcome> {
    let of_packages = checks.iter().any(|check| matches!(check, Check::Package(_)));
    let installed = if of_packages { installed(root, stop).await } else { Ok(Installed::default()) };
    checks
        .iter()
        .map(|check| {
            let judged = match check {
                Check::Package(package) => judge_package(&installed, package),
                Check::File(file) => judge_file(root, file),
                Check::Service(service) => judge_service(root, service),
                Check::Port(_) | Check::Command(_) => Ok(Status::NotJudged(BOOT_ONLY.to_owned())),
            };
            let status = judged.unwrap_or_else(|error| Status::Failed(format!("cannot be read: {error}")));
            Outcome::new(check, status)
        })
        .collect()
}

/// Whether cloud-init would run in this root when it boots: it is installed and nothing switches it off.
#[must_use]
pub fn has_cloud_init(root: &RootDir) -> bool {
    let program = ["/usr/bin/cloud-init", "/usr/local/bin/cloud-init"].iter().any(|path| root.exists(path));
    let masked = matches!(unit::enabled(root, "cloud-final"), Ok(Enabled::Masked));
    program && !masked && !root.exists("/etc/cloud/cloud-init.disabled")
}

fn failed(reason: impl Into<String>) -> io::Result<Status> {
    Ok(Status::Failed(reason.into()))
}

fn judge_package(installed: &Result<Installed, InstalledError>, check: &PackageCheck) -> io::Result<Status> {
    let installed = installed.as_ref().map_err(|error| io::Error::other(chain(error)))?;
    let Some(format) = installed.system.packages else {
        return Ok(Status::NotJudged("the image has neither dpkg's list of packages nor rpm's".to_owned()));
    };
    let found: Vec<&str> = find(&installed.packages, &check.name).collect();
    let versions = found.join(", ");
    if check.installed == Some(false) {
        return if found.is_empty() {
            Ok(Status::Passed)
        } else {
            failed(format!("is installed, version {versions}"))
        };
    }
    if found.is_empty() {
        return failed("is not installed");
    }
    match check.version.as_deref().map(Requirement::parse) {
        Some(Err(wrong)) => failed(wrong),
        // Of a kernel there are several: one that is as it should be is enough.
        Some(Ok(wanted)) if !found.iter().any(|version| wanted.allows(format, version)) => {
            failed(format!("has version {versions}, not {wanted}"))
        }
        _ => Ok(Status::Passed),
    }
}

/// The versions of the package called `name`: of a kernel there may be several.
fn find<'a>(packages: &'a [InstalledPackage], name: &'a str) -> impl Iterator<Item = &'a str> {
    packages.iter().filter(move |package| package.name == name).map(|package| package.version.as_str())
}

fn judge_file(root: &RootDir, check: &FileCheck) -> io::Result<Status> {
    let there = match root.metadata(&check.path) {
        Ok(about) => Some(about),
        Err(error) if unit::absent(&error) => None,
        Err(error) => return Err(error),
    };
    if check.exists == Some(false) {
        // A link that leads nowhere is something that is there.
        let link = root.symlink_metadata(&check.path).is_ok();
        return if there.is_some() || link { failed("is there") } else { Ok(Status::Passed) };
    }
    let Some(about) = there else {
        return failed("is not there");
    };
    if let Some(wanted) = &check.mode {
        let Some(mode) = parse_mode(wanted) else {
            return failed(format!("`{wanted}` is no mode; write octal digits: \"0644\""));
        };
        let found = about.permissions().mode() & 0o7777;
        if found != mode {
            return failed(format!("has mode {found:04o}, not {mode:04o}"));
        }
    }
    if let Some(wanted) = &check.owner {
        let (user, group) = split_owner(wanted);
        let users = Names::read(root, "/etc/passwd")?;
        if !users.is(about.uid(), user) {
            return failed(format!("is owned by {}, not {user}", users.name(about.uid())));
        }
        if let Some(group) = group {
            let groups = Names::read(root, "/etc/group")?;
            if !groups.is(about.gid(), group) {
                return failed(format!("is of group {}, not {group}", groups.name(about.gid())));
            }
        }
    }
    if let Some(text) = &check.contains {
        let content = root.read(&check.path)?;
        if !contains(&content, text.as_bytes()) {
            return failed(format!("does not contain `{}`", text.trim()));
        }
    }
    Ok(Status::Passed)
}

/// `"0644"`.
#[must_use]
pub fn parse_mode(text: &str) -> Option<u32> {
    let good = (1..=5).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    u32::from_str_radix(text, 8).ok().filter(|mode| good && *mode <= 0o7777)
}

/// `user` or `user:group`.
#[must_use]
pub fn split_owner(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    }
}

fn contains(content: &[u8], text: &[u8]) -> bool {
    text.is_empty() || content.windows(text.len()).any(|window| window == text)
}

/// Names and their numbers, from a file of the root: `name:x:number:…`.
struct Names(Vec<(String, u32)>);

impl Names {
    fn read(root: &RootDir, path: &str) -> io::Result<Self> {
        let text = match root.read_text(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let entry = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some((name, fields.nth(1)?.parse().ok()?))
        };
        Ok(Self(text.lines().filter_map(entry).collect()))
    }

    /// Whether `wanted`, a name or a number, is `id`.
    fn is(&self, id: u32, wanted: &str) -> bool {
        self.0.iter().any(|(name, number)| name == wanted && *number == id)
            || wanted.parse::<u32>().is_ok_and(|number| number == id)
    }

    fn name(&self, id: u32) -> String {
        self.0
            .iter()
            .find(|(_, number)| *number == id)
            .map_or_else(|| id.to_string(), |(name, _)| name.clone())
    }
}

fn judge_service(root: &RootDir, check: &ServiceCheck) -> io::Result<Status> {
    if !unit::is_name(&check.name) {
        return failed(format!("`{}` is not the name of a unit", check.name));
    }
    let Some(wanted) = check.enabled else {
        return Ok(Status::NotJudged(BOOT_ONLY.to_owned()));
    };
    match (wanted, unit::enabled(root, &check.name)?) {
        (true, Enabled::Yes) | (false, Enabled::No | Enabled::Masked | Enabled::Missing) => {
            // Half of a check that holds is no check that passed.
            Ok(match check.running {
                Some(_) => Status::NotJudged("whether it runs only the boot test can tell".to_owned()),
                None => Status::Passed,
            })
        }
        (true, Enabled::No) => failed("is not enabled"),
        (true, Enabled::Masked) => failed("is masked"),
        (true, Enabled::Missing) => failed("the image has no such service"),
        (false, Enabled::Yes) => failed("is enabled"),
    }
}
