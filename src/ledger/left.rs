//! What an error left behind. An error always says it: nothing, these, or that nobody can tell.

use std::fmt;

/// What is left of a piece of work that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Left {
    /// Everything that was created is gone again.
    #[default]
    Nothing,
    /// These are still there, each with why.
    These(Vec<String>),
    /// A look failed: beside `these` there may be more, of what `unseen` says.
    Unknown { these: Vec<String>, unseen: Vec<String> },
}

impl Left {
    pub fn add(&mut self, what: impl Into<String>) {
        match self {
            Self::Nothing => *self = Self::These(vec![what.into()]),
            Self::These(these) | Self::Unknown { these, .. } => these.push(what.into()),
        }
    }

    /// Where a look failed, and why.
    pub fn add_unseen(&mut self, what: impl Into<String>) {
        if let Self::Unknown { unseen, .. } = self {
            unseen.push(what.into());
            return;
        }
        let these = match std::mem::take(self) {
            Self::These(these) => these,
            Self::Nothing | Self::Unknown { .. } => Vec::new(),
        };
        *self = Self::Unknown { these, unseen: vec![what.into()] };
    }

    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        let (these, unseen) = match other {
            Self::Nothing => (Vec::new(), Vec::new()),
            Self::These(these) => (these, Vec::new()),
            Self::Unknown { these, unseen } => (these, unseen),
        };
        for what in these {
            self.add(what);
        }
        for what in unseen {
            self.add_unseen(what);
        }
        self
    }

    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |f: &mut fmt::Formatter<'_>, these: &[String]| {
            write!(f, "left behind (`bakehouse sweep` removes what it may):\n  {}", these.join("\n  "))
        };
        match self {
            Self::Nothing => f.write_str("nothing was left behind"),
            Self::These(these) => listed(f, these),
            Self::Unknown { these, unseen } => {
                if !these.is_empty() {
                    listed(f, these)?;
                    f.write_str("\n")?;
                }
                write!(
                    f,
                    "it is not known whether anything else was left behind (`bakehouse sweep` looks again):\n  {}",
                    unseen.join("\n  ")
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_adds_up_and_is_told() {
        let mut left = Left::Nothing;
        assert!(left.is_nothing());
        assert_eq!(left.to_string(), "nothing was left behind");
        left.add("snap-1");
        let mut other = Left::Nothing;
        other.add_unseen("snapshots in local: no answer");
        other.add("/var/tmp/x");
        let both = left.clone().and(other).and(Left::Nothing);
        assert_eq!(
            both,
            Left::Unknown {
                these: vec!["snap-1".into(), "/var/tmp/x".into()],
                unseen: vec!["snapshots in local: no answer".into()]
            }
        );
        for part in ["snap-1", "/var/tmp/x", "no answer", "not known"] {
            assert!(both.to_string().contains(part), "{both}");
        }
    }
}
