//! Parameters, as SSM keeps them.

use async_trait::async_trait;
use aws_sdk_ssm::types::ParameterType;

use super::place::AwsPlace;
use crate::cloud::{CloudError, ErrorKind, NewParameter, Parameter, Parameters, Result};

const GET: &str = "GetParameter";
const PUT: &str = "PutParameter";
const LABEL: &str = "LabelParameterVersion";
const HISTORY: &str = "GetParameterHistory";
/// Versions of a page: the most (SSM API model).
const PAGE: i32 = 50;

#[derive(Clone, Debug)]
pub(super) struct AwsParameters(pub(super) AwsPlace);

#[async_trait]
impl Parameters for AwsParameters {
    async fn get(&self, name: &str) -> Result<Parameter> {
        let answer = self
            .0
            .ssm
            .get_parameter()
            .name(name)
            .with_decryption(true)
            .send()
            .await
            .map_err(self.0.failed(GET))?;
        let found = answer.parameter().ok_or_else(|| self.0.odd(GET, "no parameter"))?;
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let (plain, asked) = match name.split_once(':') {
            Some((plain, asked)) => (plain, Some(asked)),
            None => (name, None),
        };
        // Of its labels the answer tells none but the one that was asked for; a label begins with no digit.
        let label = asked.filter(|label| label.starts_with(|c: char| !c.is_ascii_digit()));
        Ok(Parameter {
            name: plain.to_owned(),
            value: text(found.value()),
            data_type: text(found.data_type()),
            version: u64::try_from(found.version()).unwrap_or_default(),
            labels: label.map(str::to_owned).into_iter().collect(),
        })
    }

    async fn put(&self, new: &NewParameter) -> Result<u64> {
        let call = self.0.ssm.put_parameter().name(&new.name).value(&new.value).overwrite(new.overwrite);
        let call = call.data_type(&new.data_type).r#type(ParameterType::String);
        let answer = call.send().await.map_err(self.0.failed(PUT))?;
        Ok(u64::try_from(answer.version()).unwrap_or_default())
    }

    async fn label(&self, name: &str, version: u64, label: &str) -> Result<()> {
        let version = i64::try_from(version).unwrap_or(i64::MAX);
        let call = self.0.ssm.label_parameter_version().name(name).parameter_version(version).labels(label);
        let answer = call.send().await.map_err(self.0.failed(LABEL))?;
        // SSM answers well and lists what it did not take.
        if answer.invalid_labels().is_empty() {
            return Ok(());
        }
        let text = format!(
            "`{label}` is no label: at most 100 letters, digits, . - _, not beginning with a digit, aws or ssm"
        );
        Err(CloudError::new(ErrorKind::Invalid, LABEL, &self.0.place, text))
    }

    async fn history(&self, name: &str) -> Result<Vec<Parameter>> {
        let call = self.0.ssm.get_parameter_history().name(name).max_results(PAGE);
        let mut pages = call.into_paginator().send();
        let mut versions = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(self.0.failed(HISTORY))?;
            versions.extend(page.parameters().iter().map(|one| Parameter {
                name: one.name().unwrap_or(name).to_owned(),
                value: one.value().unwrap_or_default().to_owned(),
                data_type: one.data_type().unwrap_or_default().to_owned(),
                version: u64::try_from(one.version()).unwrap_or_default(),
                labels: one.labels().to_vec(),
            }));
        }
        versions.sort_by_key(|one| one.version);
        Ok(versions)
    }
}
