//! This test binary as another process: it runs one test again, which sees that it is the child and plays its part.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const FOLDER: &str = "BAKEHOUSE_TEST_CHILD_FOLDER";
const PART: &str = "BAKEHOUSE_TEST_CHILD_PART";

/// What the child is told: the folder to work in and its part.
pub(crate) fn part() -> Option<(PathBuf, String)> {
    let folder = std::env::var_os(FOLDER)?;
    Some((folder.into(), std::env::var(PART).unwrap()))
}

/// Starts `test`, with its full name, as a child. Its lines come through its standard output.
pub(crate) fn start(test: &str, folder: &Path, part: &str) -> Child {
    #[expect(
        clippy::disallowed_methods,
        reason = "the tests end their children with SIGKILL, which host::exec spares a command"
    )]
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(PART, part)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}
