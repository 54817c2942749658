//! What other accounts of one store may have of an image: see it, and copy its storage too. Kept beside the image, as
//! `shared.json`. What is shared is seen without its tags, as on AWS, and its blocks are read by nobody else.

use serde::{Deserialize, Serialize};

use super::durable;
use super::images;
use super::place::LocalPlace;
use super::refusal::Refusal;
use super::store::{Store, StoreError};
use crate::cloud::{AccountId, Image, ImageId, Place, Result, Snapshot, SnapshotId, SnapshotState, Tags};

const FILE: &str = "shared.json";

/// Who may have an image, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sharing {
    /// Empty: everybody.
    pub accounts: Vec<AccountId>,
    /// Whether its snapshots are shared too: without them it can be launched, and not copied.
    pub storage: bool,
}

impl Store {
    /// Shares an image, or changes how it is shared.
    ///
    /// # Errors
    /// `NotFound` where there is none; `Unknown` where the store cannot be written.
    pub fn share(&self, place: &Place, id: &ImageId, sharing: &Sharing) -> Result<()> {
        let here = LocalPlace { store: self.clone(), place: place.clone() };
        self.image(place, id)?;
        durable::write_json(&here.image(id).join(FILE), sharing)
            .map_err(|error| Refusal::from(error).into_error("ModifyImageAttribute", place))
    }
}

/// An image of any account that may be seen here, with where it is and whether its storage may be copied. Tags are of
/// the own account only.
pub(super) fn image(
    here: &LocalPlace,
    id: &ImageId,
) -> std::result::Result<Option<(Image, LocalPlace, bool)>, StoreError> {
    if let Some(image) = images::read(here, id)? {
        return Ok(Some((image, here.clone(), true)));
    }
    for other in others(here)? {
        if let Some((image, storage)) = seen(here, &other, id)? {
            return Ok(Some((image, other, storage)));
        }
    }
    Ok(None)
}

/// The images of another account that may be seen here.
pub(super) fn images_of(here: &LocalPlace, owner: &AccountId) -> std::result::Result<Vec<Image>, StoreError> {
    let place = Place { account: owner.clone(), ..here.place.clone() };
    let other = LocalPlace { store: here.store.clone(), place };
    let mut found = Vec::new();
    for image in images::all(&other)? {
        found.extend(seen(here, &other, &image.id)?.map(|(image, _)| image));
    }
    Ok(found)
}

/// A snapshot of another account, as it is seen here: one of an image whose storage is shared.
pub(super) fn snapshot(
    here: &LocalPlace,
    id: &SnapshotId,
) -> std::result::Result<Option<Snapshot>, StoreError> {
    for other in others(here)? {
        let Some(kept) = other.snapshot(id).kept()? else { continue };
        for image in images::users_of(&other, id)? {
            if matches!(seen(here, &other, &image)?, Some((_, true))) {
                let state = SnapshotState::Completed;
                return Ok(Some(Snapshot { tags: Tags::new(), parent: None, state, ..kept.snapshot }));
            }
        }
    }
    Ok(None)
}

/// The other accounts of this store in the same region.
fn others(here: &LocalPlace) -> std::result::Result<Vec<LocalPlace>, StoreError> {
    let mut places = here.store.places()?;
    places.retain(|place| place.region == here.place.region && place.account != here.place.account);
    Ok(places.into_iter().map(|place| LocalPlace { store: here.store.clone(), place }).collect())
}

fn seen(
    here: &LocalPlace,
    other: &LocalPlace,
    id: &ImageId,
) -> std::result::Result<Option<(Image, bool)>, StoreError> {
    let sharing: Option<Sharing> = durable::read_json(&other.image(id).join(FILE))?;
    let sharing = sharing
        .filter(|sharing| sharing.accounts.is_empty() || sharing.accounts.contains(&here.place.account));
    let (Some(sharing), Some(image)) = (sharing, images::read(other, id)?) else { return Ok(None) };
    Ok(Some((Image { tags: Tags::new(), ..image }, sharing.storage)))
}
