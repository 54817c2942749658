//! What was seen, as rows for the table "Seen" of docs/what-aws-has-seen.md: one for each behaviour that the page names.

use std::collections::BTreeMap;

use bakehouse::cloud::Region;
use bakehouse::host::clock;
use jiff::tz::TimeZone;

/// Characters of what a body that failed says.
const LONGEST: usize = 300;

pub struct Findings {
    region: Region,
    seen: BTreeMap<&'static str, Vec<Seen>>,
}

struct Seen {
    as_expected: bool,
    what: String,
}

impl Findings {
    pub fn new(region: &Region) -> Self {
        Self { region: region.clone(), seen: BTreeMap::new() }
    }

    /// Something was seen of the behaviour `id`.
    pub fn add(&mut self, id: &'static str, as_expected: bool, what: &str) {
        // A row is one line, and a cell ends at a bar.
        let flat = what.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "/");
        let what = flat.chars().take(LONGEST).collect();
        self.seen.entry(id).or_default().push(Seen { as_expected, what });
    }

    pub fn are_as_expected(&self) -> bool {
        self.seen.values().flatten().all(|seen| seen.as_expected)
    }

    pub fn rows(&self) -> Vec<String> {
        let date = clock::wall().to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string();
        let rows = self.seen.iter().map(|(id, all)| {
            let told = |as_expected: bool| {
                let of = all.iter().filter(|seen| seen.as_expected == as_expected);
                of.map(|seen| seen.what.as_str()).collect::<Vec<_>>().join("; ")
            };
            let (yes, no) = (told(true), told(false));
            let what = match (yes.as_str(), no.as_str()) {
                (yes, "") => format!("yes: {yes}"),
                ("", no) => format!("no: {no}"),
                (yes, no) => format!("no: {no}; but: {yes}"),
            };
            format!("| {id} | {what} | {date} | {} |", self.region)
        });
        rows.collect()
    }
}
