//! Secrets of Secrets Manager, as a buildspec names them. They are read by way of Parameter Store, so that a build needs no
//! second service.

use crate::cloud::Place;
use crate::recipe::buildspec::SecretName;

/// Reads how a buildspec names a secret; an ARN must be of `place`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(text: &str, place: &Place) -> Result<SecretName, String> {
    let secret = SecretName::parse(text).map_err(|error| error.message)?;
    if let [_, partition, _, region, account, ..] = secret.id.split(':').collect::<Vec<_>>()[..] {
        let here = [place.partition.as_str(), place.region.as_str(), place.account.as_str()];
        if [partition, region, account] != here {
            return Err(format!("it is a secret of another place than {place}; copy it, or give its value"));
        }
    }
    Ok(secret)
}

/// What a buildspec wants of a secret whose whole value this is.
///
/// # Errors
/// What is wrong with the secret; nothing of its content is in it.
pub(super) fn value(secret: &SecretName, whole: String) -> Result<String, String> {
    let Some(key) = &secret.key else { return Ok(whole) };
    let Ok(serde_json::Value::Object(mut all)) = serde_json::from_str(&whole) else {
        return Err(format!("a key, {key}, is named, and the secret is no JSON object"));
    };
    match all.remove(key) {
        Some(serde_json::Value::String(text)) => Ok(text),
        Some(other) => Ok(other.to_string()),
        None => Err(format!("the secret has no key {key}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{AccountId, Partition, Region};

    #[test]
    fn a_secret_is_of_the_place_that_a_build_runs_in() {
        let place = Place {
            partition: Partition::parse("aws").unwrap(),
            account: AccountId::parse("123456789012").unwrap(),
            region: Region::parse("eu-west-1").unwrap(),
        };
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:app-Ab12Cd";
        assert!(read("app:key", &place).is_ok() && read(arn, &place).is_ok());
        for (from, to) in
            [("123456789012", "999999999999"), ("eu-west-1", "eu-west-2"), ("aws:s", "aws-cn:s")]
        {
            let told = read(&arn.replace(from, to), &place).unwrap_err();
            assert!(told.contains("another place"), "{told}");
        }
        assert!(read("", &place).unwrap_err().contains("names no secret"));
    }

    #[test]
    fn a_key_is_taken_out_of_the_secrets_json() {
        let value = |text: &str, whole: &str| value(&SecretName::parse(text).unwrap(), whole.to_owned());
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
