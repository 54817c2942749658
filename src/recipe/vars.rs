//! `${name}`: puts the values of `vars` into a recipe's texts. `$${` stands for `${` itself. A value is put in as it is:
//! it is not searched for further variables.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::key::KeyPath;
use super::problem::{At, Findings, ProblemKind, nearest, quoted};

/// What all texts may come to, in bytes: a short file could otherwise ask for any amount of memory, by using a long
/// value often.
const MOST: usize = 4 * 1024 * 1024;

/// Puts in every variable, and the given values in place of the file's own under `vars`.
pub(super) fn apply(recipe: &mut Value, given: &BTreeMap<String, String>, findings: &mut Findings) {
    let root = KeyPath::default();
    let at_vars = root.key("vars");
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    if let Some(Value::Object(vars)) = recipe.get_mut("vars") {
        for (name, value) in vars.iter_mut() {
            // What is no text is told by the check of types; here it only counts as known.
            let mut text = value.as_str().unwrap_or_default().to_owned();
            match fill(&text, &mut |_| None) {
                Ok(filled) => text = filled.into_owned(),
                Err(unknown) => findings.error(
                    ProblemKind::Variable,
                    &at_vars.key(name),
                    At::Text(unknown.written.clone()),
                    format!("a variable cannot be made of others; {} is one", quoted(&unknown.written)),
                    "write the value out; `$${` stands for `${` itself",
                ),
            }
            if let Some(given) = given.get(name) {
                text.clone_from(given);
                *value = Value::String(text.clone());
            } else if value.is_string() {
                *value = Value::String(text.clone());
            }
            known.insert(name.clone(), text);
        }
    }
    for name in given.keys().filter(|name| !known.contains_key(*name)) {
        findings.error(
            ProblemKind::Variable,
            &at_vars,
            At::Key,
            format!("`--var` gives {}, which is not one of the recipe's variables", quoted(name)),
            meant(name, &known, || {
                "declare it under `vars`, with the value that it has otherwise".to_owned()
            }),
        );
    }
    let mut filling = Filling { known: &known, used: BTreeSet::new(), size: 0, findings };
    if let Value::Object(keys) = recipe {
        for (key, value) in keys.iter_mut().filter(|(key, _)| *key != "vars") {
            filling.value(value, &root.key(key));
        }
    }
    let used = filling.used;
    for name in known.keys().filter(|name| !used.contains(*name)) {
        findings.warning(
            &at_vars.key(name),
            At::Key,
            format!("the variable {} is never used", quoted(name)),
            format!("use it as `${{{name}}}`, or take it out"),
        );
    }
}

/// Puts `$${` for every `${`, so that a text is read again as it is.
pub(super) fn escape(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.replace("${", "$${"),
        Value::Array(items) => items.iter_mut().for_each(escape),
        Value::Object(keys) => keys.values_mut().for_each(escape),
        _ => {}
    }
}

struct Filling<'a> {
    known: &'a BTreeMap<String, String>,
    used: BTreeSet<String>,
    size: usize,
    findings: &'a mut Findings,
}

impl Filling<'_> {
    fn value(&mut self, value: &mut Value, path: &KeyPath) {
        match value {
            Value::String(text) if text.contains("${") => {
                if let Some(filled) = self.text(text, path) {
                    *text = filled;
                }
            }
            Value::Array(items) => {
                for (number, item) in items.iter_mut().enumerate() {
                    self.value(item, &path.item(number));
                }
            }
            Value::Object(keys) => {
                for (key, value) in keys.iter_mut() {
                    self.value(value, &path.key(key));
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &str, path: &KeyPath) -> Option<String> {
        let (known, used, size) = (self.known, &mut self.used, &mut self.size);
        *size += text.len();
        let filled = fill(text, &mut |name| {
            let value = known.get(name)?;
            used.insert(name.to_owned());
            *size += value.len();
            // The value is left out rather than put in beyond what is allowed; the error is made below.
            Some(if *size > MOST { "" } else { value })
        });
        if *size > MOST {
            self.findings.error(
                ProblemKind::Variable,
                path,
                At::Value,
                format!("with its variables put in, the recipe is larger than {} MiB", MOST >> 20),
                "use shorter values, or put long texts into files",
            );
            return None;
        }
        match filled {
            Ok(filled) => Some(filled.into_owned()),
            Err(unknown) => {
                let literal = format!("write `${}` where it is not meant for Bakehouse", unknown.written);
                let (message, hint) = match unknown.name {
                    Some(name) => (
                        format!("no variable is named {}", quoted(name)),
                        meant(name, known, || format!("declare it under `vars`; {literal}")),
                    ),
                    None => (format!("{} is not a variable", quoted(&unknown.written)), literal),
                };
                self.findings.error(ProblemKind::Variable, path, At::Text(unknown.written), message, hint);
                None
            }
        }
    }
}

fn meant(name: &str, known: &BTreeMap<String, String>, otherwise: impl Fn() -> String) -> String {
    nearest(name, known.keys().map(String::as_str))
        .map_or_else(otherwise, |near| format!("did you mean `{near}`?"))
}

/// A `${…}` that stands for nothing.
#[derive(Debug, PartialEq, Eq)]
struct Unknown<'a> {
    /// With its braces, cut where it is long.
    written: String,
    /// Where it has the form of a name.
    name: Option<&'a str>,
}

/// The text with each `${name}` replaced by what `value` gives for it.
fn fill<'a, 'v>(
    text: &'a str,
    value: &mut dyn FnMut(&'a str) -> Option<&'v str>,
) -> Result<Cow<'a, str>, Unknown<'a>> {
    if !text.contains("${") {
        return Ok(Cow::Borrowed(text));
    }
    let mut filled = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            filled.push_str(before);
            filled.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        filled.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let end = inner.find(['}', '\n']).filter(|end| inner[*end..].starts_with('}'));
        let name = end.map(|end| &inner[..end]).filter(|name| is_name(name));
        let Some((found, end)) = name.and_then(&mut *value).zip(end) else {
            let to = end.map_or(rest.len(), |end| at + 2 + end + 1);
            let line = rest[at..to].lines().next().unwrap_or_default();
            return Err(Unknown { written: line.chars().take(40).collect(), name });
        };
        filled.push_str(found);
        rest = &inner[end + 1..];
    }
    filled.push_str(rest);
    Ok(Cow::Owned(filled))
}

/// Letters, digits, `_` and `-`, beginning with a letter.
pub(super) fn is_name(text: &str) -> bool {
    text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, String> {
        fill(text, &mut |name| (name == "a").then_some("1"))
            .map(Cow::into_owned)
            .map_err(|unknown| unknown.written)
    }

    #[test]
    fn variables_are_put_in_and_escapes_taken_out() {
        for (text, right) in [
            ("plain $a $(b) $$", "plain $a $(b) $$"),
            ("${a}${a}", "11"),
            ("x${a}y", "x1y"),
            ("$${a}", "${a}"),
            ("$$${a}", "$${a}"),
            ("$${a}${a}", "${a}1"),
            ("$${unclosed", "${unclosed"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(right), "{text}");
        }
        for (text, wrong) in [
            ("${b}", "${b}"),
            ("x${HOME:-/}y", "${HOME:-/}"),
            ("${}", "${}"),
            ("${a", "${a"),
            ("${a\n}", "${a"),
            ("${a${a}}", "${a${a}"),
        ] {
            assert_eq!(filled(text), Err(wrong.to_owned()), "{text}");
        }
    }

    #[test]
    fn an_escaped_text_reads_as_it_was() {
        for text in ["${a}", "$${a}", "$$${", "${", "a$b", "${${"] {
            let mut value = Value::String(text.to_owned());
            escape(&mut value);
            assert_eq!(filled(value.as_str().unwrap()).as_deref(), Ok(text), "{text}");
        }
    }

    #[test]
    fn a_long_value_used_often_is_refused() {
        let mut recipe = serde_json::json!({
            "vars": { "a": "x".repeat(1 << 20) },
            "checks": vec!["${a}"; 1000],
        });
        let mut findings = Findings::default();
        apply(&mut recipe, &BTreeMap::new(), &mut findings);
        assert!(!findings.is_empty());
        assert!(recipe.to_string().len() < 2 * MOST);
    }
}
