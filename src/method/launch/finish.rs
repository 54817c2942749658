//! The end of an instance that was sealed: the last of the seal is begun by a command, whose answer may never come, and
//! seen by the console and by the machine's turning itself off.

use std::time::Duration;

use super::LaunchError;
use super::remote::Remote;
use crate::cloud::{CloudError, ErrorKind, InstanceId, InstanceState, Wait, retrying, until};
use crate::method::{BakeCause, Bench};
use crate::provision::LastOfSeal;

/// Until the last of the seal has come to its end: it does once more what the seal did, whose files are in memory now, and
/// may wait some minutes for a package manager's lock.
const LAST: Duration = Duration::from_secs(900);
/// For a machine that is sealed to be off.
const BY_ITSELF: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_secs(3);

/// That the instance's console can be read while it runs: EC2 gives it of types of the Nitro system alone (GetConsoleOutput,
/// `Latest`), and of an instance that does not turn itself off nothing else tells that it is sealed.
pub(super) async fn has_console(id: &InstanceId, bench: &Bench) -> Result<(), BakeCause> {
    match retrying(&bench.stop, || bench.cloud.instances.console(id)).await {
        Ok(_) => Ok(()),
        Err(source) if matches!(source.kind, ErrorKind::Invalid | ErrorKind::Unknown) => {
            Err(LaunchError::NoConsole { instance: id.to_string(), source }.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Takes away what lets commands in, and waits until nothing on the instance is written any more: it is off, or, where
/// `runs`, it is sealed.
pub(super) async fn finish(remote: &Remote<'_>, bake: &str, runs: bool) -> Result<(), BakeCause> {
    let (id, bench) = (&remote.instance, remote.bench);
    let command = remote.finish(!runs).await?;
    let wait = Wait { what: "the last of the seal", every: LOOK, within: LAST };
    let seen = until(wait, &bench.cloud.place, &bench.stop, || async {
        // The state before the console: what it wrote before it was off is seen.
        let state = state(id, bench).await?;
        if let Ok(console) = bench.cloud.instances.console(id).await {
            match LastOfSeal::find(&console, bake) {
                Some(LastOfSeal::Failed(why)) => return Ok(Some(Err(why))),
                Some(LastOfSeal::Done) => return Ok(Some(Ok(()))),
                None => {}
            }
        }
        if !runs && state != InstanceState::Running {
            return Ok(Some(Ok(())));
        }
        // Only that it could not begin is sure to be told.
        let refused = remote.refused(&command).await;
        Ok(refused.map(Err))
    });
    match seen.await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => return Err(LaunchError::Failed { why }.into()),
        Err(source) if source.operation == "wait" && !bench.stop.is_requested() => {
            return Err(LaunchError::Unsealed { instance: id.to_string(), source }.into());
        }
        Err(error) => return Err(error.into()),
    }
    if runs { Ok(()) } else { off(id, bench).await }
}

/// What state it is in; that it is gone is an error.
async fn state(id: &InstanceId, bench: &Bench) -> Result<InstanceState, CloudError> {
    match bench.cloud.instances.describe(id).await?.state {
        InstanceState::ShuttingDown | InstanceState::Terminated => Err(CloudError::new(
            ErrorKind::Invalid,
            "DescribeInstances",
            &bench.cloud.place,
            format!("{id} was terminated before an image was made of it"),
        )),
        state => Ok(state),
    }
}

/// Waits until it is off; one that does not turn itself off is stopped.
async fn off(id: &InstanceId, bench: &Bench) -> Result<(), BakeCause> {
    // EC2 takes the power away from a system that does not end, after some minutes.
    const STOPPED: Wait = Wait { what: "instance stopped", every: LOOK, within: Duration::from_secs(900) };
    let (instances, place) = (&bench.cloud.instances, &bench.cloud.place);
    let is_off = || async {
        Ok(match state(id, bench).await? {
            InstanceState::Stopped => Some(true),
            InstanceState::Stopping => Some(false),
            _ => None,
        })
    };
    let wait = Wait { within: BY_ITSELF, ..STOPPED };
    match until(wait, place, &bench.stop, is_off).await {
        Ok(_) => {}
        Err(error) if error.operation == "wait" && !bench.stop.is_requested() => {
            bench.reporter.warning(
                "the machine did not turn itself off after the seal: what it writes while it is stopped (a random seed, \
                 logs, its agent's state) may be in the image",
            );
            retrying(&bench.stop, || instances.stop(id)).await?;
        }
        Err(error) => return Err(error.into()),
    }
    until(STOPPED, place, &bench.stop, || async { Ok(is_off().await?.filter(|off| *off)) }).await?;
    Ok(())
}
