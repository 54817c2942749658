//! The key that let commands into the machine while it was made, where there was one.

use std::io;

use super::{SealError, Sealed};
use crate::host::root_dir::RootDir;

const FOLDER: &str = "/root/.ssh";
const KEYS: &str = "/root/.ssh/authorized_keys";

/// Takes the lines out of root's keys that end with the comment `mark`; a file that holds nothing else goes, and a folder
/// that holds nothing else.
///
/// # Errors
/// Where the file cannot be read or written.
pub fn remove_build_key(root: &RootDir, mark: &str) -> Result<Option<Sealed>, SealError> {
    let failed = |source| SealError::file("take a key out of", KEYS, source);
    let (text, about) = match (root.read_text(KEYS), root.metadata(KEYS)) {
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        (text, about) => (text.map_err(failed)?, about.map_err(failed)?),
    };
    let ours = |line: &str| line.trim_end().ends_with(&format!(" {mark}"));
    if !text.lines().any(ours) {
        return Ok(None);
    }
    let rest: String = text.lines().filter(|line| !ours(line)).map(|line| format!("{line}\n")).collect();
    if rest.trim().is_empty() {
        root.remove(KEYS).map_err(failed)?;
        if root.list(FOLDER).map_err(failed)?.is_empty() {
            root.remove(FOLDER).map_err(failed)?;
        }
    } else {
        use std::os::unix::fs::PermissionsExt;
        root.write(KEYS, rest.as_bytes(), about.permissions().mode() & 0o7777).map_err(failed)?;
    }
    Ok(Some(Sealed { what: "the key by which commands came in".to_owned(), path: KEYS.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_with_the_mark_goes_and_what_held_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = RootDir::open(folder.path()).unwrap();
        assert_eq!(remove_build_key(&root, "mark").unwrap(), None);
        root.make_dirs(FOLDER, 0o700).unwrap();
        root.write(KEYS, b"ssh-ed25519 A me\nssh-ed25519 B mark\n", 0o600).unwrap();
        assert!(remove_build_key(&root, "mark").unwrap().is_some());
        assert_eq!(root.read_text(KEYS).unwrap(), "ssh-ed25519 A me\n");
        assert_eq!(remove_build_key(&root, "mark").unwrap(), None);
        root.write(KEYS, b"ssh-ed25519 B mark\n", 0o600).unwrap();
        assert!(remove_build_key(&root, "mark").unwrap().is_some());
        assert!(!root.exists(FOLDER));
    }
}
