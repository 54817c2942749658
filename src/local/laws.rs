//! What AWS refuses, as far as a request itself tells: lengths, characters, combinations. Numbers and rules are those of
//! the API models of EC2 and EBS unless said otherwise. Pure.

use base64::Engine;

use super::refusal::Refusal;
use crate::cloud::{
    Architecture, BlockDevice, BootMode, DiskType, EbsDisk, ImageAttributes, NewCopy, NewImage, NewSnapshot,
    Tags,
};

/// GiB of the largest volume.
pub(super) const LARGEST_VOLUME: u32 = 65_536;
const LONGEST_DESCRIPTION: usize = 255;
const MOST_TAGS: usize = 50;
const LONGEST_TAG_KEY: usize = 127;
const LONGEST_TAG_VALUE: usize = 255;
/// Characters of base64.
const LONGEST_UEFI_DATA: usize = 64_000;

const EBS_INVALID: &str = "ValidationException";
const EC2_INVALID: &str = "InvalidParameterValue";

type Checked = Result<(), Refusal>;

/// `StartSnapshot`, as far as no other snapshot is looked at.
pub(super) fn snapshot(new: &NewSnapshot) -> Checked {
    let invalid = |message: String| Err(Refusal::invalid(EBS_INVALID, message));
    if !(1..=LARGEST_VOLUME).contains(&new.volume_size) {
        return invalid(format!("a volume of {} GiB is not one of 1 to {LARGEST_VOLUME}", new.volume_size));
    }
    if !(10..=4320).contains(&new.timeout_minutes) {
        return invalid(format!("a timeout of {} minutes is not one of 10 to 4320", new.timeout_minutes));
    }
    match (&new.encrypt, &new.parent) {
        (Some(_), Some(parent)) => {
            return invalid(format!("a child is encrypted as its parent {parent}: leave the key out"));
        }
        (Some(key), None) if !is_key_arn(key) => {
            return invalid(format!("{key:?} is not the full ARN of a key"));
        }
        _ => {}
    }
    description(&new.description, EBS_INVALID)?;
    tags(&new.tags, EBS_INVALID)
}

/// `RegisterImage`, as far as nothing else is looked at.
pub(super) fn image(new: &NewImage) -> Checked {
    image_name(&new.name)?;
    description(&new.description, EC2_INVALID)?;
    tags(&new.tags, EC2_INVALID)?;
    attributes(&new.attributes)
}

/// `CopyImage`, as far as nothing else is looked at.
pub(super) fn copy(new: &NewCopy) -> Checked {
    image_name(&new.name)?;
    description(&new.description, EC2_INVALID)?;
    tags(&new.tags, EC2_INVALID)
}

fn image_name(name: &str) -> Checked {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "()[] ./-'@_".contains(c);
    if (3..=128).contains(&name.chars().count()) && name.chars().all(allowed) {
        return Ok(());
    }
    Err(Refusal::invalid(
        "InvalidAMIName.Malformed",
        format!("the name {name:?} is not of 3 to 128 letters, digits, spaces and ( ) [ ] . / - ' @ _"),
    ))
}

fn attributes(wanted: &ImageAttributes) -> Checked {
    let invalid = |message: String| Err(Refusal::invalid(EC2_INVALID, message));
    if wanted.architecture == Architecture::Arm64 && wanted.boot_mode == Some(BootMode::LegacyBios) {
        return invalid("arm64 has no legacy BIOS".to_owned());
    }
    if wanted.tpm && !matches!(wanted.boot_mode, Some(BootMode::Uefi | BootMode::UefiPreferred)) {
        return invalid("a TPM needs the boot mode uefi".to_owned());
    }
    if let Some(sriov) = wanted.sriov.as_ref().filter(|sriov| *sriov != "simple") {
        return invalid(format!("SR-IOV support is \"simple\" or unset, and not {sriov:?}"));
    }
    if let Some(data) = &wanted.uefi_data {
        let good =
            data.len() <= LONGEST_UEFI_DATA && base64::engine::general_purpose::STANDARD.decode(data).is_ok();
        if !good {
            return invalid(format!("the UEFI data is not base64 of at most {LONGEST_UEFI_DATA} characters"));
        }
    }
    for (number, device) in wanted.devices.iter().enumerate() {
        if wanted.devices[..number].iter().any(|other| other.name == device.name) {
            return Err(Refusal::invalid(
                "InvalidBlockDeviceMapping",
                format!("the device {} is there twice", device.name),
            ));
        }
        block_device(device)?;
    }
    let root = wanted.devices.iter().find(|device| device.name == wanted.root_device);
    if root.and_then(|root| root.ebs.as_ref()?.snapshot.as_ref()).is_none() {
        return Err(Refusal::invalid(
            "InvalidBlockDeviceMapping",
            format!("the root device {:?} is not among the devices with a snapshot", wanted.root_device),
        ));
    }
    Ok(())
}

fn block_device(device: &BlockDevice) -> Checked {
    let invalid = |why: &str| {
        Err(Refusal::invalid("InvalidBlockDeviceMapping", format!("the device {:?} {why}", device.name)))
    };
    if device.name.is_empty() || device.name.len() > LONGEST_DESCRIPTION {
        return invalid("has no name that a device could have");
    }
    match (&device.ebs, &device.virtual_name) {
        (Some(_), Some(_)) => invalid("is both an EBS volume and an instance store volume"),
        (None, Some(name)) if !is_ephemeral(name) => {
            invalid("is an instance store volume and not named ephemeral0 to ephemeral23")
        }
        (Some(ebs), None) => ebs_disk(ebs).or_else(invalid),
        _ => Ok(()),
    }
}

fn ebs_disk(ebs: &EbsDisk) -> Result<(), &'static str> {
    if !(1..=LARGEST_VOLUME).contains(&ebs.size) {
        return Err("is not of 1 to 65536 GiB");
    }
    let provisioned = matches!(ebs.kind, DiskType::Io1 | DiskType::Io2);
    if provisioned && ebs.iops.is_none() {
        return Err("is of a type that needs its IOPS said");
    }
    if ebs.iops.is_some() && !provisioned && ebs.kind != DiskType::Gp3 {
        return Err("is of a type that takes no IOPS");
    }
    if ebs.throughput.is_some() && ebs.kind != DiskType::Gp3 {
        return Err("is of a type that takes no throughput");
    }
    Ok(())
}

fn is_ephemeral(name: &str) -> bool {
    let number = name.strip_prefix("ephemeral").and_then(|number| number.parse::<u8>().ok());
    number.is_some_and(|number| number < 24)
}

/// `arn:PARTITION:kms:REGION:ACCOUNT:key/ID`.
fn is_key_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    matches!(parts[..], ["arn", _, "kms", _, _, key] if key.strip_prefix("key/").is_some_and(|id| !id.is_empty()))
}

fn description(text: &str, code: &'static str) -> Checked {
    if text.chars().count() <= LONGEST_DESCRIPTION {
        return Ok(());
    }
    Err(Refusal::invalid(code, format!("the description is longer than {LONGEST_DESCRIPTION} characters")))
}

pub(super) fn tags(tags: &Tags, code: &'static str) -> Checked {
    if tags.len() > MOST_TAGS {
        return Err(Refusal::invalid(
            if code == EC2_INVALID { "TagLimitExceeded" } else { code },
            format!("{} tags are more than {MOST_TAGS}", tags.len()),
        ));
    }
    for (key, value) in tags {
        let length = key.chars().count();
        let why = if length == 0 || length > LONGEST_TAG_KEY {
            format!("its key does not have 1 to {LONGEST_TAG_KEY} characters")
        } else if value.chars().count() > LONGEST_TAG_VALUE {
            format!("its value is longer than {LONGEST_TAG_VALUE} characters")
        } else if key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:")) {
            "keys that begin with aws: are AWS's own".to_owned()
        } else {
            continue;
        };
        return Err(Refusal::invalid(code, format!("the tag {key:?} is refused: {why}")));
    }
    Ok(())
}

/// Whether `has` has all of `wanted`, with exactly these values.
pub(super) fn has_tags(has: &Tags, wanted: &Tags, keys: &[String]) -> bool {
    wanted.iter().all(|(key, value)| has.get(key) == Some(value))
        && keys.iter().all(|key| has.contains_key(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::SnapshotId;

    /// Why a request is refused, and what makes it so.
    type Case<T> = (&'static str, fn(&mut T));

    fn new_image() -> NewImage {
        NewImage {
            name: "web 1".to_owned(),
            description: String::new(),
            attributes: ImageAttributes {
                architecture: Architecture::X86_64,
                boot_mode: None,
                ena: true,
                sriov: Some("simple".to_owned()),
                imds_v2: true,
                tpm: false,
                uefi_data: None,
                root_device: "/dev/xvda".to_owned(),
                devices: vec![BlockDevice {
                    name: "/dev/xvda".to_owned(),
                    ebs: Some(EbsDisk {
                        snapshot: SnapshotId::parse("snap-01234567"),
                        size: 8,
                        kind: DiskType::Gp3,
                        iops: None,
                        throughput: None,
                        delete_on_termination: true,
                    }),
                    virtual_name: None,
                }],
            },
            tags: Tags::new(),
        }
    }

    fn disk(new: &mut NewImage) -> &mut EbsDisk {
        new.attributes.devices[0].ebs.as_mut().unwrap()
    }

    #[test]
    fn an_image_that_ec2_would_refuse_is_refused() {
        let refused: [Case<NewImage>; 19] = [
            ("short name", |new| new.name = "ab".to_owned()),
            ("long name", |new| new.name = "a".repeat(129)),
            ("name with a colon", |new| new.name = "web:1".to_owned()),
            ("long description", |new| new.description = "x".repeat(256)),
            ("tag of AWS", |new| {
                new.tags.insert("AWS:x".to_owned(), String::new());
            }),
            ("tag without key", |new| {
                new.tags.insert(String::new(), String::new());
            }),
            ("long tag", |new| {
                new.tags.insert("k".to_owned(), "v".repeat(256));
            }),
            ("root not among devices", |new| {
                new.attributes.root_device = "/dev/sda".to_owned();
            }),
            ("no devices", |new| new.attributes.devices.clear()),
            ("root without snapshot", |new| disk(new).snapshot = None),
            ("device twice", |new| {
                let again = new.attributes.devices[0].clone();
                new.attributes.devices.push(again);
            }),
            ("both kinds of volume", |new| {
                new.attributes.devices[0].virtual_name = Some("ephemeral0".to_owned());
            }),
            ("size zero", |new| disk(new).size = 0),
            ("iops on gp2", |new| {
                disk(new).kind = DiskType::Gp2;
                disk(new).iops = Some(3000);
            }),
            ("io2 without iops", |new| disk(new).kind = DiskType::Io2),
            ("TPM without UEFI", |new| new.attributes.tpm = true),
            ("arm64 with a BIOS", |new| {
                new.attributes.architecture = Architecture::Arm64;
                new.attributes.boot_mode = Some(BootMode::LegacyBios);
            }),
            ("UEFI data", |new| new.attributes.uefi_data = Some("!".to_owned())),
            ("SR-IOV", |new| new.attributes.sriov = Some("double".to_owned())),
        ];
        assert!(image(&new_image()).is_ok());
        for (why, change) in refused {
            let mut new = new_image();
            change(&mut new);
            assert!(image(&new).is_err(), "{why}");
        }
    }

    #[test]
    fn a_snapshot_that_ebs_would_refuse_is_refused() {
        let good = NewSnapshot {
            volume_size: 1,
            parent: None,
            description: String::new(),
            tags: (0..50).map(|number| (number.to_string(), String::new())).collect(),
            encrypt: Some("arn:aws:kms:eu-west-1:123456789012:key/abc".to_owned()),
            timeout_minutes: 60,
        };
        assert!(snapshot(&good).is_ok());
        let refused: [Case<NewSnapshot>; 8] = [
            ("no size", |new| new.volume_size = 0),
            ("large", |new| new.volume_size = 65_537),
            ("short timeout", |new| new.timeout_minutes = 9),
            ("long timeout", |new| new.timeout_minutes = 4321),
            ("alias", |new| new.encrypt = Some("alias/bakery".to_owned())),
            ("parent and key", |new| {
                new.parent = SnapshotId::parse("snap-01234567");
            }),
            ("51 tags", |new| {
                new.tags.insert("more".to_owned(), String::new());
            }),
            ("long description", |new| new.description = "x".repeat(256)),
        ];
        for (why, change) in refused {
            let mut new = good.clone();
            change(&mut new);
            assert!(snapshot(&new).is_err(), "{why}");
        }
    }
}
