//! The copy of a base in this account, where its own snapshot cannot be a parent here: what it is called and by what it
//! is found again. It is made once and shared by every later bake, so it carries no expiry.

use serde::{Deserialize, Serialize};

use super::encryption::Copy;
use crate::cloud::{Digest, Image, ImageId, ImageState, Region, Tags, tag};

/// On an import: the id of the base that it is a copy of. `prune` knows imports by it.
pub const IMPORT: &str = "import";
/// On an import, or any base that was looked at: what its disk turned out to be.
pub const LAYOUT: &str = "layout";
/// What the names of imports begin with.
const PREFIX: &str = "bakehouse-import-";
/// What a layout's tag begins with where the direct method cannot change it.
pub const REFUSED: &str = "not direct: ";

/// An import that a bake needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Import {
    /// One for each base and key: a place takes a name only once, so two bakes at once make one.
    pub name: String,
    pub of: ImageId,
    pub region: Region,
    /// The key's ARN that it is made with.
    pub key: Option<String>,
    pub description: String,
    pub tags: Tags,
    /// Why it is needed.
    pub why: String,
    /// Where it is here already, usable or on its way.
    pub found: Option<ImageId>,
}

/// The names of all imports of a base, as a pattern.
pub(super) fn names(of: &ImageId) -> String {
    format!("{PREFIX}{of}-*")
}

impl Import {
    pub(super) fn of(base: &Image, copy: Copy, bake: &str, region: &Region, own: &[Image]) -> Self {
        let name = format!("{PREFIX}{}-{}", base.id, &Digest::of(copy.kind.as_bytes()).hex()[..8]);
        let tags = Tags::from([
            ("Name".to_owned(), name.clone()),
            (tag(IMPORT), base.id.to_string()),
            (tag("import-key"), copy.kind.chars().take(255).collect()),
            (tag("bake"), bake.to_owned()),
            // Not the bake's own: nothing of that is mistaken for it, and it for nothing of that.
            (tag("stage"), "import".to_owned()),
        ]);
        let usable = |image: &&Image| matches!(image.state, ImageState::Available | ImageState::Pending);
        let found = own.iter().filter(usable).find(|image| image.name == name);
        Self {
            found: found.map(|image| image.id.clone()),
            name,
            of: base.id.clone(),
            region: region.clone(),
            key: copy.key,
            // EC2 takes 255 characters.
            description: format!("Import of {} ({}) by Bakehouse", base.id, base.name)
                .chars()
                .take(255)
                .collect(),
            tags,
            why: copy.why.to_owned(),
        }
    }
}
