//! `bakehouse test`: the checks in the image's file system, and the boot test.

use std::path::{Path, PathBuf};

use super::bake::{self, clear_orphans};
use super::boot::Firmware;
use super::build;
use super::exit::{Failure, chain};
use super::job::{Ended, JobArgs};
use super::session::{self, Global, Mounts, Session};
use super::stage_report::{self, StageReport};
use super::throw_away::ThrowAway;
use super::token_file::{self, TokenFile};
use super::{images, print};
use crate::acceptance::{
    self, AcceptanceError, Boot, BootReport, BootSpec, BootStage, Case, End, LaunchOptions, Outcome, Status,
    Until,
};
use crate::cloud::{Image, Job};
use crate::disk::tree::MountedTree;
use crate::host::clock;
use crate::host::file;
use crate::host::loop_device::Access;
use crate::host::stop::Stop;
use crate::image::{Record, TestRecord};
use crate::ledger::{Header, Ledger, Left};
use crate::method::WorkDir;
use crate::recipe::Size;
use crate::report::Event;
use crate::stage::{Answer, TokenError, Wait};

/// The stage's name, in its tags and in the name of its token's file.
const STAGE: &str = "test";

/// Check an image: first its file system, with nothing launched, then booted.
///
/// Writes junit.xml beside the record, a case per check behind that of the bake, and adds the result to the record. While the image boots,
/// test.token stands beside them: a test that was killed goes on from it, with the same instance, when the same command
/// is given again.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// The record of the image, or the folder of its recipe [default: this folder; in a build of CodeBuild its source's,
    /// where this one has no recipe].
    record: Option<PathBuf>,
    /// Do not boot the image: what only a boot can tell is not judged.
    #[arg(long, conflicts_with_all = ["token", "no_wait", "fresh"])]
    no_boot: bool,
    #[command(flatten)]
    launch: Launch,
    /// Go on with the test that this token is of.
    #[arg(long, value_name = "TOKEN|@FILE", env = "BAKEHOUSE_TOKEN", hide_env_values = true, conflicts_with_all = ["fresh", "firmware", "instance_type", "volume_size"])]
    token: Option<String>,
    /// Begin anew, though a test of this image waits; its instance is ended.
    #[arg(long)]
    fresh: bool,
    /// Look once. While there is no result yet, print the token to go on with, and exit with 0.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    pub(super) job: JobArgs,
}

/// How to launch it.
#[derive(clap::Args, Debug, Clone)]
struct Launch {
    /// The firmware, where the image can boot from both.
    #[arg(long, value_enum)]
    firmware: Option<Firmware>,
    /// The instance type; on the local cloud `qemu.nvme` or `qemu.virtio`.
    #[arg(long)]
    instance_type: Option<String>,
    /// Boot with a root volume larger than the image's, as an instance may have: its root must grow.
    #[arg(long, value_name = "SIZE", value_parser = Size::parse)]
    volume_size: Option<Size>,
}

impl Launch {
    fn options(&self) -> LaunchOptions {
        LaunchOptions {
            kind: self.instance_type.clone(),
            boot_mode: self.firmware.map(Firmware::boot_mode),
            root_size: self.volume_size.map(Size::gib),
        }
    }
}

/// The verb, for whoever waits for it. A job looks once, and the next job of its action goes on.
pub fn stage(args: &Args, global: &Global, job: Option<&Job>) -> anyhow::Result<Ended> {
    let Some(job) = job else { return run(args, global) };
    let token = args.token.clone().or_else(|| job.continuation.clone());
    run(&Args { token, no_wait: !args.no_boot, ..args.clone() }, global)
}

fn run(args: &Args, global: &Global) -> anyhow::Result<Ended> {
    let record = build::folder(args.record.as_deref(), build::of_environment().as_ref());
    let path = if record.is_dir() { global.out(&record).join("image.json") } else { record };
    let report = StageReport::begin(STAGE);
    // The report of a bake that failed stays.
    if let Some(out) = path.parent().filter(|out| !out.join(stage_report::FILE).exists()) {
        report.goes_to(out);
    }
    let result = run_at(&path, args, global, &report);
    report.end(result)
}

fn run_at(path: &Path, args: &Args, global: &Global, report: &StageReport) -> anyhow::Result<Ended> {
    let record = Record::read(path).map_err(|error| Failure::Input(chain(&error)))?;
    if let Some(out) = path.parent() {
        report.goes_to(out);
    }
    report.of(&record.name, vec![baked(&record)]);
    session::run(global, Mounts::Yes, |session| async move {
        report.masked_by(&session.reporter);
        test(record, path, args, &session, global).await
    })
}

/// The case of the bake that came before: what has a record was baked well.
fn baked(record: &Record) -> Case {
    let seconds = record.timings.iter().map(|timing| timing.seconds).sum();
    Case::of_stage(bake::STAGE, seconds, End::Passed)
}

async fn test(
    mut record: Record,
    path: &Path,
    args: &Args,
    session: &Session,
    global: &Global,
) -> anyhow::Result<Ended> {
    let home = record.home().ok_or_else(|| Failure::Input(format!("{} names no image", path.display())))?;
    let cloud = session.clouds.at(&home.place)?;
    let session = &session.at(cloud);
    let image = images::find(home.image.as_str(), session).await?;
    if args.no_boot {
        let (outcomes, _) = static_checks(&record, &image, session, global).await?;
        keep(&mut record, path, &outcomes, "", false)?;
        tell(&outcomes, "", session, global)?;
        return Ok(Ended::Done(path.to_owned()));
    }
    clear_orphans(session, global).await;
    let name = format!("{STAGE}-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
    let work = WorkDir::create(&global.work(), &name)?;
    session::work_in(&work)?;
    let header = Header::new(&session.clouds.name(), STAGE, &record.bake, clock::wall());
    let ledger = Ledger::begin(&work.ledger(), header)?;
    let tested = boot_test(&mut record, path, &image, &ledger, args, session, global).await;
    let settled = ledger.close().map(drop).map_err(|error| chain(&error));
    let closed = work.close().map_err(|error| chain(&error));
    for what in [settled, closed].into_iter().filter_map(Result::err) {
        session.reporter.warning(format!("left behind: {what}"));
        record.leftovers.push(what);
    }
    match tested? {
        Answer::Wait(wait) => {
            tell_wait(&wait, global)?;
            Ok(Ended::Waits(wait))
        }
        Answer::Done(Tested { outcomes, console, file }) => {
            keep(&mut record, path, &outcomes, &console, true)?;
            file.remove()?;
            // The ledger of a process that was killed while it waited has nothing to wait for any more.
            clear_orphans(session, global).await;
            tell(&outcomes, &console, session, global)?;
            Ok(Ended::Done(path.to_owned()))
        }
    }
}

/// All that was found out.
struct Tested {
    outcomes: Vec<Outcome>,
    console: String,
    /// Its token, until the result is written.
    file: TokenFile,
}

async fn boot_test(
    record: &mut Record,
    path: &Path,
    image: &Image,
    ledger: &Ledger,
    args: &Args,
    session: &Session,
    global: &Global,
) -> anyhow::Result<Answer<Tested>> {
    let spec = BootSpec {
        checks: record.checks.clone(),
        boot: record.boot.clone(),
        bake: record.bake.clone(),
        family: record.family.clone(),
    };
    let stage = BootStage {
        clouds: &*session.clouds,
        cloud: &session.cloud,
        image,
        spec: &spec,
        ledger,
        reporter: &session.reporter,
    };
    let mut file = TokenFile::beside(path, STAGE);
    let (mut boot, checked) = match waiting(args, &stage, &mut file).await? {
        Some(boot) => (boot, None),
        None => {
            let (outcomes, cloud_init) = static_checks(record, image, session, global).await?;
            let boot =
                stage.begin(args.launch.options(), cloud_init, &session.stop).await.map_err(failure)?;
            (boot, Some(outcomes))
        }
    };
    let report = match look(&stage, &mut boot, args, session, &mut file).await? {
        Answer::Done(report) => report,
        Answer::Wait(wait) => return Ok(Answer::Wait(wait)),
    };
    // A process that went on has not looked into the file system. What another found there is not in the token: it is
    // quickly found again.
    let checked = match checked {
        Some(outcomes) => outcomes,
        None => static_checks(record, image, session, global).await?.0,
    };
    if !report.left.is_nothing() {
        record.leftovers.push(report.left.to_string());
    }
    let outcomes = acceptance::combined(checked, report.outcomes);
    Ok(Answer::Done(Tested { outcomes, console: report.console, file }))
}

/// The boot to go on with: the one that `--token` names, or the one that waits beside the record.
async fn waiting(args: &Args, stage: &BootStage<'_>, file: &mut TokenFile) -> anyhow::Result<Option<Boot>> {
    if let Some(given) = &args.token {
        let token = token_file::given(given)?;
        let boot = stage.resume(&token).map_err(|error| Failure::Input(format!("--token: {error}")))?;
        return Ok(Some(boot));
    }
    let Some(token) = file.read()? else { return Ok(None) };
    let named = file.path().display().to_string();
    let wanted = args.launch.options();
    match token.and_then(|token| stage.resume(&token)) {
        Ok(boot) if !args.fresh && (wanted == LaunchOptions::default() || wanted == *boot.options()) => {
            let instance = boot.instance();
            stage.reporter.note(format!("going on with the test that waits in {named}, with {instance}"));
            Ok(Some(boot))
        }
        Ok(boot) => {
            let instance = boot.instance();
            stage.reporter.note(format!("the test that waited in {named} is ended, with {instance}"));
            let left = stage.end(&boot).await;
            if !left.is_nothing() {
                let message = format!("{instance}, of the test that waited, cannot be ended");
                return Err(Failure::Work { message, left }.into());
            }
            Ok(None)
        }
        Err(error @ TokenError::OtherImage { .. }) => {
            stage.reporter.note(format!("{named} is passed over: {error}"));
            Ok(None)
        }
        Err(error) if args.fresh => {
            stage.reporter.warning(format!("{named} is passed over: {error}"));
            Ok(None)
        }
        Err(error) => Err(Failure::Input(format!("{named}: {error} (with --fresh)")).into()),
    }
}

/// Looks, once or until there is a result, and keeps the token meanwhile.
async fn look(
    stage: &BootStage<'_>,
    boot: &mut Boot,
    args: &Args,
    session: &Session,
    file: &mut TokenFile,
) -> anyhow::Result<Answer<BootReport>> {
    let until = if args.no_wait { Until::OneLook } else { Until::Done };
    let phase = session.reporter.phase(format!("booting {}", stage.image.id));
    let mut told = None;
    let answer = stage.go_on(boot, until, &session.stop, |wait| {
        if let Err(error) = file.keep(&wait.token) {
            let path = file.path().display();
            session
                .reporter
                .warning(format!("{path} cannot be written ({error}): a killed test will not go on"));
        }
        if told.replace((wait.token.clone(), wait.percent)) != Some((wait.token.clone(), wait.percent)) {
            let (stage, token) = (STAGE.to_owned(), wait.token.to_string());
            session.reporter.emit(Event::Waiting { stage, token, percent: wait.percent });
        }
    });
    let answer = answer.await;
    phase.done();
    if let Err(error) = &answer
        && error.left().is_nothing()
        && !matches!(error, AcceptanceError::NotOwn { .. })
    {
        file.remove()?;
    }
    answer.map_err(failure)
}

fn failure(error: AcceptanceError) -> anyhow::Error {
    match error {
        AcceptanceError::NotOwn { .. } => Failure::Input(chain(&error)).into(),
        _ => Failure::of(&error, error.left()).into(),
    }
}

/// Writes junit.xml, and the result into the record.
fn keep(
    record: &mut Record,
    path: &Path,
    outcomes: &[Outcome],
    console: &str,
    booted: bool,
) -> anyhow::Result<()> {
    let cases: Vec<Case> = std::iter::once(baked(record)).chain(outcomes.iter().map(Case::from)).collect();
    let (junit, into) =
        (acceptance::junit(&record.name, &cases, console), path.with_file_name(stage_report::FILE));
    file::replace(&into, junit.as_bytes(), 0o644)
        .map_err(|error| Failure::Input(format!("cannot write {}: {error}", into.display())))?;
    record.test = Some(summary(outcomes, booted));
    Ok(record.write(path)?)
}

fn tell_wait(wait: &Wait, global: &Global) -> anyhow::Result<()> {
    if !global.json {
        return print(wait.token.as_str());
    }
    let after = wait.after.as_secs_f64().ceil();
    let json = serde_json::json!({
        "result": "waiting", "token": wait.token, "after-seconds": after, "percent": wait.percent,
    });
    print(&serde_json::to_string_pretty(&json)?)
}

/// The checks that need no boot, in the image's own file system, mounted read-only; and whether cloud-init runs in it.
async fn static_checks(
    record: &Record,
    image: &Image,
    session: &Session,
    global: &Global,
) -> anyhow::Result<(Vec<Outcome>, bool)> {
    let copy = ThrowAway::of(image, session, global).await?;
    let at = copy.work.root();
    std::fs::create_dir_all(&at)?;
    let tree = MountedTree::open(&copy.disk, &copy.layout, &at, Access::ReadOnly, &session.stop).await?;
    let seen = match tree.root() {
        Ok(root) => {
            let outcomes = acceptance::static_checks(&root, &record.checks, &session.stop).await;
            Ok((outcomes, acceptance::has_cloud_init(&root)))
        }
        Err(error) => Err(error),
    };
    let left = Left::These(vec![copy.work.path().display().to_string()]);
    tree.close(&Stop::never()).await.map_err(|error| Failure::of(&error, left))?;
    copy.close()?;
    if session.stop.is_requested() {
        let message = "a stop was asked for".to_owned();
        return Err(Failure::Work { message, left: Left::Nothing }.into());
    }
    Ok(seen?)
}

fn count(outcomes: &[Outcome], wanted: fn(&Status) -> bool) -> usize {
    outcomes.iter().filter(|outcome| wanted(&outcome.status)).count()
}

fn summary(outcomes: &[Outcome], booted: bool) -> TestRecord {
    TestRecord {
        finished: clock::now().to_string(),
        passed: count(outcomes, |status| matches!(status, Status::Passed)),
        failed: count(outcomes, |status| matches!(status, Status::Failed(_))),
        not_judged: count(outcomes, |status| matches!(status, Status::NotJudged(_))),
        booted,
    }
}

fn tell(outcomes: &[Outcome], console: &str, session: &Session, global: &Global) -> anyhow::Result<()> {
    let mut failures = Vec::new();
    let mut lines = Vec::new();
    for outcome in outcomes {
        let (word, reason) = match &outcome.status {
            Status::Passed => ("passed", String::new()),
            Status::Failed(reason) => {
                failures.push(outcome.name.clone());
                ("FAILED", format!(": {reason}"))
            }
            Status::NotJudged(reason) => ("not judged", format!(": {reason}")),
        };
        lines.push(format!("{word:<10}  {}{reason}", outcome.name));
    }
    if global.json {
        let json = serde_json::to_string_pretty(outcomes)?;
        print(&json)?;
    } else {
        print(&lines.join("\n"))?;
    }
    if failures.is_empty() {
        return Ok(());
    }
    if !console.is_empty() {
        session.reporter.warning(format!("the end of the console:\n{console}"));
    }
    Err(Failure::Checks(format!(
        "{} of {} checks failed: {}",
        failures.len(),
        outcomes.len(),
        failures.join(", ")
    ))
    .into())
}
