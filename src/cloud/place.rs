//! Places: partition, account and region. An image is always named with its place.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ImageId;

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $wanted:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        // Checked on the way in: places become paths, and a record may come from anywhere.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                Self::parse(&text).ok_or_else(|| {
                    serde::de::Error::invalid_value(serde::de::Unexpected::Str(&text), &$wanted)
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

word!(
    /// `aws`, `aws-cn`, `aws-us-gov`; `local` for the local cloud.
    Partition,
    "a partition like aws"
);
word!(
    /// Twelve digits.
    AccountId,
    "an account of twelve digits"
);
word!(
    /// `eu-west-1`; in the local cloud any word of that form.
    Region,
    "a region like eu-west-1"
);

impl Partition {
    #[must_use]
    pub fn local() -> Self {
        Self("local".to_owned())
    }

    /// A partition's name has the form of a region's.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Region::parse(text).map(|word| Self(word.0))
    }
}

impl AccountId {
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| Self(text.to_owned()))
    }
}

impl Region {
    /// A region's name: lower-case letters, digits and hyphens, beginning with a letter, at most 32 characters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let good = text.len() <= 32
            && text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
            && text.bytes().all(plain);
        good.then(|| Self(text.to_owned()))
    }
}

/// Where something is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    pub partition: Partition,
    pub account: AccountId,
    pub region: Region,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.region)
    }
}

/// An image and where it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRef {
    pub place: Place,
    pub id: ImageId,
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.id, self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_and_regions_are_checked() {
        assert!(AccountId::parse("123456789012").is_some());
        assert!(AccountId::parse("12345678901").is_none());
        assert!(AccountId::parse("12345678901x").is_none());
        assert!(Region::parse("eu-west-1").is_some());
        assert!(Region::parse("local").is_some());
        assert!(Region::parse("../etc").is_none());
        assert!(Region::parse("").is_none());
        let place = |account: &str, region: &str| {
            let text = format!(r#"{{"partition":"local","account":"{account}","region":"{region}"}}"#);
            serde_json::from_str::<Place>(&text)
        };
        assert!(place("123456789012", "local").is_ok());
        assert!(place("123456789012", "../local").is_err());
        assert!(place("..", "local").is_err());
    }
}
