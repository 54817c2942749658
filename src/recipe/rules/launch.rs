//! Rules of `launch`, and of what goes with the method of that name.

use serde_json::Value;

use super::{Look, Verdict, wrong};
use crate::recipe::problem::{At, Findings, ProblemKind, quoted};

fn hexadecimal(digits: &str) -> bool {
    (8..=17).contains(&digits.len()) && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

pub(super) fn instance_type(text: &str) -> Verdict {
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    match text.split_once('.') {
        Some((family, size)) if part(family) && part(size) => Ok(()),
        _ => wrong(
            format!("{} is no instance type", quoted(text)),
            "write it as EC2 does: t3.small, m7g.large",
        ),
    }
}

pub(super) fn subnet(text: &str) -> Verdict {
    match text.strip_prefix("subnet-") {
        Some(digits) if hexadecimal(digits) => Ok(()),
        _ => wrong(
            format!("{} is no subnet", quoted(text)),
            "write its id, subnet-0123456789abcdef0, or the tags that it has: { Name: build }",
        ),
    }
}

pub(super) fn security_group(text: &str) -> Verdict {
    match text.strip_prefix("sg-") {
        Some(digits) if hexadecimal(digits) => Ok(()),
        _ => wrong(format!("{} is no security group", quoted(text)), "write its id: sg-0123456789abcdef0"),
    }
}

pub(super) fn profile(text: &str) -> Verdict {
    let name = match text.strip_prefix("arn:") {
        Some(arn) => {
            arn.split_once(":instance-profile/").map_or("", |(_, path)| path.rsplit('/').next().unwrap_or(""))
        }
        None => text,
    };
    // IAM: letters, digits and these, at most 128.
    let letter = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    if !name.is_empty() && name.len() <= 128 && name.chars().all(letter) {
        return Ok(());
    }
    wrong(
        format!("{} is no instance profile", quoted(text)),
        "write its name, or its ARN: arn:aws:iam::123456789012:instance-profile/NAME",
    )
}

pub(super) fn bucket(text: &str) -> Verdict {
    // S3: 3 to 63 of these, a letter or digit at both ends.
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let good = (3..=63).contains(&text.len())
        && text.bytes().all(|b| letter(b) || b == b'-' || b == b'.')
        && text.bytes().next().is_some_and(letter)
        && text.bytes().last().is_some_and(letter);
    if good {
        return Ok(());
    }
    wrong(
        format!("{} is no bucket", quoted(text)),
        "write its name only, without s3://: 3 to 63 lower-case letters, digits, dots and hyphens",
    )
}

/// The key says something of an instance, and one is launched by one method only.
pub(super) fn group(look: &Look<'_>, findings: &mut Findings) {
    let method = look.recipe.get("method").and_then(Value::as_str);
    if let Some(method @ ("direct" | "scratch" | "chroot")) = method {
        findings.error(
            ProblemKind::Conflict,
            &look.path,
            At::Key,
            format!("`launch` is for the method `launch`, and `method` is `{method}`"),
            "write `method: launch` or `method: auto`, or take the key out",
        );
    }
}

/// ansible-playbook runs on the host and enters roots that lie there.
pub(super) fn ansible(look: &Look<'_>, findings: &mut Findings) {
    if look.recipe.get("method").and_then(Value::as_str) == Some("launch") {
        findings.error(
            ProblemKind::Conflict,
            &look.path,
            At::Key,
            "`ansible` runs where Bakehouse runs, and reaches no instance of the method `launch`",
            "use another method, or install Ansible and run it in a `shell` step",
        );
    }
}
