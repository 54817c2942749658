//! The calls on images. An image is `images/ID/image.json`, with an empty file `settling` beside it until it was
//! described once: until then it is pending.

use std::fs;
use std::path::Path;

use async_trait::async_trait;

use super::place::LocalPlace;
use super::refusal::Refusal;
use super::snapshots::completed;
use super::store::{Store, StoreError};
use super::{durable, laws};
use crate::cloud::{
    AccountId, ErrorKind, Image, ImageId, ImageQuery, ImageState, Images, NewImage, Place, Result,
    SnapshotId, Tags,
};
use crate::host::clock;

const NOT_FOUND: &str = "InvalidAMIID.NotFound";
/// Owners that a query may name by word. None of them has images in a local cloud.
const OTHER_OWNERS: [&str; 3] = ["amazon", "aws-marketplace", "aws-backup-vault"];

#[derive(Debug)]
pub(super) struct LocalImages(pub(super) LocalPlace);

#[async_trait]
impl Images for LocalImages {
    async fn find(&self, query: &ImageQuery) -> Result<Vec<Image>> {
        let query = query.clone();
        self.0.call("DescribeImages", move |here| find(here, &query)).await
    }

    async fn register(&self, new: &NewImage) -> Result<ImageId> {
        let new = new.clone();
        self.0.call("RegisterImage", move |here| register(here, &new)).await
    }

    async fn deregister(&self, id: &ImageId) -> Result<()> {
        let id = id.clone();
        self.0.call("DeregisterImage", move |here| deregister(here, &id)).await
    }

    async fn tag(&self, id: &ImageId, tags: &Tags) -> Result<()> {
        let (id, tags) = (id.clone(), tags.clone());
        self.0.call("CreateTags", move |here| tag(here, &id, &tags)).await
    }
}

impl Store {
    /// One image, as describing it would show it. Looking does not count as describing.
    ///
    /// # Errors
    /// `NotFound` where there is none; `Unknown` where the store cannot be read.
    pub fn image(&self, place: &Place, id: &ImageId) -> Result<Image> {
        let here = LocalPlace { store: self.clone(), place: place.clone() };
        read(&here, id)
            .map_err(Refusal::from)
            .and_then(|image| image.ok_or_else(|| missing(id)))
            .map_err(|refusal| refusal.into_error("DescribeImages", place))
    }
}

/// The images that a snapshot is used by. The caller holds the place's lock.
pub(super) fn users_of(
    here: &LocalPlace,
    snapshot: &SnapshotId,
) -> std::result::Result<Vec<ImageId>, StoreError> {
    let images = all(here)?;
    Ok(images.into_iter().filter(|image| image.uses(snapshot)).map(|image| image.id).collect())
}

/// Whether there is such an image.
pub(super) fn exists(here: &LocalPlace, id: &ImageId) -> std::result::Result<bool, StoreError> {
    Ok(read(here, id)?.is_some())
}

fn find(here: &LocalPlace, query: &ImageQuery) -> std::result::Result<Vec<Image>, Refusal> {
    let own = own_asked_for(here, &query.owners)?;
    let mut images = if query.ids.is_empty() {
        all(here)?
    } else {
        let mut images = Vec::new();
        for id in &query.ids {
            images.push(read(here, id)?.ok_or_else(|| missing(id))?);
        }
        images
    };
    images.retain(|image| {
        own && query
            .name
            .as_ref()
            .is_none_or(|pattern| wildmatch::WildMatch::new(pattern).matches(&image.name))
            && laws::has_tags(&image.tags, &query.tags, &query.tag_keys)
    });
    for image in &images {
        // Registering is not seen at once: this describe still says pending, the next one available.
        durable::take(&settling(&here.image(&image.id)))?;
    }
    images.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
    images.dedup_by(|a, b| a.id == b.id);
    Ok(images)
}

/// Whether the account's own images are among those of `owners`.
fn own_asked_for(here: &LocalPlace, owners: &[String]) -> std::result::Result<bool, Refusal> {
    let mut own = owners.is_empty();
    for owner in owners {
        if owner == "self" || owner == here.place.account.as_str() {
            own = true;
        } else if !OTHER_OWNERS.contains(&owner.as_str()) && AccountId::parse(owner).is_none() {
            return Err(Refusal::invalid(
                "InvalidUserID.Malformed",
                format!("{owner:?} is neither an account nor self, amazon or aws-marketplace"),
            ));
        }
    }
    Ok(own)
}

fn register(here: &LocalPlace, new: &NewImage) -> std::result::Result<ImageId, Refusal> {
    laws::image(new)?;
    let _registering = here.lock()?;
    if let Some(other) = all(here)?.into_iter().find(|image| image.name == new.name) {
        return Err(Refusal::new(
            ErrorKind::Exists,
            "InvalidAMIName.Duplicate",
            format!("the name {:?} is that of {} already", new.name, other.id),
        ));
    }
    for disk in new.attributes.devices.iter().filter_map(|device| device.ebs.as_ref()) {
        let Some(snapshot) = &disk.snapshot else { continue };
        let (_, kept) = completed(here, snapshot, ("InvalidSnapshot.NotFound", "IncorrectState"))?;
        let least = kept.snapshot.volume_size;
        if disk.size < least {
            return Err(Refusal::invalid(
                "InvalidBlockDeviceMapping",
                format!(
                    "a volume of {} GiB is smaller than the {least} GiB of snapshot {snapshot}",
                    disk.size
                ),
            ));
        }
    }
    let id = new_id()?;
    let image = Image {
        id: id.clone(),
        owner: here.place.account.clone(),
        name: new.name.clone(),
        description: new.description.clone(),
        state: ImageState::Available,
        // The cloud's clock, which no client's environment sets.
        created: clock::wall(),
        attributes: new.attributes.clone(),
        tags: new.tags.clone(),
        usage_operation: "RunInstances".to_owned(),
        platform: "Linux/UNIX".to_owned(),
        product_codes: Vec::new(),
    };
    durable::place(&here.image(&id), |staged| {
        durable::write(&settling(staged), b"")?;
        durable::write_json(&staged.join("image.json"), &image)
    })?;
    Ok(id)
}

fn deregister(here: &LocalPlace, id: &ImageId) -> std::result::Result<(), Refusal> {
    let _registering = here.lock()?;
    if read(here, id)?.is_none() {
        return Err(missing(id));
    }
    if let Some(old) = durable::move_out(&here.image(id))? {
        fs::remove_dir_all(&old).map_err(StoreError::io("delete", &old))?;
    }
    Ok(())
}

fn tag(here: &LocalPlace, id: &ImageId, tags: &Tags) -> std::result::Result<(), Refusal> {
    let _registering = here.lock()?;
    let file = here.image(id).join("image.json");
    let mut image: Image = durable::read_json(&file)?.ok_or_else(|| missing(id))?;
    image.tags.extend(tags.clone());
    laws::tags(&image.tags, "InvalidParameterValue")?;
    durable::write_json(&file, &image)?;
    Ok(())
}

fn all(here: &LocalPlace) -> std::result::Result<Vec<Image>, StoreError> {
    let mut images = Vec::new();
    for name in durable::names(&here.images())? {
        if let Some(id) = ImageId::parse(&name) {
            images.extend(read(here, &id)?);
        }
    }
    Ok(images)
}

fn read(here: &LocalPlace, id: &ImageId) -> std::result::Result<Option<Image>, StoreError> {
    let folder = here.image(id);
    let image: Option<Image> = durable::read_json(&folder.join("image.json"))?;
    Ok(image.map(|mut image| {
        if settling(&folder).exists() {
            image.state = ImageState::Pending;
        }
        image
    }))
}

fn settling(folder: &Path) -> std::path::PathBuf {
    folder.join("settling")
}

fn missing(id: &ImageId) -> Refusal {
    Refusal::not_found(NOT_FOUND, format!("there is no image {id}"))
}

fn new_id() -> std::result::Result<ImageId, Refusal> {
    let random = uuid::Uuid::new_v4().simple().to_string();
    let text = format!("{}{}", ImageId::PREFIX, &random[..17]);
    ImageId::parse(&text)
        .ok_or_else(|| Refusal::new(ErrorKind::Unknown, "InternalError", format!("{text} is not an id")))
}
