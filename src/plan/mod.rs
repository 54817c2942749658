//! Recipe and facts become a plan: what will happen, and why this method. [`make`] is pure; [`facts`] looks up what it
//! needs and changes nothing.

mod billing;
mod disk_format;
mod encryption;
mod explain;
pub mod facts;
mod import;
mod inputs;
mod name;
pub mod preflight;
mod source;
mod volumes;

use std::path::PathBuf;

pub use billing::Billing;
pub use disk_format::{DiskFormat, DiskFormatError};
pub use encryption::{Encryption, EncryptionFacts};
pub use facts::{BaseFacts, Facts, FactsError};
pub use import::{IMPORT, Import, LAYOUT, REFUSED};
pub use inputs::{Input, Inputs, InputsError};
use jiff::{SignedDuration, Timestamp};
pub use name::NameError;
use serde::{Deserialize, Serialize};
pub use source::{BuildSource, Source};

use crate::cloud::{
    Architecture, BlockDevice, BootMode, DiskType, EbsDisk, Image, ImageAttributes, ImageId, Place,
    SnapshotId, Tags, VolumeKind, tag,
};
use crate::recipe::{
    BootTest, Check, Imds, Launch, MethodChoice, Recipe, RootFilesystem, Scratch, Seal, Step,
};

/// Why the method chroot does not take a base.
const NO_VOLUME: &str = "a volume is made from an image's snapshot, and this base is no image";

/// The name that a plan's root volume has where the base does not give one: Debian's and Amazon Linux's.
const ROOT_DEVICE: &str = "/dev/xvda";

/// How the bytes come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MethodKind {
    /// The base's blocks are read, changed in place, and only the changed ones stored.
    Direct,
    /// A new disk without a parent; all of its blocks are stored.
    Scratch,
    /// The steps run on an instance of the base, and an image is made of it.
    Launch,
    /// A volume from the base's snapshot is attached to the instance that bakes, changed in place and snapshotted.
    Chroot,
}

impl MethodKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Scratch => "scratch",
            Self::Launch => "launch",
            Self::Chroot => "chroot",
        }
    }
}

/// What the image is made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BasePlan {
    /// A distribution's packages on an empty disk.
    Scratch { scratch: Scratch, filesystem: RootFilesystem },
    /// A disk in the recipe's folder.
    File { path: PathBuf, format: DiskFormat },
    /// An image that is seen from this place.
    Image {
        id: ImageId,
        name: String,
        snapshot: SnapshotId,
        size: u32,
        lineage: Vec<ImageId>,
        /// The copy of it that is read and is the parent, where it cannot be itself.
        #[serde(default)]
        import: Option<Import>,
    },
}

/// What will happen.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    pub bake: String,
    pub place: Place,
    pub family: String,
    pub image_name: String,
    pub description: String,
    pub base: BasePlan,
    pub method: MethodKind,
    pub why: String,
    /// What the recipe says of the instance, where the method is to launch one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch: Option<Launch>,
    pub steps: Vec<Step>,
    pub seal: Seal,
    pub checks: Vec<Check>,
    pub boot: BootTest,
    /// GiB of the root volume; `None`: as large as its snapshot.
    pub size: Option<u32>,
    /// What the recipe says of the root volume besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_volume: Option<VolumeKind>,
    /// The root volume's snapshot is filled in when it exists.
    pub attributes: ImageAttributes,
    #[serde(default)]
    pub encryption: Encryption,
    /// What the image must be billed by: as its base.
    #[serde(default)]
    pub billing: Billing,
    pub tags: Tags,
    pub source: Source,
    pub inputs: Inputs,
    /// One digest over the recipe as resolved, the base and all inputs: what an unchanged bake is known by.
    pub fingerprint: String,
    pub warnings: Vec<String>,
    pub created: Timestamp,
    /// When what the bake left half-made may be swept.
    pub expires: Timestamp,
    /// What was looked at beforehand.
    #[serde(default)]
    pub preflight: Vec<preflight::Finding>,
    /// The snapshots that volumes begin as by the recipe's wish.
    #[serde(default)]
    pub snapshots: Vec<SnapshotId>,
    /// Whether an image of this name is here already.
    pub name_taken: bool,
}

impl Plan {
    #[must_use]
    pub fn architecture(&self) -> Architecture {
        self.attributes.architecture
    }

    /// That the image can be called what it is to be called.
    ///
    /// # Errors
    /// [`PlanError::NameTaken`]
    pub fn check_name(&self) -> Result<(), PlanError> {
        if self.name_taken {
            return Err(PlanError::NameTaken { name: self.image_name.clone(), place: self.place.clone() });
        }
        Ok(())
    }

    /// Moves the time when what it left half-made may be swept: for a bake that is gone on with later.
    pub fn renew(&mut self, wall: Timestamp) {
        self.expires = wall + LIFETIME;
    }

    /// The tags of everything that this bake creates, until the image is registered: with when they expire.
    #[must_use]
    pub fn temporary_tags(&self) -> Tags {
        let mut tags = self.tags.clone();
        tags.insert(tag("expires"), self.expires.to_string());
        tags
    }
}

/// After this long, what a bake left half-made may be swept. A bake takes minutes; CodePipeline ends a build after 8 h.
const LIFETIME: SignedDuration = SignedDuration::from_hours(12);

/// What a bake may take at most: it ends, and has undone what it made, before that may be swept.
pub const LONGEST: SignedDuration = SignedDuration::from_hours(11);

/// Resolves a recipe.
///
/// # Errors
/// [`PlanError`]: what the recipe wants and this place, base or host cannot give.
pub fn make(recipe: &Recipe, facts: &Facts) -> Result<Plan, PlanError> {
    let architecture = architecture(recipe, facts)?;
    let mut warnings = facts.warnings.clone();
    let (encryption, copy) = encryption(recipe, facts)?;
    let (base, method, why) = base_and_method(recipe, facts, copy)?;
    let encryption = match method {
        MethodKind::Launch => {
            encryption::of_volumes(recipe.disk.encrypt.as_ref(), &facts.encryption, encryption)
        }
        MethodKind::Direct | MethodKind::Scratch | MethodKind::Chroot => encryption,
    };
    let size = recipe.disk.size.map(crate::recipe::Size::gib);
    let mut attributes = attributes(recipe, facts, architecture, size, &mut warnings)?;
    volumes::apply(&recipe.disk, &facts.volumes, &mut attributes)?;
    if recipe.disk.encrypt.is_some() && facts.place.partition == crate::cloud::Partition::local() {
        warnings.push(
            "disk.encrypt has no effect here: the local cloud has no keys and does not encrypt".to_owned(),
        );
    }
    let image_name = name::render(recipe, architecture, facts.now, &facts.source)?;
    let fingerprint = inputs::fingerprint(recipe, facts);
    let mut tags: Tags = recipe.image.tags.clone();
    tags.extend([
        ("Name".to_owned(), tags.get("Name").cloned().unwrap_or_else(|| image_name.clone())),
        (tag("bake"), facts.bake.clone()),
        (tag("stage"), "bake".to_owned()),
        (tag("family"), recipe.name.clone()),
        (tag("architecture"), architecture.to_string()),
        (tag("fingerprint"), fingerprint.clone()),
    ]);
    if let BasePlan::Image { id, .. } = &base {
        tags.insert(tag("base"), id.to_string());
    }
    tags.extend(facts.source.tags());
    Ok(Plan {
        bake: facts.bake.clone(),
        place: facts.place.clone(),
        family: recipe.name.clone(),
        description: recipe.image.description.clone().unwrap_or_else(|| default_description(recipe, &base)),
        name_taken: facts.name_taken,
        image_name,
        base,
        method,
        why,
        encryption,
        preflight: Vec::new(),
        snapshots: facts.volumes.keys().cloned().collect(),
        billing: match &facts.base {
            BaseFacts::Image { image, .. } => Billing::of(image),
            BaseFacts::Scratch(_) | BaseFacts::File { .. } => Billing::default(),
        },
        launch: (method == MethodKind::Launch).then(|| recipe.launch.clone().unwrap_or_default()),
        steps: recipe.provision.clone(),
        seal: recipe.seal.clone(),
        checks: recipe.checks.clone(),
        boot: recipe.boot.clone(),
        size,
        root_volume: recipe.disk.kind.map(|kind| VolumeKind {
            kind,
            iops: recipe.disk.iops,
            throughput: recipe.disk.throughput.map(crate::recipe::Size::mib),
        }),
        attributes,
        tags,
        source: facts.source.clone(),
        inputs: facts.inputs.clone(),
        fingerprint,
        warnings,
        created: facts.now,
        expires: facts.wall + LIFETIME,
    })
}

fn architecture(recipe: &Recipe, facts: &Facts) -> Result<Architecture, PlanError> {
    let wanted = recipe.architecture.all();
    let host = facts.host;
    if wanted.contains(&host) {
        return Ok(host);
    }
    let wanted = wanted.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Err(PlanError::OtherArchitecture { wanted, host })
}

fn encryption(recipe: &Recipe, facts: &Facts) -> Result<(Encryption, Option<encryption::Copy>), PlanError> {
    let source = match &facts.base {
        BaseFacts::Scratch(_) | BaseFacts::File { .. } => encryption::Source::New,
        BaseFacts::Image { image, .. } if image.owner != facts.place.account => encryption::Source::Foreign,
        BaseFacts::Image { key, .. } => encryption::Source::Own { key: key.as_deref() },
    };
    encryption::decide(recipe.disk.encrypt.as_ref(), &facts.encryption, source)
}

fn base_and_method(
    recipe: &Recipe,
    facts: &Facts,
    copy: Option<encryption::Copy>,
) -> Result<(BasePlan, MethodKind, String), PlanError> {
    let choice = recipe.method;
    match &facts.base {
        BaseFacts::Scratch(scratch) => {
            refuse(
                choice,
                MethodChoice::Launch,
                "an instance is launched of an image, and this base is none",
            )?;
            refuse(choice, MethodChoice::Direct, "a base from scratch has no blocks to start from")?;
            refuse(choice, MethodChoice::Chroot, NO_VOLUME)?;
            if facts.host != Architecture::X86_64 {
                return Err(PlanError::ScratchArchitecture { host: facts.host });
            }
            let why = "the base is a distribution's packages, so there is no image to start from";
            let filesystem = recipe.disk.filesystem.unwrap_or_default();
            let base = BasePlan::Scratch { scratch: scratch.clone(), filesystem };
            Ok((base, MethodKind::Scratch, why.to_owned()))
        }
        BaseFacts::File { path, format } => {
            refuse(
                choice,
                MethodChoice::Launch,
                "an instance is launched of an image, and this base is none",
            )?;
            refuse(choice, MethodChoice::Direct, "a disk file has no snapshot that could be a parent")?;
            refuse(choice, MethodChoice::Chroot, NO_VOLUME)?;
            let why =
                "the base is a disk file, so there is no snapshot to be a parent and all blocks are stored";
            Ok((BasePlan::File { path: path.clone(), format: *format }, MethodKind::Scratch, why.to_owned()))
        }
        BaseFacts::Image { image, lineage, copyable, own, .. } => {
            refuse(choice, MethodChoice::Scratch, "a base that is an image is changed in place")?;
            let (disk, snapshot) =
                image.root().ok_or_else(|| PlanError::NoRootVolume { image: image.id.clone() })?;
            let import = copy.map(|copy| Import::of(image, copy, &facts.bake, &facts.place.region, own));
            let layout = import.as_ref().map_or(image.tags.get(&tag(LAYOUT)), |import| {
                let copies = own.iter().find(|image| import.found.as_ref() == Some(&image.id));
                copies.and_then(|image| image.tags.get(&tag(LAYOUT)))
            });
            let (kind, asked) = match choice {
                MethodChoice::Chroot => (MethodKind::Chroot, "the recipe asks for it; "),
                _ => (MethodKind::Direct, ""),
            };
            let taken = match (choice, takes(kind, image, *copyable || import.is_none(), layout)) {
                (MethodChoice::Launch, _) => Err("the recipe asks for it".to_owned()),
                (MethodChoice::Auto, Err(PlanError::NotDirect { why, .. })) => {
                    Err(format!("direct cannot take this base: {why}"))
                }
                (_, taken) => Ok(taken?),
            };
            if let Err(why) = taken {
                check_launch(recipe, facts)?;
                let base = BasePlan::Image {
                    id: image.id.clone(),
                    name: image.name.clone(),
                    snapshot: snapshot.clone(),
                    size: disk.size,
                    lineage: lineage.clone(),
                    // An instance runs from the base itself, whosever it is.
                    import: None,
                };
                return Ok((base, MethodKind::Launch, why));
            }
            let why = match &import {
                None => "the base is a Linux image without billing codes whose snapshot is in this account"
                    .to_owned(),
                Some(import) => {
                    let when = match &import.found {
                        Some(found) => format!("was imported as {found}"),
                        None => format!("is imported once, as {}", import.name),
                    };
                    format!(
                        "the base is a Linux image without billing codes; it {when}, since {}",
                        import.why
                    )
                }
            };
            let mut why = format!("{asked}{why}");
            // What was baked by us has a root that a bake can change.
            if layout.is_none() && !image.tags.contains_key(&tag("bake")) {
                why += "; if its root turns out to be LVM, `method: launch` is needed";
            }
            let base = BasePlan::Image {
                id: image.id.clone(),
                name: image.name.clone(),
                snapshot: snapshot.clone(),
                size: disk.size,
                lineage: lineage.clone(),
                import,
            };
            Ok((base, kind, why))
        }
    }
}

/// What an instance on AWS needs, and one of the local cloud does not.
fn check_launch(recipe: &Recipe, facts: &Facts) -> Result<(), PlanError> {
    if let Some(at) = recipe.provision.iter().position(|step| matches!(step, Step::Ansible(_))) {
        return Err(PlanError::LaunchAnsible { step: at + 1 });
    }
    // The image is made of the instance: it boots as that did, and further volumes would have to be attached to it.
    let unknown = [
        ("disk.volumes", !recipe.disk.volumes.is_empty()),
        ("image.boot-mode", recipe.image.boot_mode.is_some()),
    ];
    if let Some((key, _)) = unknown.into_iter().find(|(_, set)| *set) {
        return Err(PlanError::LaunchKeeps { key });
    }
    if facts.place.partition == crate::cloud::Partition::local() {
        return Ok(());
    }
    let launch = recipe.launch.clone().unwrap_or_default();
    if launch.profile.is_none() {
        return Err(PlanError::LaunchNeeds {
            key: "profile",
            what: "an instance profile whose role SSM may reach (AmazonSSMManagedInstanceCore) and that may write to the bucket",
        });
    }
    if launch.bucket.is_none() {
        return Err(PlanError::LaunchNeeds {
            key: "bucket",
            what: "a bucket of this region, by which files come to the instance",
        });
    }
    Ok(())
}

fn refuse(choice: MethodChoice, wrong: MethodChoice, why: &str) -> Result<(), PlanError> {
    if choice == wrong {
        let method = match wrong {
            MethodChoice::Direct => "direct",
            MethodChoice::Scratch => "scratch",
            MethodChoice::Launch => "launch",
            MethodChoice::Chroot => "chroot",
            MethodChoice::Auto => "auto",
        };
        return Err(PlanError::WrongMethod { method, why: why.to_owned() });
    }
    Ok(())
}

/// Registering from a snapshot drops billing codes (aws-sdk's RegisterImage documentation): such bases are not for methods
/// that do, whether they work on a disk file or on a volume.
fn takes(
    method: MethodKind,
    image: &Image,
    readable: bool,
    layout: Option<&String>,
) -> Result<(), PlanError> {
    let method = method.as_str();
    let refused = |why: String| Err(PlanError::NotDirect { image: image.id.clone(), method, why });
    if image.usage_operation != "RunInstances" {
        return refused(format!(
            "its usage operation is {}, a billing code that registering drops",
            image.usage_operation
        ));
    }
    if image.platform != "Linux/UNIX" {
        return refused(format!("its platform is {}", image.platform));
    }
    if !image.product_codes.is_empty() {
        return refused(format!("it has product codes ({})", image.product_codes.join(", ")));
    }
    if !readable {
        return refused(format!(
            "{} shares the image and not its snapshot, so it cannot be copied",
            image.owner
        ));
    }
    if let Some(layer) = layout.and_then(|layout| layout.strip_prefix(import::REFUSED)) {
        return refused(format!("its root is {layer}, as an earlier bake found"));
    }
    Ok(())
}

fn attributes(
    recipe: &Recipe,
    facts: &Facts,
    architecture: Architecture,
    size: Option<u32>,
    warnings: &mut Vec<String>,
) -> Result<ImageAttributes, PlanError> {
    let output = &recipe.image;
    match &facts.base {
        BaseFacts::Image { image, .. } => {
            let mut attributes = image.attributes.clone();
            if attributes.architecture != architecture {
                return Err(PlanError::BaseArchitecture {
                    image: image.id.clone(),
                    base: attributes.architecture,
                    wanted: architecture,
                });
            }
            if let Some(mode) = output.boot_mode {
                attributes.boot_mode = Some(mode);
                if mode == BootMode::LegacyBios && attributes.tpm {
                    warnings.push(
                        "image.boot-mode: without UEFI the image has no TPM, which its base has".to_owned(),
                    );
                    attributes.tpm = false;
                }
            }
            if let Some(imds) = output.imds {
                if attributes.imds_v2 && imds == Imds::Optional {
                    return Err(PlanError::ImdsIrreversible { image: image.id.clone() });
                }
                attributes.imds_v2 = imds == Imds::Required;
            }
            if let Some((root, _)) = image.root()
                && let Some(size) = size
                && size < root.size
            {
                return Err(PlanError::TooSmall { image: image.id.clone(), base: root.size, wanted: size });
            }
            Ok(attributes)
        }
        BaseFacts::Scratch(_) | BaseFacts::File { .. } => Ok(ImageAttributes {
            architecture,
            boot_mode: Some(output.boot_mode.unwrap_or(BootMode::UefiPreferred)),
            ena: true,
            sriov: Some("simple".to_owned()),
            imds_v2: output.imds != Some(Imds::Optional),
            tpm: false,
            uefi_data: None,
            root_device: ROOT_DEVICE.to_owned(),
            devices: vec![BlockDevice {
                name: ROOT_DEVICE.to_owned(),
                ebs: Some(EbsDisk {
                    snapshot: None,
                    size: size.unwrap_or(1),
                    kind: DiskType::Gp3,
                    iops: None,
                    throughput: None,
                    delete_on_termination: true,
                }),
                virtual_name: None,
            }],
        }),
    }
}

fn default_description(recipe: &Recipe, base: &BasePlan) -> String {
    let on = match base {
        BasePlan::Scratch { scratch, .. } => format!("{:?} {}", scratch.distribution, scratch.suite),
        BasePlan::File { path, .. } => path.display().to_string(),
        BasePlan::Image { name, .. } => name.clone(),
    };
    // EC2 and EBS take 255 characters; a file's path alone can be longer.
    format!("{} on {on}, baked by Bakehouse", recipe.name).chars().take(255).collect()
}

/// Why a recipe cannot be carried out here.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error(
        "architecture: the recipe wants {wanted} and this host is {host}; run the bake on a host of that architecture"
    )]
    OtherArchitecture { wanted: String, host: Architecture },
    #[error(
        "base.scratch: images from scratch are made on x86_64 only, and this host is {host}; name an image or a file as the base"
    )]
    ScratchArchitecture { host: Architecture },
    #[error("base: {image} is {base} and the recipe wants {wanted}; name a base of the same architecture")]
    BaseArchitecture { image: ImageId, base: Architecture, wanted: Architecture },
    #[error("method: {method} cannot be used: {why}; leave `method` out")]
    WrongMethod { method: &'static str, why: String },
    #[error(
        "base: {image} cannot be baked by the {method} method: {why}; write `method: launch`, or name a plain Linux image"
    )]
    NotDirect { image: ImageId, method: &'static str, why: String },
    #[error(
        "disk.encrypt: false is not possible here: the account encrypts every new snapshot (with {key}); take `encrypt` out, or name a key"
    )]
    EncryptedByDefault { key: String },
    #[error("disk.encrypt: the base is encrypted, which cannot be undone; take `encrypt` out, or name a key")]
    EncryptedBase,
    #[error("launch.{key}: the method launch needs {what}; name it in the recipe")]
    LaunchNeeds { key: &'static str, what: &'static str },
    #[error(
        "step {step}: `ansible` runs where Bakehouse runs, and reaches no instance of the method launch; run Ansible in a `shell` step"
    )]
    LaunchAnsible { step: usize },
    #[error(
        "{key}: an image that the method launch makes has this as its base has it; take the key out, or bake by another method"
    )]
    LaunchKeeps { key: &'static str },
    #[error("disk.volumes: {device} is the root's; say of it under `disk` itself")]
    RootAsVolume { device: String },
    #[error("disk.volumes: the base has no volume at {device} that `no-device` could take away; take it out")]
    NoSuchVolume { device: String },
    #[error(
        "disk.volumes: {device} is to have {size} GiB, and its snapshot has {least} GiB; write that, or leave `size` out"
    )]
    VolumeTooSmall { device: String, size: u32, least: u32 },
    #[error("base: {image} has no root volume with a snapshot")]
    NoRootVolume { image: ImageId },
    #[error(
        "disk.size: {image} has a root volume of {base} GiB, which cannot shrink to {wanted} GiB; leave `size` out"
    )]
    TooSmall { image: ImageId, base: u32, wanted: u32 },
    #[error("image.imds: {image} requires IMDSv2, which cannot be undone; leave `imds` out")]
    ImdsIrreversible { image: ImageId },
    #[error(
        "image.name: an image called `{name}` exists in {place}; put {{date}} into the name, or delete that image"
    )]
    NameTaken { name: String, place: Place },
    #[error(transparent)]
    Name(#[from] NameError),
}

#[cfg(test)]
mod tests;
