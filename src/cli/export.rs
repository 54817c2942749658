//! `bakehouse export`: an image's disk as a file.

use std::path::{Path, PathBuf};

use super::exit::{Failure, chain};
use super::session::{self, Global, Mounts};
use super::{images, print};
use crate::host::exec::Cmd;
use crate::host::unfinished::{self, Unfinished};
use crate::ledger::Left;

/// Write an image's root disk to a raw or qcow2 file.
///
/// What the image never wrote is noise in the file, as it may be on a volume in EC2.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The image's id or name.
    image: String,
    /// The file to write: FILE.raw, FILE.img or FILE.qcow2. Must not exist.
    file: PathBuf,
}

pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let qcow2 = match args.file.extension().and_then(|extension| extension.to_str()) {
        Some("raw" | "img") => false,
        Some("qcow2") => true,
        _ => {
            anyhow::bail!(Failure::Input(format!("{}: call it .raw, .img or .qcow2", args.file.display())));
        }
    };
    if args.file.exists() {
        anyhow::bail!(Failure::Input(format!("{} exists; name another file", args.file.display())));
    }
    session::run(global, Mounts::No, |session| async move {
        let store = session.local_store("export", "on AWS `bakehouse snapshot download` reads a snapshot")?;
        let image = images::find(&args.image, &session).await?;
        let (snapshot, size) = images::root_snapshot(&image)?;
        let folder =
            args.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let wrong =
            |error: std::io::Error| Failure::Input(format!("cannot write in {}: {error}", folder.display()));
        // Written beside its place and renamed: the file is whole or not there.
        unfinished::clear(folder);
        let unfinished = Unfinished::folder(folder).map_err(wrong)?;
        let beside = unfinished.it;
        let raw = beside.path().join("disk.raw");
        let phase = session.reporter.phase(format!("writing {} ({size} GiB)", args.file.display()));
        store.write_disk(&session.cloud.place, &snapshot, &raw, size, &session.stop).await?;
        let finished = if qcow2 {
            let packed = beside.path().join("disk.qcow2");
            Cmd::new("qemu-img")
                .args(["convert", "-f", "raw", "-O", "qcow2"])
                .args([&raw, &packed])
                .run(&session.stop)
                .await?;
            packed
        } else {
            raw
        };
        std::fs::rename(&finished, &args.file).map_err(wrong)?;
        phase.done();
        beside.close().map_err(|error| Failure::Work {
            message: "the export is whole, but its work folder cannot be removed".to_owned(),
            left: Left::These(vec![chain(&error)]),
        })?;
        print(&args.file.display().to_string())
    })
}
