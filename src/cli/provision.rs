//! `bakehouse provision`: runs a bundle's steps and the seal on the machine that it runs on. Sent to instances by the method
//! `launch`; all that it keeps lies beside the bundle, so that it goes on after a reboot.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;

use super::exit::{Failure, chain};
use super::print;
use super::session::{block_on, require_root};
use crate::cloud::{BUILD_KEY, REBOOT};
use crate::host::exec::Cmd;
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;
use crate::host::{file, namespace, tree};
use crate::provision::{
    Bundle, BundleSecrets, ChrootOptions, ChrootRoot, EspAccess, MachineRoot, Outcome, OutcomeEnd,
    OutcomeFailure, Progress, Root, SealOptions, StepContext, StepFailed, StepTiming, disks_alone, installed,
    remove_build_key, run_steps, seal,
};
use crate::recipe::Step;
use crate::report::{JsonLines, Reporter};

/// Bytes of events that are shown at once.
const MOST_EVENTS: usize = 1 << 20;
/// The exit code where provisioning failed, as its result says.
const FAILED: u8 = 1;
/// Characters of what a failure is told with: it comes back on one line, and no line is longer than 16 KiB.
const LONGEST_FAILURE: usize = 3000;
/// Until the answer of the seal is on its way, before the machine is turned off: an agent reports within seconds.
const REPORTING: Duration = Duration::from_secs(6);
/// Time for the process that turns the machine off to begin, before its program's file goes: a machine in software
/// emulation is slow.
const BEGINNING: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);
/// What is on an instance for the bake only, its agent's mark among it.
const OWN: &str = "/var/lib/bakehouse";
/// Put there by user data that installed the agent.
const AGENT: &str = "/var/lib/bakehouse/ssm-agent-installed";
/// In memory, on any machine that runs.
const IN_MEMORY: &str = "/run/bakehouse-provision";
/// Says that the process that turns the machine off has begun.
const BEGUN: &str = "/run/bakehouse-provision/turning-off";

/// Run a bundle's steps on the machine that this runs on, or on a root in a folder.
///
/// The result is JSON on standard output. Exit codes: 0 done; 1 failed, as the result says; 194 reboot the machine and run
/// this again.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The root: `/`, or a folder that is one.
    #[arg(long)]
    root: PathBuf,
    /// The folder with the file `bundle`; what happens is kept beside it.
    #[arg(long, value_name = "FOLDER")]
    bundle: PathBuf,
    /// A file with what the steps take from the environment; it is removed.
    #[arg(long, value_name = "FILE")]
    secrets: Option<PathBuf>,
    /// Seal the root: the last that is done to it.
    #[arg(long)]
    seal: bool,
    /// After the seal: turn the machine off, so that nothing on it is written any more.
    #[arg(long, requires = "seal")]
    then_off: bool,
    /// Show what happened since this byte of the events, beginning with the number of the byte to go on with.
    #[arg(long, value_name = "BYTE", conflicts_with = "seal")]
    events: Option<u64>,
    /// Seal once more and turn the machine off.
    #[arg(long, hide = true)]
    turn_off: bool,
}

impl Args {
    fn is_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.bundle.join(name)
    }

    fn log(&self) -> PathBuf {
        self.file("events.jsonl")
    }
}

/// What the process ends with.
///
/// # Errors
/// Where there is no result to tell.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    if let Some(from) = args.events {
        return events(&args.log(), from).map(|()| 0);
    }
    require_root()?;
    // Before any thread is started.
    namespace::enter_private_mounts().map_err(|error| {
        Failure::Refused(format!("cannot make a mount namespace ({error}): this needs CAP_SYS_ADMIN"))
    })?;
    let reporter = Reporter::silent();
    if let Ok(log) = OpenOptions::new().create(true).append(true).mode(0o600).open(args.log()) {
        reporter.add_sink(Box::new(JsonLines::new(log, false)));
    }
    let mut code = 0;
    let code_of = &mut code;
    block_on(|stop| async move {
        if args.turn_off {
            return turn_off(args).await;
        }
        let outcome = if args.seal {
            sealed(args, &reporter, &stop).await
        } else {
            provisioned(args, &reporter, &stop).await
        };
        let outcome = outcome.unwrap_or_else(|error| Outcome {
            end: OutcomeEnd::Failed(OutcomeFailure {
                step: None,
                why: reporter.masked(&format!("{error:#}")),
            }),
            timings: Vec::new(),
        });
        // On lines of its own: what reads them takes no line of any length.
        print(&serde_json::to_string_pretty(&outcome)?)?;
        *code_of = match outcome.end {
            OutcomeEnd::Done(_) | OutcomeEnd::Sealed => 0,
            OutcomeEnd::Reboot => u8::try_from(REBOOT).unwrap_or(FAILED),
            OutcomeEnd::Failed(_) => FAILED,
        };
        Ok(())
    })?;
    Ok(code)
}

/// Whole lines only: the last may be being written.
fn events(log: &Path, from: u64) -> anyhow::Result<()> {
    let mut next = from;
    let mut text = String::new();
    if let Ok(mut log) = File::open(log) {
        log.seek(SeekFrom::Start(from))?;
        let mut log = BufReader::new(log);
        let mut line = Vec::new();
        while text.len() < MOST_EVENTS {
            line.clear();
            let read = log.read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                break;
            }
            next += read as u64;
            text.push_str(&String::from_utf8_lossy(&line));
        }
    }
    print(&format!("{next}\n{}", text.trim_end()))
}

async fn provisioned(args: &Args, reporter: &Reporter, stop: &Stop) -> anyhow::Result<Outcome> {
    let recipe = args.file("files");
    let bundle = Bundle::unpack(&args.file("bundle"), &recipe)?;
    let environment = secrets(args, &recipe)?;
    let kept = args.file("progress.json");
    let mut progress: Progress = match fs::read(&kept) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Progress::default(),
        Err(error) => return Err(error.into()),
    };
    let context = StepContext {
        reporter: reporter.clone(),
        stop: stop.clone(),
        environment,
        esp: EspAccess::Full,
        ..StepContext::new(&recipe)
    };
    // Up to the next reboot.
    let rest = bundle.steps.iter().enumerate().skip(progress.next);
    let reboot = rest.into_iter().find(|(_, step)| matches!(step, Step::Reboot(_))).map(|(at, _)| at);
    let until = reboot.filter(|_| args.is_machine()).unwrap_or(bundle.steps.len());
    let context = StepContext { from: progress.next, ..context };
    match steps(args, &bundle.steps, until, &context).await? {
        Ok(done) => progress.timings.extend(done),
        Err(failed) => return Ok(failure(failed, progress.timings, reporter)),
    }
    if until < bundle.steps.len() {
        reporter.note(format!("step {}: the machine is rebooted", until + 1));
        progress.next = until + 1;
        file::replace(&kept, &serde_json::to_vec(&progress)?, 0o600)?;
        return Ok(Outcome { end: OutcomeEnd::Reboot, timings: progress.timings });
    }
    let dir = RootDir::open(&args.root)?;
    let installed = installed(&dir, stop).await?;
    Ok(Outcome { end: OutcomeEnd::Done(installed), timings: progress.timings })
}

/// Runs the steps up to one.
async fn steps(
    args: &Args,
    steps: &[Step],
    until: usize,
    context: &StepContext,
) -> anyhow::Result<Result<Vec<StepTiming>, StepFailed>> {
    if args.is_machine() {
        let root = MachineRoot::enter()?;
        let ran = run_steps(&root as &dyn Root, &steps[..until], context).await;
        root.leave()?;
        return Ok(ran);
    }
    let root = ChrootRoot::enter(ChrootOptions::new(&args.root)).await?;
    let ran = run_steps(&root, &steps[..until], context).await;
    root.leave().await?;
    Ok(ran)
}

fn failure(failed: StepFailed, mut timings: Vec<StepTiming>, reporter: &Reporter) -> Outcome {
    let mut why = reporter.masked(&chain(&failed.source));
    if let Some((at, _)) = why.char_indices().nth(LONGEST_FAILURE) {
        why.truncate(at);
        why.push('…');
    }
    let name = reporter.masked(&failed.name);
    timings.extend(failed.done);
    Outcome { end: OutcomeEnd::Failed(OutcomeFailure { step: Some((failed.number, name)), why }), timings }
}

/// Takes the secrets in: variables, and files that lie in memory and are only linked to.
fn secrets(args: &Args, recipe: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let Some(path) = &args.secrets else { return Ok(environment) };
    let read: BundleSecrets = serde_json::from_slice(&fs::read(path)?)?;
    fs::remove_file(path)?;
    environment.extend(read.environment);
    let folder = Path::new(IN_MEMORY).join("files");
    for (number, (name, content)) in read.files.iter().enumerate() {
        if !Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_))) {
            // Outside of the recipe's folder on the host that baked; here it would be anywhere.
            anyhow::bail!(
                "secret-env: `{name}` lies outside of the recipe's folder: bring it in by a variable"
            );
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let to = folder.join(number.to_string());
        file::replace(&to, &base64::engine::general_purpose::STANDARD.decode(content)?, 0o600)?;
        let at = recipe.join(name);
        if let Some(parent) = at.parent() {
            fs::create_dir_all(parent)?;
        }
        let _ = fs::remove_file(&at);
        symlink(&to, &at)?;
    }
    Ok(environment)
}

async fn sealed(args: &Args, reporter: &Reporter, stop: &Stop) -> anyhow::Result<Outcome> {
    let bundle = Bundle::unpack(&args.file("bundle"), &args.file("files"))?;
    let off = args.then_off && args.is_machine();
    if off {
        // Before the seal, which takes its program's file away. Without setsid the machine is stopped from outside.
        file::replace(&args.file("seal.json"), &serde_json::to_vec(&bundle.seal)?, 0o600)?;
        let late =
            Cmd::new(std::env::current_exe()?).args(["provision", "--root", "/", "--turn-off", "--bundle"]);
        match late.arg(&args.bundle).detach() {
            Ok(_) => begun().await,
            Err(error) => {
                reporter.warning(format!("the machine does not turn itself off: {}", chain(&error)));
            }
        }
    }
    seal_root(args, &bundle.seal.remove, reporter, stop).await?;
    Ok(Outcome { end: OutcomeEnd::Sealed, timings: Vec::new() })
}

/// Waits until the process that turns the machine off has what it needs of the bundle's folder.
async fn begun() {
    let began = tokio::time::Instant::now();
    while !Path::new(BEGUN).exists() && began.elapsed() < BEGINNING {
        tokio::time::sleep(LOOK).await;
    }
}

/// The seal, and what came in for the bake.
async fn seal_root(args: &Args, remove: &[String], reporter: &Reporter, stop: &Stop) -> anyhow::Result<()> {
    let dir = if args.is_machine() { disks_alone()? } else { RootDir::open(&args.root)? };
    // Labels are the seal's last, and nothing is made after it.
    remove_build_key(&dir, BUILD_KEY)?;
    for own in [args.bundle.as_path(), Path::new(OWN)] {
        if args.is_machine() && own.exists() {
            tree::remove(own)?;
        }
    }
    seal(&dir, SealOptions { remove, reporter, stop }).await?;
    rustix::fs::sync();
    Ok(())
}

/// What runs wrote after the seal, an agent's answer among it, is taken away again; then the machine is off at once,
/// without its services writing what they write when they end.
async fn turn_off(args: &Args) -> anyhow::Result<()> {
    let kept = fs::read(args.file("seal.json"))?;
    let options: crate::recipe::Seal = serde_json::from_slice(&kept)?;
    let brought = Path::new(AGENT).exists();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(IN_MEMORY)?;
    fs::write(BEGUN, "")?;
    tokio::time::sleep(REPORTING).await;
    if brought {
        remove_agent().await;
    }
    seal_root(args, &options.remove, &Reporter::silent(), &Stop::never()).await?;
    rustix::system::reboot(rustix::system::RebootCommand::PowerOff)?;
    Ok(())
}

/// An agent that user data brought in is taken out: its answer was given. What cannot be taken out stays without its
/// registration, which is the seal's.
async fn remove_agent() {
    const WAYS: [(&str, &[&str]); 2] = [
        ("/usr/bin/dpkg", &["dpkg", "--purge", "amazon-ssm-agent"]),
        ("/usr/bin/rpm", &["rpm", "--erase", "amazon-ssm-agent"]),
    ];
    if let Some((_, words)) = WAYS.iter().find(|(program, _)| Path::new(program).exists()) {
        let command = Cmd::new(words[0]).args(&words[1..]).timeout(Duration::from_secs(60));
        // As above: best effort.
        let _ = command.run(&Stop::never()).await;
    }
}
