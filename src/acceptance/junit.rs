//! Outcomes of checks, and of stages, as JUnit XML, within the limits of CodeBuild's test reports.

use std::fmt::Write;

use super::outcome::{Outcome, Status};

/// Characters of a message: CodeBuild refuses a report with a longer one.
const LONGEST_MESSAGE: usize = 5000;

/// A case of a report: a check, or a stage as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    pub name: String,
    /// What sort of case it is; with the suite's name before it, its class.
    pub kind: String,
    pub seconds: f64,
    pub end: End,
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Passed,
    Failed {
        /// The sort of failure.
        kind: String,
        /// What is wrong, in a line.
        reason: String,
        /// All that is told of it.
        told: String,
    },
    /// With the reason.
    Skipped(String),
}

impl Case {
    /// A stage as a whole: `bake`, `test`.
    #[must_use]
    pub fn of_stage(stage: &str, seconds: f64, end: End) -> Self {
        Self { name: stage.to_owned(), kind: "stage".to_owned(), seconds, end }
    }
}

impl From<&Outcome> for Case {
    fn from(outcome: &Outcome) -> Self {
        let Outcome { name, kind, status, seconds } = outcome;
        let end = match status {
            Status::Passed => End::Passed,
            Status::Failed(reason) => {
                End::Failed { kind: kind.clone(), reason: reason.clone(), told: reason.clone() }
            }
            Status::NotJudged(reason) => End::Skipped(reason.clone()),
        };
        Self { name: name.clone(), kind: kind.clone(), seconds: *seconds, end }
    }
}

/// One suite with these cases; `console` stands beside them where it is not empty.
#[must_use]
pub fn junit(suite: &str, cases: &[Case], console: &str) -> String {
    let count = |wanted: fn(&End) -> bool| cases.iter().filter(|case| wanted(&case.end)).count();
    let failures = count(|end| matches!(end, End::Failed { .. }));
    let skipped = count(|end| matches!(end, End::Skipped(_)));
    let seconds: f64 = cases.iter().map(|case| case.seconds).sum();
    let suite = escaped(suite);
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    // Writing to a string cannot fail.
    let _ = writeln!(
        xml,
        "  <testsuite name=\"{suite}\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\" time=\"{seconds:.3}\">",
        cases.len()
    );
    for case in cases {
        let _ = write!(
            xml,
            "    <testcase classname=\"{suite}.{}\" name=\"{}\" time=\"{:.3}\"",
            escaped(&case.kind),
            escaped(&case.name),
            case.seconds
        );
        let _ = match &case.end {
            End::Passed => writeln!(xml, "/>"),
            End::Failed { kind, reason, told } => writeln!(
                xml,
                ">\n      <failure type=\"{}\" message=\"{}\">{}</failure>\n    </testcase>",
                escaped(kind),
                escaped(&cut(reason)),
                escaped(&cut(told))
            ),
            End::Skipped(reason) => {
                writeln!(xml, ">\n      <skipped message=\"{}\"/>\n    </testcase>", escaped(&cut(reason)))
            }
        };
    }
    if !console.is_empty() {
        let _ = writeln!(xml, "    <system-out>{}</system-out>", escaped(console));
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

fn cut(text: &str) -> String {
    if text.chars().count() <= LONGEST_MESSAGE {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(LONGEST_MESSAGE - 1).collect();
    kept.push('…');
    kept
}

/// For an attribute or a text. Characters that XML 1.0 cannot hold at all become U+FFFD; line ends and tabs become
/// references, since a parser would make spaces of them in an attribute.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\n' => escaped.push_str("&#10;"),
            '\r' => escaped.push_str("&#13;"),
            '\t' => escaped.push_str("&#9;"),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, status: Status) -> Case {
        Case::from(&Outcome { name: name.into(), kind: "command".into(), status, seconds: 1.5 })
    }

    #[test]
    fn every_outcome_and_every_stage_is_a_case() {
        let xml = junit(
            "web",
            &[
                Case::of_stage(
                    "bake",
                    2.0,
                    End::Failed {
                        kind: "JobFailed".into(),
                        reason: "why".into(),
                        told: "why\nand all".into(),
                    },
                ),
                case("a", Status::Passed),
                case("b <&\"'\u{1b}[0m>", Status::Failed("line\nend\0".into())),
                case("c", Status::NotJudged("later".into())),
            ],
            "]]> console",
        );
        insta::assert_snapshot!(xml, @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites>
          <testsuite name="web" tests="4" failures="2" errors="0" skipped="1" time="6.500">
            <testcase classname="web.stage" name="bake" time="2.000">
              <failure type="JobFailed" message="why">why&#10;and all</failure>
            </testcase>
            <testcase classname="web.command" name="a" time="1.500"/>
            <testcase classname="web.command" name="b &lt;&amp;&quot;&apos;�[0m&gt;" time="1.500">
              <failure type="command" message="line&#10;end�">line&#10;end�</failure>
            </testcase>
            <testcase classname="web.command" name="c" time="1.500">
              <skipped message="later"/>
            </testcase>
            <system-out>]]&gt; console</system-out>
          </testsuite>
        </testsuites>
        "#);
    }

    #[test]
    fn a_message_is_within_the_limit() {
        let xml = junit("s", &[case("a", Status::Failed("ä".repeat(6000)))], "");
        let message = xml.split("message=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(message.chars().count(), LONGEST_MESSAGE);
    }
}
