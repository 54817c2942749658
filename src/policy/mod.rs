//! The least IAM policy of a recipe's stages: pure, from the recipe and the place alone. `table` says which action each
//! call needs, on what, and why; this file picks what a recipe needs of it and writes it as IAM reads it. Asks no cloud.

mod needs;
mod table;

use std::collections::BTreeSet;

pub use needs::{BaseOwner, Needs, Part, Stage, Wish};
use serde_json::{Map, Value, json};
pub use table::{By, FREE, Grant, PUSH, STATEMENTS, Statement};

use crate::cloud::{AccountId, Region, TAG_PREFIX};
use crate::recipe::SubnetChoice;

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

/// The most characters of a managed policy, white space not counted (IAM user guide, "IAM and AWS STS quotas").
pub const MANAGED: usize = 6144;

/// The same of all policies that are written into one role.
pub const OF_A_ROLE: usize = 10_240;

/// What an action may be done to.
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
    Volumes,
    Vpcs,
    InternetGateways,
    Subnets,
    RouteTables,
    SecurityGroups,
    /// All parts of a VPC, and itself.
    VpcParts,
    /// What `RunInstances` makes.
    LaunchMakes,
    /// What the recipe names as its base, where that is an id.
    BaseImages,
    /// Subnets and security groups: those that the recipe names by their ids.
    Networks,
    /// Subnets, where the recipe tells its own by tags.
    TaggedSubnets,
    /// Security groups, where the recipe names any, and tells its subnet by the VPC of Bakehouse's own that it is in.
    GroupsOfVpc,
    /// The parameters that the recipe names.
    Parameters,
    /// The secrets that the buildspec names.
    Secrets,
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
    /// Custom action types of CodePipeline.
    ActionTypes,
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
            Self::Volumes => vec![own("ec2", "volume/*")],
            Self::Vpcs => vec![own("ec2", "vpc/*")],
            Self::InternetGateways => vec![own("ec2", "internet-gateway/*")],
            Self::Subnets => vec![own("ec2", "subnet/*")],
            Self::RouteTables => vec![own("ec2", "route-table/*")],
            Self::SecurityGroups => vec![own("ec2", "security-group/*")],
            Self::VpcParts => {
                let kinds = [
                    Self::Vpcs,
                    Self::InternetGateways,
                    Self::Subnets,
                    Self::RouteTables,
                    Self::SecurityGroups,
                ];
                kinds.into_iter().flat_map(|kind| kind.arns(scope, needs)).collect()
            }
            Self::LaunchMakes => {
                let spot = needs.spot.then_some("spot-instances-request/*");
                let made = ["instance/*", "volume/*", "network-interface/*"].into_iter().chain(spot);
                made.map(|rest| own("ec2", rest)).collect()
            }
            Self::BaseImages => {
                let id = needs.base_image.as_deref().unwrap_or("*");
                vec![shared("ec2", &format!("image/{id}"))]
            }
            Self::TaggedSubnets => match needs.subnet() {
                Some(SubnetChoice::Tags(_)) => vec![own("ec2", "subnet/*")],
                _ => Vec::new(),
            },
            Self::GroupsOfVpc => match needs.subnets_vpc() {
                Some(_) if !needs.security_groups.is_empty() => vec![own("ec2", "security-group/*")],
                _ => Vec::new(),
            },
            Self::Networks => needs.networks().iter().map(|rest| own("ec2", rest)).collect(),
            Self::Parameters => {
                let arn = |name: &String| {
                    // A public parameter is of no account (SSM: "Working with public parameters").
                    let account = if name.starts_with("/aws/service/") { "" } else { scope.account() };
                    scope.arn("ssm", account, &format!("parameter/{}", name.trim_start_matches('/')))
                };
                needs.parameters.iter().map(arn).collect()
            }
            Self::Secrets => {
                let secrets = needs.secrets.iter();
                // Behind its name each has a hyphen and six characters.
                secrets.map(|name| own("secretsmanager", &format!("secret:{name}-??????"))).collect()
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
            Self::ActionTypes => vec![own("codepipeline", "actiontype:Custom/*")],
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
    /// The resource is a VPC of Bakehouse's own, or a part of one: this recipe's, where there is a recipe. A sweep takes away
    /// whosever has expired.
    OfVpcs,
    /// The group is of the VPC by whose tag the recipe tells its subnet.
    OfSubnetsVpc,
    /// The subnet has the tags by which the recipe tells it.
    OfSubnet,
    /// What is made carries this recipe's family.
    MakesOfFamily,
    /// What is made carries a bake's id.
    MakesOfBakes,
    /// What is made carries what it is the import of.
    MakesImports,
    /// What is made carries the name of the VPC that it is a part of: this recipe's, where there is a recipe.
    MakesVpcs,
    /// Of tags, only those that say whose a VPC is, and when it expires.
    TagsVpcs,
    /// Of tags, only those that say what an import's disk is.
    TagsLayout,
    /// Of tags, only those that say when something expires.
    TagsExpiry,
    /// The tags are part of the call that makes the resource, which the grants name.
    TagsInCall,
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
    fn conditions(self, scope: &Scope, needs: &Needs, grants: &[&Grant]) -> Vec<Condition> {
        let ours = |of: &str, name: &str| format!("aws:{of}/{TAG_PREFIX}{name}");
        let there = json!("false");
        let vpc = |of: &str| match needs.family.as_str() {
            "" => ("Null", ours(of, "vpc"), json!("false")),
            name => ("StringEquals", ours(of, "vpc"), json!(name)),
        };
        let only_tag = |name: &str| {
            let keys = json!([format!("{TAG_PREFIX}{name}")]);
            ("ForAllValues:StringEquals", "aws:TagKeys".to_owned(), keys)
        };
        vec![match self {
            Self::OfFamily => ("StringEquals", ours("ResourceTag", "family"), json!(needs.family)),
            Self::OfBaseFamily => {
                ("StringEquals", ours("ResourceTag", "family"), json!(needs.base_family.as_deref()))
            }
            Self::OfImports => ("Null", ours("ResourceTag", "import"), there),
            Self::OfBakes => ("Null", ours("ResourceTag", "bake"), there),
            Self::OfVpcs if needs.parts.contains(&Part::Sweep) => ("Null", ours("ResourceTag", "vpc"), there),
            Self::OfVpcs => vpc("ResourceTag"),
            Self::OfSubnetsVpc => ("StringEquals", ours("ResourceTag", "vpc"), json!(needs.subnets_vpc())),
            Self::OfSubnet => {
                let tags = match needs.subnet() {
                    Some(SubnetChoice::Tags(tags)) => tags.iter().collect(),
                    _ => Vec::new(),
                };
                let has = |(key, value): (&String, &String)| {
                    ("StringEquals", format!("aws:ResourceTag/{key}"), json!(value))
                };
                return tags.into_iter().map(has).collect();
            }
            Self::MakesOfFamily => ("StringEquals", ours("RequestTag", "family"), json!(needs.family)),
            Self::MakesOfBakes => ("Null", ours("RequestTag", "bake"), there),
            Self::MakesImports => ("Null", ours("RequestTag", "import"), there),
            Self::MakesVpcs => vpc("RequestTag"),
            Self::TagsLayout => only_tag("layout"),
            Self::TagsVpcs => {
                let keys = ["bake", "expires"].map(|name| format!("{TAG_PREFIX}{name}"));
                ("ForAllValues:StringEquals", "aws:TagKeys".to_owned(), json!(keys))
            }
            // DeleteTags that names none takes all tags away, and no tag at all is "only" any (IAM user guide,
            // "Multivalued context keys").
            Self::TagsExpiry => {
                return vec![only_tag("expires"), ("Null", "aws:TagKeys".to_owned(), there)];
            }
            Self::TagsInCall => {
                let implied = grants.iter().filter_map(|grant| match grant.by {
                    By::Implied(calls) => Some(calls),
                    By::Call => None,
                });
                let calls: BTreeSet<&str> =
                    implied.flatten().filter_map(|call| Some(call.split_once(':')?.1)).collect();
                ("StringEquals", "ec2:CreateAction".to_owned(), json!(calls))
            }
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
        }]
    }
}

/// The policy of these needs, as IAM reads it.
#[must_use]
pub fn policy(needs: &Needs, scope: &Scope) -> Value {
    // A key's alias is in a condition, which a key without one must not be asked for.
    let (aliases, ids): (BTreeSet<_>, BTreeSet<_>) =
        needs.keys.iter().cloned().partition(|key| is_alias(key));
    let named = [ids, aliases].map(|keys| Needs { keys, ..needs.clone() });
    let written = STATEMENTS.iter().flat_map(|statement| {
        let bound = !statement.only.is_empty();
        // What is allowed without a condition need not be allowed with one.
        let is_needed =
            |grant: &&Grant| grant.is_needed(needs) && !(bound && grant.is_allowed_anyway(needs, scope));
        let grants: Vec<&Grant> = statement.grants.iter().filter(is_needed).collect();
        let each = if grants.iter().any(|grant| grant.on == On::Keys) { &named[..] } else { &named[..1] };
        each.iter().filter_map(|needs| statement.written(&grants, needs, scope)).collect::<Vec<_>>()
    });
    json!({ "Version": "2012-10-17", "Statement": written.collect::<Vec<Value>>() })
}

fn is_alias(key: &str) -> bool {
    key.starts_with("alias/")
}

/// A policy's characters as IAM counts them: without white space.
#[must_use]
pub fn length(policy: &Value) -> usize {
    policy.to_string().chars().filter(|c| !c.is_whitespace()).count()
}

impl Grant {
    fn is_needed(&self, needs: &Needs) -> bool {
        self.parts.iter().any(|part| needs.parts.contains(part))
    }

    /// Whether another statement allows it without a condition.
    fn is_allowed_anyway(&self, needs: &Needs, scope: &Scope) -> bool {
        let arns = self.on.arns(scope, needs);
        let unbound = STATEMENTS.iter().filter(|statement| statement.only.is_empty());
        let mut others = unbound.flat_map(|statement| statement.grants);
        others.any(|other| {
            let of_other = other.on.arns(scope, needs);
            other.action == self.action
                && other.is_needed(needs)
                && arns.iter().all(|arn| of_other.contains(arn))
        })
    }
}

impl Statement {
    fn written(&self, grants: &[&Grant], needs: &Needs, scope: &Scope) -> Option<Value> {
        let mut resources: Vec<String> = Vec::new();
        let mut actions: BTreeSet<&str> = BTreeSet::new();
        for grant in grants {
            let arns = grant.on.arns(scope, needs);
            if !arns.is_empty() {
                actions.insert(grant.action);
            }
            resources.extend(arns);
        }
        let mut seen = BTreeSet::new();
        resources.retain(|arn| seen.insert(arn.clone()));
        if resources.is_empty() {
            return None;
        }
        let by_alias =
            grants.iter().any(|grant| grant.on == On::Keys) && needs.keys.iter().any(|key| is_alias(key));
        let aliases = by_alias
            .then(|| ("ForAnyValue:StringEquals", "kms:ResourceAliases".to_owned(), json!(needs.keys)));
        let only = self.only.iter().flat_map(|only| only.conditions(scope, needs, grants));
        let mut conditions: Map<String, Value> = Map::new();
        for (operator, key, value) in only.chain(aliases) {
            let of_operator = conditions.entry(operator).or_insert_with(|| json!({}));
            of_operator[key] = value;
        }
        let mut written = json!({
            "Sid": if by_alias { format!("{}ByAlias", self.sid) } else { self.sid.to_owned() },
            "Effect": "Allow",
            "Action": actions,
            "Resource": resources,
        });
        if !conditions.is_empty() {
            written["Condition"] = Value::Object(conditions);
        }
        Some(written)
    }
}

#[cfg(test)]
mod tests;
