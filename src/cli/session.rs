//! What every verb has: the cloud that was picked, where events go, the request to stop, and the runtime.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use super::connect::{AccountRole, Asked, Connected, connect};
use super::exit::Failure;
use super::fault::Injected;
use crate::cloud::{AccountId, Cloud, Clouds, Jobs, Region};
use crate::host::namespace;
use crate::host::stop::Stop;
use crate::local::Store;
use crate::method::{WorkDir, WorkError};
use crate::recipe::Span;
use crate::report::{JsonLines, Reporter, Terminal};

/// The roles by which other accounts are entered.
pub type Roles = BTreeMap<AccountId, AccountRole>;

/// Options that every verb takes; each also as an environment variable.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Work on the local cloud: a store in a folder [default: $XDG_DATA_HOME/bakehouse].
    #[arg(long, global = true, value_name = "STORE", env = "BAKEHOUSE_LOCAL", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    local: Option<String>,
    /// The region [default on AWS: AWS_REGION, or the profile's].
    #[arg(long, global = true, env = "BAKEHOUSE_REGION")]
    region: Option<String>,
    /// The account: twelve digits [default on AWS: that of the credentials].
    #[arg(long, global = true, env = "BAKEHOUSE_ACCOUNT")]
    account: Option<String>,
    /// The role to take in the account, by its name or ARN.
    #[arg(long, global = true, value_name = "ROLE", env = "BAKEHOUSE_ROLE")]
    role: Option<String>,
    /// The external id that the role asks for.
    #[arg(long, global = true, value_name = "ID", env = "BAKEHOUSE_EXTERNAL_ID")]
    external_id: Option<String>,
    /// How long AWS may not show what was just made, as 30s: so long unwinding looks for it [default: 2m].
    #[arg(long, global = true, value_name = "TIME", env = "BAKEHOUSE_AWS_SETTLES", value_parser = Span::parse)]
    aws_settles: Option<Span>,
    /// Blocks that may be read from AWS in a second, and as many written [default: 1000, EBS's limit for one snapshot].
    #[arg(long, global = true, value_name = "BLOCKS", env = "BAKEHOUSE_AWS_BLOCK_RATE", value_parser = clap::value_parser!(u32).range(1..))]
    aws_block_rate: Option<u32>,
    /// Where results go [default: bakehouse-out in the recipe's folder].
    #[arg(long, global = true, value_name = "FOLDER", env = "BAKEHOUSE_OUT")]
    out: Option<PathBuf>,
    /// Where bakes do their work; needs room for a disk [default: /var/tmp/bakehouse, of others than root with their user id].
    #[arg(long, global = true, value_name = "FOLDER", env = "BAKEHOUSE_WORK")]
    work: Option<PathBuf>,
    /// How events are shown on standard error.
    #[arg(long, global = true, value_enum, default_value = "text", env = "BAKEHOUSE_LOG")]
    log: Log,
    /// Show warnings and errors only.
    #[arg(long, short, global = true, env = "BAKEHOUSE_QUIET", value_parser = clap::builder::FalseyValueParser::new())]
    quiet: bool,
    /// Give the result as JSON.
    #[arg(long, global = true, env = "BAKEHOUSE_JSON", value_parser = clap::builder::FalseyValueParser::new())]
    pub json: bool,
    /// Fails on purpose, for tests: see src/cli/fault.rs.
    #[arg(long, global = true, hide = true, env = "BAKEHOUSE_FAULT", hide_env = true, value_parser = Injected::from_str)]
    fault: Option<Injected>,
}

#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Log {
    Text,
    Json,
}

impl Global {
    /// The folder for results of a recipe in `dir`.
    #[must_use]
    pub fn out(&self, dir: &Path) -> PathBuf {
        absolute(&self.out.clone().unwrap_or_else(|| dir.join("bakehouse-out")))
    }

    /// These options again, for a command line that goes on with something.
    #[must_use]
    pub fn again(&self) -> String {
        let mut text = String::new();
        match self.local.as_deref() {
            Some("") => text.push_str(" --local"),
            Some(store) => text += &format!(" --local={}", absolute(Path::new(store)).display()),
            None => {}
        }
        if self.work.is_some() {
            text += &format!(" --work={}", self.work().display());
        }
        let named = [
            ("account", &self.account),
            ("region", &self.region),
            ("role", &self.role),
            ("external-id", &self.external_id),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                text += &format!(" --{name}={value}");
            }
        }
        text
    }

    /// These options as the variables that stand for them: for a program that is started to work on the same.
    #[must_use]
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let store = self.local.as_deref().map(|store| match store {
            "" => OsString::new(),
            store => absolute(Path::new(store)).into(),
        });
        let text = |value: &Option<String>| value.as_ref().map(OsString::from);
        let named = [
            ("LOCAL", store),
            ("REGION", text(&self.region)),
            ("ACCOUNT", text(&self.account)),
            ("ROLE", text(&self.role)),
            ("EXTERNAL_ID", text(&self.external_id)),
            ("WORK", self.work.as_deref().map(|work| absolute(work).into())),
        ];
        let named = named.into_iter();
        named.filter_map(|(name, value)| Some((format!("BAKEHOUSE_{name}").into(), value?))).collect()
    }

    /// The folder that bakes work in. Not the system's temporary folder: that is often in memory. Each user has one.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        match (&self.work, namespace::is_root()) {
            (Some(folder), _) => absolute(folder),
            (None, true) => PathBuf::from("/var/tmp/bakehouse"),
            (None, false) => {
                PathBuf::from(format!("/var/tmp/bakehouse-{}", rustix::process::getuid().as_raw()))
            }
        }
    }

    /// A reporter that shows events on standard error.
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        let reporter = Reporter::silent();
        match self.log {
            Log::Text => reporter.add_sink(Box::new(Terminal::new(self.quiet))),
            Log::Json => reporter.add_sink(Box::new(JsonLines::new(std::io::stderr(), self.quiet))),
        }
        reporter
    }

    /// Where the pipeline is whose job this process does: in the account of the credentials themselves, whatever other
    /// account is worked in.
    ///
    /// # Errors
    /// [`Failure::Input`] on the local cloud, which has none.
    pub async fn jobs(&self) -> anyhow::Result<Arc<dyn Jobs>> {
        let (region, _) = self.region_and_account()?;
        let asked = Asked {
            local: self.local.clone(),
            region,
            account: None,
            roles: Roles::new(),
            settles_within: None,
            block_rate: None,
        };
        let mut clouds = connect(asked).await?.clouds;
        if let Some(injected) = self.fault.clone() {
            clouds = injected.begin(clouds, &Reporter::silent());
        }
        let none = || {
            Failure::Input(
                "the local cloud has no pipelines: take --local (BAKEHOUSE_LOCAL) out, or the job".to_owned(),
            )
        };
        Ok(clouds.at(&clouds.home())?.jobs.ok_or_else(none)?)
    }

    /// Whether one place was asked for by name.
    #[must_use]
    pub fn names_a_place(&self) -> bool {
        self.account.is_some() || self.region.is_some()
    }

    /// The region and the account that were asked for by name.
    ///
    /// # Errors
    /// [`Failure::Input`]
    pub fn region_and_account(&self) -> anyhow::Result<(Option<Region>, Option<AccountId>)> {
        let account = match &self.account {
            Some(text) => Some(AccountId::parse(text).ok_or_else(|| {
                Failure::Input(format!("--account: `{text}` is no account; one has twelve digits"))
            })?),
            None => None,
        };
        let region = match &self.region {
            Some(text) => Some(Region::parse(text).ok_or_else(|| {
                Failure::Input(format!("--region: `{text}` is no region; one looks like eu-west-1"))
            })?),
            None => None,
        };
        Ok((region, account))
    }

    /// Which cloud was asked for, with the roles that a recipe names.
    ///
    /// # Errors
    /// [`Failure::Input`]
    fn asked(&self, accounts: &Roles) -> anyhow::Result<Asked> {
        let (region, mut account) = self.region_and_account()?;
        let mut roles = accounts.clone();
        if let Some(role) = &self.role {
            // An ARN names its account: arn:aws:iam::123456789012:role/NAME.
            let of = role.strip_prefix("arn:").and_then(|arn| arn.split(':').nth(3));
            account = account.or_else(|| of.and_then(AccountId::parse));
            let Some(account) = account.clone() else {
                anyhow::bail!(Failure::Input(
                    "--role: whose? name its account with --account, or write the role's ARN".to_owned()
                ));
            };
            let (role, external_id) = (role.clone(), self.external_id.clone());
            roles.insert(account, AccountRole { role, external_id });
        } else if self.external_id.is_some() {
            anyhow::bail!(Failure::Input("--external-id goes with --role".to_owned()));
        }
        if self.local.is_some() && self.role.is_some() {
            anyhow::bail!(Failure::Input(
                "--role: the local cloud has no roles; take it or --local out".to_owned()
            ));
        }
        let settles_within = self.aws_settles.map(Span::duration);
        let block_rate = self.aws_block_rate;
        Ok(Asked { local: self.local.clone(), region, account, roles, settles_within, block_rate })
    }
}

/// Puts the temporary files of this process, and of programs that it starts, into a work folder: whoever clears that
/// clears them too. Only for a folder that lives as long as the process's work: a process has one.
///
/// # Errors
/// Where the folder cannot be made.
pub fn work_in(work: &WorkDir) -> anyhow::Result<()> {
    let folder = work.path().join("tmp");
    std::fs::create_dir_all(&folder).map_err(|source| WorkError::Create { path: folder.clone(), source })?;
    // Refused only where it was set before: then they are in that one.
    let _ = tempfile::env::override_temp_dir(&folder);
    Ok(())
}

/// A path that means the same from any folder.
#[must_use]
pub fn absolute(path: &Path) -> PathBuf {
    // Fails only where the current folder is gone; then the path as it is says as much as can be said.
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// What a verb works with.
pub struct Session {
    pub clouds: Arc<dyn Clouds>,
    /// What `clouds` is kept in, where they are local: for what only a store can do.
    pub store: Option<Store>,
    pub cloud: Cloud,
    pub reporter: Reporter,
    pub stop: Stop,
}

impl Session {
    /// The store, for a verb that needs one.
    ///
    /// # Errors
    /// [`Failure::Input`] on AWS: `instead` says what to do there.
    pub fn local_store(&self, verb: &str, instead: &str) -> anyhow::Result<&Store> {
        let missing =
            || Failure::Input(format!("`{verb}` works on the local cloud only: add --local; {instead}"));
        Ok(self.store.as_ref().ok_or_else(missing)?)
    }

    /// The same in another place.
    #[must_use]
    pub fn at(&self, cloud: Cloud) -> Self {
        Self {
            cloud,
            clouds: self.clouds.clone(),
            store: self.store.clone(),
            reporter: self.reporter.clone(),
            stop: self.stop.clone(),
        }
    }
}

/// Whether a verb mounts file systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounts {
    No,
    Yes,
}

/// Opens the session and runs a verb in it, until it ends or a signal asks it to.
///
/// # Errors
/// The verb's failure; that it needs root.
pub fn run<T, F, Fut>(global: &Global, mounts: Mounts, verb: F) -> anyhow::Result<T>
where
    F: FnOnce(Session) -> Fut,
    Fut: Future<Output = anyhow::Result<T>>,
{
    run_with(global, mounts, &Roles::new(), verb)
}

/// [`run`] with the roles of accounts that a recipe names.
///
/// # Errors
/// As [`run`].
pub fn run_with<T, F, Fut>(global: &Global, mounts: Mounts, roles: &Roles, verb: F) -> anyhow::Result<T>
where
    F: FnOnce(Session) -> Fut,
    Fut: Future<Output = anyhow::Result<T>>,
{
    let asked = global.asked(roles)?;
    if mounts == Mounts::Yes {
        private_mounts()?;
    }
    let reporter = global.reporter();
    block_on(|stop| async move {
        let Connected { mut clouds, store } = connect(asked).await?;
        if let Some(injected) = global.fault.clone() {
            clouds = injected.begin(clouds, &reporter);
        }
        let cloud = clouds.at(&clouds.home())?;
        verb(Session { clouds, store, cloud, reporter, stop }).await
    })
}

/// Runs something with a runtime and a request to stop.
///
/// # Errors
/// The future's own; that no runtime is to be had.
pub fn block_on<T, F, Fut>(work: F) -> anyhow::Result<T>
where
    F: FnOnce(Stop) -> Fut,
    Fut: Future<Output = anyhow::Result<T>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = Stop::on_signals()?;
        let result = work(stop.clone()).await;
        match (result.map_err(Failure::from), stop.signal()) {
            (Ok(done), _) => Ok(done),
            (Err(Failure::Work { left, .. } | Failure::Unavailable { left, .. }), _)
                if stop.deadline().is_some() =>
            {
                let message = "it took longer than it may and was ended; --within allows more".to_owned();
                Err(Failure::Work { message, left }.into())
            }
            // Whatever failed after the signal failed because of it.
            (Err(Failure::Work { left, .. } | Failure::Unavailable { left, .. }), Some(signal)) => {
                Err(Failure::Interrupted { signal, left }.into())
            }
            (Err(failure), _) => Err(failure.into()),
        }
    })
}

/// That this process runs as root.
///
/// # Errors
/// [`Failure::Refused`]
pub fn require_root() -> anyhow::Result<()> {
    if !namespace::is_root() {
        anyhow::bail!(Failure::Refused(
            "this mounts file systems and needs root: run it with sudo, or as root in a container".to_owned()
        ));
    }
    Ok(())
}

fn private_mounts() -> anyhow::Result<()> {
    require_root()?;
    Ok(namespace::enter_private_mounts().map_err(|error| {
        Failure::Refused(format!(
            "cannot make a mount namespace ({error}); in a container, run it privileged or with CAP_SYS_ADMIN"
        ))
    })?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// The options alone; what the tests' own environment says of them is the last word of none.
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        global: Global,
    }

    fn asked(words: &[&str], accounts: &Roles) -> Result<Asked, String> {
        let line = Line::try_parse_from([&["bakehouse"], words].concat()).unwrap();
        line.global.asked(accounts).map_err(|error| error.to_string())
    }

    fn entered(role: &str, external_id: Option<&str>) -> AccountRole {
        AccountRole { role: role.to_owned(), external_id: external_id.map(str::to_owned) }
    }

    #[test]
    fn nothing_named_is_aws_as_the_environment_has_it() {
        let found = asked(&[], &Roles::new()).unwrap();
        assert!(found.local.is_none() && found.region.is_none() && found.account.is_none());
        assert!(found.roles.is_empty() && found.settles_within.is_none());
        assert_eq!(asked(&["--local"], &Roles::new()).unwrap().local.as_deref(), Some(""));
        assert_eq!(asked(&["--local=here"], &Roles::new()).unwrap().local.as_deref(), Some("here"));
    }

    /// What is started with them has the same options.
    #[test]
    fn options_go_on_as_variables() {
        let line =
            ["bakehouse", "--local=/store", "--region=local", "--account=123456789012", "--work=/work"];
        let global = Line::try_parse_from(line).unwrap().global;
        let all: Vec<(String, String)> = global
            .environment()
            .into_iter()
            .map(|(name, value)| (name.into_string().unwrap(), value.into_string().unwrap()))
            .collect();
        let right = [
            ("BAKEHOUSE_LOCAL", "/store"),
            ("BAKEHOUSE_REGION", "local"),
            ("BAKEHOUSE_ACCOUNT", "123456789012"),
            ("BAKEHOUSE_WORK", "/work"),
        ];
        assert_eq!(all, right.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_role_names_its_account_or_is_given_one() {
        let account = AccountId::parse("123456789012");
        let by_name = asked(&["--account=123456789012", "--role=Bake", "--external-id=team"], &Roles::new());
        let by_name = by_name.unwrap();
        assert_eq!(by_name.account, account);
        assert_eq!(by_name.roles[&account.clone().unwrap()], entered("Bake", Some("team")));
        let arn = "arn:aws:iam::123456789012:role/Bake";
        let by_arn = asked(&["--role", arn], &Roles::new()).unwrap();
        assert_eq!((by_arn.account, by_arn.roles.len()), (account.clone(), 1));
        // What the command line says is meant, also where the recipe names another role.
        let recipe = Roles::from([
            (account.clone().unwrap(), entered("Other", Some("id"))),
            (AccountId::parse("210987654321").unwrap(), entered("Base", None)),
        ]);
        let both = asked(&["--role", arn], &recipe).unwrap().roles;
        assert_eq!(both[&account.unwrap()], entered(arn, None));
        assert_eq!(both[&AccountId::parse("210987654321").unwrap()], entered("Base", None));
    }

    #[test]
    fn what_does_not_go_together_is_told() {
        for (words, told) in [
            (&["--role=Bake"][..], "whose?"),
            (&["--external-id=team"], "goes with --role"),
            (&["--account=12"], "twelve digits"),
            (&["--region=nowhere at all"], "is no region"),
            (&["--local", "--account=123456789012", "--role=Bake"], "the local cloud has no roles"),
        ] {
            let error = asked(words, &Roles::new()).unwrap_err();
            assert!(error.contains(told), "{words:?}: {error}");
        }
    }
}
