//! One job: its artifacts in, its build, its artifacts out. Everything lies in a work folder of its own, which goes with it.
//! Whatever happens, it has a result.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::source::{self, KEYS, PRIMARY, Work};
use super::{ANSWER_VARIABLE, NAME};
use crate::cli::exit::{Failure, chain};
use crate::cli::session::{Global, Session};
use crate::cloud::{
    ActionCategory, ArtifactCredentials, Artifacts, Cloud, CloudError, ErrorKind, Job, JobArtifact,
    JobSuccess, Jobs, retrying,
};
use crate::host::clock;
use crate::host::stop::Stop;
use crate::ledger::Left;
use crate::method::WorkDir;
use crate::pipeline::archive::{self, ArchiveError, Bounds};
use crate::pipeline::{
    self, Build, Collected, Identity, JobResult, Outcome, SecretsError, Source, StageAnswer, Status,
};
use crate::recipe::buildspec::{self, BuildspecErrors, LoadedBuildspec};
use crate::report::{Event, Reporter, Sink};

/// Lines of a build's log that its failure shows.
const TAIL: usize = 15;
/// What a worker was told itself, and no build of its jobs is: where its results go, whose job it is, what fails on purpose.
const OWN: [&str; 5] =
    ["BAKEHOUSE_OUT", "BAKEHOUSE_JOB_ID", "BAKEHOUSE_ANSWER", "BAKEHOUSE_TOKEN", "BAKEHOUSE_FAULT"];
/// What the build's programs answer into.
pub(super) const ANSWER: &str = "answer.json";

/// Does jobs, each for itself.
pub(super) struct Builder {
    cloud: Cloud,
    category: ActionCategory,
    jobs: Arc<dyn Jobs>,
    reporter: Reporter,
    stop: Stop,
    /// Where work folders are.
    work: PathBuf,
    /// As a build's commands find it, but for what is the build's own.
    inherited: BTreeMap<OsString, OsString>,
    /// This program.
    program: PathBuf,
}

/// The last lines of a build's log.
#[derive(Clone, Default)]
struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

impl Sink for Tail {
    fn take(&mut self, event: &Event) {
        let Event::Line { text, .. } = event else { return };
        let mut lines = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if lines.len() == TAIL {
            lines.pop_front();
        }
        lines.push_back(text.clone());
    }
}

/// Hands a job's events on to the worker's log, each with the job's name.
struct Named {
    job: String,
    to: Reporter,
}

impl Sink for Named {
    fn take(&mut self, event: &Event) {
        let text = match event {
            Event::Line { text, .. } | Event::Note { text } => text.clone(),
            Event::Warning { text } => return self.to.warning(format!("{}: {text}", self.job)),
            Event::Phase { name } => format!("==> {name}"),
            Event::Step { number, of, name } => format!("==> step {number}/{of}: {name}"),
            Event::PhaseDone { .. }
            | Event::StepDone { .. }
            | Event::Progress { .. }
            | Event::Waiting { .. } => return,
        };
        self.to.emit(Event::Line { step: self.job.clone(), text });
    }
}

/// A job under way.
struct Running<'a> {
    builder: &'a Builder,
    job: &'a Job,
    folder: &'a Path,
    reporter: Reporter,
    tail: Tail,
}

impl Builder {
    /// # Errors
    /// Where this program's own file is not known.
    pub(super) fn new(
        session: &Session,
        global: &Global,
        category: ActionCategory,
        jobs: Arc<dyn Jobs>,
    ) -> anyhow::Result<Self> {
        let mut inherited: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        inherited.extend(global.environment());
        inherited.retain(|name, _| !OWN.iter().any(|own| name == own));
        Ok(Self {
            cloud: session.cloud.clone(),
            category,
            jobs,
            reporter: session.reporter.clone(),
            stop: session.stop.clone(),
            work: global.work(),
            inherited,
            program: std::env::current_exe()?,
        })
    }

    /// Does a job.
    pub(super) async fn result(&self, job: &Job) -> JobResult {
        let (reporter, tail) = (Reporter::silent(), Tail::default());
        // First of all: nothing of it may be shown.
        if let Some(credentials) = &job.credentials {
            hide(credentials, &reporter);
        }
        for (_, value) in job.configuration.0.iter().filter(|(key, _)| !KEYS.contains(&key.as_str())) {
            reporter.hide(value);
        }
        let short = job.id.as_str().chars().take(8).collect::<String>();
        reporter.add_sink(Box::new(Named { job: format!("job {short}"), to: self.reporter.clone() }));
        reporter.add_sink(Box::new(tail.clone()));
        let answer = match self.in_a_folder(job, &reporter, tail).await {
            Ok(result) => return result,
            Err(failure) => {
                let failure = failure.masked(|text| reporter.masked(text));
                StageAnswer::Failed {
                    kind: failure.kind(),
                    code: failure.code(),
                    message: failure.to_string(),
                }
            }
        };
        answer.result()
    }

    async fn in_a_folder(&self, job: &Job, reporter: &Reporter, tail: Tail) -> Result<JobResult, Failure> {
        let name = format!("{NAME}-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let failed = |error: &(dyn std::error::Error + 'static)| Failure::of(error, Left::Nothing);
        let work = WorkDir::create(&self.work, &name).map_err(|error| failed(&error))?;
        // Where this process is killed, the next one tells the pipeline.
        std::fs::write(work.path().join(NAME), job.id.as_str()).map_err(|error| failed(&error))?;
        let running = Running { builder: self, job, folder: work.path(), reporter: reporter.clone(), tail };
        let result = running.run().await;
        if let Err(error) = work.close() {
            reporter.warning(format!("left behind: {}", chain(&error)));
        }
        result
    }
}

fn hide(credentials: &ArtifactCredentials, reporter: &Reporter) {
    reporter.hide(&credentials.secret_key);
    reporter.hide(&credentials.session_token);
}

impl Running<'_> {
    async fn run(&self) -> Result<JobResult, Failure> {
        let sources = self.fetch().await?;
        let (name, source, artifact) = primary(self.job, &sources)?;
        let work =
            source::work(source, name, self.builder.category, &self.job.configuration, &self.builder.program);
        let spec = match work.map_err(Failure::Input)? {
            Work::Buildspec(path) => source.join(path),
            Work::Alone { text } => {
                let path = self.folder.join("alone.yml");
                std::fs::write(&path, text).map_err(|error| Failure::of(&error, Left::Nothing))?;
                path
            }
        };
        let loaded = buildspec::load(&spec).map_err(|errors| match errors {
            BuildspecErrors::Wrong(_) => Failure::Input(relative(&errors.to_string(), source)),
            other => Failure::Input(relative(&chain(&other), source)),
        })?;
        let outcome = self.build(&loaded, source, artifact, &sources).await?;
        let answer = StageAnswer::read(&self.folder.join(ANSWER));
        match outcome.status {
            Status::Stopped => {
                let signal = self.builder.stop.signal().unwrap_or(libc::SIGTERM);
                Err(Failure::Interrupted { signal, left: Left::Nothing })
            }
            Status::Failed => Ok(self.failed(&outcome, answer, source)),
            Status::Succeeded => match answer {
                Some(waits @ StageAnswer::Waits { .. }) => Ok(waits.result()),
                answer => {
                    self.store(&outcome.artifacts).await?;
                    Ok(success(outcome, answer))
                }
            },
        }
    }

    /// Fetches and unpacks what comes in: each artifact in a folder of its name.
    async fn fetch(&self) -> Result<Vec<(String, PathBuf)>, Failure> {
        if self.job.inputs.is_empty() {
            return Err(Failure::Input(
                "the action has no input artifact; give it the one with buildspec.yml or bake.yml".to_owned(),
            ));
        }
        let mut sources = Vec::new();
        for artifact in &self.job.inputs {
            if !is_name(&artifact.name) {
                return Err(Failure::Input(format!("`{}` is no artifact's name", artifact.name)));
            }
            let packed = self.folder.join(format!("{}.zip", artifact.name));
            let into = self.folder.join("in").join(&artifact.name);
            let io = |error: std::io::Error| Failure::of(&error, Left::Nothing);
            std::fs::create_dir_all(&into).map_err(io)?;
            let size = self
                .with_artifacts(async |artifacts| artifacts.fetch(artifact, &packed, archive::LARGEST).await)
                .await
                .map_err(|error| self.refused(error, artifact, "read"))?;
            let (from, to, stop) = (packed.clone(), into.clone(), self.builder.stop.clone());
            let unpacking =
                tokio::task::spawn_blocking(move || archive::unpack(&from, &to, Bounds::OF_A_JOB, &stop));
            let files = joined(unpacking).await?.map_err(|error| self.no_archive(&error, artifact))?;
            std::fs::remove_file(&packed).map_err(io)?;
            self.reporter.note(format!("{} ({size} bytes, files: {files})", artifact.name));
            sources.push((artifact.name.clone(), into));
        }
        Ok(sources)
    }

    async fn build(
        &self,
        loaded: &LoadedBuildspec,
        source: &Path,
        artifact: &JobArtifact,
        sources: &[(String, PathBuf)],
    ) -> Result<Outcome, Failure> {
        let spec = &loaded.buildspec;
        let builder = self.builder;
        let context = self.job.context.clone().unwrap_or_default();
        let place = &builder.cloud.place;
        let id =
            format!("{}:{}", if context.action.is_empty() { "job" } else { &context.action }, self.job.id);
        let identity = Identity {
            arn: format!(
                "arn:{}:codepipeline:{}:{}:job/{}",
                place.partition, place.region, place.account, self.job.id
            ),
            id: id.clone(),
            number: 1,
            initiator: format!("codepipeline/{}", context.pipeline),
            started: clock::wall(),
        };
        let built = Source {
            dir: source.to_owned(),
            version: Some(format!("arn:{}:s3:::{}/{}", place.partition, artifact.bucket, artifact.key)),
            resolved: artifact.revision.clone(),
            repository: None,
            secondary: sources.iter().filter(|(_, path)| path != source).cloned().collect(),
        };
        let given = BTreeMap::new();
        let secrets = pipeline::from_parameters(
            spec,
            Some(&builder.cloud),
            &given,
            &builder.inherited,
            &self.reporter,
            &builder.stop,
        );
        let secrets = secrets.await.map_err(|error| match &error {
            SecretsError::Unread(_) => Failure::of(&error, Left::Nothing),
            SecretsError::Refused { .. } | SecretsError::NoCloud { .. } => Failure::Input(error.to_string()),
        })?;
        let mut environment =
            pipeline::variables(builder.inherited.clone(), spec, &secrets, &given, &built, &identity);
        environment.insert(ANSWER_VARIABLE.into(), self.folder.join(ANSWER).into());
        if !context.execution.is_empty() {
            environment.insert("BAKEHOUSE_PIPELINE_EXECUTION".into(), context.execution.into());
        }
        if let Some(token) = &self.job.continuation {
            environment.insert("BAKEHOUSE_TOKEN".into(), token.into());
        }
        let artifacts = self.folder.join("out");
        let build = Build {
            spec,
            source,
            id: &id,
            environment,
            artifacts: Some(&artifacts),
            reporter: &self.reporter,
            stop: &builder.stop,
        };
        pipeline::run(&build).await.map_err(|error| Failure::Input(error.to_string()))
    }

    /// Why a build failed. Where a command of it was this program, that says it best.
    fn failed(&self, outcome: &Outcome, answer: Option<StageAnswer>, source: &Path) -> JobResult {
        let why = outcome.failure().unwrap_or_default();
        if let Some(StageAnswer::Failed { kind, code, message }) = answer
            && why.ends_with(&format!("exit status {code}"))
        {
            let message = relative(&self.reporter.masked(&message), source);
            return StageAnswer::Failed { kind, code, message }.result();
        }
        let tail = self.tail.text();
        let message =
            if tail.is_empty() { why } else { format!("{why}\nthe last lines of its log:\n{tail}") };
        let failure = Failure::Build(relative(&message, source));
        StageAnswer::Failed { kind: failure.kind(), code: failure.code(), message: failure.to_string() }
            .result()
    }

    /// Packs and stores what goes out.
    async fn store(&self, collected: &[Collected]) -> Result<(), Failure> {
        for output in &self.job.outputs {
            let one =
                output_of(&output.name, self.job.outputs.len() == 1, collected).map_err(Failure::Input)?;
            let packed = self.folder.join(format!("{}.zip", one.name.replace('/', "-")));
            let (from, to, stop) = (one.folder.clone(), packed.clone(), self.builder.stop.clone());
            let packing = tokio::task::spawn_blocking(move || archive::pack(&from, &to, &stop));
            joined(packing).await?.map_err(|error| self.no_archive(&error, output))?;
            let key = self.job.key.as_deref();
            self.with_artifacts(async |artifacts| artifacts.store(&packed, output, key).await)
                .await
                .map_err(|error| self.refused(error, output, "written"))?;
            self.reporter.note(format!("{} is stored (files: {})", output.name, one.files));
        }
        Ok(())
    }

    /// Reads or writes with the job's credentials. A build may take longer than they last: where they are over, the job is
    /// asked for others, once.
    async fn with_artifacts<T>(
        &self,
        call: impl AsyncFn(Arc<dyn Artifacts>) -> Result<T, CloudError>,
    ) -> Result<T, CloudError> {
        let (jobs, stop) = (&self.builder.jobs, &self.builder.stop);
        let mut credentials = self.job.credentials.clone();
        let mut renewed = false;
        loop {
            let Some(own) = &credentials else {
                let text = "the job has no credentials for its artifacts";
                return Err(CloudError::new(
                    ErrorKind::Denied,
                    "GetJobDetails",
                    &self.builder.cloud.place,
                    text,
                ));
            };
            let artifacts = jobs.artifacts(own);
            match retrying(stop, || call(artifacts.clone())).await {
                Err(error) if is_over(&error) && !renewed => {
                    renewed = true;
                    let job = retrying(stop, || jobs.details(&self.job.id)).await?;
                    if let Some(new) = &job.credentials {
                        hide(new, &self.reporter);
                    }
                    credentials = job.credentials;
                }
                ended => return ended,
            }
        }
    }

    /// Why an artifact cannot be had, or given.
    fn refused(&self, error: CloudError, artifact: &JobArtifact, what: &str) -> Failure {
        let JobArtifact { name, bucket, key, .. } = artifact;
        let said = chain(&error);
        let message = format!("the artifact {name} (s3://{bucket}/{key}) cannot be {what}: {said}");
        if self.builder.stop.is_requested() {
            let signal = self.builder.stop.signal().unwrap_or(libc::SIGTERM);
            return Failure::Interrupted { signal, left: Left::Nothing };
        }
        match error.kind {
            ErrorKind::Denied => {
                let hint = if is_over(&error) {
                    "the job's credentials are over; a build must end before the action's time does"
                        .to_owned()
                } else {
                    let of_key = self
                        .job
                        .key
                        .as_deref()
                        .map(|key| format!(", and kms:Decrypt and kms:GenerateDataKey of {key}"));
                    format!(
                        "the pipeline's role needs s3:GetObject and s3:PutObject of the bucket{}",
                        of_key.unwrap_or_default()
                    )
                };
                Failure::Denied { message: format!("{message}\nhint: {hint}"), left: Left::Nothing }
            }
            ErrorKind::NotFound | ErrorKind::Invalid => Failure::Input(message),
            _ => Failure::of(&error, Left::Nothing).masked(|_| message.clone()),
        }
    }

    fn no_archive(&self, error: &ArchiveError, artifact: &JobArtifact) -> Failure {
        match error {
            ArchiveError::Stopped => {
                let signal = self.builder.stop.signal().unwrap_or(libc::SIGTERM);
                Failure::Interrupted { signal, left: Left::Nothing }
            }
            ArchiveError::Io { .. } | ArchiveError::Unwritten { .. } => Failure::of(error, Left::Nothing),
            _ => Failure::Input(format!("the artifact {}: {}", artifact.name, chain(error))),
        }
    }
}

/// What `spawn_blocking` gives.
async fn joined<T>(task: tokio::task::JoinHandle<T>) -> Result<T, Failure> {
    task.await.map_err(|error| Failure::Work { message: error.to_string(), left: Left::Nothing })
}

/// The source that is built, as CodeBuild finds it among several.
fn primary<'a>(
    job: &'a Job,
    sources: &'a [(String, PathBuf)],
) -> Result<(&'a str, &'a Path, &'a JobArtifact), Failure> {
    let wanted = job.configuration.get(PRIMARY);
    let mut all = sources.iter().zip(&job.inputs);
    let found = all.find(|((name, _), _)| wanted.is_none_or(|wanted| wanted == name));
    found.map(|((name, path), artifact)| (name.as_str(), path.as_path(), artifact)).ok_or_else(|| {
        let names: Vec<&str> = sources.iter().map(|(name, _)| name.as_str()).collect();
        Failure::Input(format!(
            "{PRIMARY}: `{}` is none of the action's input artifacts, which are {}",
            wanted.unwrap_or_default(),
            names.join(", ")
        ))
    })
}

/// The artifact of the build that goes out under a name: the secondary one of that name, or the primary one, where it is the
/// only one that is asked for.
fn output_of<'a>(name: &str, only: bool, collected: &'a [Collected]) -> Result<&'a Collected, String> {
    let by_name = collected.iter().find(|one| one.identifier.as_deref() == Some(name));
    let primary = || collected.iter().find(|one| one.identifier.is_none()).filter(|_| only);
    by_name.or_else(primary).ok_or_else(|| {
        format!(
            "the pipeline awaits the artifact {name}, and the buildspec gives none of that name; write it under \
             artifacts.secondary-artifacts{}",
            if only { ", or the artifact's files under artifacts" } else { "" }
        )
    })
}

/// Whether credentials are over, and others may do.
fn is_over(error: &CloudError) -> bool {
    matches!(error.code.as_deref(), Some("ExpiredToken" | "ExpiredTokenException" | "RequestExpired"))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// A text in which paths are those of the artifact: the folder in which it was unpacked is gone when somebody reads it.
fn relative(text: &str, source: &Path) -> String {
    let folder = source.display().to_string();
    text.replace(&format!("{folder}/"), "").replace(&folder, ".")
}

/// What a build that ended well gives.
fn success(outcome: Outcome, answer: Option<StageAnswer>) -> JobResult {
    let mut success = match answer {
        Some(StageAnswer::Done(done)) => done.success(),
        _ => JobSuccess {
            summary: Some("the build succeeded".to_owned()),
            external_id: Some(outcome.build),
            percent: Some(100),
            ..JobSuccess::default()
        },
    };
    // What the buildspec says goes before what its programs say.
    success.variables.extend(outcome.exported_variables);
    JobResult::Success(success).within_limits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::JobFailureKind;
    use crate::pipeline::Done;

    fn collected(identifier: Option<&str>) -> Collected {
        Collected {
            identifier: identifier.map(str::to_owned),
            name: identifier.unwrap_or("primary").to_owned(),
            folder: PathBuf::new(),
            files: 1,
        }
    }

    #[test]
    fn an_output_is_the_artifact_of_its_name_or_the_only_one() {
        let both = [collected(None), collected(Some("Image"))];
        let of = |name: &str, only: bool| output_of(name, only, &both).map(|one| one.identifier.clone());
        assert_eq!(of("Image", true), Ok(Some("Image".to_owned())));
        assert_eq!(of("Other", true), Ok(None));
        assert!(of("Other", false).unwrap_err().contains("awaits the artifact Other"));
        assert!(output_of("Image", true, &[]).is_err());
    }

    #[test]
    fn paths_in_a_message_are_the_artifacts() {
        let source = Path::new("/var/tmp/bakehouse/job-1/in/Source");
        let text = "error: unknown key\n --> /var/tmp/bakehouse/job-1/in/Source/web/bake.yml:3:1\nin /var/tmp/bakehouse/job-1/in/Source";
        assert_eq!(relative(text, source), "error: unknown key\n --> web/bake.yml:3:1\nin .");
    }

    #[test]
    fn what_a_buildspec_exports_goes_before_what_a_stage_says() {
        let outcome = |exported: &[(&str, &str)]| Outcome {
            build: "Bake:1".to_owned(),
            status: Status::Succeeded,
            phases: Vec::new(),
            exported_variables: exported
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            artifacts: Vec::new(),
            not_done: Vec::new(),
        };
        let variables = BTreeMap::from([
            ("AMI_ID".to_owned(), "ami-1".to_owned()),
            ("AMI_NAME".to_owned(), "web".to_owned()),
        ]);
        let done = StageAnswer::Done(Done { variables, bake: "bake-1".into(), ..Done::default() });
        let JobResult::Success(found) = success(outcome(&[("AMI_ID", "ami-2")]), Some(done)) else {
            panic!("a failure")
        };
        assert_eq!(
            (found.variables["AMI_ID"].as_str(), found.variables["AMI_NAME"].as_str()),
            ("ami-2", "web")
        );
        assert_eq!(found.external_id.as_deref(), Some("bake-1"));
        // A command may fail, and the build go on.
        let failed = StageAnswer::Failed { kind: JobFailureKind::JobFailed, code: 3, message: "no".into() };
        let JobResult::Success(found) = success(outcome(&[]), Some(failed)) else { panic!("a failure") };
        assert_eq!(found.external_id.as_deref(), Some("Bake:1"));
    }
}
