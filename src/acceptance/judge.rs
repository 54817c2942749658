//! What one look at a booting instance says: that it came to an end, and which, or that it is too early to tell; and
//! the outcomes that an end makes. Pure: what was seen and the time come in.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::console::{self, Stage};
use super::frame::{self, Answer, Verdict};
use super::outcome::{Outcome, Status};
use crate::cloud::InstanceState;
use crate::recipe::Check;

/// What is added for a guest that began with the checks: an instance of EC2 is launched some 15 s before its kernel
/// starts, and its console is as much behind.
const GRACE: SignedDuration = SignedDuration::from_secs(30);
/// Lines and bytes of the console's end that a report holds.
const TAIL: (usize, usize) = (60, 8 * 1024);

/// How a boot ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Answered(Answer),
    /// What an image without cloud-init was to show.
    Seen,
    /// The instance is no longer there; the cloud's words.
    Gone(String),
    OutOfTime,
}

/// What is known of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It lives, or nothing is known of it yet.
    On,
    /// Ended, and why.
    Ended(String),
}

impl Life {
    pub(super) fn of(state: InstanceState, reason: Option<String>) -> Self {
        match state {
            InstanceState::Pending | InstanceState::Running => Self::On,
            InstanceState::Stopping
            | InstanceState::Stopped
            | InstanceState::ShuttingDown
            | InstanceState::Terminated => {
                Self::Ended(reason.unwrap_or_else(|| "no reason is known".to_owned()))
            }
        }
    }
}

/// What is asked of a boot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judge<'a> {
    /// `None`: nobody answers there.
    pub nonce: Option<&'a str>,
    /// For an image that does not answer: what is to be on its console.
    pub pattern: Option<&'a str>,
    pub deadline: Timestamp,
}

impl Judge<'_> {
    /// The end, where there is one at this time.
    pub(super) fn end(&self, life: Life, text: &[u8], now: Timestamp) -> Option<End> {
        if let Some(told) = self.told(text) {
            return Some(told);
        }
        if let Life::Ended(reason) = life {
            return Some(End::Gone(reason));
        }
        // A guest that began counts its own time, which began later: its answer is on the way.
        let late = if self.has_started(text) { GRACE } else { SignedDuration::ZERO };
        (now.duration_since(self.deadline) >= late).then_some(End::OutOfTime)
    }

    fn told(&self, text: &[u8]) -> Option<End> {
        match (self.nonce, self.pattern) {
            (Some(nonce), _) => frame::find_answer(text, nonce).map(End::Answered),
            (None, Some(pattern)) => console::plain(text).contains(pattern).then_some(End::Seen),
            (None, None) => console::has_login_prompt(text).then_some(End::Seen),
        }
    }

    fn has_started(&self, text: &[u8]) -> bool {
        self.nonce.is_some_and(|nonce| frame::has_started(text, nonce))
    }

    /// How far a boot came that did not come to an answer.
    pub(super) fn stage(&self, end: &End, text: &[u8]) -> Option<Stage> {
        match end {
            End::Answered(_) | End::Seen => None,
            End::Gone(_) | End::OutOfTime if self.has_started(text) => Some(Stage::Checks),
            End::Gone(_) | End::OutOfTime => Some(console::stage(text)),
        }
    }
}

/// The console's end without the test's own lines, which say nothing to a person.
pub(super) fn tail(text: &[u8]) -> String {
    let text = console::plain(text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains(frame::MAGIC)).collect();
    console::tail(lines.join("\n").as_bytes(), TAIL.0, TAIL.1)
}

/// What was to be found out, for [`outcomes`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub checks: &'a [Check],
    pub cloud_init: bool,
    pub within: Duration,
}

/// The boot's outcome, then one for each check.
pub(super) fn outcomes(asked: Asked<'_>, end: &End, stage: Option<&Stage>, seconds: f64) -> Vec<Outcome> {
    let far = stage.map_or_else(String::new, |stage| format!("; {stage}"));
    let boot = match end {
        End::Answered(_) | End::Seen => Status::Passed,
        End::Gone(reason) => Status::Failed(format!("the instance ended before it answered ({reason}){far}")),
        End::OutOfTime => Status::Failed(format!("no answer within {} s{far}", asked.within.as_secs())),
    };
    let mut outcomes =
        vec![Outcome { name: "boot".to_owned(), kind: "boot".to_owned(), status: boot, seconds }];
    let answer = match end {
        End::Answered(answer) => Some(answer),
        _ => None,
    };
    let why_not = if asked.cloud_init {
        "the image did not come so far"
    } else {
        "the image has no cloud-init to run it"
    };
    outcomes.extend(asked.checks.iter().enumerate().map(|(at, check)| {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_by_the_answer_then_by_the_instance_then_by_the_clock() {
        let deadline: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let early = deadline - SignedDuration::from_secs(1);
        let late = deadline + GRACE;
        let judge = |nonce, pattern| Judge { nonce, pattern, deadline };
        let gone = || Life::Ended("a reason".into());
        let ended = || Some(End::Gone("a reason".into()));
        let begun = frame::started("n");
        let prompt = "web login: ";
        let cases = [
            (judge(Some("n"), None), Life::On, "", early, None),
            (judge(Some("n"), None), Life::On, "", deadline, Some(End::OutOfTime)),
            // A guest that began has more time, and not for ever.
            (judge(Some("n"), None), Life::On, begun.as_str(), deadline, None),
            (judge(Some("n"), None), Life::On, begun.as_str(), late, Some(End::OutOfTime)),
            (judge(Some("other"), None), Life::On, begun.as_str(), deadline, Some(End::OutOfTime)),
            (judge(Some("n"), None), gone(), "", early, ended()),
            (judge(Some("n"), None), gone(), begun.as_str(), late, ended()),
            // Where it should answer, a prompt says nothing.
            (judge(Some("n"), None), Life::On, prompt, early, None),
            // What it wrote before it ended, or before the time was over, counts.
            (judge(None, None), gone(), prompt, early, Some(End::Seen)),
            (judge(None, None), Life::On, prompt, late, Some(End::Seen)),
            (judge(None, Some("ready")), Life::On, prompt, early, None),
            (judge(None, Some("ready")), Life::On, "\x1b[1mready\x1b[0m", late, Some(End::Seen)),
        ];
        for (judge, life, text, now, expected) in cases {
            let found = judge.end(life.clone(), text.as_bytes(), now);
            assert_eq!(found, expected, "{judge:?} {life:?} {text:?} {now}");
        }
    }

    #[test]
    fn an_instance_that_is_neither_coming_nor_there_has_ended() {
        assert_eq!(Life::of(InstanceState::Pending, None), Life::On);
        assert_eq!(Life::of(InstanceState::Running, Some("x".into())), Life::On);
        assert_eq!(Life::of(InstanceState::Stopped, Some("x".into())), Life::Ended("x".into()));
        assert_eq!(Life::of(InstanceState::Terminated, None), Life::Ended("no reason is known".into()));
    }
}
