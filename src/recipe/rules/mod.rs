//! What a file must obey beyond the types of its keys: a table of places and small functions, here that of a recipe; a
//! buildspec has its own. A rule runs where the
//! check against the schema found nothing wrong, so that all errors of a file come in one go and none of them twice.

mod account;
mod folder;
mod launch;
mod volume;
mod whole;
pub(super) mod word;

use std::path::Path;

use serde_json::Value;

use super::key::KeyPath;
use super::problem::{At, Findings, ProblemKind};

/// What is wrong with a text, and what would be right.
pub(super) struct Wrong {
    message: String,
    hint: String,
}

pub(super) type Verdict = Result<(), Wrong>;

pub(super) fn wrong(message: impl Into<String>, hint: impl Into<String>) -> Verdict {
    Err(Wrong { message: message.into(), hint: hint.into() })
}

/// A value that a rule looks at, and what is around it.
pub(super) struct Look<'a> {
    pub(super) path: KeyPath,
    pub(super) value: &'a Value,
    /// The file as a whole.
    recipe: &'a Value,
}

impl Look<'_> {
    /// A key of this value, unless it is not set.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key)
    }

    pub(super) fn conflict(
        &self,
        key: &str,
        findings: &mut Findings,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        findings.error(ProblemKind::Conflict, &self.path.key(key), At::Key, message, hint);
    }
}

pub(super) enum Rule {
    /// Of a text by itself.
    Text(fn(&str) -> Verdict),
    /// Of a path in the recipe's folder.
    Folder(fn(&Path, &str) -> Verdict),
    /// Of the name under which a value stands.
    Key(fn(&str) -> Verdict),
    /// Of a value and what is around it.
    Whole(fn(&Look<'_>, &mut Findings)),
}

use Rule::{Folder, Key, Text, Whole};

/// Where each rule holds: keys, and `*` for every item of a list or every key of a map.
pub(super) const OF_A_RECIPE: &[(&str, Rule)] = &[
    ("version", Whole(whole::version)),
    ("name", Text(word::family)),
    ("architecture", Whole(whole::architectures)),
    ("vars.*", Key(word::variable)),
    ("accounts", Whole(account::list)),
    ("accounts.*", Text(word::account)),
    ("accounts.*", Whole(account::entered)),
    ("accounts.*.id", Text(word::account)),
    ("accounts.*.role", Text(word::role)),
    ("accounts.*.external-id", Text(word::external_id)),
    ("base", Whole(whole::base)),
    ("base.role", Whole(account::of_base)),
    ("base.image", Text(word::image_id)),
    ("base.parameter", Text(word::parameter)),
    ("base.family", Text(word::family)),
    ("base.channel", Text(word::channel)),
    ("base.account", Text(word::account)),
    ("base.role", Text(word::role)),
    ("base.file", Folder(folder::base_file)),
    ("base.newest.owners", Whole(whole::owners)),
    ("base.newest.owners.*", Text(word::owner_of_images)),
    ("base.newest.name", Text(word::filled)),
    ("base.scratch.suite", Text(word::suite)),
    ("base.scratch.components.*", Text(word::suite)),
    ("base.scratch.packages.*", Text(word::package)),
    ("base.scratch.mirror", Text(word::mirror)),
    ("base.scratch.proxy", Text(word::proxy)),
    ("method", Whole(whole::method)),
    ("launch", Whole(launch::group)),
    ("launch.instance-types.*", Text(launch::instance_type)),
    ("launch.subnet", Text(launch::subnet)),
    ("launch.subnet.*", Key(word::tag_key_of_any)),
    ("launch.security-groups.*", Text(launch::security_group)),
    ("launch.profile", Text(launch::profile)),
    ("launch.bucket", Text(launch::bucket)),
    ("disk", Whole(volume::root)),
    ("disk.volumes", Whole(volume::list)),
    ("disk.volumes.*", Whole(volume::further)),
    ("disk.volumes.*.device", Text(volume::device)),
    ("disk.volumes.*.snapshot", Text(volume::snapshot)),
    ("disk.filesystem", Whole(whole::filesystem)),
    ("disk.encrypt", Whole(whole::encrypt)),
    ("provision.*.update.release", Text(word::release)),
    ("provision.*.update.env.*", Key(word::environment)),
    ("provision.*.update.workdir", Text(word::absolute)),
    ("provision.*.packages", Whole(whole::packages)),
    ("provision.*.packages.install.*", Text(word::package)),
    ("provision.*.packages.remove.*", Text(word::package)),
    ("provision.*.packages.env.*", Key(word::environment)),
    ("provision.*.packages.workdir", Text(word::absolute)),
    ("provision.*.packages.files.*", Folder(folder::some_file)),
    ("provision.*.files.from", Folder(folder::source)),
    ("provision.*.files.to", Text(word::absolute)),
    ("provision.*.files.owner", Text(word::kept_owner)),
    ("provision.*.files.mode", Text(word::kept_mode)),
    ("provision.*.files.modes.*", Key(word::relative_pattern)),
    ("provision.*.files.modes.*", Text(word::mode)),
    ("provision.*.shell", Whole(whole::shell)),
    ("provision.*.shell.run", Text(word::filled)),
    ("provision.*.shell.workdir", Text(word::absolute)),
    ("provision.*.shell.interpreter", Text(word::absolute)),
    ("provision.*.shell.env.*", Key(word::environment)),
    ("provision.*.shell.secret-env.*", Key(word::environment)),
    ("provision.*.shell.secret-env.*", Whole(whole::secret)),
    ("provision.*.shell.secret-env.*.env", Text(word::environment)),
    ("provision.*.shell.secret-env.*.file", Folder(folder::host_file)),
    ("provision.*.ansible", Whole(launch::ansible)),
    ("provision.*.ansible.playbook", Folder(folder::file)),
    ("provision.*.ansible.extra-vars.*", Key(word::environment)),
    ("provision.*.ansible.env.*", Key(word::environment)),
    ("provision.*.services", Whole(whole::services)),
    ("provision.*.services.env.*", Key(word::environment)),
    ("provision.*.services.workdir", Text(word::absolute)),
    ("provision.*.services.enable.*", Text(word::unit)),
    ("provision.*.services.disable.*", Text(word::unit)),
    ("provision.*.services.mask.*", Text(word::unit)),
    ("seal.remove.*", Text(word::sealed)),
    ("checks.*.package", Whole(whole::package_check)),
    ("checks.*.package.name", Text(word::package_name)),
    ("checks.*.package.version", Text(word::constraint)),
    ("checks.*.file", Whole(whole::file_check)),
    ("checks.*.file.path", Text(word::absolute)),
    ("checks.*.file.mode", Text(word::mode)),
    ("checks.*.file.owner", Text(word::owner_of_files)),
    ("checks.*.file.contains", Text(word::filled)),
    ("checks.*.service", Whole(whole::service_check)),
    ("checks.*.service.name", Text(word::unit)),
    ("checks.*.command.run", Text(word::filled)),
    ("checks.*.command.contains", Text(word::filled)),
    ("boot.console", Text(word::filled)),
    ("image.name", Whole(whole::image_name)),
    ("image.description", Text(word::description)),
    ("image.tags", Whole(whole::tags)),
    ("image.tags.*", Key(word::tag_key)),
    ("image.tags.*", Text(word::tag_value)),
    ("image.boot-mode", Whole(whole::boot_mode)),
];

/// Runs every rule of a table.
pub(super) fn check(rules: &[(&str, Rule)], recipe: &Value, folder: &Path, findings: &mut Findings) {
    for (pattern, rule) in rules {
        let keys: Vec<&str> = pattern.split('.').collect();
        let mut found = Vec::new();
        collect(recipe, &keys, &KeyPath::default(), &mut found);
        for (path, value) in found {
            if findings.are_full() {
                return;
            }
            if !findings.touch(&path) {
                run(rule, path, value, recipe, folder, findings);
            }
        }
    }
}

fn run(rule: &Rule, path: KeyPath, value: &Value, recipe: &Value, folder: &Path, findings: &mut Findings) {
    let (kind, at, verdict) = match rule {
        Text(rule) => match value.as_str() {
            Some(text) => (ProblemKind::BadValue, At::Value, rule(text)),
            None => return,
        },
        Folder(rule) => match value.as_str() {
            Some(text) => (ProblemKind::Path, At::Value, rule(folder, text)),
            None => return,
        },
        Key(rule) => match path.name() {
            Some(name) => (ProblemKind::BadValue, At::Key, rule(name)),
            None => return,
        },
        Whole(rule) => {
            let look = Look { path, value, recipe };
            return rule(&look, findings);
        }
    };
    if let Err(Wrong { message, hint }) = verdict {
        findings.error(kind, &path, at, message, hint);
    }
}

/// Every value that a pattern fits.
fn collect<'a>(value: &'a Value, keys: &[&str], path: &KeyPath, found: &mut Vec<(KeyPath, &'a Value)>) {
    let Some((key, rest)) = keys.split_first() else {
        found.push((path.clone(), value));
        return;
    };
    match (value, *key) {
        (Value::Array(items), "*") => {
            for (number, item) in items.iter().enumerate() {
                collect(item, rest, &path.item(number), found);
            }
        }
        (Value::Object(all), "*") => {
            for (key, value) in all {
                collect(value, rest, &path.key(key), found);
            }
        }
        (Value::Object(all), key) => {
            if let Some(value) = all.get(key) {
                collect(value, rest, &path.key(key), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::recipe::schema;

    /// A pattern that fits no key of the schema would be a rule that never runs.
    #[test]
    fn every_rule_names_a_place_that_the_schema_has() {
        every_rule_has_its_place(OF_A_RECIPE, &schema());
    }

    pub(in crate::recipe) fn every_rule_has_its_place(rules: &[(&str, Rule)], whole: &Value) {
        for (pattern, _) in rules {
            let mut at = vec![whole];
            for key in pattern.split('.') {
                at = at.into_iter().flat_map(|schema| inside(whole, schema, key)).collect();
                assert!(!at.is_empty(), "{pattern}: nothing at `{key}`");
            }
        }
    }

    fn inside<'a>(whole: &'a Value, schema: &'a Value, key: &str) -> Vec<&'a Value> {
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            return inside(whole, whole.pointer(&target[1..]).unwrap(), key);
        }
        let mut found = Vec::new();
        for ways in ["oneOf", "anyOf"] {
            for way in schema.get(ways).and_then(Value::as_array).into_iter().flatten() {
                found.extend(inside(whole, way, key));
            }
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        if key == "*" {
            found.extend(schema.get("items"));
            found.extend(schema.get("additionalProperties").filter(|others| **others != Value::Bool(false)));
            found.extend(properties.into_iter().flat_map(|all| all.values()));
        } else {
            found.extend(properties.and_then(|all| all.get(key)));
        }
        found
    }
}
