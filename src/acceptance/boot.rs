//! The boot test, a stage that waits: launches an instance of the image, looks for the answer on its console and ends
//! the instance when the test is over, however. Between two looks there is nothing but a token, so that another process
//! can go on. Knows nothing of which cloud it is on; needs no network to the instance.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::console::Stage;
use super::judge::{self, Asked, End, Judge, Life};
use super::outcome::Outcome;
use super::script::{Script, ScriptError};
use crate::cloud::{
    BootMode, Cloud, CloudError, ErrorKind, Image, ImageRef, InstanceId, NewInstance, Tags, Token, retrying,
};
use crate::host::clock;
use crate::host::stop::Stop;
use crate::recipe::{BootTest, Check};
use crate::report::Reporter;
use crate::stage::{Answer, Claims, StageToken, TokenError, Wait, until_done};

/// The stage's name, in tokens and tags.
const STAGE: &str = "test";
/// From launch to the last check where the recipe says nothing.
const WITHIN: Duration = Duration::from_secs(300);
/// How often the console is read. EC2 gives a new text every few seconds at best.
const EVERY: Duration = Duration::from_secs(3);
/// Seconds of life beyond the test's own time, in which it is ended properly; after them it ends by itself.
const SPARE: u32 = 120;
/// Longest time, as a share of the whole, that is kept for the answer's way back.
const REPORTING: Duration = Duration::from_secs(20);
/// Longest time that a launch takes: the local cloud first writes the whole disk.
const LAUNCHING: SignedDuration = SignedDuration::from_mins(15);
/// A new instance is unknown to a part of EC2 for some seconds. One that is unknown after this is gone.
const NEW: SignedDuration = SignedDuration::from_mins(2);

/// What is to be tested, by the record: the same in every process that looks.
#[derive(Clone, Debug)]
pub struct BootSpec {
    pub checks: Vec<Check>,
    pub boot: BootTest,
    pub bake: String,
    /// Tags that the instance gets besides its expiry. One that has not all of them is not this test's.
    pub tags: Tags,
}

impl BootSpec {
    fn within(&self) -> Duration {
        self.boot.within.map_or(WITHIN, |span| span.duration())
    }
}

/// How the image is to be launched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LaunchOptions {
    /// The instance type; `None`: the cloud's choice.
    pub kind: Option<String>,
    pub boot_mode: Option<BootMode>,
    /// GiB of the root volume where it is to be larger than the image's.
    pub root_size: Option<u32>,
}

/// A boot under way: what its token holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Boot {
    /// Tells this boot's answer from any other's, and makes the token by which a repeated launch is the same launch.
    nonce: String,
    begun: Timestamp,
    options: LaunchOptions,
    /// Whether the image runs cloud-init. One that does not cannot be asked anything: only its console is looked at.
    cloud_init: bool,
    launched: Option<Launched>,
    /// The newest console: a later look may get none.
    #[serde(skip)]
    console: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Launched {
    instance: InstanceId,
    at: Timestamp,
}

impl Boot {
    #[must_use]
    pub fn options(&self) -> &LaunchOptions {
        &self.options
    }

    #[must_use]
    pub fn instance(&self) -> Option<&InstanceId> {
        self.launched.as_ref().map(|launched| &launched.instance)
    }
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

/// When a process leaves a boot test alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Done,
    /// After one look: the instance is left to whoever has the token.
    OneLook,
}

/// The boot test of one image.
#[derive(Clone, Copy, Debug)]
pub struct BootStage<'a> {
    pub cloud: &'a Cloud,
    pub image: &'a Image,
    pub spec: &'a BootSpec,
    pub reporter: &'a Reporter,
}

impl BootStage<'_> {
    /// Plans a boot. Nothing is launched before the first look: whoever keeps this token before it finds the same
    /// instance again, even where the launch's answer was lost.
    ///
    /// # Errors
    /// [`AcceptanceError`]: the checks or the options do not fit.
    pub fn begin(
        &self,
        options: LaunchOptions,
        cloud_init: bool,
    ) -> Result<(Boot, StageToken), AcceptanceError> {
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let begun = clock::whole_seconds(clock::wall());
        let boot = Boot { nonce, begun, options, cloud_init, launched: None, console: Vec::new() };
        self.user_data(&boot)?;
        let token = self.token(&boot).map_err(|source| AcceptanceError::Token { left: None, source })?;
        Ok((boot, token))
    }

    /// The boot that a token is of.
    ///
    /// # Errors
    /// [`TokenError`]: it is none, or not this image's.
    pub fn resume(&self, token: &StageToken) -> Result<Boot, TokenError> {
        let claims: Claims<Boot> = token.claims(STAGE)?;
        claims.must_be_of(&self.spec.bake, &self.image_ref())?;
        let mut boot = claims.needs;
        if boot.launched.is_none() && clock::wall().duration_since(boot.begun) > LAUNCHING {
            return Err(TokenError::Over { since: boot.begun + LAUNCHING });
        }
        // It becomes a word of the guest's script.
        if boot.nonce.len() != 32 || !boot.nonce.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(TokenError::Damaged("its nonce is none".to_owned()));
        }
        // Clocks of two hosts differ; nothing that is still to come has happened.
        let now = clock::wall();
        boot.begun = boot.begun.min(clock::whole_seconds(now));
        if let Some(launched) = &mut boot.launched {
            launched.at = launched.at.min(now);
        }
        Ok(boot)
    }

    /// Looks, until the test is done or once, and tells of every wait. When the test is done, or cannot go on, or a stop
    /// was asked for, the instance is ended. A boot that fails or takes too long is a report, not an error.
    ///
    /// # Errors
    /// [`AcceptanceError`]: the cloud did not launch the instance or does not answer, the instance is not this test's,
    /// or a stop was asked for. Where the instance could not be ended, the error says so.
    pub async fn go_on(
        &self,
        boot: &mut Boot,
        until: Until,
        stop: &Stop,
        mut tell: impl FnMut(&Wait),
    ) -> Result<Answer<BootReport>, AcceptanceError> {
        let done = match until {
            _ if stop.is_requested() => Ok(None),
            Until::Done => until_done(stop, async || self.look(boot).await, &mut tell)
                .await
                .map(|done| done.map(Answer::Done)),
            Until::OneLook => self.look(boot).await.map(Some),
        };
        match done {
            Ok(Some(Answer::Done(mut report))) => {
                report.leftover = self.end(boot).await;
                Ok(Answer::Done(report))
            }
            Ok(Some(Answer::Wait(wait))) => {
                tell(&wait);
                Ok(Answer::Wait(wait))
            }
            Ok(None) => Err(AcceptanceError::Stopped { left: self.end(boot).await }),
            Err(Failed::Watch { instance, source }) => {
                let left = self.end(boot).await;
                Err(AcceptanceError::Watch { instance: instance.to_string(), left, source })
            }
            Err(Failed::NotOwn(instance)) => Err(AcceptanceError::NotOwn { instance: instance.to_string() }),
            Err(Failed::Launch(error)) => Err(error),
            Err(Failed::Token(source)) => Err(AcceptanceError::Token { left: self.end(boot).await, source }),
        }
    }

    /// Ends the instance of a boot, if there is one and it is this test's; says why where it could not be ended.
    pub async fn end(&self, boot: &Boot) -> Option<String> {
        let launched = boot.launched.as_ref()?;
        let id = &launched.instance;
        if let Err(Failed::NotOwn(_)) = self.life(launched).await {
            return None;
        }
        // Also after a stop: an instance costs money.
        let ended = retrying(&Stop::never(), || async {
            match self.cloud.instances.terminate(id).await {
                Err(error) if error.kind == ErrorKind::NotFound && launched.is_new() => {
                    Err(CloudError { kind: ErrorKind::NotYet, ..error })
                }
                Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
                other => other,
            }
        })
        .await;
        let error = ended.err()?;
        let leftover = format!("{id} could not be ended: {error}");
        self.reporter.warning(leftover.as_str());
        Some(leftover)
    }

    async fn look(&self, boot: &mut Boot) -> Result<Answer<BootReport>, Failed> {
        let Some(launched) = boot.launched.clone() else {
            let instance = self.launch(boot).await.map_err(Failed::Launch)?;
            let within = self.spec.within().as_secs();
            self.reporter.note(format!("{instance} is booting; the test takes at most {within} s"));
            // From here: the local cloud first writes the whole disk.
            boot.launched = Some(Launched { instance, at: clock::wall() });
            return self.wait(boot);
        };
        // The state before the console: whatever it wrote before it ended is seen.
        let life = self.life(&launched).await?;
        let console = passing(self.cloud.instances.console(&launched.instance).await);
        if let Some(newest) = console.map_err(|source| launched.unwatched(source))? {
            boot.console = newest;
        }
        let judge = Judge {
            nonce: boot.cloud_init.then_some(boot.nonce.as_str()),
            pattern: self.spec.boot.console.as_deref(),
            deadline: self.deadline(boot, &launched),
        };
        let now = clock::wall();
        match judge.end(life, &boot.console, now) {
            Some(end) => Ok(Answer::Done(self.report(&launched, boot, &judge, &end, now))),
            None => self.wait(boot),
        }
    }

    async fn launch(&self, boot: &Boot) -> Result<InstanceId, AcceptanceError> {
        let mut tags = self.spec.tags.clone();
        tags.insert("bakehouse:expires".to_owned(), self.expires(boot).to_string());
        let new = NewInstance {
            image: self.image.id.clone(),
            kind: boot.options.kind.clone(),
            user_data: self.user_data(boot)?,
            boot_mode: boot.options.boot_mode,
            root_size: boot.options.root_size,
            lifetime_seconds: self.lifetime(),
            tags,
        };
        let token = Token::of(&boot.nonce, &format!("boot {}", self.image.id), 1);
        self.cloud
            .instances
            .launch(&new, &token)
            .await
            .map_err(|source| AcceptanceError::Launch { image: self.image.id.to_string(), source })
    }

    /// # Errors
    /// Where the instance is not this test's, whatever the token says; what the cloud does not answer for good.
    async fn life(&self, launched: &Launched) -> Result<Life, Failed> {
        let found = match self.cloud.instances.describe(&launched.instance).await {
            Err(error) if error.kind == ErrorKind::NotFound && !launched.is_new() => {
                return Ok(Life::Ended("the cloud knows it no longer".to_owned()));
            }
            other => passing(other).map_err(|source| launched.unwatched(source))?,
        };
        let Some(found) = found else { return Ok(Life::On) };
        let tagged = self.spec.tags.iter().all(|(key, value)| found.tags.get(key) == Some(value));
        if found.image != self.image.id || !tagged {
            return Err(Failed::NotOwn(launched.instance.clone()));
        }
        Ok(Life::of(found.state, found.reason))
    }

    fn report(
        &self,
        launched: &Launched,
        boot: &Boot,
        judge: &Judge<'_>,
        end: &End,
        now: Timestamp,
    ) -> BootReport {
        let seconds = now.duration_since(launched.at).as_secs_f64();
        let stage = judge.stage(end, &boot.console);
        let asked =
            Asked { checks: &self.spec.checks, cloud_init: boot.cloud_init, within: self.spec.within() };
        BootReport {
            outcomes: judge::outcomes(asked, end, stage.as_ref(), seconds),
            stage,
            console: judge::tail(&boot.console),
            instance: launched.instance.clone(),
            seconds,
            leftover: None,
        }
    }

    fn user_data(&self, boot: &Boot) -> Result<Vec<u8>, ScriptError> {
        if !boot.cloud_init {
            return Ok(Vec::new());
        }
        let within = self.spec.within();
        Script {
            checks: &self.spec.checks,
            nonce: &boot.nonce,
            deadline: within.saturating_sub(REPORTING.min(within / 4)).as_secs(),
            console: None,
        }
        .user_data()
    }

    fn wait(&self, boot: &Boot) -> Result<Answer<BootReport>, Failed> {
        let (mut after, mut percent) = (EVERY, 0);
        if let Some(launched) = &boot.launched {
            let now = clock::wall();
            let left = self.deadline(boot, launched).duration_since(now).max(SignedDuration::ZERO);
            // Not long beyond the deadline, and never without a pause.
            after = EVERY.min(left.unsigned_abs() + EVERY / 10);
            let passed = now.duration_since(launched.at).as_secs().max(0).unsigned_abs();
            percent = passed.saturating_mul(100) / self.spec.within().as_secs().max(1);
        }
        let percent = u8::try_from(percent).unwrap_or(99).min(99);
        let token = self.token(boot).map_err(Failed::Token)?;
        Ok(Answer::Wait(Wait { token, after, percent }))
    }

    fn token(&self, boot: &Boot) -> Result<StageToken, TokenError> {
        StageToken::of(&Claims {
            stage: STAGE.to_owned(),
            bake: self.spec.bake.clone(),
            image: self.image_ref(),
            needs: boot,
        })
    }

    fn image_ref(&self) -> ImageRef {
        ImageRef { place: self.cloud.place.clone(), id: self.image.id.clone() }
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.spec.within().as_secs()).unwrap_or(u32::MAX).saturating_add(SPARE)
    }

    /// After this the instance may be swept. It ends by itself before, unless its launch took longer than any does.
    fn expires(&self, boot: &Boot) -> Timestamp {
        boot.begun + LAUNCHING + SignedDuration::from_secs(i64::from(self.lifetime()))
    }

    /// Never so late that the instance may be swept before it is judged.
    fn deadline(&self, boot: &Boot, launched: &Launched) -> Timestamp {
        let within = SignedDuration::try_from(self.spec.within()).unwrap_or(SignedDuration::MAX);
        let latest = self.expires(boot) - SignedDuration::from_secs(i64::from(SPARE));
        launched.at.saturating_add(within).unwrap_or(latest).min(latest)
    }
}

impl Launched {
    fn is_new(&self) -> bool {
        clock::wall().duration_since(self.at) < NEW
    }

    fn unwatched(&self, source: CloudError) -> Failed {
        Failed::Watch { instance: self.instance.clone(), source }
    }
}

/// Why a look came to nothing.
enum Failed {
    Launch(AcceptanceError),
    NotOwn(InstanceId),
    Token(TokenError),
    Watch { instance: InstanceId, source: CloudError },
}

/// What was answered; `None` where it may be answered next time: a new instance is unknown to a part of EC2 for some
/// seconds.
fn passing<T>(answer: Result<T, CloudError>) -> Result<Option<T>, CloudError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error)
            if matches!(
                error.kind,
                ErrorKind::NotFound | ErrorKind::NotYet | ErrorKind::Throttled | ErrorKind::Transient
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum AcceptanceError {
    #[error(transparent)]
    Script(#[from] ScriptError),
    #[error("the options of the test do not fit into its token{}", left.as_ref().map(|left| format!("; {left}")).unwrap_or_default())]
    Token { left: Option<String>, source: TokenError },
    #[error("cannot launch {image} to test it")]
    Launch { image: String, source: CloudError },
    #[error(
        "{instance} is not an instance of this test; the token was changed, or is of another cloud: begin anew"
    )]
    NotOwn { instance: String },
    #[error("cannot watch {instance}{}", left.as_ref().map(|left| format!("; {left}")).unwrap_or_default())]
    Watch { instance: String, left: Option<String>, source: CloudError },
    #[error("the boot test was stopped{}", left.as_ref().map(|left| format!("; {left}")).unwrap_or_default())]
    Stopped { left: Option<String> },
}

impl AcceptanceError {
    /// Whether the boot can be gone on with by the same token: its launch may have come to pass and the answer was
    /// lost, or its instance still runs.
    #[must_use]
    pub fn may_go_on(&self) -> bool {
        match self {
            Self::Launch { source, .. } => {
                matches!(source.kind, ErrorKind::Transient | ErrorKind::Throttled | ErrorKind::Unknown)
            }
            Self::NotOwn { .. } => true,
            Self::Script(_) | Self::Token { .. } | Self::Watch { .. } | Self::Stopped { .. } => {
                self.left().is_some()
            }
        }
    }

    /// The instance that could not be ended, and why.
    #[must_use]
    pub fn left(&self) -> Option<&str> {
        match self {
            Self::Token { left, .. } | Self::Watch { left, .. } | Self::Stopped { left } => left.as_deref(),
            Self::Script(_) | Self::Launch { .. } | Self::NotOwn { .. } => None,
        }
    }
}
