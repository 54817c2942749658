//! Tags, and those of Bakehouse's own: by them everything that a bake made is found again.

use std::collections::BTreeMap;

/// Tags of a resource. At most 50, keys up to 127 and values up to 255 characters (EBS API model).
pub type Tags = BTreeMap<String, String>;

/// What every tag of ours begins with.
pub const TAG_PREFIX: &str = "bakehouse:";

/// `bakehouse:NAME`.
#[must_use]
pub fn tag(name: &str) -> String {
    format!("{TAG_PREFIX}{name}")
}
