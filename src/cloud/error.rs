//! The one error of a cloud. Its kind says what a caller can do about it; any reasonable cloud could give any kind.

use super::Place;

pub type Result<T> = std::result::Result<T, CloudError>;

/// What a caller can make of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// It is not there.
    NotFound,
    /// It is not there or not ready yet, and will be: ask again.
    NotYet,
    /// The name or token is taken.
    Exists,
    /// Something else needs it.
    InUse,
    /// Not allowed.
    Denied,
    /// Too many calls: slow down.
    Throttled,
    /// A limit of the account.
    Quota,
    /// The cloud has none free now: another type, another zone, or later.
    Capacity,
    /// The request is wrong, and will be wrong again.
    Invalid,
    /// It failed on the way or inside: try again.
    Transient,
    Unknown,
}

impl ErrorKind {
    /// Whether a call that failed so may have taken effect all the same: only its answer was lost.
    #[must_use]
    pub fn may_hide_an_effect(self) -> bool {
        match self {
            Self::Transient | Self::Unknown => true,
            Self::NotFound
            | Self::NotYet
            | Self::Exists
            | Self::InUse
            | Self::Denied
            | Self::Throttled
            | Self::Quota
            | Self::Capacity
            | Self::Invalid => false,
        }
    }
}

/// A call that failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} in {place} failed: {message}{}", .request_id.as_ref().map(|id| format!(" (request {id})")).unwrap_or_default())]
pub struct CloudError {
    pub kind: ErrorKind,
    /// The operation's name as AWS has it: `RegisterImage`.
    pub operation: &'static str,
    pub place: Place,
    /// The error code as AWS has it, `InvalidAMIName.Duplicate`, where there is one.
    pub code: Option<String>,
    pub message: String,
    pub request_id: Option<String>,
    /// What the user can do about it: which permission, which quota, which key of the recipe.
    pub advice: Option<String>,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl CloudError {
    /// An error without code, request id, advice or source.
    #[must_use]
    pub fn new(kind: ErrorKind, operation: &'static str, place: &Place, message: impl Into<String>) -> Self {
        Self {
            kind,
            operation,
            place: place.clone(),
            code: None,
            message: message.into(),
            request_id: None,
            advice: None,
            source: None,
        }
    }

    #[must_use]
    pub fn with_code(mut self, code: &str) -> Self {
        self.code = Some(code.to_owned());
        self
    }

    #[must_use]
    pub fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}
