//! `bakehouse plan`: what a bake would do, and why. Changes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::build;
use super::connect::AccountRole;
use super::exit::{Failure, chain};
use super::print;
use super::session::{self, Global, Mounts, Roles, Session, absolute};
use crate::cloud::{AccountId, Place};
use crate::plan::facts::Places;
use crate::plan::{self, FactsError, Plan, Source};
use crate::recipe::{self, Account, Loaded, Recipe, RecipeErrors};

/// Show what a bake would do, and why.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    pub recipe: RecipeArgs,
}

/// Which recipe, and what fills it in.
#[derive(clap::Args, Debug, Clone)]
pub struct RecipeArgs {
    /// The folder with bake.yml [default: this one; in a build of CodeBuild its source's, where this one has none].
    pub dir: Option<PathBuf>,
    /// Overrides a variable of the recipe.
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub var: Vec<(String, String)>,
    /// The source's commit, for names and tags [default: the one that CodeBuild tells].
    #[arg(long, env = "BAKEHOUSE_COMMIT")]
    pub commit: Option<String>,
    /// The pipeline's execution id, for tags and the record.
    #[arg(long, env = "BAKEHOUSE_PIPELINE_EXECUTION")]
    pub pipeline_execution: Option<String>,
}

pub(super) fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl RecipeArgs {
    /// Reads the recipe; its errors are shown all at once.
    ///
    /// # Errors
    /// [`Failure::Input`]
    pub fn load(&self) -> anyhow::Result<Loaded> {
        let vars: BTreeMap<String, String> = self.var.iter().cloned().collect();
        let options = recipe::LoadOptions { vars, ..recipe::LoadOptions::default() };
        let build = build::of_environment();
        let dir = build::folder(self.dir.as_deref(), build.as_ref());
        Ok(recipe::load(&dir, &options).map_err(|errors| match (&errors, &build) {
            (RecipeErrors::Missing { path }, Some(build)) => match build::others_with_a_recipe(build) {
                Some(others) => Failure::Input(format!(
                    "there is no {}; of the build's sources these have one: {others}; name its folder",
                    path.display()
                )),
                None => Failure::from(&errors),
            },
            _ => Failure::from(&errors),
        })?)
    }

    /// The folder that [`load`](Self::load) reads.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        build::folder(self.dir.as_deref(), build::of_environment().as_ref())
    }

    /// Where the recipe comes from: as it was said, and else as the build that this runs in tells it.
    fn source(&self) -> anyhow::Result<Source> {
        let told = build::of_environment().map(|build| build::source(&build)).unwrap_or_default();
        let said = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        let source = Source {
            commit: said(&self.commit).or(told.commit),
            pipeline_execution: said(&self.pipeline_execution),
            ..told
        };
        if let Some(commit) = &source.commit
            && !((4..=64).contains(&commit.len()) && commit.bytes().all(|byte| byte.is_ascii_hexdigit()))
        {
            anyhow::bail!(Failure::Input(format!(
                "--commit: `{commit}` is no commit id; one has hexadecimal digits only{}",
                unfilled(commit)
            )));
        }
        if let Some(id) = &source.pipeline_execution
            && uuid::Uuid::parse_str(id).is_err()
        {
            anyhow::bail!(Failure::Input(format!(
                "--pipeline-execution: `{id}` is no execution's id; one is a UUID{}",
                unfilled(id)
            )));
        }
        Ok(source)
    }
}

/// What to do about a variable of the pipeline that nobody put a value in for.
fn unfilled(value: &str) -> &'static str {
    if value.starts_with("#{") {
        "; CodePipeline fills in `#{…}` in the configuration of an action alone: pass it by the action's EnvironmentVariables"
    } else {
        ""
    }
}

/// The roles of other accounts that a recipe names.
#[must_use]
pub fn roles(recipe: &Recipe) -> Roles {
    let named = recipe.accounts.iter().map(Account::id).chain(recipe.base.account.as_deref());
    let entered = |id: &str| {
        let (role, external_id) = recipe.role_of(id)?;
        let role = AccountRole { role: role.to_owned(), external_id: external_id.map(str::to_owned) };
        Some((AccountId::parse(id)?, role))
    };
    named.filter_map(entered).collect()
}

/// Reads the recipe, looks up the facts and makes the plan.
///
/// # Errors
/// [`Failure`]
pub async fn make(
    args: &RecipeArgs,
    loaded: &Loaded,
    session: &Session,
    global: &Global,
) -> anyhow::Result<Plan> {
    let (dir, out) = (absolute(&loaded.dir), global.out(&loaded.dir));
    let source = args.source()?;
    let of_base = match loaded.recipe.base.account.as_deref().and_then(AccountId::parse) {
        Some(account) => session.clouds.at(&Place { account, ..session.cloud.place.clone() })?,
        None => session.cloud.clone(),
    };
    let places = Places { here: &session.cloud, of_base: &of_base };
    let facts = plan::facts::look_up(&loaded.recipe, &dir, &out, places, source, &session.stop)
        .await
        .map_err(|error| match error {
            FactsError::Cloud(_) => error.into(),
            other => anyhow::Error::from(Failure::Input(at_its_key(loaded, &other))),
        })?;
    let mut plan =
        plan::make(&loaded.recipe, &facts).map_err(|error| Failure::Input(at_its_key(loaded, &error)))?;
    plan.preflight = plan::preflight::look(&plan, &facts.encryption, &session.cloud, &session.stop).await;
    let of_recipe = loaded.warnings.iter().map(recipe::Problem::as_warning);
    for warning in plan.warnings.iter().cloned().chain(of_recipe) {
        session.reporter.warning(warning);
    }
    Ok(plan)
}

fn at_its_key(loaded: &Loaded, error: &(dyn std::error::Error + 'static)) -> String {
    let told = chain(error);
    format!("{}: {told}", loaded.place_of(&told))
}

pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let loaded = args.recipe.load()?;
    session::run_with(global, Mounts::No, &roles(&loaded.recipe), |session| async move {
        let plan = make(&args.recipe, &loaded, &session, global).await?;
        show(&plan, global)
    })
}

/// Prints a plan.
///
/// # Errors
/// Where it cannot be written.
pub fn show(plan: &Plan, global: &Global) -> anyhow::Result<()> {
    if global.json { print(&serde_json::to_string_pretty(plan)?) } else { print(plan.to_string().trim_end()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles_of(text: &str) -> Vec<(String, String, Option<String>)> {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("version: 1\nname: web\narchitecture: x86_64\n{text}\n");
        std::fs::write(dir.path().join("bake.yml"), text).unwrap();
        let recipe = recipe::load(dir.path(), &recipe::LoadOptions::default()).unwrap().recipe;
        let all = roles(&recipe).into_iter();
        all.map(|(account, of)| (account.to_string(), of.role, of.external_id)).collect()
    }

    #[test]
    fn roles_are_those_that_the_recipe_names() {
        let base = "base: { family: os-base, account: '123456789012' }";
        assert!(roles_of(base).is_empty());
        assert!(roles_of(&format!("accounts: ['123456789012']\n{base}")).is_empty());
        let one = "accounts: [{ id: '123456789012', role: Bake, external-id: team }]";
        let wanted = ("123456789012".to_owned(), "Bake".to_owned(), Some("team".to_owned()));
        assert_eq!(roles_of(&format!("{one}\n{base}")), [wanted]);
        let of_base = "base: { family: os-base, account: '123456789012', role: Bake }";
        assert_eq!(roles_of(of_base), [("123456789012".to_owned(), "Bake".to_owned(), None)]);
    }
}
