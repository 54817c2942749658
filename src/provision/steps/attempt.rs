//! One try of a step: what it runs shares one deadline, is reported line by line, and fails with its last lines.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Session, StepContext, StepError};
use crate::host::exec::{Cmd, ExecError, Exit};
use crate::provision::root::{Root, RootCommand, RootError};
use crate::recipe::Step;
use crate::report::Event;

pub(super) struct Attempt<'a> {
    pub session: &'a Session<'a>,
    /// What its lines stand under: `2 shell`.
    label: &'a str,
    /// Variables of the step, for every command in the root.
    env: &'a BTreeMap<String, String>,
    limit: Duration,
    began: Instant,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(session: &'a Session<'a>, label: &'a str, step: &'a Step, limit: Duration) -> Self {
        Self { session, label, env: step.env(), limit, began: Instant::now() }
    }

    pub(super) fn root(&self) -> &'a dyn Root {
        self.session.root
    }

    pub(super) fn context(&self) -> &'a StepContext {
        self.session.context
    }

    fn remaining(&self) -> Duration {
        self.limit.saturating_sub(self.began.elapsed())
    }

    /// Runs a command in the root, under `name`; an exit code other than 0 is an error.
    pub(super) async fn run(&self, name: &str, mut command: RootCommand) -> Result<(), StepError> {
        command.timeout = self.remaining();
        command.env.extend(self.env.clone());
        let mut on_line = |_, line: &str| self.line(line);
        let result = self.root().run(&command, &self.context().stop, &mut on_line).await;
        self.judge(name, result)
    }

    /// The same for a program of the host.
    pub(super) async fn run_on_host(&self, name: &str, command: Cmd) -> Result<(), StepError> {
        let mut on_line = |_, line: &str| self.line(line);
        let command = command.timeout(self.remaining());
        let result = command.stream(&self.context().stop, &mut on_line).await;
        self.judge(name, result.map_err(RootError::from))
    }

    fn line(&self, line: &str) {
        self.context().reporter.emit(Event::Line { step: self.label.to_owned(), text: line.to_owned() });
    }

    fn judge(&self, name: &str, result: Result<Exit, RootError>) -> Result<(), StepError> {
        let masked = |tail: Vec<String>| {
            let mask = |line: &String| self.context().reporter.masked(line);
            tail.iter().map(mask).collect()
        };
        match result {
            Ok(exit) if exit.success() => Ok(()),
            Ok(exit) => {
                Err(StepError::Failed { command: name.to_owned(), code: exit.code, tail: masked(exit.tail) })
            }
            Err(RootError::Exec(ExecError::Stopped { .. })) => Err(StepError::Stopped),
            Err(RootError::Exec(ExecError::TimedOut { tail, .. })) => {
                Err(StepError::TimedOut { command: name.to_owned(), limit: self.limit, tail: masked(tail) })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The end of every step that went well: no process of its own is left in the root.
    pub(super) fn nothing_left(&self) -> Result<(), StepError> {
        let processes = self.root().left_over()?;
        if processes.is_empty() { Ok(()) } else { Err(StepError::LeftOver { processes }) }
    }
}
