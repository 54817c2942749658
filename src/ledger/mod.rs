//! What was created and has to be undone. Here: what an error left behind. An error always says it: nothing, these
//! ids, or unknown.

use std::fmt;

/// What is left of a piece of work that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Left {
    /// Everything that was created is gone again.
    #[default]
    Nothing,
    /// These are still there, each with why.
    These(Vec<String>),
}

impl Left {
    pub fn add(&mut self, what: impl Into<String>) {
        match self {
            Self::Nothing => *self = Self::These(vec![what.into()]),
            Self::These(all) => all.push(what.into()),
        }
    }

    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        if let Self::These(all) = other {
            for what in all {
                self.add(what);
            }
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
        match self {
            Self::Nothing => f.write_str("nothing was left behind"),
            Self::These(all) => write!(f, "left behind:\n  {}", all.join("\n  ")),
        }
    }
}
