//! The command line: one file per verb. The only place that picks a cloud, reads the environment, prints and decides
//! how the process ends.

mod bake;
mod boot;
mod build;
mod connect;
mod delivery;
#[cfg(feature = "aws")]
mod ecr;
mod exit;
mod export;
mod fault;
mod images;
mod job;
mod keep_root;
mod metadata;
mod out_folder;
mod plan;
mod policy;
mod provision;
mod run;
mod session;
mod settle;
mod shell;
mod snapshot;
mod stage_report;
mod sweep;
mod test;
mod throw_away;
mod token_file;
mod vpc;
mod worker;

pub mod init;
pub mod schema;
pub mod validate;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::Failure;
use session::Global;

/// Bakes machine images without an instance, and the same images on a laptop.
///
/// Exit codes: 0 done; 2 the input is wrong; 3 failed, everything cleaned up; 4 failed, something is left behind
/// (listed); 5 not allowed; 6 checks failed; 75 the cloud is unavailable, try again; 130/143 interrupted.
#[derive(Parser, Debug)]
#[command(name = "bakehouse", version, max_term_width = 100, arg_required_else_help = true)]
struct Args {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Init(init::Args),
    Validate(validate::Args),
    Plan(plan::Args),
    Schema(schema::Args),
    Policy(policy::Args),
    #[cfg(feature = "aws")]
    Ecr(ecr::Args),
    Bake(bake::Args),
    Test(test::Args),
    Images(images::Args),
    Boot(boot::Args),
    Shell(shell::Args),
    Export(export::Args),
    Snapshot(snapshot::Args),
    Sweep(sweep::Args),
    Run(run::Args),
    Worker(worker::Args),
    Vpc(vpc::Args),
    Provision(provision::Args),
    #[command(hide = true)]
    Metadata(metadata::Args),
    #[command(hide = true)]
    KeepRoot(keep_root::Args),
}

/// Parses, runs and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version come as "errors" too, with the code 0. Nobody is left to tell if printing fails.
            let _ = error.print();
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            if code != 0 {
                let settings = Args::try_parse_from(["bakehouse", "schema"]);
                settings.into_iter().for_each(|args| job::refused(&error.to_string(), &args.global));
                stage_report::last_line(code, &Failure::Input(error.to_string()).reason());
            }
            return ExitCode::from(code);
        }
    };
    let result = match args.verb {
        Verb::Init(verb) => init::run(&verb),
        Verb::Validate(verb) => validate::run(&verb, &args.global),
        Verb::Plan(verb) => plan::run(&verb, &args.global),
        Verb::Schema(verb) => schema::run(&verb),
        #[cfg(feature = "aws")]
        Verb::Ecr(verb) => ecr::run(&verb, &args.global),
        Verb::Policy(verb) => policy::run(&verb, &args.global),
        Verb::Bake(verb) => job::told(&verb.job, &args.global, "bake", |_| bake::stage(&verb, &args.global)),
        Verb::Test(verb) => {
            job::told(&verb.job, &args.global, "test", |job| test::stage(&verb, &args.global, job))
        }
        Verb::Images(verb) => images::run(&verb, &args.global),
        Verb::Boot(verb) => boot::run(&verb, &args.global),
        Verb::Shell(verb) => shell::run(&verb, &args.global),
        Verb::Export(verb) => export::run(&verb, &args.global),
        Verb::Snapshot(verb) => snapshot::run(&verb, &args.global),
        Verb::Sweep(verb) => sweep::run(&verb, &args.global),
        Verb::Run(verb) => run::run(&verb, &args.global),
        Verb::Worker(verb) => worker::run(&verb, &args.global),
        Verb::Vpc(verb) => vpc::run(&verb, &args.global),
        Verb::Provision(verb) => match provision::run(&verb) {
            Ok(code) => return ExitCode::from(code),
            Err(error) => Err(error),
        },
        Verb::Metadata(verb) => metadata::run(&verb),
        Verb::KeepRoot(verb) => keep_root::run(&verb),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let failure = Failure::from(error);
            let text = failure.to_string();
            // The diagnostics of a recipe say it themselves, each of its errors.
            let word = if text.starts_with("error") { "" } else { "error: " };
            // A terminal that hung up takes no message; the exit code tells.
            let _ = writeln!(std::io::stderr().lock(), "{word}{text}");
            stage_report::last_line(failure.code(), &failure.reason());
            ExitCode::from(failure.code())
        }
    }
}

/// Prints a result on standard output. A reader that went away is no failure of ours.
fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
