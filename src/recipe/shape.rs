//! Checks a file's values against the schema: types, keys and the values that are possible. Knows the form of schemas
//! and what is not there yet; knows nothing of what a key means.

use serde_json::{Map, Value};

use super::form::Form;
use super::key::{KeyPath, Step};
use super::places::Places;
use super::problem::{At, Findings, ProblemKind, either, nearest, quoted};
use super::{Size, Span};

/// Checks `value` against `schema` and takes out the keys that have no value. Nothing is taken out of what the schema
/// leaves open.
pub(super) fn check(
    form: &Form,
    schema: &Value,
    value: &mut Value,
    places: &Places,
    findings: &mut Findings,
) {
    let mut shape = Shape { form, schema, places, findings };
    shape.value(schema, value, &KeyPath::default());
}

struct Shape<'a> {
    form: &'a Form,
    schema: &'a Value,
    places: &'a Places,
    findings: &'a mut Findings,
}

impl<'a> Shape<'a> {
    fn value(&mut self, schema: &'a Value, value: &mut Value, path: &KeyPath) {
        let schema = self.resolve(schema);
        let scalar = value.is_number() || value.is_boolean();
        if self.form.scalars_are_texts
            && scalar
            && self.takes_text(schema)
            && let Some(written) = self.places.written(path)
        {
            *value = Value::String(written.to_owned());
        }
        if let Some(kinds) = kinds(schema) {
            return self.tagged(&kinds, value, path);
        }
        if let Some(names) = names(schema) {
            return self.one_of(&names, value, path);
        }
        if let Some(ways) = schema.get("anyOf").and_then(Value::as_array) {
            let way = ways.iter().find(|way| accepts(self.resolve(way), value));
            return match way {
                Some(way) => self.value(way, value, path),
                None => self.wrong_type(schema, value, path),
            };
        }
        if !accepts(schema, value) {
            return self.wrong_type(schema, value, path);
        }
        match value {
            Value::Object(keys) => self.map(schema, keys, path),
            Value::Array(items) => {
                let Some(each) = schema.get("items") else {
                    return;
                };
                for (number, item) in items.iter_mut().enumerate() {
                    self.value(each, item, &path.item(number));
                }
            }
            Value::String(text) => self.text(schema, text, path),
            Value::Number(number) => self.number(schema, number, path),
            _ => {}
        }
    }

    fn resolve(&self, mut schema: &'a Value) -> &'a Value {
        while let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            match self.schema.pointer(target.trim_start_matches('#')) {
                Some(found) => schema = found,
                None => break,
            }
        }
        schema
    }

    /// Whether a text could stand here.
    fn takes_text(&self, schema: &'a Value) -> bool {
        let text = Value::String(String::new());
        match schema.get("anyOf").and_then(Value::as_array) {
            Some(ways) => ways.iter().any(|way| accepts(self.resolve(way), &text)),
            None => accepts(schema, &text),
        }
    }

    fn map(&mut self, schema: &'a Value, keys: &mut Map<String, Value>, path: &KeyPath) {
        let none = Map::new();
        let known = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let mut unset = Vec::new();
        let mut meant = Vec::new();
        for (key, value) in keys.iter_mut() {
            let at = path.key(key);
            match (known.and_then(|known| known.get(key)), others) {
                (Some(_), _) if value.is_null() => {
                    if required.contains(&key.as_str()) {
                        self.findings.error(
                            ProblemKind::MissingKey,
                            &at,
                            At::Key,
                            format!("{} has no value", quoted(key)),
                            "write its value after the `:`, or below it and further in",
                        );
                    } else {
                        unset.push(key.clone());
                        self.findings.warning(
                            &at,
                            At::Key,
                            format!("{} has no value; it counts as not written", quoted(key)),
                            "write its value, or take the key out",
                        );
                    }
                }
                (Some(schema), _) | (None, Some(schema @ Value::Object(_))) => self.value(schema, value, &at),
                (None, Some(Value::Bool(false))) => {
                    meant.extend(self.unknown_key(known.unwrap_or(&none), key, &at));
                }
                (None, _) => {}
            }
        }
        for name in required {
            // One mistake, one error: a key that is misspelt is not missing as well.
            if !keys.contains_key(name) && !meant.contains(&name) {
                let about = known
                    .and_then(|known| known.get(name))
                    .map(|schema| self.about(schema))
                    .unwrap_or_default();
                self.findings.error(
                    ProblemKind::MissingKey,
                    &path.key(name),
                    At::Key,
                    match path.name() {
                        Some(whole) => format!("`{name}` is missing in {}", quoted(whole)),
                        None => format!("`{name}` is missing"),
                    },
                    format!("add `{name}:`{about}"),
                );
            }
        }
        for key in unset {
            keys.remove(&key);
        }
    }

    /// What a key is for, in the words of its documentation.
    fn about(&self, schema: &'a Value) -> String {
        let own = schema.get("description").and_then(Value::as_str);
        let text = own.or_else(|| self.resolve(schema).get("description").and_then(Value::as_str));
        match text.and_then(|text| text.lines().next()) {
            Some(line) => format!(" ({})", line.trim_end_matches('.')),
            None => String::new(),
        }
    }

    /// Tells of a key that is not known, and gives the one that was probably meant.
    fn unknown_key<'k>(&mut self, known: &'k Map<String, Value>, key: &str, at: &KeyPath) -> Option<&'k str> {
        if at.steps().len() == 1 && self.later("", key, at, At::Key) {
            return None;
        }
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        let parent = at.steps().len() - 1;
        let whole = at.steps()[..parent].iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Item(_) => None,
        });
        let takes = format!("the keys here are {}", listed(&names));
        let near = nearest(key, names.iter().copied());
        self.findings.error(
            ProblemKind::UnknownKey,
            at,
            At::Key,
            match whole {
                Some(whole) => format!("{} is not a key of {}", quoted(key), quoted(whole)),
                None => format!("{} is not a key of a {}", quoted(key), self.form.noun),
            },
            match near {
                Some(near) => format!("did you mean `{near}`? {takes}"),
                None => takes,
            },
        );
        near
    }

    /// Whether this name is one that is not there yet; then says so.
    fn later(&mut self, place: &str, name: &str, path: &KeyPath, at: At) -> bool {
        let found = self.form.later.iter().find(|(where_, later, _)| *where_ == place && *later == name);
        let Some((_, _, what)) = found else {
            return false;
        };
        self.findings.error(
            ProblemKind::Later,
            path,
            at,
            format!("`{name}` belongs to {what} that this version does not have yet"),
            "take it out",
        );
        true
    }

    /// A map with one key, its kind: a step or a check.
    fn tagged(&mut self, kinds: &[(&str, &'a Value)], value: &mut Value, path: &KeyPath) {
        let names: Vec<&str> = kinds.iter().map(|(name, _)| *name).collect();
        let Value::Object(keys) = value else {
            let hint = match value.as_str().map(|text| text.trim_end_matches(':')) {
                Some(name) if names.contains(&name) => format!("write `- {name}:` and what it is to do"),
                _ => format!("begin it with one of {}", listed(&names)),
            };
            let found = self.found(value, path);
            return self.findings.error(
                ProblemKind::WrongType,
                path,
                At::Value,
                format!("expected a map with one key, its kind; found {found}"),
                hint,
            );
        };
        let present: Vec<&str> = names.iter().copied().filter(|name| keys.contains_key(*name)).collect();
        match (present.as_slice(), keys.len()) {
            ([kind], 1) => {
                let at = path.key(kind);
                let schema = kinds.iter().find(|(name, _)| name == kind).map(|(_, schema)| *schema);
                let (Some(schema), Some(inner)) = (schema, keys.get_mut(*kind)) else {
                    return;
                };
                if inner.is_null() {
                    return self.findings.error(
                        ProblemKind::MissingKey,
                        &at,
                        At::Key,
                        format!("`{kind}` has no value"),
                        "write what it is to do after the `:`, or below it and further in",
                    );
                }
                self.value(schema, inner, &at);
            }
            ([kind], _) if keys.get(*kind).is_some_and(Value::is_null) => {
                let other = keys.keys().find(|key| key != kind).cloned().unwrap_or_default();
                self.findings.error(
                    ProblemKind::UnknownKey,
                    &path.key(&other),
                    At::Key,
                    format!("{} stands beside `{kind}` and not in it", quoted(&other)),
                    format!("indent what belongs to `{kind}` by two more spaces"),
                );
            }
            ([_], _) | ([], 1..) => {
                let others: Vec<String> =
                    keys.keys().filter(|key| !names.contains(&key.as_str())).cloned().collect();
                for key in others {
                    let kinds = format!("the kinds are {}", listed(&names));
                    self.findings.error(
                        ProblemKind::UnknownKey,
                        &path.key(&key),
                        At::Key,
                        format!("{} is not a kind of {}", quoted(&key), group(path)),
                        match nearest(&key, names.iter().copied()) {
                            Some(near) => format!("did you mean `{near}`? {kinds}"),
                            None => kinds,
                        },
                    );
                }
            }
            ([], 0) => self.findings.error(
                ProblemKind::MissingKey,
                path,
                At::Value,
                format!("this {} is empty", group(path)),
                format!("begin it with one of {}, or take it out", listed(&names)),
            ),
            ([first, second, ..], _) => self.findings.error(
                ProblemKind::Conflict,
                &path.key(second),
                At::Key,
                format!("`{first}` and `{second}` are one {}", group(path)),
                format!("make `{second}` one of its own: begin its line with `- `"),
            ),
        }
    }

    fn one_of(&mut self, names: &[&str], value: &Value, path: &KeyPath) {
        let Value::String(text) = value else {
            let found = self.found(value, path);
            return self.findings.error(
                ProblemKind::WrongType,
                path,
                At::Value,
                format!("expected {}, found {found}", either(names)),
                "write one of them",
            );
        };
        if names.contains(&text.as_str()) || self.later(&path.to_string(), text, path, At::Value) {
            return;
        }
        self.findings.error(
            ProblemKind::BadValue,
            path,
            At::Value,
            format!("expected {}, found {}", either(names), quoted(text)),
            match nearest(text, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "write one of them".to_owned(),
            },
        );
    }

    fn text(&mut self, schema: &Value, text: &str, path: &KeyPath) {
        // The parsers that serde calls too, so that an error reads the same wherever it is found.
        let wrong = match schema.get("format").and_then(Value::as_str) {
            Some("size") => Size::parse(text).err(),
            Some("span") => Span::parse(text).err(),
            _ => None,
        };
        if let Some(wrong) = wrong {
            let (message, hint) = wrong.split_once("; ").unwrap_or((&wrong, "write another value"));
            self.findings.error(ProblemKind::BadValue, path, At::Value, message, hint);
        }
    }

    fn number(&mut self, schema: &Value, number: &serde_json::Number, path: &KeyPath) {
        let bound = |name| schema.get(name).and_then(Value::as_i64);
        let (low, high) = match schema.get("format").and_then(Value::as_str) {
            Some("int32") => (i64::from(i32::MIN), i64::from(i32::MAX)),
            Some("uint32") => (0, i64::from(u32::MAX)),
            Some("uint16") => (0, i64::from(u16::MAX)),
            _ => (i64::MIN, i64::MAX),
        };
        let low = bound("minimum").unwrap_or(low);
        let high = bound("maximum").unwrap_or(high);
        if !number.as_i64().is_some_and(|number| (low..=high).contains(&number)) {
            self.findings.error(
                ProblemKind::BadValue,
                path,
                At::Value,
                format!("{number} is out of range"),
                format!("write a whole number from {low} to {high}"),
            );
        }
    }

    fn wrong_type(&mut self, schema: &'a Value, value: &Value, path: &KeyPath) {
        let expected = self.expected(schema);
        let found = self.found(value, path);
        let takes = schema.get("type").and_then(Value::as_str);
        let written = self.places.written(path).unwrap_or_default();
        let hint = match (takes, value) {
            _ if path.steps().is_empty() => {
                format!("begin it with `{}`, and the other keys below", self.form.first)
            }
            (_, Value::Number(_)) if schema.get("format").is_some() && takes == Some("string") => {
                format!("write it with its unit: {expected}")
            }
            (Some("string"), Value::Number(_) | Value::Bool(_)) if !written.is_empty() => {
                format!("put quotes around it: \"{written}\"")
            }
            (Some("array"), Value::String(text)) => format!("write [{text}], or begin its line with `- `"),
            (Some("string"), Value::Object(_)) if matches!(path.steps().last(), Some(Step::Item(_))) => {
                "put quotes around a text with `: ` in it".to_owned()
            }
            (Some("array"), Value::Object(_)) => "begin each of its items with `- `".to_owned(),
            (Some("integer" | "boolean"), Value::String(_)) => {
                "take off the quotes; a value with a `${variable}` in it is always a text".to_owned()
            }
            (_, Value::Null) => "write a value, or take it out".to_owned(),
            _ => format!("write {expected}{}", self.about(schema)),
        };
        self.findings.error(
            ProblemKind::WrongType,
            path,
            At::Value,
            format!("expected {expected}, found {found}"),
            hint,
        );
    }

    /// What a schema wants, with an article.
    fn expected(&self, schema: &'a Value) -> String {
        let schema = self.resolve(schema);
        if let Some(names) = names(schema) {
            return either(&names);
        }
        if let Some(ways) = schema.get("anyOf").and_then(Value::as_array) {
            let ways: Vec<String> = ways.iter().map(|way| self.expected(way)).collect();
            return ways.join(" or ");
        }
        match (schema.get("type").and_then(Value::as_str), schema.get("format").and_then(Value::as_str)) {
            (_, Some("size")) => "a size (8GiB)",
            (_, Some("span")) => "a length of time (10m)",
            (Some("string"), _) => "a text",
            (Some("integer"), _) => "a whole number",
            (Some("number"), _) => "a number",
            (Some("boolean"), _) => "true or false",
            (Some("array"), _) => "a list",
            _ => "a map of keys",
        }
        .to_owned()
    }

    fn found(&self, value: &Value, path: &KeyPath) -> String {
        match value {
            Value::Null => "nothing".to_owned(),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "a map of keys".to_owned(),
            Value::String(text) => format!("the text {}", quoted(text)),
            Value::Bool(_) | Value::Number(_) => {
                let written = self.places.written(path).map_or_else(|| value.to_string(), str::to_owned);
                format!("`{written}`")
            }
        }
    }
}

/// The kinds of a step or check with what each of them takes, where the schema is of such.
fn kinds(schema: &Value) -> Option<Vec<(&str, &Value)>> {
    let ways = schema.get("oneOf")?.as_array()?;
    ways.iter()
        .map(|way| {
            let mut keys = way.get("properties")?.as_object()?.iter();
            let (name, inner) = keys.next()?;
            keys.next().is_none().then_some((name.as_str(), inner))
        })
        .collect()
}

/// The values of an enumeration, where the schema is one.
fn names(schema: &Value) -> Option<Vec<&str>> {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return values.iter().map(Value::as_str).collect();
    }
    if let Some(value) = schema.get("const") {
        return Some(vec![value.as_str()?]);
    }
    let ways = schema.get("oneOf")?.as_array()?;
    let all: Option<Vec<Vec<&str>>> = ways.iter().map(names).collect();
    Some(all?.concat())
}

/// Whether a value is of the schema's type; what is in it is not looked at.
fn accepts(schema: &Value, value: &Value) -> bool {
    if names(schema).is_some() {
        return value.is_string();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    }
}

/// What an item of this list is called.
fn group(path: &KeyPath) -> &'static str {
    match path.name() {
        Some("provision") => "step",
        Some("checks") => "check",
        _ => "item",
    }
}

fn listed(names: &[&str]) -> String {
    names.join(", ")
}
