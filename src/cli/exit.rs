//! Exit codes. They are contracts: README.md lists them, and one exhaustive match makes them.

use std::fmt;

use crate::cloud::{CloudError, ErrorKind};
pub use crate::host::error::chain;
use crate::ledger::Left;

/// How a verb ended that did not succeed. Travels inside an `anyhow::Error`; any other error in one is work that failed.
#[derive(Debug)]
pub enum Failure {
    /// The user's input is wrong.
    Input(String),
    /// The work failed.
    Work { message: String, left: Left },
    /// Not allowed, before anything was done: not root.
    Refused(String),
    /// Not allowed, in the middle: credentials, permissions.
    Denied { message: String, left: Left },
    /// Checks of the image failed.
    Checks(String),
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
            Self::Input(_) => 2,
            Self::Work { left: Left::Nothing, .. } => 3,
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

    /// The same with `hide` done to its message: no secret may stand in it.
    #[must_use]
    pub fn masked(self, hide: impl Fn(&str) -> String) -> Self {
        match self {
            Self::Input(message) => Self::Input(hide(&message)),
            Self::Refused(message) => Self::Refused(hide(&message)),
            Self::Checks(message) => Self::Checks(hide(&message)),
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
            Self::Input(message) | Self::Refused(message) | Self::Checks(message) => f.write_str(message),
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
    fn every_failure_has_its_documented_code() {
        let some = || Left::These(vec!["snap-1".into()]);
        let unknown = || Left::Unknown { these: Vec::new(), unseen: vec!["snapshots".into()] };
        let cases = [
            (Failure::Input(String::new()), 2),
            (Failure::Work { message: String::new(), left: Left::Nothing }, 3),
            (Failure::Work { message: String::new(), left: some() }, 4),
            (Failure::Refused(String::new()), 5),
            (Failure::Denied { message: String::new(), left: Left::Nothing }, 5),
            (Failure::Denied { message: String::new(), left: some() }, 4),
            (Failure::Checks(String::new()), 6),
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
            let silent = matches!(failure, Failure::Input(_) | Failure::Refused(_) | Failure::Checks(_));
            assert_eq!(failure.to_string().contains("left behind"), !silent, "{failure:?}");
        }
    }
}
