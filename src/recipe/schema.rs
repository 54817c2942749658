//! JSON Schemas made from types: one definition for editors, for the check of a file and for the parser. Owns that of
//! `bake.yml`.

use std::sync::LazyLock;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::Recipe;

/// The schema of `bake.yml`: JSON Schema, draft 2020-12.
#[must_use]
pub fn schema() -> Value {
    SCHEMA.clone()
}

pub(super) static SCHEMA: LazyLock<Value> = LazyLock::new(|| of::<Recipe>("Bakehouse recipe (bake.yml)"));

/// The schema of a type, under this title.
pub(super) fn of<T: JsonSchema>(title: &str) -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value();
    without_null(&mut schema);
    if let Value::Object(keys) = &mut schema {
        keys.insert("title".to_owned(), json!(title));
    }
    schema
}

/// A key that is not needed is left out of a recipe, never set to null, so the schema does not offer null. schemars
/// does, since the types hold `Option`s.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(keys) => {
            if let Some(Value::Array(types)) = keys.get_mut("type") {
                types.retain(|name| name != "null");
                if let [one] = types.as_slice() {
                    let one = one.clone();
                    keys.insert("type".to_owned(), one);
                }
            }
            if let Some(Value::Array(ways)) = keys.get_mut("anyOf") {
                ways.retain(|way| way != &json!({ "type": "null" }));
                if let [Value::Object(only)] = ways.as_slice() {
                    let only = only.clone();
                    keys.remove("anyOf");
                    keys.extend(only);
                }
            }
            if keys.get("default") == Some(&Value::Null) {
                keys.remove("default");
            }
            keys.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}
