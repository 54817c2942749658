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
    BootMode, Cloud, CloudError, Clouds, ErrorKind, Image, ImageRef, Instance, InstanceId, NewInstance, Tags,
    Token, retrying, tag,
};
use crate::host::clock;
use crate::host::stop::Stop;
use crate::ledger::{CreateError, Intent, Kind, Ledger, LedgerError, Left, Role};
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
    /// The image's. What is launched has it too, so that a policy can tell whose it is.
    pub family: String,
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
    /// Tells this boot's answer, and its instance, from any other's.
    nonce: String,
    instance: InstanceId,
    launched: Timestamp,
    /// After this the instance may be swept.
    expires: Timestamp,
    options: LaunchOptions,
    /// Whether the image runs cloud-init. One that does not cannot be asked anything: only its console is looked at.
    cloud_init: bool,
    /// Whether this process launched it: then the instance is in its ledger.
    #[serde(skip)]
    own: bool,
    /// The newest console: a later look may get none.
    #[serde(skip)]
    console: Vec<u8>,
}

impl Boot {
    #[must_use]
    pub fn options(&self) -> &LaunchOptions {
        &self.options
    }

    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.instance
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
    /// The instance, where it could not be ended. It ends by itself when its life is over.
    pub left: Left,
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
#[derive(Clone, Copy)]
pub struct BootStage<'a> {
    pub clouds: &'a dyn Clouds,
    pub cloud: &'a Cloud,
    pub image: &'a Image,
    pub spec: &'a BootSpec,
    pub ledger: &'a Ledger,
    pub reporter: &'a Reporter,
}

impl BootStage<'_> {
    /// Launches an instance. Until its token is told, the ledger alone knows it.
    ///
    /// # Errors
    /// [`AcceptanceError`]: the checks or the options do not fit, or the cloud does not launch it. Nothing of it is left,
    /// or the error says what.
    pub async fn begin(
        &self,
        options: LaunchOptions,
        cloud_init: bool,
        stop: &Stop,
    ) -> Result<Boot, AcceptanceError> {
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let within = self.spec.within();
        let user_data = if cloud_init { self.user_data(&nonce)? } else { Vec::new() };
        let lifetime_seconds = u32::try_from(within.as_secs()).unwrap_or(u32::MAX).saturating_add(SPARE);
        let lifetime = SignedDuration::from_secs(i64::from(lifetime_seconds));
        let expires = clock::whole_seconds(clock::wall() + LAUNCHING + lifetime);
        let new = NewInstance {
            image: self.image.id.clone(),
            kind: options.kind.clone(),
            user_data,
            boot_mode: options.boot_mode,
            root_size: options.root_size,
            lifetime_seconds,
            build: None,
            tags: self.tags(&nonce, expires),
        };
        if stop.is_requested() {
            return Err(AcceptanceError::Stopped { left: Left::Nothing });
        }
        let token = Token::of(&nonce, "boot", 1);
        let intent = self.intent(&nonce, expires, Some(token.as_str().to_owned()));
        // A launch is not given up half-way: a stop is seen by the first look.
        let launched =
            self.ledger.create(intent, &Stop::never(), || self.cloud.instances.launch(&new, &token)).await;
        let instance = match launched {
            Ok(instance) => instance,
            Err(source) => {
                let (image, left) = (self.image.id.to_string(), self.unwind().await);
                return Err(AcceptanceError::Launch { image, left, source });
            }
        };
        self.reporter.note(format!("{instance} is booting; the test takes at most {} s", within.as_secs()));
        // From here: the local cloud first writes the whole disk.
        let launched = clock::wall();
        Ok(Boot { nonce, instance, launched, expires, options, cloud_init, own: true, console: Vec::new() })
    }

    /// The boot that a token is of.
    ///
    /// # Errors
    /// [`TokenError`]: it is none, or not this image's.
    pub fn resume(&self, token: &StageToken) -> Result<Boot, TokenError> {
        let claims: Claims<Boot> = token.claims(STAGE)?;
        claims.must_be_of(&self.spec.bake, &self.image_ref())?;
        let mut boot = claims.needs;
        // Clocks of two hosts differ; nothing that is still to come has happened, nor is anything so long ago.
        let now = clock::wall();
        boot.launched = boot.launched.clamp(Timestamp::UNIX_EPOCH, now);
        boot.expires = boot.expires.max(Timestamp::UNIX_EPOCH);
        Ok(boot)
    }

    /// Looks, until the test is done or once, and tells of every wait: first of the token, before any look. When the test
    /// is done, or cannot go on, or a stop was asked for, the instance is ended. A boot that fails or takes too long is a
    /// report, not an error.
    ///
    /// # Errors
    /// [`AcceptanceError`]: the cloud does not answer, the instance is not this test's, or a stop was asked for. Where
    /// the instance could not be ended, the error says so.
    pub async fn go_on(
        &self,
        boot: &mut Boot,
        until: Until,
        stop: &Stop,
        mut tell: impl FnMut(&Wait),
    ) -> Result<Answer<BootReport>, AcceptanceError> {
        let looked = match self.announce(boot, &mut tell) {
            Err(failed) => Err(failed),
            Ok(()) if stop.is_requested() => Ok(None),
            Ok(()) => match until {
                Until::Done => until_done(stop, async || self.look(boot).await, &mut tell)
                    .await
                    .map(|done| done.map(Answer::Done)),
                Until::OneLook => self.look(boot).await.map(Some),
            },
        };
        let failed = match looked {
            Ok(Some(Answer::Wait(wait))) => {
                tell(&wait);
                return Ok(Answer::Wait(wait));
            }
            Ok(Some(Answer::Done(mut report))) => {
                report.left = self.end(boot).await;
                return Ok(Answer::Done(report));
            }
            Ok(None) => None,
            Err(failed) => Some(failed),
        };
        let (instance, left) = (boot.instance.to_string(), self.end(boot).await);
        Err(match failed {
            None | Some(Failed::Unknown) => AcceptanceError::Stopped { left },
            Some(Failed::NotOwn) => AcceptanceError::NotOwn { instance },
            Some(Failed::Token(source)) => AcceptanceError::Token { left, source },
            Some(Failed::Ledger(source)) => AcceptanceError::Ledger { left, source },
            Some(Failed::Watch(source)) => AcceptanceError::Watch { instance, left, source },
        })
    }

    /// Ends the instance of a boot, if it is this test's, and gives what is left of it.
    pub async fn end(&self, boot: &Boot) -> Left {
        if !boot.own {
            let described = retrying(&Stop::never(), || self.cloud.instances.describe(&boot.instance)).await;
            let adopted = match self.life(boot, described) {
                Ok(Some(Life::Ended(_))) | Err(Failed::NotOwn) => return Left::Nothing,
                Ok(Some(Life::On)) => {
                    let intent = self.intent(&boot.nonce, boot.expires, None);
                    self.ledger.adopt(intent, boot.instance.clone()).map_err(Failed::Ledger)
                }
                Ok(None) => Err(Failed::Unknown),
                Err(failed) => Err(failed),
            };
            if let Err(failed) = adopted {
                let mut left = Left::Nothing;
                left.add_unseen(format!("instance {}: {failed}", boot.instance));
                return left;
            }
        }
        self.unwind().await
    }

    /// Whatever the token that it was handed to says: it is over.
    async fn unwind(&self) -> Left {
        let mut left = Left::Nothing;
        for undo in self.ledger.unwind(self.clouds, Timestamp::MAX).await {
            undo.add_all(&mut left);
        }
        if !left.is_nothing() {
            self.reporter.warning(left.to_string());
        }
        left
    }

    /// Gives the token away, before the first look. The ledger leaves the instance to it first: else a token could be
    /// kept whose instance the next process undoes. Killed in between, the instance ends by itself and is swept.
    fn announce(&self, boot: &Boot, tell: &mut impl FnMut(&Wait)) -> Result<(), Failed> {
        let wait = self.wait(boot)?;
        if boot.own {
            self.ledger.hand(boot.instance.clone(), boot.expires).map_err(Failed::Ledger)?;
        }
        tell(&wait);
        Ok(())
    }

    async fn look(&self, boot: &mut Boot) -> Result<Answer<BootReport>, Failed> {
        // The state before the console: whatever it wrote before it ended is seen.
        let life = self.life(boot, self.cloud.instances.describe(&boot.instance).await)?;
        let console = self.cloud.instances.console(&boot.instance).await;
        if let Some(newest) = passing(console).map_err(Failed::Watch)? {
            boot.console = newest;
        }
        let judge = Judge {
            nonce: boot.cloud_init.then_some(boot.nonce.as_str()),
            pattern: self.spec.boot.console.as_deref(),
            deadline: self.deadline(boot),
        };
        let now = clock::wall();
        match judge.end(life.unwrap_or(Life::On), &boot.console, now) {
            Some(end) => Ok(Answer::Done(self.report(boot, &judge, &end, now))),
            None => self.wait(boot).map(Answer::Wait),
        }
    }

    /// What a description says; `None` where there may be one next time: a new instance is unknown to a part of EC2 for
    /// some seconds.
    ///
    /// # Errors
    /// Where the instance is not this test's, whatever the token says; what the cloud refuses for good.
    fn life(&self, boot: &Boot, described: Result<Instance, CloudError>) -> Result<Option<Life>, Failed> {
        let is_new = clock::wall().duration_since(boot.launched) < NEW;
        let found = match described {
            Err(error) if error.kind == ErrorKind::NotFound && !is_new => {
                return Ok(Some(Life::Ended("the cloud knows it no longer".to_owned())));
            }
            other => passing(other).map_err(Failed::Watch)?,
        };
        let Some(found) = found else { return Ok(None) };
        let tags = self.own_tags(&boot.nonce);
        let tagged = tags.iter().all(|(key, value)| found.tags.get(key) == Some(value));
        if found.image != self.image.id || !tagged {
            return Err(Failed::NotOwn);
        }
        Ok(Some(Life::of(found.state, found.reason)))
    }

    fn report(&self, boot: &Boot, judge: &Judge<'_>, end: &End, now: Timestamp) -> BootReport {
        let seconds = now.duration_since(boot.launched).as_secs_f64();
        let stage = judge.stage(end, &boot.console);
        let asked =
            Asked { checks: &self.spec.checks, cloud_init: boot.cloud_init, within: self.spec.within() };
        BootReport {
            outcomes: judge::outcomes(asked, end, stage.as_ref(), seconds),
            stage,
            console: judge::tail(&boot.console),
            instance: boot.instance.clone(),
            seconds,
            left: Left::Nothing,
        }
    }

    fn user_data(&self, nonce: &str) -> Result<Vec<u8>, ScriptError> {
        let within = self.spec.within();
        let deadline = within.saturating_sub(REPORTING.min(within / 4)).as_secs();
        Script { checks: &self.spec.checks, nonce, deadline, console: None }.user_data()
    }

    fn wait(&self, boot: &Boot) -> Result<Wait, Failed> {
        let now = clock::wall();
        let left = self.deadline(boot).duration_since(now).max(SignedDuration::ZERO);
        let passed = now.duration_since(boot.launched).as_secs().max(0).unsigned_abs();
        let percent = passed.saturating_mul(100) / self.spec.within().as_secs().max(1);
        Ok(Wait {
            token: self.token(boot).map_err(Failed::Token)?,
            // Not long beyond the deadline, and never without a pause.
            after: EVERY.min(left.unsigned_abs() + EVERY / 10),
            percent: u8::try_from(percent).unwrap_or(99).min(99),
        })
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

    /// The tags of the instance of one boot, by which it is known. The nonce is no secret: the guest has it too.
    fn own_tags(&self, nonce: &str) -> Tags {
        Tags::from([
            (tag("bake"), self.spec.bake.clone()),
            (tag("stage"), STAGE.to_owned()),
            (tag("run"), nonce.to_owned()),
        ])
    }

    fn tags(&self, nonce: &str, expires: Timestamp) -> Tags {
        let mut tags = self.own_tags(nonce);
        tags.insert(tag("expires"), expires.to_string());
        tags.insert(tag("family"), self.spec.family.clone());
        tags
    }

    fn intent(&self, nonce: &str, expires: Timestamp, token: Option<String>) -> Intent {
        Intent {
            kind: Kind::Instance,
            place: self.cloud.place.clone(),
            what: format!("boot of {}", self.image.id),
            token,
            tags: self.tags(nonce, expires),
            role: Role::Temporary,
        }
    }

    /// Never so late that the instance may be swept before it is judged.
    fn deadline(&self, boot: &Boot) -> Timestamp {
        let within = SignedDuration::try_from(self.spec.within()).unwrap_or(SignedDuration::MAX);
        let latest = boot.expires - SignedDuration::from_secs(i64::from(SPARE));
        boot.launched.saturating_add(within).unwrap_or(latest).min(latest)
    }
}

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("it is not this test's")]
    NotOwn,
    #[error("the cloud does not say whether it is there")]
    Unknown,
    #[error(transparent)]
    Token(TokenError),
    #[error(transparent)]
    Ledger(LedgerError),
    #[error(transparent)]
    Watch(CloudError),
}

/// What was answered; `None` where it may be answered next time.
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

/// Why there is no verdict, and what is left.
#[derive(Debug, thiserror::Error)]
pub enum AcceptanceError {
    #[error(transparent)]
    Script(#[from] ScriptError),
    #[error("cannot launch {image} to test it")]
    Launch { image: String, left: Left, source: CreateError },
    #[error("the options of the test do not fit into its token")]
    Token { left: Left, source: TokenError },
    #[error("the instance of the test cannot be left to its token")]
    Ledger { left: Left, source: LedgerError },
    #[error(
        "{instance} is not an instance of this test; the token was changed, or is of another cloud: begin anew"
    )]
    NotOwn { instance: String },
    #[error("cannot watch {instance}")]
    Watch { instance: String, left: Left, source: CloudError },
    #[error("the boot test was stopped")]
    Stopped { left: Left },
}

impl AcceptanceError {
    /// What could not be taken away.
    #[must_use]
    pub fn left(&self) -> Left {
        match self {
            Self::Launch { left, .. }
            | Self::Token { left, .. }
            | Self::Ledger { left, .. }
            | Self::Watch { left, .. }
            | Self::Stopped { left } => left.clone(),
            Self::Script(_) | Self::NotOwn { .. } => Left::Nothing,
        }
    }
}
