//! The two files that name a machine: they are rewritten, not removed.

use std::io;

use super::{SealError, Sealed};
use crate::host::root_dir::RootDir;

/// Empties /etc/machine-id. Empty, not missing: systemd fills an empty one at boot, also while / is still read-only,
/// and takes a missing one for a first boot that must apply all presets again (machine-id(5)).
pub(super) fn machine_id(root: &RootDir, done: &mut Vec<Sealed>) -> Result<(), SealError> {
    const PATH: &str = "/etc/machine-id";
    if root.exists("/etc") && !is_file_of(root, PATH, b"")? {
        root.write(PATH, b"", 0o444).map_err(|source| SealError::file("empty", PATH, source))?;
        done.push(sealed("machine id", PATH));
    }
    // D-Bus has a copy where it is older than systemd's file; today it is a link, which stays.
    const DBUS: &str = "/var/lib/dbus/machine-id";
    if root.symlink_metadata(DBUS).is_ok_and(|found| found.is_file()) {
        root.remove(DBUS).map_err(|source| SealError::file("remove", DBUS, source))?;
        done.push(sealed("machine id", DBUS));
    }
    Ok(())
}

/// Where the image has the name of the host that baked it (debootstrap and mmdebstrap copy it), it is `localhost`:
/// systemd and cloud-init take that for "not set".
pub(super) fn host_name(root: &RootDir, done: &mut Vec<Sealed>) -> Result<(), SealError> {
    const PATH: &str = "/etc/hostname";
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    let name = match root.read_text(PATH) {
        Ok(name) => name,
        Err(error) if is_no_file(&error) => return Ok(()),
        Err(source) => return Err(SealError::file("read", PATH, source)),
    };
    if name.trim() != host || host == "localhost" {
        return Ok(());
    }
    root.write(PATH, b"localhost\n", 0o644).map_err(|source| SealError::file("write", PATH, source))?;
    done.push(sealed("host name", PATH));
    Ok(())
}

fn is_file_of(root: &RootDir, path: &str, content: &[u8]) -> Result<bool, SealError> {
    match root.symlink_metadata(path) {
        Ok(found) if !found.is_file() || found.len() != content.len() as u64 => Ok(false),
        Ok(_) => {
            let read = root.read(path).map_err(|source| SealError::file("read", path, source))?;
            Ok(read == content)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(SealError::file("read", path, source)),
    }
}

/// Not there, or a link or device in its place: nothing that names this host.
fn is_no_file(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::InvalidData | io::ErrorKind::NotADirectory
    )
}

fn sealed(what: &str, path: &str) -> Sealed {
    Sealed { what: what.to_owned(), path: path.to_owned() }
}
