//! `shell`: a script run in the root.

use async_trait::async_trait;

use super::attempt::Attempt;
use super::secrets::{self, Secrets};
use super::{Runs, StepError};
use crate::provision::root::{RootCommand, RootError};
use crate::recipe::Shell;

/// In memory: /run is a tmpfs while steps run.
const SCRIPT: &str = "/run/bakehouse/script";

#[async_trait]
impl Runs for Shell {
    async fn run(&self, attempt: &Attempt<'_>) -> Result<(), StepError> {
        let mut words: Vec<String> = match &self.interpreter {
            Some(interpreter) => interpreter.split_whitespace().map(str::to_owned).collect(),
            None => vec!["/bin/sh".to_owned(), "-e".to_owned()],
        };
        let root = attempt.root().dir();
        let interpreter = words.first().cloned().unwrap_or_default();
        if !interpreter.starts_with('/') {
            return Err(StepError::recipe("interpreter", &interpreter, "is not an absolute path"));
        }
        if !root.exists(&interpreter) {
            return Err(StepError::recipe(
                "interpreter",
                &interpreter,
                "is not in the root; install it in an earlier step",
            ));
        }
        words.push(SCRIPT.to_owned());
        let secrets = Secrets::lend(attempt, &self.secret_env)?;
        let mut command = RootCommand::new(words);
        if self.aws {
            command.env.extend(secrets::aws(attempt.context()));
        }
        command.env.extend(secrets.variables.clone());
        root.write(SCRIPT, self.run.as_bytes(), 0o700)
            .map_err(|source| RootError::file("write", SCRIPT, source))?;
        let result = attempt.run("the script", command).await;
        root.remove(SCRIPT).map_err(|source| RootError::file("remove", SCRIPT, source))?;
        result
    }
}
