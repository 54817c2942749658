//! `bakehouse policy`: the least IAM policy that a recipe's stages need. Asks no cloud.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::exit::Failure;
use super::print;
use super::session::Global;
use crate::policy::{self, BaseOwner, Needs, Wish};
use crate::recipe;

/// Print the least IAM policy that this recipe's stages need, as JSON.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The folder with bake.yml, or for `run` with buildspec.yml.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Overrides a variable of the recipe.
    #[arg(long, value_name = "NAME=VALUE", value_parser = super::plan::variable)]
    var: Vec<(String, String)>,
    /// What the policy is for; `upload`, `download`, `sweep`, `ecr`, `job`, `worker`, `run` and `vpc`
    /// need no recipe.
    #[arg(long = "for", value_enum, value_delimiter = ',', default_values = ["bake", "test"])]
    stages: Vec<Stage>,
    /// Whose the base image is, where the recipe does not tell.
    #[arg(long, value_enum)]
    base: Option<Owner>,
    /// A key that is used besides the recipe's: the base's, or the account's default (ARN, id or alias/NAME).
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// With `--for ecr`: the repository.
    #[arg(long, value_name = "NAME", default_value = "bakehouse")]
    repository: Vec<String>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Bake,
    Test,
    Sweep,
    Upload,
    Download,
    Ecr,
    Job,
    Worker,
    Run,
    Vpc,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Own,
    Foreign,
}

/// The verb.
pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let needs_recipe = args.stages.iter().any(|stage| matches!(stage, Stage::Bake | Stage::Test));
    let loaded = if needs_recipe {
        let vars: BTreeMap<String, String> = args.var.iter().cloned().collect();
        let options = recipe::LoadOptions { vars, ..recipe::LoadOptions::default() };
        Some(recipe::load(&args.dir, &options).map_err(|errors| Failure::from(&errors))?)
    } else {
        None
    };
    let buildspec = if args.stages.contains(&Stage::Run) {
        Some(
            recipe::buildspec::load(&args.dir.join(recipe::buildspec::FILE))
                .map_err(|errors| Failure::from(&errors))?,
        )
    } else {
        None
    };
    let wish = Wish {
        stages: args.stages.iter().map(|stage| stage.meant()).collect::<BTreeSet<_>>(),
        base: args.base.map(|owner| match owner {
            Owner::Own => BaseOwner::Own,
            Owner::Foreign => BaseOwner::Foreign,
        }),
        keys: args.key.clone(),
        repositories: args.repository.clone(),
    };
    let recipe = loaded.as_ref().map(|loaded| &loaded.recipe);
    let needs = Needs::of(recipe, buildspec.as_ref().map(|loaded| &loaded.buildspec), &wish);
    let reporter = global.reporter();
    for note in &needs.notes {
        reporter.warning(note.clone());
    }
    let (region, account) = global.region_and_account()?;
    let policy = policy::policy(&needs, &policy::Scope { region, account });
    let length = policy::length(&policy);
    if length > policy::MANAGED {
        reporter.warning(format!(
            "this has {length} characters, and a managed policy takes {}: write it into the role itself, which takes {} \
             in all, or print it in parts by --for and --base",
            policy::MANAGED,
            policy::OF_A_ROLE
        ));
    }
    print(&format!("{policy:#}"))
}

impl Stage {
    fn meant(self) -> policy::Stage {
        match self {
            Self::Bake => policy::Stage::Bake,
            Self::Test => policy::Stage::Test,
            Self::Sweep => policy::Stage::Sweep,
            Self::Upload => policy::Stage::Upload,
            Self::Download => policy::Stage::Download,
            Self::Ecr => policy::Stage::Registry,
            Self::Job => policy::Stage::Job,
            Self::Worker => policy::Stage::Worker,
            Self::Run => policy::Stage::Run,
            Self::Vpc => policy::Stage::Vpc,
        }
    }
}
