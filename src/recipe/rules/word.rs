//! Rules of one text by itself: which characters, which form, how long. Touches no file.

use super::{Verdict, Wrong, wrong};
use crate::cloud::{AccountId, ImageId};
use crate::recipe::problem::quoted;
use crate::recipe::vars;

/// The longest name of a family: with a date, a commit and an architecture it still makes a name that EC2 takes.
const LONGEST_FAMILY: usize = 64;
/// The longest description of an image (EC2, RegisterImage).
const LONGEST_DESCRIPTION: usize = 255;
/// The longest key and value of a tag (EBS API model).
const LONGEST_TAG_KEY: usize = 127;
const LONGEST_TAG_VALUE: usize = 255;
/// The longest name of a parameter, counting its ARN (SSM, PutParameter).
const LONGEST_PARAMETER: usize = 1011;

fn require(good: bool, text: &str, what: &str, hint: &str) -> Verdict {
    if good { Ok(()) } else { wrong(format!("{} is not {what}", quoted(text)), hint) }
}

/// Whether a text begins with one sort of character and goes on with another.
fn made_of(text: &str, first: impl Fn(char) -> bool, others: impl Fn(char) -> bool) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(first) && characters.all(others)
}

fn lower(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn alphanumeric(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

pub(in crate::recipe) fn filled(text: &str) -> Verdict {
    if text.trim().is_empty() {
        return wrong("there is nothing in this text", "write it, or take the key out");
    }
    if text.contains('\0') {
        return wrong("there is a zero byte in this text", "take it out: no program could be given it");
    }
    Ok(())
}

pub(super) fn family(text: &str) -> Verdict {
    require(
        text.len() <= LONGEST_FAMILY && made_of(text, lower, |c| lower(c) || "._-".contains(c)),
        text,
        "the name of a family",
        "use lower-case letters, digits, `.`, `_` and `-`, beginning with a letter or digit, 64 at most: web, os-base",
    )
}

pub(super) fn channel(text: &str) -> Verdict {
    require(
        text.len() <= LONGEST_FAMILY && made_of(text, lower, |c| lower(c) || "._-".contains(c)),
        text,
        "the name of a channel",
        "use lower-case letters, digits, `.`, `_` and `-`: release, candidate",
    )
}

pub(super) fn variable(text: &str) -> Verdict {
    require(
        vars::is_name(text),
        text,
        "the name of a variable",
        "use letters, digits, `_` and `-`, beginning with a letter",
    )
}

pub(in crate::recipe) fn environment(text: &str) -> Verdict {
    require(
        made_of(text, |c| c.is_ascii_alphabetic() || c == '_', |c| alphanumeric(c) || c == '_'),
        text,
        "the name of a variable",
        "use letters, digits and `_`, beginning with a letter or `_`",
    )
}

pub(super) fn image_id(text: &str) -> Verdict {
    require(
        ImageId::parse(text).is_some(),
        text,
        "the id of an image",
        "write one like ami-0123456789abcdef0; a name goes into `newest: { owners: […], name: … }`",
    )
}

pub(super) fn parameter(text: &str) -> Verdict {
    require(
        text.len() <= LONGEST_PARAMETER
            && made_of(
                text,
                |c| alphanumeric(c) || "/._-".contains(c),
                |c| alphanumeric(c) || "/._-:".contains(c),
            ),
        text,
        "the name of a parameter",
        "write one like /aws/service/debian/release/12/latest/amd64",
    )
}

pub(super) fn account(text: &str) -> Verdict {
    require(AccountId::parse(text).is_some(), text, "an account", "write its twelve digits, in quotes")
}

pub(super) fn role(text: &str) -> Verdict {
    let name = |text: &str| {
        text.len() <= 64 && made_of(text, alphanumeric, |c| alphanumeric(c) || "_+=,.@-".contains(c))
    };
    let good = match text.strip_prefix("arn:") {
        Some(arn) => {
            let parts: Vec<&str> = arn.splitn(5, ':').collect();
            matches!(parts.as_slice(), [_, "iam", "", account, role] if AccountId::parse(account).is_some()
                && role.strip_prefix("role/").is_some_and(|path| path.split('/').all(name)))
        }
        None => name(text),
    };
    require(good, text, "a role", "write its name, or its ARN: arn:aws:iam::123456789012:role/NAME")
}

pub(super) fn external_id(text: &str) -> Verdict {
    // STS, AssumeRole: 2 to 1,224 of these.
    let letter = |c: char| alphanumeric(c) || "_+=,.@:/-".contains(c);
    require(
        (2..=1224).contains(&text.len()) && text.chars().all(letter),
        text,
        "an external id",
        "write 2 to 1224 letters, digits and any of _+=,.@:/-",
    )
}

pub(super) fn owner_of_images(text: &str) -> Verdict {
    require(
        matches!(text, "self" | "amazon" | "aws-marketplace") || AccountId::parse(text).is_some(),
        text,
        "an owner of images",
        "write an account's twelve digits in quotes, `self`, `amazon` or `aws-marketplace`",
    )
}

pub(super) fn suite(text: &str) -> Verdict {
    require(
        made_of(text, lower, |c| lower(c) || "._-/".contains(c)) && !text.contains(".."),
        text,
        "the name of a suite or component",
        "use the archive's own word: bookworm, noble; main, universe",
    )
}

pub(super) fn mirror(text: &str) -> Verdict {
    require(
        is_url(text, &["http://", "https://", "file:///"]),
        text,
        "an archive",
        "write its address, beginning with https://, http:// or file:///",
    )
}

pub(super) fn proxy(text: &str) -> Verdict {
    require(
        is_url(text, &["http://", "https://"]),
        text,
        "a proxy",
        "write its address, beginning with http://",
    )
}

fn is_url(text: &str, schemes: &[&str]) -> bool {
    let rest = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
    // Quotes, brackets and spaces would end the address where an archive's list of sources is written.
    rest.is_some_and(|rest| {
        made_of(rest, alphanumeric, |c| alphanumeric(c) || "-._~:/?#@!$&()*+,;=%".contains(c))
    })
}

/// A package as a package manager is given it: a name, and perhaps an architecture, a version or a suite.
pub(super) fn package(text: &str) -> Verdict {
    let name = text.split([':', '=', '/']).next().unwrap_or_default();
    let rest = &text[name.len()..];
    // dnf and yum take the version for a part of the name, and those of rpm may hold `~` and `^`; at the end apt takes
    // that for a task.
    let good = is_package(&name.replace(['~', '^'], "."))
        && !name.ends_with('^')
        && (rest.is_empty() || rest.len() > 1)
        && rest.chars().all(|c| alphanumeric(c) || ":=/.+~^_-".contains(c));
    require(
        good,
        text,
        "a package",
        "write its name; one version is nginx=1.22.1-9 to apt and zypper, nginx-1.22.1-9 to dnf and yum",
    )
}

pub(super) fn package_name(text: &str) -> Verdict {
    require(
        is_package(text),
        text,
        "the name of a package",
        "write its name only; the version has a key of its own",
    )
}

fn is_package(name: &str) -> bool {
    // apt takes a `-` at the end for an order to remove it.
    made_of(name, alphanumeric, |c| alphanumeric(c) || "+._-".contains(c)) && !name.ends_with('-')
}

pub(super) fn constraint(text: &str) -> Verdict {
    // The longer signs first, since the shorter ones begin them.
    let version = [">=", "<=", "=", ">", "<"].iter().find_map(|sign| text.strip_prefix(sign));
    let good = version.map(str::trim).is_some_and(|version| {
        made_of(version, |c| c.is_ascii_digit(), |c| alphanumeric(c) || ".+~^_:-".contains(c))
    });
    require(good, text, "a version to compare with", "begin it with >=, <=, =, > or <, in quotes: \">=1.22\"")
}

/// A release of Amazon Linux 2023: its name, a number and a day.
pub(super) fn release(text: &str) -> Verdict {
    let parts: Vec<&str> = text.split('.').collect();
    let digits = |part: &str, longest: usize| {
        (1..=longest).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let good =
        matches!(parts[..], ["2023", number, day] if digits(number, 4) && day.len() == 8 && digits(day, 8));
    require(
        good,
        text,
        "a release of Amazon Linux 2023",
        "write its three parts in quotes: \"2023.6.20241212\"; without the key it is the newest",
    )
}

pub(super) fn unit(text: &str) -> Verdict {
    require(
        text.len() <= 255 && made_of(text, alphanumeric, |c| alphanumeric(c) || ":_.\\@-".contains(c)),
        text,
        "the name of a service",
        "write it as systemctl takes it: nginx, ssh.socket, getty@tty1",
    )
}

pub(super) fn owner_of_files(text: &str) -> Verdict {
    let name = |text: &str| {
        text.len() <= 32
            && made_of(text, |c| alphanumeric(c) || c == '_', |c| alphanumeric(c) || "_.-$".contains(c))
    };
    let (user, group) = text.split_once(':').unwrap_or((text, "root"));
    require(
        name(user) && name(group),
        text,
        "an owner",
        "write user or user:group: www-data, root:adm, 1000:1000",
    )
}

pub(super) fn kept_owner(text: &str) -> Verdict {
    if text == "keep" {
        return Ok(());
    }
    owner_of_files(text)
        .map_err(|Wrong { message, hint }| Wrong { message, hint: format!("{hint}; or `keep`") })
}

pub(super) fn mode(text: &str) -> Verdict {
    require(
        (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7')),
        text,
        "a file's mode",
        "write three or four octal digits in quotes: \"0644\"",
    )
}

pub(super) fn kept_mode(text: &str) -> Verdict {
    if text == "keep" {
        return Ok(());
    }
    mode(text).map_err(|Wrong { message, .. }| Wrong {
        message,
        hint: "write `keep`, or three or four octal digits in quotes: \"0644\"".to_owned(),
    })
}

/// A pattern of paths below a folder that the recipe names.
pub(super) fn relative_pattern(text: &str) -> Verdict {
    let mut parts = text.strip_suffix('/').unwrap_or(text).split('/');
    let part = |part: &str| {
        let name = !matches!(part, "" | "." | "..") && !part.contains('\0');
        name && (part == "**" || !part.contains("**"))
    };
    require(
        parts.all(part),
        text,
        "a pattern of files below `from`",
        "write a path relative to `from`, with `*` and `?` in names and `**` for any folders: usr/local/bin/*, **/*.sh",
    )
}

/// A path in the image.
pub(super) fn absolute(text: &str) -> Verdict {
    if !text.starts_with('/') || text.contains('\0') {
        return wrong(format!("{} is not a path in the image", quoted(text)), "begin it with `/`");
    }
    if text.split('/').any(|part| part == "..") {
        return wrong(format!("{} goes up with `..`", quoted(text)), "write the folder that is meant");
    }
    Ok(())
}

/// A path that the seal removes.
pub(super) fn sealed(text: &str) -> Verdict {
    absolute(text)?;
    let first = text.split('/').find(|part| !matches!(*part, "" | "."));
    if first.is_none_or(|first| first.chars().all(|c| c == '*')) {
        return wrong(
            format!("{} would remove the whole image", quoted(text)),
            "name what is to go: /root/build, /var/cache/app/*",
        );
    }
    Ok(())
}

pub(super) fn description(text: &str) -> Verdict {
    let length = text.chars().count();
    if length > LONGEST_DESCRIPTION {
        return wrong(
            format!("the description has {length} characters"),
            format!("use {LONGEST_DESCRIPTION} at most"),
        );
    }
    if text.chars().any(char::is_control) {
        return wrong("the description has more than one line", "write it on one line");
    }
    Ok(())
}

pub(super) fn tag_key(text: &str) -> Verdict {
    let start = text.to_ascii_lowercase();
    if let Some(taken) = ["aws:", "bakehouse:"].into_iter().find(|taken| start.starts_with(taken)) {
        return wrong(
            format!("tags that begin with `{taken}` are not the recipe's to give"),
            "give it another name",
        );
    }
    tag_key_of_any(text)
}

/// The key of a tag that is there, whoever gave it.
pub(super) fn tag_key_of_any(text: &str) -> Verdict {
    let length = text.chars().count();
    if !(1..=LONGEST_TAG_KEY).contains(&length) || text.chars().any(char::is_control) {
        return wrong(
            format!("{} cannot be the name of a tag", quoted(text)),
            format!("use 1 to {LONGEST_TAG_KEY} characters; this has {length}"),
        );
    }
    Ok(())
}

pub(super) fn tag_value(text: &str) -> Verdict {
    let length = text.chars().count();
    if length > LONGEST_TAG_VALUE || text.chars().any(char::is_control) {
        return wrong(
            format!("{} cannot be the value of a tag", quoted(text)),
            format!("use {LONGEST_TAG_VALUE} characters at most, on one line; this has {length}"),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rule: fn(&str) -> Verdict, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(rule(text).is_ok(), "{text:?} should be right");
        }
        for text in bad {
            assert!(rule(text).is_err(), "{text:?} should be wrong");
        }
    }

    #[test]
    fn names() {
        let long = "a".repeat(65);
        table(family, &["web", "os-base", "0a", "a.b_c"], &["", "Web", "-a", "a b", "a/b", "é", &long]);
        table(environment, &["A", "_a1"], &["", "1A", "A-B", "A=B"]);
        table(unit, &["nginx", "ssh.socket", "getty@tty1", r"a\x2db.mount"], &["", "-a", "a b", "a/b", "@x"]);
        table(
            role,
            &["Bakery", "arn:aws:iam::123456789012:role/a/b", "arn:aws-cn:iam::123456789012:role/b"],
            &["", "a b", "arn:aws:iam::123456789012:user/b", "arn:aws:iam::1:role/b", "arn:x"],
        );
    }

    #[test]
    fn packages_and_versions() {
        table(
            package,
            &["nginx", "g++", "libc6:i386", "nginx=1.22.1-9+deb12u2", "nginx/stable", "linux-image-6.1"],
            &["", "-y", "nginx-", "nginx=", "a b", "nginx;reboot", "*", "=1", "web-server^", "~nweb"],
        );
        table(package, &["app-1.0~rc1-1.el9", "app-2:1.0^git1-1.x86_64", "app=1.0^git1-1"], &[]);
        table(package_name, &["nginx", "g++"], &["nginx=1", "libc6:i386", ""]);
        table(
            constraint,
            &[">=1.22", "< 2", "=1:2~rc1-3", ">1"],
            &["1.22", ">=", "==1", "~1", ">= ;x", ">=x"],
        );
        table(constraint, &[">=1.0^git1-2.el9_3"], &[]);
        table(
            release,
            &["2023.6.20241212", "2023.10.20260105"],
            &[
                "",
                "latest",
                "2023",
                "2023.6",
                "2023.6.2024121",
                "2023.6.20241212.0",
                "2022.0.20220101",
                "2023..20241212",
            ],
        );
    }

    #[test]
    fn paths_and_modes() {
        table(absolute, &["/", "/etc/x", "/a/.b", "/a/..b"], &["", "etc", "./a", "/a/../b", "/.."]);
        table(sealed, &["/a", "/a/*", "/*.log"], &["/", "/*", "//*", "/./*", "/./", "a"]);
        table(mode, &["644", "0644", "4755"], &["", "9", "0o644", "00644", "rwx", "648"]);
        table(kept_mode, &["keep", "0600"], &["kept"]);
        table(
            relative_pattern,
            &["a", "usr/local/bin/*", "**/*.sh", "**", "bin/", ".a/?"],
            &["", "/", "/bin/*", "../a", "a/./b", "a//b", "**.sh", "a/**b", "a/../b", "a\0"],
        );
        table(
            owner_of_files,
            &["root", "root:adm", "1000:1000", "www-data"],
            &["", ":adm", "a:", "a:b:c", "a b"],
        );
        table(kept_owner, &["keep", "root:adm"], &["", "keep it", "keep:"]);
    }

    #[test]
    fn addresses() {
        table(
            mirror,
            &["https://deb.example.org/debian", "file:///srv/mirror"],
            &["", "ftp://a", "https://", "https://a b", "http://a\nb", "deb http://a", "http://a]"],
        );
    }

    #[test]
    fn tags() {
        let (key, value) = ("k".repeat(127), "v".repeat(255));
        table(
            tag_key,
            &["team", "a:b", "bakehouse", &key],
            &["", "aws:x", "AWS:x", "bakehouse:bake", &format!("{key}k")],
        );
        table(tag_value, &["", &value], &[&format!("{value}v"), "a\nb"]);
    }
}
