//! Accounts other than the caller's, and the roles by which they are entered.

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_credential_types::provider::SharedCredentialsProvider;

use crate::cloud::{AccountId, Partition};

/// What the sessions of assumed roles are called in CloudTrail.
const SESSION: &str = "bakehouse";

/// The role of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// A role's name, with its path where it has one, or its ARN.
    pub role: String,
    pub external_id: Option<String>,
}

/// The role of each account that is entered by one.
pub type Roles = BTreeMap<AccountId, Role>;

impl Role {
    /// The role's ARN: its own, or the one of that name in `account`.
    #[must_use]
    pub fn arn(&self, partition: &Partition, account: &AccountId) -> String {
        if self.role.starts_with("arn:") {
            return self.role.clone();
        }
        format!("arn:{partition}:iam::{account}:role/{}", self.role.trim_start_matches('/'))
    }

    /// Credentials of the role. The SDK's identity cache fetches them when they are first needed, and again before they
    /// expire: after an hour, the longest that a chained role may last.
    pub(super) async fn credentials(&self, arn: String, caller: &SdkConfig) -> SharedCredentialsProvider {
        let mut builder = AssumeRoleProvider::builder(arn).configure(caller).session_name(SESSION);
        if let Some(id) = &self.external_id {
            builder = builder.external_id(id);
        }
        SharedCredentialsProvider::new(builder.build().await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_named_or_an_arn() {
        let account = AccountId::parse("123456789012").unwrap();
        let arn = |partition: &str, role: &str| {
            let role = Role { role: role.to_owned(), external_id: None };
            role.arn(&Partition::parse(partition).unwrap(), &account)
        };
        assert_eq!(arn("aws", "Bake"), "arn:aws:iam::123456789012:role/Bake");
        assert_eq!(arn("aws-cn", "/ci/Bake"), "arn:aws-cn:iam::123456789012:role/ci/Bake");
        let other = "arn:aws:iam::210987654321:role/Bake";
        assert_eq!(arn("aws", other), other);
    }
}
