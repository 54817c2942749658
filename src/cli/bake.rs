//! `bakehouse bake`: from a recipe to a registered image and its record.

use std::fs::File;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::delivery::{Delivery, Finished, deliver};
use super::exit::{Failure, NO_ROOM, chain};
use super::job::{Ended, JobArgs};
use super::out_folder::OutFolder;
use super::plan::{RecipeArgs, make};
use super::print;
use super::session::{self, Global, Mounts, Session, absolute};
use super::stage_report::StageReport;
use crate::cloud::{ErrorKind, ImageId, ImageQuery, ImageState, retrying, tag};
use crate::host::clock;
use crate::image::{self, ImagePlace, Record, RegisterError};
use crate::ledger::{End, Header, Ledger, Left, Undo};
use crate::method::{self, BakeCause, Bench, WorkDir, keep, orphans};
use crate::plan::preflight::Verdict;
use crate::plan::{LONGEST, MethodKind, Plan};
use crate::recipe::{Loaded, Span};
use crate::report::{JsonLines, Timing};

/// The stage's name, in its report.
pub const STAGE: &str = "bake";

/// Bake the image that a recipe describes.
///
/// Where OUT/image.json is the record of an image that was baked from exactly this recipe, base and inputs, and that
/// image still exists, nothing is baked and that record is the result; --fresh bakes anyway.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Bake though nothing changed.
    #[arg(long)]
    fresh: bool,
    /// Show the plan and stop.
    #[arg(long, conflicts_with = "job")]
    dry_run: bool,
    /// End the bake when it takes longer than this; at most 11h.
    #[arg(long, value_name = "TIME", default_value = "8h", value_parser = Span::parse, env = "BAKEHOUSE_WITHIN")]
    within: Span,
    /// What becomes of the root when a step fails.
    #[arg(long, value_enum, default_value = "clean", env = "BAKEHOUSE_ON_FAILURE")]
    on_failure: OnFailure,
    /// How long a root that is kept stays.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = Span::parse)]
    keep_for: Span,
    /// Go on with a bake whose root was kept, at the step that failed.
    #[arg(long, value_name = "BAKE", conflicts_with_all = ["drop", "fresh", "dry_run", "job"])]
    finish: Option<String>,
    /// Drop the root of a bake that was kept.
    #[arg(long, value_name = "BAKE", conflicts_with = "job")]
    drop: Option<String>,
    #[command(flatten)]
    pub(super) job: JobArgs,
}

#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum OnFailure {
    /// Everything is cleaned up.
    Clean,
    /// The root stays mounted for a while: to look, to repair, to go on.
    Keep,
}

/// The verb, for whoever waits for it.
pub fn stage(args: &Args, global: &Global) -> anyhow::Result<Ended> {
    run(args, global)?;
    if args.dry_run || args.drop.is_some() || args.finish.is_some() {
        return Ok(Ended::Shown);
    }
    Ok(Ended::Done(global.out(&args.recipe.folder()).join("image.json")))
}

fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    if args.within.duration() > LONGEST.unsigned_abs() {
        anyhow::bail!(Failure::Input(
            "--within: a bake may take 11h at most; after 12h what it created counts as left behind"
                .to_owned()
        ));
    }
    if let Some(bake) = &args.drop {
        session::require_root()?;
        return Ok(keep::drop_root(&global.work(), bake).map_err(|error| Failure::Input(chain(&error)))?);
    }
    if let Some(bake) = &args.finish {
        let report = StageReport::begin(STAGE);
        let result = finish(bake, args, global, &report);
        return report.end(result);
    }
    if args.dry_run {
        return bake(args, global, None);
    }
    let report = StageReport::begin(STAGE);
    report.goes_to(&global.out(&args.recipe.folder()));
    let result = bake(args, global, Some(&report));
    report.end(result)
}

fn bake(args: &Args, global: &Global, report: Option<&StageReport>) -> anyhow::Result<()> {
    let loaded = args.recipe.load()?;
    let mounts = if args.dry_run { Mounts::No } else { Mounts::Yes };
    session::run_with(global, mounts, &super::plan::roles(&loaded.recipe), |session| async move {
        let out = global.out(&loaded.dir);
        let mut _own = None;
        if let Some(report) = report {
            report.of(&loaded.recipe.name, Vec::new());
            report.masked_by(&session.reporter);
            _own = Some(OutFolder::take(&out, &session).await?);
            report.begun();
            // First: one of them may have registered an image, and this bake may be the same again.
            clear_orphans(&session, global).await;
        }
        let plan = make(&args.recipe, &loaded, &session, global).await?;
        if args.dry_run {
            return super::plan::show(&plan, global);
        }
        if !args.fresh
            && let Some(record) = unchanged(&plan, &out, &session).await
        {
            session.reporter.note(format!(
                "nothing changed since {} was baked on {}; --fresh bakes anyway",
                record.name, record.created
            ));
            return tell(&record, &out, global);
        }
        preflight(&plan, &loaded)?;
        if args.on_failure == OnFailure::Keep
            && let Some(why) = keeps_no_root(plan.method)
        {
            return Err(no_root_to_keep(&plan, why, &loaded.file).into());
        }
        let baking =
            Baking { session, global, args, recipe_dir: absolute(&loaded.dir), recipe: loaded.digest.hex() };
        baking.bake(plan, out, None).await
    })
}

/// Why a method keeps no root: what it works on is always taken away, and the root with it.
fn keeps_no_root(method: MethodKind) -> Option<&'static str> {
    match method {
        MethodKind::Direct | MethodKind::Scratch => None,
        MethodKind::Launch => Some("its instance is always ended"),
        MethodKind::Chroot => Some("its volume is always deleted"),
    }
}

fn no_root_to_keep(plan: &Plan, why: &str, recipe: &Path) -> Failure {
    let method = plan.method.as_str();
    Failure::Input(format!(
        "--on-failure keep: {} is baked by the method {method} ({}), which keeps no root: {why}. \
         Leave the option out (BAKEHOUSE_ON_FAILURE too); the error and events.jsonl have what the step wrote",
        recipe.display(),
        plan.why
    ))
}

/// That nothing is known which would make the bake fail. All of it is told.
fn preflight(plan: &Plan, loaded: &Loaded) -> Result<(), Failure> {
    let stops: Vec<_> = plan.preflight.iter().filter(|finding| finding.stops()).collect();
    if stops.is_empty() {
        return Ok(());
    }
    let told = stops.iter().map(|finding| format!("{}: {finding}", loaded.place_of(&finding.text)));
    let message = told.collect::<Vec<_>>().join("\n");
    if stops.iter().any(|finding| finding.verdict == Verdict::Denied) {
        return Err(Failure::Denied { message, left: Left::Nothing });
    }
    Err(Failure::Input(message))
}

/// Goes on with a bake whose root was kept. Whoever repaired it by hand made it another image than the recipe's: it is
/// never taken for that.
fn finish(bake: &str, args: &Args, global: &Global, report: &StageReport) -> anyhow::Result<()> {
    session::run(global, Mounts::Yes, |session| async move {
        let kept = keep::find(&global.work(), bake).map_err(|error| Failure::Input(chain(&error)))?;
        let _own = OutFolder::take(&kept.out, &session).await?;
        report.goes_to(&kept.out);
        report.of(&kept.plan.family, Vec::new());
        report.masked_by(&session.reporter);
        // Once everything that could be wrong with the call was looked at: from here on nobody else keeps the root.
        let (kept, work) =
            keep::take_over(&global.work(), bake).map_err(|error| Failure::Input(chain(&error)))?;
        report.begun();
        let mut plan = kept.plan;
        plan.renew(clock::wall());
        plan.fingerprint = format!("repaired in {bake}");
        plan.tags.insert(tag("fingerprint"), plan.fingerprint.clone());
        let baking = Baking { session, global, args, recipe_dir: kept.recipe_dir, recipe: kept.recipe };
        baking.bake(plan, kept.out, Some((kept.step, work))).await
    })
}

/// The record of an earlier bake of exactly this, whose image is still there.
async fn unchanged(plan: &Plan, out: &Path, session: &Session) -> Option<Record> {
    let record = Record::read(&out.join("image.json")).ok()?;
    let home = record.home()?;
    if record.fingerprint != plan.fingerprint || home.place != plan.place {
        return None;
    }
    let query = ImageQuery { ids: vec![home.image.clone()], ..ImageQuery::default() };
    let found = retrying(&session.stop, || session.cloud.images.find(&query)).await.ok()?;
    found.iter().any(|image| image.state == ImageState::Available).then_some(record)
}

struct Baking<'a> {
    session: Session,
    global: &'a Global,
    args: &'a Args,
    recipe_dir: PathBuf,
    /// The digest of the recipe's file.
    recipe: String,
}

impl Baking<'_> {
    async fn bake(self, plan: Plan, out: PathBuf, resume: Option<(usize, WorkDir)>) -> anyhow::Result<()> {
        let Self { session, global, args, recipe_dir, recipe } = self;
        let within = jiff::SignedDuration::try_from(args.within.duration()).unwrap_or(LONGEST);
        session.stop.at(clock::wall() + within.min(LONGEST));
        let events = File::create(out.join("events.jsonl"))
            .map_err(|error| Failure::Input(format!("--out: cannot write in {}: {error}", out.display())))?;
        session.reporter.add_sink(Box::new(JsonLines::new(events, false)));
        session.reporter.note(format!(
            "{} ({}) by the {} method: {}",
            plan.image_name,
            plan.bake,
            plan.method.as_str(),
            plan.why
        ));

        let (resume, work) = match resume {
            Some((step, work)) => (Some(step), work),
            None => (None, WorkDir::create(&global.work(), &plan.bake)?),
        };
        session::work_in(&work)?;
        let header = Header::new(&session.clouds.name(), "bake", &plan.bake, clock::wall());
        let ledger = Ledger::begin(&work.ledger(), header)?;
        // What was kept once was worth keeping.
        let keep = (args.on_failure == OnFailure::Keep || resume.is_some()).then(|| keep::Wish {
            seconds: args.keep_for.duration().as_secs(),
            out: out.clone(),
            recipe: recipe.clone(),
        });
        let bench = Bench {
            cloud: session.cloud.clone(),
            work,
            ledger,
            recipe_dir,
            reporter: session.reporter.clone(),
            stop: session.stop.clone(),
            resume,
            environment: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            keep,
        };
        let baked = match method::of(plan.method).bake(&plan, &bench).await {
            Ok(baked) => baked,
            Err(error) => {
                let reporter = bench.reporter.clone();
                // Before its content goes.
                let full = bench.work.is_full();
                let left = error.left.and(unwound(&bench, &session).await).and(match &error.cause {
                    BakeCause::Kept { bake, until, .. } => kept(bench, *until, bake, global),
                    _ => closed(bench),
                });
                let failure = Failure::of(&error.cause, left);
                anyhow::bail!(failure.masked(|text| {
                    let text = reporter.masked(text);
                    if full && !text.contains(NO_ROOM) {
                        format!(
                            "{text}\nhint: the work folder {} is full: {NO_ROOM}",
                            global.work().display()
                        )
                    } else {
                        text
                    }
                }));
            }
        };
        let mut record = image::draft(&plan, &baked, &recipe);
        let delivery = Delivery {
            out: out.clone(),
            place: plan.place.clone(),
            snapshot: baked.snapshot.clone(),
            record: record.clone(),
            // An image that a method made itself is of an instance, and keeps what it had.
            billing: baked.image.is_none().then(|| plan.billing.clone()),
        };
        let began = std::time::Instant::now();
        let registered = match delivery.keep(&bench.work, &baked.map) {
            Ok(()) => image::register(&plan, &baked, &session.cloud, &bench.ledger, &session.stop).await,
            Err(source) => Err(RegisterError::Keep { path: bench.work.path().to_owned(), source }),
        };
        match registered {
            Ok(image) => record.images.push(image),
            Err(error) => {
                let left = unwound(&bench, &session).await;
                match (&error, bench.ledger.image()) {
                    // All answers were lost, and the image is there.
                    (RegisterError::Register(_), Some(image)) => {
                        session
                            .reporter
                            .warning(format!("{image} was registered after all: {}", chain(&error)));
                        if baked.image.is_none() {
                            let settles = session.clouds.settles_within();
                            let (cloud, made) = (&session.cloud, &baked.snapshot);
                            let checked =
                                image::check_billing(&image, made, &plan.billing, cloud, settles).await;
                            if let Err(error) = checked {
                                return Err(not_registered(&error, left.and(closed(bench)), &session).into());
                            }
                        }
                        record.images.push(ImagePlace {
                            place: plan.place.clone(),
                            image,
                            snapshot: baked.snapshot.clone(),
                        });
                    }
                    _ => return Err(not_registered(&error, left.and(closed(bench)), &session).into()),
                }
            }
        }
        record.timings.push(Timing::new("register", began.elapsed()));
        if !bench.ledger.is_settled() {
            // What only served to make it.
            let mut left = Left::Nothing;
            for undo in bench.ledger.undo_all(&*session.clouds, clock::wall()).await {
                undo.add_stuck(&mut left);
            }
            if !left.is_nothing() {
                session.reporter.warning(left.to_string());
                record.leftovers.push(left.to_string());
            }
        }
        if let Err(error) = deliver(&record, &baked.map, &out) {
            // The ledger stays, and with it what is to be delivered.
            let _ = bench.work.close();
            return Err(error);
        }
        // The image is good: what a clean-up could not take away is told, and is no failure.
        let settled = bench.ledger.close().map(drop).map_err(|error| chain(&error));
        let closed = bench.work.close().map_err(|error| chain(&error));
        for what in [settled, closed].into_iter().filter_map(Result::err) {
            session.reporter.warning(format!("left behind: {what}"));
            record.leftovers.push(what);
        }
        if !record.leftovers.is_empty()
            && let Err(error) = record.write(&out.join("image.json"))
        {
            session.reporter.warning(format!("the record does not name what is left: {}", chain(&error)));
        }
        tell(&record, &out, global)
    }
}

/// Undoes what a bake that failed has created, and gives what is left of that. Where an image came to light, the ledger's
/// file stays until its record is delivered.
async fn unwound(bench: &Bench, session: &Session) -> Left {
    let mut left = Left::Nothing;
    for undo in bench.ledger.undo_all(&*session.clouds, clock::wall()).await {
        undo.add_all(&mut left);
    }
    if bench.ledger.image().is_none() {
        // Where it cannot be removed, whoever reads it again finds nothing to undo.
        let _ = bench.ledger.close();
    }
    left
}

/// Takes the work folder away, and gives what is left of it.
fn closed(bench: Bench) -> Left {
    let mut left = Left::Nothing;
    // An image that cannot be used has no record to deliver.
    let _ = bench.ledger.close();
    if let Err(error) = bench.work.close() {
        left.add(chain(&error));
    }
    left
}

/// Leaves the work folder to its keeper, and says how to go on.
fn kept(bench: Bench, until: jiff::Timestamp, bake: &str, global: &Global) -> Left {
    let (again, path) = (global.again(), bench.work.keep());
    Left::These(vec![format!(
        "{}, the root, kept until {until}\n    look into it   bakehouse shell{again} {bake}\n    \
         go on with it  bakehouse bake{again} --finish {bake}\n    \
         drop it        bakehouse bake{again} --drop {bake}",
        path.display()
    )])
}

fn not_registered(error: &RegisterError, mut left: Left, session: &Session) -> Failure {
    match error {
        RegisterError::NotAvailable { image, .. } => {
            left.add(format!("image {image} in {}", session.cloud.place));
        }
        RegisterError::Billing { left: stays, .. } => left = left.and(stays.clone()),
        // Another image has the name.
        RegisterError::Register(source) if source.kind == ErrorKind::Exists && left.is_nothing() => {
            return Failure::Input(format!("{}\n{left}", chain(error)));
        }
        _ => {}
    }
    Failure::of(error, left)
}

/// Looks after the image that a killed bake registered: that it is billed as its base, and its record.
#[derive(Clone, Copy)]
pub struct Killed<'a> {
    pub session: &'a Session,
}

#[async_trait]
impl orphans::Deliver for Killed<'_> {
    async fn deliver(&self, folder: &Path, image: &ImageId) -> Result<(), String> {
        let killed = format!("{image} was registered by a bake that was killed then");
        let kept = Delivery::of(folder).map_err(|error| format!("{killed}: {error:#}"))?;
        if let Some(kept) = &kept
            && let Some(wanted) = &kept.billing
        {
            let cloud = self.session.clouds.at(&kept.place).map_err(|error| format!("{killed}: {error}"))?;
            let settles = self.session.clouds.settles_within();
            match image::check_billing(image, &kept.snapshot, wanted, &cloud, settles).await {
                Ok(()) => {}
                Err(RegisterError::Billing { left: Left::Nothing, .. }) => {
                    self.session.reporter.warning(format!(
                        "{killed}, and is billed otherwise than its base: it was discarded; write `method: launch`, which keeps \
                         billing codes"
                    ));
                    return Ok(());
                }
                Err(error @ RegisterError::Billing { .. }) => {
                    return Err(format!("{killed}: {}", chain(&error)));
                }
                Err(error) => {
                    return Err(format!("{killed}, and how it is billed is not known: {}", chain(&error)));
                }
            }
        }
        delivered(&killed, folder, image, self.session)
    }
}

/// Delivers the record of an image that a killed bake registered; else says why that cannot be.
fn delivered(killed: &str, folder: &Path, image: &ImageId, session: &Session) -> Result<(), String> {
    match Delivery::finish(folder, image.clone()) {
        Ok(Finished::Now(path)) => {
            session.reporter.note(format!("{killed}; its record is {} now", path.display()));
        }
        Ok(Finished::Before) => {}
        Ok(Finished::Superseded(path)) => {
            session.reporter.note(format!("{killed}; {} is of a later bake and stays", path.display()));
        }
        Err(error) => return Err(format!("{killed}, and its record cannot be delivered: {error:#}")),
    }
    Ok(())
}

/// Takes away what killed bakes left. What cannot be is told, and does not keep this bake from its work.
pub async fn clear_orphans(session: &Session, global: &Global) {
    let reporter = &session.reporter;
    let orphans = match orphans::find(&global.work()) {
        Ok(orphans) => orphans,
        Err(error) => return reporter.warning(chain(&error)),
    };
    for orphan in orphans {
        let cleared = orphan.clear(&*session.clouds, clock::wall(), &Killed { session }).await;
        if !cleared.removed.is_empty() || !cleared.undone.is_empty() {
            reporter.note(format!("what was left in {} by work that was killed:", cleared.path.display()));
        }
        for what in &cleared.removed {
            reporter.note(format!("removed {what}"));
        }
        for Undo { kind, what, end } in &cleared.undone {
            match end {
                End::Removed => reporter.note(format!("removed {kind} {what}")),
                End::Kept(why) => reporter.note(format!("{kind} {what} stays: {why}")),
                End::Waiting(until) => reporter.note(format!("{kind} {what} is waited for until {until}")),
                // Nothing was there, or `left` tells it.
                End::Absent | End::Stuck(_) | End::Unseen(_) => {}
            }
        }
        if let Some(cloud) = &cleared.elsewhere {
            reporter.note(format!("what it created is in another cloud: sweep there ({cloud})"));
        }
        if !cleared.left.is_nothing() {
            reporter.warning(format!("of a killed bake, {}", cleared.left));
        }
    }
}

fn tell(record: &Record, out: &Path, global: &Global) -> anyhow::Result<()> {
    if global.json {
        let json = serde_json::to_string_pretty(record)?;
        return print(&json);
    }
    let Some(home) = record.home() else { return Ok(()) };
    global.reporter().note(format!("record: {}", out.join("image.json").display()));
    print(home.image.as_str())
}
