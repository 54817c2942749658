//! A program that is talked to: text goes into it bit by bit, and what it writes comes back line by line. For a shell
//! that runs one command after the other.

use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Cmd, ExecError, GRACE, LINES, Running, Stream, code, read_lines};
use crate::host::stop::Stop;

/// What came of waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Line(String),
    /// It ended, with this exit code; 128 + n where signal n ended it.
    Ended(i32),
}

/// A program under way, in a session of its own. Dropped, it and all that it started are killed.
#[derive(Debug)]
pub struct Dialogue {
    name: String,
    running: Running,
    /// Until it is closed.
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<(Stream, String)>,
    /// Ended with this.
    _readers: JoinSet<()>,
    /// Whether more lines may come.
    open: bool,
    status: Option<i32>,
    /// How long lines are waited for after its end: something that it started may hold its streams.
    until: Instant,
}

impl Cmd {
    /// Starts it and keeps its input open.
    ///
    /// # Errors
    /// [`ExecError`]: not there, or the kernel's refusal.
    pub fn talk(self) -> Result<Dialogue, ExecError> {
        let mut running = self.start(true)?;
        let (send, lines) = mpsc::channel(LINES);
        let mut readers = JoinSet::new();
        if let Some(out) = running.child.stdout.take() {
            readers.spawn(read_lines(out, Stream::Out, send.clone()));
        }
        if let Some(err) = running.child.stderr.take() {
            readers.spawn(read_lines(err, Stream::Err, send));
        }
        let input = running.child.stdin.take();
        let until = Instant::now();
        Ok(Dialogue {
            name: self.name(),
            running,
            input,
            lines,
            _readers: readers,
            open: true,
            status: None,
            until,
        })
    }
}

impl Dialogue {
    /// Writes into its input. One that ended meanwhile takes nothing; [`Dialogue::hear`] says so.
    ///
    /// # Errors
    /// [`ExecError::Stopped`]: a stop was asked for before it took all.
    pub async fn say(&mut self, text: &str, stop: &Stop) -> Result<(), ExecError> {
        let Some(input) = &mut self.input else {
            return Ok(());
        };
        tokio::select! {
            written = input.write_all(text.as_bytes()) => {
                if written.is_err() {
                    self.input = None;
                }
                Ok(())
            }
            () = stop.requested() => Err(ExecError::Stopped { name: self.name.clone() }),
        }
    }

    /// Closes its input: a shell ends then by itself.
    pub fn close(&mut self) {
        self.input = None;
    }

    /// Waits for a line or for its end, which comes when all lines are read.
    ///
    /// # Errors
    /// [`ExecError::Stopped`], [`ExecError::Io`]
    pub async fn hear(&mut self, stop: &Stop) -> Result<Heard, ExecError> {
        loop {
            if let (Some(code), false) = (self.status, self.open) {
                return Ok(Heard::Ended(code));
            }
            tokio::select! {
                line = self.lines.recv(), if self.open => match line {
                    Some((_, text)) => return Ok(Heard::Line(text)),
                    None => self.open = false,
                },
                ended = self.running.child.wait(), if self.status.is_none() => {
                    let ended = ended.map_err(|source| ExecError::Io { name: self.name.clone(), source })?;
                    self.status = Some(code(ended));
                    self.until = Instant::now() + GRACE;
                }
                () = tokio::time::sleep_until(self.until), if self.status.is_some() => {
                    self.running.kill();
                    self.open = false;
                }
                () = stop.requested() => return Err(ExecError::Stopped { name: self.name.clone() }),
            }
        }
    }

    /// Ends it and all that it started: with time to end by itself first.
    pub async fn end(self) {
        let Self { running, mut lines, _readers: _reading, .. } = self;
        // Its last words are read, or it could wait for that for ever.
        let read = async {
            while lines.recv().await.is_some() {}
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = running.end() => {}
            () = read => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn to_the_end(dialogue: &mut Dialogue) -> (Vec<String>, i32) {
        let mut lines = Vec::new();
        loop {
            match dialogue.hear(&Stop::never()).await.unwrap() {
                Heard::Line(line) => lines.push(line),
                Heard::Ended(code) => return (lines, code),
            }
        }
    }

    #[tokio::test]
    async fn a_shell_answers_what_it_is_told_and_ends_when_its_input_does() {
        let mut shell = Cmd::new("sh").arg("-s").talk().unwrap();
        shell.say("A=1\n", &Stop::never()).await.unwrap();
        shell.say("echo $A\n", &Stop::never()).await.unwrap();
        assert_eq!(shell.hear(&Stop::never()).await.unwrap(), Heard::Line("1".to_owned()));
        shell.say("echo last; (exit 7)\n", &Stop::never()).await.unwrap();
        shell.close();
        assert_eq!(to_the_end(&mut shell).await, (vec!["last".to_owned()], 7));
        // One that is gone takes what it is told, and says again that it ended.
        shell.say("echo more\n", &Stop::never()).await.unwrap();
        assert_eq!(to_the_end(&mut shell).await, (vec![], 7));
    }

    /// A shell ends at once when it is told to, and what it runs may have to clean up.
    #[tokio::test]
    async fn what_a_shell_runs_has_the_time_to_end_that_it_was_promised() {
        let dir = tempfile::tempdir().unwrap();
        let done = dir.path().join("done");
        let shell = Cmd::new("sh").arg("-s").env("DONE", &done).time_to_end(Duration::from_secs(10));
        let mut shell = shell.talk().unwrap();
        let command =
            "sh -c 'trap \"sleep 4; echo done >$DONE; exit 0\" TERM; echo up; sleep 1000 & wait; wait'\n";
        shell.say(command, &Stop::never()).await.unwrap();
        assert_eq!(shell.hear(&Stop::never()).await.unwrap(), Heard::Line("up".to_owned()));
        shell.end().await;
        assert_eq!(std::fs::read_to_string(done).unwrap(), "done\n");
    }

    #[tokio::test]
    async fn a_stop_ends_the_wait_and_the_end_takes_all_along() {
        let mut shell = Cmd::new("sh").arg("-s").talk().unwrap();
        shell.say("sleep 1000 & echo $!; wait\n", &Stop::never()).await.unwrap();
        let Heard::Line(child) = shell.hear(&Stop::never()).await.unwrap() else {
            panic!("it ended");
        };
        let stop = Stop::never();
        stop.request(libc::SIGTERM);
        assert!(matches!(shell.hear(&stop).await, Err(ExecError::Stopped { .. })));
        shell.end().await;
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            let state = stat.rsplit_once(')').map_or("", |(_, rest)| rest.trim_start());
            state.is_empty() || state.starts_with('Z')
        };
        while !gone() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What a program left running holds its streams: its lines are not waited for without end.
    #[tokio::test]
    async fn who_stays_behind_is_not_waited_for() {
        let mut shell = Cmd::new("sh").arg("-s").talk().unwrap();
        shell.say("sleep 1000 & echo here; exit 3\n", &Stop::never()).await.unwrap();
        assert_eq!(to_the_end(&mut shell).await, (vec!["here".to_owned()], 3));
    }
}
