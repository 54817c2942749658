//! What a root's packages are fetched from, sources.list(5): both formats, and the part of it that is security
//! updates.

use crate::host::root_dir::RootDir;
use crate::provision::root::RootError;

/// The files that name sources.
pub(super) const FILES: [&str; 3] =
    ["/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list", "/etc/apt/sources.list.d/*.sources"];

/// The same sources with nothing but security suites, as the two formats' files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Security {
    pub list: String,
    pub sources: String,
}

/// The security suites among the root's sources. `None` where there is none.
pub(super) fn security(root: &RootDir) -> Result<Option<Security>, RootError> {
    let mut found = Security::default();
    for (path, text) in super::super::read(root, &FILES)? {
        if path.ends_with(".sources") {
            found.sources.push_str(&stanzas(&text));
        } else {
            found.list.push_str(&lines(&text));
        }
    }
    Ok((found != Security::default()).then_some(found))
}

/// Debian: `bookworm-security`, until buster `buster/updates`. Ubuntu: `noble-security`, `noble-infra-security`.
fn is_security(suite: &str) -> bool {
    let suite = suite.trim_end_matches('/');
    suite.ends_with("-security") || suite.ends_with("/updates")
}

/// One line per source: `deb [options] uri suite components`.
fn lines(text: &str) -> String {
    let keep = |line: &&str| {
        let Some(rest) = line.trim_start().strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t']))
        else {
            return false;
        };
        let rest = rest.trim_start();
        let after_options = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']').map_or("", |(_, after)| after),
            None => rest,
        };
        after_options.split_whitespace().nth(1).is_some_and(is_security)
    };
    text.lines().filter(keep).map(|line| format!("{line}\n")).collect()
}

/// Paragraphs of fields (deb822).
fn stanzas(text: &str) -> String {
    let mut kept = String::new();
    let mut paragraph: Vec<&str> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')).chain([""]) {
        if !line.trim().is_empty() {
            paragraph.push(line);
            continue;
        }
        if let Some(stanza) = stanza(&paragraph) {
            kept.push_str(&stanza);
            kept.push('\n');
        }
        paragraph.clear();
    }
    kept
}

/// A paragraph with only its security suites; `None` where it has none, holds no binary packages, or is switched off.
fn stanza(paragraph: &[&str]) -> Option<String> {
    let mut rest = String::new();
    let mut values: [(&str, String); 3] = ["types", "suites", "enabled"].map(|name| (name, String::new()));
    let mut current: Option<usize> = None;
    for line in paragraph {
        if line.starts_with([' ', '\t']) {
            match current {
                Some(at) => {
                    values[at].1.push(' ');
                    values[at].1.push_str(line);
                }
                None => rest.push_str(&format!("{line}\n")),
            }
            continue;
        }
        let (name, value) = line.split_once(':')?;
        current = values.iter().position(|(known, _)| known.eq_ignore_ascii_case(name.trim()));
        match current {
            Some(at) => value.trim().clone_into(&mut values[at].1),
            None => rest.push_str(&format!("{line}\n")),
        }
    }
    let [(_, types), (_, suites), (_, enabled)] = values;
    let off = ["no", "false", "0", "off", "without", "disable"];
    if off.contains(&enabled.trim().to_ascii_lowercase().as_str())
        || !types.split_whitespace().any(|t| t == "deb")
    {
        return None;
    }
    let suites: Vec<&str> = suites.split_whitespace().filter(|suite| is_security(suite)).collect();
    (!suites.is_empty()).then(|| format!("Types: deb\nSuites: {}\n{rest}", suites.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_lines_are_kept() {
        let text = "# deb http://a b-security main\n\
                    deb http://archive.example/debian bookworm main\n\
                    deb http://archive.example/debian bookworm-updates main\n\
                    deb-src http://security.example/debian-security bookworm-security main\n\
                    deb [ arch=amd64 signed-by=/a/key.asc ] http://security.example/debian-security bookworm-security main\n\
                    deb\thttp://security.example/ubuntu noble-security main\n\
                    deb [broken http://x y-security\n\
                    deb http://security.example buster/updates main\n";
        let kept = lines(text);
        assert_eq!(kept.lines().count(), 3, "{kept}");
        assert!(
            kept.contains("[ arch=amd64")
                && kept.contains("noble-security")
                && kept.contains("buster/updates")
        );
    }

    #[test]
    fn security_suites_of_paragraphs_are_kept_with_their_fields() {
        let text = "# comment\nTypes: deb deb-src\nURIs: http://archive.example/ubuntu\n\
                    Suites: noble noble-updates\n noble-security\nComponents: main\nSigned-By:\n -----BEGIN\n .\n key\n\n\
                    Types: deb\nURIs: http://a\nSuites: noble-security\nEnabled: no\n\n\
                    Types: deb-src\nURIs: http://a\nSuites: noble-security\n\n\
                    Types: deb\nURIs: http://a\nSuites: noble\n";
        let expected = "Types: deb\nSuites: noble-security\nURIs: http://archive.example/ubuntu\nComponents: main\n\
                        Signed-By:\n -----BEGIN\n .\n key\n\n";
        assert_eq!(stanzas(text), expected);
    }

    #[test]
    fn a_root_without_a_security_suite_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        assert_eq!(security(&root).unwrap(), None);
        root.make_dirs("/etc/apt/sources.list.d", 0o755).unwrap();
        root.write("/etc/apt/sources.list", b"deb http://a bookworm main\n", 0o644).unwrap();
        assert_eq!(security(&root).unwrap(), None);
        root.write("/etc/apt/sources.list.d/s.list", b"deb http://a bookworm-security main\n", 0o644)
            .unwrap();
        assert!(security(&root).unwrap().is_some());
    }
}
