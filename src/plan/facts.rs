//! What is looked up before a plan is made: the base, the names in use, the source. Reads only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{
    DiskFormat, DiskFormatError, EncryptionFacts, Inputs, InputsError, Source, import, inputs, name, tag,
};
use crate::cloud::{
    Architecture, Cloud, CloudError, ErrorKind, Image, ImageId, ImageQuery, ImageState, Partition, Place,
    SnapshotId, SnapshotQuery, SnapshotState, Tags, retrying,
};
use crate::host::clock::{self, whole_seconds};
use crate::host::stop::Stop;
use crate::recipe::{Base, Encrypt, MethodChoice, Recipe, Scratch};

/// A lineage longer than this is cut: it can only be a loop made by hand.
const LONGEST_LINEAGE: usize = 32;

/// What the plan is made from besides the recipe.
#[derive(Clone, Debug)]
pub struct Facts {
    pub bake: String,
    pub now: Timestamp,
    /// The real time, whatever the environment says of `now`.
    pub wall: Timestamp,
    pub place: Place,
    /// The architecture of the machine that bakes.
    pub host: Architecture,
    pub base: BaseFacts,
    pub encryption: EncryptionFacts,
    /// GiB of the snapshots that further volumes begin as.
    pub volumes: BTreeMap<SnapshotId, u32>,
    /// Whether an image of this account has the name here that the new one is to have.
    pub name_taken: bool,
    pub source: Source,
    /// What the recipe brings into the image.
    pub inputs: Inputs,
    pub warnings: Vec<String>,
}

/// What the base turned out to be.
#[derive(Clone, Debug)]
pub enum BaseFacts {
    Scratch(Scratch),
    File {
        path: PathBuf,
        format: DiskFormat,
    },
    Image {
        image: Box<Image>,
        lineage: Vec<ImageId>,
        /// The key of its root's snapshot, where that is this account's.
        key: Option<String>,
        /// Whether this account may copy its snapshots.
        copyable: bool,
        /// This account's images here that are called as an import of it.
        own: Vec<Image>,
    },
}

/// Where it is looked.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    pub here: &'a Cloud,
    /// The account that has the base: `base.account`, or this one.
    pub of_base: &'a Cloud,
}

/// Looks everything up. `out` is where results go, which is no input though it may lie in the recipe's folder.
///
/// # Errors
/// [`FactsError`]: the base cannot be found, or a call failed.
pub async fn look_up(
    recipe: &Recipe,
    dir: &Path,
    out: &Path,
    places: Places<'_>,
    source: Source,
    stop: &Stop,
) -> Result<Facts, FactsError> {
    let cloud = places.here;
    let mut host = host_architecture()?;
    // An instance is of any architecture; QEMU's are the host's.
    if recipe.method == MethodChoice::Launch
        && cloud.place.partition != Partition::local()
        && let Some(first) = recipe.architecture.all().first()
    {
        host = *first;
    }
    let mut warnings = Vec::new();
    if recipe.architecture.all().len() > 1 {
        warnings
            .push(format!("this host bakes the {host} image only; bake the others on hosts of their own"));
    }
    let now = whole_seconds(clock::now());
    let name_taken = match name::render(recipe, host, now, &source) {
        Ok(name) => !called(cloud, name, stop).await?.is_empty(),
        // Planning says what is wrong with it.
        Err(_) => false,
    };
    Ok(Facts {
        bake: new_bake_id(),
        now,
        wall: whole_seconds(clock::wall()),
        place: cloud.place.clone(),
        host,
        name_taken,
        base: base(&recipe.base, dir, places, host, stop).await?,
        encryption: encryption(recipe, cloud, &mut warnings, stop).await?,
        volumes: volumes(recipe, cloud, stop).await?,
        source,
        inputs: inputs::of(recipe, dir, out)?,
        warnings,
    })
}

/// This account's images of a name. By the name, since an account may have tens of thousands.
async fn called(cloud: &Cloud, name: String, stop: &Stop) -> Result<Vec<Image>, FactsError> {
    let query = ImageQuery { name: Some(name), ..ImageQuery::default() };
    Ok(retrying(stop, || cloud.images.find(&query)).await?)
}

fn new_bake_id() -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("bake-{}", &id[..12])
}

fn host_architecture() -> Result<Architecture, FactsError> {
    match std::env::consts::ARCH {
        "x86_64" => Ok(Architecture::X86_64),
        "aarch64" => Ok(Architecture::Arm64),
        other => Err(FactsError::Host { architecture: other.to_owned() }),
    }
}

async fn base(
    base: &Base,
    dir: &Path,
    places: Places<'_>,
    architecture: Architecture,
    stop: &Stop,
) -> Result<BaseFacts, FactsError> {
    let Places { here: cloud, of_base } = places;
    if let Some(scratch) = &base.scratch {
        return Ok(BaseFacts::Scratch(scratch.clone()));
    }
    if let Some(file) = &base.file {
        let path = dir.join(file);
        return Ok(BaseFacts::File { format: DiskFormat::of(&path)?, path });
    }
    let image = if let Some(id) = &base.image {
        let id =
            ImageId::parse(id).ok_or_else(|| FactsError::NotAnId { key: "base.image", value: id.clone() })?;
        by_id(cloud, id, "base.image", stop).await?
    } else if let Some(parameter) = &base.parameter {
        by_parameter(cloud, parameter, "base.parameter", stop).await?
    } else if let Some(newest) = &base.newest {
        let query = ImageQuery {
            owners: newest.owners.clone(),
            name: Some(newest.name.clone()),
            ..ImageQuery::default()
        };
        let what = format!("named `{}` and owned by {}", newest.name, newest.owners.join(", "));
        newest_of(cloud, &query, architecture, "base.newest", what, stop).await?
    } else if let Some(family) = &base.family {
        let found = if let Some(channel) = &base.channel {
            by_parameter(of_base, &channel_parameter(family, architecture, channel), "base.channel", stop)
                .await?
        } else {
            let tags = Tags::from([
                (tag("family"), family.clone()),
                (tag("architecture"), architecture.to_string()),
            ]);
            let query = ImageQuery { tags, ..ImageQuery::default() };
            newest_of(of_base, &query, architecture, "base.family", format!("of the family `{family}`"), stop)
                .await?
        };
        if of_base.place != cloud.place {
            seen_from_here(cloud, of_base, &found, stop).await?;
        }
        found
    } else {
        return Err(FactsError::NoBase);
    };
    if image.state != ImageState::Available {
        return Err(FactsError::NotAvailable {
            image: image.id,
            state: format!("{:?}", image.state).to_lowercase(),
        });
    }
    let lineage = lineage(cloud, &image, stop).await?;
    let (copyable, key) = storage(cloud, &image, stop).await?;
    let own = called(cloud, import::names(&image.id), stop).await?;
    Ok(BaseFacts::Image { image: Box::new(image), lineage, key, copyable, own })
}

/// That another account's image is shared with this one. Its tags are seen in its own account only.
async fn seen_from_here(
    cloud: &Cloud,
    of_base: &Cloud,
    image: &Image,
    stop: &Stop,
) -> Result<(), FactsError> {
    match by_id(cloud, image.id.clone(), "base.account", stop).await {
        Err(FactsError::NoImage { .. }) => Err(FactsError::NotShared {
            image: image.id.clone(),
            owner: of_base.place.account.to_string(),
            account: cloud.place.account.to_string(),
        }),
        other => other.map(drop),
    }
}

/// Whether an image's snapshots may be copied, and the key of its root's. A snapshot that is neither this account's nor
/// shared with it is not shown: such an image can be launched, and not copied.
async fn storage(cloud: &Cloud, image: &Image, stop: &Stop) -> Result<(bool, Option<String>), FactsError> {
    let disks = image.attributes.devices.iter().filter_map(|device| device.ebs.as_ref());
    let ids: Vec<_> = disks.filter_map(|disk| disk.snapshot.clone()).collect();
    if ids.is_empty() {
        return Ok((true, None));
    }
    let query = SnapshotQuery { ids, ..SnapshotQuery::default() };
    let found = match retrying(stop, || cloud.snapshots.describe(&query)).await {
        Err(error) if matches!(error.kind, ErrorKind::NotFound) => return Ok((false, None)),
        other => other?,
    };
    let root = image.root().map(|(_, snapshot)| snapshot);
    let key =
        found.iter().find(|snapshot| Some(&snapshot.id) == root).and_then(|found| found.encrypt.clone());
    Ok((found.len() == query.ids.len(), key))
}

/// The snapshots that further volumes begin as.
async fn volumes(
    recipe: &Recipe,
    cloud: &Cloud,
    stop: &Stop,
) -> Result<BTreeMap<SnapshotId, u32>, FactsError> {
    let mut sizes = BTreeMap::new();
    for id in recipe.disk.volumes.iter().filter_map(|volume| SnapshotId::parse(volume.snapshot.as_deref()?)) {
        let query = SnapshotQuery { ids: vec![id.clone()], ..SnapshotQuery::default() };
        let found = match retrying(stop, || cloud.snapshots.describe(&query)).await {
            Err(error) if error.kind == ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let found = found.first().filter(|found| found.state == SnapshotState::Completed);
        let Some(found) = found else {
            return Err(FactsError::NoSnapshot { snapshot: id, place: cloud.place.clone() });
        };
        sizes.insert(id, found.volume_size);
    }
    Ok(sizes)
}

/// What the account encrypts by default, and the recipe's key. In the local cloud nothing is encrypted.
async fn encryption(
    recipe: &Recipe,
    cloud: &Cloud,
    warnings: &mut Vec<String>,
    stop: &Stop,
) -> Result<EncryptionFacts, FactsError> {
    if cloud.place.partition == Partition::local() {
        return Ok(EncryptionFacts::default());
    }
    let mut facts = EncryptionFacts::default();
    match retrying(stop, || cloud.account.encrypts_by_default()).await {
        Ok(by_default) => facts.by_default = Some(by_default),
        Err(error) if error.kind == ErrorKind::Denied => warnings
            .push(format!("whether the account encrypts by default is not known, and taken as no: {error}")),
        Err(error) => return Err(error.into()),
    }
    if facts.by_default == Some(true) {
        match retrying(stop, || cloud.account.default_key()).await {
            Ok(key) => facts.default_key = key,
            // It is told and nothing more: the account's own setting encrypts, whoever may read its name.
            Err(error) if error.kind == ErrorKind::Denied => {
                warnings
                    .push(format!("which key the account encrypts with by default is not known: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(Encrypt::Key(name)) = &recipe.disk.encrypt {
        match retrying(stop, || cloud.keys.describe(name)).await {
            Ok(key) => facts.key = Some(key),
            Err(error) if error.kind == ErrorKind::NotFound => facts.no_key = Some(name.clone()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(facts)
}

/// The parameter that names the current image of a family and architecture.
#[must_use]
pub fn channel_parameter(family: &str, architecture: Architecture, channel: &str) -> String {
    format!("/bakehouse/{family}/{architecture}/{channel}")
}

async fn by_id(cloud: &Cloud, id: ImageId, key: &'static str, stop: &Stop) -> Result<Image, FactsError> {
    let query = ImageQuery { ids: vec![id.clone()], ..ImageQuery::default() };
    let found = match retrying(stop, || cloud.images.find(&query)).await {
        Err(error) if error.kind == ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    let place = cloud.place.clone();
    found.into_iter().next().ok_or(FactsError::NoImage { key, what: format!("with the id {id}"), place })
}

async fn by_parameter(
    cloud: &Cloud,
    name: &str,
    key: &'static str,
    stop: &Stop,
) -> Result<Image, FactsError> {
    let parameter = match retrying(stop, || cloud.parameters.get(name)).await {
        Err(error) if error.kind == ErrorKind::NotFound => {
            return Err(FactsError::NoParameter { key, name: name.to_owned(), place: cloud.place.clone() });
        }
        other => other?,
    };
    let id = ImageId::parse(&parameter.value).ok_or_else(|| FactsError::NotAnId {
        key,
        value: format!("{} (the value of {name})", parameter.value),
    })?;
    by_id(cloud, id, key, stop).await
}

async fn newest_of(
    cloud: &Cloud,
    query: &ImageQuery,
    architecture: Architecture,
    key: &'static str,
    what: String,
    stop: &Stop,
) -> Result<Image, FactsError> {
    let found = retrying(stop, || cloud.images.find(query)).await?;
    let fits =
        |image: &Image| image.state == ImageState::Available && image.attributes.architecture == architecture;
    found.into_iter().find(fits).ok_or(FactsError::NoImage {
        key,
        what: format!("{what}, for {architecture} and available,"),
        place: cloud.place.clone(),
    })
}

/// The image's own base, that one's base and so on, as far as they still exist; the image itself first.
async fn lineage(cloud: &Cloud, image: &Image, stop: &Stop) -> Result<Vec<ImageId>, FactsError> {
    let mut line = vec![image.id.clone()];
    let mut next = image.tags.get(&tag("base")).and_then(|id| ImageId::parse(id));
    while let Some(id) = next.take() {
        if line.contains(&id) || line.len() == LONGEST_LINEAGE {
            break;
        }
        line.push(id.clone());
        let query = ImageQuery { ids: vec![id], ..ImageQuery::default() };
        match retrying(stop, || cloud.images.find(&query)).await {
            Ok(found) => {
                next = found
                    .first()
                    .and_then(|image| image.tags.get(&tag("base")))
                    .and_then(|id| ImageId::parse(id));
            }
            // It was deleted: its id is still worth knowing.
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(line)
}

/// Why the facts are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    #[error("base: it names nothing to bake from")]
    NoBase,
    #[error(
        "base.account: {image} of {owner} is not shared with {account}; share it and its snapshot, or name another"
    )]
    NotShared { image: ImageId, owner: String, account: String },
    #[error("{key}: no image {what} is in {place}; bake it first, or name another")]
    NoImage { key: &'static str, what: String, place: Place },
    #[error("{key}: the parameter {name} is not in {place}; promote an image to it first, or name another")]
    NoParameter { key: &'static str, name: String, place: Place },
    #[error("{key}: `{value}` is no image id; one looks like ami-0123456789abcdef0")]
    NotAnId { key: &'static str, value: String },
    #[error("base: {image} is {state}; name an image that is available")]
    NotAvailable { image: ImageId, state: String },
    #[error(
        "disk.volumes: the snapshot {snapshot} is not in {place}, or not completed; name another, or take it out"
    )]
    NoSnapshot { snapshot: SnapshotId, place: Place },
    #[error("this host is {architecture}; images are x86_64 or arm64, and are baked on a host of the same")]
    Host { architecture: String },
    #[error("base.file: {0}")]
    File(#[from] DiskFormatError),
    #[error(transparent)]
    Inputs(#[from] InputsError),
    #[error("{0}")]
    Cloud(#[from] CloudError),
}
