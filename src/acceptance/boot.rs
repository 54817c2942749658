//! The boot test: launches an instance of the image, waits for the answer on its console and ends it, whatever happens.
//! Knows nothing of which cloud it is on; needs no network to the instance.

use std::time::Duration;

use super::console::{self, Stage};
use super::frame::{self, Answer, Verdict};
use super::outcome::{Outcome, Status};
use super::script::{Script, ScriptError};
use crate::cloud::{
    BootMode, Cloud, CloudError, ErrorKind, Image, InstanceId, InstanceState, NewInstance, Tags, Token,
    retrying,
};
use crate::host::stop::Stop;
use crate::recipe::{BootTest, Check};
use crate::report::Reporter;

/// From launch to the last check where the recipe says nothing.
const WITHIN: Duration = Duration::from_secs(300);
/// How often the console is read. EC2 gives a new text every few seconds at best.
const EVERY: Duration = Duration::from_secs(3);
/// Seconds of life beyond the test's own time, in which it is ended properly; after them it ends by itself.
const SPARE: u32 = 120;
/// Longest time, as a share of the whole, that is kept for the answer's way back.
const REPORTING: Duration = Duration::from_secs(20);
/// What is added for a guest that began with the checks: an instance of EC2 is launched some 15 s before its kernel
/// starts, and its console is as much behind.
const GRACE: Duration = Duration::from_secs(30);
/// Lines and bytes of the console's end that a report holds.
const TAIL: (usize, usize) = (60, 8 * 1024);

/// What to boot and what to ask it.
#[derive(Clone, Debug)]
pub struct BootSpec {
    pub checks: Vec<Check>,
    pub boot: BootTest,
    /// The instance type; `None`: the cloud's choice.
    pub kind: Option<String>,
    pub boot_mode: Option<BootMode>,
    /// GiB of the root volume where it is to be larger than the image's.
    pub root_size: Option<u32>,
    /// Whether the image runs cloud-init. One that does not cannot be asked anything: only its console is looked at.
    pub cloud_init: bool,
    /// Of the bake: with `attempt` it makes the token by which a repeated launch is the same launch.
    pub bake: String,
    pub attempt: u32,
    pub tags: Tags,
}

/// What the boot test found.
#[derive(Clone, Debug)]
pub struct BootReport {
    pub instance: InstanceId,
    /// The boot itself first, then one per check in their order.
    pub outcomes: Vec<Outcome>,
    /// How far the boot came where it did not come to an answer.
    pub stage: Option<Stage>,
    /// The end of the console, as plain text.
    pub console: String,
    /// From the launched instance to its answer.
    pub seconds: f64,
    /// Where the instance could not be ended: why. It ends by itself when its life is over.
    pub leftover: Option<String>,
}

impl BootReport {
    /// Whether nothing failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.outcomes.iter().any(Outcome::failed)
    }
}

/// Boots `image` and judges the checks in it. A boot that fails or takes too long is a report, not an error.
///
/// # Errors
/// [`AcceptanceError`]: the checks do not fit, the cloud did not launch it or does not answer, or a stop was asked for.
/// The instance is ended before this returns; where that failed, the error says so.
pub async fn boot_test(
    cloud: &Cloud,
    image: &Image,
    spec: &BootSpec,
    reporter: &Reporter,
    stop: &Stop,
) -> Result<BootReport, AcceptanceError> {
    let within = spec.boot.within.map_or(WITHIN, |span| span.duration());
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    let user_data = if spec.cloud_init {
        Script {
            checks: &spec.checks,
            nonce: &nonce,
            deadline: within.saturating_sub(REPORTING.min(within / 4)).as_secs(),
            console: None,
        }
        .user_data()?
    } else {
        Vec::new()
    };
    let new = NewInstance {
        image: image.id.clone(),
        kind: spec.kind.clone(),
        user_data,
        boot_mode: spec.boot_mode,
        root_size: spec.root_size,
        lifetime_seconds: u32::try_from(within.as_secs()).unwrap_or(u32::MAX).saturating_add(SPARE),
        tags: spec.tags.clone(),
    };
    let phase = reporter.phase(format!("booting {}", image.id));
    if stop.is_requested() {
        return Err(AcceptanceError::Stopped { left: None });
    }
    let token = Token::of(&spec.bake, &format!("boot {}", image.id), spec.attempt);
    let instance = cloud
        .instances
        .launch(&new, &token)
        .await
        .map_err(|source| AcceptanceError::Launch { image: image.id.to_string(), source })?;
    // From here: the local cloud first writes the whole disk.
    let began = tokio::time::Instant::now();
    reporter.note(format!("{instance} is booting; the test takes at most {} s", within.as_secs()));
    let watch = Watch {
        cloud,
        instance: &instance,
        nonce: spec.cloud_init.then_some(nonce.as_str()),
        pattern: spec.boot.console.as_deref(),
        deadline: began + within,
        within,
    };
    let seen = watch.until_told(stop).await;
    let seconds = began.elapsed().as_secs_f64();
    // Also after a stop and after an error: an instance costs money.
    let leftover = match retrying(&Stop::never(), || cloud.instances.terminate(&instance)).await {
        Ok(()) => None,
        Err(error) => Some(format!("{instance} could not be ended: {error}")),
    };
    if let Some(leftover) = &leftover {
        reporter.warning(leftover.as_str());
    }
    phase.done();
    let seen = match seen {
        Ok(seen) => seen,
        Err(Ended::Stopped) => return Err(AcceptanceError::Stopped { left: leftover }),
        Err(Ended::Cloud(source)) => {
            return Err(AcceptanceError::Watch { instance: instance.to_string(), left: leftover, source });
        }
    };
    let stage = (!matches!(seen.end, End::Answered(_) | End::Seen)).then(|| watch.stage(&seen.console));
    Ok(BootReport {
        outcomes: outcomes(spec, &seen, stage.as_ref(), seconds),
        stage,
        console: tail(&seen.console),
        instance,
        seconds,
        leftover,
    })
}

/// How the wait ended.
#[derive(Debug)]
enum End {
    Answered(Answer),
    /// What an image without cloud-init was to show.
    Seen,
    /// The instance is no longer there; the cloud's words.
    Gone(String),
    OutOfTime,
}

#[derive(Debug)]
struct Seen {
    end: End,
    console: Vec<u8>,
    within: Duration,
}

enum Ended {
    Stopped,
    Cloud(CloudError),
}

struct Watch<'a> {
    cloud: &'a Cloud,
    instance: &'a InstanceId,
    /// `None`: nobody answers there.
    nonce: Option<&'a str>,
    pattern: Option<&'a str>,
    deadline: tokio::time::Instant,
    within: Duration,
}

impl Watch<'_> {
    async fn until_told(&self, stop: &Stop) -> Result<Seen, Ended> {
        let mut text = Vec::new();
        loop {
            if stop.is_requested() {
                return Err(Ended::Stopped);
            }
            // The state before the console: whatever it wrote before it ended is seen.
            let state = passing(self.cloud.instances.describe(self.instance).await)?;
            if let Some(newest) = passing(self.cloud.instances.console(self.instance).await)? {
                text = newest;
            }
            // A guest that began counts its own time, which began later: its answer is on the way.
            let answering = self.nonce.is_some_and(|nonce| frame::has_started(&text, nonce));
            let deadline = if answering { self.deadline + GRACE } else { self.deadline };
            let over = tokio::time::Instant::now() >= deadline;
            let end = match (self.told(&text), state) {
                (Some(end), _) => Some(end),
                (None, Some(found)) if ended(found.state) => {
                    Some(End::Gone(found.reason.unwrap_or_else(|| "no reason is known".to_owned())))
                }
                _ => over.then_some(End::OutOfTime),
            };
            if let Some(end) = end {
                return Ok(Seen { end, console: text, within: self.within });
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.requested() => {}
            }
        }
    }

    fn told(&self, text: &[u8]) -> Option<End> {
        match (self.nonce, self.pattern) {
            (Some(nonce), _) => frame::find_answer(text, nonce).map(End::Answered),
            (None, Some(pattern)) => console::plain(text).contains(pattern).then_some(End::Seen),
            (None, None) => console::has_login_prompt(text).then_some(End::Seen),
        }
    }

    fn stage(&self, text: &[u8]) -> Stage {
        if self.nonce.is_some_and(|nonce| frame::has_started(text, nonce)) {
            Stage::Checks
        } else {
            console::stage(text)
        }
    }
}

/// The console's end without the test's own lines, which say nothing to a person.
fn tail(text: &[u8]) -> String {
    let text = console::plain(text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains(frame::MAGIC)).collect();
    console::tail(lines.join("\n").as_bytes(), TAIL.0, TAIL.1)
}

fn ended(state: InstanceState) -> bool {
    matches!(
        state,
        InstanceState::Stopping
            | InstanceState::Stopped
            | InstanceState::ShuttingDown
            | InstanceState::Terminated
    )
}

/// What was answered; `None` where it may be answered next time.
fn passing<T>(answer: Result<T, CloudError>) -> Result<Option<T>, Ended> {
    match answer {
        Ok(found) => Ok(Some(found)),
        // A new instance is unknown to a part of EC2 for some seconds.
        Err(error)
            if matches!(
                error.kind,
                ErrorKind::NotFound | ErrorKind::NotYet | ErrorKind::Throttled | ErrorKind::Transient
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(Ended::Cloud(error)),
    }
}

fn outcomes(spec: &BootSpec, seen: &Seen, stage: Option<&Stage>, seconds: f64) -> Vec<Outcome> {
    let far = stage.map_or_else(String::new, |stage| format!("; {stage}"));
    let boot = match &seen.end {
        End::Answered(_) | End::Seen => Status::Passed,
        End::Gone(reason) => Status::Failed(format!("the instance ended before it answered ({reason}){far}")),
        End::OutOfTime => Status::Failed(format!("no answer within {} s{far}", seen.within.as_secs())),
    };
    let mut outcomes =
        vec![Outcome { name: "boot".to_owned(), kind: "boot".to_owned(), status: boot, seconds }];
    let answer = match &seen.end {
        End::Answered(answer) => Some(answer),
        _ => None,
    };
    let why_not = if spec.cloud_init {
        "the image did not come so far"
    } else {
        "the image has no cloud-init to run it"
    };
    outcomes.extend(spec.checks.iter().enumerate().map(|(at, check)| {
        let Some(answer) = answer else {
            return Outcome::new(check, Status::NotJudged(why_not.to_owned()));
        };
        let Some(judged) = answer.checks.iter().find(|judged| judged.index == at) else {
            return Outcome::new(check, Status::Failed("the image did not answer it".to_owned()));
        };
        let status = match judged.verdict {
            Verdict::Passed => Status::Passed,
            Verdict::Failed => Status::Failed(judged.message.clone()),
            Verdict::NotJudged => Status::NotJudged(judged.message.clone()),
        };
        Outcome { seconds: f64::from(judged.seconds), ..Outcome::new(check, status) }
    }));
    outcomes
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum AcceptanceError {
    #[error(transparent)]
    Script(#[from] ScriptError),
    #[error("cannot launch {image} to test it")]
    Launch { image: String, source: CloudError },
    #[error("cannot watch {instance}{}", left.as_ref().map(|left| format!("; {left}")).unwrap_or_default())]
    Watch { instance: String, left: Option<String>, source: CloudError },
    #[error("the boot test was stopped{}", left.as_ref().map(|left| format!("; {left}")).unwrap_or_default())]
    Stopped { left: Option<String> },
}

impl AcceptanceError {
    /// The instance that could not be ended, and why.
    #[must_use]
    pub fn left(&self) -> Option<&str> {
        match self {
            Self::Watch { left, .. } | Self::Stopped { left } => left.as_deref(),
            Self::Script(_) | Self::Launch { .. } => None,
        }
    }
}
