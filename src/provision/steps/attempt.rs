//! One try of a step: what it runs shares one deadline, is reported line by line, and fails with its last lines.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Session, StepContext, StepError};
use crate::host::exec::{Cmd, ExecError, Exit};
use crate::provision::packages::{self, Invocation, PackageManager};
use crate::provision::root::{Root, RootCommand, RootError};
use crate::recipe::Step;
use crate::report::Event;

/// How often a package manager that asks to be run once more is run: once for itself and once for the rest is usual.
const ROUNDS: u32 = 3;

pub(super) struct Attempt<'a> {
    pub session: &'a Session<'a>,
    /// What its lines stand under: `2 shell`.
    label: &'a str,
    /// Variables of the step, for every command in the root.
    env: Option<&'a BTreeMap<String, String>>,
    workdir: Option<&'a str>,
    limit: Duration,
    began: Instant,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(session: &'a Session<'a>, label: &'a str, step: &'a Step, limit: Duration) -> Self {
        let kind = step.as_kind();
        Self { session, label, env: kind.env(), workdir: kind.workdir(), limit, began: Instant::now() }
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

    /// That the time of this try is not over: for work that is no command.
    pub(super) fn check_time(&self, name: &str) -> Result<(), StepError> {
        if self.remaining().is_zero() {
            return Err(StepError::TimedOut {
                command: name.to_owned(),
                limit: self.limit,
                tail: Vec::new(),
            });
        }
        Ok(())
    }

    fn check_workdir(&self, workdir: &str) -> Result<(), StepError> {
        if !workdir.starts_with('/') {
            return Err(StepError::recipe("workdir", workdir, "is not an absolute path"));
        }
        if !self.root().dir().metadata(workdir).is_ok_and(|found| found.is_dir()) {
            return Err(StepError::recipe("workdir", workdir, "is not a folder in the root"));
        }
        Ok(())
    }

    /// The root's package manager.
    pub(super) fn package_manager(&self) -> Result<&'static dyn PackageManager, StepError> {
        self.root().facts().package_manager.ok_or(StepError::Lacks {
            what: "package manager known to Bakehouse",
            instead: "it needs apt, dnf, yum or zypper; use a shell step for anything else",
        })
    }

    /// Runs a package manager's command. A script that failed where its package is installed all the same is told.
    pub(super) async fn invoke(&self, invocation: Invocation) -> Result<(), StepError> {
        let Invocation { name, command, fine, again } = invocation;
        let mut on_line = |line: &str| {
            self.line(line);
            if packages::is_unfinished(line) {
                self.context().reporter.warning(format!("`{name}`: {}", line.trim()));
            }
        };
        let mut rounds = 1;
        loop {
            match self.run_lines(&name, command.clone(), &mut on_line).await {
                Err(StepError::Failed { code, .. }) if again == Some(code) && rounds < ROUNDS => rounds += 1,
                Err(StepError::Failed { code, .. }) if fine.contains(&code) => return Ok(()),
                other => return other,
            }
        }
    }

    /// Runs a command in the root, under `name`; an exit code other than 0 is an error.
    pub(super) async fn run(&self, name: &str, command: RootCommand) -> Result<(), StepError> {
        self.run_lines(name, command, &mut |line| self.line(line)).await
    }

    /// The same, with every line handed over.
    pub(super) async fn run_lines(
        &self,
        name: &str,
        mut command: RootCommand,
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), StepError> {
        command.timeout = self.remaining();
        command.env.extend(self.env.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
        if let Some(workdir) = self.workdir {
            self.check_workdir(workdir)?;
            workdir.clone_into(&mut command.workdir);
        }
        let mut on_line = |_, line: &str| on_line(line);
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

    pub(super) fn line(&self, line: &str) {
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

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::super::metadata::Metadata;
    use super::*;
    use crate::host::exec::Stream;
    use crate::host::root_dir::RootDir;
    use crate::host::stop::Stop;
    use crate::provision::root::RootFacts;

    /// Runs nothing, and keeps what it was asked to run.
    struct Recorded {
        dir: RootDir,
        facts: RootFacts,
        commands: Mutex<Vec<RootCommand>>,
        /// What the commands end with, the last first; then 0.
        codes: Mutex<Vec<i32>>,
    }

    #[async_trait]
    impl Root for Recorded {
        async fn run(
            &self,
            command: &RootCommand,
            _: &Stop,
            _: &mut (dyn for<'l> FnMut(Stream, &'l str) + Send),
        ) -> Result<Exit, RootError> {
            self.commands.lock().unwrap().push(command.clone());
            let code = self.codes.lock().unwrap().pop().unwrap_or(0);
            Ok(Exit { code, tail: Vec::new() })
        }

        fn dir(&self) -> &RootDir {
            &self.dir
        }

        fn facts(&self) -> &RootFacts {
            &self.facts
        }

        fn entry(&self) -> Option<Vec<OsString>> {
            None
        }

        fn left_over(&self) -> Result<Vec<String>, RootError> {
            Ok(Vec::new())
        }
    }

    async fn tried(
        step: serde_json::Value,
        limit: Duration,
    ) -> (Result<(), StepError>, Vec<RootCommand>, bool) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("srv")).unwrap();
        let dir = RootDir::open(folder.path()).unwrap();
        let facts = RootFacts::read(&dir).unwrap();
        let root = Recorded { dir, facts, commands: Mutex::default(), codes: Mutex::default() };
        let context = StepContext::new(folder.path());
        let session = Session { root: &root, context: &context, metadata: Metadata::default() };
        let step: Step = serde_json::from_value(step).unwrap();
        let attempt = Attempt::new(&session, "1 step", &step, limit);
        let result = attempt.run("true", RootCommand::new(["true"])).await;
        let in_time = attempt.check_time("copying files").is_ok();
        (result, root.commands.into_inner().unwrap(), in_time)
    }

    #[tokio::test]
    async fn commands_run_where_the_step_says_with_its_variables() {
        for kind in ["services", "packages", "update"] {
            let mut step = serde_json::json!({ kind: { "workdir": "/srv", "env": { "A": "b" } } });
            if kind == "update" {
                step[kind]["scope"] = "all".into();
            }
            let (result, commands, _) = tried(step, Duration::from_secs(60)).await;
            result.unwrap();
            assert_eq!(
                (commands[0].workdir.as_str(), commands[0].env["A"].as_str()),
                ("/srv", "b"),
                "{kind}"
            );
        }
        let (result, commands, _) =
            tried(serde_json::json!({ "services": { "workdir": "/nowhere" } }), Duration::from_secs(60))
                .await;
        assert!(result.unwrap_err().to_string().contains("is not a folder in the root"));
        assert!(commands.is_empty());
    }

    #[tokio::test]
    async fn exit_codes_mean_what_the_package_manager_says() {
        for (codes, commands, error) in [
            (&[0][..], 1, None),
            (&[102], 1, None),
            (&[103, 102], 2, None),
            (&[103, 103, 103, 0], 3, Some(103)),
            (&[104], 1, Some(104)),
            (&[103, 104], 2, Some(104)),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let dir = RootDir::open(folder.path()).unwrap();
            let facts = RootFacts::read(&dir).unwrap();
            let codes: Vec<i32> = codes.iter().rev().copied().collect();
            let root = Recorded { dir, facts, commands: Mutex::default(), codes: Mutex::new(codes) };
            let context = StepContext::new(folder.path());
            let session = Session { root: &root, context: &context, metadata: Metadata::default() };
            let step: Step = serde_json::from_value(serde_json::json!({ "update": "all" })).unwrap();
            let attempt = Attempt::new(&session, "1 update", &step, Duration::from_secs(60));
            let command = RootCommand::new(["true"]);
            let invocation = Invocation { name: "true".to_owned(), command, fine: &[102], again: Some(103) };
            let result = attempt.invoke(invocation).await;
            let code = result.err().map(|error| match error {
                StepError::Failed { code, .. } => code,
                other => panic!("{other}"),
            });
            assert_eq!((code, root.commands.lock().unwrap().len()), (error, commands));
        }
    }

    #[tokio::test]
    async fn work_that_is_no_command_keeps_to_the_time_too() {
        let files = || serde_json::json!({ "files": { "from": "a", "to": "/b" } });
        assert!(tried(files(), Duration::from_secs(60)).await.2);
        assert!(!tried(files(), Duration::ZERO).await.2);
    }
}
