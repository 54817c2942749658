//! The one shell in which a build's commands run: what one of them sets (variables, functions, the folder), the next one
//! finds. A command that ends the shell (`exit`, or a failure under `set -e`) ends itself alone: the next one gets a new
//! shell, with the folder and the exported variables as they were, and so does one of another user.
//!
//! The shell reads what it is to do from its input; commands read from nowhere. After each it answers with the exit code,
//! its folder and its environment, between lines that nobody else writes.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::host::exec::{Cmd, Dialogue, ExecError, Heard};
use crate::host::namespace;
use crate::host::stop::Stop;

/// Variables that a shell makes for itself.
const OF_A_SHELL: [&str; 4] = ["_", "SHLVL", "PWD", "OLDPWD"];
/// What base64(1) writes: a line has 76 characters.
const CODED_LINE: usize = 76;
/// How long a stopped command has to end: a bake takes away what it made by then, and a cloud may take two minutes to show it.
const TIME_TO_END: Duration = Duration::from_secs(300);

/// What outlives a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) dir: PathBuf,
    /// What is exported.
    pub(super) env: BTreeMap<OsString, OsString>,
}

impl State {
    pub(super) fn new(dir: &Path, env: BTreeMap<OsString, OsString>) -> Self {
        Self { dir: dir.to_owned(), env }
    }

    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        self.env.get(OsStr::new(name)).map(OsString::as_os_str)
    }
}

pub(super) struct Shell {
    /// `bash` or `/bin/sh`.
    program: &'static str,
    state: State,
    /// The shell that runs, and its user where that is another.
    current: Option<(Dialogue, Option<String>)>,
    /// What an answer begins and ends with.
    mark: String,
}

/// What a shell answers.
#[derive(Clone, Copy)]
struct Answer {
    code: i32,
    /// It ends now.
    gone: bool,
}

impl Shell {
    pub(super) fn new(program: &'static str, state: State) -> Self {
        let mark = format!("bakehouse-{}", uuid::Uuid::new_v4().simple());
        Self { program, state, current: None, mark }
    }

    /// As the last command left it.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Exports a variable.
    pub(super) async fn export(&mut self, name: &str, value: &str, stop: &Stop) -> Result<(), ExecError> {
        self.state.env.insert(name.into(), value.into());
        match &mut self.current {
            Some((dialogue, _)) => dialogue.say(&format!("export {name}={}\n", quoted(value)), stop).await,
            None => Ok(()),
        }
    }

    /// Runs a command as `user`, hands on its lines and gives its exit code.
    pub(super) async fn run(
        &mut self,
        command: &str,
        user: Option<&str>,
        stop: &Stop,
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<i32, ShellError> {
        if self.current.as_ref().is_some_and(|(_, other)| other.as_deref() != user) {
            self.close(stop, on_line).await?;
        }
        let mut dialogue = match self.current.take() {
            Some((dialogue, _)) => dialogue,
            None => self.start(user, stop).await?,
        };
        // Redirections of a group are undone behind it, also those that the command makes with `exec`. Each to another
        // descriptor than its own, since one to itself is none. `command` keeps an error of the language from ending the
        // shell.
        let text = format!(
            "{{ command eval {}; }} </dev/null >&2 2>&1\n{{ __bakehouse_answer \"$?\" on; }} 2>/dev/null\n",
            quoted(command)
        );
        let answered = match dialogue.say(&text, stop).await {
            Ok(()) => self.listen(&mut dialogue, stop, on_line).await,
            Err(error) => Err(error),
        };
        match answered {
            Ok(Answer { code, gone: false }) => {
                self.current = Some((dialogue, user.map(str::to_owned)));
                Ok(code)
            }
            Ok(Answer { code, gone: true }) => Ok(code),
            Err(error) => {
                dialogue.end().await;
                Err(error.into())
            }
        }
    }

    /// Ends the shell as the end of its input does, so that what it has to do at its exit is done; then all that it left
    /// running.
    pub(super) async fn close(
        &mut self,
        stop: &Stop,
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), ShellError> {
        let Some((mut dialogue, _)) = self.current.take() else {
            return Ok(());
        };
        dialogue.close();
        let listened = self.listen(&mut dialogue, stop, on_line).await;
        dialogue.end().await;
        listened?;
        Ok(())
    }

    async fn start(&self, user: Option<&str>, stop: &Stop) -> Result<Dialogue, ShellError> {
        let shell = match user {
            None => Cmd::new(self.program).arg("-s"),
            Some(user) => {
                let group = group_of(user, stop).await?;
                Cmd::new("setpriv").args([
                    "--reuid",
                    user,
                    "--regid",
                    &group,
                    "--init-groups",
                    "--",
                    self.program,
                    "-s",
                ])
            }
        };
        let mut shell = shell.clear_env().cwd(&self.state.dir).time_to_end(TIME_TO_END);
        for (name, value) in &self.state.env {
            shell = shell.env(name, value);
        }
        let mut dialogue = shell.talk()?;
        dialogue.say(&self.preamble(), stop).await?;
        Ok(dialogue)
    }

    /// Both streams are one, so that lines come in the order in which they were written.
    fn preamble(&self) -> String {
        format!(
            "exec 2>&1\n\
             __bakehouse_answer() {{\n\
             printf '\\n%s\\n' \"{mark} $1 $2\"\n\
             {{ printf '%s\\0' \"$PWD\"; command -p env -0; }} | command -p base64\n\
             printf '%s\\n' '{mark}'\n\
             }}\n\
             trap '{{ __bakehouse_answer \"$?\" gone; }} 2>/dev/null' EXIT\n",
            mark = self.mark
        )
    }

    /// Hands on lines until the shell answers or ends.
    async fn listen(
        &mut self,
        dialogue: &mut Dialogue,
        stop: &Stop,
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Answer, ExecError> {
        // An answer begins on a new line; where the command's output did too, an empty line is between them.
        let mut empty = false;
        let mut answer: Option<Answer> = None;
        let mut answering = false;
        let mut coded = String::new();
        loop {
            let line = match dialogue.hear(stop).await? {
                Heard::Line(line) => line,
                Heard::Ended(code) => {
                    if std::mem::take(&mut empty) {
                        on_line("");
                    }
                    return Ok(Answer { code: answer.map_or(code, |answer| answer.code), gone: true });
                }
            };
            if let Some(rest) = line.strip_prefix(&self.mark) {
                empty = false;
                let Some((code, how)) = rest.trim_start().split_once(' ') else {
                    // The answer's end.
                    answering = false;
                    self.note(&std::mem::take(&mut coded));
                    match answer {
                        Some(answer) if !answer.gone => return Ok(answer),
                        _ => continue,
                    }
                };
                answer = Some(Answer { code: code.parse().unwrap_or(1), gone: how == "gone" });
                answering = true;
                continue;
            }
            if answering && is_coded(&line) {
                coded.push_str(&line);
                continue;
            }
            if std::mem::replace(&mut empty, line.is_empty()) {
                on_line("");
            }
            if !line.is_empty() {
                on_line(&line);
            }
        }
    }

    /// Takes the folder and the environment from an answer. One that something else has written into is not taken.
    fn note(&mut self, coded: &str) {
        let Ok(bytes) = STANDARD.decode(coded) else {
            return;
        };
        let os = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let mut parts = bytes.split(|byte| *byte == 0);
        // A shell whose user may not look at the way to its folder does not know it.
        if let Some(dir) = parts.next().filter(|dir| !dir.is_empty()) {
            self.state.dir = os(dir).into();
        }
        self.state.env = parts
            .filter_map(|part| {
                let at = part.iter().position(|byte| *byte == b'=')?;
                Some((os(&part[..at]), os(&part[at + 1..])))
            })
            .filter(|(name, _)| !OF_A_SHELL.iter().any(|own| name == OsStr::new(own)))
            .collect();
    }
}

fn is_coded(line: &str) -> bool {
    !line.is_empty()
        && line.len() <= CODED_LINE
        && line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
}

/// A text as one word of a shell.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The primary group of a user.
async fn group_of(user: &str, stop: &Stop) -> Result<String, ShellError> {
    if !namespace::is_root() {
        return Err(ShellError::NotRoot { user: user.to_owned() });
    }
    match Cmd::new("id").args(["-g", "--", user]).run(stop).await {
        Ok(output) => Ok(output.text()),
        Err(ExecError::Failed { .. }) => Err(ShellError::NoUser { user: user.to_owned() }),
        Err(error) => Err(error.into()),
    }
}

/// The user that is meant by `run-as`; `None`: the one that this process runs as.
pub(super) fn other_user(run_as: Option<&str>) -> Option<&str> {
    run_as.filter(|user| !(*user == "root" && namespace::is_root()))
}

/// Why a command could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    #[error("run-as: there is no user `{user}` on this machine")]
    NoUser { user: String },
    #[error("run-as: only root can run commands as `{user}`; run it as root, or take `run-as` out")]
    NotRoot { user: String },
    #[error(transparent)]
    Exec(#[from] ExecError),
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(
        shell: &mut Shell,
        command: &str,
        user: Option<&str>,
        lines: &mut Vec<String>,
    ) -> Result<i32, ShellError> {
        shell.run(command, user, &Stop::never(), &mut |line| lines.push(line.to_owned())).await
    }

    async fn told(program: &'static str, commands: &[&str]) -> (Vec<(i32, String)>, State) {
        let env = [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("A", "first")];
        let env = env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let mut shell = Shell::new(program, State::new(Path::new("/"), env));
        let mut all = Vec::new();
        for command in commands {
            let mut lines = Vec::new();
            let code = run(&mut shell, command, None, &mut lines).await.unwrap();
            all.push((code, lines.join("|")));
        }
        shell.close(&Stop::never(), &mut |line| all.push((-1, line.to_owned()))).await.unwrap();
        let state = shell.state().clone();
        (all, state)
    }

    fn right(all: &[(i32, &str)]) -> Vec<(i32, String)> {
        all.iter().map(|(code, text)| (*code, (*text).to_owned())).collect()
    }

    #[tokio::test]
    async fn what_a_command_sets_the_next_one_finds() {
        for program in ["bash", "/bin/sh"] {
            let (all, state) = told(
                program,
                &[
                    "B=plain; f() { echo \"f $1\"; }; cd /usr; export C=\"it's\"",
                    "f \"$A $B $C\"; pwd",
                    "(exit 7)",
                    "echo $?",
                    "printf 'no end'",
                    "printf '\\n\\na\\n\\n'; echo b >&2",
                    "cat; read x || echo nothing",
                    "export D='two\nlines'",
                ],
            )
            .await;
            let wanted = right(&[
                (0, ""),
                (0, "f first plain it's|/usr"),
                (7, ""),
                (0, "0"),
                (0, "no end"),
                (0, "||a||b"),
                (0, "nothing"),
                (0, ""),
            ]);
            assert_eq!(all, wanted, "{program}");
            assert_eq!(state.dir, Path::new("/usr"));
            let get = |name: &str| state.get(name).and_then(OsStr::to_str);
            assert_eq!(
                (get("A"), get("B"), get("C"), get("D")),
                (Some("first"), None, Some("it's"), Some("two\nlines"))
            );
            assert_eq!((get("SHLVL"), get("_")), (None, None));
        }
    }

    /// What is exported before a shell's end is there in the next one.
    #[tokio::test]
    async fn a_command_that_ends_the_shell_ends_itself_alone() {
        for program in ["bash", "/bin/sh"] {
            let (all, _) = told(
                program,
                &[
                    "export B=2; cd /usr; exit 5",
                    "echo $B; pwd",
                    "set -e; export B=3; false; echo not reached",
                    "echo $B; false; echo on",
                    "if then",
                    "echo $B",
                    "exec sh -c 'exit 9'",
                    "echo $B",
                    "kill -9 $$",
                    "echo $B",
                ],
            )
            .await;
            let codes: Vec<i32> = all.iter().map(|(code, _)| *code).collect();
            assert_eq!(codes, [5, 0, 1, 0, 2, 0, 9, 0, 137, 0], "{program}: {all:?}");
            let texts: Vec<&str> = [1, 3, 5, 7, 9].map(|at| all[at].1.as_str()).to_vec();
            assert_eq!(texts, ["2|/usr", "3|on", "3", "3", "3"], "{program}");
            assert!(all[2].1.is_empty() && !all[4].1.is_empty(), "{program}: {all:?}");
        }
    }

    #[tokio::test]
    async fn what_is_done_to_the_streams_and_options_does_not_hide_the_answer() {
        for program in ["bash", "/bin/sh"] {
            let (all, _) = told(
                program,
                &[
                    "exec >/dev/null 2>&1; echo hidden",
                    "echo seen",
                    "set -u -x",
                    "set +u +x",
                    "set -f; IFS=x; set -C",
                    "trap 'echo at the end' EXIT",
                    "echo last",
                ],
            )
            .await;
            assert_eq!(all[0], (0, String::new()), "{program}");
            assert_eq!(all[1], (0, "seen".to_owned()), "{program}");
            assert!(
                all.iter().all(|(code, text)| *code <= 0 && !text.contains("bakehouse")),
                "{program}: {all:?}"
            );
            assert_eq!(all[6], (0, "last".to_owned()), "{program}");
            assert_eq!(all[7], (-1, "at the end".to_owned()), "{program}");
        }
    }

    #[tokio::test]
    async fn what_is_exported_from_outside_is_there_at_once() {
        let mut shell = Shell::new("/bin/sh", State::new(Path::new("/"), BTreeMap::new()));
        let mut lines = Vec::new();
        for value in ["1", "it's"] {
            shell.export("B", value, &Stop::never()).await.unwrap();
            assert_eq!(run(&mut shell, "echo $B", None, &mut lines).await.unwrap(), 0);
        }
        assert_eq!(lines, ["1", "it's"]);
    }

    #[tokio::test]
    async fn a_user_that_is_not_there_is_told() {
        let mut shell = Shell::new("/bin/sh", State::new(Path::new("/"), BTreeMap::new()));
        let refused = run(&mut shell, "true", Some("nobody-has-this-name"), &mut Vec::new()).await;
        assert!(refused.unwrap_err().to_string().starts_with("run-as: "));
    }

    #[tokio::test]
    async fn a_command_runs_as_its_user_and_the_next_as_its_own() {
        if !namespace::is_root() {
            // The test above has the refusal.
            return;
        }
        let mut shell = Shell::new("/bin/sh", State::new(Path::new("/"), BTreeMap::new()));
        let mut lines = Vec::new();
        for (command, user) in [("id -un; export B=1", Some("nobody")), ("id -un; echo $B", None)] {
            assert_eq!(run(&mut shell, command, user, &mut lines).await.unwrap(), 0);
        }
        assert_eq!(lines, ["nobody", "root", "1"]);
    }
}
