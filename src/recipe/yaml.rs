//! From text to values and their places. The only file that knows YAML: serde_yaml reads the values, saphyr-parser's
//! events tell where each of them stands and refuse what must not be expanded. Knows nothing of recipes or buildspecs.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::Value;

use super::form::Form;
use super::key::KeyPath;
use super::places::{Kind, Node, Places, Spot};
use super::problem::{At, Findings, ProblemKind, quoted};

/// Maps and lists within each other. The deepest place that a recipe has is 5; a playbook's `extra-vars` may go on
/// from there. serde_yaml itself gives up at 128.
const DEEPEST: usize = 32;
/// How much a file may come to when every alias is written out: bytes of text, and [`NODE`] for each value. The file
/// itself is at most a quarter of it.
const HEAVIEST: usize = 4 * 1024 * 1024;
/// About the bytes that a value takes besides its text.
const NODE: usize = 64;

/// Reads a text. `None` where it could not be read at all; then `findings` says why.
pub(super) fn read(text: &str, form: &Form, findings: &mut Findings) -> Option<(Value, Places)> {
    let places = match survey(text, form, findings) {
        Ok(places) => places,
        Err(refusal) => {
            findings.error(
                ProblemKind::Syntax,
                &KeyPath::default(),
                At::Spot(refusal.spot),
                refusal.message,
                refusal.hint,
            );
            return None;
        }
    };
    match serde_yaml::from_str(text) {
        Ok(value) => Some((value, places)),
        // saphyr-parser has let something through that serde_yaml does not take: a number that is too large, mostly.
        Err(error) => {
            let spot =
                error.location().map_or(Spot::START, |location| Spot::at(location.line(), location.column()));
            let (message, hint) = explained(&error.to_string(), form);
            findings.error(ProblemKind::Syntax, &KeyPath::default(), At::Spot(spot), message, hint);
            None
        }
    }
}

/// Writes a value as YAML.
///
/// # Errors
/// What serde_yaml says; for plain JSON values nothing is known that it refuses.
pub(super) fn write(value: &Value) -> Result<String, String> {
    serde_yaml::to_string(value).map_err(|error| error.to_string())
}

/// Why a text is not read.
struct Refusal {
    spot: Spot,
    message: String,
    hint: String,
}

impl Refusal {
    fn new(spot: Spot, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { spot, message: message.into(), hint: hint.into() }
    }
}

/// A map or list that is not closed yet.
struct Open {
    node: usize,
    anchor: usize,
    /// What the file weighed when it was opened.
    before: usize,
    /// A map's key whose value comes next.
    key: Option<(String, Spot)>,
    /// A map's keys so far, with their lines.
    seen: HashMap<String, usize>,
}

/// The place of an event.
fn spot_of(span: Span) -> Spot {
    let (from, to) = (span.start, span.end);
    let length = if to.line() == from.line() { to.col().saturating_sub(from.col()) } else { 1 };
    Spot {
        line: from.line().max(1),
        column: from.col() + 1,
        last_line: to.line().max(from.line()).max(1),
        length: length.max(1),
    }
}

/// Goes through the events of a text and notes every place, before anything is built from it.
fn survey(text: &str, form: &Form, findings: &mut Findings) -> Result<Places, Refusal> {
    one_sort_of_file(text)?;
    let mut survey =
        Survey { form, places: Places::default(), open: Vec::new(), anchors: HashMap::new(), weight: 0 };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let (message, hint) = explained(error.info(), form);
            let mark = error.marker();
            Refusal::new(Spot::at(mark.line(), mark.col() + 1), message, hint)
        })?;
        survey.take(event, spot_of(span), findings)?;
    }
    if survey.places.nodes.is_empty() {
        return Err(Refusal::new(Spot::START, "the file is empty", form.empty));
    }
    Ok(survey.places)
}

/// YAML 1.1, which serde_yaml reads, ends a line at some characters at which YAML 1.2, which saphyr-parser reads, does
/// not, and they differ on byte order marks. Behind such a character each would see another file.
fn one_sort_of_file(text: &str) -> Result<(), Refusal> {
    for (number, line) in text.split('\n').enumerate() {
        let found = line
            .chars()
            .enumerate()
            .find(|(_, c)| matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}'));
        if let Some((column, c)) = found {
            return Err(Refusal::new(
                Spot::at(number + 1, column + 1),
                format!(
                    "the character U+{:04X} means one thing to some readers and another to others",
                    u32::from(c)
                ),
                "take it out, or write it as an escape in double quotes",
            ));
        }
    }
    Ok(())
}

struct Survey<'f> {
    form: &'f Form,
    places: Places,
    open: Vec<Open>,
    /// What each anchor names: the node and its weight.
    anchors: HashMap<usize, (usize, usize)>,
    weight: usize,
}

impl Survey<'_> {
    fn take(&mut self, event: Event<'_>, spot: Spot, findings: &mut Findings) -> Result<(), Refusal> {
        match event {
            Event::DocumentStart(_) if !self.places.nodes.is_empty() => Err(Refusal::new(
                spot,
                "a second document begins here",
                format!(
                    "a {noun} is one document: take out `---`, or give each {noun} a folder of its own",
                    noun = self.form.noun
                ),
            )),
            Event::Alias(anchor) => {
                let Some(&(node, weight)) = self.anchors.get(&anchor) else {
                    return Err(Refusal::new(
                        spot,
                        "this alias stands within the very value that it names",
                        "write the value out",
                    ));
                };
                if self.open.last().is_some_and(|open| self.wants_key(open)) {
                    return Err(odd_key(spot));
                }
                self.weigh(weight, spot)?;
                self.attach(node);
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.untagged(tag.as_deref(), spot)?;
                self.weigh(NODE + text.len(), spot)?;
                if self.open.last().is_some_and(|open| self.wants_key(open)) {
                    return self.key(text.into_owned(), spot, style, findings);
                }
                let weight = NODE + text.len();
                let plain = style == ScalarStyle::Plain;
                let text = text.into_owned();
                let node = self.add(spot, Kind::Scalar { text, plain });
                if anchor > 0 {
                    self.anchors.insert(anchor, (node, weight));
                }
                self.attach(node);
                Ok(())
            }
            Event::SequenceStart(anchor, tag) => {
                self.untagged(tag.as_deref(), spot)?;
                self.begin(Kind::List(Vec::new()), anchor, spot)
            }
            Event::MappingStart(anchor, tag) => {
                self.untagged(tag.as_deref(), spot)?;
                self.begin(Kind::Map(Vec::new()), anchor, spot)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    if open.anchor > 0 {
                        self.anchors.insert(open.anchor, (open.node, self.weight - open.before));
                    }
                    self.attach(open.node);
                }
                Ok(())
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn wants_key(&self, open: &Open) -> bool {
        open.key.is_none() && matches!(self.places.nodes[open.node].kind, Kind::Map(_))
    }

    fn add(&mut self, spot: Spot, kind: Kind) -> usize {
        self.places.nodes.push(Node { spot, kind });
        self.places.nodes.len() - 1
    }

    fn begin(&mut self, kind: Kind, anchor: usize, spot: Spot) -> Result<(), Refusal> {
        if self.open.last().is_some_and(|open| self.wants_key(open)) {
            return Err(odd_key(spot));
        }
        if self.open.len() >= DEEPEST {
            return Err(Refusal::new(
                spot,
                format!("more than {DEEPEST} maps and lists within each other"),
                format!(
                    "no key of a {} lies that deep; check the brackets and the indentation",
                    self.form.noun
                ),
            ));
        }
        let before = self.weight;
        self.weigh(NODE, spot)?;
        // A container's span is its first token only.
        let node = self.add(Spot { length: 1, ..spot }, kind);
        self.open.push(Open { node, anchor, before, key: None, seen: HashMap::new() });
        Ok(())
    }

    fn weigh(&mut self, more: usize, spot: Spot) -> Result<(), Refusal> {
        self.weight = self.weight.saturating_add(more);
        if self.weight > HEAVIEST {
            return Err(Refusal::new(
                spot,
                format!("the {} is too large when every alias is written out", self.form.noun),
                "use fewer aliases and values; long scripts belong in files of their own",
            ));
        }
        Ok(())
    }

    fn key(
        &mut self,
        text: String,
        spot: Spot,
        style: ScalarStyle,
        findings: &mut Findings,
    ) -> Result<(), Refusal> {
        if text == "<<" && style == ScalarStyle::Plain {
            return Err(Refusal::new(
                spot,
                format!("merge keys (`<<`) are not part of a {}", self.form.noun),
                self.form.merge,
            ));
        }
        if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
            return Err(odd_key(spot));
        }
        let path = self.path().key(&text);
        let Some(open) = self.open.last_mut() else {
            return Ok(());
        };
        if let Some(first) = open.seen.insert(text.clone(), spot.line) {
            findings.error(
                ProblemKind::DuplicateKey,
                &path,
                At::Spot(spot),
                format!("{} is written twice; first on line {first}", quoted(&text)),
                "keep one of them",
            );
        }
        open.key = Some((text, spot));
        Ok(())
    }

    /// Puts a finished value into what it stands in.
    fn attach(&mut self, node: usize) {
        if let Some(open) = self.open.last_mut() {
            match &mut self.places.nodes[open.node].kind {
                Kind::List(items) => items.push(node),
                Kind::Map(entries) => {
                    if let Some((key, spot)) = open.key.take() {
                        entries.push((key, spot, node));
                    }
                }
                Kind::Scalar { .. } => {}
            }
        }
    }

    fn untagged(&self, tag: Option<&Tag>, spot: Spot) -> Result<(), Refusal> {
        match tag {
            Some(tag) if !tag.is_yaml_core_schema() => Err(Refusal::new(
                spot,
                format!("{} is a YAML tag; a {} has none", quoted(&tag.to_string()), self.form.noun),
                "take it out, or put quotes around the text",
            )),
            _ => Ok(()),
        }
    }

    /// Where the innermost open map or list stands.
    fn path(&self) -> KeyPath {
        let mut path = KeyPath::default();
        for pair in self.open.windows(2) {
            path = match (&self.places.nodes[pair[0].node].kind, &pair[0].key) {
                (Kind::List(items), _) => path.item(items.len()),
                (_, Some((key, _))) => path.key(key),
                _ => path,
            };
        }
        path
    }
}

fn odd_key(spot: Spot) -> Refusal {
    Refusal::new(spot, "a key must be a word", "if this was meant as a text, put quotes around it")
}

/// The parser's words in ours, for the mistakes that people make.
fn explained(info: &str, form: &Form) -> (String, String) {
    let too_deep = format!("no key of a {} lies that deep; check the brackets", form.noun);
    let cases: [(&str, &str, &str); 10] = [
        (
            "mapping values are not allowed",
            "a `:` where no key can stand",
            "put quotes around a text with `: ` in it; else check this line's indentation",
        ),
        (
            "unknown anchor",
            "`*` begins an alias, and no anchor has this name",
            "put quotes around a text that begins with `*`",
        ),
        ("tab", "a tab where spaces must be", "indent with spaces"),
        ("cannot start any token", "a text cannot begin with this character", "put quotes around it"),
        ("number out of range", "this number is too large", "put quotes around it if it is meant as a text"),
        ("recursion limit", "too many maps and lists within each other", &too_deep),
        (
            "flow",
            "a `{…}` or `[…]` is not closed, or lacks a comma",
            "look for the missing `,`, `}` or `]`; put quotes around texts with brackets, `${…}` too",
        ),
        (
            "did not find expected key",
            "this line does not belong to the map above it",
            "indent the keys of a map by the same number of spaces",
        ),
        (
            "did not find expected node content",
            "a value is missing here",
            "write it, or close the bracket that is open",
        ),
        ("unexpected end of stream", "the file ends within a value", "close the quote or bracket"),
    ];
    match cases.iter().find(|(mark, ..)| info.contains(mark)) {
        Some((_, message, hint)) => ((*message).to_owned(), (*hint).to_owned()),
        None => (
            format!("this is not YAML: {info}"),
            "look at this line and the one above: indentation, quotes and brackets".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::form::RECIPE;

    /// Whether the places are of just these values.
    fn agree(value: &Value, path: &KeyPath, places: &Places) -> bool {
        let Some(node) = places.walk(path).1 else {
            return false;
        };
        match (value, &node.kind) {
            (Value::Array(items), Kind::List(nodes)) => {
                let mut items = items.iter().enumerate();
                nodes.len() == items.len() && items.all(|(at, item)| agree(item, &path.item(at), places))
            }
            (Value::Object(keys), Kind::Map(nodes)) => {
                nodes.len() == keys.len()
                    && keys.iter().all(|(key, value)| agree(value, &path.key(key), places))
            }
            (Value::String(text), Kind::Scalar { text: other, plain }) => text == other || !plain,
            (Value::Array(_) | Value::Object(_), _) | (_, Kind::List(_) | Kind::Map(_)) => false,
            _ => true,
        }
    }

    fn both(text: &str) -> bool {
        let mut findings = Findings::default();
        let read = read(text, &RECIPE, &mut findings);
        let (value, places) = read.unwrap_or_else(|| panic!("{text:?}: {findings:?}"));
        findings.is_empty() && agree(&value, &KeyPath::default(), &places)
    }

    #[test]
    fn both_readers_see_the_same_file() {
        for text in [
            "a: 1",
            "- a\n- [b, {c: d}]\n-\n- ''\n",
            "a: |\n  one\n\n    two\n\nb: >-\n  x\n  y\n",
            "a: &x [1, 2]\nb: *x\nc: [*x, {d: *x}]\n",
            "'a b': \"\\u2028\\x41\"\n? b\n: c\n",
            "1: a\ntrue: b\n~: c\n0x1F: d\n",
            "a: yes\nb: 0o17\nc: 017\nd: 1_000\ne: 1e3\nf: .5\ng: 2001-01-01\nh: =\n",
            "a: b # c\r\nd:\r\n  - e\r\n",
            "{a: b, 'c': , d}",
            "a: b\n...\n",
            "%YAML 1.2\n---\na: !!str 5\n",
        ] {
            assert!(both(text), "{text:?}");
        }
    }

    #[test]
    fn what_only_one_of_them_takes_for_a_line_is_refused() {
        for c in ['\u{85}', '\u{2028}', '\u{2029}', '\u{feff}'] {
            let mut findings = Findings::default();
            assert!(read(&format!("a: b\n# {c}c: d\n"), &RECIPE, &mut findings).is_none());
            assert!(!findings.is_empty());
        }
    }
}
