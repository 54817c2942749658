//! Versions of packages in their package manager's own order, and what a check demands of one. Written anew because
//! nothing of the image may be run to ask it.

mod dpkg;
mod rpm;

use std::cmp::Ordering;
use std::fmt;

use crate::provision::PackageFormat;

/// Compares a version that is installed with one that is demanded.
fn compare(format: PackageFormat, installed: &str, demanded: &str) -> Ordering {
    match format {
        PackageFormat::Deb => dpkg::compare(installed, demanded),
        PackageFormat::Rpm => rpm::compare(installed, demanded),
    }
}

/// How a version must stand to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
}

/// `>=1.22`, `<2`, `=1.2-3`: what a check demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub relation: Relation,
    pub version: String,
}

impl Requirement {
    /// # Errors
    /// What is wrong and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let signs = [
            (">=", Relation::GreaterOrEqual),
            ("<=", Relation::LessOrEqual),
            (">", Relation::Greater),
            ("<", Relation::Less),
            ("=", Relation::Equal),
        ];
        let found =
            signs.iter().find_map(|(sign, relation)| Some((*relation, text.strip_prefix(sign)?.trim())));
        let plain = |version: &str| {
            version.starts_with(|c: char| c.is_ascii_digit())
                && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+-:~^_".contains(&byte))
        };
        match found {
            Some((relation, version)) if plain(version) => Ok(Self { relation, version: version.to_owned() }),
            _ => {
                Err(format!("`{text}` is not a demand on a version; write >=1.22, >1.22, =1.2-3, <=2 or <2"))
            }
        }
    }

    #[must_use]
    pub fn allows(&self, format: PackageFormat, version: &str) -> bool {
        let order = compare(format, version, &self.version);
        match self.relation {
            Relation::Less => order.is_lt(),
            Relation::LessOrEqual => order.is_le(),
            Relation::Equal => order.is_eq(),
            Relation::GreaterOrEqual => order.is_ge(),
            Relation::Greater => order.is_gt(),
        }
    }

    /// The relation as `dpkg --compare-versions` and test(1) name it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self.relation {
            Relation::Less => "lt",
            Relation::LessOrEqual => "le",
            Relation::Equal => "eq",
            Relation::GreaterOrEqual => "ge",
            Relation::Greater => "gt",
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.relation {
            Relation::Less => "<",
            Relation::LessOrEqual => "<=",
            Relation::Equal => "=",
            Relation::GreaterOrEqual => ">=",
            Relation::Greater => ">",
        };
        write!(f, "{sign}{}", self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demands_are_read_and_judged() {
        let allows = |demand: &str, version: &str| {
            Requirement::parse(demand).unwrap().allows(PackageFormat::Deb, version)
        };
        assert!(allows(">=1.22", "1.22.1-9"));
        assert!(allows(">= 1.22", "1.22"));
        assert!(!allows("<2", "2"));
        assert!(allows("<2", "2~rc1"));
        assert!(allows("=1.2-3", "0:1.2-3"));
        assert!(!allows("=1.2", "1.2-3"));
        assert!(allows("<=2", "2") && !allows(">2", "2"));
        // rpm compares releases only where both have one.
        assert!(Requirement::parse("=1.2").unwrap().allows(PackageFormat::Rpm, "1.2-3.el9"));
        assert!(!Requirement::parse("=1.2-4").unwrap().allows(PackageFormat::Rpm, "1.2-3.el9"));
        for bad in ["", "1.22", ">=", "=>1", ">= 1 2", "=$(reboot)", "!=1", ">=x"] {
            assert!(Requirement::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Requirement::parse(">= 1").unwrap().to_string(), ">=1");
    }
}
