//! What a recipe needs of a cloud: which parts of a bake it goes through, and what it names.

use std::collections::BTreeSet;

use crate::cloud::tag;
use crate::plan::facts::channel_parameter;
use crate::recipe::buildspec::{Buildspec, SecretName};
use crate::recipe::{Encrypt, Imds, MethodChoice, Recipe, SubnetChoice};

/// What a policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// `plan` and `bake`.
    Bake,
    /// `test`.
    Test,
    /// `sweep`.
    Sweep,
    /// `snapshot upload`.
    Upload,
    /// `snapshot download`.
    Download,
    /// `ecr`: Bakehouse's own container image.
    Registry,
    /// A stage that is a job of a pipeline (`--job`).
    Job,
    /// `worker`.
    Worker,
    /// `run`: the variables of a buildspec.
    Run,
    /// `vpc create` and `vpc delete`.
    Vpc,
}

/// Whose the base is, where the recipe does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseOwner {
    /// This account's: its snapshot is read as it is.
    Own,
    /// Another account's: it is imported first, and the import is read.
    Foreign,
}

/// One way that a bake, or another stage, takes through the calls of a cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Looks before a bake.
    Look,
    /// A parameter that names the base.
    Parameter,
    /// A base that Bakehouse baked is read.
    ReadFamily,
    /// A base of this account is read that Bakehouse did not bake.
    ReadOwn,
    /// The import of a foreign base is made where there is none.
    Import,
    /// Its blocks are read.
    ReadImport,
    /// A snapshot's blocks are stored.
    Store,
    /// What was stored is registered.
    Register,
    /// An instance is launched, changed and made an image of.
    Launch,
    /// A volume is attached to this instance, changed and made a snapshot of.
    Chroot,
    /// The image of an instance is to require IMDSv2.
    RequireImds,
    /// The subnet of that instance is looked for.
    FindSubnet,
    /// An instance is launched to be looked at.
    Test,
    /// What expired is found and deleted.
    Sweep,
    /// A key of the user's own encrypts.
    Key,
    /// A role of another account is taken.
    Role,
    Upload,
    Download,
    Registry,
    /// A job of a pipeline is looked at, and given its result.
    Job,
    /// Jobs are asked for.
    Worker,
    /// Parameters and secrets are read into variables of a build.
    Variables,
    /// A VPC is made and taken away.
    Vpc,
}

/// What besides the recipe decides what is needed.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    pub stages: BTreeSet<Stage>,
    /// Whose the base is; `None`: as far as the recipe tells, and both where it does not.
    pub base: Option<BaseOwner>,
    /// Keys besides the recipe's own: the base's, or the account's default.
    pub keys: Vec<String>,
    /// Repositories of the stage [`Stage::Registry`].
    pub repositories: Vec<String>,
}

/// What is needed.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    pub parts: BTreeSet<Part>,
    pub family: String,
    pub base_family: Option<String>,
    pub parameters: BTreeSet<String>,
    /// By their names, without what stands behind these in an ARN.
    pub secrets: BTreeSet<String>,
    pub keys: BTreeSet<String>,
    /// ARNs, or accounts with the names of roles in them, as `123456789012:role/Bake`.
    pub roles: BTreeSet<String>,
    pub profile_roles: BTreeSet<String>,
    pub buckets: BTreeSet<String>,
    /// The base's id, where the recipe names one.
    pub base_image: Option<String>,
    /// What the recipe names for a launch to be connected to.
    pub subnet: Option<SubnetChoice>,
    pub security_groups: BTreeSet<String>,
    /// Whether a launch is on spot capacity.
    pub spot: bool,
    pub repositories: BTreeSet<String>,
    /// What could not be told by the recipe, and what was assumed.
    pub notes: Vec<String>,
}

impl Needs {
    /// Of the stages that a wish names. Those of a recipe need one, and that of a buildspec needs that.
    #[must_use]
    pub fn of(recipe: Option<&Recipe>, buildspec: Option<&Buildspec>, wish: &Wish) -> Self {
        let mut needs = Self { keys: wish.keys.iter().cloned().collect(), ..Self::default() };
        needs.repositories.extend(wish.repositories.iter().cloned());
        for stage in &wish.stages {
            let parts: &[Part] = match stage {
                Stage::Bake => &[Part::Look],
                Stage::Test => &[Part::Test],
                Stage::Sweep => &[Part::Sweep],
                Stage::Upload => &[Part::Upload],
                Stage::Download => &[Part::Download],
                Stage::Registry => &[Part::Registry],
                Stage::Job => &[Part::Job],
                Stage::Worker => &[Part::Job, Part::Worker],
                Stage::Run => &[Part::Variables],
                Stage::Vpc => &[Part::Vpc],
            };
            needs.parts.extend(parts);
        }
        if wish.stages.contains(&Stage::Upload) && !wish.stages.contains(&Stage::Download) {
            needs.notes.push(
                "an upload with --parent reads the parent, if Bakehouse made it; of any other snapshot: add --for download"
                    .to_owned(),
            );
        }
        if wish.stages.contains(&Stage::Sweep) && !wish.stages.contains(&Stage::Bake) {
            needs.notes.push(
                "what a killed bake by an instance left in a bucket is swept too: --for bake,sweep allows that".to_owned(),
            );
        }
        if wish.stages.contains(&Stage::Vpc) {
            needs.notes.push(match recipe {
                Some(recipe) => format!(
                    "of VPCs this allows to make those called {0}, and without `sweep` to take away those alone; \
                     `vpc create --name` of another name needs what --for vpc alone prints",
                    recipe.name
                ),
                None => "this allows VPCs of any name; --for bake,vpc allows those of the recipe alone".to_owned(),
            });
        }
        if let Some(recipe) = recipe {
            needs.family.clone_from(&recipe.name);
            if wish.stages.contains(&Stage::Bake) {
                needs.bake(recipe, wish);
            }
            if let Some(Encrypt::Key(key)) = &recipe.disk.encrypt {
                needs.keys.insert(key.clone());
            }
        }
        if let Some(buildspec) = buildspec {
            needs.variables(buildspec);
        }
        if !needs.keys.is_empty() {
            needs.parts.insert(Part::Key);
        } else if wish.stages.iter().any(|stage| {
            !matches!(stage, Stage::Registry | Stage::Job | Stage::Worker | Stage::Run | Stage::Vpc)
        }) {
            needs.notes.push(
                "no key is named: where the base's snapshot, or the account's default, is encrypted with a key of your \
                 own, add --key KEY (AWS's own aws/ebs needs nothing)"
                    .to_owned(),
            );
        }
        needs
    }

    fn variables(&mut self, buildspec: &Buildspec) {
        let plain = |parameter: &str| parameter.split(':').next().unwrap_or_default().to_owned();
        self.parameters.extend(buildspec.env.parameter_store.values().map(String::as_str).map(plain));
        // What names none, reading the buildspec has told.
        let secrets = buildspec.env.secrets_manager.values().filter_map(|text| SecretName::parse(text).ok());
        for secret in secrets {
            self.parameters.insert(plain(&secret.parameter()));
            self.secrets.insert(secret.name().to_owned());
        }
        self.notes.push(
            "CodeBuild reads the variables of a buildspec by other calls: ssm:GetParameters on the parameters, and \
             secretsmanager:GetSecretValue; where a key of your own encrypts them, kms:Decrypt on it"
                .to_owned(),
        );
    }

    fn bake(&mut self, recipe: &Recipe, wish: &Wish) {
        let base = &recipe.base;
        let launches = recipe.method == MethodChoice::Launch;
        let attaches = recipe.method == MethodChoice::Chroot;
        self.base_image.clone_from(&base.image);
        if attaches {
            self.parts.extend([Part::Chroot, Part::Register]);
            self.notes.push(
                "the method chroot attaches to the instance that it runs on, whichever that is: name its ARN under AttachTo \
                 where it is one only"
                    .to_owned(),
            );
        } else if !launches {
            self.parts.extend([Part::Store, Part::Register]);
        }
        // Where the method is left open, what the recipe says of an instance is for bases that direct cannot take.
        if launches || (recipe.method == MethodChoice::Auto && recipe.launch.is_some()) {
            self.launch(recipe);
        }
        if let Some(parameter) = &base.parameter {
            self.parts.insert(Part::Parameter);
            self.parameters.insert(parameter.clone());
        }
        if let Some(family) = &base.family {
            self.base_family = Some(family.clone());
            if let Some(channel) = &base.channel
                && base.account.is_none()
            {
                self.parts.insert(Part::Parameter);
                let all = recipe.architecture.all().iter();
                self.parameters
                    .extend(all.map(|architecture| channel_parameter(family, *architecture, channel)));
            }
            match &base.account {
                Some(account) => self.other_account(account, recipe, launches),
                None if launches || attaches => {}
                None => {
                    self.parts.insert(Part::ReadFamily);
                }
            }
        }
        // An unencrypted base of this account is copied with the key, since a child has its parent's.
        if !launches && base.family.is_some() && matches!(recipe.disk.encrypt, Some(Encrypt::Key(_))) {
            self.parts.insert(Part::Import);
        }
        if !launches {
            self.base_by_name(recipe, wish);
        }
        // A volume is made from a snapshot as it is.
        if self.parts.contains(&Part::Import) && !attaches {
            self.parts.insert(Part::ReadImport);
        } else if attaches {
            self.parts.remove(&Part::ReadOwn);
        }
    }

    /// A base that the recipe names in another way than by its family.
    fn base_by_name(&mut self, recipe: &Recipe, wish: &Wish) {
        let base = &recipe.base;
        if base.image.is_some() || base.newest.is_some() || base.parameter.is_some() {
            match wish.base.or_else(|| told(recipe)) {
                Some(BaseOwner::Own) => self.parts.extend([Part::ReadOwn]),
                Some(BaseOwner::Foreign) => self.parts.extend([Part::Import]),
                None => {
                    self.parts.extend([Part::ReadOwn, Part::Import]);
                    self.notes.push(
                        "the recipe does not tell whose the base is, so this allows both to read any snapshot of this \
                         account and to import a foreign image: --base own or --base foreign allows one of them"
                            .to_owned(),
                    );
                }
            }
        }
    }
}

impl Needs {
    /// The subnet that a launch is in. A test is in what the account has by default, and then any may be.
    pub(super) fn subnet(&self) -> Option<&SubnetChoice> {
        self.subnet.as_ref().filter(|_| !self.parts.contains(&Part::Test))
    }

    /// The VPC of Bakehouse's own that the subnet is in, where the recipe tells it by that.
    pub(super) fn subnets_vpc(&self) -> Option<&str> {
        match self.subnet() {
            Some(SubnetChoice::Tags(tags)) => tags.get(&tag("vpc")).map(String::as_str),
            _ => None,
        }
    }

    /// The ARNs' ends of what a launch is connected to, but of what tags tell.
    pub(super) fn networks(&self) -> Vec<String> {
        let subnet = match self.subnet() {
            Some(SubnetChoice::Id(id)) => Some(id.as_str()),
            Some(SubnetChoice::Tags(_)) => None,
            None => Some("*"),
        };
        let mut all: Vec<String> = subnet.map(|id| format!("subnet/{id}")).into_iter().collect();
        if self.parts.contains(&Part::Test) || self.security_groups.is_empty() {
            all.push("security-group/*".to_owned());
        } else {
            all.extend(self.security_groups.iter().map(|group| format!("security-group/{group}")));
        }
        all
    }

    /// A base of the same family line in another account: what is asked there, its role allows.
    fn other_account(&mut self, account: &str, recipe: &Recipe, launches: bool) {
        if !launches {
            self.parts.insert(Part::Import);
        }
        let Some((role, _)) = recipe.role_of(account) else {
            self.notes.push(format!(
                "the base is of the account {account}, and no role is named for it under `accounts`: credentials of that \
                 account itself are meant"
            ));
            return;
        };
        self.parts.insert(Part::Role);
        let arn = if role.starts_with("arn:") {
            role.to_owned()
        } else {
            format!("{account}:role/{}", role.trim_start_matches('/'))
        };
        self.roles.insert(arn);
        let asks = if recipe.base.channel.is_some() { "ssm:GetParameter and " } else { "" };
        self.notes.push(format!(
            "the role {role} in {account} needs {asks}ec2:DescribeImages there, and a trust policy that names the caller"
        ));
    }

    fn launch(&mut self, recipe: &Recipe) {
        self.parts.insert(Part::Launch);
        if recipe.image.imds == Some(Imds::Required) {
            self.parts.insert(Part::RequireImds);
        }
        let Some(launch) = &recipe.launch else { return };
        self.buckets.extend(launch.bucket.clone());
        self.spot = launch.spot;
        self.security_groups.extend(launch.security_groups.iter().cloned());
        self.subnet.clone_from(&launch.subnet);
        if !matches!(launch.subnet, Some(SubnetChoice::Id(_))) {
            self.parts.insert(Part::FindSubnet);
        }
        let Some(profile) = &launch.profile else { return };
        // The console gives a role's profile the role's own name. A profile's ARN ends in its name.
        let role = profile.rsplit('/').next().unwrap_or(profile);
        self.profile_roles.insert(role.to_owned());
        self.notes.push(format!(
            "the role in the instance profile {profile} is taken to be called {role}; where it is not, put its ARN under \
             PassProfile"
        ));
    }
}

/// Whose the base is, as far as the recipe tells.
fn told(recipe: &Recipe) -> Option<BaseOwner> {
    if recipe.base.parameter.as_deref().is_some_and(|name| name.starts_with("/aws/service/")) {
        return Some(BaseOwner::Foreign);
    }
    let owners = &recipe.base.newest.as_ref()?.owners;
    match (owners.iter().any(|owner| owner == "self"), owners.len()) {
        (true, 1) => Some(BaseOwner::Own),
        // Twelve digits may be this account's own.
        (false, _) if owners.iter().all(|owner| owner.starts_with("a")) => Some(BaseOwner::Foreign),
        _ => None,
    }
}
