//! Whether a root's systemd would start a unit at boot, read from its unit files and links. Nothing of the root is run.

use std::io;

use crate::host::root_dir::RootDir;

/// Where unit files are, the first that has one counts (systemd.unit(5)); `/run` is empty in a root.
const FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// Folders of links beside the unit that pulls others in.
const PULLS: [&str; 3] = [".wants", ".requires", ".upholds"];
/// A link to this masks a unit.
const NOWHERE: &str = "/dev/null";
/// Aliases of aliases are followed this far; systemd itself refuses loops.
const LONGEST_CHAIN: usize = 8;

/// What is known of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enabled {
    /// Something pulls it in at boot.
    Yes,
    /// It is there and nothing pulls it in.
    No,
    /// Nothing can start it.
    Masked,
    /// The root has no unit of this name.
    Missing,
}

/// `nginx` is `nginx.service`.
#[must_use]
pub fn full_name(name: &str) -> String {
    const SUFFIXES: [&str; 8] =
        [".service", ".socket", ".timer", ".target", ".mount", ".path", ".device", ".slice"];
    if SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
        name.to_owned()
    } else {
        format!("{name}.service")
    }
}

/// A name that systemd could have: its letters only, and not one that climbs out of a folder.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && !name.starts_with(['-', '.'])
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":_.\\@-".contains(&byte))
}

/// How `name` stands in `root`.
///
/// # Errors
/// Where the root's folders cannot be read.
pub fn enabled(root: &RootDir, name: &str) -> io::Result<Enabled> {
    let unit = match find(root, &full_name(name))? {
        Found::Unit(unit) => unit,
        Found::Masked => return Ok(Enabled::Masked),
        Found::Missing => return sysv(root, name),
    };
    for folder in FOLDERS {
        for entry in list(root, folder)? {
            let path = format!("{folder}/{entry}");
            // An alias that an administrator made by enabling; those of the distribution come with the unit.
            let alias = folder == FOLDERS[0] && entry != unit && leads_to(root, &path, &unit)?;
            if alias {
                return Ok(Enabled::Yes);
            }
            if PULLS.iter().any(|suffix| entry.ends_with(suffix)) {
                for link in list(root, &path)? {
                    if link == unit || leads_to(root, &format!("{path}/{link}"), &unit)? {
                        return Ok(Enabled::Yes);
                    }
                }
            }
        }
    }
    Ok(Enabled::No)
}

enum Found {
    /// Its own name, where an alias was asked for.
    Unit(String),
    Masked,
    Missing,
}

fn find(root: &RootDir, name: &str) -> io::Result<Found> {
    let mut name = name.to_owned();
    for _ in 0..LONGEST_CHAIN {
        let Some(path) = file_of(root, &name)? else {
            return Ok(Found::Missing);
        };
        let about = root.symlink_metadata(&path)?;
        if !about.is_symlink() {
            // An empty unit file masks as the link does.
            return Ok(if about.len() == 0 { Found::Masked } else { Found::Unit(name) });
        }
        let target = root.read_link(&path)?;
        if target == NOWHERE {
            return Ok(Found::Masked);
        }
        let base = target.rsplit('/').next().unwrap_or_default();
        if base == name || base.is_empty() || template(&name).is_some_and(|template| template == base) {
            // Linked from elsewhere under its own name.
            return Ok(if root.exists(&path) { Found::Unit(name) } else { Found::Missing });
        }
        base.clone_into(&mut name);
    }
    Ok(Found::Missing)
}

/// Where the unit's file is, or that of its template.
fn file_of(root: &RootDir, name: &str) -> io::Result<Option<String>> {
    for candidate in std::iter::once(name.to_owned()).chain(template(name)) {
        for folder in FOLDERS {
            let path = format!("{folder}/{candidate}");
            match root.symlink_metadata(&path) {
                Ok(_) => return Ok(Some(path)),
                Err(error) if absent(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(None)
}

/// `getty@.service` of `getty@tty1.service`.
fn template(name: &str) -> Option<String> {
    let (stem, rest) = name.split_once('@')?;
    let (instance, suffix) = rest.rsplit_once('.')?;
    (!instance.is_empty()).then(|| format!("{stem}@.{suffix}"))
}

/// Whether `path` is a link whose target has the name `unit`.
fn leads_to(root: &RootDir, path: &str, unit: &str) -> io::Result<bool> {
    match root.read_link(path) {
        Ok(target) => Ok(target.rsplit('/').next() == Some(unit)),
        // No link (EINVAL), or gone.
        Err(error) if absent(&error) || error.kind() == io::ErrorKind::InvalidInput => Ok(false),
        Err(error) => Err(error),
    }
}

/// A service that has only a script in /etc/init.d starts where a runlevel links to it.
fn sysv(root: &RootDir, name: &str) -> io::Result<Enabled> {
    let name = name.strip_suffix(".service").unwrap_or(name);
    if root.symlink_metadata(format!("/etc/init.d/{name}")).is_err() {
        return Ok(Enabled::Missing);
    }
    for level in 2..=5 {
        for link in list(root, &format!("/etc/rc{level}.d"))? {
            // S, two digits, the name.
            if link.starts_with('S') && link.get(3..) == Some(name) {
                return Ok(Enabled::Yes);
            }
        }
    }
    Ok(Enabled::No)
}

/// The names in a folder; none where it is not there or no folder.
fn list(root: &RootDir, folder: &str) -> io::Result<Vec<String>> {
    match root.list(folder) {
        Err(error) if absent(&error) => Ok(Vec::new()),
        other => other,
    }
}

/// Nothing is there: no name, no folder on the way, or links that lead round in a circle.
pub(super) fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(libc::ELOOP)
}
