//! Where every value of a file stands: line and column by key path. Knows nothing of YAML nor of recipes.

use super::key::{KeyPath, Step};

/// Where something stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    /// Counts from 1.
    pub(super) line: usize,
    /// Counts from 1, in characters.
    pub(super) column: usize,
    pub(super) last_line: usize,
    /// In characters, on its first line.
    pub(super) length: usize,
}

impl Spot {
    pub(super) const START: Self = Self { line: 1, column: 1, last_line: 1, length: 1 };

    /// One character.
    pub(super) fn at(line: usize, column: usize) -> Self {
        Self { line: line.max(1), column: column.max(1), last_line: line.max(1), length: 1 }
    }
}

/// The place of every value of a file.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The root is the first.
    pub(super) nodes: Vec<Node>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) spot: Spot,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Scalar { text: String, plain: bool },
    List(Vec<usize>),
    Map(Vec<(String, Spot, usize)>),
}

impl Places {
    /// The place of a value, or of what it would be in where it is not there itself. A map or list below its key is
    /// marked at the key: its own first line is that of its first item.
    pub(super) fn value(&self, path: &KeyPath) -> Spot {
        let (key, node) = self.walk(path);
        let Some(node) = node else {
            return Spot::START;
        };
        match (key, &node.kind) {
            (Some(key), Kind::List(_) | Kind::Map(_)) if key.line != node.spot.line => key,
            _ => node.spot,
        }
    }

    /// The place of the key that a path ends with; of the item where it ends with an item.
    pub(super) fn key(&self, path: &KeyPath) -> Spot {
        let (key, node) = self.walk(path);
        let spot = node.map_or(Spot::START, |node| node.spot);
        match path.steps().last() {
            Some(Step::Key(_)) => key.unwrap_or(spot),
            _ => spot,
        }
    }

    /// The place of a text within a value, as far as it is written there as it is read.
    pub(super) fn within(&self, path: &KeyPath, needle: &str, lines: &[&str]) -> Spot {
        let whole = self.walk(path).1.map_or(Spot::START, |node| node.spot);
        for number in whole.line..=whole.last_line {
            let Some(line) = lines.get(number - 1) else {
                break;
            };
            let skip = if number == whole.line { whole.column - 1 } else { 0 };
            let from = line.char_indices().nth(skip).map_or(line.len(), |(at, _)| at);
            if let Some(at) = line[from..].find(needle) {
                return Spot {
                    line: number,
                    column: line[..from + at].chars().count() + 1,
                    last_line: number,
                    length: needle.chars().count().max(1),
                };
            }
        }
        whole
    }

    /// A plain or quoted value as it was written: `1.20` and not 1.2. `None` for maps and lists.
    pub(super) fn written(&self, path: &KeyPath) -> Option<&str> {
        match &self.walk(path).1?.kind {
            Kind::Scalar { text, plain: true } => Some(text),
            _ => None,
        }
    }

    /// The last node on the way that is there, and the key under which it stands.
    pub(super) fn walk(&self, path: &KeyPath) -> (Option<Spot>, Option<&Node>) {
        let mut key = None;
        let mut node = self.nodes.first();
        for step in path.steps() {
            let next = match (step, node.map(|node| &node.kind)) {
                (Step::Key(name), Some(Kind::Map(entries))) => entries
                    .iter()
                    .find(|(other, ..)| other == name)
                    .map(|(_, spot, child)| (Some(*spot), *child)),
                (Step::Item(item), Some(Kind::List(items))) => items.get(*item).map(|child| (None, *child)),
                _ => None,
            };
            let Some((spot, child)) = next else {
                break;
            };
            (key, node) = (spot, self.nodes.get(child));
        }
        (key, node)
    }
}
