//! The variables that a build's commands find: those of CodeBuild, of the buildspec, of Parameter Store and of Secrets
//! Manager. Never logs a value; what comes from the last two is hidden before anyone else has it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use jiff::Timestamp;

use super::secret;
use crate::cloud::{Cloud, CloudError, retrying};
use crate::host::stop::Stop;
use crate::recipe::buildspec::{Buildspec, SecretName};
use crate::report::{Reporter, can_hide};

/// Names that CodeBuild keeps for itself.
const RESERVED: &str = "CODEBUILD_";
/// Credentials, which no log shows.
const CREDENTIALS: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

const PARAMETERS: &str = "parameter-store";
const SECRETS: &str = "secrets-manager";

/// What is built.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Its folder, by an absolute path.
    pub dir: PathBuf,
    /// What was asked for: a branch, a commit, an object's ARN.
    pub version: Option<String>,
    /// What that came to: a commit, or an object's version.
    pub resolved: Option<String>,
    pub repository: Option<String>,
    /// The folders of all other sources, by their names.
    pub secondary: BTreeMap<String, PathBuf>,
}

/// Which build it is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `PROJECT:UUID`.
    pub id: String,
    pub arn: String,
    pub number: u64,
    /// A user's name, or `codepipeline/NAME`.
    pub initiator: String,
    pub started: Timestamp,
}

/// The environment in which the first command runs: `inherited`, as the build's image would give it, what the buildspec
/// says, what was `given` besides, which is stronger, and CodeBuild's own. Variables that CodeBuild has of things that
/// are not here (an image, a webhook, a key, a log group) are not set.
#[must_use]
pub fn variables(
    inherited: impl IntoIterator<Item = (OsString, OsString)>,
    spec: &Buildspec,
    secrets: &BTreeMap<String, String>,
    given: &BTreeMap<String, String>,
    source: &Source,
    identity: &Identity,
) -> BTreeMap<OsString, OsString> {
    let is_reserved = |name: &OsStr| name.as_encoded_bytes().starts_with(RESERVED.as_bytes());
    let mut all: BTreeMap<OsString, OsString> =
        inherited.into_iter().filter(|(name, _)| !is_reserved(name)).collect();
    for (name, value) in spec.env.variables.iter().chain(secrets).chain(given) {
        all.insert(name.into(), value.into());
    }
    let known = [
        ("CI", Some("true".to_owned())),
        ("BUILD_ARN", Some(identity.arn.clone())),
        ("BUILD_ID", Some(identity.id.clone())),
        ("BUILD_NUMBER", Some(identity.number.to_string())),
        ("BUILD_SUCCEEDING", Some("1".to_owned())),
        ("INITIATOR", Some(identity.initiator.clone())),
        ("RESOLVED_SOURCE_VERSION", source.resolved.clone()),
        ("SOURCE_REPO_URL", source.repository.clone()),
        ("SOURCE_VERSION", source.version.clone()),
        ("START_TIME", Some(identity.started.as_millisecond().to_string())),
    ];
    for (name, value) in known {
        if let Some(value) = value {
            all.insert(format!("{RESERVED}{name}").into(), value.into());
        }
    }
    all.insert(format!("{RESERVED}SRC_DIR").into(), source.dir.clone().into());
    for (name, dir) in &source.secondary {
        all.insert(format!("{RESERVED}SRC_DIR_{name}").into(), dir.clone().into());
    }
    all
}

/// Whether a value has to be asked for: `given` ones are stronger than what the buildspec names.
#[must_use]
pub fn asks_for_parameters(spec: &Buildspec, given: &BTreeMap<String, String>) -> bool {
    asked(spec).any(|(_, name, _)| !given.contains_key(name))
}

/// What is read elsewhere: by which key of `env`, for which variable, and what its name is there.
fn asked(spec: &Buildspec) -> impl Iterator<Item = (&'static str, &String, &String)> {
    let parameters = spec.env.parameter_store.iter().map(|(name, what)| (PARAMETERS, name, what));
    parameters.chain(spec.env.secrets_manager.iter().map(|(name, what)| (SECRETS, name, what)))
}

/// The values of `env.parameter-store` and `env.secrets-manager`, but for those that are `given`. Each is hidden in every
/// event from here on, those that are given too, and so are credentials among `inherited`, as CodeBuild does it.
///
/// # Errors
/// [`SecretsError`]
pub async fn from_parameters(
    spec: &Buildspec,
    cloud: Option<&Cloud>,
    given: &BTreeMap<String, String>,
    inherited: &BTreeMap<OsString, OsString>,
    reporter: &Reporter,
    stop: &Stop,
) -> Result<BTreeMap<String, String>, SecretsError> {
    for name in CREDENTIALS {
        if let Some(value) = inherited.get(OsStr::new(name)) {
            reporter.hide(&value.to_string_lossy());
        }
    }
    asked(spec).filter_map(|(_, name, _)| given.get(name)).for_each(|value| reporter.hide(value));
    let mut values = BTreeMap::new();
    for (key, variable, what) in asked(spec).filter(|(_, name, _)| !given.contains_key(*name)) {
        let refused =
            |why| SecretsError::Refused { key, variable: variable.clone(), what: what.clone(), why };
        let Some(cloud) = cloud else {
            return Err(SecretsError::NoCloud { key, variable: variable.clone() });
        };
        let name =
            if key == SECRETS { Some(secret::read(what, &cloud.place).map_err(refused)?) } else { None };
        let parameter = name.as_ref().map_or_else(|| what.clone(), SecretName::parameter);
        let found = retrying(stop, || cloud.parameters.get(&parameter)).await.map_err(|source| {
            let (variable, what) = (variable.clone(), what.clone());
            SecretsError::Unread(Box::new(Unread { key, variable, what, source }))
        })?;
        // The whole of a secret too: whatever part of it may be shown some day.
        reporter.hide(&found.value);
        let value = match &name {
            Some(name) => secret::value(name, found.value).map_err(refused)?,
            None => found.value,
        };
        reporter.hide(&value);
        if let Err(why) = can_hide(&value) {
            reporter.warning(format!(
                "the value of {variable}, from {what}, is shown where it is written: {why}"
            ));
        }
        values.insert(variable.clone(), value);
    }
    Ok(values)
}

/// Why a variable has no value.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    #[error("env.{key}: {variable} cannot be had from {what:?}: {why}")]
    Refused { key: &'static str, variable: String, what: String, why: String },
    #[error("env.{key}: {variable} needs a cloud, and none was opened")]
    NoCloud { key: &'static str, variable: String },
    #[error(transparent)]
    Unread(Box<Unread>),
}

/// A parameter or a secret that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("env.{key}: {variable} cannot be had from {what}")]
pub struct Unread {
    pub key: &'static str,
    pub variable: String,
    pub what: String,
    #[source]
    pub source: CloudError,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(env: serde_json::Value) -> Buildspec {
        let spec = serde_json::json!({ "version": "0.2", "env": env, "phases": {} });
        serde_json::from_value(spec).unwrap()
    }

    fn map<K: From<&'static str> + Ord, V: From<&'static str>>(
        all: &[(&'static str, &'static str)],
    ) -> BTreeMap<K, V> {
        all.iter().map(|(name, value)| (K::from(name), V::from(value))).collect()
    }

    #[test]
    fn what_is_given_is_stronger_than_the_buildspec_and_that_than_the_image() {
        let inherited: BTreeMap<OsString, OsString> = map(&[
            ("A", "image"),
            ("B", "image"),
            ("C", "image"),
            ("D", "image"),
            ("CODEBUILD_WEBHOOK_EVENT", "PUSH"),
        ]);
        let spec = spec(serde_json::json!({ "variables": { "B": "spec", "C": "spec", "D": "spec" } }));
        let source = Source { dir: "/src".into(), resolved: Some("abc".into()), ..Source::default() };
        let started = Timestamp::from_millisecond(1234).unwrap();
        let identity =
            Identity { id: "p:1".into(), arn: "arn:p".into(), number: 7, initiator: "me".into(), started };
        let (secrets, given) =
            (map(&[("C", "secret")]), map(&[("D", "given"), ("CODEBUILD_BUILD_ID", "forged")]));
        let all = variables(inherited, &spec, &secrets, &given, &source, &identity);
        let right: BTreeMap<OsString, OsString> = map(&[
            ("A", "image"),
            ("B", "spec"),
            ("C", "secret"),
            ("D", "given"),
            ("CODEBUILD_CI", "true"),
            ("CODEBUILD_BUILD_ARN", "arn:p"),
            ("CODEBUILD_BUILD_ID", "p:1"),
            ("CODEBUILD_BUILD_NUMBER", "7"),
            ("CODEBUILD_BUILD_SUCCEEDING", "1"),
            ("CODEBUILD_INITIATOR", "me"),
            ("CODEBUILD_RESOLVED_SOURCE_VERSION", "abc"),
            ("CODEBUILD_SRC_DIR", "/src"),
            ("CODEBUILD_START_TIME", "1234"),
        ]);
        assert_eq!(all, right);
    }

    #[tokio::test]
    async fn a_secret_that_cannot_be_had_is_refused_by_name() {
        let none = BTreeMap::new();
        for (env, part) in [
            (
                serde_json::json!({ "secrets-manager": { "TOKEN": "app" } }),
                "env.secrets-manager: TOKEN needs a cloud",
            ),
            (serde_json::json!({ "parameter-store": { "TOKEN": "/app" } }), "TOKEN needs a cloud"),
        ] {
            let (spec, given) = (spec(env), map(&[("TOKEN", "given-value")]));
            let reporter = Reporter::silent();
            let nothing = BTreeMap::new();
            let error = from_parameters(&spec, None, &nothing, &none, &reporter, &Stop::never()).await;
            let told = error.unwrap_err().to_string();
            assert!(told.contains(part), "{told}");
            let found = from_parameters(&spec, None, &given, &none, &reporter, &Stop::never()).await;
            assert!(found.unwrap().is_empty() && !asks_for_parameters(&spec, &given));
            assert_eq!(reporter.masked("given-value"), "***");
        }
    }

    #[tokio::test]
    async fn credentials_of_the_environment_are_hidden() {
        let reporter = Reporter::silent();
        let inherited = map(&[("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI"), ("OTHER", "visible")]);
        let spec = spec(serde_json::json!({}));
        from_parameters(&spec, None, &BTreeMap::new(), &inherited, &reporter, &Stop::never()).await.unwrap();
        assert_eq!(reporter.masked("wJalrXUtnFEMI visible"), "*** visible");
    }
}
