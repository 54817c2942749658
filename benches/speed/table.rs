//! The table: what was measured, its limit, how far from it, and the verdict. On the terminal and as JSON.

use serde_json::{Value, json};

/// What a measured value is held against.
#[derive(Clone, Copy)]
pub enum Limit {
    AtMost(f64),
    AtLeast(f64),
    /// Nothing: it says what the machine can do, or explains another row.
    None,
}

struct Row {
    what: String,
    measured: f64,
    unit: &'static str,
    limit: Limit,
}

impl Row {
    /// How often the value fits into its limit, or the limit into it: below 1 it is missed.
    fn factor(&self) -> Option<f64> {
        match self.limit {
            Limit::AtMost(limit) => Some(limit / self.measured),
            Limit::AtLeast(limit) => Some(self.measured / limit),
            Limit::None => None,
        }
    }

    /// Whether the limit is kept; what is no number does not keep it.
    fn kept(&self) -> Option<bool> {
        self.factor().map(|factor| factor >= 1.0)
    }

    fn limit(&self) -> String {
        match self.limit {
            Limit::AtMost(limit) => format!("<= {}", shown(limit, self.unit)),
            Limit::AtLeast(limit) => format!(">= {}", shown(limit, self.unit)),
            Limit::None => "-".to_owned(),
        }
    }
}

/// All rows, in the order in which they were measured.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Table {
    /// Adds a row, and says on the way what it is. What was not measured (a value that is no number) counts as missed where
    /// there is a limit.
    pub fn row(&mut self, what: impl Into<String>, measured: f64, unit: &'static str, limit: Limit) {
        let what = what.into();
        eprintln!("    {what}: {}", shown(measured, unit));
        self.rows.push(Row { what, measured, unit, limit });
    }

    /// Adds a line below the table.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub fn missed(&self) -> usize {
        self.rows.iter().filter(|row| row.kept() == Some(false)).count()
    }

    pub fn text(&self) -> String {
        let mut cells = vec![["what", "measured", "limit", "factor", "verdict"].map(str::to_owned)];
        cells.extend(self.rows.iter().map(|row| {
            [
                row.what.clone(),
                shown(row.measured, row.unit),
                row.limit(),
                row.factor().map_or("-".to_owned(), |factor| format!("{factor:.2}")),
                row.kept().map_or("-", |kept| if kept { "ok" } else { "MISSED" }).to_owned(),
            ]
        }));
        let width = |column: usize| cells.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2), width(3), width(4)];
        let mut text = String::new();
        for (number, row) in cells.iter().enumerate() {
            text += &format!(
                "| {:<a$} | {:>b$} | {:>c$} | {:>d$} | {:<e$} |\n",
                row[0],
                row[1],
                row[2],
                row[3],
                row[4],
                a = widths[0],
                b = widths[1],
                c = widths[2],
                d = widths[3],
                e = widths[4],
            );
            if number == 0 {
                text += &format!(
                    "|-{}-|-{}:|-{}:|-{}:|-{}-|\n",
                    "-".repeat(widths[0]),
                    "-".repeat(widths[1]),
                    "-".repeat(widths[2]),
                    "-".repeat(widths[3]),
                    "-".repeat(widths[4])
                );
            }
        }
        for note in &self.notes {
            text += &format!("\n{note}\n");
        }
        text
    }

    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let (at_most, at_least) = match row.limit {
                    Limit::AtMost(limit) => (Some(limit), None),
                    Limit::AtLeast(limit) => (None, Some(limit)),
                    Limit::None => (None, None),
                };
                json!({
                    "what": row.what,
                    "measured": row.measured,
                    "unit": row.unit,
                    "at-most": at_most,
                    "at-least": at_least,
                    "factor": row.factor(),
                })
            })
            .collect();
        json!({ "rows": rows, "notes": self.notes, "missed": self.missed() })
    }
}

fn shown(value: f64, unit: &str) -> String {
    let digits = if value >= 100.0 { 0 } else { 2 };
    format!("{value:.digits$} {unit}").trim_end().to_owned()
}
