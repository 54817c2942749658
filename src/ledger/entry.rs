//! One thing of the ledger: what was going to be created, and what became of it. [`next`] is the only place that says
//! which event may follow which state.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Id, Kind};
use crate::cloud::{Place, Tags, tag};

/// What is going to be created: written before the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Intent {
    pub kind: Kind,
    pub place: Place,
    /// What it is for: `root snapshot`; of an image its name.
    pub what: String,
    /// The call's idempotency token, where it has one.
    pub token: Option<String>,
    /// The call's tags. By `bakehouse:bake`, `bakehouse:stage` and, where it has one, `bakehouse:run` it is found
    /// again where the answer was lost.
    pub tags: Tags,
    /// What becomes of it when the work fails.
    pub role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It is undone.
    Temporary,
    /// Its creation is the commit: it, and all that was created before, is the user's from then on.
    Commit,
    /// It is undone until all is committed ([`Ledger::commit`](super::Ledger::commit)), and then is the image that the
    /// work was for: one that is not finished when its creation was answered.
    Result,
    /// Others may use it already: it stays.
    Shared,
}

impl Intent {
    /// Whether a commit makes it the user's. What only served to make an image never is.
    #[must_use]
    pub fn is_for_the_user(&self) -> bool {
        self.role != Role::Shared && matches!(self.kind, Kind::Image | Kind::Snapshot | Kind::VpcPart(_))
    }

    /// Whether it stands for several: snapshots that another call makes ([`Ledger::announce`](super::Ledger::announce)), one
    /// of each volume. One that a call of its own makes has a token.
    #[must_use]
    pub fn may_be_several(&self) -> bool {
        self.kind == Kind::Snapshot && self.token.is_none()
    }

    /// The tags by which it is found in its place.
    #[must_use]
    pub fn own_tags(&self) -> Tags {
        // A stage that can run often for one bake, at the same time even, tells its runs apart.
        let own = [tag("bake"), tag("stage"), tag("run")];
        self.tags.iter().filter(|(key, _)| own.contains(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
    }
}

/// What is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The call was about to be made: whether it took effect is not known.
    Intended,
    Created,
    /// The user's from now on.
    Committed,
    /// A waiting stage goes on with it by its token, until a time.
    Handed,
    /// It is gone, or never was.
    Undone,
    /// It could not be undone, or nobody could tell.
    Stuck,
}

impl State {
    /// Whether nothing is to be done for it any more.
    #[must_use]
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Committed | Self::Undone)
    }
}

/// What happened to it, as the log has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    Created { id: Id },
    Committed,
    Handed { until: Timestamp },
    Undone,
    Stuck { why: String },
}

/// The state after an event; `None` where it may not happen.
#[must_use]
pub fn next(state: State, event: &Event) -> Option<State> {
    match (state, event) {
        // Found by its tags when an earlier look failed: from `Stuck` too.
        (State::Intended | State::Stuck, Event::Created { .. }) => Some(State::Created),
        (State::Created | State::Handed | State::Stuck, Event::Committed) => Some(State::Committed),
        (State::Created | State::Handed, Event::Handed { .. }) => Some(State::Handed),
        (State::Intended | State::Created | State::Handed | State::Stuck, Event::Undone) => {
            Some(State::Undone)
        }
        (State::Intended | State::Created | State::Handed | State::Stuck, Event::Stuck { .. }) => {
            Some(State::Stuck)
        }
        (State::Created | State::Handed | State::Committed | State::Undone, Event::Created { .. })
        | (State::Intended | State::Stuck, Event::Handed { .. })
        | (State::Intended, Event::Committed)
        | (
            State::Committed | State::Undone,
            Event::Committed | Event::Handed { .. } | Event::Undone | Event::Stuck { .. },
        ) => None,
    }
}

/// One thing with what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub intent: Intent,
    pub state: State,
    pub id: Option<Id>,
    /// Until when it is another process's, where it was handed on.
    pub until: Option<Timestamp>,
}

impl Entry {
    #[must_use]
    pub fn new(intent: Intent) -> Self {
        Self { intent, state: State::Intended, id: None, until: None }
    }

    /// Its id and place; where the id is not known, what it was to be.
    #[must_use]
    pub fn named(&self) -> String {
        let Intent { place, what, .. } = &self.intent;
        match &self.id {
            Some(id) => format!("{id} in {place}"),
            None => format!("`{what}` in {place}"),
        }
    }

    /// Takes an event in; `false` where it may not happen.
    #[must_use]
    pub fn take(&mut self, event: &Event) -> bool {
        let Some(state) = next(self.state, event) else { return false };
        match event {
            Event::Created { id } if id.kind() != self.intent.kind => return false,
            Event::Created { id } => self.id = Some(id.clone()),
            Event::Handed { until } => self.until = Some(*until),
            Event::Committed | Event::Undone | Event::Stuck { .. } => {}
        }
        self.state = state;
        true
    }

    /// Whether nothing is to be done for it any more.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.state.is_settled() || (self.intent.role == Role::Shared && self.state != State::Intended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::SnapshotId;

    #[test]
    fn what_may_follow_what() {
        use State::{Committed, Created, Handed, Intended, Stuck, Undone};
        let id = Id::from(SnapshotId::parse("snap-01234567").unwrap());
        let events = [
            Event::Created { id },
            Event::Committed,
            Event::Handed { until: Timestamp::UNIX_EPOCH },
            Event::Undone,
            Event::Stuck { why: String::new() },
        ];
        let table = [
            (Intended, [Some(Created), None, None, Some(Undone), Some(Stuck)]),
            (Created, [None, Some(Committed), Some(Handed), Some(Undone), Some(Stuck)]),
            (Handed, [None, Some(Committed), Some(Handed), Some(Undone), Some(Stuck)]),
            (Stuck, [Some(Created), Some(Committed), None, Some(Undone), Some(Stuck)]),
            // What is the user's, and what is gone, stays so.
            (Committed, [None; 5]),
            (Undone, [None; 5]),
        ];
        for (state, expected) in table {
            for (event, expected) in events.iter().zip(expected) {
                assert_eq!(next(state, event), expected, "{state:?} {event:?}");
            }
        }
    }
}
