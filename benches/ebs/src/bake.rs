//! A direct bake on an imported base, at a quota and from afar: what it takes besides provisioning.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;
use serde_json::Value;

use crate::child::{self, SMALL};
use crate::client::{Client, Clients, Target};
use crate::endpoint::Endpoint;
use crate::process::{Cost, run};

/// One bake that succeeded.
pub struct Run {
    pub besides: f64,
    /// What it consists of.
    pub parts: Vec<(String, f64)>,
    pub import: Value,
}

/// The base as another account's vendor has it: on a disk, with blocks where something was ever written.
pub fn base(clients: &Clients) -> anyhow::Result<PathBuf> {
    let store = clients.folder.join("store");
    let local = |command: &mut Command| {
        command.env("BAKEHOUSE_LOCAL", &store);
    };
    bake(clients, "os-base", &child::os_base()?, local)?;
    let base = bake(clients, SMALL.name, &SMALL.recipe(), local)?;
    let disk = clients.folder.join("base.raw");
    let mut export = program(clients);
    local(&mut export);
    run(export.args(["--quiet", "export", &base.image]).arg(&disk))?;
    fs::remove_dir_all(&store)?;
    Ok(disk)
}

/// Puts the base there, bakes on it once, which imports it, and then as often as is asked for.
pub fn children(
    clients: &Clients,
    endpoint: &Endpoint,
    target: &Target,
    disk: &Path,
    runs: usize,
) -> anyhow::Result<Vec<Run>> {
    let (snapshot, _) = clients.upload(Client::Bakehouse, target, disk, &["--omit-zero-blocks"])?;
    let base = endpoint.account.base(&snapshot, SMALL.disk)?;
    let mut all = Vec::new();
    for number in 0..=runs {
        // A name is taken once a second.
        let name = format!("child-{number}");
        let recipe = child::recipe(&name, &format!("image: {base}"));
        let Baked { record, cost, .. } =
            bake(clients, &name, &recipe, |command| clients.reach(command, target))?;
        let wall = cost.wall.as_secs_f64();
        let import = record["base"]["image"]["import"].clone();
        if !import.is_string() {
            bail!("the base was not imported: {}", record["base"]);
        }
        all.push(Run { besides: child::besides(wall, &record), parts: child::parts(wall, &record), import });
    }
    // The first one made the import.
    all.remove(0);
    Ok(all)
}

struct Baked {
    image: String,
    record: Value,
    cost: Cost,
}

fn bake(clients: &Clients, name: &str, recipe: &str, cloud: impl Fn(&mut Command)) -> anyhow::Result<Baked> {
    let folder = clients.folder.join(name);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("bake.yml"), recipe)?;
    let mut command = program(clients);
    cloud(&mut command);
    let (id, cost) = run(command.args(["--quiet", "bake", "--fresh"]).arg(&folder))?;
    let record = fs::read(folder.join("bakehouse-out/image.json"))?;
    Ok(Baked { image: id.trim().to_owned(), record: serde_json::from_slice(&record)?, cost })
}

fn program(clients: &Clients) -> Command {
    let mut command = Command::new(&clients.bakehouse);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", &clients.folder)
        .env("BAKEHOUSE_WORK", clients.folder.join("work"));
    command
}
