//! `bakehouse provision`: runs a bundle's steps and the seal on the machine that it runs on. Sent to instances by the method
//! `launch`; all that it keeps lies beside the bundle, so that it goes on after a reboot.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
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
    Bundle, BundleSecrets, ChrootOptions, ChrootRoot, EspAccess, LastOfSeal, MachineRoot, Outcome,
    OutcomeEnd, OutcomeFailure, Progress, Root, SSM_AGENT, SealOptions, StepContext, StepFailed, StepTiming,
    disks_alone, installed, keep_wanted_ssm_agent, leave_ssm_agent, remove_build_key, run_steps, seal,
    ssm_agent_is_brought, stop_ssm_agent, take_out_ssm_agent,
};
use crate::recipe::Step;
use crate::report::{JsonLines, Reporter};

/// Bytes of events that are shown at once.
const MOST_EVENTS: usize = 1 << 20;
/// The exit code where provisioning failed, as its result says.
const FAILED: u8 = 1;
/// Characters of what a failure is told with: it comes back on one line, and no line is longer than 16 KiB.
const LONGEST_FAILURE: usize = 3000;
/// Time for the process that does the last of the seal to begin: a machine in software emulation is slow.
const BEGINNING: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);
/// What is on an instance for the bake only, its agent's mark among it.
const OWN: &str = "/var/lib/bakehouse";
/// In memory, on any machine that runs.
const IN_MEMORY: &str = "/run/bakehouse-provision";
/// Says that the process that does the last of the seal has begun.
const BEGUN: &str = "/run/bakehouse-provision/finishing";
/// The machine's console, and the serial port that EC2 shows where the kernel's console is another.
const CONSOLES: [&str; 2] = ["/dev/console", "/dev/ttyS0"];
/// How often the console is told the same: what the kernel writes there meanwhile may cut a line in two.
const TOLD: u32 = 24;
const TELLING: Duration = Duration::from_secs(5);

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
    /// Leave what lets commands into the machine: `--finish` takes it away.
    #[arg(long, requires = "seal")]
    reachable: bool,
    /// Begin the last of the seal, which goes on when this has ended: it takes away what lets commands in, and the console
    /// says what came of it.
    #[arg(long, conflicts_with = "seal")]
    finish: bool,
    /// After the last of the seal: turn the machine off, so that nothing on it is written any more.
    #[arg(long)]
    then_off: bool,
    /// Show what happened since this byte of the events, beginning with the number of the byte to go on with.
    #[arg(long, value_name = "BYTE", conflicts_with = "seal")]
    events: Option<u64>,
    /// What `--finish` begins.
    #[arg(long, hide = true)]
    finishing: bool,
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
        if args.finishing {
            return finishing(args, &stop).await;
        }
        let outcome = if args.seal {
            sealed(args, &reporter, &stop).await
        } else if args.finish {
            finish(args).await
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
    let dir = RootDir::open(&args.root)?;
    keep_wanted_ssm_agent(&dir, &bundle.steps)?;
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
    let mut installed = installed(&dir, stop).await?;
    if ssm_agent_is_brought(&dir) {
        // The image will not have it.
        installed.packages.retain(|package| package.name != SSM_AGENT);
    }
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
    seal_root(args, &bundle.seal.remove, reporter, stop).await?;
    Ok(Outcome { end: OutcomeEnd::Sealed, timings: Vec::new() })
}

/// The seal, and what came in for the bake.
async fn seal_root(args: &Args, remove: &[String], reporter: &Reporter, stop: &Stop) -> anyhow::Result<()> {
    let dir = if args.is_machine() { disks_alone()? } else { RootDir::open(&args.root)? };
    if !args.reachable {
        // Labels are the seal's last, and nothing is made after it.
        remove_build_key(&dir, BUILD_KEY)?;
        for own in [args.bundle.as_path(), Path::new(OWN)] {
            if args.is_machine() && own.exists() {
                tree::remove(own)?;
            }
        }
    }
    seal(&dir, SealOptions { remove, reachable: args.reachable, reporter, stop }).await?;
    rustix::fs::sync();
    Ok(())
}

/// Begins the last of the seal in a process that outlives this one, its command, and what ran that.
async fn finish(args: &Args) -> anyhow::Result<Outcome> {
    let mut last = Cmd::new(std::env::current_exe()?).args(["provision", "--root"]).arg(&args.root);
    last = last.arg("--bundle").arg(&args.bundle).arg("--finishing");
    if args.then_off {
        last = last.arg("--then-off");
    }
    last.detach()?;
    let began = tokio::time::Instant::now();
    while !Path::new(BEGUN).exists() {
        if began.elapsed() > BEGINNING {
            anyhow::bail!("the last of the seal did not begin within {} s", BEGINNING.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(Outcome { end: OutcomeEnd::Sealed, timings: Vec::new() })
}

/// The last of the seal: nobody can send a command any more, so the console says what came of it. Then the machine is off
/// at once, without its services writing what they write when they end, or waits for who takes its image.
async fn finishing(args: &Args, stop: &Stop) -> anyhow::Result<()> {
    let bundle = Bundle::unpack(&args.file("bundle"), &args.file("files"))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(IN_MEMORY)?;
    fs::write(BEGUN, "")?;
    let last = match last_of_seal(args, &bundle).await {
        Ok(()) => LastOfSeal::Done,
        Err(error) => LastOfSeal::Failed(format!("{error:#}")),
    };
    let line = last.line(&bundle.bake);
    tell(&line);
    if args.then_off && last == LastOfSeal::Done {
        // Who waits for it stops a machine that does not turn itself off.
        let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    }
    for _ in 1..TOLD {
        tokio::select! {
            () = tokio::time::sleep(TELLING) => tell(&line),
            // The machine goes down, and would wait for this.
            () = stop.requested() => return Ok(()),
        }
    }
    Ok(())
}

async fn last_of_seal(args: &Args, bundle: &Bundle) -> anyhow::Result<()> {
    leave_ssm_agent();
    stop_ssm_agent().await;
    let root = RootDir::open(&args.root)?;
    if ssm_agent_is_brought(&root) {
        take_out_ssm_agent(&root).await?;
    }
    seal_root(args, &bundle.seal.remove, &Reporter::silent(), &Stop::never()).await
}

/// Writes a line to the console, and does not wait for one that takes none.
fn tell(line: &str) {
    for console in CONSOLES {
        let flags = rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::NONBLOCK;
        let opened = OpenOptions::new().append(true).custom_flags(flags.bits().cast_signed()).open(console);
        if let Ok(mut console) = opened {
            // A machine need not have it; who looks for the line says that it did not come.
            let _ = console.write_all(format!("\n{line}\n").as_bytes());
        }
    }
}
