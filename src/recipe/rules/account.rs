//! Rules of `accounts`, and of the roles by which they are entered.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Look;
use crate::recipe::problem::{At, Findings, ProblemKind};

/// The id of an item, whichever way it is written.
fn id(item: &Value) -> Option<&str> {
    item.as_str().or_else(|| item.get("id")?.as_str())
}

pub(super) fn list(look: &Look<'_>, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (number, item) in look.value.as_array().into_iter().flatten().enumerate() {
        if let Some(id) = id(item)
            && !seen.insert(id)
        {
            findings.error(
                ProblemKind::Conflict,
                &look.path.item(number),
                At::Value,
                format!("the account {id} is named twice"),
                "take one of them out",
            );
        }
    }
}

/// A role's ARN names its account itself.
pub(super) fn entered(look: &Look<'_>, findings: &mut Findings) {
    let (Some(id), Some(role)) = (id(look.value), look.get("role").and_then(Value::as_str)) else { return };
    match role.strip_prefix("arn:").and_then(|arn| arn.split(':').nth(3)) {
        Some(of) if of != id => look.conflict(
            "role",
            findings,
            format!("the role is of the account {of}, and not of {id}"),
            "write the ARN of a role in that account, or the role's name alone",
        ),
        _ => {}
    }
}

/// One place says which role an account is entered by.
pub(super) fn of_base(look: &Look<'_>, findings: &mut Findings) {
    let account = look.recipe.pointer("/base/account").and_then(Value::as_str);
    let accounts = look.recipe.get("accounts").and_then(Value::as_array).into_iter().flatten();
    let entered = |item: &&Value| item.get("role").is_some() && id(item) == account;
    if account.is_some() && accounts.into_iter().any(|item| entered(&item)) {
        findings.error(
            ProblemKind::Conflict,
            &look.path,
            At::Key,
            "`accounts` and `base.role` both say which role is taken in the base's account",
            "keep the one under `accounts`",
        );
    }
}
