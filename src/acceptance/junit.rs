//! Outcomes as JUnit XML, within the limits of CodeBuild's test reports.

use std::fmt::Write;

use super::outcome::{Outcome, Status};

/// Characters of a message: CodeBuild refuses a report with a longer one.
const LONGEST_MESSAGE: usize = 5000;

/// One suite with a case for each outcome; `console` stands beside them where it is not empty.
#[must_use]
pub fn junit(suite: &str, outcomes: &[Outcome], console: &str) -> String {
    let count =
        |wanted: fn(&Status) -> bool| outcomes.iter().filter(|outcome| wanted(&outcome.status)).count();
    let failures = count(|status| matches!(status, Status::Failed(_)));
    let skipped = count(|status| matches!(status, Status::NotJudged(_)));
    let seconds: f64 = outcomes.iter().map(|outcome| outcome.seconds).sum();
    let suite = escaped(suite);
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    // Writing to a string cannot fail.
    let _ = writeln!(
        xml,
        "  <testsuite name=\"{suite}\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\" time=\"{seconds:.3}\">",
        outcomes.len()
    );
    for outcome in outcomes {
        let _ = write!(
            xml,
            "    <testcase classname=\"{suite}.{}\" name=\"{}\" time=\"{:.3}\"",
            escaped(&outcome.kind),
            escaped(&outcome.name),
            outcome.seconds
        );
        let _ = match &outcome.status {
            Status::Passed => writeln!(xml, "/>"),
            Status::Failed(reason) => writeln!(
                xml,
                ">\n      <failure message=\"{0}\">{0}</failure>\n    </testcase>",
                escaped(&cut(reason))
            ),
            Status::NotJudged(reason) => {
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

    fn outcome(name: &str, status: Status) -> Outcome {
        Outcome { name: name.into(), kind: "command".into(), status, seconds: 1.5 }
    }

    #[test]
    fn every_outcome_is_a_case() {
        let xml = junit(
            "web",
            &[
                outcome("a", Status::Passed),
                outcome("b <&\"'\u{1b}[0m>", Status::Failed("line\nend\0".into())),
                outcome("c", Status::NotJudged("later".into())),
            ],
            "]]> console",
        );
        insta::assert_snapshot!(xml, @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites>
          <testsuite name="web" tests="3" failures="1" errors="0" skipped="1" time="4.500">
            <testcase classname="web.command" name="a" time="1.500"/>
            <testcase classname="web.command" name="b &lt;&amp;&quot;&apos;�[0m&gt;" time="1.500">
              <failure message="line&#10;end�">line&#10;end�</failure>
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
        let xml = junit("s", &[outcome("a", Status::Failed("ä".repeat(6000)))], "");
        let message = xml.split("message=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(message.chars().count(), LONGEST_MESSAGE);
    }
}
