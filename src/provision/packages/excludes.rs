//! Holding packages with dnf and yum, which have no command for it without a plugin: their configuration names packages
//! that are not looked at. A line of our own is added to it while steps run; what they change in the file stays.

use std::fs::File;
use std::io::{self, Write};

use rustix::fs::{Mode, OFlags};

use crate::host::root_dir::RootDir;
use crate::provision::root::RootError;

/// The line before each of ours.
const MARK: &str = "# Held by Bakehouse while its steps run:";
const SECTION: &str = "[main]";

/// Excludes packages under `key`, and gives those that were not excluded by name before. `also` are settings that hold
/// as long.
pub(super) fn add(
    root: &RootDir,
    config: &str,
    key: &str,
    names: &[String],
    also: &[&str],
) -> Result<Vec<String>, RootError> {
    let text = without(&read(root, config)?);
    let before = excluded(&text);
    let new: Vec<String> = names.iter().filter(|name| !before.contains(name)).cloned().collect();
    if !new.is_empty() {
        let excluded = format!("{key}={}", [before, new.clone()].concat().join(","));
        write(root, config, &with(&text, [excluded.as_str()].into_iter().chain(also.iter().copied())))?;
    }
    Ok(new)
}

/// Takes our lines out again.
pub(super) fn remove(root: &RootDir, config: &str) -> Result<(), RootError> {
    let text = read(root, config)?;
    let rest = without(&text);
    if rest == text {
        return Ok(());
    }
    if rest.is_empty() {
        // There was no file.
        root.remove(config).map_err(|source| RootError::file("remove", config, source))?;
        return Ok(());
    }
    write(root, config, &rest)
}

fn read(root: &RootDir, config: &str) -> Result<String, RootError> {
    match root.read_text(config) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(RootError::file("read", config, source)),
    }
}

/// Into the file that is there, which may be a link to another, and keeps its owner and mode.
fn write(root: &RootDir, config: &str, text: &str) -> Result<(), RootError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NONBLOCK | OFlags::NOCTTY;
    root.open_at(config, flags, Mode::from_raw_mode(0o644))
        .and_then(|file| File::from(file).write_all(text.as_bytes()))
        .map_err(|source| RootError::file("write", config, source))
}

/// The lines of the section `[main]`: from the one after its name to the next section's.
fn section(lines: &[&str]) -> Option<std::ops::Range<usize>> {
    let start = lines.iter().position(|line| line.trim() == SECTION)? + 1;
    let length = lines[start..].iter().position(|line| line.starts_with('['));
    Some(start..length.map_or(lines.len(), |length| start + length))
}

/// What the configuration excludes already. A key that stands twice counts as it stands last, and lines that begin
/// with white space go on with the value above.
fn excluded(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut value = String::new();
    let mut inside = false;
    for line in section(&lines).map_or(&[][..], |range| &lines[range]) {
        if line.starts_with([' ', '\t']) {
            if inside {
                value.push_str(line);
            }
            continue;
        }
        let known = line.split_once('=').filter(|(key, _)| ["exclude", "excludepkgs"].contains(&key.trim()));
        inside = known.is_some();
        if let Some((_, text)) = known {
            text.clone_into(&mut value);
        }
    }
    value.split([',', ' ', '\t']).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// With our lines at the end of the section: of a key that stands twice, the last counts.
fn with<'a>(text: &'a str, ours: impl Iterator<Item = &'a str>) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let mut at = match section(&lines) {
        Some(section) => section.end,
        None => {
            lines.extend([MARK, SECTION]);
            lines.len()
        }
    };
    while at > 1 && lines[at - 1].trim().is_empty() {
        at -= 1;
    }
    lines.splice(at..at, ours.flat_map(|line| [MARK, line]));
    lines.join("\n") + "\n"
}

/// Without our lines, and without those before them.
fn without(text: &str) -> String {
    let mut lines = text.split_inclusive('\n');
    let mut rest = String::new();
    while let Some(line) = lines.next() {
        if line.trim_end() == MARK {
            lines.next();
        } else {
            rest.push_str(line);
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "/etc/dnf/dnf.conf";

    fn tried(text: Option<&str>, names: &[&str]) -> (Vec<String>, String, Option<String>) {
        let dir = tempfile::tempdir().unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        root.make_dirs("/etc/dnf", 0o755).unwrap();
        if let Some(text) = text {
            root.write(CONFIG, text.as_bytes(), 0o644).unwrap();
        }
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let new = add(&root, CONFIG, "excludepkgs", &names, &["best=False"]).unwrap();
        let held = root.read_text(CONFIG).unwrap_or_default();
        remove(&root, CONFIG).unwrap();
        (new, held, root.read_text(CONFIG).ok())
    }

    #[test]
    fn the_file_is_afterwards_what_it_was() {
        for text in [
            "[main]\ngpgcheck=1\n",
            "# comment\n[main]\nexclude=a\n b\n\n[repo]\nexclude=c\n",
            "[main]\n",
            "[main]\nexclude = shim*\n",
        ] {
            let (new, held, after) = tried(Some(text), &["shim-x64"]);
            assert_eq!((new.len(), after.as_deref()), (1, Some(text)));
            assert!(held.contains("shim-x64"), "{held}");
        }
        let (_, held, after) = tried(None, &["shim-x64"]);
        assert!(held.contains("\n[main]\n") && held.contains("\nexcludepkgs=shim-x64\n"), "{held}");
        assert!(held.ends_with("\nbest=False\n"), "{held}");
        assert_eq!(after, None);
    }

    #[test]
    fn what_was_excluded_stays_so() {
        let text = "[main]\nexclude=old\nexcludepkgs=a,\n  b\n\n[repo]\nexclude=c\n";
        let (new, held, _) = tried(Some(text), &["b", "d"]);
        assert_eq!(new, ["d"]);
        assert!(held.contains(&format!("\nexcludepkgs=a,b,d\n{MARK}\nbest=False\n\n[repo]\n")), "{held}");
        let (new, held, _) = tried(Some(text), &["a", "b"]);
        assert_eq!((new.len(), held.as_str()), (0, text));
    }
}
