//! `update`: brings the root's packages up to date.

use async_trait::async_trait;

use super::attempt::Attempt;
use super::{Runs, StepError};
use crate::provision::packages::{Invocation, PackageManager};
use crate::provision::root::RootFacts;
use crate::recipe::{Update, UpdateScope};

/// What Amazon Linux 2023 calls its newest release.
const LATEST: &str = "latest";

#[async_trait]
impl Runs for Update {
    async fn run(&self, attempt: &Attempt<'_>) -> Result<(), StepError> {
        let manager = attempt.package_manager()?;
        let release = release(attempt.root().facts(), self.release())?;
        attempt.session.metadata.fetch(attempt, manager).await?;
        if self.scope() == UpdateScope::Security
            && let Some(list) = manager.advisories(release)
        {
            look_for_advisories(attempt, manager, list).await?;
        }
        attempt.invoke(manager.update(attempt.root(), self.scope(), release)?).await
    }
}

/// Amazon Linux 2023 gets packages from the release that the image has, for ever the same ones, unless the command
/// names another (its User Guide: deterministic upgrades through versioned repositories).
fn release<'a>(facts: &RootFacts, wanted: Option<&'a str>) -> Result<Option<&'a str>, StepError> {
    let locked = facts.distribution == "amzn" && facts.version == "2023";
    match wanted {
        Some(release) if !locked => {
            let found = format!("{} {}", facts.distribution, facts.version);
            let found =
                if found.trim().is_empty() { "a system that does not say what it is" } else { found.trim() };
            let wrong =
                format!("is a release of Amazon Linux 2023, and the root is {found}; leave `release` out");
            Err(StepError::recipe("release", release, wrong))
        }
        None if locked => Ok(Some(LATEST)),
        wanted => Ok(wanted),
    }
}

/// Says where an update for security will find nothing, since no source tells what is for security (CentOS Stream's
/// do not): that looks like an image without a hole.
async fn look_for_advisories(
    attempt: &Attempt<'_>,
    manager: &dyn PackageManager,
    list: Invocation,
) -> Result<(), StepError> {
    // dnf: `Important/Sec.`; dnf5 and zypper have a column that says `security`.
    let tells = |line: &str| line.contains("Sec.") || line.to_ascii_lowercase().contains("security");
    let mut found = false;
    attempt.run_lines(&list.name, list.command, &mut |line| found |= tells(line)).await?;
    if !found {
        attempt.context().reporter.warning(format!(
            "{} knows of no security update for any package of the image, not even one that is installed: \
             its package sources may not say which updates are for security; then use `update: all`",
            manager.program()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(distribution: &str, version: &str) -> RootFacts {
        RootFacts {
            distribution: distribution.into(),
            version: version.into(),
            codename: String::new(),
            package_manager: None,
            systemd: true,
        }
    }

    #[test]
    fn only_amazon_linux_2023_has_releases_to_choose() {
        let amazon = facts("amzn", "2023");
        assert_eq!(release(&amazon, None).unwrap(), Some("latest"));
        assert_eq!(release(&amazon, Some("2023.6.20241212")).unwrap(), Some("2023.6.20241212"));
        assert_eq!(release(&facts("amzn", "2"), None).unwrap(), None);
        assert_eq!(release(&facts("debian", "12"), None).unwrap(), None);
        for (other, named) in [
            (facts("debian", "12"), "debian 12"),
            (facts("amzn", "2"), "amzn 2"),
            (facts("", ""), "a system that"),
        ] {
            let error = release(&other, Some("2023.6.20241212")).unwrap_err().to_string();
            assert!(
                error.starts_with("`release: 2023.6.20241212` is a release of Amazon Linux 2023"),
                "{error}"
            );
            assert!(error.contains(named), "{error}");
        }
    }
}
