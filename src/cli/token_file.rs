//! The token of a stage that waits, in a file beside the record: `test.token`. It is there as long as the stage waits.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::exit::{Failure, chain};
use crate::host::file;
use crate::stage::{StageToken, TokenError};

/// Where a stage's token is kept.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    /// The token that this process read or wrote: another process's is not taken away.
    own: Option<StageToken>,
}

impl TokenFile {
    /// Of `stage`, beside the record at `record`.
    #[must_use]
    pub fn beside(record: &Path, stage: &str) -> Self {
        Self { path: record.with_file_name(format!("{stage}.token")), own: None }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is kept there; `None` where nothing waits.
    ///
    /// # Errors
    /// [`Failure`]: not readable; [`TokenError`] as the inner result, so that beginning anew can pass over it.
    pub fn read(&mut self) -> anyhow::Result<Option<Result<StageToken, TokenError>>> {
        let text = match kept(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let message = format!("cannot read {}: {error}", self.path.display());
                return Err(Failure::Input(message).into());
            }
        };
        let token = StageToken::parse(&text);
        self.own = token.as_ref().ok().cloned();
        Ok(Some(token))
    }

    /// Keeps a token, whole or not at all. Who may read it may end the test's instance with it: nobody else may.
    ///
    /// # Errors
    /// The kernel's.
    pub fn keep(&mut self, token: &StageToken) -> io::Result<()> {
        if self.own.as_ref() != Some(token) {
            file::replace(&self.path, format!("{token}\n").as_bytes(), 0o600)?;
            self.own = Some(token.clone());
        }
        Ok(())
    }

    /// Takes the file away, where it still holds this process's token.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&self) -> io::Result<()> {
        let found = kept(&self.path).ok().and_then(|text| StageToken::parse(&text).ok());
        if found.is_some() && found == self.own { std::fs::remove_file(&self.path) } else { Ok(()) }
    }
}

/// A token as an option gives it: itself, or `@FILE`.
///
/// # Errors
/// [`Failure::Input`]
pub fn given(text: &str) -> anyhow::Result<StageToken> {
    let read = match text.strip_prefix('@') {
        // A pipe is as good as a file here: `--token @<(…)`.
        Some(file) => {
            File::open(file).and_then(bounded).map_err(|error| format!("cannot read {file}: {error}"))
        }
        None => Ok(text.to_owned()),
    };
    let token = read.and_then(|text| StageToken::parse(&text).map_err(|error| chain(&error)));
    Ok(token.map_err(|error| Failure::Input(format!("--token: {error}")))?)
}

fn kept(path: &Path) -> io::Result<String> {
    bounded(file::open(path)?)
}

/// The beginning of a file, a little more than the longest token has: what is cut is damaged anyway.
fn bounded(file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(2 * StageToken::LONGEST as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{AccountId, ImageId, ImageRef, Partition, Place, Region};
    use crate::stage::Claims;

    fn token(bake: &str) -> StageToken {
        let (partition, account) = (Partition::local(), AccountId::parse("000000000000").unwrap());
        let place = Place { partition, account, region: Region::parse("local").unwrap() };
        let image = ImageRef { place, id: ImageId::parse("ami-01234567").unwrap() };
        StageToken::of(&Claims { stage: "test".into(), bake: bake.into(), image, needs: 1 }).unwrap()
    }

    #[test]
    fn a_token_is_kept_found_and_taken_away_by_whoever_it_belongs_to() {
        let dir = tempfile::tempdir().unwrap();
        let file = || TokenFile::beside(&dir.path().join("image.json"), "test");
        let mut first = file();
        assert!(first.read().unwrap().is_none());
        first.remove().unwrap();
        first.keep(&token("a")).unwrap();
        let mut second = file();
        assert_eq!(second.read().unwrap(), Some(Ok(token("a"))));
        let from_file = given(&format!("@{}", second.path().display())).unwrap();
        assert_eq!(from_file, given(token("a").as_str()).unwrap());
        // A later one replaces it, and stays when the earlier process ends.
        second.keep(&token("b")).unwrap();
        first.remove().unwrap();
        assert_eq!(file().read().unwrap(), Some(Ok(token("b"))));
        second.remove().unwrap();
        assert!(file().read().unwrap().is_none());
    }

    #[test]
    fn what_is_no_token_is_told_and_a_device_without_end_is_read_to_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = TokenFile::beside(&dir.path().join("image.json"), "test");
        std::fs::write(file.path(), b"\xff\xfe").unwrap();
        assert!(matches!(file.read().unwrap(), Some(Err(TokenError::Damaged(_)))));
        file.remove().unwrap();
        assert!(file.path().exists());
        for text in ["", "x", "@/dev/zero", "@/nowhere/at/all"] {
            let error = given(text).unwrap_err();
            assert!(matches!(error.downcast_ref(), Some(Failure::Input(_))), "{text}");
        }
    }
}
