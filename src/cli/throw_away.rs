//! A copy of an image's disk that is never stored: for looking into an image and for trying things in it.

use std::path::PathBuf;
use std::sync::Arc;

use super::exit::Failure;
use super::images;
use super::session::{self, Global, Session};
use crate::cloud::Image;
use crate::disk::{Disk, Layout, Pipe, SparseDisk};
use crate::ledger::Left;
use crate::method::WorkDir;

/// The copy, in a work folder of its own.
pub struct ThrowAway {
    pub work: WorkDir,
    pub disk: PathBuf,
    pub layout: Layout,
}

impl ThrowAway {
    /// Reads an image's root disk.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn of(image: &Image, session: &Session, global: &Global) -> anyhow::Result<Self> {
        let (snapshot, _) = images::root_snapshot(image)?;
        let size = images::snapshot_size(&snapshot, session).await?;
        let name = format!("copy-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let work = WorkDir::create(&global.work(), &name)?;
        session::work_in(&work)?;
        let phase = session.reporter.phase(format!("reading {}", image.id));
        let disk: Arc<dyn Disk> = Arc::new(SparseDisk::create(&work.disk(), u64::from(size) << 30)?);
        let pipe = Pipe {
            snapshots: session.cloud.snapshots.clone(),
            reporter: session.reporter.clone(),
            stop: session.stop.clone(),
        };
        pipe.download(&snapshot, &disk).await?;
        phase.done();
        let layout = Layout::find(&work.disk(), &session.stop).await?;
        Ok(Self { disk: work.disk(), work, layout })
    }

    /// Takes it away.
    ///
    /// # Errors
    /// [`Failure`] with what is left.
    pub fn close(self) -> anyhow::Result<()> {
        let path = self.work.path().display().to_string();
        Ok(self.work.close().map_err(|error| Failure::of(&error, Left::These(vec![path])))?)
    }
}
