//! What is wrong with a recipe or buildspec: where, why, and what to do about it. Owns how that reads; decides nothing.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::key::KeyPath;
use super::places::{Places, Spot};

/// Problems of one file that are kept; a file with more is not read to its end by anybody.
const MOST: usize = 100;
/// Columns of a line that are shown. With the line's number it fits a terminal of 110.
const WIDTH: usize = 100;

/// What sort of mistake it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// It is not YAML, or more of YAML than such a file may use.
    Syntax,
    DuplicateKey,
    UnknownKey,
    MissingKey,
    WrongType,
    /// Of the right type, but not one of the values that are possible.
    BadValue,
    /// Each value is possible, but not all of them together.
    Conflict,
    /// A `${variable}` or a `--var`.
    Variable,
    /// A path that leads nowhere, or where it must not.
    Path,
    /// Meant for a stage, a method or a form that this version does not have yet.
    Later,
    /// Nothing is wrong, but it has no effect.
    NoEffect,
    /// Right by itself, but it would probably not work.
    Doubt,
    /// What has to be given besides.
    Need,
}

/// One mistake.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Problem {
    pub kind: ProblemKind,
    pub file: PathBuf,
    /// Counts from 1.
    pub line: usize,
    /// Counts from 1, in characters.
    pub column: usize,
    /// The keys that lead to it: `provision[2].shell.timeout`; empty for the file as a whole.
    pub path: String,
    pub message: String,
    /// What to do about it.
    pub hint: String,
    #[serde(skip)]
    text: String,
    #[serde(skip)]
    length: usize,
}

impl Problem {
    /// As a reader sees it, under the word `error` or `warning`.
    fn write(&self, f: &mut fmt::Formatter<'_>, word: &str) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let (line, column, length) = self.window();
        writeln!(f, "{word}: {}", shown(&self.message))?;
        write!(f, "{margin}--> {}:{}:{}", shown(&self.file.to_string_lossy()), self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, " at {}", shown(&self.path))?;
        }
        writeln!(f, "\n{margin} |")?;
        writeln!(f, "{}", format!("{number} | {line}").trim_end())?;
        writeln!(f, "{margin} | {}{}", " ".repeat(column), "^".repeat(length))?;
        write!(f, "{margin} = hint: {}", shown(&self.hint))
    }

    /// As a warning: what it says does not stop anything.
    #[must_use]
    pub fn as_warning(&self) -> String {
        Under(self, "warning").to_string()
    }

    /// As a note: what it says need not mean that anything is to be changed.
    #[must_use]
    pub fn as_note(&self) -> String {
        Under(self, "note").to_string()
    }

    /// The part of the line to show, and in it the mark's column (from 0) and length.
    fn window(&self) -> (String, usize, usize) {
        let characters: Vec<char> = shown(&self.text).chars().collect();
        let column = (self.column.saturating_sub(1)).min(characters.len());
        let length = self.length.clamp(1, (characters.len() - column).max(1));
        if characters.len() <= WIDTH {
            return (characters.iter().collect(), column, length);
        }
        let from = column.saturating_sub(WIDTH / 2).min(characters.len() - WIDTH);
        let mut line: String = characters[from..from + WIDTH].iter().collect();
        let mut column = column - from;
        if from > 0 {
            line.insert(0, '…');
            column += 1;
        }
        if from + WIDTH < characters.len() {
            line.push('…');
        }
        let room = line.chars().count().saturating_sub(column).max(1);
        (line, column, length.min(room))
    }
}

/// A problem under another word than `error`.
struct Under<'a>(&'a Problem, &'static str);

impl fmt::Display for Under<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, self.1)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "error")
    }
}

/// All that is wrong with one file, in the file's order. Never empty.
#[derive(Clone, Debug, Serialize)]
pub struct Problems {
    pub file: PathBuf,
    pub problems: Vec<Problem>,
    /// The file has more problems than are listed.
    pub more: bool,
}

impl Problems {
    /// The first of them in a line, with its place: for whoever sees one line alone.
    #[must_use]
    pub fn reason(&self) -> String {
        let Some(Problem { file, line, column, message, hint, .. }) = self.problems.first() else {
            return String::new();
        };
        let others = match (self.more, self.problems.len() - 1) {
            (true, _) => " (and many more errors)".to_owned(),
            (false, 0) => String::new(),
            (false, 1) => " (and 1 more error)".to_owned(),
            (false, count) => format!(" (and {count} more errors)"),
        };
        shown(&format!("{}:{line}:{column}: {message}; {hint}{others}", file.display()))
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{problem}\n")?;
        }
        let count = self.problems.len();
        let (more, s) = if self.more { ("more than ", "s") } else { ("", if count == 1 { "" } else { "s" }) };
        write!(f, "{}: {more}{count} error{s}", shown(&self.file.to_string_lossy()))
    }
}

/// Which part of a value a finding is about.
#[derive(Clone, Debug)]
pub(super) enum At {
    Key,
    Value,
    /// This text, somewhere within the value.
    Text(String),
    Spot(Spot),
}

/// A problem before its place in the file is known.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) kind: ProblemKind,
    pub(super) path: KeyPath,
    pub(super) at: At,
    pub(super) message: String,
    pub(super) hint: String,
}

/// What the passes over a file have found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
    notes: Vec<Finding>,
    more: bool,
}

impl Findings {
    pub(super) fn error(
        &mut self,
        kind: ProblemKind,
        path: &KeyPath,
        at: At,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let finding = Finding { kind, path: path.clone(), at, message: message.into(), hint: hint.into() };
        self.more |= !keep(&mut self.errors, finding);
    }

    /// What has no effect.
    pub(super) fn warning(
        &mut self,
        path: &KeyPath,
        at: At,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let (kind, path) = (ProblemKind::NoEffect, path.clone());
        let finding = Finding { kind, path, at, message: message.into(), hint: hint.into() };
        keep(&mut self.warnings, finding);
    }

    /// What would probably not work.
    pub(super) fn doubt(
        &mut self,
        path: &KeyPath,
        at: At,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let (kind, path) = (ProblemKind::Doubt, path.clone());
        let finding = Finding { kind, path, at, message: message.into(), hint: hint.into() };
        keep(&mut self.warnings, finding);
    }

    /// What has to be given besides.
    pub(super) fn need(
        &mut self,
        path: &KeyPath,
        at: At,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let (kind, path) = (ProblemKind::Need, path.clone());
        let finding = Finding { kind, path, at, message: message.into(), hint: hint.into() };
        keep(&mut self.notes, finding);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// Whether no further error will be told.
    pub(super) fn are_full(&self) -> bool {
        self.more
    }

    /// Whether no further warning will be told.
    pub(super) fn are_full_of_warnings(&self) -> bool {
        self.warnings.len() >= MOST
    }

    /// Whether an error is known of this value, of something in it, or of something that it is in.
    pub(super) fn touch(&self, path: &KeyPath) -> bool {
        self.errors.iter().any(|error| error.path.starts_with(path) || path.starts_with(&error.path))
    }

    pub(super) fn errors(&self, file: &Path, text: &str, places: &Places) -> Problems {
        Problems {
            file: file.to_owned(),
            problems: placed(&self.errors, file, text, places),
            more: self.more,
        }
    }

    pub(super) fn warnings(&self, file: &Path, text: &str, places: &Places) -> Vec<Problem> {
        placed(&self.warnings, file, text, places)
    }

    pub(super) fn notes(&self, file: &Path, text: &str, places: &Places) -> Vec<Problem> {
        placed(&self.notes, file, text, places)
    }
}

fn keep(list: &mut Vec<Finding>, finding: Finding) -> bool {
    let room = list.len() < MOST;
    if room {
        list.push(finding);
    }
    room
}

fn placed(findings: &[Finding], file: &Path, text: &str, places: &Places) -> Vec<Problem> {
    let lines: Vec<&str> = text.lines().collect();
    let mut problems: Vec<Problem> = findings
        .iter()
        .map(|finding| {
            let spot = match &finding.at {
                At::Key => places.key(&finding.path),
                At::Value => places.value(&finding.path),
                At::Text(needle) => places.within(&finding.path, needle, &lines),
                At::Spot(spot) => *spot,
            };
            Problem {
                kind: finding.kind,
                file: file.to_owned(),
                line: spot.line,
                column: spot.column,
                path: finding.path.to_string(),
                message: finding.message.clone(),
                hint: finding.hint.clone(),
                text: lines.get(spot.line - 1).copied().unwrap_or_default().to_owned(),
                length: spot.length,
            }
        })
        .collect();
    problems.sort_by_key(|problem| (problem.line, problem.column));
    problems
}

/// A text of the user's in a message: quoted, and cut where it is long.
pub(super) fn quoted(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut short: String = line.chars().take(60).collect();
    if short.len() < text.trim_end().len() {
        short.push('…');
    }
    format!("`{short}`")
}

/// The names as a list in a sentence: `a`, `b` or `c`.
pub(super) fn either(names: &[&str]) -> String {
    let mut text = String::new();
    for (number, name) in names.iter().enumerate() {
        let between = match number {
            0 => "",
            _ if number + 1 == names.len() => " or ",
            _ => ", ",
        };
        let _ = write!(text, "{between}`{name}`");
    }
    text
}

/// The name among these that was probably meant.
pub(crate) fn nearest<'a>(text: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Other tools' words for the same things, which are too far off to be found by their letters.
    const SYNONYMS: &[(&str, &str)] = &[
        ("amd64", "x86_64"),
        ("x64", "x86_64"),
        ("aarch64", "arm64"),
        ("bios", "legacy-bios"),
        ("copy", "files"),
        ("script", "shell"),
        ("from", "base"),
        ("tests", "checks"),
        ("steps", "provision"),
        ("variables", "vars"),
    ];
    // The distance takes time in both lengths; no name is anywhere near this long.
    if text.len() > 64 {
        return None;
    }
    let plain = text.to_lowercase().replace('_', "-");
    let synonym = SYNONYMS.iter().find(|(word, _)| *word == plain).map(|(_, name)| *name);
    names
        .into_iter()
        .filter_map(|name| {
            let distance = strsim::osa_distance(&plain, &name.to_lowercase().replace('_', "-"));
            let near = Some(name) == synonym || distance <= (name.len() / 3).max(1);
            let distance = if Some(name) == synonym { 0 } else { distance };
            near.then_some((distance, name))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// A text of the user's as it may go to a terminal: nothing in it moves the cursor or turns the line around.
fn shown(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {
                '\u{fffd}'
            }
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str, column: usize, length: usize) -> Problem {
        Problem {
            kind: ProblemKind::BadValue,
            file: "bake.yml".into(),
            line: 7,
            column,
            path: "name".into(),
            message: "it is wrong".into(),
            hint: "make it right".into(),
            text: text.into(),
            length,
        }
    }

    #[test]
    fn a_long_line_is_shown_around_its_mark() {
        let text = format!("{}HERE{}", "a".repeat(5000), "b".repeat(5000));
        let all = problem(&text, 5001, 4).to_string();
        let lines: Vec<&str> = all.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() < 120), "{all}");
        let at = lines[3].chars().collect::<Vec<_>>();
        let mark = lines[4].chars().position(|c| c == '^').unwrap();
        assert_eq!(at[mark..mark + 4].iter().collect::<String>(), "HERE");
        assert!(lines[4].ends_with("^^^^") && !lines[4].ends_with("^^^^^"));
    }

    #[test]
    fn nothing_in_a_file_reaches_the_terminal_as_an_order() {
        let all = problem("name: \u{1b}[2J\u{202e}x", 7, 1).to_string();
        assert!(!all.contains('\u{1b}') && !all.contains('\u{202e}'), "{all:?}");
    }

    #[test]
    fn the_first_problem_is_told_in_a_line() {
        let problems = |count| {
            let problems = vec![problem("name: ", 7, 1); count];
            Problems { file: "bake.yml".into(), problems, more: false }.reason()
        };
        assert_eq!(problems(1), "bake.yml:7:7: it is wrong; make it right");
        assert_eq!(problems(2), "bake.yml:7:7: it is wrong; make it right (and 1 more error)");
        assert_eq!(problems(3), "bake.yml:7:7: it is wrong; make it right (and 2 more errors)");
    }

    #[test]
    fn a_mark_past_the_end_of_its_line_is_still_shown() {
        assert!(problem("ab", 90, 3).to_string().contains("  ^\n"));
        assert!(problem("", 1, 0).to_string().contains("| ^\n"));
    }

    #[test]
    fn the_nearest_name_is_near() {
        assert_eq!(nearest("instal", ["install", "remove"]), Some("install"));
        assert_eq!(nearest("secret_env", ["secret-env", "env"]), Some("secret-env"));
        assert_eq!(nearest("amd64", ["x86_64", "arm64"]), Some("x86_64"));
        assert_eq!(nearest("zzz", ["install", "remove"]), None);
        assert_eq!(nearest(&"a".repeat(1 << 20), ["install"]), None);
    }
}
