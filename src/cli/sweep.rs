//! `bakehouse sweep`: removes what work that ended badly left behind, on this host and in the cloud.

use serde::Serialize;

use super::bake::Killed;
use super::exit::{Failure, chain};
use super::print;
use super::session::{self, Global, Mounts, Session};
use crate::cloud::Cloud;
use crate::host::clock;
use crate::ledger::sweep::{Why, sweep};
use crate::ledger::{End, Left, Undo};
use crate::method::orphans::{self, Orphan};

/// Remove what was left behind: on this host by work that was killed, and in the cloud what has expired.
///
/// Every account and region of the store is looked at, or, with --account or --region, that one only. On AWS it is one
/// account in one region: sweep each that was baked in.
///
/// Nothing that runs is touched: on this host only what belongs to work folders that nobody uses, in the cloud only what
/// carries the tag bakehouse:expires with a time that is over, what no image uses and, of VPCs, what nobody is in. May run
/// beside bakes, and again.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Show what would be removed.
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    // In the host's own mounts: what was left there is to be seen.
    session::run(global, Mounts::No, |session| async move {
        let mut report = Report { dry_run: args.dry_run, ..Report::default() };
        here(&mut report, &session, global).await;
        in_cloud(&mut report, &session, global).await;
        in_store(&mut report, &session).await;
        report.tell(&session, global)
    })
}

/// What came of it.
#[derive(Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report {
    dry_run: bool,
    /// In a dry run: what would be.
    removed: Vec<String>,
    kept: Vec<Kept>,
    #[serde(skip)]
    left: Left,
}

/// Something that stays, with why.
#[derive(Serialize)]
struct Kept {
    what: String,
    why: String,
}

impl Report {
    fn keep(&mut self, what: impl ToString, why: impl ToString) {
        self.kept.push(Kept { what: what.to_string(), why: why.to_string() });
    }

    fn undo(&mut self, undo: &Undo) {
        let what = format!("{} {}", undo.kind, undo.what);
        match &undo.end {
            End::Removed => self.removed.push(what),
            End::Absent => {}
            // It is as it should be: an image was registered, and has its snapshot.
            End::Kept(why) => self.keep(what, why),
            End::Waiting(until) => {
                self.keep(what, format!("it is waited for until {until}"));
            }
            // In `left`.
            End::Stuck(_) | End::Unseen(_) => {}
        }
    }

    fn tell(self, session: &Session, global: &Global) -> anyhow::Result<()> {
        if global.json {
            print(&serde_json::to_string_pretty(&self)?)?;
        } else {
            let word = if self.dry_run { "would remove" } else { "removed" };
            for what in &self.removed {
                print(&format!("{word} {what}"))?;
            }
            for Kept { what, why } in &self.kept {
                session.reporter.note(format!("{what} stays: {why}"));
            }
            let count = self.removed.len();
            print(&if self.dry_run { format!("{count} to remove") } else { format!("{count} removed") })?;
        }
        if self.left.is_nothing() {
            return Ok(());
        }
        let message = "not everything could be removed".to_owned();
        Err(Failure::Work { message, left: self.left }.into())
    }
}

/// Work folders that are nobody's, with all that belongs to them.
async fn here(report: &mut Report, session: &Session, global: &Global) {
    let orphans = match orphans::find(&global.work()) {
        Ok(orphans) => orphans,
        Err(error) => return report.left.add_unseen(chain(&error)),
    };
    for orphan in orphans {
        if report.dry_run {
            would_clear(orphan, report, session).await;
            continue;
        }
        let cleared = orphan.clear(&*session.clouds, clock::wall(), &Killed { session }).await;
        for undo in &cleared.undone {
            report.undo(undo);
        }
        report.removed.extend(cleared.removed);
        if let Some(cloud) = cleared.elsewhere {
            let why = format!("what it names is in another cloud ({cloud}); sweep there");
            report.keep(cleared.path.display(), why);
        }
        report.left = std::mem::take(&mut report.left).and(cleared.left);
    }
}

async fn would_clear(orphan: Orphan, report: &mut Report, session: &Session) {
    report.removed.extend(orphan.on_host());
    match orphan.ledger() {
        Ok(Some(ledger)) if ledger.header().cloud != session.clouds.name() => {
            let why = format!("what it names is in another cloud ({}); sweep there", ledger.header().cloud);
            report.keep(orphan.path().display(), why);
        }
        Ok(Some(ledger)) => {
            let undone = ledger.would_unwind(&*session.clouds, clock::wall()).await;
            for undo in &undone {
                report.undo(undo);
                undo.add_stuck(&mut report.left);
            }
            // A folder of nothing but a ledger goes when that is settled.
            let settled =
                undone.iter().all(|undo| matches!(undo.end, End::Removed | End::Absent | End::Kept(_)));
            let path = orphan.path().display().to_string();
            if settled && !report.removed.contains(&path) {
                report.removed.push(path);
            }
        }
        Ok(None) => {}
        Err(error) => report.left.add_unseen(chain(&error)),
    }
    orphan.leave();
}

/// What has expired: in the place that was named, else in every place of the store; on AWS in one place.
async fn in_cloud(report: &mut Report, session: &Session, global: &Global) {
    let Some(store) = session.store.as_ref().filter(|_| !global.names_a_place()) else {
        return in_place(report, session, &session.cloud).await;
    };
    let places = match store.places() {
        Ok(places) => places,
        Err(error) => return report.left.add_unseen(chain(&error)),
    };
    for place in places {
        match session.clouds.at(&place) {
            Ok(cloud) => in_place(report, session, &cloud).await,
            Err(error) => report.left.add_unseen(chain(&error)),
        }
    }
}

async fn in_place(report: &mut Report, session: &Session, cloud: &Cloud) {
    let swept = sweep(cloud, session.clouds.settles_within(), clock::wall(), report.dry_run).await;
    for undo in &swept.undone {
        report.undo(undo);
        undo.add_stuck(&mut report.left);
    }
    for (id, why) in swept.kept {
        match why {
            Why::Unreadable(_) | Why::Held(_) => {
                let told = format!("{} {id}", id.kind());
                session.reporter.warning(format!("{told} stays: {why}"));
                report.keep(told, why);
            }
            Why::NotYet(_) => {
                // A ledger that was left on this host may have it already.
                let told = format!("{} {id}", id.kind());
                let kept = report.kept.iter().map(|kept| &kept.what);
                if !report.removed.iter().chain(kept).any(|line| line.starts_with(&told)) {
                    report.keep(told, why);
                }
            }
            // Every finished image's snapshot, and what is not ours.
            Why::Used(_) | Why::Untagged => {}
        }
    }
}

/// What the local cloud's store has no use for.
async fn in_store(report: &mut Report, session: &Session) {
    let Some(store) = &session.store else { return };
    let collected = if report.dry_run { store.find_garbage().await } else { store.collect_garbage().await };
    match collected {
        Ok(collected) => {
            let mut add = |count: u64, what: &str| {
                if count > 0 {
                    report.removed.push(format!("{count} {what}"));
                }
            };
            add(collected.blocks, "blocks that no snapshot has");
            add(collected.leftovers, "unfinished files of the store");
        }
        Err(error) => report.left.add_unseen(chain(&error)),
    }
}
