//! `services`: which services start when the image boots.

use async_trait::async_trait;

use super::attempt::Attempt;
use super::{Runs, StepError};
use crate::provision::root::RootCommand;
use crate::recipe::Services;

#[async_trait]
impl Runs for Services {
    async fn run(&self, attempt: &Attempt<'_>) -> Result<(), StepError> {
        if !attempt.root().facts().systemd {
            return Err(StepError::Lacks {
                what: "systemd",
                instead: "services need it; use a shell step for another init",
            });
        }
        for (key, names) in [("mask", &self.mask), ("disable", &self.disable), ("enable", &self.enable)] {
            if names.is_empty() {
                continue;
            }
            for name in names {
                check_name(key, name)?;
            }
            // With --root systemctl works on the unit files alone and asks no running systemd.
            let words = ["systemctl", "--root=/", key, "--"].into_iter().map(str::to_owned);
            let command = RootCommand::new(words.chain(names.iter().cloned()));
            attempt.run(&format!("systemctl {key}"), command).await?;
        }
        Ok(())
    }
}

/// As systemd.unit(5) has unit names.
fn check_name(key: &'static str, name: &str) -> Result<(), StepError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if !name.is_empty() && !name.starts_with('-') && name.len() < 256 && name.chars().all(fine) {
        return Ok(());
    }
    Err(StepError::recipe(key, name, "is not a unit's name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_name_is_no_option_and_no_path() {
        for name in ["nginx", "getty@tty1.service", "dev-sda.mount", r"a\x2db.timer"] {
            check_name("enable", name).unwrap();
        }
        for name in ["", "--now", "../x", "/etc/x.service", "a b"] {
            assert!(check_name("enable", name).is_err(), "{name}");
        }
    }
}
