//! Faults on purpose, for tests: `BAKEHOUSE_FAULT` strikes one call of the cloud, or one boundary of the work. Whoever
//! sets it is told so, on standard error, with every call and boundary as it comes.
//!
//! ```text
//! list                              strikes nothing
//! call:N:before|after:WHAT          the N-th mutating call, or, as OPERATION#N, that of one operation;
//!                                   WHAT: transient, throttled, denied, quota, kill, stop, panic
//! call:N:before|after:WHAT:lasting  that one and all after it
//! boundary:N:kill|stop|panic        where the N-th phase or step begins or ends
//! ```

use std::io::Write;
use std::str::FromStr;
use std::sync::Arc;

use crate::cloud::Clouds;
use crate::cloud::faulty::{Fault, Faults, Strike};
use crate::report::{Event, Reporter, Sink};

/// What `BAKEHOUSE_FAULT` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Injected {
    List,
    Call(Fault),
    Boundary { number: u64, strike: Strike },
}

impl FromStr for Injected {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "list" {
            return Ok(Self::List);
        }
        if let Some(fault) = text.strip_prefix("call:") {
            return Ok(Self::Call(fault.parse()?));
        }
        let wrong =
            || format!("`{text}` is none of list, call:N:before|after:WHAT and boundary:N:kill|stop|panic");
        let (number, strike) =
            text.strip_prefix("boundary:").and_then(|rest| rest.split_once(':')).ok_or_else(wrong)?;
        let strike: Strike = strike.parse()?;
        if matches!(strike, Strike::Fail(_)) {
            return Err(wrong());
        }
        Ok(Self::Boundary { number: number.parse().map_err(|_| wrong())?, strike })
    }
}

impl Injected {
    /// Says loudly that faults are injected, and begins with it.
    #[must_use]
    pub fn begin(self, clouds: Arc<dyn Clouds>, reporter: &Reporter) -> Arc<dyn Clouds> {
        tell("BAKEHOUSE_FAULT is set: this run fails on purpose; unset it for any real work");
        let (fault, struck) = match self {
            Self::List => (None, None),
            Self::Call(fault) => (Some(fault), None),
            Self::Boundary { number, strike } => (None, Some((number, strike))),
        };
        reporter.add_sink(Box::new(Boundaries { count: 0, struck }));
        Faults::new(fault, Box::new(tell)).clouds(clouds)
    }
}

/// Counts where phases and steps begin and end. Events are given synchronously: what is struck is struck there.
struct Boundaries {
    count: u64,
    struck: Option<(u64, Strike)>,
}

impl Sink for Boundaries {
    fn take(&mut self, event: &Event) {
        let (what, name) = match event {
            Event::Phase { name } => ("begin", name),
            Event::PhaseDone { name, .. } => ("end", name),
            Event::Step { name, .. } => ("begin step", name),
            Event::StepDone { name, .. } => ("end step", name),
            Event::Line { .. }
            | Event::Progress { .. }
            | Event::Note { .. }
            | Event::Warning { .. }
            | Event::Waiting { .. } => return,
        };
        self.count += 1;
        tell(&format!("boundary {} {what} {name}", self.count));
        if let Some((number, strike)) = self.struck
            && number == self.count
        {
            strike.process();
        }
    }
}

fn tell(text: &str) {
    // Whoever injects faults reads standard error, or does not want to know.
    let _ = writeln!(std::io::stderr().lock(), "fault: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_struck_is_a_call_or_a_boundary() {
        assert_eq!("list".parse(), Ok(Injected::List));
        assert_eq!("boundary:3:stop".parse(), Ok(Injected::Boundary { number: 3, strike: Strike::Stop }));
        assert!(matches!("call:3:after:quota".parse(), Ok(Injected::Call(Fault { call: 3, .. }))));
        for wrong in ["", "call", "call:3", "boundary:x:kill", "boundary:3", "boundary:3:denied"] {
            wrong.parse::<Injected>().unwrap_err();
        }
    }
}
