//! What the image is called.

use jiff::Timestamp;

use super::Source;
use crate::cloud::Architecture;
use crate::recipe::Recipe;

const DEFAULT: &str = "{name}-{date}";
/// Digits of a commit that a name shows.
const COMMIT_DIGITS: usize = 12;

/// The recipe's name template, filled in.
pub(super) fn render(
    recipe: &Recipe,
    architecture: Architecture,
    now: Timestamp,
    source: &Source,
) -> Result<String, NameError> {
    let template = recipe.image.name.as_deref().unwrap_or(DEFAULT);
    let mut name = template
        .replace("{name}", &recipe.name)
        .replace("{architecture}", architecture.as_str())
        .replace("{date}", &now.strftime("%Y%m%d-%H%M%S").to_string());
    if name.contains("{commit}") {
        let commit = source.commit.as_deref().ok_or(NameError::NoCommit)?;
        name = name.replace("{commit}", &commit[..commit.len().min(COMMIT_DIGITS)]);
    }
    // EC2's rule for image names (RegisterImage, `Name`).
    let allowed = |c: char| c.is_ascii_alphanumeric() || "()[] ./-'@_".contains(c);
    if !(3..=128).contains(&name.len()) || !name.chars().all(allowed) {
        return Err(NameError::NotAName { name });
    }
    Ok(name)
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    #[error(
        "image.name: {{commit}} is not known; pass --commit, or BAKEHOUSE_COMMIT in the environment, or take {{commit}} out"
    )]
    NoCommit,
    #[error(
        "image.name: `{name}` is no name for an image; 3 to 128 letters, digits and ( ) [ ] space . / - ' @ _"
    )]
    NotAName { name: String },
}
