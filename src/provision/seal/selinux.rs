//! SELinux: a root that enforces is labelled by its own policy, and nothing in it stays without a label.
//!
//! A file without a label is `unlabeled_t` on the running machine, which no confined program may read: a machine that
//! enforces then does not come up. The root's own setfiles does the work, since it is of one version with the policy and
//! its compiled expressions. It runs in the root as a package's script does, but with nothing mounted there besides
//! /proc, so that /dev, /run and /tmp are the image's own.
//!
//! The host needs no SELinux, neither tools nor kernel. One whose kernel has it must grant CAP_MAC_ADMIN: without it the
//! kernel refuses labels that its own policy does not know.
//!
//! What lies below a mount point, where a file system of the root is mounted during the bake, is not seen; nor does the
//! running machine see it, which mounts the same.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::labels::{self, Found};
use super::{SealError, SealOptions, Sealed};
use crate::host::exec::{Cmd, ExecError, Output};
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;
use crate::provision::root::PATH;

const CONFIG: &str = "/etc/selinux/config";
/// What libselinux takes where the file names no policy.
const DEFAULT_POLICY: &str = "targeted";
/// Makes the machine label all files at its first boot, and boot again.
const AT_FIRST_BOOT: &str = "/.autorelabel";
/// setfiles takes 3 s for 12,000 files on two cores; an hour is beyond all that was seen.
const LIMIT: Duration = Duration::from_secs(3600);
/// How many bytes of paths one matchpathcon is given: far below what the kernel takes for a program's words.
const WORDS: usize = 128 * 1024;
/// How many files an error names.
const NAMED: usize = 5;

/// Labels the root, where it uses SELinux and has a policy.
pub(super) async fn label(
    root: &RootDir,
    options: SealOptions<'_>,
    done: &mut Vec<Sealed>,
) -> Result<(), SealError> {
    let Some(config) = config(root)? else {
        return Ok(());
    };
    let folder = format!("/etc/selinux/{}", config.policy);
    let contexts = format!("{folder}/contexts/files/file_contexts");
    let binary = binary_policy(root, &folder)?;
    let (Some(binary), true) = (binary, root.exists(&contexts)) else {
        if config.enforcing {
            options.reporter.warning(format!(
                "{CONFIG} says SELINUX=enforcing, but the image has no policy `{}` in {folder}: nothing was labelled, \
                 and where the kernel starts SELinux the machine does not boot; install the policy, or say \
                 SELINUX=disabled",
                config.policy
            ));
        }
        return Ok(());
    };
    let setfiles = program(root, "setfiles", "policycoreutils", &config.policy)?;

    let stop = options.stop;
    let Found { mounts, closed, .. } = walk(root, &HashSet::new(), stop)?;
    if closed.iter().any(|path| path == Path::new("/")) {
        return Err(SealError::NoLabels { root: root.path().to_owned() });
    }
    for path in &closed {
        options
            .reporter
            .note(format!("SELinux: no labels in {}: its file system has none, or is read-only", name(path)));
    }
    // -F: labels that the base's files have from elsewhere are replaced, the user's part too. -m: without it setfiles
    // leaves out every file system that the host's kernel does not mount with SELinux. -c: a label that the binary policy
    // does not know would be none to the running kernel.
    let mut command = in_root(root, &setfiles).args(["-F", "-m", "-c", &binary, "-e", "/proc"]);
    for path in &closed {
        command = command.arg("-e").arg(path);
    }
    // It stays on one file system for each path that it is given.
    run(command.arg(&contexts).arg("/").args(&mounts), "setfiles", stop).await?;
    let missing = walk(root, &HashSet::new(), stop)?.missing;
    if !missing.is_empty() {
        complete(root, &missing, &contexts, &config.policy, stop).await?;
    }
    options.reporter.note(format!("SELinux: every file is labelled by the policy `{}`", config.policy));
    let removed =
        root.remove(AT_FIRST_BOOT).map_err(|source| SealError::file("remove", AT_FIRST_BOOT, source))?;
    if removed {
        let what = "request for SELinux labels at first boot".to_owned();
        done.push(Sealed { what, path: AT_FIRST_BOOT.to_owned() });
    }
    Ok(())
}

/// What setfiles left without a label: where the policy says `<<none>>`, it leaves the label to whoever makes the file.
/// On a running machine that is the kernel, which takes the folder's; so does this. Anything else was missed.
async fn complete(
    root: &RootDir,
    missing: &[PathBuf],
    contexts: &str,
    policy: &str,
    stop: &Stop,
) -> Result<(), SealError> {
    let matchpathcon = program(root, "matchpathcon", "selinux-utils (Fedora's: libselinux-utils)", policy)?;
    let mut unnamed = HashSet::new();
    let mut rest = missing;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|path| {
            bytes += path.as_os_str().as_bytes().len() + 1;
            bytes <= WORDS
        });
        let (some, others) = rest.split_at(fits.count().max(1));
        rest = others;
        // -n: no paths, whose characters may be any; -N: the labels were checked by setfiles.
        let command = in_root(root, &matchpathcon).args(["-n", "-N", "-f", contexts]).args(some);
        let answer = run(command, "matchpathcon", stop).await?.text();
        let answers: Vec<&str> = answer.lines().collect();
        // One line for each, or no answer: what has none stays without a label.
        if answers.len() == some.len() {
            let none = some.iter().zip(answers).filter(|(_, answer)| *answer == "<<none>>");
            unnamed.extend(none.map(|(path, _)| path.clone()));
        }
    }
    let Found { missing, .. } = walk(root, &unnamed, stop)?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(SealError::Unlabelled { count: missing.len(), some: shown(&missing) })
}

fn shown(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().take(NAMED).map(|path| name(path)).collect();
    let more = paths.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names.join(", "))
}

/// A path on one line, whatever its characters are.
fn name(path: &Path) -> String {
    path.display().to_string().escape_debug().to_string()
}

fn walk(root: &RootDir, inherit: &HashSet<PathBuf>, stop: &Stop) -> Result<Found, SealError> {
    labels::walk(root, inherit, stop)
        .map_err(|(path, source)| SealError::file("look at the SELinux label of", &name(&path), source))
}

/// A command in the root, in namespaces that end with it. It needs /proc: libselinux sets labels through it.
fn in_root(root: &RootDir, program: &str) -> Cmd {
    let mut at = std::ffi::OsString::from("--root=");
    at.push(root.path());
    Cmd::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--uts", "--ipc", "--net"])
        .arg(at)
        .args(["--wd=/", "--mount-proc=/proc", "--", program])
        .apart_from_the_machine()
        .clear_env()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .timeout(LIMIT)
}

async fn run(command: Cmd, name: &str, stop: &Stop) -> Result<Output, SealError> {
    let result = command.run(stop).await;
    result.map_err(|error| SealError::Label {
        source: match error {
            // What failed is the root's program, not the host's which enters the root.
            ExecError::Failed { code, tail, .. } => ExecError::Failed { name: name.to_owned(), code, tail },
            other => other,
        },
    })
}

/// Where the root has a program. Distributions differ in where, and in what /sbin is.
fn program(
    root: &RootDir,
    name: &'static str,
    package: &'static str,
    policy: &str,
) -> Result<String, SealError> {
    let mut places = ["/usr/sbin", "/sbin", "/usr/bin"].iter().map(|folder| format!("{folder}/{name}"));
    let found = places.find(|path| root.metadata(path).is_ok_and(|found| found.is_file()));
    found.ok_or_else(|| SealError::NoProgram { program: name, package, policy: policy.to_owned() })
}

/// What is of use here of /etc/selinux/config.
#[derive(Debug, PartialEq, Eq)]
struct Config {
    enforcing: bool,
    policy: String,
}

/// `None` where the root does not use SELinux.
fn config(root: &RootDir) -> Result<Option<Config>, SealError> {
    use std::io::ErrorKind;
    match root.read_text(CONFIG) {
        Ok(text) => parse(&text),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(SealError::file("read", CONFIG, source)),
    }
}

/// As libselinux reads it: the first line that says a mode counts, and the last that names a policy. A mode that it does
/// not know is not `disabled`: the policy is loaded.
fn parse(text: &str) -> Result<Option<Config>, SealError> {
    let mode = text.lines().filter_map(|line| line.strip_prefix("SELINUX=")).find_map(|value| {
        let value = value.trim_start().to_ascii_lowercase();
        ["enforcing", "permissive", "disabled"].into_iter().find(|mode| value.starts_with(mode))
    });
    if mode == Some("disabled") {
        return Ok(None);
    }
    const TYPE: &str = "SELINUXTYPE=";
    let mut named = text.lines().filter_map(|line| {
        let line = line.trim();
        let name = line.get(..TYPE.len()).filter(|name| name.eq_ignore_ascii_case(TYPE));
        name.map(|_| line[TYPE.len()..].to_owned())
    });
    let policy = named.next_back().unwrap_or_else(|| DEFAULT_POLICY.to_owned());
    if policy.is_empty() || policy.starts_with('.') || policy.contains(['/', '\0']) {
        return Err(SealError::Policy { name: policy });
    }
    Ok(Some(Config { enforcing: mode == Some("enforcing"), policy }))
}

/// The newest of the policies as the kernel loads them: `policy.33` is newer than `policy.9`.
fn binary_policy(root: &RootDir, folder: &str) -> Result<Option<String>, SealError> {
    use std::io::ErrorKind;
    let folder = format!("{folder}/policy");
    let names = match root.list(&folder) {
        Ok(names) => names,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(source) => return Err(SealError::file("list", &folder, source)),
    };
    let version = |name: &String| name.strip_prefix("policy.")?.parse::<u32>().ok();
    let newest = names.iter().filter_map(version).max();
    Ok(newest.map(|version| format!("{folder}/policy.{version}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_is_read_as_libselinux_does() {
        let parsed = |text: &str| parse(text).unwrap().map(|config| (config.enforcing, config.policy));
        let of = |enforcing, policy: &str| Some((enforcing, policy.to_owned()));
        assert_eq!(parsed("# SELINUX=disabled\nSELINUX=enforcing\nSELINUXTYPE=mls \n"), of(true, "mls"));
        assert_eq!(parsed("SELINUX= Permissive # for now\nselinuxtype=default\n"), of(false, "default"));
        assert_eq!(parsed("SELINUX=x\nSELINUX=disabled\n"), None);
        assert_eq!(parsed("SELINUX=enforcing\nSELINUX=disabled\n"), of(true, "targeted"));
        assert_eq!(parsed(""), of(false, "targeted"));
        for hostile in ["../../x", "", ".", "a/b"] {
            assert!(
                matches!(parse(&format!("SELINUXTYPE={hostile}\n")), Err(SealError::Policy { .. })),
                "{hostile}"
            );
        }
    }

    #[test]
    fn the_newest_policy_is_the_one_with_the_largest_number() {
        let dir = tempfile::tempdir().unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        assert_eq!(binary_policy(&root, "/p").unwrap(), None);
        root.make_dirs("/p/policy", 0o755).unwrap();
        for name in ["policy.9", "policy.33", "policy.kern", "x.40"] {
            root.write(&format!("/p/policy/{name}"), b"", 0o644).unwrap();
        }
        assert_eq!(binary_policy(&root, "/p").unwrap().unwrap(), "/p/policy/policy.33");
    }

    #[test]
    fn an_error_names_the_first_files_and_how_many_follow() {
        let paths: Vec<PathBuf> = (0..7).map(|number| PathBuf::from(format!("/{number}"))).collect();
        assert_eq!(shown(&paths), "/0, /1, /2, /3, /4 and 2 more");
        assert_eq!(shown(&paths[..1]), "/0");
        assert_eq!(shown(&[PathBuf::from("/a\n\x1b[0mé")]), "/a\\n\\u{1b}[0mé");
    }
}
