//! `bakehouse images`: list, show and delete.

use std::collections::BTreeMap;

use serde::Serialize;

use super::exit::Failure;
use super::print;
use super::session::{self, Global, Mounts, Session};
use crate::cloud::{ErrorKind, Image, ImageId, ImageQuery, SnapshotId, SnapshotQuery, retrying, tag};
use crate::ledger::Left;
use crate::plan::IMPORT;

/// List the images, with what each was made from; show or delete one.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Only images of this family.
    #[arg(long)]
    family: Option<String>,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Show one image with all of its attributes.
    Show {
        /// An image's id or name.
        image: String,
    },
    /// Delete images, and their snapshots where no other image has them.
    Delete {
        /// Images' ids or names.
        #[arg(required = true)]
        images: Vec<String>,
        /// Show what would be deleted.
        #[arg(long)]
        dry_run: bool,
    },
}

pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    session::run(global, Mounts::No, |session| async move {
        match &args.what {
            None => list(args.family.as_deref(), &session, global).await,
            Some(What::Show { image }) => show(image, &session, global).await,
            Some(What::Delete { images, dry_run }) => delete(images, *dry_run, &session, global).await,
        }
    })
}

/// An image by its id or its name.
///
/// # Errors
/// [`Failure::Input`] where there is none.
pub async fn find(image: &str, session: &Session) -> anyhow::Result<Image> {
    let query = match ImageId::parse(image) {
        Some(id) => ImageQuery { ids: vec![id], ..ImageQuery::default() },
        None => ImageQuery { name: Some(image.to_owned()), ..ImageQuery::default() },
    };
    let found = match retrying(&session.stop, || session.cloud.images.find(&query)).await {
        Err(error) if error.kind == ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    let found = found.into_iter().next();
    Ok(found.ok_or_else(|| {
        Failure::Input(format!(
            "no image `{image}` is in {}; `bakehouse images` lists those that are",
            session.cloud.place
        ))
    })?)
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row<'a> {
    image: &'a Image,
    lineage: Vec<String>,
}

async fn list(family: Option<&str>, session: &Session, global: &Global) -> anyhow::Result<()> {
    let mut query = ImageQuery::default();
    if let Some(family) = family {
        query.tags.insert(tag("family"), family.to_owned());
    }
    let images = retrying(&session.stop, || session.cloud.images.find(&query)).await?;
    let all = retrying(&session.stop, || session.cloud.images.find(&EVERYTHING)).await?;
    let by_id: BTreeMap<&str, &Image> = all.iter().map(|image| (image.id.as_str(), image)).collect();
    let rows: Vec<Row> = images.iter().map(|image| Row { image, lineage: lineage(image, &by_id) }).collect();
    if global.json {
        return json(&rows);
    }
    if rows.is_empty() {
        global.reporter().note(format!("no images in {}; `bakehouse bake` makes one", session.cloud.place));
        return Ok(());
    }
    let mut table =
        vec![["IMAGE", "NAME", "FAMILY", "ARCHITECTURE", "CREATED", "STATE", "MADE FROM"].map(str::to_owned)];
    table.extend(rows.iter().map(|Row { image, lineage }| {
        [
            image.id.to_string(),
            image.name.clone(),
            image.tags.get(&tag("family")).cloned().unwrap_or_else(|| "-".to_owned()),
            image.attributes.architecture.to_string(),
            image.created.strftime("%Y-%m-%d %H:%M").to_string(),
            format!("{:?}", image.state).to_lowercase(),
            if let Some(of) = image.tags.get(&tag(IMPORT)) {
                format!("import of {of}")
            } else if lineage.is_empty() {
                "scratch".to_owned()
            } else {
                lineage.join(" <- ")
            },
        ]
    }));
    print(&aligned(&table))
}

static EVERYTHING: std::sync::LazyLock<ImageQuery> = std::sync::LazyLock::new(ImageQuery::default);

/// The names of the base, its base and so on; ids where an image is gone.
fn lineage(image: &Image, by_id: &BTreeMap<&str, &Image>) -> Vec<String> {
    let mut line = Vec::new();
    let mut next = image.tags.get(&tag("base")).cloned();
    while let Some(id) = next {
        let base = by_id.get(id.as_str());
        line.push(base.map_or_else(|| id.clone(), |base| base.name.clone()));
        // A lineage as long as the list of images can only be a loop made by hand.
        next =
            base.and_then(|base| base.tags.get(&tag("base")).cloned()).filter(|_| line.len() <= by_id.len());
    }
    line
}

fn aligned<const N: usize>(table: &[[String; N]]) -> String {
    let widths: [usize; N] =
        std::array::from_fn(|column| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let lines = table.iter().map(|row| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}

async fn show(image: &str, session: &Session, global: &Global) -> anyhow::Result<()> {
    let image = find(image, session).await?;
    if global.json {
        return json(&image);
    }
    let attributes = &image.attributes;
    let yes = |value: bool| if value { "yes" } else { "no" };
    let mode =
        attributes.boot_mode.map_or("as the instance type has it".to_owned(), |mode| format!("{mode:?}"));
    let mut rows = vec![
        ("image", image.id.to_string()),
        ("name", image.name.clone()),
        ("description", image.description.clone()),
        ("owner", image.owner.to_string()),
        ("state", format!("{:?}", image.state).to_lowercase()),
        ("created", image.created.to_string()),
        ("architecture", attributes.architecture.to_string()),
        ("boot mode", mode),
        ("ENA", yes(attributes.ena).to_owned()),
        ("IMDSv2 only", yes(attributes.imds_v2).to_owned()),
        ("TPM 2.0", yes(attributes.tpm).to_owned()),
        ("root device", attributes.root_device.clone()),
    ];
    for device in &attributes.devices {
        if let Some(ebs) = &device.ebs {
            let snapshot = ebs.snapshot.as_ref().map_or("empty".to_owned(), ToString::to_string);
            rows.push(("volume", format!("{} {} GiB {:?}, {snapshot}", device.name, ebs.size, ebs.kind)));
        }
    }
    rows.extend(image.tags.iter().map(|(key, value)| ("tag", format!("{key} = {value}"))));
    let table: Vec<[String; 2]> = rows.into_iter().map(|(name, value)| [name.to_owned(), value]).collect();
    print(&aligned(&table))
}

async fn delete(images: &[String], dry_run: bool, session: &Session, global: &Global) -> anyhow::Result<()> {
    let reporter = global.reporter();
    let mut left = Left::Nothing;
    // A name that is wrong is told before anything is deleted.
    let mut found = Vec::new();
    for image in images {
        found.push(find(image, session).await?);
    }
    for image in found {
        let snapshots: Vec<SnapshotId> = image
            .attributes
            .devices
            .iter()
            .filter_map(|device| device.ebs.as_ref()?.snapshot.clone())
            .collect();
        if dry_run {
            let with = snapshots.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            print(&format!("would delete {} {} with {with}", image.id, image.name))?;
            continue;
        }
        if let Err(error) = retrying(&session.stop, || session.cloud.images.deregister(&image.id)).await {
            // What is left of those before it is told too.
            return Err(Failure::of(&error, left).into());
        }
        for snapshot in snapshots {
            match retrying(&session.stop, || session.cloud.snapshots.delete(&snapshot)).await {
                Ok(()) => {}
                // Another image has it: it stays.
                Err(error) if matches!(error.kind, ErrorKind::InUse | ErrorKind::NotFound) => {
                    reporter.note(format!("{snapshot} stays: {}", error.message));
                }
                Err(error) => left.add(format!("{snapshot}: {error}")),
            }
        }
        print(image.id.as_str())?;
    }
    if let Some(store) = session.store.as_ref().filter(|_| !dry_run) {
        // Blocks that bakes left which were killed; what just lost its last snapshot is gone already.
        store.collect_garbage().await?;
    }
    if left.is_nothing() {
        Ok(())
    } else {
        Err(Failure::Work { message: "not every snapshot could be deleted".to_owned(), left }.into())
    }
}

/// The snapshot of an image's root volume, and the volume's size in GiB.
///
/// # Errors
/// [`Failure::Input`] where the image has none.
pub fn root_snapshot(image: &Image) -> anyhow::Result<(SnapshotId, u32)> {
    let (disk, snapshot) = image
        .root()
        .ok_or_else(|| Failure::Input(format!("{} has no root volume with a snapshot", image.id)))?;
    Ok((snapshot.clone(), disk.size))
}

/// The size in GiB of a snapshot.
///
/// # Errors
/// [`Failure`]
pub async fn snapshot_size(snapshot: &SnapshotId, session: &Session) -> anyhow::Result<u32> {
    let query = SnapshotQuery { ids: vec![snapshot.clone()], ..SnapshotQuery::default() };
    let found = retrying(&session.stop, || session.cloud.snapshots.describe(&query)).await?;
    let size = found.first().map(|snapshot| snapshot.volume_size);
    Ok(size.ok_or_else(|| Failure::Input(format!("{snapshot} is not in {}", session.cloud.place)))?)
}
