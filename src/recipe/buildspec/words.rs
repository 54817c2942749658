//! A shell's script as simple commands: as much of the language as tells which programs a build runs and which variables
//! it sets. Runs nothing and expands nothing. What it does not understand it takes for words.

use std::iter::Peekable;
use std::str::Chars;

/// Commands within each other; what lies deeper is not looked at.
const DEEPEST: usize = 50;

/// Words that stand before a command and are none.
const BEFORE: [&str; 11] = ["{", "}", "!", "if", "then", "elif", "else", "while", "until", "do", "time"];

/// A command with its arguments, quotes taken off. A part that is only known when it runs is `$` and what names it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Simple {
    pub(super) words: Vec<String>,
    /// Whether it runs in a shell of its own, whose variables end with it.
    pub(super) apart: bool,
}

/// All commands of a script, those within others after what they are in has begun.
pub(super) fn commands(script: &str) -> Vec<Simple> {
    let mut reader = Reader { rest: script.chars().peekable(), found: Vec::new() };
    while reader.rest.peek().is_some() {
        reader.list(None, false, 0);
    }
    reader.found
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    found: Vec<Simple>,
}

/// What is read of a command so far.
#[derive(Default)]
struct Command {
    words: Vec<String>,
    word: Option<String>,
    /// The next word is a redirection's file.
    redirected: bool,
    /// The next word ends a here-document, whose lines may be indented.
    document: bool,
    /// The ends of the here-documents that begin on the next line.
    documents: Vec<String>,
}

impl Command {
    fn put(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else {
            return;
        };
        if std::mem::take(&mut self.document) {
            self.documents.push(word);
            return;
        }
        let is_file = std::mem::take(&mut self.redirected);
        let stands_before = self.words.is_empty() && BEFORE.contains(&word.as_str());
        if !is_file && !stands_before {
            self.words.push(word);
        }
    }
}

impl Reader<'_> {
    /// Reads to the end, or to what closes this list.
    fn list(&mut self, close: Option<char>, apart: bool, depth: usize) {
        let mut command = Command::default();
        while let Some(c) = self.rest.next() {
            match c {
                _ if Some(c) == close => break,
                '\n' => {
                    self.end_command(&mut command, apart);
                    for end in std::mem::take(&mut command.documents) {
                        self.skip_document(&end);
                    }
                }
                // A pipe's parts run in shells of their own too; that is not told apart here.
                ';' | '&' | '|' => self.end_command(&mut command, apart),
                '(' => {
                    // What stands before it is a function's name, or that of a list that is set.
                    self.nested(')', depth);
                    self.end_command(&mut command, apart);
                }
                ')' => self.end_command(&mut command, apart),
                '#' if command.word.is_none() => while self.rest.next_if(|c| *c != '\n').is_some() {},
                '<' | '>' => self.redirection(c, &mut command),
                c if c.is_whitespace() => command.end_word(),
                c => self.part_of_word(c, &mut command, depth),
            }
        }
        self.end_command(&mut command, apart);
    }

    fn end_command(&mut self, command: &mut Command, apart: bool) {
        command.end_word();
        let words = std::mem::take(&mut command.words);
        if !words.is_empty() {
            self.found.push(Simple { words, apart });
        }
    }

    fn nested(&mut self, close: char, depth: usize) {
        if depth < DEEPEST {
            self.list(Some(close), true, depth + 1);
        }
    }

    fn part_of_word(&mut self, c: char, command: &mut Command, depth: usize) {
        match c {
            '\\' => match self.rest.next() {
                Some('\n') | None => {}
                Some(c) => command.put(c),
            },
            '\'' => {
                command.word.get_or_insert_default();
                for c in self.rest.by_ref().take_while(|c| *c != '\'') {
                    command.put(c);
                }
            }
            '"' => {
                command.word.get_or_insert_default();
                while let Some(c) = self.rest.next() {
                    match c {
                        '"' => break,
                        '\\' => {
                            if let Some(c) = self.rest.next().filter(|c| *c != '\n') {
                                command.put(c);
                            }
                        }
                        '$' | '`' => self.expansion(c, command, depth),
                        c => command.put(c),
                    }
                }
            }
            '$' | '`' => self.expansion(c, command, depth),
            c => command.put(c),
        }
    }

    fn expansion(&mut self, c: char, command: &mut Command, depth: usize) {
        command.put('$');
        if c == '`' {
            self.nested('`', depth);
        } else if self.rest.next_if_eq(&'(').is_some() {
            self.nested(')', depth);
        }
    }

    fn redirection(&mut self, c: char, command: &mut Command) {
        // The number before it is that of a stream.
        if command.word.as_ref().is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_digit())) {
            command.word = None;
        }
        command.end_word();
        let mut sign = String::from(c);
        while let Some(c) = self.rest.next_if(|c| "<>&|".contains(*c)) {
            sign.push(c);
        }
        if sign == "<<" {
            self.rest.next_if_eq(&'-');
            command.document = true;
        } else {
            command.redirected = true;
        }
    }

    fn skip_document(&mut self, end: &str) {
        while self.rest.peek().is_some() {
            let line: String = self.rest.by_ref().take_while(|c| *c != '\n').collect();
            if line.trim_start_matches('\t') == end {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(script: &str) -> Vec<String> {
        let shown = |one: Simple| format!("{}{}", if one.apart { "(" } else { "" }, one.words.join("|"));
        commands(script).into_iter().map(shown).collect()
    }

    #[test]
    fn a_script_is_read_as_its_commands() {
        for (script, right) in [
            ("a b; c & d && e || f | g", &["a|b", "c", "d", "e", "f", "g"][..]),
            ("a 'b c' \"d $e\" f\\ g", &["a|b c|d $e|f g"]),
            ("# no\na # no\nb#c", &["a", "b#c"]),
            ("if a; then b; else c; fi", &["a", "b", "c", "fi"]),
            ("a \\\n  b\n", &["a|b"]),
            ("export A=\"$(b c)\"", &["(b|c", "export|A=$"]),
            ("A=`b` c", &["(b", "A=$|c"]),
            ("(cd a; b) && { c; }", &["(cd|a", "(b", "c"]),
            ("a >b 2>&1 <c d", &["a|d"]),
            ("cat <<EOF; b\nc d\nEOF\ne", &["cat", "b", "e"]),
            ("cat <<-'E'\n\tx\n\tE\ne", &["cat", "e"]),
            ("f() { a; }", &["f", "a"]),
            ("", &[]),
        ] {
            assert_eq!(read(script), right, "{script}");
        }
    }

    #[test]
    fn what_is_not_closed_ends_with_the_script() {
        for script in ["'a", "\"a $(b", "a <<E\nb", "`a", "((((", "))))", "\\", "a >"] {
            let _ = commands(script);
        }
        let _ = commands(&"$(".repeat(100_000));
        let _ = commands(&"(".repeat(100_000));
        let _ = commands(&"\"`".repeat(100_000));
    }
}
