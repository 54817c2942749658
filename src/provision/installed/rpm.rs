//! rpm's list of packages: a database in one of three formats, by age Berkeley DB (until Red Hat Enterprise Linux 8 and
//! Amazon Linux 2), ndb (SUSE) and SQLite.
//!
//! The host's rpm reads a copy of the first and the last, whichever it would write itself; ndb is read by [`ndb`]. The
//! root's own rpm is not asked, since the root may be of another architecture, or one that is only looked at and whose
//! programs must not run; nor is the host's given the root's folder, since a link there could lead out of it, and SQLite
//! writes beside what it reads, which on a read-only mount fails.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use super::{InstalledError, InstalledPackage, ndb};
use crate::host::exec::{Cmd, ExecError};
use crate::host::namespace;
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;

/// Where rpm keeps it: Fedora since its release 36 and SUSE, then all others.
const FOLDERS: [&str; 2] = ["/usr/lib/sysimage/rpm", "/var/lib/rpm"];

const NDB: &str = "Packages.db";

/// The files of each format that hold packages; the first must be there. The second of SQLite's is what was written
/// last, where whoever wrote it was ended before it went into the first.
const FORMATS: [&[&str]; 3] = [&["rpmdb.sqlite", "rpmdb.sqlite-wal"], &[NDB], &["Packages"]];

/// 10,000 packages make about 400 MiB.
const LARGEST: u64 = 1 << 30;

/// What rpm's own libraries make of a database that someone else wrote is theirs: it runs as nobody, without a network or a
/// capability, and within bounds of memory, time and what it writes. The copy is shown to it alone as /tmp, since nobody may
/// not enter the folders in which it may lie.
const AS_NOBODY: [&str; 8] = [
    "unshare",
    "--net",
    "--mount",
    "--ipc",
    "sh",
    "-c",
    r#"mount -n --bind . /tmp && cd /tmp && exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs \
       --bounding-set=-all --inh-caps=-all -- "$@""#,
    "sh",
];
/// A database of 400 MiB is read in 700 MiB and some seconds.
const BOUNDED: [&str; 6] =
    ["prlimit", "--as=4294967296", "--cpu=120", "--fsize=2147483648", "--core=0", "rpm"];
/// The user and group `nobody`, by the kernel's number for what has no other (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65534;
/// How prlimit ends where there is no program of that name (util-linux, as every shell does).
const NOT_THERE: i32 = 127;

/// Name, version with its epoch, architecture.
const FIELDS: &str = "%{NAME}\\t%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\\t%{ARCH}\\n";

/// Not a package: a key that signatures are checked with.
const KEY: &str = "gpg-pubkey";

/// `None` where the root has no such list.
pub(super) async fn list(
    root: &RootDir,
    stop: &Stop,
) -> Result<Option<Vec<InstalledPackage>>, InstalledError> {
    let Some((folder, files)) = find(root) else {
        return Ok(None);
    };
    let path = format!("{folder}/{}", files[0]);
    let packages = match files[0] {
        NDB => with_ndb(root, path)?,
        _ => ask_rpm(root, folder, files, path, stop).await?,
    };
    Ok(Some(packages.into_iter().filter(|package| package.name != KEY).collect()))
}

fn with_ndb(root: &RootDir, path: String) -> Result<Vec<InstalledPackage>, InstalledError> {
    let file = open(root, &path)?;
    ndb::packages(&file).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => InstalledError::Damaged { path, what: source.to_string() },
        io::ErrorKind::UnexpectedEof => InstalledError::Damaged { path, what: "it ends too soon".to_owned() },
        _ => InstalledError::Read { path, source },
    })
}

async fn ask_rpm(
    root: &RootDir,
    folder: &str,
    files: &[&str],
    path: String,
    stop: &Stop,
) -> Result<Vec<InstalledPackage>, InstalledError> {
    let copy = tempfile::tempdir().map_err(|source| InstalledError::Copy { source })?;
    for file in files {
        copy_file(root, &format!("{folder}/{file}"), &copy.path().join(file))?;
    }
    let (words, here) = if namespace::is_root() {
        for path in files.iter().map(|file| copy.path().join(file)).chain([copy.path().to_owned()]) {
            match chown(&path, Some(NOBODY), Some(NOBODY)) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(InstalledError::Copy { source });
                }
                _ => {}
            }
        }
        ([&AS_NOBODY[..], &BOUNDED].concat(), Path::new("/tmp"))
    } else {
        (BOUNDED.to_vec(), copy.path())
    };
    // Nothing of whoever runs this: rpm reads settings from the home folder.
    let command = Cmd::new(words[0])
        .args(&words[1..])
        .clear_env()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", here)
        .env("LC_ALL", "C.UTF-8")
        .cwd(copy.path())
        .arg("--dbpath")
        .arg(here)
        .args(["--query", "--all", "--nosignature", "--nodigest", "--queryformat", FIELDS])
        .timeout(Duration::from_secs(5 * 60));
    let output = match command.run(stop).await {
        Ok(output) => output,
        Err(source) => return Err(InstalledError::Rpm { path, source: of_rpm(source) }),
    };
    // What of a database it cannot read it leaves out, and says so, and that is a success.
    let complaint = String::from_utf8_lossy(&output.stderr);
    if let Some(what) = complaint.lines().find_map(|line| line.strip_prefix("error: ")) {
        return Err(InstalledError::Damaged { path, what: what.to_owned() });
    }
    parse(&output.text()).ok_or_else(|| InstalledError::Damaged {
        path,
        what: "a package has no name, version or architecture".to_owned(),
    })
}

/// What went wrong on the way to rpm is told as rpm's own.
fn of_rpm(error: ExecError) -> ExecError {
    let name = "rpm".to_owned();
    match error {
        ExecError::Failed { code: NOT_THERE, tail, .. } => {
            let is_told = |program: &&str| {
                tail.iter().any(|line| line.ends_with("not found") && line.contains(&format!(" {program}: ")))
            };
            let on_the_way = ["mount", "setpriv"].into_iter().find(is_told);
            ExecError::Missing { name: on_the_way.map_or(name, str::to_owned) }
        }
        ExecError::Failed { code, tail, .. } => ExecError::Failed { name, code, tail },
        ExecError::TimedOut { limit, tail, .. } => ExecError::TimedOut { name, limit, tail },
        other => other,
    }
}

fn find(root: &RootDir) -> Option<(&'static str, &'static [&'static str])> {
    let all = FOLDERS.into_iter().flat_map(|folder| FORMATS.map(|files| (folder, files)));
    let is_file = |path: &str| root.metadata(path).is_ok_and(|found| found.is_file());
    all.into_iter().find(|(folder, files)| is_file(&format!("{folder}/{}", files[0])))
}

/// Opens a file that is not too large to be what it is called.
fn open(root: &RootDir, path: &str) -> Result<File, InstalledError> {
    let failed = |source| InstalledError::Read { path: path.to_owned(), source };
    let file = root.open_file(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.len() > LARGEST {
        return Err(InstalledError::Large { path: path.to_owned() });
    }
    Ok(file)
}

/// A file that is not there is left out.
fn copy_file(root: &RootDir, path: &str, to: &Path) -> Result<(), InstalledError> {
    let from = match open(root, path) {
        Ok(file) => file,
        Err(InstalledError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut to = File::create_new(to).map_err(|source| InstalledError::Copy { source })?;
    io::copy(&mut from.take(LARGEST), &mut to).map_err(|source| InstalledError::Copy { source })?;
    Ok(())
}

fn parse(lines: &str) -> Option<Vec<InstalledPackage>> {
    let package = |line: &str| {
        let mut fields = line.split('\t').map(str::to_owned);
        let package =
            InstalledPackage { name: fields.next()?, version: fields.next()?, architecture: fields.next()? };
        let whole = !package.name.is_empty() && !package.version.is_empty() && fields.next().is_none();
        whole.then_some(package)
    };
    lines.lines().map(package).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_that_is_missing_is_named() {
        for (line, missing) in [
            ("prlimit: failed to execute rpm: No such file or directory", "rpm"),
            ("sh: 1: exec: setpriv: not found", "setpriv"),
            ("sh: line 1: mount: command not found", "mount"),
        ] {
            let failed = ExecError::Failed { name: "unshare".into(), code: 127, tail: vec![line.into()] };
            assert!(matches!(of_rpm(failed), ExecError::Missing { name } if name == missing), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_no_package_is_seen() {
        let text = "bash\t5.1.8-9.el9\tx86_64\nbind\t32:9.16-1\tx86_64\n";
        let packages = parse(text).unwrap();
        assert_eq!(packages.len(), 2);
        assert_eq!((packages[1].name.as_str(), packages[1].version.as_str()), ("bind", "32:9.16-1"));
        assert_eq!(parse("bash\t1-1\n"), None);
        assert_eq!(parse(""), Some(Vec::new()));
    }

    #[test]
    fn the_list_is_found_where_it_is_and_links_do_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("outside"), "secret").unwrap();
        let top = dir.path().join("root");
        std::fs::create_dir_all(top.join("var/lib/rpm")).unwrap();
        let root = RootDir::open(&top).unwrap();
        assert!(find(&root).is_none());
        std::os::unix::fs::symlink(dir.path().join("outside"), top.join("var/lib/rpm/rpmdb.sqlite")).unwrap();
        assert!(find(&root).is_none());
        std::fs::write(top.join("var/lib/rpm/Packages"), "").unwrap();
        assert_eq!(find(&root).unwrap(), ("/var/lib/rpm", FORMATS[2]));
        // As on Fedora, where the old folder is a link to the new.
        std::fs::create_dir_all(top.join("usr/lib/sysimage/rpm")).unwrap();
        std::fs::write(top.join("usr/lib/sysimage/rpm/rpmdb.sqlite"), "").unwrap();
        assert_eq!(find(&root).unwrap(), ("/usr/lib/sysimage/rpm", FORMATS[0]));
    }
}
