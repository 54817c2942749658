//! Rules of a value and what is around it: what goes together and what does not.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Look;
use crate::recipe::problem::{At, Findings, ProblemKind, either, nearest, quoted};

/// The version of the format that this program reads.
const VERSION: u64 = 1;
/// The user's own tags: EC2 takes 50, and Bakehouse keeps 12 of them for its own.
const MOST_TAGS: usize = 38;
/// The length of an image's name (EC2, RegisterImage).
const NAME: std::ops::RangeInclusive<usize> = 3..=128;
/// What stands for something in an image's name, and the most characters that it can come to; `{name}` and
/// `{architecture}` are known better.
const PLACEHOLDERS: [(&str, usize); 4] = [
    ("date", "20060102-150405".len()),
    // A whole SHA-1 in hexadecimal.
    ("commit", 40),
    ("name", 0),
    ("architecture", 0),
];

fn bad(look: &Look<'_>, findings: &mut Findings, message: impl Into<String>, hint: impl Into<String>) {
    findings.error(ProblemKind::BadValue, &look.path, At::Value, message, hint);
}

pub(super) fn version(look: &Look<'_>, findings: &mut Findings) {
    if look.value.as_u64() != Some(VERSION) {
        bad(
            look,
            findings,
            format!("this program reads version {VERSION} of the format, and not {}", look.value),
            format!("write `version: {VERSION}`"),
        );
    }
}

pub(super) fn architectures(look: &Look<'_>, findings: &mut Findings) {
    let Value::Array(all) = look.value else {
        return;
    };
    if all.is_empty() {
        bad(look, findings, "no architecture is named", "write x86_64, arm64 or [x86_64, arm64]");
    }
    let mut seen = BTreeSet::new();
    for (number, one) in all.iter().filter_map(Value::as_str).enumerate() {
        if !seen.insert(one) {
            findings.error(
                ProblemKind::Conflict,
                &look.path.item(number),
                At::Value,
                format!("`{one}` is named twice"),
                "take one of them out",
            );
        }
    }
}

pub(super) fn base(look: &Look<'_>, findings: &mut Findings) {
    const WAYS: [&str; 6] = ["scratch", "image", "parameter", "newest", "family", "file"];
    let keys = look.value.as_object().into_iter().flatten();
    let ways: Vec<&str> = keys.map(|(key, _)| key.as_str()).filter(|key| WAYS.contains(key)).collect();
    match ways.as_slice() {
        [] => findings.error(
            ProblemKind::MissingKey,
            &look.path,
            At::Key,
            "`base` does not say what the image is made from",
            format!("give it one of {}", either(&WAYS)),
        ),
        [_] => {}
        [first, others @ ..] => {
            for other in others {
                look.conflict(
                    other,
                    findings,
                    format!("`{first}` and `{other}` both say what the image is made from"),
                    "keep one of them",
                );
            }
        }
    }
    for (key, needs) in [("channel", "family"), ("account", "family"), ("role", "account")] {
        if look.get(key).is_some() && look.get(needs).is_none() {
            look.conflict(
                key,
                findings,
                format!("`{key}` goes with `{needs}` only"),
                format!("add `{needs}`, or take `{key}` out"),
            );
        }
    }
}

pub(super) fn owners(look: &Look<'_>, findings: &mut Findings) {
    if look.value.as_array().is_some_and(Vec::is_empty) {
        bad(
            look,
            findings,
            "no owner is named",
            "name the accounts whose images are taken: anybody can publish an image of any name",
        );
    }
}

pub(super) fn method(look: &Look<'_>, findings: &mut Findings) {
    let scratch = look.recipe.pointer("/base/scratch").is_some();
    let (message, hint) = match look.value.as_str() {
        Some("direct") if scratch => (
            "`direct` changes an image that there is, and `base` is `scratch`",
            "write `auto` or `scratch`, or take the key out",
        ),
        Some("launch") if scratch || look.recipe.pointer("/base/file").is_some() => (
            "`launch` runs an instance of an image, and `base` is none",
            "bake an image of this base first, by `auto`, and launch that; or take the key out",
        ),
        Some("chroot") if scratch || look.recipe.pointer("/base/file").is_some() => (
            "`chroot` changes a volume from an image's snapshot, and `base` is no image",
            "write `auto`, or take the key out",
        ),
        Some("scratch") if !scratch && look.recipe.get("base").is_some() => {
            ("`scratch` needs `base: { scratch: … }`", "write `auto` or `direct`, or take the key out")
        }
        _ => return,
    };
    findings.error(ProblemKind::Conflict, &look.path, At::Value, message, hint);
}

pub(super) fn filesystem(look: &Look<'_>, findings: &mut Findings) {
    if look.recipe.get("base").is_some() && look.recipe.pointer("/base/scratch").is_none() {
        findings.error(
            ProblemKind::Conflict,
            &look.path,
            At::Key,
            "`filesystem` is for a root that is made from packages, and this base has its own",
            "take the key out; the file system is chosen in the recipe with `base: { scratch: … }`",
        );
    }
}

pub(super) fn encrypt(look: &Look<'_>, findings: &mut Findings) {
    let good = match look.value {
        Value::Bool(on) => !on,
        // An id, an alias or an ARN of either; KMS says which of them exist.
        Value::String(key) => {
            !key.is_empty()
                && key.len() <= 2048
                && key.chars().all(|c| c.is_ascii_alphanumeric() || ":/_-".contains(c))
        }
        _ => true,
    };
    if !good {
        bad(
            look,
            findings,
            format!("{} does not say with which key", quoted(&look.value.to_string())),
            "write a key (alias/NAME, its id or ARN), or `false`; without `encrypt` it is as the base or the account has it",
        );
    }
}

/// The texts of a list, each with its number.
fn texts<'a>(look: &Look<'a>, key: &str) -> Vec<(usize, &'a str)> {
    let items = look.value.get(key).and_then(Value::as_array);
    let items = items.into_iter().flatten().enumerate();
    items.filter_map(|(number, item)| Some((number, item.as_str()?))).collect()
}

/// A thing that stands in two lists which say the opposite of it.
fn opposed(look: &Look<'_>, findings: &mut Findings, one: &str, other: &str) {
    let first: BTreeSet<&str> = texts(look, one).into_iter().map(|(_, text)| text).collect();
    for (number, text) in texts(look, other) {
        if first.contains(text) {
            findings.error(
                ProblemKind::Conflict,
                &look.path.key(other).item(number),
                At::Value,
                format!("{} stands under `{one}` and under `{other}`", quoted(text)),
                "keep one of them, or make them two steps",
            );
        }
    }
}

fn nothing_to_do(look: &Look<'_>, findings: &mut Findings, keys: &[&str]) {
    if keys.iter().all(|key| texts(look, key).is_empty()) {
        findings.error(
            ProblemKind::MissingKey,
            &look.path,
            At::Key,
            "this step has nothing to do",
            format!("fill one of {}, or take the step out", either(keys)),
        );
    }
}

pub(super) fn packages(look: &Look<'_>, findings: &mut Findings) {
    nothing_to_do(look, findings, &["install", "files", "remove"]);
    opposed(look, findings, "install", "remove");
}

pub(super) fn services(look: &Look<'_>, findings: &mut Findings) {
    nothing_to_do(look, findings, &["enable", "disable", "mask"]);
    opposed(look, findings, "enable", "disable");
    opposed(look, findings, "enable", "mask");
}

pub(super) fn shell(look: &Look<'_>, findings: &mut Findings) {
    let keys = |name| look.get(name).and_then(Value::as_object);
    let (Some(open), Some(secret)) = (keys("env"), keys("secret-env")) else {
        return;
    };
    for name in secret.keys().filter(|name| open.contains_key(*name)) {
        findings.error(
            ProblemKind::Conflict,
            &look.path.key("secret-env").key(name),
            At::Key,
            format!("{} stands under `env` and under `secret-env`", quoted(name)),
            "keep one of them",
        );
    }
}

pub(super) fn secret(look: &Look<'_>, findings: &mut Findings) {
    if look.get("env").is_some() == look.get("file").is_some() {
        findings.error(
            ProblemKind::Conflict,
            &look.path,
            At::Key,
            "a secret comes from exactly one of `env` and `file`",
            "write { env: VARIABLE } or { file: PATH }",
        );
    }
}

pub(super) fn package_check(look: &Look<'_>, findings: &mut Findings) {
    if look.get("installed") == Some(&Value::Bool(false)) && look.get("version").is_some() {
        look.conflict(
            "version",
            findings,
            "a package that is not installed has no version",
            "take out `version` or `installed: false`",
        );
    }
}

pub(super) fn file_check(look: &Look<'_>, findings: &mut Findings) {
    if look.get("exists") == Some(&Value::Bool(false)) {
        for key in ["mode", "owner", "contains"] {
            if look.get(key).is_some() {
                look.conflict(
                    key,
                    findings,
                    format!("a file that is not there has no `{key}`"),
                    format!("take out `{key}` or `exists: false`"),
                );
            }
        }
    }
}

pub(super) fn service_check(look: &Look<'_>, findings: &mut Findings) {
    if look.get("enabled").is_none() && look.get("running").is_none() {
        findings.error(
            ProblemKind::MissingKey,
            &look.path,
            At::Key,
            "this check asks nothing of the service",
            "add `enabled:` or `running:` with true or false",
        );
    }
}

pub(super) fn image_name(look: &Look<'_>, findings: &mut Findings) {
    let Some(template) = look.value.as_str() else {
        return;
    };
    let at = |findings: &mut Findings, text: &str, message: String, hint: String| {
        findings.error(ProblemKind::BadValue, &look.path, At::Text(text.to_owned()), message, hint);
    };
    let architectures: Vec<&str> = match look.recipe.get("architecture") {
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(one)) => vec![one],
        _ => Vec::new(),
    };
    let family = look.recipe.get("name").and_then(Value::as_str).unwrap_or_default();
    let mut length = 0;
    let mut used = BTreeSet::new();
    let mut rest = template;
    while let Some(c) = rest.chars().next() {
        if c != '{' {
            if !c.is_ascii_alphanumeric() && !"()[] ./-'@_".contains(c) {
                return at(
                    findings,
                    &c.to_string(),
                    format!("{} cannot stand in the name of an image", quoted(&c.to_string())),
                    "use letters, digits, spaces and ( ) [ ] . / - ' @ _".to_owned(),
                );
            }
            length += 1;
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let names = PLACEHOLDERS.map(|(name, _)| name);
        let known = rest[1..].split_once('}').and_then(|(name, after)| {
            let (name, most) = PLACEHOLDERS.into_iter().find(|(known, _)| *known == name)?;
            Some((name, most, after))
        });
        let Some((name, most, after)) = known else {
            let written = rest.split_inclusive('}').next().unwrap_or(rest);
            let near = nearest(written.trim_matches(['{', '}']), names);
            return at(
                findings,
                written,
                format!("{} stands for nothing", quoted(written)),
                match near {
                    Some(near) => format!("did you mean `{{{near}}}`?"),
                    None => "the placeholders are {date}, {commit}, {name} and {architecture}".to_owned(),
                },
            );
        };
        length += match name {
            "name" => family.len(),
            "architecture" => architectures.iter().map(|one| one.len()).max().unwrap_or_default(),
            _ => most,
        };
        used.insert(name);
        rest = after;
    }
    if !NAME.contains(&length) {
        return bad(
            look,
            findings,
            format!("the name of the image comes to {length} characters"),
            format!("make it {} to {}", NAME.start(), NAME.end()),
        );
    }
    if architectures.len() > 1 && !used.contains("architecture") {
        return findings.error(
            ProblemKind::Conflict,
            &look.path,
            At::Value,
            "the images of all architectures would have the same name",
            "put {architecture} into it",
        );
    }
    if !used.contains("date") && !used.contains("commit") {
        findings.warning(
            &look.path,
            At::Value,
            "every bake gives the image the same name, and a place takes a name only once",
            "put {date} or {commit} into it",
        );
    }
}

pub(super) fn tags(look: &Look<'_>, findings: &mut Findings) {
    let count = look.value.as_object().map_or(0, serde_json::Map::len);
    if count > MOST_TAGS {
        findings.error(
            ProblemKind::BadValue,
            &look.path,
            At::Key,
            format!("{count} tags are too many"),
            format!("give it {MOST_TAGS} at most: EC2 takes 50, and twelve are kept for the image's lineage"),
        );
    }
}

pub(super) fn boot_mode(look: &Look<'_>, findings: &mut Findings) {
    let arm = match look.recipe.get("architecture") {
        Some(Value::Array(all)) => all.iter().any(|one| one == "arm64"),
        Some(one) => one == "arm64",
        None => false,
    };
    if arm && look.value == "legacy-bios" {
        findings.error(
            ProblemKind::Conflict,
            &look.path,
            At::Value,
            "arm64 has no BIOS to boot from",
            "write `uefi`, or take the key out",
        );
    }
}
