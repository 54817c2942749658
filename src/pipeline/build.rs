//! A build: its phases in their order, what a failure of one means for the others, and what is left in the end.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;

use super::artifacts::{self, ArtifactsError, Wanted};
use super::outcome::{Collected, Context, Outcome, PhaseOutcome, Status};
use super::shell::{Shell, ShellError, State, other_user};
use crate::host::clock;
use crate::host::error::chain;
use crate::host::exec::ExecError;
use crate::host::stop::Stop;
use crate::recipe::buildspec::{Artifact, Buildspec, OnFailure, Phase, PhaseName, ShellName};
use crate::report::{Event, Reporter};

/// Whether the build is going well so far, for its commands.
const SUCCEEDING: &str = "CODEBUILD_BUILD_SUCCEEDING";
/// The last phase, which has no commands.
const UPLOAD: &str = "UPLOAD_ARTIFACTS";
/// Characters of a command that a person recognises it by.
const TITLE: usize = 70;

/// What is to be done.
#[derive(Debug)]
pub struct Build<'a> {
    pub spec: &'a Buildspec,
    /// The source's folder, by an absolute path.
    pub source: &'a Path,
    pub id: &'a str,
    /// As the first command finds it.
    pub environment: BTreeMap<OsString, OsString>,
    /// Where artifacts go; `None`: they are not collected.
    pub artifacts: Option<&'a Path>,
    pub reporter: &'a Reporter,
    pub stop: &'a Stop,
}

/// Runs a build. A build that fails is `Ok`, and so is one that was stopped: the outcome says so.
///
/// # Errors
/// [`BuildError`]: what cannot be run here at all.
pub async fn run(build: &Build<'_>) -> Result<Outcome, BuildError> {
    let program = match build.spec.env.shell {
        Some(ShellName::Bash) => "bash",
        None | Some(ShellName::Sh | ShellName::BinSh) => "/bin/sh",
        Some(ShellName::PowerShell | ShellName::Pwsh | ShellName::Cmd) => return Err(BuildError::Windows),
    };
    let start = State::new(build.source, build.environment.clone());
    let mut run = Run { build, program, shell: Shell::new(program, start.clone()), start, failed: false };
    let not_done = not_done(build.spec);
    for key in &not_done {
        build.reporter.note(format!("`{key}` means something in CodeBuild only; it is not done here"));
    }
    let mut phases = Vec::new();
    let mut after = After::Next;
    for name in PhaseName::ALL {
        let outcome = run.phase(name).await;
        after = next(
            name,
            outcome.status,
            build.spec.phases.get(name).and_then(|phase| phase.on_failure.as_ref()),
        );
        phases.push(outcome);
        if after != After::Next {
            break;
        }
    }
    let exported_variables = run.exported();
    let mut collected = Vec::new();
    // Also after a phase that failed, but for one whose failure ends the build.
    let last_failed = phases.len() == PhaseName::ALL.len() && after == After::End;
    if let (Some(to), true) = (build.artifacts, after == After::Next || last_failed)
        && build.spec.artifacts.is_some()
    {
        phases.push(run.upload(to, &mut collected).await);
    } else if build.spec.artifacts.is_some() && build.artifacts.is_none() {
        build.reporter.note("the artifacts are not collected; --artifacts FOLDER does that");
    }
    if run.shell.close(build.stop, &mut |line| run_line(build, "exit", line)).await.is_err() {
        after = After::Stopped;
    }
    let failed = phases.iter().any(|phase| phase.status == Status::Failed);
    let stopped = after == After::Stopped || build.stop.is_requested();
    let status = match (stopped, failed) {
        (true, _) => Status::Stopped,
        (false, true) => Status::Failed,
        (false, false) => Status::Succeeded,
    };
    Ok(Outcome {
        build: build.id.to_owned(),
        status,
        phases,
        exported_variables,
        artifacts: collected,
        not_done,
    })
}

/// What follows a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Next,
    End,
    Stopped,
}

/// After a build phase that failed the one behind it still runs; after another that failed, nothing does.
fn next(phase: PhaseName, status: Status, on_failure: Option<&OnFailure>) -> After {
    match (status, on_failure) {
        (Status::Stopped, _) => After::Stopped,
        (Status::Succeeded, _) | (Status::Failed, Some(OnFailure::Continue)) => After::Next,
        (Status::Failed, Some(OnFailure::Abort)) => After::End,
        // Images other than CodeBuild's own do not retry.
        (Status::Failed, None | Some(OnFailure::Retry { .. })) => {
            if phase == PhaseName::Build {
                After::Next
            } else {
                After::End
            }
        }
    }
}

/// The keys of a buildspec that are CodeBuild's to do.
fn not_done(spec: &Buildspec) -> Vec<&'static str> {
    let retries = |phase: &Phase| matches!(phase.on_failure, Some(OnFailure::Retry { .. }));
    let keys = [
        ("batch", spec.batch.is_some()),
        ("cache", spec.cache.is_some()),
        ("env.git-credential-helper", spec.env.git_credential_helper.is_on()),
        ("on-failure: RETRY", spec.phases.all().any(|(_, phase)| retries(phase))),
        ("proxy", spec.proxy.logs.is_on() || spec.proxy.upload_artifacts.is_on()),
        ("reports", !spec.reports.is_empty()),
        ("runtime-versions", spec.phases.all().any(|(_, phase)| !phase.runtime_versions.is_empty())),
    ];
    keys.into_iter().filter(|(_, there)| *there).map(|(key, _)| key).collect()
}

fn run_line(build: &Build<'_>, step: &str, line: &str) {
    build.reporter.emit(Event::Line { step: step.to_owned(), text: line.to_owned() });
}

/// A command on one line of a terminal.
fn title(command: &str) -> String {
    let line = command.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let short: String = line.chars().take(TITLE).collect();
    let more = if short.len() < command.trim().len() { "…" } else { "" };
    format!("{short}{more}")
}

struct Run<'a> {
    build: &'a Build<'a>,
    program: &'static str,
    shell: Shell,
    /// As the shell was when the build began.
    start: State,
    failed: bool,
}

impl Run<'_> {
    fn user<'b>(&'b self, phase: Option<&'b Phase>) -> Option<&'b str> {
        let own = phase.and_then(|phase| phase.run_as.as_deref());
        other_user(own.or(self.build.spec.run_as.as_deref()))
    }

    async fn phase(&mut self, name: PhaseName) -> PhaseOutcome {
        let (build, shown) = (self.build, name.key().to_uppercase());
        let (started, began) = (clock::wall().to_string(), Instant::now());
        let mut outcome = PhaseOutcome {
            phase: shown.clone(),
            status: Status::Succeeded,
            started,
            seconds: 0.0,
            contexts: Vec::new(),
        };
        let Some(phase) = build.spec.phases.get(name) else {
            return outcome;
        };
        let telling = build.reporter.phase(shown);
        let of = phase.commands.len() + phase.finally.len();
        let mut number = 0;
        for group in [&phase.commands, &phase.finally] {
            for (at, command) in group.iter().enumerate() {
                let step = Event::Step { number: number + at + 1, of, name: title(command) };
                build.reporter.emit(step);
                match self.command(name, phase, command).await {
                    Ok(0) => {}
                    Ok(code) => {
                        outcome.fail(build, command, &format!("exit status {code}"));
                    }
                    Err(ShellError::Exec(ExecError::Stopped { .. })) => {
                        outcome.status = Status::Stopped;
                        return outcome.after(began);
                    }
                    Err(error) => outcome.fail(build, command, &chain(&error)),
                }
                if outcome.status == Status::Failed {
                    self.failed = true;
                    break;
                }
            }
            number += group.len();
        }
        telling.done();
        outcome.after(began)
    }

    async fn command(&mut self, name: PhaseName, phase: &Phase, command: &str) -> Result<i32, ShellError> {
        let build = self.build;
        // In version 0.1 each command has a shell of its own.
        if build.spec.version == "0.1" {
            self.shell.close(build.stop, &mut |line| run_line(build, name.key(), line)).await?;
            self.shell = Shell::new(self.program, self.start.clone());
        }
        let succeeding = if self.failed { "0" } else { "1" };
        self.shell.export(SUCCEEDING, succeeding, build.stop).await?;
        let own = phase.run_as.as_deref().or(build.spec.run_as.as_deref());
        let mut on_line = |line: &str| run_line(build, name.key(), line);
        self.shell.run(command, other_user(own), build.stop, &mut on_line).await
    }

    /// What the buildspec exports, as it is now. Secrets among it are hidden: it is shown, and handed on.
    fn exported(&self) -> BTreeMap<String, String> {
        let names = self.build.spec.env.exported_variables.iter();
        names
            .filter_map(|name| {
                let value = self.shell.state().get(name)?.to_string_lossy().into_owned();
                Some((name.clone(), self.build.reporter.masked(&value)))
            })
            .collect()
    }

    async fn upload(&mut self, to: &Path, collected: &mut Vec<Collected>) -> PhaseOutcome {
        let telling = self.build.reporter.phase(UPLOAD);
        let (started, began) = (clock::wall().to_string(), Instant::now());
        let mut outcome = PhaseOutcome {
            phase: UPLOAD.to_owned(),
            status: Status::Succeeded,
            started,
            seconds: 0.0,
            contexts: Vec::new(),
        };
        let spec = self.build.spec;
        let all = spec.artifacts.iter().flat_map(|artifacts| {
            let others = artifacts.secondary_artifacts.iter();
            let primary = artifacts.primary().map(|artifact| (None, artifact));
            primary.into_iter().chain(others.map(|(id, artifact)| (Some(id.clone()), artifact.clone())))
        });
        for (identifier, artifact) in all {
            match self.artifact(identifier, &artifact, to).await {
                Ok(one) => collected.push(one),
                Err(UploadError::Shell(ShellError::Exec(ExecError::Stopped { .. }))) => {
                    outcome.status = Status::Stopped;
                    return outcome.after(began);
                }
                Err(error) => {
                    outcome.status = Status::Failed;
                    let message = self.build.reporter.masked(&chain(&error));
                    outcome.contexts.push(Context { status_code: "CLIENT_ERROR", message });
                }
            }
        }
        telling.done();
        outcome.after(began)
    }

    async fn artifact(
        &mut self,
        identifier: Option<String>,
        artifact: &Artifact,
        to: &Path,
    ) -> Result<Collected, UploadError> {
        let name = match (&artifact.name, &identifier) {
            (Some(name), _) => self.filled(name).await?,
            (None, Some(identifier)) => identifier.clone(),
            (None, None) => "primary".to_owned(),
        };
        let base = self.filled(artifact.base_directory.as_deref().unwrap_or_default()).await?;
        let mut files = Vec::new();
        for file in &artifact.files {
            files.push(self.filled(file).await?);
        }
        let exclude =
            artifact.exclude_paths.as_ref().map(|patterns| patterns.all().to_vec()).unwrap_or_default();
        let (flat, links) = (artifact.discard_paths.is_on(), artifact.enable_symlinks.is_on());
        let wanted = Wanted { identifier, name, base, files, exclude, flat, links };
        let (source, to) = (self.build.source.to_owned(), to.to_owned());
        let copied = tokio::task::spawn_blocking(move || artifacts::collect(&source, &wanted, &to)).await;
        let (collected, left_out) = copied.map_err(|_| UploadError::Broken)??;
        for one in left_out {
            self.build.reporter.warning(format!("left out of the artifact {}: {one}", collected.name));
        }
        self.build.reporter.note(format!("{} (files: {})", collected.folder.display(), collected.files));
        Ok(collected)
    }

    /// A text with what the shell puts in for variables and commands.
    async fn filled(&mut self, text: &str) -> Result<String, UploadError> {
        if !text.contains(['$', '`']) {
            return Ok(text.to_owned());
        }
        let build = self.build;
        let user = self.user(build.spec.phases.get(PhaseName::PostBuild)).map(str::to_owned);
        let command = format!("printf '%s\\n' \"{}\"", text.replace('"', "\\\""));
        let mut lines: Vec<String> = Vec::new();
        let mut on_line = |line: &str| lines.push(line.to_owned());
        let code = self.shell.run(&command, user.as_deref(), build.stop, &mut on_line).await?;
        if code == 0 { Ok(lines.join("\n")) } else { Err(UploadError::Text { text: text.to_owned(), code }) }
    }
}

impl PhaseOutcome {
    fn fail(&mut self, build: &Build<'_>, command: &str, why: &str) {
        let message = format!("Error while executing command: {}. Reason: {why}", title(command));
        self.status = Status::Failed;
        let message = build.reporter.masked(&message);
        build.reporter.warning(message.clone());
        self.contexts.push(Context { status_code: "COMMAND_EXECUTION_ERROR", message });
    }

    fn after(mut self, began: Instant) -> Self {
        self.seconds = began.elapsed().as_secs_f64();
        self
    }
}

/// Why an artifact was not collected.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error(transparent)]
    Shell(#[from] ShellError),
    #[error(transparent)]
    Artifacts(#[from] ArtifactsError),
    #[error(
        "`{text}` ends with the exit status {code} in the shell; correct `name`, `base-directory` or `files`"
    )]
    Text { text: String, code: i32 },
    #[error("collecting broke off")]
    Broken,
}

/// Why a buildspec is not run at all.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("env.shell: the shells of Windows are not run here; write bash or sh")]
    Windows,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_means_what_codebuild_says() {
        use PhaseName::{Build, Install, PostBuild, PreBuild};
        let retry = OnFailure::Retry { times: None, pattern: None };
        for phase in PhaseName::ALL {
            for on_failure in [None, Some(&OnFailure::Abort), Some(&OnFailure::Continue), Some(&retry)] {
                assert_eq!(next(phase, Status::Succeeded, on_failure), After::Next);
                assert_eq!(next(phase, Status::Stopped, on_failure), After::Stopped);
            }
            assert_eq!(next(phase, Status::Failed, Some(&OnFailure::Abort)), After::End);
            assert_eq!(next(phase, Status::Failed, Some(&OnFailure::Continue)), After::Next);
        }
        for on_failure in [None, Some(&retry)] {
            assert_eq!(next(Build, Status::Failed, on_failure), After::Next);
            for phase in [Install, PreBuild, PostBuild] {
                assert_eq!(next(phase, Status::Failed, on_failure), After::End);
            }
        }
    }

    #[test]
    fn a_title_is_one_short_line() {
        assert_eq!(title("make"), "make");
        assert_eq!(title("\n  make\n  more"), "make…");
        assert_eq!(title(&"x".repeat(200)).chars().count(), TITLE + 1);
    }
}
