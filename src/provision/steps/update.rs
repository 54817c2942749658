//! `update`: brings the root's packages up to date.

use super::attempt::Attempt;
use super::{StepError, apt, sources};
use crate::provision::root::RootError;
use crate::recipe::UpdateScope;

/// In memory: /run is a tmpfs while steps run.
const SECURITY: &str = "/run/bakehouse/security";

pub(super) async fn run(attempt: &Attempt<'_>, scope: UpdateScope) -> Result<(), StepError> {
    apt::needed(attempt)?;
    attempt.session.apt.fetch(attempt).await?;
    match scope {
        UpdateScope::All => attempt.run("apt-get full-upgrade", apt::apt_get(["full-upgrade"])).await,
        UpdateScope::Security => security(attempt).await,
    }
}

/// apt sees nothing but the security suites, so what it installs can come from nowhere else. The lists of all suites
/// were fetched; those of the ones it does not see stay unread.
async fn security(attempt: &Attempt<'_>) -> Result<(), StepError> {
    let root = attempt.root().dir();
    let Some(security) = sources::security(root)? else {
        return Err(StepError::Lacks {
            what: "package source whose suite is for security updates (bookworm-security, noble-security)",
            instead: "add one, or use `update: all`",
        });
    };
    root.make_dirs(SECURITY, 0o755)
        .and_then(|()| root.write(&format!("{SECURITY}/security.list"), security.list.as_bytes(), 0o644))
        .and_then(|()| {
            root.write(&format!("{SECURITY}/security.sources"), security.sources.as_bytes(), 0o644)
        })
        .map_err(|source| RootError::file("write", SECURITY, source))?;
    let parts = format!("Dir::Etc::SourceParts={SECURITY}");
    // A new kernel is a new package that the installed one of a fixed name depends on.
    let args = ["-o", "Dir::Etc::SourceList=/dev/null", "-o", &parts, "--with-new-pkgs", "upgrade"];
    attempt.run("apt-get upgrade", apt::apt_get(args)).await
}
