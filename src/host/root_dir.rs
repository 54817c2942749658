//! A folder that is the root of another system. Every path is resolved inside it by the kernel (`openat2` with
//! `RESOLVE_IN_ROOT`): `..` and symbolic links, absolute ones too, cannot lead out, whoever changes them meanwhile.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Gid, Mode, OFlags, ResolveFlags, Uid};

/// A file larger than this is not read whole: what is read whole are configuration files.
const LARGEST: u64 = 64 * 1024 * 1024;

/// The root. Paths given to its methods are as the other system sees them, with or without a leading `/`.
#[derive(Debug)]
pub struct RootDir {
    dir: OwnedFd,
    path: PathBuf,
}

impl RootDir {
    /// # Errors
    /// Where `path` is no folder that can be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let dir = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { dir, path: path.to_owned() })
    }

    /// Where it is on the host: for mounts and messages, not for opening what lies inside.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder `path` as a root of its own: nothing of this one that lies outside of it can be reached through it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn enter(&self, path: &str) -> io::Result<Self> {
        let dir = self.open_at(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Self { dir, path: self.path.join(path.trim_start_matches('/')) })
    }

    /// Opens what `path` names, following links inside the root.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open_at(&self, path: impl AsRef<Path>, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let path = path.as_ref();
        let bytes = path.as_os_str().as_bytes();
        let relative = match bytes.iter().position(|byte| *byte != b'/') {
            Some(start) => &bytes[start..],
            None => b".",
        };
        // The kernel asks to try again where a rename raced with the look-up.
        for _ in 0..16 {
            match rustix::fs::openat2(
                &self.dir,
                relative,
                flags | OFlags::CLOEXEC,
                mode,
                ResolveFlags::IN_ROOT,
            ) {
                Err(rustix::io::Errno::AGAIN) => {}
                other => return Ok(other?),
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, format!("{} keeps changing", path.display())))
    }

    /// The folder that holds `path`, and `path`'s own name: for calls that must not follow a last link.
    ///
    /// # Errors
    /// Where the folder is not there, or `path` ends in `..`.
    pub fn parent(&self, path: impl AsRef<Path>) -> io::Result<(OwnedFd, OsString)> {
        let path = path.as_ref();
        // Not as `Path` has it, to which `a/.` names `a`.
        let bytes = path.as_os_str().as_bytes();
        let end = bytes.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
        let bytes = &bytes[..end];
        let (folder, name) = match bytes.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&bytes[..at], &bytes[at + 1..]),
            None => (&b""[..], bytes),
        };
        if matches!(name, b"" | b"." | b"..") {
            let why = format!("`{}` names no file", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let folder =
            self.open_at(OsStr::from_bytes(folder), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok((folder, OsStr::from_bytes(name).to_owned()))
    }

    /// What is there, links followed inside the root.
    ///
    /// # Errors
    /// The kernel's; `NotFound` where there is nothing.
    pub fn metadata(&self, path: &str) -> io::Result<Metadata> {
        File::from(self.open_at(path, OFlags::PATH, Mode::empty())?).metadata()
    }

    /// What is there, a last link not followed.
    ///
    /// # Errors
    /// The kernel's; `NotFound` where there is nothing.
    pub fn symlink_metadata(&self, path: impl AsRef<Path>) -> io::Result<Metadata> {
        File::from(self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?).metadata()
    }

    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.metadata(path).is_ok()
    }

    /// A regular file's content.
    ///
    /// # Errors
    /// The kernel's; `InvalidData` where it is no regular file or larger than 64 MiB.
    pub fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let file = self.open_file(path)?;
        let mut bytes = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{path} is larger than 64 MiB")));
        }
        Ok(bytes)
    }

    /// A regular file, opened for reading. A fifo or a device in its place is an error and does not block.
    ///
    /// # Errors
    /// The kernel's; `InvalidData` where it is no regular file.
    pub fn open_file(&self, path: &str) -> io::Result<File> {
        let file = File::from(self.open_at(
            path,
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
            Mode::empty(),
        )?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{path} is not a regular file")));
        }
        Ok(file)
    }

    /// A regular file's content as text; bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// As [`RootDir::read`].
    pub fn read_text(&self, path: &str) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.read(path)?).into_owned())
    }

    /// The names in a folder, sorted. In one that is not UTF-8, what is not is replaced: no file has the name that is
    /// told then.
    ///
    /// # Errors
    /// The kernel's.
    pub fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let names = self.list_bytes(path)?;
        Ok(names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect())
    }

    /// The names in a folder as they are, sorted: for who must not leave one out.
    ///
    /// # Errors
    /// The kernel's.
    pub fn list_bytes(&self, path: impl AsRef<Path>) -> io::Result<Vec<OsString>> {
        let dir = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&dir)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Makes a folder and those above it; ones that are there stay as they are.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make_dirs(&self, path: &str, mode: u32) -> io::Result<()> {
        let mut so_far = String::new();
        for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
            if part == ".." {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("`{path}` must not hold `..`"),
                ));
            }
            so_far.push('/');
            so_far.push_str(part);
            if self.metadata(&so_far).is_ok_and(|found| found.is_dir()) {
                continue;
            }
            let (folder, name) = self.parent(&so_far)?;
            rustix::fs::mkdirat(&folder, &*name, Mode::from_raw_mode(mode))?;
        }
        Ok(())
    }

    /// Puts a whole file in place of what `path` names: written beside it, then renamed over it, so that a link or a
    /// device there is replaced and never written through.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write(&self, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        self.write_from(path, &mut &*bytes, mode, None)
    }

    /// As [`RootDir::write`], from a reader, with an owner and group by number.
    ///
    /// # Errors
    /// The reader's or the kernel's.
    pub fn write_from(
        &self,
        path: &str,
        from: &mut dyn Read,
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> io::Result<()> {
        let (folder, name) = self.parent(path)?;
        let mut beside = OsString::from(".");
        beside.push(&name);
        beside.push(format!(".bakehouse-{}", std::process::id()));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let written = (|| {
            let mut file =
                File::from(rustix::fs::openat(&folder, &*beside, flags, Mode::from_raw_mode(0o600))?);
            io::copy(from, &mut file)?;
            file.flush()?;
            if let Some((user, group)) = owner {
                rustix::fs::fchown(file.as_fd(), Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
            }
            // After chown, which clears setuid and setgid.
            rustix::fs::fchmod(file.as_fd(), Mode::from_raw_mode(mode))?;
            rustix::fs::renameat(&folder, &*beside, &folder, &*name)?;
            Ok(())
        })();
        if written.is_err() {
            // Nothing half-written stays; the first error is the one to tell.
            let _ = rustix::fs::unlinkat(&folder, &*beside, AtFlags::empty());
        }
        written
    }

    /// Makes a symbolic link, in place of a file or link that is there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn symlink(&self, target: &str, path: &str) -> io::Result<()> {
        let (folder, name) = self.parent(path)?;
        match rustix::fs::unlinkat(&folder, &*name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(rustix::fs::symlinkat(target, &folder, &*name)?)
    }

    /// Where a symbolic link leads, as it is written.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read_link(&self, path: &str) -> io::Result<String> {
        let (folder, name) = self.parent(path)?;
        let target = rustix::fs::readlinkat(&folder, &*name, Vec::new())?;
        Ok(target.to_string_lossy().into_owned())
    }

    /// Removes a file or link, or a folder with all that is in it; links are not followed. `Ok(false)` where there
    /// was nothing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&self, path: impl AsRef<Path>) -> io::Result<bool> {
        let path = path.as_ref();
        match self.symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
            Ok(found) => {
                let (folder, name) = self.parent(path)?;
                if found.is_dir() {
                    remove_tree(&folder, &CString::new(name.into_vec())?)?;
                } else {
                    rustix::fs::unlinkat(&folder, &*name, AtFlags::empty())?;
                }
            }
        }
        Ok(true)
    }

    /// Removes all that is in a folder and keeps the folder, and says how many entries it had. 0 where there is no
    /// folder of that name, or a link.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove_content(&self, path: impl AsRef<Path>) -> io::Result<usize> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        match self.open_at(path, flags, Mode::empty()) {
            Ok(dir) => empty(&dir),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => Ok(0),
                _ => Err(error),
            },
        }
    }
}

fn remove_tree(folder: &OwnedFd, name: &CStr) -> io::Result<()> {
    empty(&open_folder(folder, name)?)?;
    Ok(rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)?)
}

fn open_folder(folder: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?)
}

/// Removes all that is in an open folder, and says how many entries that were. Names are the kernel's bytes: they need
/// not be UTF-8. Folders within folders are kept in a list: the stack would end before a hostile tree does.
fn empty(dir: &OwnedFd) -> io::Result<usize> {
    let mut removed = 0;
    let mut entries = Dir::read_from(dir)?;
    // Those that are being emptied, each in the one before, with their names.
    let mut inner: Vec<(OwnedFd, Dir, CString)> = Vec::new();
    loop {
        let (folder, entry) = match inner.last_mut() {
            Some((folder, entries, _)) => (&*folder, entries.next()),
            None => (dir, entries.next()),
        };
        let Some(entry) = entry.transpose()? else {
            let Some((_, _, name)) = inner.pop() else { return Ok(removed) };
            let folder = inner.last().map_or(dir, |(folder, _, _)| folder);
            rustix::fs::unlinkat(folder, &name, AtFlags::REMOVEDIR)?;
            continue;
        };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let is_folder = entry.file_type() == rustix::fs::FileType::Directory;
        let opened = is_folder.then(|| open_folder(folder, name)).transpose()?;
        match opened {
            Some(opened) => {
                let entries = Dir::read_from(&opened)?;
                inner.push((opened, entries, name.to_owned()));
            }
            None => rustix::fs::unlinkat(folder, name, AtFlags::empty())?,
        }
        if inner.len() == usize::from(is_folder) {
            removed += 1;
        }
    }
}

/// Folders `d` within each other, and as many files open at a time as that takes.
#[cfg(test)]
pub(crate) fn nest(top: &Path, depth: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
    let open = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = rustix::fs::open(top, open, Mode::empty()).unwrap();
    for _ in 0..depth {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "d", open, Mode::empty()).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn root() -> (tempfile::TempDir, RootDir) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        let root = RootDir::open(&dir.path().join("root")).unwrap();
        (dir, root)
    }

    #[test]
    fn links_and_dots_stay_inside() {
        let (dir, root) = root();
        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        symlink(dir.path().join("secret"), dir.path().join("root/absolute")).unwrap();
        symlink("../secret", dir.path().join("root/relative")).unwrap();
        symlink("..", dir.path().join("root/up")).unwrap();
        for path in ["absolute", "relative", "../secret", "up/secret", "/../secret"] {
            assert_eq!(root.read(path).unwrap_err().kind(), io::ErrorKind::NotFound, "{path}");
        }
    }

    #[test]
    fn a_write_replaces_a_link_and_never_follows_it() {
        let (dir, root) = root();
        std::fs::write(dir.path().join("root/target"), "old").unwrap();
        symlink("target", dir.path().join("root/link")).unwrap();
        root.write("/link", b"new", 0o640).unwrap();
        assert_eq!(std::fs::read(dir.path().join("root/target")).unwrap(), b"old");
        assert_eq!(root.read("link").unwrap(), b"new");
        assert_eq!(root.symlink_metadata("link").unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(root.list("/").unwrap(), ["link", "target"]);
    }

    #[test]
    fn a_fifo_in_place_of_a_file_is_an_error_and_does_not_block() {
        let (dir, root) = root();
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("root/fifo"), Mode::from_raw_mode(0o600))
            .unwrap();
        assert_eq!(root.read("fifo").unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_tree_is_removed_without_following_its_links() {
        let (dir, root) = root();
        std::fs::create_dir(dir.path().join("kept")).unwrap();
        std::fs::write(dir.path().join("kept/file"), "").unwrap();
        root.make_dirs("/a/b", 0o755).unwrap();
        symlink(dir.path().join("kept"), dir.path().join("root/a/b/out")).unwrap();
        assert!(root.remove("/a").unwrap());
        assert!(!root.remove("/a").unwrap());
        assert!(dir.path().join("kept/file").exists());
    }

    #[test]
    fn a_tree_is_removed_however_deep_it_is() {
        let (dir, root) = root();
        nest(&dir.path().join("root"), 2500);
        assert!(root.remove("/d").unwrap() && !root.exists("/d"));
    }

    #[test]
    fn a_folder_is_emptied_whatever_its_names_are() {
        use std::os::unix::ffi::OsStrExt;
        let (dir, root) = root();
        root.make_dirs("/a/b/c", 0o755).unwrap();
        let odd = std::ffi::OsStr::from_bytes(b"not-utf8-\xff");
        std::fs::write(dir.path().join("root/a/b").join(odd), "").unwrap();
        std::fs::write(dir.path().join("root/a").join(odd), "").unwrap();
        assert_eq!(root.remove_content("/a").unwrap(), 2);
        assert_eq!(root.remove_content("/a").unwrap(), 0);
        assert_eq!(root.remove_content("/nowhere").unwrap(), 0);
        assert!(root.exists("/a"));
        std::fs::write(dir.path().join("root/a").join(odd), "").unwrap();
        symlink("a", dir.path().join("root/link")).unwrap();
        assert_eq!(root.remove_content("/link").unwrap(), 0);
        assert!(root.remove("/a").unwrap());
    }
}
