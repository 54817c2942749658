//! docs/what-aws-has-seen.md is true of the code: every row's file is there and holds the word that it names.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const SOURCES: [&str; 6] = ["model", "doc", "doc 2023", "others", "derived", "memory"];
const CHECKS: [&str; 3] = ["model", "stand-in", "never"];

struct Row {
    id: String,
    what: String,
    source: String,
    checked: String,
    relies: String,
}

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/what-aws-has-seen.md")).unwrap()
}

/// The rows of all tables but the last, which says what was seen.
fn rows() -> Vec<Row> {
    let page = page();
    let relied = page.split("\n## Seen").next().unwrap();
    let lines = relied.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| behaviour"));
    lines
        .map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
            let mut cell = || cells.next().unwrap_or_else(|| panic!("too few cells: {line}"));
            let row = Row { id: cell(), what: cell(), source: cell(), checked: cell(), relies: cell() };
            assert!(cells.next().is_none(), "too many cells: {line}");
            row
        })
        .collect()
}

/// The names of all behaviours that are relied on.
#[cfg(feature = "aws")]
pub fn ids() -> BTreeSet<String> {
    rows().into_iter().map(|row| row.id).collect()
}

#[test]
fn every_behaviour_is_relied_on_where_the_page_says() {
    let rows = rows();
    assert!(rows.len() > 30, "the tables were not found");
    let mut wrong = Vec::new();
    for row in &rows {
        let mut parts = row.relies.splitn(3, '`').skip(1);
        let (file, word) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let word = word.trim().trim_matches('"');
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap_or_default();
        // A sentence of a comment may go over two lines.
        let flat = text.split_whitespace().filter(|part| *part != "///" && *part != "//").collect::<Vec<_>>();
        if word.is_empty() || !flat.join(" ").contains(word) {
            wrong.push(format!("{}: {file} has no `{word}`", row.id));
        }
    }
    assert!(wrong.is_empty(), "rows that nothing relies on:\n{}", wrong.join("\n"));
}

#[test]
fn every_row_says_where_it_is_from_and_how_it_was_checked() {
    let mut ids = BTreeSet::new();
    for row in rows() {
        assert!(ids.insert(row.id.clone()), "{} is there twice", row.id);
        assert!(
            row.id.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'-'),
            "{}",
            row.id
        );
        assert!(row.what.len() > 10, "{}: {}", row.id, row.what);
        let known = SOURCES.iter().any(|source| row.source.starts_with(source));
        assert!(known, "{}: the source is `{}`", row.id, row.source);
        let checks: Vec<&str> = row.checked.split(", ").collect();
        assert!(checks.iter().all(|check| CHECKS.contains(check)), "{}: checked `{}`", row.id, row.checked);
        assert!(!checks.contains(&"never") || checks.len() == 1, "{}", row.id);
    }
    // What a comment cites by its name is on the page.
    for (file, id) in cited() {
        assert!(ids.contains(&id), "{file} cites {id}, which the page does not have");
    }
}

/// Names of rows in comments of the sources: those that begin as one of a table's.
fn cited() -> Vec<(String, String)> {
    fn walk(dir: &Path, into: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                for word in text.lines().filter(|line| line.trim_start().starts_with("//")).flat_map(|line| {
                    line.split(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '-')
                }) {
                    let kinds =
                        ["EBS-", "AMI-", "EC2-", "AWS-", "SSM-", "ECR-", "IAM-", "STS-", "KMS-", "S3-"];
                    let name = word.trim_matches('-');
                    if kinds.iter().any(|kind| name.starts_with(kind)) && name.len() > 6 {
                        into.push((path.display().to_string(), name.to_owned()));
                    }
                }
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(!found.is_empty(), "no comment cites a row");
    found
}
