//! Events as lines for a person, on standard error. Progress is redrawn in place on a terminal and left out elsewhere.

use std::io::{IsTerminal, Write};

use super::{Event, Sink};

/// How much is shown.
#[derive(Debug)]
pub struct Terminal {
    /// Only warnings.
    quiet: bool,
    tty: bool,
    /// A progress line stands on the last row.
    drawn: bool,
}

impl Terminal {
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        Self { quiet, tty: std::io::stderr().is_terminal(), drawn: false }
    }

    fn line(&mut self, text: &str) {
        let mut err = std::io::stderr().lock();
        // Standard error may be closed: then there is nobody to tell.
        if self.drawn {
            let _ = write!(err, "\r\x1b[K");
            self.drawn = false;
        }
        let _ = writeln!(err, "{text}");
    }

    fn bar(&mut self, text: &str) {
        if self.tty {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r\x1b[K{text}");
            let _ = err.flush();
            self.drawn = true;
        }
    }
}

impl Sink for Terminal {
    fn take(&mut self, event: &Event) {
        if let Event::Warning { text } = event {
            self.line(&format!("warning: {text}"));
        }
        if self.quiet {
            return;
        }
        match event {
            Event::Phase { name } => self.line(&format!("==> {name}")),
            Event::PhaseDone { name, seconds } => self.line(&format!("    {name}: {seconds:.1} s")),
            Event::Step { number, of, name } => self.line(&format!("==> step {number}/{of}: {name}")),
            Event::StepDone { number, seconds, .. } => {
                self.line(&format!("    step {number}: {seconds:.1} s"));
            }
            Event::Line { step, text } => self.line(&format!("    {step} | {text}")),
            Event::Note { text } => self.line(&format!("    {text}")),
            Event::Progress { name, done, total } => {
                let percent = (done * 100).checked_div(*total).unwrap_or(100);
                self.bar(&format!("    {name}: {percent} % ({done} of {total})"));
            }
            Event::Waiting { stage, percent, .. } => {
                self.bar(&format!("    {stage}: {percent} % of its time"));
            }
            Event::Warning { .. } => {}
        }
    }
}
