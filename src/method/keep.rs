//! A failed root that is kept: to look, to repair, to go on. It lives in the bake's mount namespace, which a small
//! keeper process holds until the time is over; when the keeper goes, the mounts and loop devices go with it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::{Bench, WorkDir, WorkError, work};
use crate::host::clock::{self, whole_seconds};
use crate::host::exec::{Cmd, ExecError};
use crate::host::file;
use crate::host::lock::FileLock;
use crate::host::namespace;
use crate::plan::Plan;

const FILE: &str = "kept.json";
/// It holds a plan, and so no more than a recipe with what was looked up for it.
const LARGEST: u64 = 16 << 20;
/// Made by the keeper when it listens.
const READY: &str = "ready";
/// How long a keeper may take to listen: the start of one process.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// That a failed root is to be kept, and what a later process needs to go on.
#[derive(Clone, Debug)]
pub struct Wish {
    pub seconds: u64,
    pub out: PathBuf,
    /// The digest of the recipe's file.
    pub recipe: String,
}

/// A root that was kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Kept {
    pub plan: Plan,
    /// The step that failed, from 0.
    pub step: usize,
    pub recipe_dir: PathBuf,
    pub recipe: String,
    pub out: PathBuf,
    pub expires: Timestamp,
    keeper: i32,
}

/// Hands the root to a keeper. The caller must leave its mounts alone from here on.
pub(super) async fn hold(wish: &Wish, plan: &Plan, step: usize, bench: &Bench) -> Result<Kept, KeepError> {
    let program = std::env::current_exe()
        .map_err(|source| KeepError::File { path: PathBuf::from("/proc/self/exe"), source })?;
    let lock = bench.work.inheritable_lock()?;
    let keeper = Cmd::new(program)
        .arg("keep-root")
        .arg(bench.work.path())
        .arg(wish.seconds.to_string())
        .detach_holding(lock)?;
    let seconds = i64::try_from(wish.seconds).unwrap_or(i64::MAX);
    let kept = Kept {
        plan: plan.clone(),
        step,
        recipe_dir: bench.recipe_dir.clone(),
        recipe: wish.recipe.clone(),
        out: wish.out.clone(),
        expires: whole_seconds(clock::wall() + jiff::SignedDuration::from_secs(seconds)),
        keeper: i32::try_from(keeper).unwrap_or(0),
    };
    let path = bench.work.path().join(FILE);
    let json = serde_json::to_vec_pretty(&kept)
        .map_err(|error| KeepError::File { path: path.clone(), source: error.into() })?;
    std::fs::write(&path, json).map_err(|source| KeepError::File { path, source })?;
    // A signal that came before the keeper listens would end it, and leave the folder to nobody.
    let began = tokio::time::Instant::now();
    while !bench.work.path().join(READY).exists() {
        if began.elapsed() > READY_WITHIN {
            if let Some(keeper) = Pid::from_raw(kept.keeper) {
                // It may have ended by itself.
                let _ = kill_process(keeper, Signal::KILL);
            }
            return Err(KeepError::Silent { bake: plan.bake.clone() });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(kept)
}

/// The keeper's own work: holds the namespace that it was started in, and the folder's lock on its standard input, for
/// `seconds`, then takes the mounts and the folder away. SIGTERM ends the time at once; SIGUSR1 takes the mounts away and
/// leaves the folder to who takes over, and does nothing while they are in use.
///
/// # Errors
/// Where something cannot be taken away.
pub async fn hold_until(work: &Path, seconds: u64) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hand_over = signal(SignalKind::user_defined1())?;
    std::fs::write(work.join(READY), [])?;
    let over = tokio::time::sleep(Duration::from_secs(seconds));
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = &mut over => break,
            _ = terminate.recv() => break,
            _ = hand_over.recv() => {
                // Nothing is detached here: whoever takes over mounts the same disk again.
                let mut points = namespace::mounts_below(work)?.into_iter();
                if points.all(|at| rustix::mount::unmount(&at, rustix::mount::UnmountFlags::NOFOLLOW).is_ok()) {
                    return Ok(());
                }
            }
        }
    }
    work::remove(work)
}

/// The kept root of a bake.
///
/// # Errors
/// [`KeepError::Gone`]: there is none (any more).
pub fn find(base: &Path, bake: &str) -> Result<Kept, KeepError> {
    let gone = || KeepError::Gone { bake: bake.to_owned() };
    if !is_bake(bake) {
        return Err(gone());
    }
    let path = base.join(bake).join(FILE);
    let bytes = file::read(&path, LARGEST).map_err(|_| gone())?;
    let kept: Kept =
        serde_json::from_slice(&bytes).map_err(|error| KeepError::File { path, source: error.into() })?;
    if is_held(base, bake) { Ok(kept) } else { Err(gone()) }
}

/// Whether a text has the form of a bake's id.
#[must_use]
pub fn is_bake(text: &str) -> bool {
    let digits = text.strip_prefix("bake-").unwrap_or_default();
    digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a keeper is alive: it holds the folder's lock. Its process id alone may be another's by now.
fn is_held(base: &Path, bake: &str) -> bool {
    let lock = base.join(bake).join("lock");
    lock.exists() && matches!(FileLock::try_exclusive(&lock), Ok(None))
}

impl Kept {
    /// Enters the keeper's namespace and gives where the root is mounted in it; what this process had mounted itself is
    /// out of its sight then. Until the lock that comes with it is dropped, the root is not taken over. Call it before
    /// any thread is started.
    ///
    /// # Errors
    /// [`KeepError::Gone`]: the keeper ended meanwhile.
    pub fn enter(&self, base: &Path) -> Result<(PathBuf, FileLock), KeepError> {
        let gone = || KeepError::Gone { bake: self.plan.bake.clone() };
        let lock = FileLock::shared(&self.entered(base)).map_err(|_| gone())?;
        namespace::enter_mounts_of(self.keeper).map_err(|_| gone())?;
        Ok((base.join(&self.plan.bake).join("root"), lock))
    }

    /// The file that is locked by everybody who is in the root.
    fn entered(&self, base: &Path) -> PathBuf {
        base.join(&self.plan.bake).join("entered")
    }
}

/// Ends the keeping of a root and takes it away.
///
/// # Errors
/// [`KeepError`]
pub fn drop_root(base: &Path, bake: &str) -> Result<(), KeepError> {
    let kept = find(base, bake)?;
    end(&kept, base, Signal::TERM, || !is_held(base, bake))
}

/// Ends the keeping of a root and leaves its disk to the caller, who goes on with it.
///
/// # Errors
/// [`KeepError`]
pub fn take_over(base: &Path, bake: &str) -> Result<(Kept, WorkDir), KeepError> {
    let kept = find(base, bake)?;
    // While nobody holds the folder's lock, no other bake may take it for an orphan.
    let _still = WorkDir::base_lock(base)?;
    end(&kept, base, Signal::USR1, || !is_held(base, bake))?;
    let ready = base.join(bake).join(READY);
    std::fs::remove_file(&ready).map_err(|source| KeepError::File { path: ready, source })?;
    Ok((kept, WorkDir::open(base, bake)?))
}

/// How long a keeper may take to unmount.
const END_WITHIN: Duration = Duration::from_secs(20);

fn end(kept: &Kept, base: &Path, signal: Signal, over: impl Fn() -> bool) -> Result<(), KeepError> {
    let stuck = || KeepError::Stuck { bake: kept.plan.bake.clone() };
    let _alone = FileLock::try_exclusive(&kept.entered(base)).ok().flatten().ok_or_else(stuck)?;
    let keeper = Pid::from_raw(kept.keeper).ok_or_else(stuck)?;
    kill_process(keeper, signal).map_err(|_| stuck())?;
    let began = std::time::Instant::now();
    while !over() {
        if began.elapsed() > END_WITHIN {
            return Err(stuck());
        }
        #[expect(clippy::disallowed_methods, reason = "a short wait, where nothing else runs yet")]
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error("no root of {bake} is kept (any more)")]
    Gone { bake: String },
    #[error("the keeper of the root of {bake} did not start within {} s", READY_WITHIN.as_secs())]
    Silent { bake: String },
    #[error("the root of {bake} cannot be let go of; leave every shell that is in it and try again")]
    Stuck { bake: String },
    #[error("cannot use {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Work(#[from] WorkError),
    #[error(transparent)]
    Exec(#[from] ExecError),
}
