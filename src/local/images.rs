//! The calls on images. An image is `images/ID/image.json`, with an empty file `settling` beside it until it was
//! described once: until then it is pending.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use async_trait::async_trait;

use super::place::LocalPlace;
use super::refusal::Refusal;
use super::snapshots::{self, completed};
use super::store::{Store, StoreError};
use super::{create_image, durable, laws, sharing};
use crate::cloud::{
    AccountId, Digest, ErrorKind, Image, ImageId, ImageQuery, ImageState, Images, InstanceId, NewCopy,
    NewImage, NewImageOf, Place, Result, Snapshot, SnapshotId, SnapshotState, Tags, Token,
};
use crate::host::clock;

const NOT_FOUND: &str = "InvalidAMIID.NotFound";
/// What a copy was asked for, beside the image.
const REQUEST: &str = "request.json";
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

    async fn copy(&self, new: &NewCopy, token: &Token) -> Result<ImageId> {
        let (new, token) = (new.clone(), token.clone());
        self.0.call("CopyImage", move |here| copy(here, &new, &token)).await
    }

    async fn uefi_data(&self, id: &ImageId) -> Result<Option<String>> {
        let id = id.clone();
        let read =
            move |here: &LocalPlace| Ok(read(here, &id)?.ok_or_else(|| missing(&id))?.attributes.uefi_data);
        self.0.call("DescribeImageAttribute", read).await
    }

    async fn deregister(&self, id: &ImageId) -> Result<()> {
        let id = id.clone();
        self.0.call("DeregisterImage", move |here| deregister(here, &id)).await
    }

    async fn create(&self, of: &InstanceId, new: &NewImageOf) -> Result<ImageId> {
        let (of, new) = (of.clone(), new.clone());
        self.0.call("CreateImage", move |here| create_image::create(here, &of, &new)).await
    }

    async fn require_imds_v2(&self, id: &ImageId) -> Result<()> {
        let id = id.clone();
        let require = move |here: &LocalPlace| change(here, &id, |image| image.attributes.imds_v2 = true);
        self.0.call("ModifyImageAttribute", require).await
    }

    async fn untag(&self, id: &ImageId, keys: &[String]) -> Result<()> {
        let (id, keys) = (id.clone(), keys.to_vec());
        self.0.call("DeleteTags", move |here| untag(here, &id, &keys)).await
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
    let owners = owners_asked_for(here, &query.owners)?;
    let mut images = Vec::new();
    if query.ids.is_empty() {
        for owner in &owners {
            images.extend(if *owner == here.place.account {
                all(here)?
            } else {
                sharing::images_of(here, owner)?
            });
        }
    } else {
        for id in &query.ids {
            let (image, ..) = sharing::image(here, id)?.ok_or_else(|| missing(id))?;
            if query.owners.is_empty() || owners.contains(&image.owner) {
                images.push(image);
            }
        }
    }
    images.retain(|image| {
        query.name.as_ref().is_none_or(|pattern| wildmatch::WildMatch::new(pattern).matches(&image.name))
            && laws::has_tags(&image.tags, &query.tags, &query.tag_keys)
    });
    for image in &mut images {
        // Registering is not seen at once: this describe still says pending, the next one available.
        if image.owner == here.place.account {
            durable::take(&settling(&here.image(&image.id)))?;
        }
        image.attributes.uefi_data = None;
    }
    images.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
    images.dedup_by(|a, b| a.id == b.id);
    Ok(images)
}

/// The accounts whose images are asked for; without any the own one.
fn owners_asked_for(
    here: &LocalPlace,
    owners: &[String],
) -> std::result::Result<BTreeSet<AccountId>, Refusal> {
    let mut accounts = BTreeSet::new();
    if owners.is_empty() {
        accounts.insert(here.place.account.clone());
    }
    for owner in owners {
        if owner == "self" {
            accounts.insert(here.place.account.clone());
        } else if let Some(account) = AccountId::parse(owner) {
            accounts.insert(account);
        } else if !OTHER_OWNERS.contains(&owner.as_str()) {
            return Err(Refusal::invalid(
                "InvalidUserID.Malformed",
                format!("{owner:?} is neither an account nor self, amazon or aws-marketplace"),
            ));
        }
    }
    Ok(accounts)
}

pub(super) fn register(here: &LocalPlace, new: &NewImage) -> std::result::Result<ImageId, Refusal> {
    laws::image(new)?;
    let _registering = here.lock()?;
    name_is_free(here, &new.name)?;
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
        state_reason: None,
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

/// # Errors
/// `Exists`, where it is another image's.
pub(super) fn name_is_free(here: &LocalPlace, name: &str) -> std::result::Result<(), Refusal> {
    match all(here)?.into_iter().find(|image| image.name == name) {
        None => Ok(()),
        Some(other) => Err(Refusal::new(
            ErrorKind::Exists,
            "InvalidAMIName.Duplicate",
            format!("the name {name:?} is that of {} already", other.id),
        )),
    }
}

/// Ids are made of the token, so that the same one meets the same image, even where a process was killed on the way.
fn copy(here: &LocalPlace, new: &NewCopy, token: &Token) -> std::result::Result<ImageId, Refusal> {
    laws::copy(new)?;
    let request =
        serde_json::json!([new.source, new.source_region, new.name, new.description, new.encrypt, new.tags]);
    let request = Digest::of(request.to_string().as_bytes()).hex();
    let at_source = LocalPlace {
        store: here.store.clone(),
        place: Place { region: new.source_region.clone(), ..here.place.clone() },
    };
    let id = id_of(&copied_id(here, token, "image"))?;
    let _registering = here.lock()?;
    if read(here, &id)?.is_some() {
        let before: Option<String> = durable::read_json(&here.image(&id).join(REQUEST))?;
        return if before.as_ref() == Some(&request) {
            Ok(id)
        } else {
            Err(Refusal::new(
                ErrorKind::Exists,
                "IdempotentParameterMismatch",
                format!("the client token copied {id} with another request: use a new token"),
            ))
        };
    }
    let (source, from, storage) =
        sharing::image(&at_source, &new.source)?.ok_or_else(|| missing(&new.source))?;
    if !storage {
        return Err(Refusal::new(
            ErrorKind::Denied,
            "InvalidRequest",
            "You do not have permission to access the storage of this ami".to_owned(),
        ));
    }
    if source.state != ImageState::Available && !settling(&from.image(&source.id)).exists() {
        return Err(Refusal::invalid("InvalidAMIID.Unavailable", format!("{} is not available", source.id)));
    }
    name_is_free(here, &new.name)?;
    let mut attributes = source.attributes;
    // Whether a key can be used is found out after the call, on AWS too; here there is none that could be.
    let failed =
        new.encrypt.as_ref().map(|key| format!("the key {key} cannot be used: the local cloud has none"));
    for device in &mut attributes.devices {
        let Some(snapshot) = device.ebs.as_mut().and_then(|disk| disk.snapshot.as_mut()) else { continue };
        let digits = copied_id(here, token, &device.name);
        let copied = SnapshotId::parse(&format!("{}{digits}", SnapshotId::PREFIX))
            .ok_or_else(|| Refusal::new(ErrorKind::Unknown, "InternalError", format!("{digits} is no id")))?;
        if failed.is_none() {
            let copy = Snapshot {
                id: copied.clone(),
                state: SnapshotState::Pending,
                volume_size: 0,
                parent: None,
                description: format!("Copied for {id} from {} in {}", new.source, new.source_region),
                tags: new.tags.clone(),
                encrypt: None,
                started: clock::wall(),
                progress: None,
            };
            snapshots::copy(here, &from, snapshot, &copy)?;
        }
        *snapshot = copied;
    }
    let image = Image {
        id: id.clone(),
        owner: here.place.account.clone(),
        name: new.name.clone(),
        description: new.description.clone(),
        state: if failed.is_some() { ImageState::Failed } else { ImageState::Available },
        state_reason: failed,
        created: clock::wall(),
        attributes,
        tags: new.tags.clone(),
        usage_operation: source.usage_operation,
        platform: source.platform,
        product_codes: source.product_codes,
    };
    durable::place(&here.image(&id), |staged| {
        durable::write(&settling(staged), b"")?;
        durable::write_json(&staged.join(REQUEST), &request)?;
        durable::write_json(&staged.join("image.json"), &image)
    })?;
    Ok(id)
}

/// The digits of an id that the same token makes again.
fn copied_id(here: &LocalPlace, token: &Token, what: &str) -> String {
    let text = format!("copy\n{}\n{}\n{what}", here.place, token.as_str());
    Digest::of(text.as_bytes()).hex()[..17].to_owned()
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

fn untag(here: &LocalPlace, id: &ImageId, keys: &[String]) -> std::result::Result<(), Refusal> {
    change(here, id, |image| image.tags.retain(|key, _| !keys.contains(key)))
}

fn change(here: &LocalPlace, id: &ImageId, how: impl FnOnce(&mut Image)) -> std::result::Result<(), Refusal> {
    let _registering = here.lock()?;
    let file = here.image(id).join("image.json");
    let mut image: Image = durable::read_json(&file)?.ok_or_else(|| missing(id))?;
    how(&mut image);
    durable::write_json(&file, &image)?;
    Ok(())
}

pub(super) fn all(here: &LocalPlace) -> std::result::Result<Vec<Image>, StoreError> {
    let mut images = Vec::new();
    for name in durable::names(&here.images())? {
        if let Some(id) = ImageId::parse(&name) {
            images.extend(read(here, &id)?);
        }
    }
    Ok(images)
}

pub(super) fn read(here: &LocalPlace, id: &ImageId) -> std::result::Result<Option<Image>, StoreError> {
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
    id_of(&uuid::Uuid::new_v4().simple().to_string()[..17])
}

fn id_of(digits: &str) -> std::result::Result<ImageId, Refusal> {
    let text = format!("{}{digits}", ImageId::PREFIX);
    ImageId::parse(&text)
        .ok_or_else(|| Refusal::new(ErrorKind::Unknown, "InternalError", format!("{text} is not an id")))
}
