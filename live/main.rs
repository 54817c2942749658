//! `make live`: the conformance bodies and one direct bake in a real AWS account. Says first what that makes and costs, and
//! asks; takes all of it away again, also after a failure or a signal, and looks that it is gone; and prints what it saw as
//! rows for the last table of docs/what-aws-has-seen.md.
//!
//! Exit codes: 0 all is as expected; 1 something is not, or could not be tried; 4 something is left in the account (listed);
//! 130 and 143 interrupted, cleaned up.
//!
//! Nobody has run it against AWS itself: there was no account. `tests/live` runs it against the stand-in.

mod account;
mod bake;
mod bodies;
#[path = "../tests/conformance/mod.rs"]
#[allow(dead_code, reason = "a part of it serves other tests only")]
mod conformance;
mod cost;
mod findings;
mod run;

use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bakehouse::aws::{AwsClouds, ConnectOptions, Roles, SETTLES_WITHIN};
use bakehouse::cloud::paced::{Paces, Rates};
use bakehouse::cloud::{Clouds as _, Region};
use bakehouse::host::stop::Stop;
use bakehouse::recipe::Span;
use clap::Parser;

use account::Account;
use bake::{Base, DirectBake};
use findings::Findings;
use run::Run;

/// Try Bakehouse in the AWS account that the environment names.
#[derive(Parser)]
struct Args {
    /// The program that bakes.
    #[arg(long, env = "BAKEHOUSE", default_value = "target/release/bakehouse")]
    program: PathBuf,
    /// What is baked on: the public parameter, or the id, of a Linux image of another account [default: Debian 12].
    #[arg(long, env = "BASE")]
    base: Option<String>,
    /// Do not ask.
    #[arg(long, env = "YES", value_parser = clap::builder::FalseyValueParser::new())]
    yes: bool,
    /// How long AWS may not show what was just made.
    #[arg(long, env = "BAKEHOUSE_AWS_SETTLES", value_parser = Span::parse)]
    settles: Option<Span>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if !rustix::process::geteuid().is_root() {
        bail!("a bake mounts file systems and needs root: run it by make live, or with sudo --preserve-env");
    }
    let program = args.program.canonicalize();
    let program =
        program.with_context(|| format!("{} is missing: make live builds it", args.program.display()))?;
    let base = args.base.as_deref().map_or_else(Base::debian, Base::new);
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(live(args, program, base))
}

async fn live(args: Args, program: PathBuf, base: Base) -> anyhow::Result<ExitCode> {
    let settles_within = args.settles.map_or(SETTLES_WITHIN, Span::duration);
    let options =
        ConnectOptions { region: None, account: None, roles: Roles::new(), settles_within, fixed: None };
    let clouds = AwsClouds::connect(&options).await?;
    let region: Region = clouds.home().region;
    let clouds = Paces::new(Rates::default()).clouds(Arc::new(clouds));
    let cloud = clouds.at(&clouds.home())?;
    let who = cloud.account.identity().await?;

    eprint!("{}", cost::announcement(&who.arn, &region, &base));
    if !args.yes && !agreed()? {
        bail!("nothing was done");
    }
    let stop = Stop::on_signals()?;
    let run = Run::new();
    let account = Account::new(cloud.clone(), run.clone(), settles_within).await?;
    let mut findings = Findings::new(&region);

    say(&format!("the bodies of tests/conformance, with the tag {}", run.mark()));
    bodies::run(&run.of(cloud.clone()), &stop, &mut findings).await?;
    run.tell(&mut findings);
    let mut failed = None;
    if !stop.is_requested() {
        say(&format!("a direct bake of {base}, with its import"));
        let bake = DirectBake { program: &program, base: &base, run: &run, region: &region };
        failed = bake.run(&cloud, &stop, &mut findings).await.err();
    }

    say("taking everything away");
    let left = account.clean().await;
    for row in findings.rows() {
        println!("{row}");
    }
    if let Some(error) = &failed {
        eprintln!("error: {error:#}");
    }
    Ok(ExitCode::from(if !left.is_empty() {
        eprintln!("error: this is left, and has the tag {}:\n  {}", run.mark(), left.join("\n  "));
        4
    } else if let Some(signal) = stop.signal() {
        // As a shell tells a signal.
        128 + u8::try_from(signal).unwrap_or_default()
    } else {
        u8::from(failed.is_some() || !findings.are_as_expected())
    }))
}

fn agreed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody answers; YES=1 goes on without asking");
    }
    eprint!("Go on? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == "y")
}

fn say(text: &str) {
    eprintln!("==> {text}");
}
