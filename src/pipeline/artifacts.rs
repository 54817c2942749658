//! The files that a build gives, gathered into a folder. What a build's commands left is not trusted: a link leads to
//! nothing outside of the folder that the artifact is taken from.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use super::outcome::Collected;
use crate::host::glob;
use crate::host::root_dir::RootDir;

/// One artifact, with everything put in that the shell puts in.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// The secondary artifact's.
    pub(super) identifier: Option<String>,
    pub(super) name: String,
    /// Folders of the source, with `*`; or a folder elsewhere, by its absolute path.
    pub(super) base: String,
    pub(super) files: Vec<String>,
    pub(super) exclude: Vec<String>,
    /// All files in one folder.
    pub(super) flat: bool,
    /// Links to other files of the artifact stay links.
    pub(super) links: bool,
}

/// Copies an artifact's files into `to/NAME`, which must not be there, and gives what they are, and what of them was left
/// out and why.
///
/// # Errors
/// [`ArtifactsError`]
pub(super) fn collect(
    source: &Path,
    wanted: &Wanted,
    to: &Path,
) -> Result<(Collected, Vec<String>), ArtifactsError> {
    let name = Path::new(&wanted.name);
    let plain = name.components().all(|part| matches!(part, Component::Normal(_)));
    if wanted.name.is_empty() || !plain {
        return Err(ArtifactsError::Name { name: wanted.name.clone() });
    }
    let failed = |path: &Path, source| ArtifactsError::Io { path: path.to_owned(), source };
    let folder = to.join(name);
    let above = folder.parent().unwrap_or(to);
    fs::create_dir_all(above).map_err(|error| failed(above, error))?;
    fs::create_dir(&folder).map_err(|error| failed(&folder, error))?;
    // As the walk sees it: it is no part of an artifact, and may lie in the source.
    let results = to.canonicalize().map_err(|error| failed(to, error))?;
    let mut copying = Copying { wanted, folder: folder.clone(), files: 0, left_out: Vec::new() };
    let bases = bases(source, &wanted.base).map_err(|error| failed(Path::new(&wanted.base), error))?;
    for base in &bases {
        let at = base.path().canonicalize().map_err(|error| failed(base.path(), error))?;
        for path in files_below(base, &at, &results).map_err(|error| failed(&at, error))? {
            if copying.is_wanted(source, &at, &path) {
                copying.take(base, &path).map_err(|error| failed(&at.join(&path), error))?;
            }
        }
    }
    if copying.files == 0 {
        return Err(ArtifactsError::Nothing { files: wanted.files.join(", "), base: wanted.base.clone() });
    }
    let collected = Collected {
        identifier: wanted.identifier.clone(),
        name: wanted.name.clone(),
        folder,
        files: copying.files,
    };
    Ok((collected, copying.left_out))
}

/// The folders that an artifact is taken from.
fn bases(source: &Path, base: &str) -> io::Result<Vec<RootDir>> {
    let path = Path::new(base);
    let inside = match path.strip_prefix(source) {
        Ok(inside) => inside,
        Err(_) if path.is_absolute() => return Ok(vec![RootDir::open(path)?]),
        Err(_) => path,
    };
    let root = RootDir::open(source)?;
    let inside = inside.to_string_lossy();
    if !inside.contains(['*', '?']) {
        return Ok(vec![root.enter(&format!("/{inside}"))?]);
    }
    let folders = glob::expand(&root, &inside)?.into_iter();
    folders
        .filter(|path| root.metadata(path).is_ok_and(|found| found.is_dir()))
        .map(|path| root.enter(&path))
        .collect()
}

/// What is no folder, by its path in `base`; in the order of names.
fn files_below(base: &RootDir, at: &Path, results: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for name in base.list_bytes(Path::new("/").join(&folder))? {
            let path = folder.join(name);
            if at.join(&path) == results {
                continue;
            }
            if base.symlink_metadata(&path)?.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

struct Copying<'a> {
    wanted: &'a Wanted,
    folder: PathBuf,
    files: usize,
    left_out: Vec<String>,
}

impl Copying<'_> {
    fn is_wanted(&self, source: &Path, at: &Path, path: &Path) -> bool {
        let name = path.to_string_lossy();
        let fits = |pattern: &String| {
            // Written with the way to the folder, it means the same.
            let pattern = Path::new(pattern);
            let pattern =
                pattern.strip_prefix(at).or_else(|_| pattern.strip_prefix(source)).unwrap_or(pattern);
            glob::covers(&pattern.to_string_lossy(), &name)
        };
        self.wanted.files.iter().any(fits) && !self.wanted.exclude.iter().any(fits)
    }

    fn take(&mut self, base: &RootDir, path: &Path) -> io::Result<()> {
        let Some(name) = path.file_name() else {
            return Ok(());
        };
        let to = self.folder.join(if self.wanted.flat { Path::new(name) } else { path });
        let shown = path.display();
        if to.symlink_metadata().is_ok() {
            self.left_out.push(format!("{shown}: another file of the artifact has its name"));
            return Ok(());
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        let text = path.to_string_lossy();
        let is_link = base.symlink_metadata(path)?.is_symlink();
        let reached = base.metadata(&text);
        match reached {
            Ok(_) if is_link && self.wanted.links && !self.wanted.flat => {
                std::os::unix::fs::symlink(base.read_link(&text)?, &to)?;
            }
            Ok(found) if found.is_file() => {
                let mut from = base.open_file(&text)?;
                let mut file = File::create_new(&to)?;
                io::copy(&mut from, &mut file)?;
                // Its permissions, but no set-user-id: whoever unpacks it is another user.
                file.set_permissions(fs::Permissions::from_mode(found.permissions().mode() & 0o777))?;
            }
            Ok(_) if is_link => {
                self.left_out.push(format!("{shown}: a link to what is no file"));
                return Ok(());
            }
            Ok(_) => {
                self.left_out.push(format!("{shown}: neither a file nor a link"));
                return Ok(());
            }
            Err(error) if is_link => {
                self.left_out.push(format!("{shown}: a link that leads nowhere in its folder ({error})"));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.files += 1;
        Ok(())
    }
}

/// Why there is no artifact.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactsError {
    #[error("no file fits {files}{}; correct the paths, or `base-directory`", below(.base))]
    Nothing { files: String, base: String },
    #[error("`{name}` is not the name of an artifact's folder; correct `name`")]
    Name { name: String },
    #[error("cannot collect {}", .path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn below(base: &str) -> String {
    if base.is_empty() { String::new() } else { format!(" in {base}") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn yard() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().canonicalize().unwrap().join("source");
        for path in ["out1/a.txt", "out1/sub/b.txt", "out1/.hidden/c.txt", "out2/d.log", "top.txt"] {
            let path = source.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, path.file_name().unwrap().as_encoded_bytes()).unwrap();
        }
        fs::write(dir.path().join("secret"), "outside").unwrap();
        (dir, source)
    }

    fn wanted(base: &str, files: &[&str], exclude: &[&str]) -> Wanted {
        let all = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Wanted {
            name: "it".into(),
            base: base.into(),
            files: all(files),
            exclude: all(exclude),
            ..Wanted::default()
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let root = RootDir::open(folder).unwrap();
        let all = files_below(&root, folder, Path::new("/nowhere")).unwrap();
        all.into_iter().map(|path| path.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn patterns_take_files_and_leave_folders_out() {
        let (dir, source) = yard();
        let absolute = source.join("out1").display().to_string();
        let cases: [(Wanted, &[&str]); 10] = [
            (
                wanted("", &["**/*"], &[]),
                &["out1/.hidden/c.txt", "out1/a.txt", "out1/sub/b.txt", "out2/d.log", "top.txt"],
            ),
            (wanted("out1", &["**/*"], &[]), &[".hidden/c.txt", "a.txt", "sub/b.txt"]),
            (wanted(&absolute, &["*"], &[]), &["a.txt"]),
            (wanted("./out1/", &["sub/*"], &[]), &["sub/b.txt"]),
            (wanted("out*", &["**/*"], &["**/.*/**/*"]), &["a.txt", "d.log", "sub/b.txt"]),
            (wanted("", &["out1/**/*"], &["**/*.txt", "no"]), &[]),
            (wanted("", &["out1/a.txt", "./top.txt"], &[]), &["out1/a.txt", "top.txt"]),
            (wanted("", &["out1"], &[]), &[]),
            (wanted("", &["**/b.txt"], &[]), &["out1/sub/b.txt"]),
            (wanted("out1", &[&format!("{absolute}/a.txt")], &[]), &["a.txt"]),
        ];
        for (number, (wanted, right)) in cases.into_iter().enumerate() {
            // In the source: it is no part of what is collected.
            let to = source.join(format!("results{number}"));
            let collected = collect(&source, &wanted, &to);
            if right.is_empty() {
                assert!(matches!(collected, Err(ArtifactsError::Nothing { .. })), "{wanted:?}");
            } else {
                let (collected, left_out) = collected.unwrap();
                assert_eq!(
                    (names(&to.join("it")), collected.files),
                    (right.iter().map(|name| (*name).to_owned()).collect(), right.len())
                );
                assert!(left_out.is_empty(), "{left_out:?}");
            }
            fs::remove_dir_all(&to).unwrap();
        }
        drop(dir);
    }

    #[test]
    fn paths_are_discarded_and_one_of_two_equal_names_is_told() {
        let (dir, source) = yard();
        fs::create_dir(source.join("again")).unwrap();
        fs::write(source.join("again/a.txt"), "another").unwrap();
        let wanted = Wanted { flat: true, ..wanted("", &["**/*.txt"], &[]) };
        let (collected, left_out) = collect(&source, &wanted, &dir.path().join("to")).unwrap();
        assert_eq!(names(&collected.folder), ["a.txt", "b.txt", "c.txt", "top.txt"]);
        assert_eq!(fs::read_to_string(collected.folder.join("a.txt")).unwrap(), "another");
        assert!(left_out[0].starts_with("out1/a.txt: another file"), "{left_out:?}");
    }

    #[test]
    fn a_link_leads_to_nothing_outside() {
        let (dir, source) = yard();
        symlink("a.txt", source.join("out1/inside")).unwrap();
        symlink("../../secret", source.join("out1/outside")).unwrap();
        symlink(dir.path().join("secret"), source.join("out1/absolute")).unwrap();
        symlink("sub", source.join("out1/folder")).unwrap();
        for links in [false, true] {
            let wanted = Wanted { links, ..wanted("out1", &["*"], &[]) };
            let to = dir.path().join(format!("to-{links}"));
            let (collected, left_out) = collect(&source, &wanted, &to).unwrap();
            let inside = collected.folder.join("inside");
            assert_eq!(inside.symlink_metadata().unwrap().is_symlink(), links);
            assert_eq!(fs::read_to_string(inside).unwrap(), "a.txt");
            assert_eq!(collected.folder.join("folder").symlink_metadata().is_ok(), links);
            assert_eq!(left_out.len(), if links { 2 } else { 3 }, "{left_out:?}");
            let all = names(&collected.folder);
            assert!(!all.iter().any(|name| ["outside", "absolute"].contains(&name.as_str())), "{all:?}");
        }
        // The base itself leads nowhere else either.
        symlink("../..", source.join("up")).unwrap();
        assert!(matches!(
            collect(&source, &wanted("up", &["secret"], &[]), &dir.path().join("up")),
            Err(ArtifactsError::Nothing { .. })
        ));
    }

    #[test]
    fn a_name_is_one_in_the_folder_and_what_is_there_stays() {
        let (dir, source) = yard();
        for name in ["", "..", "/etc", "a/../b"] {
            let wanted = Wanted { name: name.into(), ..wanted("", &["top.txt"], &[]) };
            let refused = collect(&source, &wanted, &dir.path().join("to"));
            assert!(matches!(refused, Err(ArtifactsError::Name { .. })), "{name}");
        }
        fs::create_dir_all(dir.path().join("to/it")).unwrap();
        let refused = collect(&source, &wanted("", &["top.txt"], &[]), &dir.path().join("to"));
        assert!(matches!(refused, Err(ArtifactsError::Io { .. })));
    }

    #[test]
    fn permissions_are_kept_and_special_files_are_not_waited_for() {
        let (dir, source) = yard();
        fs::set_permissions(source.join("top.txt"), fs::Permissions::from_mode(0o4755)).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, source.join("fifo"), mode).unwrap();
        let (collected, left_out) =
            collect(&source, &wanted("", &["*"], &[]), &dir.path().join("to")).unwrap();
        assert_eq!(names(&collected.folder), ["top.txt"]);
        let mode = collected.folder.join("top.txt").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
        assert_eq!(left_out, ["fifo: neither a file nor a link"]);
    }
}
