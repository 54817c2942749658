//! By which key a new image is encrypted, and whether the base has to be copied for that. Pure: the rules are those of
//! StartSnapshot and CopyImage (EBS user guide, "Use encryption with the EBS direct APIs").

use serde::{Deserialize, Serialize};

use super::PlanError;
use crate::cloud::Key;
use crate::recipe::Encrypt;

/// How what is told ends where a copy of the base does it.
const BY_IMPORT: &str = ", by the import";

/// What an account encrypts, and by what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncryptionFacts {
    /// Whether every new snapshot is encrypted. `None` where that may not be read.
    pub by_default: Option<bool>,
    /// The key by which, as the account has it.
    pub default_key: Option<String>,
    /// What the recipe's key is.
    pub key: Option<Key>,
    /// The recipe's key, where it is not there: told with all else that is looked at before a bake.
    pub no_key: Option<String>,
}

/// The base, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    /// No snapshot to start from.
    New,
    /// A snapshot of this account, with its key.
    Own { key: Option<&'a str> },
    /// A snapshot of another account's, which is copied anyway.
    Foreign,
}

/// How the new snapshot comes to be encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Encryption {
    /// The key that a snapshot without a parent is started with, or the volumes of a launched instance are made with: its
    /// ARN.
    pub key: Option<String>,
    /// In words.
    pub told: String,
    /// Whether what comes out must not be encrypted.
    #[serde(default)]
    pub refused: bool,
}

/// A copy of the base that has to be made first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    /// The key that it is made with: its ARN.
    pub key: Option<String>,
    /// What tells copies with different keys apart.
    pub kind: String,
    pub why: &'static str,
}

/// The rules. The second is the copy of the base that the first needs.
pub(super) fn decide(
    wanted: Option<&Encrypt>,
    facts: &EncryptionFacts,
    source: Source<'_>,
) -> Result<(Encryption, Option<Copy>), PlanError> {
    let by_default = facts.by_default.unwrap_or(false);
    let default_key = facts.default_key.as_deref().unwrap_or("aws/ebs");
    let off = matches!(wanted, Some(Encrypt::Off(_)));
    if off && by_default {
        return Err(PlanError::EncryptedByDefault { key: default_key.to_owned() });
    }
    let key = match (wanted, &facts.key) {
        (Some(Encrypt::Key(_)), Some(key)) => Some(key.arn.clone()),
        // Nothing comes of such a plan.
        (Some(Encrypt::Key(_)), None) => facts.no_key.clone(),
        _ => None,
    };
    let told = |told: String, key: Option<String>| Encryption { key, told, refused: off };
    let copy = |why| {
        let kind = match (&key, by_default) {
            (Some(arn), _) => arn.clone(),
            // Another default later is another copy: a child of this one would be refused then.
            (None, true) => format!("by default with {default_key}"),
            (None, false) => "as the base".to_owned(),
        };
        Some(Copy { key: key.clone(), kind, why })
    };
    let foreign = "the base's snapshot is another account's";
    Ok(match (source, &key) {
        (Source::New, Some(key)) => (told(format!("with {key}"), Some(key.clone())), None),
        (Source::New, None) if by_default => {
            (told(format!("with {default_key}, the account's default"), None), None)
        }
        (Source::New, None) => (told("none".to_owned(), None), None),
        (Source::Foreign, Some(key)) => (told(format!("with {key}{BY_IMPORT}"), None), copy(foreign)),
        (Source::Foreign, None) if by_default => {
            (told(format!("with {default_key}, the account's default{BY_IMPORT}"), None), copy(foreign))
        }
        (Source::Foreign, None) => (told("as the base".to_owned(), None), copy(foreign)),
        (Source::Own { key: Some(_) }, _) if off => return Err(PlanError::EncryptedBase),
        (Source::Own { key: Some(own) }, Some(key)) if own == key => {
            (told(format!("with {key}, as the base"), None), None)
        }
        (Source::Own { key: Some(own) }, None) => (told(format!("with {own}, as the base"), None), None),
        (Source::Own { key: Some(_) }, Some(key)) => (
            told(format!("with {key}{BY_IMPORT}"), None),
            copy("a child has its parent's key, and the base is encrypted with another one"),
        ),
        (Source::Own { key: None }, Some(key)) => (
            told(format!("with {key}{BY_IMPORT}"), None),
            copy("a child is encrypted as its parent, and the base is not encrypted"),
        ),
        (Source::Own { key: None }, None) if by_default => (
            told(format!("with {default_key}, the account's default{BY_IMPORT}"), None),
            copy(
                "the account encrypts by default, and a child of the base, which is not encrypted, is refused then",
            ),
        ),
        (Source::Own { key: None }, None) => (told("none, as the base".to_owned(), None), None),
    })
}

/// The same where the method is to launch: EC2 encrypts the volumes of the instance as it makes them, and nothing is copied.
pub(super) fn of_volumes(
    wanted: Option<&Encrypt>,
    facts: &EncryptionFacts,
    decided: Encryption,
) -> Encryption {
    let key = match wanted {
        Some(Encrypt::Key(_)) => facts.key.as_ref().map(|key| key.arn.clone()),
        _ => None,
    };
    let told = decided.told.trim_end_matches(BY_IMPORT).to_owned();
    Encryption { key, told, ..decided }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/a";
    const OTHER: &str = "arn:aws:kms:eu-west-1:123456789012:key/b";

    fn facts(by_default: bool) -> EncryptionFacts {
        let key = Key {
            arn: KEY.to_owned(),
            enabled: true,
            state: "Enabled".to_owned(),
            symmetric: true,
            aws_managed: false,
        };
        EncryptionFacts {
            by_default: Some(by_default),
            default_key: Some("alias/aws/ebs".to_owned()),
            key: Some(key),
            no_key: None,
        }
    }

    /// What the recipe wants, the account's default, the base: whether it is refused, copied (with which key), and
    /// with which key a snapshot without a parent is started.
    #[test]
    fn every_case_of_the_table() {
        use Source::{Foreign, New, Own};
        let key = Some(Encrypt::Key("alias/bakery".to_owned()));
        let off = Some(Encrypt::Off(false));
        let unset: Option<Encrypt> = None;
        let own = |key| Own { key };
        // Outer `None`: refused. Then the copy's key, where there is a copy; then the snapshot's.
        type Expected = Option<(Option<Option<&'static str>>, Option<&'static str>)>;
        let table: [(&Option<Encrypt>, bool, Source<'_>, Expected); 21] = [
            (&unset, false, New, Some((None, None))),
            (&unset, true, New, Some((None, None))),
            (&key, false, New, Some((None, Some(KEY)))),
            (&key, true, New, Some((None, Some(KEY)))),
            (&off, false, New, Some((None, None))),
            (&off, true, New, None),
            (&unset, false, own(None), Some((None, None))),
            (&unset, true, own(None), Some((Some(None), None))),
            (&key, false, own(None), Some((Some(Some(KEY)), None))),
            (&off, false, own(None), Some((None, None))),
            (&off, true, own(None), None),
            (&unset, false, own(Some(OTHER)), Some((None, None))),
            (&unset, true, own(Some(OTHER)), Some((None, None))),
            (&key, false, own(Some(KEY)), Some((None, None))),
            (&key, true, own(Some(OTHER)), Some((Some(Some(KEY)), None))),
            (&off, false, own(Some(KEY)), None),
            (&unset, false, Foreign, Some((Some(None), None))),
            (&unset, true, Foreign, Some((Some(None), None))),
            (&key, false, Foreign, Some((Some(Some(KEY)), None))),
            (&off, false, Foreign, Some((Some(None), None))),
            (&off, true, Foreign, None),
        ];
        for (wanted, by_default, source, expected) in table {
            let case = format!("{wanted:?} {by_default} {source:?}");
            let decided = decide(wanted.as_ref(), &facts(by_default), source).ok();
            let found = decided.map(|(encryption, copy)| (copy.map(|copy| copy.key), encryption.key));
            let expected =
                expected.map(|(copy, key)| (copy.map(|key| key.map(str::to_owned)), key.map(str::to_owned)));
            assert_eq!(found, expected, "{case}");
        }
    }

    #[test]
    fn copies_with_different_keys_are_different_copies() {
        let kind = |wanted: Option<Encrypt>, by_default| {
            decide(wanted.as_ref(), &facts(by_default), Source::Foreign).unwrap().1.unwrap().kind
        };
        let all = [kind(None, false), kind(None, true), kind(Some(Encrypt::Key("k".to_owned())), false)];
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2], "{all:?}");
    }
}
