//! The clock. One place reads it, so that `SOURCE_DATE_EPOCH` fixes it everywhere.

use jiff::Timestamp;

/// The time now, or the one in `SOURCE_DATE_EPOCH` (seconds since 1970, UTC) where that is set.
#[must_use]
pub fn now() -> Timestamp {
    std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|text| text.parse::<i64>().ok())
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or_else(Timestamp::now)
}

/// The time now, whatever the environment says: for deadlines and expiry.
#[must_use]
pub fn wall() -> Timestamp {
    Timestamp::now()
}

/// A time without its fraction of a second: what names, records and messages show.
#[must_use]
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
