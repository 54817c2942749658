//! Ids and idempotency tokens.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// What every id of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// Reads an id; `None` where it is not of this kind: the prefix and 8 to 17 hexadecimal digits.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let digits = text.strip_prefix($prefix)?;
                let good = (8..=17).contains(&digits.len())
                    && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
                good.then(|| Self(text.to_owned()))
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        // Checked on the way in: ids become file names, and a record may come from anywhere.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                Self::parse(&text).ok_or_else(|| {
                    let wanted = concat!("an id like ", $prefix, "0123456789abcdef0");
                    serde::de::Error::invalid_value(serde::de::Unexpected::Str(&text), &wanted)
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// `ami-0123456789abcdef0`.
    ImageId,
    "ami-"
);
id!(
    /// `snap-0123456789abcdef0`.
    SnapshotId,
    "snap-"
);
id!(
    /// `i-0123456789abcdef0`.
    InstanceId,
    "i-"
);
id!(
    /// `vol-0123456789abcdef0`.
    VolumeId,
    "vol-"
);

/// An idempotency token: the same token with the same request gives the same answer again. At most 64 ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token for one attempt at one thing of one bake.
    #[must_use]
    pub fn of(bake: &str, what: &str, attempt: u32) -> Self {
        // Hashed, so that it is short and plain whatever goes in.
        let digest = super::Digest::of(format!("{bake}\n{what}\n{attempt}").as_bytes());
        Self(digest.hex()[..40].to_owned())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_apart() {
        assert!(ImageId::parse("ami-0123456789abcdef0").is_some());
        assert!(ImageId::parse("ami-01234567").is_some());
        for bad in ["snap-0123456789abcdef0", "ami-", "ami-xyz", "ami-0123456789abcdef01", "AMI-01234567"] {
            assert!(ImageId::parse(bad).is_none(), "{bad}");
            assert!(serde_json::from_value::<ImageId>(bad.into()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_depends_on_all_that_it_is_of() {
        assert_eq!(Token::of("b", "w", 1), Token::of("b", "w", 1));
        assert_ne!(Token::of("b", "w", 1), Token::of("b", "w", 2));
    }
}
