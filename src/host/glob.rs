//! Paths with `*` and `?`, expanded inside a root or a recipe's folder. A wildcard stands for any name, or a part of
//! one, within one folder; hidden names must be named by their dot, as in a shell.

use std::io;
use std::path::{Path, PathBuf};

use wildmatch::WildMatch;

use super::root_dir::RootDir;

/// More paths than this are refused: links that lead in circles give ever more of them.
const MOST: usize = 100_000;

/// The paths below `dir` that fit, sorted, each with a leading `/`. A last link is listed, not followed. One without
/// wildcards is listed if it is there. In a name that is not UTF-8, what is not is replaced.
///
/// # Errors
/// The kernel's, but for folders that are not there: nothing fits in those.
pub fn expand(dir: &RootDir, pattern: &str) -> io::Result<Vec<String>> {
    let paths = expand_bytes(dir, pattern)?;
    Ok(paths.into_iter().map(|path| path.to_string_lossy().into_owned()).collect())
}

/// As [`expand`], with the names as they are: for who must not leave one out.
///
/// # Errors
/// As [`expand`].
pub fn expand_bytes(dir: &RootDir, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let top = Path::new("/");
    let mut found = vec![top.to_owned()];
    let parts = pattern.split('/').filter(|part| !part.is_empty() && *part != ".");
    for part in parts {
        let mut next = Vec::new();
        for folder in found {
            if part.contains(['*', '?']) {
                let names = match dir.list_bytes(&folder) {
                    Ok(names) => names,
                    Err(error) if is_absent(&error) => continue,
                    Err(error) => return Err(error),
                };
                let fits = names.into_iter().filter(|name| fits(part, &name.to_string_lossy()));
                next.extend(fits.map(|name| folder.join(name)));
            } else {
                let path = folder.join(part);
                match dir.symlink_metadata(&path) {
                    Ok(_) => next.push(path),
                    Err(error) if is_absent(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if next.len() > MOST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("`{pattern}` fits too many paths"),
            ));
        }
        found = next;
    }
    found.retain(|path| path != top);
    Ok(found)
}

/// Not there, or beneath something that is no folder, or beyond a link that leads in a circle.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP))
}

/// Whether a name fits a pattern, as a shell would have it.
#[must_use]
pub fn fits(pattern: &str, name: &str) -> bool {
    (!name.starts_with('.') || pattern.starts_with('.')) && WildMatch::new(pattern).matches(name)
}

/// Whether a path fits a pattern, folder by folder; slashes at either end mean nothing. `**` stands for any number of
/// folders, also none, and at the end for all that is below. Looks at no file.
#[must_use]
pub fn fits_path(pattern: &str, path: &str) -> bool {
    path_fits(pattern, path, fits)
}

/// The same where a wildcard stands for hidden names too.
#[must_use]
pub fn covers(pattern: &str, path: &str) -> bool {
    path_fits(pattern, path, |pattern, name| WildMatch::new(pattern).matches(name))
}

fn path_fits(pattern: &str, path: &str, fits: fn(&str, &str) -> bool) -> bool {
    let parts = |text: &'_ str| -> Vec<String> {
        text.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
    };
    let names = parts(path);
    // Which of the path's beginnings the pattern's parts so far can stand for, by the number of their names.
    let mut reached = vec![false; names.len() + 1];
    reached[0] = true;
    for part in parts(pattern) {
        let mut next = vec![false; names.len() + 1];
        for count in 0..=names.len() {
            let name = count.checked_sub(1).map(|last| names[last].as_str());
            next[count] = match name {
                _ if part == "**" => {
                    reached[count] || name.is_some_and(|name| next[count - 1] && fits("*", name))
                }
                Some(name) => reached[count - 1] && fits(&part, name),
                None => false,
            };
        }
        reached = next;
    }
    reached[names.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_stars_stand_for_folders() {
        for (pattern, path, expected) in [
            ("bin/*", "bin/a", true),
            ("bin/*", "bin/a/b", false),
            ("bin", "bin/a", false),
            ("bin/", "bin", true),
            ("**/*.sh", "a.sh", true),
            ("**/*.sh", "a/b/c.sh", true),
            ("**/*.sh", "a/.b/c.sh", false),
            ("a/**", "a/b/c", true),
            ("a/**/c", "a/c", true),
            ("a/**/c", "a/b/b/c", true),
            ("a/**/c", "a/b/b/d", false),
            ("**", "a/b", true),
            ("a/.b/*", "a/.b/c", true),
        ] {
            assert_eq!(fits_path(pattern, path), expected, "{pattern} {path}");
            assert_eq!(covers(pattern, path), expected || path.contains("/."), "{pattern} {path}");
        }
        assert!(!fits_path(&"**/a/".repeat(60), &"a/".repeat(59)));
    }

    #[test]
    fn wildcards_stand_for_parts_of_names() {
        for (pattern, name, expected) in [
            ("*", "a", true),
            ("*", ".hidden", false),
            (".*", ".hidden", true),
            ("*.deb", "app_1.2_amd64.deb", true),
            ("*.deb", "app.deb.asc", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("ssh_host_*", "ssh_host_", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
        // Would take longer than the age of the universe with a backtracking matcher.
        assert!(!fits(&"*a".repeat(100), &"a".repeat(99)));
    }

    #[test]
    fn patterns_are_expanded_folder_by_folder_and_inside_the_root() {
        let outer = tempfile::tempdir().unwrap();
        std::fs::write(outer.path().join("outside.deb"), "").unwrap();
        std::fs::create_dir(outer.path().join("root")).unwrap();
        let root = RootDir::open(&outer.path().join("root")).unwrap();
        for path in ["/home/a/.history", "/home/b/.history", "/home/c/other"] {
            root.make_dirs(path.rsplit_once('/').unwrap().0, 0o755).unwrap();
            root.write(path, b"", 0o600).unwrap();
        }
        root.symlink(outer.path().to_str().unwrap(), "/out").unwrap();
        assert_eq!(expand(&root, "/home/*/.history").unwrap(), ["/home/a/.history", "/home/b/.history"]);
        assert_eq!(expand(&root, "home/c/other").unwrap(), ["/home/c/other"]);
        for nothing in ["/out/*.deb", "/home/c/other/*", "/nowhere/*", "/", ""] {
            assert!(expand(&root, nothing).unwrap().is_empty(), "{nothing}");
        }
    }
}
