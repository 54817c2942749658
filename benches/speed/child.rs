//! The bake that is measured: a base with so much in use, a child of it, and what a record says that it took besides
//! provisioning. Shared by both measurements.

use std::path::Path;

use anyhow::bail;
use serde_json::Value;

const MIB: u64 = 1 << 20;
/// What the steps of a child write: random bytes, so that every block of them is a changed one.
const DELTA: u64 = 64 * MIB;

/// A base to bake children on.
pub struct Base {
    pub name: &'static str,
    /// GiB.
    pub disk: u64,
    /// Bytes of its files and file system.
    pub used: u64,
}

pub const SMALL: Base = Base { name: "small", disk: 2, used: 750 * MIB };

impl Base {
    /// The quickstart's system with random bytes up to what shall be in use.
    pub fn recipe(&self) -> String {
        let disk = format!("disk: {{ size: {}GiB }}\n", self.disk);
        let fill = format!("$(({} - $(stat -f -c '(%b - %f) * %S' /)))", self.used);
        steps(self.name, "family: os-base", &disk, &fill)
    }
}

/// A child of the base that `base` names, as a recipe does.
pub fn recipe(name: &str, base: &str) -> String {
    steps(name, base, "", &DELTA.to_string())
}

fn steps(name: &str, base: &str, disk: &str, bytes: &str) -> String {
    format!(
        "version: 1\nname: {name}\narchitecture: x86_64\nbase: {{ {base} }}\n{disk}provision:\n\
         - shell: {{ run: \"head -c {bytes} /dev/urandom > /var/lib/{name}.random\" }}\n\
         image: {{ name: \"{{name}}-{{date}}\" }}\n"
    )
}

/// The quickstart's recipe, on a disk of 2 GiB, so that the bases of the measurement can have the sizes that they are
/// defined by.
pub fn os_base() -> anyhow::Result<String> {
    const SIZE: &str = "size: 3GiB";
    // The measurement beside coldsnap is a package by itself, below the project's.
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let paths = manifests.map(|folder| folder.join("examples/quickstart/os-base/bake.yml"));
    let path = paths.into_iter().find(|path| path.exists()).unwrap_or_default();
    let text = std::fs::read_to_string(&path)?;
    if !text.contains(SIZE) {
        bail!("{} has no `{SIZE}` any more", path.display());
    }
    Ok(text.replace(SIZE, "size: 2GiB"))
}

/// Seconds of a bake that took `wall` from the process's start to its end, less what its steps and the seal took.
pub fn besides(wall: f64, record: &Value) -> f64 {
    wall - timings(record).filter(|(name, _)| provisions(name)).map(|(_, seconds)| seconds).sum::<f64>()
}

/// What [`besides`] consists of.
pub fn parts(wall: f64, record: &Value) -> Vec<(String, f64)> {
    let mut parts: Vec<(String, f64)> = timings(record)
        .filter(|(name, _)| !provisions(name))
        .map(|(name, seconds)| (name.to_owned(), seconds))
        .collect();
    let told: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
    parts.push(("start, look, mount, trim, unmount, end".to_owned(), besides(wall, record) - told));
    parts
}

fn timings(record: &Value) -> impl Iterator<Item = (&str, f64)> {
    let timings = record["timings"].as_array().into_iter().flatten();
    timings.filter_map(|timing| Some((timing["name"].as_str()?, timing["seconds"].as_f64()?)))
}

fn provisions(timing: &str) -> bool {
    timing.starts_with("step ") || timing == "seal"
}
