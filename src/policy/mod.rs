//! The least IAM policy of a recipe's stages: pure, from the recipe and the place alone. `table` says which action each
//! call needs, on what, and why; this file picks what a recipe needs of it and writes it as IAM reads it. Asks no cloud.

mod needs;
mod table;

pub use needs::{BaseOwner, Needs, Part, Stage, Wish};
use serde_json::{Map, Value, json};
pub use table::{By, FREE, Grant, STATEMENTS, Statement};

use crate::cloud::{AccountId, Region, TAG_PREFIX};

/// Which place a policy is for. What is not known is `*`.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    pub region: Option<Region>,
    pub account: Option<AccountId>,
}

impl Scope {
    fn region(&self) -> &str {
        self.region.as_ref().map_or("*", Region::as_str)
    }

    fn account(&self) -> &str {
        self.account.as_ref().map_or("*", AccountId::as_str)
    }

    /// The partitions beside the ordinary one are told by their regions' first letters.
    fn partition(&self) -> &'static str {
        match self.region() {
            name if name.starts_with("cn-") => "aws-cn",
            name if name.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        }
    }

    fn arn(&self, service: &str, account: &str, rest: &str) -> String {
        format!("arn:{}:{service}:{}:{account}:{rest}", self.partition(), self.region())
    }
}

/// What a statement's actions may be done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// AWS has no narrower resource for these actions.
    Everything,
    /// Snapshots have no account in their ARN.
    Snapshots,
    /// Images have none either.
    Images,
    ImagesAndSnapshots,
    Instances,
    /// What `RunInstances` makes.
    LaunchMakes,
    /// What `RunInstances` uses, and cannot be tagged in its call.
    LaunchUses,
    /// The parameters that the recipe names.
    Parameters,
    /// The key that the recipe or the user names.
    Keys,
    /// Roles of other accounts that the recipe names.
    Roles,
    /// The role in the instance profile that the recipe names.
    ProfileRole,
    /// The document that runs commands.
    CommandDocument,
    /// Objects of bakes in the bucket that the recipe names.
    Objects,
    /// The bucket itself.
    Buckets,
    Repositories,
}

impl On {
    fn arns(self, scope: &Scope, needs: &Needs) -> Vec<String> {
        let own = |service: &str, rest: &str| scope.arn(service, scope.account(), rest);
        let shared = |service: &str, rest: &str| scope.arn(service, "", rest);
        match self {
            Self::Everything => vec!["*".to_owned()],
            Self::Snapshots => vec![shared("ec2", "snapshot/*")],
            Self::Images => vec![shared("ec2", "image/*")],
            Self::ImagesAndSnapshots => vec![shared("ec2", "image/*"), shared("ec2", "snapshot/*")],
            Self::Instances => vec![own("ec2", "instance/*")],
            Self::LaunchMakes => {
                ["instance/*", "volume/*", "network-interface/*", "spot-instances-request/*"]
                    .map(|rest| own("ec2", rest))
                    .to_vec()
            }
            Self::LaunchUses => vec![
                shared("ec2", "image/*"),
                shared("ec2", "snapshot/*"),
                own("ec2", "subnet/*"),
                own("ec2", "security-group/*"),
            ],
            Self::Parameters => {
                let arn = |name: &String| {
                    // A public parameter is of no account (SSM: "Working with public parameters").
                    let account = if name.starts_with("/aws/service/") { "" } else { scope.account() };
                    scope.arn("ssm", account, &format!("parameter/{}", name.trim_start_matches('/')))
                };
                needs.parameters.iter().map(arn).collect()
            }
            Self::Keys => {
                let arn = |key: &String| match key.as_str() {
                    arn if arn.starts_with("arn:") => arn.to_owned(),
                    // An alias is no resource of these actions: a condition names it.
                    alias if alias.starts_with("alias/") => own("kms", "key/*"),
                    id => own("kms", &format!("key/{id}")),
                };
                needs.keys.iter().map(arn).collect()
            }
            Self::Roles => {
                let arn = |role: &String| match role.as_str() {
                    arn if arn.starts_with("arn:") => arn.to_owned(),
                    of_account => format!("arn:{}:iam::{of_account}", scope.partition()),
                };
                needs.roles.iter().map(arn).collect()
            }
            Self::ProfileRole => {
                let arn = |role: &String| match role.as_str() {
                    arn if arn.starts_with("arn:") => arn.to_owned(),
                    name => format!("arn:{}:iam::{}:role/{name}", scope.partition(), scope.account()),
                };
                needs.profile_roles.iter().map(arn).collect()
            }
            Self::CommandDocument => vec![shared("ssm", "document/AWS-RunShellScript")],
            Self::Objects => {
                let arn = |bucket: &String| format!("arn:{}:s3:::{bucket}/bakehouse/*", scope.partition());
                needs.buckets.iter().map(arn).collect()
            }
            Self::Buckets => {
                let arn = |bucket: &String| format!("arn:{}:s3:::{bucket}", scope.partition());
                needs.buckets.iter().map(arn).collect()
            }
            Self::Repositories => {
                needs.repositories.iter().map(|name| own("ecr", &format!("repository/{name}"))).collect()
            }
        }
    }
}

/// What must be true of a call besides its resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    /// The resource is of this recipe's family.
    OfFamily,
    /// The resource is what a base of Bakehouse's own is read from: of the family that the recipe names as its base.
    OfBaseFamily,
    /// The resource is an import of a foreign base.
    OfImports,
    /// The resource was made by a bake, whichever.
    OfBakes,
    /// What is made carries this recipe's family.
    MakesOfFamily,
    /// What is made carries a bake's id.
    MakesOfBakes,
    /// What is made carries what it is the import of.
    MakesImports,
    /// Of tags, only those that say what an import's disk is.
    TagsLayout,
    /// Of tags, only those that say when something expires.
    TagsExpiry,
    /// The tags are part of the call that makes the resource.
    TagsOf(&'static [&'static str]),
    /// The key is used through the service that stores blocks.
    ThroughEbs,
    /// The grant is for AWS's own service.
    GrantsToAws,
    /// The role goes to EC2.
    PassedToEc2,
    /// Only what lies where bakes put it is listed.
    Below,
}

/// A condition: its operator, its key, its value.
type Condition = (&'static str, String, Value);

impl Only {
    fn condition(self, scope: &Scope, needs: &Needs) -> Condition {
        let ours = |of: &str, name: &str| format!("aws:{of}/{TAG_PREFIX}{name}");
        let there = json!("false");
        let only_tag = |name: &str| {
            let keys = json!([format!("{TAG_PREFIX}{name}")]);
            ("ForAllValues:StringEquals", "aws:TagKeys".to_owned(), keys)
        };
        match self {
            Self::OfFamily => ("StringEquals", ours("ResourceTag", "family"), json!(needs.family)),
            Self::OfBaseFamily => {
                ("StringEquals", ours("ResourceTag", "family"), json!(needs.base_family.as_deref()))
            }
            Self::OfImports => ("Null", ours("ResourceTag", "import"), there),
            Self::OfBakes => ("Null", ours("ResourceTag", "bake"), there),
            Self::MakesOfFamily => ("StringEquals", ours("RequestTag", "family"), json!(needs.family)),
            Self::MakesOfBakes => ("Null", ours("RequestTag", "bake"), there),
            Self::MakesImports => ("Null", ours("RequestTag", "import"), there),
            Self::TagsLayout => only_tag("layout"),
            Self::TagsExpiry => only_tag("expires"),
            Self::TagsOf(calls) => ("StringEquals", "ec2:CreateAction".to_owned(), json!(calls)),
            Self::ThroughEbs => {
                let service = format!("ec2.{}.amazonaws.com", scope.region());
                let direct = format!("ebs.{}.amazonaws.com", scope.region());
                ("StringLike", "kms:ViaService".to_owned(), json!([service, direct]))
            }
            Self::GrantsToAws => ("Bool", "kms:GrantIsForAWSResource".to_owned(), json!("true")),
            Self::Below => ("StringLike", "s3:prefix".to_owned(), json!("bakehouse/*")),
            Self::PassedToEc2 => {
                ("StringLike", "iam:PassedToService".to_owned(), json!("ec2.amazonaws.com*"))
            }
        }
    }
}

/// The policy of these needs, as IAM reads it.
#[must_use]
pub fn policy(needs: &Needs, scope: &Scope) -> Value {
    let statements: Vec<Value> =
        STATEMENTS.iter().filter_map(|statement| written(statement, needs, scope)).collect();
    json!({ "Version": "2012-10-17", "Statement": statements })
}

fn written(statement: &Statement, needs: &Needs, scope: &Scope) -> Option<Value> {
    let mut actions: Vec<&str> = statement
        .grants
        .iter()
        .filter(|grant| grant.parts.iter().any(|part| needs.parts.contains(part)))
        .map(|grant| grant.action)
        .collect();
    actions.sort_unstable();
    actions.dedup();
    let resources = statement.on.arns(scope, needs);
    if actions.is_empty() || resources.is_empty() {
        return None;
    }
    let mut conditions: Map<String, Value> = Map::new();
    let aliases: Vec<&String> = needs.keys.iter().filter(|key| key.starts_with("alias/")).collect();
    let by_alias = (statement.on == On::Keys && !aliases.is_empty())
        .then(|| ("ForAnyValue:StringEquals", "kms:ResourceAliases".to_owned(), json!(aliases)));
    let only = statement.only.iter().map(|only| only.condition(scope, needs));
    for (operator, key, value) in only.chain(by_alias) {
        let of_operator = conditions.entry(operator).or_insert_with(|| json!({}));
        of_operator[key] = value;
    }
    let mut written = json!({
        "Sid": statement.sid,
        "Effect": "Allow",
        "Action": actions,
        "Resource": resources,
    });
    if !conditions.is_empty() {
        written["Condition"] = Value::Object(conditions);
    }
    Some(written)
}

#[cfg(test)]
mod tests;
