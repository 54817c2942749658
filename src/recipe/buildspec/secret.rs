//! A secret of Secrets Manager, as `env.secrets-manager` names it.

use super::super::problem::quoted;

/// `secret-id:json-key:version-stage:version-id`, all but the first optional.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretName {
    /// The secret's name, or its ARN.
    pub id: String,
    /// A key of the JSON object that the secret is.
    pub key: Option<String>,
    /// A stage or a version's id.
    pub version: Option<String>,
}

/// Why a text names no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SecretNameError {
    pub message: String,
    pub hint: &'static str,
}

/// What Secrets Manager puts behind a name in an ARN: a hyphen and six characters.
const SUFFIX: usize = 7;

/// arn:PARTITION:secretsmanager:REGION:ACCOUNT:secret:NAME
const OF_AN_ARN: usize = 7;

impl SecretName {
    /// Reads it.
    ///
    /// # Errors
    /// [`SecretNameError`]
    pub fn parse(text: &str) -> Result<Self, SecretNameError> {
        let hint =
            "write secret-id:json-key:version-stage:version-id; what is not needed may be left out or empty";
        let wrong = |message: String, hint| Err(SecretNameError { message, hint });
        let parts: Vec<&str> = text.split(':').collect();
        let of_the_id = if parts[0] == "arn" { OF_AN_ARN } else { 1 };
        if parts.len() < of_the_id || parts[of_the_id - 1].is_empty() {
            return wrong(format!("{} names no secret", quoted(text)), hint);
        }
        if of_the_id == OF_AN_ARN && (parts[2] != "secretsmanager" || parts[5] != "secret") {
            return wrong(format!("{} is the ARN of something that is no secret", quoted(text)), hint);
        }
        let (id, rest) = parts.split_at(of_the_id);
        let given = |at: usize| rest.get(at).filter(|part| !part.is_empty()).map(|part| (*part).to_owned());
        let (key, stage, version) = (given(0), given(1), given(2));
        if rest.len() > 3 {
            return wrong(format!("{} has too many parts", quoted(text)), hint);
        }
        if stage.is_some() && version.is_some() {
            return wrong("a version's stage and its id are one too many".to_owned(), "write one of them");
        }
        Ok(Self { id: id.join(":"), key, version: stage.or(version) })
    }

    /// The secret's name alone.
    #[must_use]
    pub fn name(&self) -> &str {
        match self.id.rsplit_once(':') {
            Some((_, name)) => without_suffix(name),
            None => &self.id,
        }
    }

    /// Its value's name in Parameter Store, which passes on what is asked of it there (Systems Manager User Guide,
    /// "Referencing AWS Secrets Manager secrets from Parameter Store parameters").
    #[must_use]
    pub fn parameter(&self) -> String {
        let version = self.version.as_ref().map(|version| format!(":{version}")).unwrap_or_default();
        format!("/aws/reference/secretsmanager/{}{version}", self.name())
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

    #[test]
    fn a_secret_is_a_parameter_by_its_name() {
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
            let parameter = SecretName::parse(&text).unwrap().parameter();
            assert_eq!(parameter, format!("/aws/reference/secretsmanager/{wanted}"), "{text}");
        }
    }

    #[test]
    fn a_secret_is_named_by_its_parts() {
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:app-AbCdEf";
        let some = |text: &str| Some(text.to_owned());
        for (text, key, version) in [
            ("app", None, None),
            ("app:key", some("key"), None),
            ("app:key:AWSCURRENT", some("key"), some("AWSCURRENT")),
            ("app:key::v1", some("key"), some("v1")),
            ("app:::", None, None),
            ("app::AWSPREVIOUS:", None, some("AWSPREVIOUS")),
        ] {
            for id in ["app", arn] {
                let wanted = SecretName { id: id.to_owned(), key: key.clone(), version: version.clone() };
                assert_eq!(SecretName::parse(&text.replacen("app", id, 1)), Ok(wanted), "{text}");
            }
        }
        for (text, part) in [
            ("", "names no secret"),
            (":key", "names no secret"),
            ("arn:aws:secretsmanager:eu-west-1", "names no secret"),
            ("arn:aws:ssm:eu-west-1:123456789012:parameter:a", "no secret"),
            ("app:key:AWSCURRENT:v1", "one too many"),
            ("app:a:b:c:d", "too many parts"),
        ] {
            let told = SecretName::parse(text).unwrap_err().message;
            assert!(told.contains(part), "{text}: {told}");
        }
    }
}
