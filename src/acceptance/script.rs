//! The user data of a boot test: the checks as a shell script that cloud-init runs as root in the guest. What the
//! script does stands in `guest.sh`; here are its settings and one function for each check.

use std::fmt::Write as _;
use std::io::Write as _;

use super::frame;
use super::in_root::{parse_mode, split_owner};
use super::unit;
use super::version::Requirement;
use crate::recipe::{Check, CommandCheck, FileCheck, PackageCheck};

const GUEST: &str = include_str!("guest.sh");
/// Bytes of user data that EC2 takes, as they are sent.
pub const LARGEST_USER_DATA: usize = 16 * 1024;

/// Seconds beyond the deadline after which the guest powers itself off, which ends its instance: a little longer than
/// the instance's whole life, in which it is ended by whoever launched it.
const LIFE: u64 = 180;

/// What is asked of the guest.
#[derive(Clone, Debug)]
pub struct Script<'a> {
    pub checks: &'a [Check],
    /// Tells this boot's answer from any other's: letters and digits.
    pub nonce: &'a str,
    /// Seconds of uptime until which checks may wait for what they need.
    pub deadline: u64,
    /// A file to write to; `None`: the guest's serial consoles.
    pub console: Option<&'a str>,
}

impl Script<'_> {
    /// The script.
    ///
    /// # Errors
    /// [`ScriptError::Nul`], where a check holds what no shell can.
    pub fn text(&self) -> Result<String, ScriptError> {
        let mut text = String::from("#!/bin/sh\n");
        // Services and ports first: they wait, and what they wait for is what the others may look at.
        let waits = |check: &Check| matches!(check, Check::Service(_) | Check::Port(_));
        let mut order: Vec<usize> = (0..self.checks.len()).collect();
        order.sort_by_key(|at| !waits(&self.checks[*at]));
        let order: Vec<String> = order.iter().map(usize::to_string).collect();
        // A file instead of the consoles: that is no machine of its own, and must never be powered off.
        let life = match self.console {
            Some(_) => String::new(),
            None => self.deadline.saturating_add(LIFE).to_string(),
        };
        for (name, value) in [
            ("magic", frame::MAGIC),
            ("life", &life),
            ("nonce", self.nonce),
            ("deadline", &self.deadline.to_string()),
            ("largest", &frame::LARGEST.to_string()),
            ("order", &order.join(" ")),
            ("consoles", self.console.unwrap_or_default()),
        ] {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name}={}", quoted(value));
        }
        text.push_str(GUEST);
        for (at, check) in self.checks.iter().enumerate() {
            let call = call(check);
            if call.contains('\0') {
                return Err(ScriptError::Nul { name: super::outcome::name(check) });
            }
            let _ = writeln!(text, "check_{at}() {{ {call}; }}");
        }
        text.push_str("main \"$@\"\n");
        Ok(text)
    }

    /// The script as user data: packed, which cloud-init unpacks.
    ///
    /// # Errors
    /// Those of [`Script::text`], or [`ScriptError::TooLarge`].
    pub fn user_data(&self) -> Result<Vec<u8>, ScriptError> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let packed = packer
            .write_all(self.text()?.as_bytes())
            .and_then(|()| packer.finish())
            .map_err(ScriptError::Pack)?;
        if packed.len() > LARGEST_USER_DATA {
            return Err(ScriptError::TooLarge {
                bytes: packed.len(),
                over: packed.len() - LARGEST_USER_DATA,
            });
        }
        Ok(packed)
    }
}

/// The call that judges a check.
fn call(check: &Check) -> String {
    match check {
        Check::Package(package) => package_call(package),
        Check::File(file) => file_call(file),
        Check::Service(service) if !unit::is_name(&service.name) => {
            fail(&format!("`{}` is not the name of a unit", service.name))
        }
        Check::Service(service) => words(
            "service",
            &[&unit::full_name(&service.name), yes_no(service.enabled), yes_no(service.running)],
        ),
        Check::Port(port) => format!("port {:04X}", port.tcp),
        Check::Command(command) => command_call(command),
    }
}

fn package_call(check: &PackageCheck) -> String {
    // dpkg-query takes patterns: a name that is none would match others.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+.-:".contains(&byte);
    if check.name.is_empty() || check.name.starts_with('-') || !check.name.bytes().all(plain) {
        return fail(&format!("`{}` is not the name of a package", check.name));
    }
    let wanted = match check.version.as_deref().map(Requirement::parse) {
        None => None,
        Some(Ok(wanted)) => Some(wanted),
        Some(Err(wrong)) => return fail(&wrong),
    };
    let (relation, version) =
        wanted.as_ref().map_or(("", ""), |wanted| (wanted.word(), wanted.version.as_str()));
    let demand = wanted.as_ref().map(ToString::to_string).unwrap_or_default();
    words("package", &[&check.name, yes_no(Some(check.installed != Some(false))), relation, version, &demand])
}

fn file_call(check: &FileCheck) -> String {
    if !check.path.starts_with('/') {
        return fail("the path must begin with /");
    }
    let mode = match check.mode.as_deref().map(|text| (text, parse_mode(text))) {
        None => String::new(),
        // As stat(1) writes it: without leading zeros.
        Some((_, Some(mode))) => format!("{mode:o}"),
        Some((text, None)) => return fail(&format!("`{text}` is no mode; write octal digits: \"0644\"")),
    };
    let (user, group) = check.owner.as_deref().map_or(("", None), split_owner);
    words(
        "file",
        &[
            &check.path,
            yes_no(Some(check.exists != Some(false))),
            &mode,
            user,
            group.unwrap_or_default(),
            check.contains.as_deref().unwrap_or_default(),
        ],
    )
}

fn command_call(check: &CommandCheck) -> String {
    let is = |text: &Option<String>| yes_no(text.is_some().then_some(true));
    words(
        "command_is",
        &[
            &check.run,
            &check.exit.unwrap_or(0).to_string(),
            is(&check.stdout),
            check.stdout.as_deref().unwrap_or_default().trim(),
            is(&check.contains),
            check.contains.as_deref().unwrap_or_default(),
        ],
    )
}

fn fail(reason: &str) -> String {
    words("fail", &[reason])
}

fn yes_no(is: Option<bool>) -> &'static str {
    match is {
        None => "",
        Some(true) => "yes",
        Some(false) => "no",
    }
}

fn words(function: &str, words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("{function} {}", quoted.join(" "))
}

/// One word for a shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Why there is no user data.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    #[error("the check `{name}` holds a NUL character, which no shell can take")]
    Nul { name: String },
    #[error(
        "the checks make {bytes} bytes of user data, {over} more than the 16384 that EC2 takes: shorten them, or put a script into the image and run that"
    )]
    TooLarge { bytes: usize, over: usize },
    #[error("cannot pack the checks")]
    Pack(#[source] std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{PortCheck, ServiceCheck};

    fn script(checks: &[Check]) -> Script<'_> {
        Script { checks, nonce: "n0", deadline: 100, console: None }
    }

    fn command(run: &str) -> Check {
        Check::Command(CommandCheck { run: run.into(), exit: None, stdout: None, contains: None })
    }

    #[test]
    fn what_waits_comes_first_and_keeps_its_number() {
        let checks = [
            command("true"),
            Check::Port(PortCheck { tcp: 80 }),
            Check::Service(ServiceCheck { name: "ssh".into(), enabled: Some(true), running: None }),
        ];
        let text = script(&checks).text().unwrap();
        assert!(text.contains("order='1 2 0'\n"));
        assert!(text.contains("check_1() { port 0050; }\n"));
        assert!(text.contains("check_2() { service 'ssh.service' 'yes' ''; }\n"));
    }

    #[test]
    fn a_machine_of_its_own_ends_by_itself_and_no_other() {
        let own = script(&[]).text().unwrap();
        assert!(own.contains("life='280'\n"), "{own}");
        let other = Script { console: Some("/tmp/console"), ..script(&[]) }.text().unwrap();
        assert!(other.contains("life=''\n"), "{other}");
    }

    #[test]
    fn texts_cannot_leave_their_quotes() {
        let checks = [command("echo 'a'; $(reboot)\n\"`id`\"")];
        let text = script(&checks).text().unwrap();
        assert!(text.contains("command_is 'echo '\\''a'\\''; $(reboot)\n\"`id`\"' '0'"), "{text}");
    }

    #[test]
    fn names_that_are_none_never_reach_a_tool() {
        let package = |name: &str| {
            call(&Check::Package(PackageCheck { name: name.into(), version: None, installed: None }))
        };
        for bad in ["", "*", "-W", "a b", "a[b]"] {
            assert!(package(bad).starts_with("fail "), "{bad}");
        }
        assert_eq!(package("libc6:amd64"), "package 'libc6:amd64' 'yes' '' '' ''");
    }

    #[test]
    fn too_much_is_an_error_that_says_how_much() {
        // Nothing that packs well.
        let noise: String = (0..3000_u32)
            .map(|n| hex::encode(sha2::Digest::finalize(sha2::Sha256::new_with_prefix(n.to_le_bytes()))))
            .collect();
        use sha2::Digest as _;
        let error = script(&[command(&noise)]).user_data().unwrap_err();
        assert!(matches!(error, ScriptError::TooLarge { bytes, over } if bytes - over == 16_384));
        assert!(matches!(script(&[command("a\0b")]).text(), Err(ScriptError::Nul { .. })));
        let small = script(&[command("true")]).user_data().unwrap();
        // Room for checks: the guest's own part must stay small.
        assert!(small.len() < 4096, "{}", small.len());
    }
}
