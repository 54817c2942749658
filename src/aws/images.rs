//! Images, as EC2 keeps them.

use async_trait::async_trait;
use aws_sdk_ec2::types as ec2;
use jiff::Timestamp;

use super::place::{AwsPlace, ec2_tags, page, some, tag_filters, tagged, tags_of};
use crate::cloud::{
    AccountId, Architecture, BlockDevice, BootMode, DiskType, EbsDisk, ErrorKind, Image, ImageAttributes,
    ImageId, ImageQuery, ImageState, Images, InstanceId, NewCopy, NewImage, NewImageOf, Result, SnapshotId,
    Tags, Token,
};

const DESCRIBE: &str = "DescribeImages";
const COPY: &str = "CopyImage";
const CREATE: &str = "CreateImage";
const REGISTER: &str = "RegisterImage";
/// Images of a page: what the API recommends asking for, instead of all at once (at most 1,000).
const PAGE: i32 = 500;
/// The owner that stands for the caller.
const SELF: &str = "self";

#[derive(Clone, Debug)]
pub(super) struct AwsImages(pub(super) AwsPlace);

#[async_trait]
impl Images for AwsImages {
    async fn find(&self, query: &ImageQuery) -> Result<Vec<Image>> {
        let mut filters = tag_filters(&query.tags, &query.tag_keys);
        if let Some(name) = &query.name {
            filters.push(ec2::Filter::builder().name("name").values(name).build());
        }
        let mut owners = query.owners.clone();
        let named = !query.ids.is_empty();
        if owners.is_empty() && !named {
            owners.push(SELF.to_owned());
        }
        let ids: Vec<String> = query.ids.iter().map(ToString::to_string).collect();
        let call = self.0.ec2.describe_images();
        let call = call.set_filters(some(filters)).set_owners(some(owners)).set_image_ids(some(ids));
        // One that is disabled has its name and uses its snapshots all the same, and one that is named is wanted whatever
        // became of it. Among many, others' deprecated ones stay out: nobody is to begin with them.
        let call = call.include_disabled(true).set_include_deprecated(named.then_some(true));
        // Ids and a page's size exclude each other.
        let call = call.set_max_results((!named).then_some(PAGE));
        let (mut images, mut next) = (Vec::new(), None);
        loop {
            let send = || {
                let sent = call.clone().set_next_token(next.clone()).send();
                async { sent.await.map_err(self.0.failed(DESCRIBE)) }
            };
            let page = page(next.is_none(), send).await?;
            for image in page.images() {
                if image.state() == Some(&ec2::ImageState::Deregistered) {
                    // It is shown for a while after it is gone.
                    if named {
                        let id = image.image_id().unwrap_or_default();
                        let text = format!("{id} is deregistered");
                        let (kind, place) = (ErrorKind::NotFound, &self.0.place);
                        return Err(crate::cloud::CloudError::new(kind, DESCRIBE, place, text));
                    }
                    continue;
                }
                match read(image) {
                    Ok(image) => images.push(image),
                    // Among many, one that is not for Bakehouse is passed over; one that is asked for by id is not.
                    Err(why) if named => {
                        let id = image.image_id().unwrap_or_default();
                        let text = format!("{id} cannot be used: {why}");
                        return Err(crate::cloud::CloudError::new(
                            ErrorKind::Invalid,
                            DESCRIBE,
                            &self.0.place,
                            text,
                        ));
                    }
                    Err(_) => {}
                }
            }
            next = page.next_token().map(str::to_owned);
            if next.is_none() {
                break;
            }
        }
        images.sort_by(|a: &Image, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
        Ok(images)
    }

    async fn register(&self, new: &NewImage) -> Result<ImageId> {
        let attributes = &new.attributes;
        let devices = attributes.devices.iter().map(device).collect();
        let answer = self
            .0
            .ec2
            .register_image()
            .name(&new.name)
            .set_description(text(&new.description))
            // Left out they would be i386 and paravirtual.
            .architecture(architecture(attributes.architecture))
            .virtualization_type("hvm")
            .set_boot_mode(attributes.boot_mode.map(boot_mode))
            .ena_support(attributes.ena)
            .set_sriov_net_support(attributes.sriov.clone())
            .set_imds_support(attributes.imds_v2.then_some(ec2::ImdsSupportValues::V20))
            .set_tpm_support(attributes.tpm.then_some(ec2::TpmSupportValues::V20))
            .set_uefi_data(attributes.uefi_data.clone())
            .root_device_name(&attributes.root_device)
            .set_block_device_mappings(Some(devices))
            .set_tag_specifications(tagged(ec2::ResourceType::Image, &new.tags).map(|tags| vec![tags]))
            .send()
            .await
            .map_err(self.0.failed(REGISTER))?;
        let id = answer.image_id().and_then(ImageId::parse);
        id.ok_or_else(|| self.0.odd(REGISTER, "no image's id"))
    }

    async fn copy(&self, new: &NewCopy, token: &Token) -> Result<ImageId> {
        let tags = [ec2::ResourceType::Image, ec2::ResourceType::Snapshot];
        let tags = tags.into_iter().filter_map(|what| tagged(what, &new.tags)).collect();
        let answer = self
            .0
            .ec2
            .copy_image()
            .source_image_id(new.source.as_str())
            .source_region(new.source_region.as_str())
            .name(&new.name)
            .set_description(text(&new.description))
            .set_encrypted(new.encrypt.is_some().then_some(true))
            .set_kms_key_id(new.encrypt.clone())
            .set_tag_specifications(some(tags))
            .client_token(token.as_str())
            .send()
            .await
            .map_err(self.0.failed(COPY))?;
        let id = answer.image_id().and_then(ImageId::parse);
        id.ok_or_else(|| self.0.odd(COPY, "no image's id"))
    }

    async fn uefi_data(&self, id: &ImageId) -> Result<Option<String>> {
        let call = self.0.ec2.describe_image_attribute().image_id(id.as_str());
        let call = call.attribute(ec2::ImageAttributeName::UefiData);
        let answer = call.send().await.map_err(self.0.failed("DescribeImageAttribute"))?;
        let data = answer.uefi_data().and_then(|data| data.value()).filter(|data| !data.is_empty());
        Ok(data.map(str::to_owned))
    }

    async fn deregister(&self, id: &ImageId) -> Result<()> {
        let sent = self.0.ec2.deregister_image().image_id(id.as_str()).send().await;
        sent.map(drop).map_err(self.0.failed("DeregisterImage"))
    }

    async fn create(&self, of: &InstanceId, new: &NewImageOf) -> Result<ImageId> {
        let tags = [
            tagged(ec2::ResourceType::Image, &new.image_tags),
            tagged(ec2::ResourceType::Snapshot, &new.snapshot_tags),
        ];
        let call = self.0.ec2.create_image().instance_id(of.as_str()).name(&new.name);
        let call = call.set_description(text(&new.description));
        let call = call.set_tag_specifications(some(tags.into_iter().flatten().collect()));
        let answer = call.send().await.map_err(self.0.failed(CREATE))?;
        let id = answer.image_id().and_then(ImageId::parse);
        id.ok_or_else(|| self.0.odd(CREATE, "no image's id"))
    }

    async fn require_imds_v2(&self, id: &ImageId) -> Result<()> {
        let required = ec2::AttributeValue::builder().value(ec2::ImdsSupportValues::V20.as_str()).build();
        let call = self.0.ec2.modify_image_attribute().image_id(id.as_str()).imds_support(required);
        call.send().await.map(drop).map_err(self.0.failed("ModifyImageAttribute"))
    }

    async fn tag(&self, id: &ImageId, tags: &Tags) -> Result<()> {
        let call = self.0.ec2.create_tags().resources(id.as_str()).set_tags(Some(ec2_tags(tags)));
        call.send().await.map(drop).map_err(self.0.failed("CreateTags"))
    }

    async fn untag(&self, id: &ImageId, keys: &[String]) -> Result<()> {
        // A tag without a value goes whatever its value is.
        let tags = keys.iter().map(|key| ec2::Tag::builder().key(key).build()).collect();
        let call = self.0.ec2.delete_tags().resources(id.as_str()).set_tags(Some(tags));
        call.send().await.map(drop).map_err(self.0.failed("DeleteTags"))
    }
}

/// A description that is left out where it is empty.
fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// One of EC2's as the seam has it.
fn read(image: &ec2::Image) -> std::result::Result<Image, String> {
    let id = image.image_id().and_then(ImageId::parse).ok_or("it has no id")?;
    let owner = image.owner_id().and_then(AccountId::parse).ok_or("it has no owner")?;
    let architecture = match image.architecture() {
        Some(ec2::ArchitectureValues::X8664) => Architecture::X86_64,
        Some(ec2::ArchitectureValues::Arm64) => Architecture::Arm64,
        other => {
            let other = other.map_or("unknown", ec2::ArchitectureValues::as_str);
            return Err(format!("its architecture is {other}; Bakehouse knows x86_64 and arm64"));
        }
    };
    let state = match image.state() {
        Some(ec2::ImageState::Available) => ImageState::Available,
        Some(ec2::ImageState::Pending | ec2::ImageState::Transient) => ImageState::Pending,
        Some(ec2::ImageState::Disabled) => ImageState::Disabled,
        _ => ImageState::Failed,
    };
    // One that is pending may have no date yet.
    let created = image.creation_date().and_then(|date| date.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH);
    let attributes = ImageAttributes {
        architecture,
        boot_mode: image.boot_mode().and_then(read_boot_mode),
        ena: image.ena_support().unwrap_or_default(),
        sriov: image.sriov_net_support().map(str::to_owned),
        imds_v2: image.imds_support() == Some(&ec2::ImdsSupportValues::V20),
        tpm: image.tpm_support() == Some(&ec2::TpmSupportValues::V20),
        // No listing has it; DescribeImageAttribute does.
        uefi_data: None,
        root_device: image.root_device_name().unwrap_or_default().to_owned(),
        devices: image.block_device_mappings().iter().filter_map(read_device).collect(),
    };
    let reason = image.state_reason().and_then(|reason| reason.message().or(reason.code()));
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    Ok(Image {
        id,
        owner,
        name: text(image.name()),
        description: text(image.description()),
        state,
        state_reason: reason.map(str::to_owned),
        created,
        attributes,
        tags: tags_of(image.tags()),
        usage_operation: text(image.usage_operation()),
        platform: text(image.platform_details()),
        product_codes: image
            .product_codes()
            .iter()
            .filter_map(|code| code.product_code_id().map(str::to_owned))
            .collect(),
    })
}

fn read_device(mapping: &ec2::BlockDeviceMapping) -> Option<BlockDevice> {
    let ebs = mapping.ebs().map(|ebs| EbsDisk {
        snapshot: ebs.snapshot_id().and_then(SnapshotId::parse),
        size: ebs.volume_size().and_then(|size| u32::try_from(size).ok()).unwrap_or_default(),
        kind: ebs.volume_type().and_then(read_disk_type).unwrap_or(DiskType::Standard),
        iops: ebs.iops().and_then(|iops| u32::try_from(iops).ok()),
        throughput: ebs.throughput().and_then(|throughput| u32::try_from(throughput).ok()),
        delete_on_termination: ebs.delete_on_termination().unwrap_or_default(),
    });
    Some(BlockDevice {
        name: mapping.device_name()?.to_owned(),
        ebs,
        virtual_name: mapping.virtual_name().map(str::to_owned),
    })
}

fn device(device: &BlockDevice) -> ec2::BlockDeviceMapping {
    let mapping = ec2::BlockDeviceMapping::builder().device_name(&device.name);
    let Some(disk) = &device.ebs else {
        return match &device.virtual_name {
            Some(name) => mapping.virtual_name(name),
            // An empty text hides the base's volume of that name.
            None => mapping.no_device(""),
        }
        .build();
    };
    let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let ebs = ec2::EbsBlockDevice::builder()
        .set_snapshot_id(disk.snapshot.as_ref().map(ToString::to_string))
        .volume_size(number(disk.size))
        .volume_type(disk_type(disk.kind))
        .set_iops(disk.iops.map(number))
        .set_throughput(disk.throughput.map(number))
        .delete_on_termination(disk.delete_on_termination)
        .build();
    mapping.ebs(ebs).build()
}

fn architecture(architecture: Architecture) -> ec2::ArchitectureValues {
    match architecture {
        Architecture::X86_64 => ec2::ArchitectureValues::X8664,
        Architecture::Arm64 => ec2::ArchitectureValues::Arm64,
    }
}

fn boot_mode(mode: BootMode) -> ec2::BootModeValues {
    match mode {
        BootMode::LegacyBios => ec2::BootModeValues::LegacyBios,
        BootMode::Uefi => ec2::BootModeValues::Uefi,
        BootMode::UefiPreferred => ec2::BootModeValues::UefiPreferred,
    }
}

fn read_boot_mode(mode: &ec2::BootModeValues) -> Option<BootMode> {
    match mode {
        ec2::BootModeValues::LegacyBios => Some(BootMode::LegacyBios),
        ec2::BootModeValues::Uefi => Some(BootMode::Uefi),
        ec2::BootModeValues::UefiPreferred => Some(BootMode::UefiPreferred),
        _ => None,
    }
}

pub(super) fn disk_type(kind: DiskType) -> ec2::VolumeType {
    match kind {
        DiskType::Gp2 => ec2::VolumeType::Gp2,
        DiskType::Gp3 => ec2::VolumeType::Gp3,
        DiskType::Io1 => ec2::VolumeType::Io1,
        DiskType::Io2 => ec2::VolumeType::Io2,
        DiskType::St1 => ec2::VolumeType::St1,
        DiskType::Sc1 => ec2::VolumeType::Sc1,
        DiskType::Standard => ec2::VolumeType::Standard,
    }
}

fn read_disk_type(kind: &ec2::VolumeType) -> Option<DiskType> {
    Some(match kind {
        ec2::VolumeType::Gp2 => DiskType::Gp2,
        ec2::VolumeType::Gp3 => DiskType::Gp3,
        ec2::VolumeType::Io1 => DiskType::Io1,
        ec2::VolumeType::Io2 => DiskType::Io2,
        ec2::VolumeType::St1 => DiskType::St1,
        ec2::VolumeType::Sc1 => DiskType::Sc1,
        ec2::VolumeType::Standard => DiskType::Standard,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ec2::builders::ImageBuilder {
        ec2::Image::builder()
            .image_id("ami-0123456789abcdef0")
            .owner_id("123456789012")
            .name("web")
            .state(ec2::ImageState::Available)
            .architecture(ec2::ArchitectureValues::Arm64)
            .creation_date("2026-01-02T03:04:05.000Z")
            .root_device_name("/dev/xvda")
    }

    #[test]
    fn what_is_written_of_a_device_is_read_again() {
        let disk = EbsDisk {
            snapshot: SnapshotId::parse("snap-0123456789abcdef0"),
            size: 8,
            kind: DiskType::Gp3,
            iops: Some(4000),
            throughput: Some(250),
            delete_on_termination: true,
        };
        let named = |name: &str, ebs: Option<EbsDisk>, virtual_name: Option<&str>| BlockDevice {
            name: name.to_owned(),
            ebs,
            virtual_name: virtual_name.map(str::to_owned),
        };
        let devices = [
            named("/dev/xvda", Some(disk), None),
            named("/dev/sdb", None, Some("ephemeral0")),
            named("/dev/sdc", None, None),
        ];
        for wanted in devices {
            let written = device(&wanted);
            assert_eq!(written.no_device().is_some(), wanted.ebs.is_none() && wanted.virtual_name.is_none());
            assert_eq!(read_device(&written), Some(wanted));
        }
    }

    #[test]
    fn an_image_that_nothing_boots_here_is_refused_with_a_reason() {
        let read_one = read(&image().build()).unwrap();
        assert_eq!(read_one.created.to_string(), "2026-01-02T03:04:05Z");
        assert_eq!(read_one.attributes.architecture, Architecture::Arm64);
        let old = image().architecture(ec2::ArchitectureValues::I386).build();
        assert!(read(&old).unwrap_err().contains("i386"));
    }
}
