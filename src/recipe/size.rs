//! Sizes with units: `8GiB`, `512MiB`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;
/// The largest EBS volume: 64 TiB.
const LARGEST: u64 = 65_536 * GIB;

/// A number of bytes, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// Whole MiB: what it is written in.
    #[must_use]
    pub fn mib(self) -> u32 {
        u32::try_from(self.0 / MIB).unwrap_or(u32::MAX)
    }

    /// Whole GiB, rounded up: what an EBS volume comes in.
    #[must_use]
    pub fn gib(self) -> u32 {
        u32::try_from(self.0.div_ceil(GIB)).unwrap_or(u32::MAX)
    }

    /// # Errors
    /// What is wrong and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a size; write a whole number and MiB, GiB or TiB: 512MiB, 8GiB");
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
        let unit = match text[digits..].trim() {
            "MiB" => MIB,
            "GiB" => GIB,
            "TiB" => 1024 * GIB,
            _ => return Err(wrong()),
        };
        let bytes = number.checked_mul(unit).filter(|bytes| (MIB..=LARGEST).contains(bytes));
        bytes.map(Self).ok_or_else(|| format!("`{text}` is out of range; write 1MiB to 64TiB"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(GIB) {
            write!(f, "{}GiB", self.0 / GIB)
        } else {
            write!(f, "{}MiB", self.0 / MIB)
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "size",
            "pattern": "^[0-9]+ ?(MiB|GiB|TiB)$",
            "description": "A size: 512MiB, 8GiB.",
        })
    }
}
