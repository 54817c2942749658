//! Why the local cloud refuses a call, before the call's name and place are added.

use super::StoreError;
use crate::cloud::{CloudError, ErrorKind, Place};

#[derive(Debug)]
pub(super) struct Refusal {
    kind: ErrorKind,
    /// AWS's code for the same refusal, where there is one.
    code: Option<&'static str>,
    message: String,
    source: Option<StoreError>,
}

impl Refusal {
    pub(super) fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, code: Some(code), message: message.into(), source: None }
    }

    pub(super) fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, code, message)
    }

    pub(super) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, code, message)
    }

    pub(super) fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(super) fn into_error(self, operation: &'static str, place: &Place) -> CloudError {
        let mut error = CloudError::new(self.kind, operation, place, self.message);
        error.code = self.code.map(str::to_owned);
        match self.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            // As `cloud::until` answers a stop.
            StoreError::Stopped => ErrorKind::NotYet,
            StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                ErrorKind::Quota
            }
            _ => ErrorKind::Unknown,
        };
        Self { kind, code: None, message: "the store cannot be used".to_owned(), source: Some(error) }
    }
}
