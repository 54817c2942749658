//! Commands on the instance: the script that brings the provisioner in and runs it, what it writes while it runs, and its
//! result.

use std::time::Duration;

use super::{Deadline, LaunchError, Objects};
use crate::cloud::{
    CloudError, CommandId, CommandState, ErrorKind, Execution, InstanceId, NewCommand, OutputTo, Wait,
    retrying, until,
};
use crate::method::{BakeCause, Bench};
use crate::provision::{Outcome, OutcomeEnd, OutcomeFailure};
use crate::report::Event;

/// Where everything is on the instance; the seal takes it away. On its disk, so that a reboot does not.
const FOLDER: &str = "/var/lib/bakehouse/bundle";
/// In memory.
const SECRETS: &str = "/run/bakehouse-provision/secrets";
/// How long a link is good: until the command has come (two minutes at most) and has begun to fetch the last file, and no
/// longer, since whoever may read the history of commands can read it there.
const LINK: Duration = Duration::from_secs(900);
/// How often is looked whether a command has ended.
const LOOK: Duration = Duration::from_secs(2);
/// How often is asked for what it wrote, and whether the instance is still there.
const FOLLOW: Duration = Duration::from_secs(6);
/// For a look at the events.
const FOLLOWING: Duration = Duration::from_secs(60);
/// For the last of the seal to begin.
const BEGINNING: Duration = Duration::from_secs(120);
/// How long a part of a cloud may not know of a command that was just sent.
const KNOWN: Duration = Duration::from_secs(120);
const SENT_ONCE: &str =
    "whether the instance got the command is not known, and it must not run twice: bake again";
/// Lines of a command's output that an error shows.
const TAIL: usize = 10;

/// Where a command's output is wanted.
#[derive(Clone, Copy, Debug)]
enum Output {
    /// In its answer, which may be cut.
    Answer,
    /// As a whole, in an object.
    Object,
}

/// The instance as commands are sent to it.
pub(super) struct Remote<'a> {
    pub instance: InstanceId,
    pub objects: &'a Objects,
    pub bench: &'a Bench,
    /// The byte of the events to go on with.
    pub seen: u64,
}

impl Remote<'_> {
    /// Brings everything in and runs the steps, by a command from each boot on.
    pub async fn provision(&mut self, deadline: Deadline) -> Result<Outcome, BakeCause> {
        let mut boot = 0;
        loop {
            let script = self.provisioning(boot).await?;
            let execution = self.run(&script, deadline.left()?, true).await?;
            if execution.state == CommandState::TimedOut {
                return Err(deadline.over().into());
            }
            let outcome = self.outcome(&execution).await?;
            match (&outcome.end, execution.state) {
                (OutcomeEnd::Reboot, CommandState::Ended(0)) => boot += 1,
                (OutcomeEnd::Reboot, state) => return Err(LaunchError::NoReboot { state }.into()),
                _ => return Ok(outcome),
            }
        }
    }

    /// The script that runs the steps up to the next reboot. After that it is run once more, by whoever runs commands, and
    /// only says that it was: its links may be over by then.
    async fn provisioning(&self, boot: u32) -> Result<String, BakeCause> {
        let ran = format!("{FOLDER}/ran-{boot}");
        let rebooted = Outcome { end: OutcomeEnd::Reboot, timings: Vec::new() };
        let rebooted = serde_json::to_string_pretty(&rebooted)
            .map_err(|error| BakeCause::Other { what: error.to_string() })?;
        let mut script = format!(
            "[ ! -e {ran} ] || {{ echo '{rebooted}'; exit 0; }}\n{FETCH}\nmkdir -p {FOLDER} /run/bakehouse-provision\n"
        );
        let mut secrets = String::new();
        if self.objects.has_secrets {
            // At each boot again: they are in memory only.
            let link = self.objects.link("secrets", LINK).await?;
            script.push_str(&format!("fetch '{link}' {SECRETS} || exit 90\n"));
            secrets = format!(" --secrets {SECRETS}");
        }
        if boot == 0 {
            let program = self.objects.link("provisioner", LINK).await?;
            let bundle = self.objects.link("bundle", LINK).await?;
            script.push_str(&format!(
                "fetch '{program}' {FOLDER}/bakehouse && chmod 755 {FOLDER}/bakehouse && \
                 fetch '{bundle}' {FOLDER}/bundle || exit 90\n"
            ));
        }
        script.push_str(QUIET);
        script.push_str(&format!(
            ": >{ran}\nexec {FOLDER}/bakehouse provision --root / --bundle {FOLDER}{secrets}\n"
        ));
        Ok(script)
    }

    /// Seals the root, but for what lets commands in: without it the answer would not come back.
    pub async fn seal(&mut self, within: Duration) -> Result<Outcome, BakeCause> {
        let script =
            format!("exec {FOLDER}/bakehouse provision --root / --bundle {FOLDER} --seal --reachable\n");
        let execution = self.run(&script, within, false).await?;
        self.outcome(&execution).await
    }

    /// Begins the last of the seal, which takes away what lets commands in, this one's answer perhaps among it; then the
    /// machine may turn itself off.
    pub async fn finish(&self, then_off: bool) -> Result<CommandId, BakeCause> {
        let off = if then_off { " --then-off" } else { "" };
        let script = format!("exec {FOLDER}/bakehouse provision --root / --bundle {FOLDER} --finish{off}\n");
        self.send(&script, BEGINNING, Output::Answer).await
    }

    /// Why the last of the seal did not begin, where its command says that. Any other end says nothing: it may be that of
    /// the agent.
    pub async fn refused(&self, command: &CommandId) -> Option<String> {
        let execution = self.bench.cloud.commands.poll(&self.instance, command).await.ok()?;
        match last_outcome(&execution.output)?.end {
            OutcomeEnd::Failed(failure) => Some(failure.why),
            _ => None,
        }
    }

    /// Runs a script to its end.
    async fn run(&mut self, script: &str, within: Duration, follow: bool) -> Result<Execution, BakeCause> {
        let id = self.send(script, within, Output::Object).await?;
        let ended = self.wait(&id, follow).await;
        if ended.is_err() {
            // The instance is ended in any case: this only makes it sooner.
            let _ = self.bench.cloud.commands.cancel(&self.instance, &id).await;
        }
        ended
    }

    async fn send(&self, script: &str, within: Duration, output: Output) -> Result<CommandId, BakeCause> {
        let to = || OutputTo { bucket: self.objects.bucket().to_owned(), prefix: self.objects.key("output") };
        let new = NewCommand {
            script: script.to_owned(),
            within,
            output: matches!(output, Output::Object).then(to),
        };
        let commands = &self.bench.cloud.commands;
        // Not by the ledger: a command is over with its instance. SSM has no token for it, so one whose answer is lost is
        // not sent again: steps must not run twice, and the seal takes away what a second one would need.
        let call = || async {
            commands.send(&self.instance, &new).await.map_err(|error| {
                if error.kind.may_hide_an_effect() {
                    CloudError { kind: ErrorKind::Unknown, ..error.with_advice(SENT_ONCE) }
                } else {
                    error
                }
            })
        };
        Ok(retrying(&self.bench.stop, call).await?)
    }

    async fn wait(&mut self, id: &CommandId, follow: bool) -> Result<Execution, BakeCause> {
        let began = tokio::time::Instant::now();
        let mut followed = began;
        loop {
            let polled =
                retrying(&self.bench.stop, || self.bench.cloud.commands.poll(&self.instance, id)).await;
            let execution = match polled {
                Err(error) if error.kind == ErrorKind::NotFound && began.elapsed() < KNOWN => None,
                other => Some(other?),
            };
            if let Some(execution) =
                execution.filter(|now| !matches!(now.state, CommandState::Pending | CommandState::Running))
            {
                if follow {
                    self.follow().await;
                }
                return Ok(execution);
            }
            if followed.elapsed() >= FOLLOW {
                match super::instance::still_there(&self.instance, self.bench).await {
                    Err(error)
                        if !matches!(
                            error.kind,
                            ErrorKind::NotYet | ErrorKind::Transient | ErrorKind::Throttled
                        ) =>
                    {
                        return Err(error.into());
                    }
                    _ => {}
                }
                if follow {
                    self.follow().await;
                }
                followed = tokio::time::Instant::now();
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.bench.stop.requested() => return Err(LaunchError::Stopped.into()),
            }
        }
    }

    /// Tells what happened on the instance since the last look. One that cannot be asked just now, as while it reboots, is
    /// asked again later.
    async fn follow(&mut self) {
        let script = format!(
            "[ ! -e {FOLDER}/events.jsonl ] || exec {FOLDER}/bakehouse provision --root / --bundle {FOLDER} --events {}\n",
            self.seen
        );
        let mut looked = self.look(&script, Output::Answer).await;
        if looked.as_ref().is_some_and(|looked| looked.cut) {
            // Seldom, and so no look leaves an object for nothing.
            looked = self.look(&script, Output::Object).await;
        }
        let Some(looked) = looked else { return };
        if let Ok(text) = self.whole(&looked).await {
            self.relay(&text);
        }
    }

    /// Runs a short script; `None` where it cannot be run just now.
    async fn look(&self, script: &str, output: Output) -> Option<Execution> {
        let id = self.send(script, FOLLOWING, output).await.ok()?;
        let began = tokio::time::Instant::now();
        while began.elapsed() < FOLLOWING && !self.bench.stop.is_requested() {
            tokio::time::sleep(LOOK / 2).await;
            match self.bench.cloud.commands.poll(&self.instance, &id).await {
                Ok(Execution { state: CommandState::Pending | CommandState::Running, .. }) => {}
                Ok(execution) => return Some(execution),
                Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::NotYet) => {}
                Err(_) => return None,
            }
        }
        None
    }

    fn relay(&mut self, text: &str) {
        let mut lines = text.lines();
        let Some(next) = lines.next().and_then(|line| line.trim().parse::<u64>().ok()) else { return };
        if next <= self.seen {
            return;
        }
        self.seen = next;
        for line in lines {
            if let Ok(event) = serde_json::from_str::<Event>(line) {
                self.bench.reporter.emit(event);
            }
        }
    }

    /// All that a command wrote: what its answer does not hold is in an object.
    async fn whole(&self, execution: &Execution) -> Result<String, BakeCause> {
        const THERE: Wait = Wait {
            what: "the command's whole output",
            every: Duration::from_secs(2),
            within: Duration::from_secs(60),
        };
        let Some(key) = execution.object.as_ref().filter(|_| execution.cut) else {
            return Ok(execution.output.clone());
        };
        let (objects, bucket) = (&self.bench.cloud.objects, self.objects.bucket());
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        let bytes = until(THERE, &self.bench.cloud.place, &self.bench.stop, || async {
            // To whoever may not list the bucket's objects as such, S3 calls one that is not there yet a denied one.
            let there = objects.list(bucket, folder).await?.iter().any(|object| object.key == *key);
            if there { objects.get(bucket, key).await.map(Some) } else { Ok(None) }
        })
        .await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The result, with which its output ends.
    async fn outcome(&self, execution: &Execution) -> Result<Outcome, BakeCause> {
        let text = self.whole(execution).await?;
        let Some(outcome) = last_outcome(&text) else {
            let both = format!("{text}\n{}", execution.errors);
            let lines: Vec<&str> = both.lines().filter(|line| !line.trim().is_empty()).collect();
            let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n    ");
            return Err(LaunchError::NoResult {
                state: execution.state,
                tail: self.bench.reporter.masked(&tail),
            }
            .into());
        };
        match outcome.end {
            OutcomeEnd::Failed(OutcomeFailure { step: Some((number, name)), why }) => {
                Err(LaunchError::Step { number, name, why }.into())
            }
            OutcomeEnd::Failed(OutcomeFailure { step: None, why }) => Err(LaunchError::Failed { why }.into()),
            _ => Ok(outcome),
        }
    }
}

/// The last of the results in an output: after a reboot there is one of the time before.
fn last_outcome(text: &str) -> Option<Outcome> {
    let begin =
        text.rmatch_indices("{\n").map(|(at, _)| at).find(|at| *at == 0 || text[..*at].ends_with('\n'))?;
    serde_json::from_str(text[begin..].trim_end()).ok()
}

/// Fetches a URL into a file with what the base has. Busybox alone is enough.
const FETCH: &str = r#"umask 077
command -v chmod >/dev/null || chmod() { busybox chmod "$@"; }
fetch() {
    if command -v curl >/dev/null; then curl -fsS --retry 5 -o "$2" "$1"
    elif command -v wget >/dev/null; then wget -q -O "$2" "$1"
    elif command -v python3 >/dev/null; then
        python3 -c 'import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])' "$1" "$2"
    else busybox wget -q -O "$2" "$1"; fi
}"#;

/// Waits for the first boot's own work, and keeps what starts by itself on a running machine from the package manager's
/// lock. Until the machine is off, and no longer.
const QUIET: &str = r#"if command -v cloud-init >/dev/null; then timeout 600 cloud-init status --wait >/dev/null 2>&1; fi
if command -v systemctl >/dev/null; then
    systemctl stop apt-daily.timer apt-daily-upgrade.timer apt-daily.service apt-daily-upgrade.service \
        unattended-upgrades.service dnf-makecache.timer packagekit.service >/dev/null 2>&1
fi
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_result_counts_whatever_was_written_before() {
        let end = |end: &str| format!("{{\n  \"end\": \"{end}\",\n  \"timings\": []\n}}\n");
        let outcome = last_outcome(&format!("a line\n{}{}", end("reboot"), end("sealed"))).unwrap();
        assert!(matches!(outcome.end, OutcomeEnd::Sealed), "{outcome:?}");
        for none in ["", "{\n", "x\n{}\n", "{\n  \"end\": \"sealed\",\n  \"tim"] {
            assert!(last_outcome(none).is_none(), "{none:?}");
        }
    }
}
