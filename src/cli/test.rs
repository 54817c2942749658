//! `bakehouse test`: the checks in the image's file system, and the boot test.

use std::path::{Path, PathBuf};

use super::boot::Firmware;
use super::exit::{Failure, chain};
use super::session::{self, Global, Mounts, Session};
use super::throw_away::ThrowAway;
use super::{images, print};
use crate::acceptance::{self, BootSpec, Outcome, Status};
use crate::cloud::{Image, Tags, tag};
use crate::disk::loop_device::Access;
use crate::disk::tree::MountedTree;
use crate::host::clock;
use crate::host::stop::Stop;
use crate::image::{Record, TestRecord};
use crate::ledger::Left;
use crate::recipe::Size;

/// After this long, an instance of a test may be swept; it ends by itself long before.
const LIFETIME: jiff::SignedDuration = jiff::SignedDuration::from_hours(12);

/// Check an image: first its file system, with nothing launched, then booted.
///
/// Writes junit.xml beside the record, a case per check, and adds the result to the record.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The record of the image, or the folder of its recipe.
    #[arg(default_value = ".")]
    record: PathBuf,
    /// Do not boot the image: what only a boot can tell is not judged.
    #[arg(long)]
    no_boot: bool,
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

pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let path =
        if args.record.is_dir() { global.out(&args.record).join("image.json") } else { args.record.clone() };
    let record = Record::read(&path).map_err(|error| Failure::Input(chain(&error)))?;
    session::run(
        global,
        Mounts::Yes,
        |session| async move { test(record, &path, args, &session, global).await },
    )
}

async fn test(
    mut record: Record,
    path: &Path,
    args: &Args,
    session: &Session,
    global: &Global,
) -> anyhow::Result<()> {
    let home = record.home().ok_or_else(|| Failure::Input(format!("{} names no image", path.display())))?;
    let cloud = session.clouds.at(&home.place)?;
    let session = &session.at(cloud);
    let image = images::find(home.image.as_str(), session).await?;
    let phase = session.reporter.phase("checking the image's file system");
    let (mut outcomes, cloud_init) = static_checks(&record, &image, session, global).await?;
    phase.done();
    let mut console = String::new();
    let booted = !args.no_boot;
    if booted {
        let spec = BootSpec {
            checks: record.checks.clone(),
            boot: record.boot.clone(),
            kind: args.instance_type.clone(),
            boot_mode: args.firmware.map(Firmware::boot_mode),
            root_size: args.volume_size.map(Size::gib),
            cloud_init,
            bake: format!("{}-{}", record.bake, uuid::Uuid::new_v4().simple()),
            attempt: 1,
            tags: Tags::from([
                (tag("bake"), record.bake.clone()),
                (tag("stage"), "test".to_owned()),
                (tag("expires"), (clock::wall() + LIFETIME).to_string()),
            ]),
        };
        let boot = acceptance::boot_test(&session.cloud, &image, &spec, &session.reporter, &session.stop);
        let report = boot.await.map_err(|error| {
            let mut left = Left::Nothing;
            if let Some(instance) = error.left() {
                left.add(instance);
            }
            Failure::of(&error, left)
        })?;
        outcomes = acceptance::combined(outcomes, report.outcomes);
        console = report.console;
        record.leftovers.extend(report.leftover);
    }
    let out = path.parent().unwrap_or(Path::new("."));
    let junit = acceptance::junit(&record.name, &outcomes, &console);
    std::fs::write(out.join("junit.xml"), junit)?;
    record.test = Some(summary(&outcomes, booted));
    record.write(path)?;
    tell(&outcomes, &console, session, global)
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
