//! Instances, as EC2 runs them.

use async_trait::async_trait;
use aws_sdk_ec2::types as ec2;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::images::disk_type;
use super::place::{AwsPlace, some, tag_filters, tagged, tags_of};
use crate::cloud::{
    Architecture, BootMode, BuildInstance, CloudError, ErrorKind, ImageId, Instance, InstanceId,
    InstanceQuery, InstanceState, Instances, NewInstance, Result, Token,
};

const RUN: &str = "RunInstances";
const DESCRIBE: &str = "DescribeInstances";
const DESCRIBE_IMAGES: &str = "DescribeImages";
const CONSOLE: &str = "GetConsoleOutput";
/// Instances of a page (EC2 API: 5 to 1,000).
const PAGE: i32 = 500;
/// How far an answer of the metadata service travels: a container on the instance is one step further.
const HOP_LIMIT: i32 = 2;

#[derive(Clone, Debug)]
pub(super) struct AwsInstances(pub(super) AwsPlace);

/// What a launch has to know of its image.
struct Launched {
    architecture: Architecture,
    boot_mode: Option<BootMode>,
    root_device: Option<String>,
    /// Names of those that are EBS volumes.
    volumes: Vec<String>,
}

impl AwsInstances {
    fn refused(&self, text: impl Into<String>) -> CloudError {
        CloudError::new(ErrorKind::Invalid, RUN, &self.0.place, text)
    }

    async fn image(&self, id: &ImageId) -> Result<Launched> {
        let answer = self
            .0
            .ec2
            .describe_images()
            .image_ids(id.as_str())
            .send()
            .await
            .map_err(self.0.failed(DESCRIBE_IMAGES))?;
        let image = answer.images().first().ok_or_else(|| self.0.odd(DESCRIBE_IMAGES, "no image"))?;
        Ok(Launched {
            architecture: match image.architecture() {
                Some(ec2::ArchitectureValues::Arm64) => Architecture::Arm64,
                _ => Architecture::X86_64,
            },
            boot_mode: image.boot_mode().and_then(|mode| match mode {
                ec2::BootModeValues::LegacyBios => Some(BootMode::LegacyBios),
                ec2::BootModeValues::Uefi => Some(BootMode::Uefi),
                ec2::BootModeValues::UefiPreferred => Some(BootMode::UefiPreferred),
                _ => None,
            }),
            root_device: image.root_device_name().map(str::to_owned),
            volumes: image
                .block_device_mappings()
                .iter()
                .filter(|device| device.ebs().is_some())
                .filter_map(|device| device.device_name().map(str::to_owned))
                .collect(),
        })
    }

    /// Its volumes, under the image's own names for them: each goes with the instance, whatever the image says of it, and
    /// the root may be larger than the image's and of another kind. What CreateImage makes of it has them as they are here:
    /// by itself that call changes nothing of a volume.
    fn volumes(&self, image: &Launched, new: &NewInstance) -> Result<Vec<ec2::BlockDeviceMapping>> {
        let root = image.root_device.as_ref().ok_or_else(|| self.refused("the image has no root device"))?;
        let number = |number: u32| {
            i32::try_from(number).map_err(|_| self.refused(format!("no disk has {number} of anything")))
        };
        let size = new.root_size.map(number).transpose()?;
        let key = new.build.as_ref().and_then(|build| build.encrypt.clone());
        let kind = new.build.as_ref().and_then(|build| build.root);
        let (iops, throughput) = (kind.and_then(|kind| kind.iops), kind.and_then(|kind| kind.throughput));
        let (iops, throughput) = (iops.map(number).transpose()?, throughput.map(number).transpose()?);
        let mapping = |name: &String| {
            let ebs = ec2::EbsBlockDevice::builder().delete_on_termination(true);
            let mut ebs = ebs.set_encrypted(key.is_some().then_some(true)).set_kms_key_id(key.clone());
            if name == root {
                ebs = ebs.set_volume_size(size).set_volume_type(kind.map(|kind| disk_type(kind.kind)));
                ebs = ebs.set_iops(iops).set_throughput(throughput);
            }
            ec2::BlockDeviceMapping::builder().device_name(name).ebs(ebs.build()).build()
        };
        Ok(image.volumes.iter().map(mapping).collect())
    }
}

/// A type for a short test where none is named: small, and of Nitro, whose console can be read while it runs.
fn small(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "t3.small",
        Architecture::Arm64 => "t4g.small",
    }
}

/// The firmware that a Nitro type starts an image with: the one that the image names; where it prefers UEFI, that; where
/// it says nothing, that of the architecture.
fn firmware(image: &Launched) -> BootMode {
    match (image.boot_mode, image.architecture) {
        (Some(BootMode::LegacyBios), _) | (None, Architecture::X86_64) => BootMode::LegacyBios,
        (Some(BootMode::Uefi | BootMode::UefiPreferred), _) | (None, Architecture::Arm64) => BootMode::Uefi,
    }
}

/// An instance profile, named or by its ARN.
fn profile(text: &str) -> ec2::IamInstanceProfileSpecification {
    let profile = ec2::IamInstanceProfileSpecification::builder();
    if text.starts_with("arn:") { profile.arn(text) } else { profile.name(text) }.build()
}

/// One time: a request that lasts would launch another when this one ends.
fn spot() -> ec2::InstanceMarketOptionsRequest {
    let options =
        ec2::SpotMarketOptions::builder().spot_instance_type(ec2::SpotInstanceType::OneTime).build();
    ec2::InstanceMarketOptionsRequest::builder()
        .market_type(ec2::MarketType::Spot)
        .spot_options(options)
        .build()
}

/// A guest that powers itself off is gone, with its volumes: so its life ends though nobody looks. One whose disk is to
/// become an image is stopped, but on spot, where EC2 stops none that was asked for one time.
fn at_shutdown(build: Option<&BuildInstance>) -> ec2::ShutdownBehavior {
    match build {
        Some(build) if !build.spot => ec2::ShutdownBehavior::Stop,
        _ => ec2::ShutdownBehavior::Terminate,
    }
}

#[async_trait]
impl Instances for AwsInstances {
    async fn launch(&self, new: &NewInstance, token: &Token) -> Result<InstanceId> {
        let image = self.image(&new.image).await?;
        if let Some(wanted) = new.boot_mode
            && wanted != BootMode::UefiPreferred
            && wanted != firmware(&image)
        {
            return Err(self
                .refused("EC2 starts an image with the firmware that the image names, and not with another")
                .with_advice(
                    "leave the boot mode out here; bake with another `image.boot-mode`, or test with --local",
                ));
        }
        let kind = new.kind.as_deref().unwrap_or_else(|| small(image.architecture));
        let devices = self.volumes(&image, new)?;
        // All that the call makes: a policy that asks for the tags asks it of each (aws:RequestTag is judged per resource).
        let spot_request = new.build.as_ref().filter(|build| build.spot);
        let made =
            [ec2::ResourceType::Instance, ec2::ResourceType::Volume, ec2::ResourceType::NetworkInterface]
                .into_iter()
                .chain(spot_request.map(|_| ec2::ResourceType::SpotInstancesRequest));
        let tags: Vec<_> = made.filter_map(|what| tagged(what, &new.tags)).collect();
        let metadata = ec2::InstanceMetadataOptionsRequest::builder()
            .http_tokens(ec2::HttpTokensState::Required)
            .http_put_response_hop_limit(HOP_LIMIT)
            .build();
        let build = new.build.as_ref();
        let answer = self
            .0
            .ec2
            .run_instances()
            .image_id(new.image.as_str())
            .instance_type(kind.into())
            .min_count(1)
            .max_count(1)
            .client_token(token.as_str())
            .set_user_data((!new.user_data.is_empty()).then(|| STANDARD.encode(&new.user_data)))
            .set_block_device_mappings(some(devices))
            .set_tag_specifications(some(tags))
            .metadata_options(metadata)
            .set_iam_instance_profile(build.and_then(|build| build.profile.as_deref()).map(profile))
            .set_subnet_id(build.and_then(|build| build.subnet.clone()))
            .set_security_group_ids(build.and_then(|build| some(build.security_groups.clone())))
            .set_instance_market_options(build.filter(|build| build.spot).map(|_| spot()))
            .instance_initiated_shutdown_behavior(at_shutdown(build))
            .send()
            .await
            .map_err(self.0.failed(RUN))?;
        let id = answer.instances().first().and_then(|one| one.instance_id()).and_then(InstanceId::parse);
        id.ok_or_else(|| self.0.odd(RUN, "no instance's id"))
    }

    async fn find(&self, query: &InstanceQuery) -> Result<Vec<Instance>> {
        let ids: Vec<String> = query.ids.iter().map(ToString::to_string).collect();
        let named = !ids.is_empty();
        let mut pages = self
            .0
            .ec2
            .describe_instances()
            .set_instance_ids(some(ids))
            .set_filters(some(tag_filters(&query.tags, &query.tag_keys)))
            // Ids and a page's size exclude each other.
            .set_max_results((!named).then_some(PAGE))
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(self.0.failed(DESCRIBE))?;
            let instances = page.reservations().iter().flat_map(|one| one.instances());
            found.extend(instances.filter_map(read));
        }
        Ok(found)
    }

    async fn describe(&self, id: &InstanceId) -> Result<Instance> {
        let query = InstanceQuery { ids: vec![id.clone()], ..InstanceQuery::default() };
        let found = self.find(&query).await?.into_iter().find(|one| one.id == *id);
        found.ok_or_else(|| {
            let text = format!("there is no instance {id}");
            CloudError::new(ErrorKind::NotFound, DESCRIBE, &self.0.place, text)
        })
    }

    async fn console(&self, id: &InstanceId) -> Result<Vec<u8>> {
        let answer = self
            .0
            .ec2
            .get_console_output()
            .instance_id(id.as_str())
            // Without it EC2 answers what it kept at the last start or stop.
            .latest(true)
            .send()
            .await
            .map_err(self.0.failed(CONSOLE))?;
        // For minutes there may be none.
        let text: String = answer.output().unwrap_or_default().split_whitespace().collect();
        STANDARD
            .decode(text)
            .map_err(|error| self.0.odd(CONSOLE, "an output that is not base64").with_source(error))
    }

    async fn stop(&self, id: &InstanceId) -> Result<()> {
        let sent = self.0.ec2.stop_instances().instance_ids(id.as_str()).send().await;
        sent.map(drop).map_err(self.0.failed("StopInstances"))
    }

    async fn terminate(&self, id: &InstanceId) -> Result<()> {
        let sent = self.0.ec2.terminate_instances().instance_ids(id.as_str()).send().await;
        sent.map(drop).map_err(self.0.failed("TerminateInstances"))
    }
}

fn read(instance: &ec2::Instance) -> Option<Instance> {
    let state = match instance.state()?.name()? {
        ec2::InstanceStateName::Pending => InstanceState::Pending,
        ec2::InstanceStateName::Running => InstanceState::Running,
        ec2::InstanceStateName::Stopping => InstanceState::Stopping,
        ec2::InstanceStateName::Stopped => InstanceState::Stopped,
        ec2::InstanceStateName::ShuttingDown => InstanceState::ShuttingDown,
        ec2::InstanceStateName::Terminated => InstanceState::Terminated,
        _ => return None,
    };
    let said = instance.state_reason().and_then(|reason| reason.message().or(reason.code()));
    // `Server.InsufficientInstanceCapacity`, and `Client.UserInitiatedShutdown` of whoever works with it (EC2 API model,
    // StateReason).
    let code = instance.state_reason().and_then(|reason| reason.code()).unwrap_or_default();
    let reason = said.or(instance.state_transition_reason()).filter(|text| !text.is_empty());
    Some(Instance {
        id: InstanceId::parse(instance.instance_id()?)?,
        image: ImageId::parse(instance.image_id()?)?,
        state,
        reason: reason.map(str::to_owned),
        ended_by_cloud: code.starts_with("Server."),
        tags: tags_of(instance.tags()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firmware_is_the_images_or_its_architectures() {
        let image = |architecture, boot_mode| Launched {
            architecture,
            boot_mode,
            root_device: None,
            volumes: Vec::new(),
        };
        let (intel, graviton) = (Architecture::X86_64, Architecture::Arm64);
        assert_eq!(firmware(&image(intel, None)), BootMode::LegacyBios);
        assert_eq!(firmware(&image(graviton, None)), BootMode::Uefi);
        assert_eq!(firmware(&image(intel, Some(BootMode::UefiPreferred))), BootMode::Uefi);
        assert_eq!(firmware(&image(intel, Some(BootMode::LegacyBios))), BootMode::LegacyBios);
    }

    #[test]
    fn an_instance_is_read_with_its_reason() {
        let state = ec2::InstanceState::builder().name(ec2::InstanceStateName::Terminated).build();
        let reason = ec2::StateReason::builder().message("Client.InstanceInitiatedShutdown").build();
        let instance = ec2::Instance::builder()
            .instance_id("i-0123456789abcdef0")
            .image_id("ami-0123456789abcdef0")
            .state(state)
            .state_reason(reason)
            .build();
        let read = read(&instance).unwrap();
        assert_eq!(read.state, InstanceState::Terminated);
        assert_eq!(read.reason.as_deref(), Some("Client.InstanceInitiatedShutdown"));
        assert!(!read.ended_by_cloud);
    }
}
