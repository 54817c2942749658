//! `bakehouse vpc`: a network for bakes by an instance, made in a stage before them and taken away in a stage after.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::bake::clear_orphans;
use super::exit::{Failure, chain};
use super::job::{self, Ended, JobArgs};
use super::print;
use super::session::{self, Global, Mounts, Roles, Session};
use super::settle::{Undone, settle};
use crate::cloud::{PartId, Partition, SubnetQuery, retrying, tag};
use crate::host::stop::Stop;
use crate::host::{clock, file};
use crate::ledger::vpcs::NAME;
use crate::ledger::{Header, Ledger, Left, Undo};
use crate::method::WorkDir;
use crate::pipeline::{Done, exported};
use crate::recipe::{self, Span};
use crate::vpc::{self, ADDRESSES, Create, Delete, Deleted, STAGE, Step, VpcError, Wanted};

/// The file with what was made, and the one that a shell reads.
const RESULT: &str = "vpc.json";
const ENVIRONMENT: &str = "vpc.env";

/// Make or take away a VPC for bakes by an instance (`method: launch`), in accounts that have no network for them.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    Create(CreateArgs),
    Delete(DeleteArgs),
}

/// Which VPC.
#[derive(clap::Args, Debug, Clone)]
struct Named {
    /// The folder with bake.yml.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// The VPC's name [default: that of the recipe; with this none is read].
    #[arg(long, value_parser = vpc::name)]
    name: Option<String>,
    /// Overrides a variable of the recipe.
    #[arg(long, value_name = "NAME=VALUE", value_parser = super::plan::variable)]
    var: Vec<(String, String)>,
    /// Say what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    job: JobArgs,
}

/// Make the VPC, or what is missing of it, and print the subnet's id last.
///
/// One public subnet with a way out, and a security group that lets nothing in. Every part is tagged and expires, so that
/// `bakehouse sweep` takes a forgotten one away, once nobody is in it. A recipe finds the subnet by
/// `launch: { subnet: { "bakehouse:vpc": NAME } }`; vpc.json and vpc.env in OUT have all ids. A VPC that is there already is
/// given again, and expires later.
#[derive(clap::Args, Debug)]
struct CreateArgs {
    #[command(flatten)]
    named: Named,
    /// The addresses of the VPC and its only subnet: /16 to /28.
    #[arg(long, value_name = "ADDRESSES", default_value = ADDRESSES, value_parser = vpc::addresses)]
    cidr: String,
    /// The zone of the subnet, where EC2's choice has not the instance types that are wanted: eu-west-1a.
    #[arg(long)]
    zone: Option<String>,
    /// How long it is good for: later a sweep may take it away. Longer than all bakes in it together.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = Span::parse)]
    expires_after: Span,
}

/// Take the VPC away, with all of Bakehouse's that is in it. Where there is none, all is well.
///
/// Instances in it are named and stay, and the VPC with them, unless they are a bake's that has expired. Network interfaces
/// that go by themselves are waited for.
#[derive(clap::Args, Debug)]
struct DeleteArgs {
    #[command(flatten)]
    named: Named,
    /// How long what is in it may take to go.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = Span::parse)]
    within: Span,
}

pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let named = match &args.verb {
        Verb::Create(args) => &args.named,
        Verb::Delete(args) => &args.named,
    };
    job::told(&named.job, global, STAGE, |_| {
        let (name, roles) = named.read()?;
        session::run_with(global, Mounts::No, &roles, |session| async move {
            match &args.verb {
                Verb::Create(args) => create(args, &name, &session, global).await,
                Verb::Delete(args) => delete(args, &name, &session, global).await,
            }
        })
    })
}

impl Named {
    /// The name, and the roles that its recipe names.
    fn read(&self) -> anyhow::Result<(String, Roles)> {
        if let Some(name) = &self.name {
            return Ok((name.clone(), Roles::new()));
        }
        let vars: BTreeMap<String, String> = self.var.iter().cloned().collect();
        let options = recipe::LoadOptions { vars, ..recipe::LoadOptions::default() };
        let loaded = recipe::load(&self.dir, &options).map_err(|errors| Failure::from(&errors))?;
        let name = vpc::name(&loaded.recipe.name).map_err(Failure::Input)?;
        Ok((name, super::plan::roles(&loaded.recipe)))
    }
}

/// What a VPC is told as.
struct Told {
    name: String,
    /// To whom it was given: `vpc delete` takes away what is no other run's since.
    run: Option<String>,
    vpc: Option<String>,
    subnet: String,
    group: Option<String>,
    expires: Option<Timestamp>,
}

impl Told {
    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "run": self.run,
            "vpc": self.vpc,
            "subnet": self.subnet,
            "security-group": self.group,
            "expires": self.expires.map(|time| time.to_string()),
        })
    }

    /// What a buildspec sources.
    fn environment(&self) -> String {
        let all = [
            ("VPC_ID", self.vpc.as_ref()),
            ("SUBNET_ID", Some(&self.subnet)),
            ("SECURITY_GROUP_ID", self.group.as_ref()),
        ];
        let given = all.into_iter().filter_map(|(name, value)| Some((name, value?)));
        given.fold(String::new(), |text, (name, value)| text + &format!("export {name}='{value}'\n"))
    }

    /// Writes it where a later stage finds it, and prints it.
    fn tell(&self, out: &Path, global: &Global) -> anyhow::Result<()> {
        let failed = |error: std::io::Error| {
            // It is there, and found by its tags all the same.
            global.reporter().warning(format!("cannot write into {}: {error}", out.display()));
        };
        let written = std::fs::create_dir_all(out).and_then(|()| {
            file::replace(&out.join(ENVIRONMENT), self.environment().as_bytes(), 0o644)?;
            file::replace(&out.join(RESULT), format!("{:#}\n", self.json()).as_bytes(), 0o644)
        });
        written.unwrap_or_else(failed);
        if global.json {
            return print(&format!("{:#}", self.json()));
        }
        print(&self.subnet)
    }

    fn ended(&self, run: String, summary: String) -> Ended {
        Ended::Made(Done {
            summary,
            bake: run,
            image: None,
            name: self.name.clone(),
            created: None,
            variables: exported(&self.environment()),
        })
    }
}

async fn create(args: &CreateArgs, name: &str, session: &Session, global: &Global) -> anyhow::Result<Ended> {
    let out = global.out(&args.named.dir);
    let run = format!("{STAGE}-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
    if session.cloud.place.partition == Partition::local() {
        let told = local(name, session).await?;
        session.reporter.note(
            "the local cloud has one network, which is always there: nothing was made, and a recipe needs no `launch.subnet`",
        );
        if args.named.dry_run {
            return Ok(Ended::Shown);
        }
        told.tell(&out, global)?;
        return Ok(told.ended(run, "the local cloud's network is always there".to_owned()));
    }
    let lasting = SignedDuration::try_from(args.expires_after.duration())?;
    let wanted = Wanted {
        name: name.to_owned(),
        run: run.clone(),
        addresses: args.cidr.clone(),
        zone: args.zone.clone(),
        expires: clock::whole_seconds(clock::wall() + lasting),
    };
    if args.named.dry_run {
        return would_create(&wanted, session, global).await;
    }
    // What a create that was killed on this host left would be unwound later, and with it what this one adds.
    clear_orphans(session, global).await;
    let work = WorkDir::create(&global.work(), &run)?;
    let header = Header::new(&session.clouds.name(), STAGE, &run, clock::wall());
    let ledger = Ledger::begin(&work.ledger(), header)?;
    let phase = session.reporter.phase(format!("making the VPC {name}"));
    let create = Create {
        wanted,
        settles_within: session.clouds.settles_within(),
        cloud: &session.cloud,
        ledger: &ledger,
        reporter: &session.reporter,
        stop: &session.stop,
    };
    let made = match settle(create.run().await, &ledger, work, session).await {
        Ok(made) => made,
        Err(Undone { error, undone, mut left }) => {
            add_there(name, &undone, session, &mut left).await;
            return Err(Failure::of(&error, left).into());
        }
    };
    phase.done();
    let how = if made.is_new { "is there" } else { "was there" };
    let summary =
        format!("the VPC {name} {how}: {}, subnet {}, expires at {}", made.vpc, made.subnet, made.expires);
    session.reporter.note(summary.clone());
    session.reporter.note(format!(
        "a recipe finds its subnet by `launch: {{ subnet: {{ \"{}\": {name} }} }}`; its security group is {}",
        tag(NAME),
        made.group
    ));
    let told = Told {
        name: name.to_owned(),
        run: Some(run.clone()),
        vpc: Some(made.vpc.to_string()),
        subnet: made.subnet.to_string(),
        group: Some(made.group.to_string()),
        expires: Some(made.expires),
    };
    told.tell(&out, global)?;
    Ok(told.ended(run, summary))
}

/// Adds what was there before a run that failed: the ledger of no run has it, and the run has made it last longer.
async fn add_there(name: &str, undone: &[Undo], session: &Session, left: &mut Left) {
    // After a stop too.
    let parts = match vpc::look(name, &session.cloud, &Stop::never()).await {
        Ok(parts) => parts,
        Err(error) => {
            return left.add_unseen(format!(
                "VPCs called {name} in {}: {}",
                session.cloud.place,
                chain(&error)
            ));
        }
    };
    // What this run made is told already, and may show though it is gone.
    let is_told = |id: &PartId| undone.iter().any(|undo| undo.what.starts_with(&format!("{id} ")));
    let then = parts.expires().map_or_else(String::new, |time| format!(", or a sweep after {time}"));
    // All the others are in it.
    for id in parts.ids().into_iter().take(1).chain(parts.others).filter(|id| !is_told(id)) {
        left.add(format!(
            "the {} {id} of {name}, which was there before: `bakehouse vpc delete` takes it away{then}",
            id.kind()
        ));
    }
}

/// Shows the calls that are missing; of a VPC that is whole none.
async fn would_create(wanted: &Wanted, session: &Session, global: &Global) -> anyhow::Result<Ended> {
    let parts = vpc::look(&wanted.name, &session.cloud, &session.stop).await?;
    for id in parts.ids() {
        session.reporter.note(format!("the {} {id} is there", id.kind()));
    }
    let calls: Vec<&str> = parts.steps(wanted).iter().map(Step::operation).collect();
    if global.json {
        let there = parts.ids();
        print(&format!("{:#}", json!({ "name": wanted.name, "there": there, "would-call": calls })))?;
        return Ok(Ended::Shown);
    }
    for call in &calls {
        print(&format!("would call {call}"))?;
    }
    print(&format!("{} calls", calls.len()))?;
    Ok(Ended::Shown)
}

/// The network of the local cloud.
async fn local(name: &str, session: &Session) -> anyhow::Result<Told> {
    let found = retrying(&session.stop, || session.cloud.networks.subnets(&SubnetQuery::Default)).await?;
    let subnet = found.into_iter().next().ok_or_else(|| Failure::Work {
        message: "the local cloud has no network".to_owned(),
        left: Left::Nothing,
    })?;
    Ok(Told { name: name.to_owned(), run: None, vpc: None, subnet: subnet.id, group: None, expires: None })
}

async fn delete(args: &DeleteArgs, name: &str, session: &Session, global: &Global) -> anyhow::Result<Ended> {
    let out = global.out(&args.named.dir);
    let summary = if session.cloud.place.partition == Partition::local() {
        "the local cloud's network is always there: nothing was taken away".to_owned()
    } else {
        let own = given_to(&out, name);
        let delete = Delete {
            name,
            run: own.as_deref(),
            now: clock::wall(),
            within: args.within.duration(),
            settles_within: session.clouds.settles_within(),
            cloud: &session.cloud,
            reporter: &session.reporter,
            stop: &session.stop,
        };
        if args.named.dry_run {
            return would_delete(&delete, global).await;
        }
        // The bake in it may have been killed on this host: then its instance goes first.
        clear_orphans(session, global).await;
        let Deleted { gone, kept, failed } = delete.run().await;
        if let [first, others @ ..] = &failed[..] {
            if !gone.is_empty() {
                session.reporter.note(taken_away(name, &gone));
            }
            return Err(failure(first, others, name, session).into());
        }
        if !kept.is_empty() {
            return keep(name, &gone, &kept, session, global);
        }
        if gone.is_empty() {
            format!("there is no VPC {name} in {}: nothing was to be taken away", session.cloud.place)
        } else {
            taken_away(name, &gone)
        }
    };
    if args.named.dry_run {
        session.reporter.note(summary);
        return Ok(Ended::Shown);
    }
    // They name what is not there any more.
    for file in [RESULT, ENVIRONMENT] {
        if let Err(error) = std::fs::remove_file(out.join(file))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            session.reporter.warning(format!("cannot remove {}: {error}", out.join(file).display()));
        }
    }
    session.reporter.note(summary.clone());
    if global.json {
        print(&format!("{:#}", json!({ "name": name, "result": "gone" })))?;
    }
    Ok(Ended::Made(Done { summary, bake: name.to_owned(), name: name.to_owned(), ..Done::default() }))
}

/// The run to which the VPC of this name was given, as its `vpc create` wrote it there.
fn given_to(out: &Path, name: &str) -> Option<String> {
    let told: Value = serde_json::from_slice(&std::fs::read(out.join(RESULT)).ok()?).ok()?;
    let run = told["run"].as_str().filter(|_| told["name"] == name);
    run.map(str::to_owned)
}

/// What another run goes on with stays, and so do the files that say to whom it was given: asked again, this is the answer.
fn keep(
    name: &str,
    gone: &[PartId],
    kept: &[(PartId, String)],
    session: &Session,
    global: &Global,
) -> anyhow::Result<Ended> {
    let kept = kept.iter().map(|(id, run)| anothers(id, run)).collect::<Vec<_>>().join("; ");
    let summary = if gone.is_empty() { kept } else { format!("{}; {kept}", taken_away(name, gone)) };
    session.reporter.note(summary.clone());
    if global.json {
        print(&format!("{:#}", json!({ "name": name, "result": "kept" })))?;
    }
    Ok(Ended::Made(Done { summary, bake: name.to_owned(), name: name.to_owned(), ..Done::default() }))
}

fn anothers(id: &PartId, run: &str) -> String {
    format!(
        "{id} stays: it is the run {run}'s since, whose `vpc delete` takes it away, or a sweep when it has expired"
    )
}

/// Shows what would go, and who is in it.
async fn would_delete(delete: &Delete<'_>, global: &Global) -> anyhow::Result<Ended> {
    let (Deleted { gone, kept, .. }, inside) = delete.would().await?;
    for (id, run) in &kept {
        delete.reporter.note(anothers(id, run));
    }
    if global.json {
        print(&format!("{:#}", json!({ "name": delete.name, "would-remove": gone, "inside": inside })))?;
        return Ok(Ended::Shown);
    }
    for who in &inside {
        delete.reporter.warning(format!("in it is {who}"));
    }
    for id in &gone {
        print(&format!("would remove {} {id}", id.kind()))?;
    }
    print(&format!("{} to remove", gone.len()))?;
    Ok(Ended::Shown)
}

fn taken_away(name: &str, gone: &[PartId]) -> String {
    let ids: Vec<String> = gone.iter().map(ToString::to_string).collect();
    format!("the VPC {name} is gone: {}", ids.join(", "))
}

/// A VPC that stays is left behind. The first that failed is told as what went wrong, the others before it.
fn failure(first: &VpcError, others: &[VpcError], name: &str, session: &Session) -> Failure {
    let mut left = Left::Nothing;
    for error in std::iter::once(first).chain(others) {
        match error.stays() {
            Some(part) => left.add(format!("{part}, of the VPC {name}")),
            None => {
                left.add_unseen(format!("VPCs called {name} in {}: {}", session.cloud.place, chain(error)));
            }
        }
    }
    for error in others {
        session.reporter.warning(chain(error));
    }
    Failure::of(first, left)
}
