//! The command line: one file per verb. The only place that picks a cloud, reads the environment and ends the process.

use std::process::ExitCode;

#[must_use]
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
