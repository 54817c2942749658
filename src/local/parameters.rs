//! The calls on parameters. All versions of one are one file, named by the SHA-256 of the parameter's name, since a name
//! may be longer than a file's may be.

use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::place::LocalPlace;
use super::refusal::Refusal;
use super::store::StoreError;
use super::{durable, images};
use crate::cloud::{Digest, ErrorKind, ImageId, NewParameter, Parameter, Parameters, Result};

/// Versions that are kept of a parameter (SSM API model, `PutParameter`).
const MOST_VERSIONS: usize = 100;
/// Labels of one version (SSM API model, `LabelParameterVersion`).
const MOST_LABELS: usize = 10;
const LONGEST_LABEL: usize = 100;
/// Bytes of a standard parameter's value.
const LONGEST_VALUE: usize = 4096;
/// Levels of a name: `/a/b` has two.
const MOST_LEVELS: usize = 15;
/// Characters of a name, those of its ARN counted in.
const LONGEST_ARN: usize = 1011;
/// The data type whose value must be an image of the place.
const IMAGE_TYPE: &str = "aws:ec2:image";

const NOT_FOUND: &str = "ParameterNotFound";
const VERSION_NOT_FOUND: &str = "ParameterVersionNotFound";
const INVALID: &str = "ValidationException";

#[derive(Debug)]
pub(super) struct LocalParameters(pub(super) LocalPlace);

/// What a parameter's file holds, oldest version first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Kept {
    versions: Vec<Parameter>,
}

#[async_trait]
impl Parameters for LocalParameters {
    async fn get(&self, name: &str) -> Result<Parameter> {
        let name = name.to_owned();
        self.0.call("GetParameter", move |here| get(here, &name)).await
    }

    async fn put(&self, new: &NewParameter) -> Result<u64> {
        let new = new.clone();
        self.0.call("PutParameter", move |here| put(here, &new)).await
    }

    async fn label(&self, name: &str, version: u64, label: &str) -> Result<()> {
        let (name, label) = (name.to_owned(), label.to_owned());
        self.0.call("LabelParameterVersion", move |here| attach(here, &name, version, &label)).await
    }

    async fn history(&self, name: &str) -> Result<Vec<Parameter>> {
        let name = name.to_owned();
        self.0.call("GetParameterHistory", move |here| Ok(existing(here, &name)?.versions)).await
    }
}

fn get(here: &LocalPlace, name: &str) -> std::result::Result<Parameter, Refusal> {
    let (name, selector) = match name.split_once(':') {
        Some((name, selector)) => (name, Some(selector)),
        None => (name, None),
    };
    let versions = existing(here, name)?.versions;
    let found = match selector {
        None => versions.into_iter().next_back(),
        // No label begins with a digit, so a selector is one or the other.
        Some(selector) => versions.into_iter().find(|version| {
            version.version.to_string() == selector || version.labels.iter().any(|label| label == selector)
        }),
    };
    found.ok_or_else(|| {
        let selector = selector.unwrap_or("any version");
        Refusal::not_found(VERSION_NOT_FOUND, format!("the parameter {name} has no {selector}"))
    })
}

fn put(here: &LocalPlace, new: &NewParameter) -> std::result::Result<u64, Refusal> {
    check_name(here, &new.name)?;
    if new.value.is_empty() || new.value.len() > LONGEST_VALUE {
        return Err(Refusal::invalid(
            INVALID,
            format!("the value has {} bytes and not 1 to {LONGEST_VALUE}", new.value.len()),
        ));
    }
    let _registering = here.lock()?;
    check_type(here, new)?;
    let file = file(here, &new.name);
    let mut kept = kept(here, &new.name)?.unwrap_or(Kept { versions: Vec::new() });
    if !kept.versions.is_empty() && !new.overwrite {
        return Err(Refusal::new(
            ErrorKind::Exists,
            "ParameterAlreadyExists",
            format!("the parameter {} exists and is not to be overwritten", new.name),
        ));
    }
    if kept.versions.len() >= MOST_VERSIONS {
        let oldest = kept.versions.remove(0);
        if !oldest.labels.is_empty() {
            return Err(Refusal::new(
                ErrorKind::Quota,
                "ParameterMaxVersionLimitExceeded",
                format!(
                    "the parameter {} has {MOST_VERSIONS} versions, and the oldest, {}, has the label {}: \
                     move the label to a newer one",
                    new.name, oldest.version, oldest.labels[0]
                ),
            ));
        }
    }
    let version = kept.versions.last().map_or(0, |latest| latest.version) + 1;
    kept.versions.push(Parameter {
        name: new.name.clone(),
        value: new.value.clone(),
        data_type: new.data_type.clone(),
        version,
        labels: Vec::new(),
    });
    durable::make_folders(&here.parameters())?;
    durable::write_json(&file, &kept)?;
    Ok(version)
}

fn attach(here: &LocalPlace, name: &str, version: u64, label: &str) -> std::result::Result<(), Refusal> {
    check_label(label)?;
    let _registering = here.lock()?;
    let mut kept = existing(here, name)?;
    let Some(at) = kept.versions.iter().position(|other| other.version == version) else {
        return Err(Refusal::not_found(
            VERSION_NOT_FOUND,
            format!("the parameter {name} has no version {version}"),
        ));
    };
    let has = |parameter: &Parameter| parameter.labels.iter().any(|other| other == label);
    if has(&kept.versions[at]) {
        return Ok(());
    }
    if kept.versions[at].labels.len() >= MOST_LABELS {
        return Err(Refusal::new(
            ErrorKind::Quota,
            "ParameterVersionLabelLimitExceeded",
            format!("version {version} of {name} has {MOST_LABELS} labels already"),
        ));
    }
    for other in &mut kept.versions {
        other.labels.retain(|other| other != label);
    }
    kept.versions[at].labels.push(label.to_owned());
    durable::write_json(&file(here, name), &kept)?;
    Ok(())
}

fn existing(here: &LocalPlace, name: &str) -> std::result::Result<Kept, Refusal> {
    kept(here, name)?
        .filter(|kept| !kept.versions.is_empty())
        .ok_or_else(|| Refusal::not_found(NOT_FOUND, format!("there is no parameter {name:?}")))
}

fn kept(here: &LocalPlace, name: &str) -> std::result::Result<Option<Kept>, StoreError> {
    durable::read_json(&file(here, name))
}

fn file(here: &LocalPlace, name: &str) -> PathBuf {
    here.parameters().join(format!("{}.json", Digest::of(name.as_bytes())))
}

fn check_name(here: &LocalPlace, name: &str) -> std::result::Result<(), Refusal> {
    let invalid = |why: &str| Err(Refusal::invalid(INVALID, format!("the name {name:?} is refused: {why}")));
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
    if !name.chars().all(plain) {
        return invalid("it may have letters, digits and _ . - / only");
    }
    let inner = name.strip_prefix('/').unwrap_or(name);
    if inner.contains('/') && inner.len() == name.len() {
        return invalid("one with levels begins with /");
    }
    let levels: Vec<&str> = inner.split('/').collect();
    if levels.iter().any(|level| level.is_empty()) {
        return invalid("a level is empty");
    }
    if levels.len() > MOST_LEVELS {
        return invalid("it has more than 15 levels");
    }
    if is_reserved(inner) {
        return invalid("names that begin with aws or ssm are AWS's own");
    }
    let arn = format!(
        "arn:{}:ssm:{}:{}:parameter/{inner}",
        here.place.partition, here.place.region, here.place.account
    );
    if arn.len() > LONGEST_ARN {
        return invalid("with its ARN it is longer than 1011 characters");
    }
    Ok(())
}

fn check_label(label: &str) -> std::result::Result<(), Refusal> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let good = (1..=LONGEST_LABEL).contains(&label.len())
        && label.chars().all(plain)
        && !label.starts_with(|c: char| c.is_ascii_digit())
        && !is_reserved(label);
    if good {
        return Ok(());
    }
    Err(Refusal::invalid(
        INVALID,
        format!(
            "the label {label:?} is not of 1 to {LONGEST_LABEL} letters, digits and _ . -, or begins with a digit, aws or ssm"
        ),
    ))
}

fn is_reserved(name: &str) -> bool {
    let start = name.get(..3).unwrap_or("");
    start.eq_ignore_ascii_case("aws") || start.eq_ignore_ascii_case("ssm")
}

/// AWS takes the value at first and finds out later; here the caller is told at once. It holds the place's lock.
fn check_type(here: &LocalPlace, new: &NewParameter) -> std::result::Result<(), Refusal> {
    match new.data_type.as_str() {
        "text" => Ok(()),
        IMAGE_TYPE => {
            let there = match ImageId::parse(&new.value) {
                Some(id) => images::exists(here, &id)?,
                None => false,
            };
            if there {
                return Ok(());
            }
            Err(Refusal::invalid(
                INVALID,
                format!("the value {:?} of {} is not an image in {}", new.value, new.name, here.place),
            ))
        }
        other => Err(Refusal::invalid(
            INVALID,
            format!("the data type {other:?} is neither text nor {IMAGE_TYPE}"),
        )),
    }
}
