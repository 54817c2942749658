//! Exit codes. They are contracts: README.md lists them, and one exhaustive match makes them.

use std::fmt;

use crate::cloud::{CloudError, ErrorKind, JobFailureKind};
pub use crate::host::error::chain;
use crate::ledger::Left;
use crate::recipe::RecipeErrors;
use crate::recipe::buildspec::BuildspecErrors;

/// Characters of a reason.
const LONGEST_REASON: usize = 1000;
/// What the lines of a message begin with that belong to its reason.
const TOLD: [&str; 3] = ["hint: ", "left behind", "it is not known whether"];

/// How a verb ended that did not succeed. Travels inside an `anyhow::Error`; any other error in one is work that failed.
#[derive(Debug)]
pub enum Failure {
    /// The user's input is wrong.
    Input(String),
    /// A file of the user's is wrong: all of it, and the first of it in a line.
    Wrong { told: String, reason: String },
    /// The work failed.
    Work { message: String, left: Left },
    /// Not allowed, before anything was done: not root.
    Refused(String),
    /// Not allowed, in the middle: credentials, permissions.
    Denied { message: String, left: Left },
    /// Checks of the image failed.
    Checks(String),
    /// A build's commands failed; what they left is their own.
    Build(String),
    /// The cloud is unavailable or throttles: try again.
    Unavailable { message: String, left: Left },
    /// A signal ended it.
    Interrupted { signal: i32, left: Left },
}

impl Failure {
    /// The process's exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Input(_) | Self::Wrong { .. } => 2,
            Self::Work { left: Left::Nothing, .. } | Self::Build(_) => 3,
            Self::Work { left: Left::These(_) | Left::Unknown { .. }, .. }
            | Self::Denied { left: Left::These(_) | Left::Unknown { .. }, .. }
            | Self::Unavailable { left: Left::These(_) | Left::Unknown { .. }, .. }
            | Self::Interrupted { left: Left::These(_) | Left::Unknown { .. }, .. } => 4,
            Self::Refused(_) | Self::Denied { left: Left::Nothing, .. } => 5,
            Self::Checks(_) => 6,
            Self::Unavailable { left: Left::Nothing, .. } => 75,
            Self::Interrupted { signal: libc::SIGTERM, left: Left::Nothing } => 143,
            Self::Interrupted { left: Left::Nothing, .. } => 130,
        }
    }

    /// As CodePipeline sorts it.
    #[must_use]
    pub fn kind(&self) -> JobFailureKind {
        match self {
            Self::Input(_) | Self::Wrong { .. } => JobFailureKind::ConfigurationError,
            Self::Refused(_) | Self::Denied { .. } => JobFailureKind::PermissionError,
            Self::Work { .. } | Self::Checks(_) | Self::Build(_) => JobFailureKind::JobFailed,
            // It was not the work that failed: done again, it may succeed.
            Self::Unavailable { .. } | Self::Interrupted { .. } => JobFailureKind::SystemUnavailable,
        }
    }

    /// What went wrong, in a line, for whoever sees one line alone: what to do about it, and what is left, are in it; of
    /// what a program wrote its last line is.
    #[must_use]
    pub fn reason(&self) -> String {
        if let Self::Wrong { reason, .. } = self {
            return reason.clone();
        }
        let text = self.to_string();
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let mut parts = vec![first.strip_prefix("error: ").unwrap_or(first).to_owned()];
        let (mut listing, mut wrote) = (false, None);
        for line in lines {
            if TOLD.iter().any(|begins| line.starts_with(begins)) {
                parts.push(line.trim_end_matches(':').to_owned());
                listing = true;
            } else if let Some(output) = line.strip_prefix("    ") {
                wrote = Some(output.trim()).filter(|output| !output.is_empty()).or(wrote);
            } else if let (true, Some(one)) = (listing, line.strip_prefix("  ")) {
                parts.extend([one.trim().to_owned()]);
            }
        }
        // Of what a program wrote its last line.
        if let (Some(headline), Some(wrote)) = (parts[0].strip_suffix("; its last lines:"), wrote) {
            parts[0] = format!("{headline}: {wrote}");
        }
        let line = parts.join("; ");
        if line.chars().count() <= LONGEST_REASON {
            return line;
        }
        line.chars().take(LONGEST_REASON - 1).chain(['…']).collect()
    }

    /// The same with `hide` done to its message: no secret may stand in it.
    #[must_use]
    pub fn masked(self, hide: impl Fn(&str) -> String) -> Self {
        match self {
            Self::Input(message) => Self::Input(hide(&message)),
            Self::Wrong { told, reason } => Self::Wrong { told: hide(&told), reason: hide(&reason) },
            Self::Refused(message) => Self::Refused(hide(&message)),
            Self::Checks(message) => Self::Checks(hide(&message)),
            Self::Build(message) => Self::Build(hide(&message)),
            Self::Work { message, left } => Self::Work { message: hide(&message), left },
            Self::Denied { message, left } => Self::Denied { message: hide(&message), left },
            Self::Unavailable { message, left } => Self::Unavailable { message: hide(&message), left },
            Self::Interrupted { signal, left } => Self::Interrupted { signal, left },
        }
    }

    /// A failure of some work, sorted by what the error's chain holds.
    #[must_use]
    pub fn of(error: &(dyn std::error::Error + 'static), left: Left) -> Self {
        let mut message = with_advice(chain(error));
        let mut cause = Some(error);
        while let Some(current) = cause {
            if let Some(cloud) = current.downcast_ref::<CloudError>() {
                if let Some(advice) = &cloud.advice {
                    message = format!("{message}\nhint: {advice}");
                }
                match cloud.kind {
                    ErrorKind::Denied => return Self::Denied { message, left },
                    ErrorKind::Throttled | ErrorKind::Transient | ErrorKind::Capacity => {
                        return Self::Unavailable { message, left };
                    }
                    ErrorKind::NotFound
                    | ErrorKind::NotYet
                    | ErrorKind::Exists
                    | ErrorKind::InUse
                    | ErrorKind::Quota
                    | ErrorKind::Invalid
                    | ErrorKind::Unknown => {}
                }
            }
            cause = current.source();
        }
        Self::Work { message, left }
    }
}

impl From<&RecipeErrors> for Failure {
    fn from(errors: &RecipeErrors) -> Self {
        match errors {
            RecipeErrors::Wrong(problems) => {
                Self::Wrong { told: errors.to_string(), reason: problems.reason() }
            }
            other => Self::Input(chain(other)),
        }
    }
}

impl From<&BuildspecErrors> for Failure {
    fn from(errors: &BuildspecErrors) -> Self {
        match errors {
            BuildspecErrors::Wrong(problems) => {
                Self::Wrong { told: errors.to_string(), reason: problems.reason() }
            }
            other => Self::Input(chain(other)),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast() {
            Ok(failure) => failure,
            Err(error) => Self::of(error.as_ref(), Left::Nothing),
        }
    }
}

impl std::error::Error for Failure {}

/// For a person: what went wrong, and what is left.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(message)
            | Self::Wrong { told: message, .. }
            | Self::Refused(message)
            | Self::Checks(message)
            | Self::Build(message) => f.write_str(message),
            Self::Work { message, left } | Self::Denied { message, left } => write!(f, "{message}\n{left}"),
            Self::Unavailable { message, left } => write!(f, "{message}\n{left}; try again"),
            Self::Interrupted { signal, left } => {
                let name = match *signal {
                    libc::SIGTERM => "SIGTERM",
                    libc::SIGHUP => "SIGHUP",
                    _ => "SIGINT",
                };
                write!(f, "interrupted by {name}; {left}")
            }
        }
    }
}

/// What to do where a file system of the host is full.
pub const NO_ROOM: &str = "free some space, or name folders with more of it: --work, --local=STORE";

/// What the machine lacks, said with what to do about it, on a line of its own: the message may end with a program's.
fn with_advice(message: String) -> String {
    const NETWORK: &str = "is the network there? the distribution's mirrors must be reached";
    const ADVICE: [(&str, &str); 4] = [
        ("No space left on device", NO_ROOM),
        ("Temporary failure resolving", NETWORK),
        ("Could not resolve", NETWORK),
        ("Too many open files", "raise the limit: ulimit -n"),
    ];
    // A step's own error has its advice already.
    let said = ["disk.size", "is the network there?"].iter().any(|said| message.contains(said));
    match ADVICE.iter().find(|(sign, _)| message.contains(sign)) {
        Some((_, what)) if !said => format!("{message}\nhint: {what}"),
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_lacks_is_told_with_what_to_do() {
        let told = |text: &str| with_advice(text.to_owned());
        assert!(
            told("cannot write: No space left on device (os error 28)").contains("\nhint: free some space")
        );
        assert!(
            told("E: Temporary failure resolving 'archive.example'")
                .contains("\nhint: is the network there?")
        );
        assert_eq!(told("No space left on device; set a larger `disk.size`").matches("hint").count(), 0);
        assert_eq!(told("exit code 1"), "exit code 1");
    }

    /// An error that is transparent gives its cause's cause as its own, and hides what it wraps from whoever looks for it.
    #[test]
    fn a_clouds_error_decides_the_code_wherever_it_is_in_the_chain() {
        use crate::cloud::{AccountId, Partition, Place, Region};
        use crate::disk::TransferError;
        use crate::method::{BakeCause, BakeError};
        use crate::plan::FactsError;
        let place = Place {
            partition: Partition::local(),
            account: AccountId::parse("000000000000").unwrap(),
            region: Region::parse("local").unwrap(),
        };
        for (kind, code) in [(ErrorKind::Denied, 5), (ErrorKind::Transient, 75), (ErrorKind::Quota, 3)] {
            let cloud = || CloudError::new(kind, "PutSnapshotBlock", &place, "no");
            let errors: [Box<dyn std::error::Error>; 4] = [
                Box::new(cloud()),
                Box::new(BakeError::from(cloud())),
                Box::new(BakeError::from(BakeCause::from(TransferError::from(cloud())))),
                Box::new(FactsError::from(cloud())),
            ];
            for error in errors {
                let failure = Failure::of(error.as_ref(), Left::Nothing);
                assert_eq!(failure.code(), code, "{error:?}");
                assert_eq!(failure.to_string().matches("PutSnapshotBlock").count(), 1, "{failure}");
            }
        }
    }

    #[test]
    fn a_reason_is_one_line() {
        let failed = |message: &str, left| Failure::Work { message: message.into(), left }.reason();
        assert_eq!(failed("step 2 (shell) failed", Left::Nothing), "step 2 (shell) failed");
        let message = "step 2 (packages) failed: `apt-get` failed with exit code 100; its last lines:\n    Reading\n    \
                       E: no package x\nhint: is it there?";
        let left = Left::These(vec!["snap-1".into(), "snap-2".into()]);
        let begins = "step 2 (packages) failed: `apt-get` failed with exit code 100: E: no package x; hint: is it there?; ";
        let reason = failed(message, left);
        assert_eq!(
            reason.strip_prefix(begins),
            Some("left behind (`bakehouse sweep` removes what it may); snap-1; snap-2")
        );
        assert_eq!(failed(&"ä".repeat(5000), Left::Nothing).chars().count(), LONGEST_REASON);
        let wrong = Failure::Wrong { told: "error: all\n of it".into(), reason: "bake.yml:2:1: x".into() };
        assert_eq!(
            (wrong.reason().as_str(), wrong.kind()),
            ("bake.yml:2:1: x", JobFailureKind::ConfigurationError)
        );
    }

    #[test]
    fn every_failure_has_its_documented_code() {
        let some = || Left::These(vec!["snap-1".into()]);
        let unknown = || Left::Unknown { these: Vec::new(), unseen: vec!["snapshots".into()] };
        let cases = [
            (Failure::Input(String::new()), 2),
            (Failure::Wrong { told: String::new(), reason: String::new() }, 2),
            (Failure::Work { message: String::new(), left: Left::Nothing }, 3),
            (Failure::Work { message: String::new(), left: some() }, 4),
            (Failure::Refused(String::new()), 5),
            (Failure::Denied { message: String::new(), left: Left::Nothing }, 5),
            (Failure::Denied { message: String::new(), left: some() }, 4),
            (Failure::Checks(String::new()), 6),
            (Failure::Build(String::new()), 3),
            (Failure::Unavailable { message: String::new(), left: Left::Nothing }, 75),
            (Failure::Interrupted { signal: libc::SIGINT, left: Left::Nothing }, 130),
            (Failure::Interrupted { signal: libc::SIGTERM, left: Left::Nothing }, 143),
            // A hangup is an interruption like the user's own.
            (Failure::Interrupted { signal: libc::SIGHUP, left: Left::Nothing }, 130),
            (Failure::Interrupted { signal: libc::SIGTERM, left: some() }, 4),
            (Failure::Work { message: String::new(), left: unknown() }, 4),
            (Failure::Denied { message: String::new(), left: unknown() }, 4),
        ];
        for (failure, code) in cases {
            assert_eq!(failure.code(), code, "{failure:?}");
            // What is left is always told, but where nothing was done that could leave anything.
            let silent = matches!(
                failure,
                Failure::Input(_)
                    | Failure::Wrong { .. }
                    | Failure::Refused(_)
                    | Failure::Checks(_)
                    | Failure::Build(_)
            );
            assert_eq!(failure.to_string().contains("left behind"), !silent, "{failure:?}");
        }
    }
}
