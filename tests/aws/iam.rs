//! IAM, as far as our policies ask for it: whether one allows what is asked about a call (`authorization.py`), and what of
//! it nothing asks for. What it does not know of a policy is a panic.

use serde_json::{Value, json};

/// One element, or a list of them.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(all) => all.iter().map(|one| one.as_str().unwrap()).collect(),
        one => vec![one.as_str().unwrap()],
    }
}

/// `*` is any text and `?` any character, in a policy's text alone.
pub fn like(pattern: &str, text: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => text.is_empty(),
        Some('*') => {
            text.char_indices().any(|(at, _)| like(rest.as_str(), &text[at..])) || like(rest.as_str(), "")
        }
        Some(wanted) => {
            let mut of_text = text.chars();
            of_text.next().is_some_and(|c| wanted == '?' || wanted == c)
                && like(rest.as_str(), of_text.as_str())
        }
    }
}

/// A condition. A key that the call does not have is equal to nothing; of no values, all are whatever is wanted.
fn holds(operator: &str, key: &str, wanted: &Value, context: &Value) -> bool {
    let (wanted, has) = (texts(wanted), context.get(key).map(texts).unwrap_or_default());
    let one = |meets: &dyn Fn(&str) -> bool| {
        assert!(has.len() < 2, "{key} has several values, and {operator} takes one");
        has.first().is_some_and(|value| meets(value))
    };
    match operator {
        "StringEquals" | "Bool" => one(&|value| wanted.contains(&value)),
        "StringLike" => one(&|value| wanted.iter().any(|pattern| like(pattern, value))),
        "Null" => wanted == [if has.is_empty() { "true" } else { "false" }],
        "ForAllValues:StringEquals" => has.iter().all(|value| wanted.contains(value)),
        "ForAnyValue:StringEquals" => has.iter().any(|value| wanted.contains(value)),
        other => panic!("nobody judges {other}"),
    }
}

fn statement_allows(statement: &Value, asked: &Value) -> bool {
    let known = ["Sid", "Effect", "Action", "Resource", "Condition"];
    assert!(statement.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{statement:#}");
    assert_eq!(statement["Effect"], "Allow");
    let (action, resource) = (asked["action"].as_str().unwrap(), asked["resource"].as_str().unwrap());
    let mut conditions = statement["Condition"].as_object().into_iter().flatten();
    texts(&statement["Action"]).iter().any(|pattern| like(pattern, action))
        && texts(&statement["Resource"]).iter().any(|pattern| like(pattern, resource))
        && conditions.all(|(operator, keys)| {
            keys.as_object()
                .unwrap()
                .iter()
                .all(|(key, wanted)| holds(operator, key, wanted, &asked["context"]))
        })
}

pub fn allows(policy: &Value, asked: &Value) -> bool {
    policy["Statement"].as_array().unwrap().iter().any(|statement| statement_allows(statement, asked))
}

/// What of this is denied.
pub fn denied<'a>(policy: &Value, asked: &'a [Value]) -> Vec<&'a Value> {
    asked.iter().filter(|one| !allows(policy, one)).collect()
}

/// Everything of a policy that is not needed: each of its actions, resources and values of conditions in turn is another,
/// and what is asked is allowed all the same. Told as `Sid: what`.
pub fn needless(policy: &Value, asked: &[Value]) -> Vec<String> {
    let mut all = Vec::new();
    for (number, statement) in policy["Statement"].as_array().unwrap().iter().enumerate() {
        for (pointer, what) in leaves(statement) {
            let mut narrowed = policy.clone();
            let leaf = narrowed["Statement"][number].pointer_mut(&pointer).unwrap();
            *leaf = json!(if what == "false" { "true" } else { "another" });
            if denied(&narrowed, asked).is_empty() {
                all.push(format!("{}: {what}", statement["Sid"].as_str().unwrap()));
            }
        }
    }
    all
}

/// The texts in a statement that bound it, with where they are.
fn leaves(statement: &Value) -> Vec<(String, String)> {
    fn walk(value: &Value, pointer: &str, into: &mut Vec<(String, String)>) {
        let part = |key: &str| format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
        match value {
            Value::String(text) => into.push((pointer.to_owned(), text.clone())),
            Value::Array(all) => {
                all.iter().enumerate().for_each(|(at, one)| walk(one, &part(&at.to_string()), into));
            }
            Value::Object(all) => all.iter().for_each(|(key, one)| walk(one, &part(key), into)),
            other => panic!("{other} in a policy"),
        }
    }
    let mut all = Vec::new();
    for name in ["Action", "Resource", "Condition"] {
        if let Some(value) = statement.get(name) {
            walk(value, &format!("/{name}"), &mut all);
        }
    }
    all
}

/// That it can say no, to each element by itself.
#[test]
fn what_a_policy_does_not_say_is_denied() {
    let policy = json!({ "Version": "2012-10-17", "Statement": [
        { "Sid": "Own", "Effect": "Allow", "Action": ["ec2:Delete*"], "Resource": ["arn:aws:ec2:eu-west-1::snapshot/*"],
          "Condition": {
              "StringEquals": { "aws:ResourceTag/family": "web" },
              "Null": { "aws:ResourceTag/bake": "false" },
              "ForAllValues:StringEquals": { "aws:TagKeys": ["expires"] },
          } },
        { "Sid": "Keys", "Effect": "Allow", "Action": "kms:Decrypt", "Resource": "*", "Condition": {
              "ForAnyValue:StringEquals": { "kms:ResourceAliases": ["alias/bakery"] },
              "StringLike": { "kms:ViaService": ["ec2.*.amazonaws.com"] },
              "Bool": { "kms:GrantIsForAWSResource": "true" },
          } },
    ] });
    let asked = |action: &str, resource: &str, context: Value| json!({ "action": action, "resource": resource, "context": context });
    let arn = "arn:aws:ec2:eu-west-1::snapshot/snap-1";
    let has = |family: &str| json!({ "aws:ResourceTag/family": family, "aws:ResourceTag/bake": "1", "aws:TagKeys": ["expires"] });
    let without = |key: &str, mut of: Value| {
        of.as_object_mut().unwrap().remove(key);
        of
    };
    let with = |key: &str, value: Value, mut of: Value| {
        of[key] = value;
        of
    };
    let key = json!({ "kms:ResourceAliases": ["alias/x", "alias/bakery"], "kms:ViaService": "ec2.eu-west-1.amazonaws.com",
        "kms:GrantIsForAWSResource": "true" });
    let yes = [
        asked("ec2:DeleteSnapshot", arn, has("web")),
        asked("ec2:DeleteTags", arn, without("aws:TagKeys", has("web"))),
        asked("kms:Decrypt", "arn:aws:kms:x", key.clone()),
    ];
    assert!(denied(&policy, &yes).is_empty());
    let no = [
        asked("ec2:DeregisterImage", arn, has("web")),
        asked("ec2:DeleteSnapshot", "arn:aws:ec2:eu-west-2::snapshot/snap-1", has("web")),
        asked("ec2:DeleteSnapshot", "arn:aws:ec2:eu-west-1::image/ami-1", has("web")),
        asked("ec2:DeleteSnapshot", arn, has("app")),
        asked("ec2:DeleteSnapshot", arn, without("aws:ResourceTag/family", has("web"))),
        asked("ec2:DeleteSnapshot", arn, without("aws:ResourceTag/bake", has("web"))),
        asked("ec2:DeleteTags", arn, with("aws:TagKeys", json!(["expires", "family"]), has("web"))),
        asked("kms:Encrypt", "arn:aws:kms:x", key.clone()),
        asked("kms:Decrypt", "arn:aws:kms:x", with("kms:ResourceAliases", json!(["alias/x"]), key.clone())),
        asked("kms:Decrypt", "arn:aws:kms:x", with("kms:ResourceAliases", json!([]), key.clone())),
        asked(
            "kms:Decrypt",
            "arn:aws:kms:x",
            with("kms:ViaService", json!("rds.eu-west-1.amazonaws.com"), key.clone()),
        ),
        asked("kms:Decrypt", "arn:aws:kms:x", without("kms:GrantIsForAWSResource", key.clone())),
    ];
    assert_eq!(denied(&policy, &no), no.iter().collect::<Vec<_>>());
    // Only the first of the deletions has tags in it: the guard of its keys is what nothing asks for.
    assert_eq!(needless(&policy, &yes[1..]), ["Own: expires"]);
    assert_eq!(needless(&policy, &yes), Vec::<String>::new());
}
