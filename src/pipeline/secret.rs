//! Secrets of Secrets Manager, as a buildspec names them. They are read by way of Parameter Store, which passes on what is
//! asked of it below `/aws/reference/secretsmanager/` (Systems Manager User Guide, "Referencing AWS Secrets Manager
//! secrets from Parameter Store parameters"), so that a build needs no second service.

use std::fmt;

use crate::cloud::Place;

const REFERENCE: &str = "/aws/reference/secretsmanager/";
/// What Secrets Manager puts behind a name in an ARN: a hyphen and six characters.
const SUFFIX: usize = 7;

/// `secret-id:json-key:version-stage:version-id`, all but the first optional; the id is a name or an ARN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SecretRef {
    name: String,
    key: Option<String>,
    /// A stage or a version's id.
    version: Option<String>,
}

impl SecretRef {
    /// Reads it; an ARN must be of `place`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str, place: &Place) -> Result<Self, String> {
        // arn:PARTITION:secretsmanager:REGION:ACCOUNT:secret:NAME-SUFFIX
        const IN_AN_ARN: usize = 6;
        let mut words: Vec<&str> = text.split(':').collect();
        let name = if words[0] == "arn" {
            if words.len() <= IN_AN_ARN || words[2] != "secretsmanager" || words[5] != "secret" {
                return Err("it begins as an ARN and is not that of a secret".to_owned());
            }
            let of = [place.partition.as_str(), place.region.as_str(), place.account.as_str()];
            if [words[1], words[3], words[4]] != of {
                return Err(format!(
                    "it is a secret of another place than {place}; copy it, or give its value"
                ));
            }
            words.drain(..IN_AN_ARN);
            without_suffix(words[0])
        } else {
            words[0]
        };
        if name.is_empty() {
            return Err("it names no secret".to_owned());
        }
        let mut rest = words[1..].iter().map(|word| Some((*word).to_owned()).filter(|word| !word.is_empty()));
        let (key, stage, id) = (rest.next().flatten(), rest.next().flatten(), rest.next().flatten());
        if rest.next().is_some() {
            return Err("it has more parts than secret-id:json-key:version-stage:version-id".to_owned());
        }
        if stage.is_some() && id.is_some() {
            return Err("it has both a version-stage and a version-id: give one of them".to_owned());
        }
        Ok(Self { name: name.to_owned(), key, version: stage.or(id) })
    }

    /// What it is in Parameter Store.
    pub(super) fn parameter(&self) -> String {
        let version = self.version.as_ref().map(|version| format!(":{version}")).unwrap_or_default();
        format!("{REFERENCE}{}{version}", self.name)
    }

    /// Its value, of the whole secret.
    ///
    /// # Errors
    /// What is wrong with the secret; nothing of its content is in it.
    pub(super) fn value(&self, whole: String) -> Result<String, String> {
        let Some(key) = &self.key else { return Ok(whole) };
        let Ok(serde_json::Value::Object(mut all)) = serde_json::from_str(&whole) else {
            return Err(format!("a key, {key}, is named, and the secret is no JSON object"));
        };
        match all.remove(key) {
            Some(serde_json::Value::String(text)) => Ok(text),
            Some(other) => Ok(other.to_string()),
            None => Err(format!("the secret has no key {key}")),
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn without_suffix(name: &str) -> &str {
    let at = name.len().saturating_sub(SUFFIX);
    match name.get(at..) {
        Some(suffix)
            if suffix.starts_with('-') && suffix[1..].bytes().all(|byte| byte.is_ascii_alphanumeric()) =>
        {
            &name[..at]
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{AccountId, Partition, Region};

    fn place() -> Place {
        Place {
            partition: Partition::parse("aws").unwrap(),
            account: AccountId::parse("123456789012").unwrap(),
            region: Region::parse("eu-west-1").unwrap(),
        }
    }

    fn parameter(text: &str) -> Result<String, String> {
        SecretRef::parse(text, &place()).map(|secret| secret.parameter())
    }

    #[test]
    fn a_secret_is_named_as_in_codebuild() {
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/app-Ab12Cd";
        for (text, wanted) in [
            ("app".to_owned(), "app"),
            ("team/app:token".to_owned(), "team/app"),
            ("app::AWSPREVIOUS".to_owned(), "app:AWSPREVIOUS"),
            ("app:token::11111111-aaaa".to_owned(), "app:11111111-aaaa"),
            (arn.to_owned(), "team/app"),
            (format!("{arn}:token:AWSCURRENT:"), "team/app:AWSCURRENT"),
            (arn.replace("-Ab12Cd", ""), "team/app"),
        ] {
            assert_eq!(parameter(&text).unwrap(), format!("{REFERENCE}{wanted}"), "{text}");
        }
        for (text, part) in [
            ("", "names no secret"),
            ("a:b:c:d:e", "more parts"),
            ("a:b:c:d", "both"),
            ("arn:aws:ssm:eu-west-1:123456789012:parameter/a", "not that of a secret"),
            ("arn:aws:secretsmanager:eu-west-1:999999999999:secret:a-Ab12Cd", "another place"),
        ] {
            let told = parameter(text).unwrap_err();
            assert!(told.contains(part), "{text}: {told}");
        }
    }

    #[test]
    fn a_key_is_taken_out_of_the_secrets_json() {
        let value =
            |text: &str, whole: &str| SecretRef::parse(text, &place()).unwrap().value(whole.to_owned());
        let whole = r#"{"token": "t0p", "port": 22}"#;
        assert_eq!(value("app", whole).unwrap(), whole);
        assert_eq!(value("app:token", whole).unwrap(), "t0p");
        assert_eq!(value("app:port", whole).unwrap(), "22");
        for (text, whole) in [("app:none", whole), ("app:token", "t0p"), ("app:token", "[1]")] {
            let told = value(text, whole).unwrap_err();
            assert!(!told.contains("t0p"), "{told}");
        }
    }
}
