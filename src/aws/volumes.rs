//! Volumes, as EC2 has them.

use std::path::PathBuf;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_ec2::types as ec2;

use super::device;
use super::machine::Metadata;
use super::place::{AwsPlace, some, tag_filters, tagged, tags_of};
use crate::cloud::{
    Attachment, CloudError, ErrorKind, InstanceId, Machine, NewSnapshotOf, NewVolume, Result, SnapshotId,
    Token, Volume, VolumeId, VolumeQuery, VolumeState, Volumes,
};

const CREATE: &str = "CreateVolume";
const DESCRIBE: &str = "DescribeVolumes";
const ATTACH: &str = "AttachVolume";
const SNAPSHOT: &str = "CreateSnapshot";
/// Volumes of a page (EC2 API: 5 to 1,000).
const PAGE: i32 = 500;

#[derive(Clone, Debug)]
pub(super) struct AwsVolumes {
    here: AwsPlace,
    metadata: Metadata,
}

impl AwsVolumes {
    pub(super) fn new(config: &SdkConfig, here: AwsPlace) -> Self {
        Self { here, metadata: Metadata::new(config) }
    }
}

#[async_trait]
impl Volumes for AwsVolumes {
    async fn machine(&self) -> Result<Machine> {
        self.metadata.machine(&self.here.place).await
    }

    async fn create(&self, new: &NewVolume, token: &Token) -> Result<VolumeId> {
        let size = i32::try_from(new.size).map_err(|_| {
            let text = format!("no volume has {} GiB", new.size);
            CloudError::new(ErrorKind::Invalid, CREATE, &self.here.place, text)
        })?;
        let answer = self
            .here
            .ec2
            .create_volume()
            .snapshot_id(new.snapshot.as_str())
            .size(size)
            .availability_zone(&new.zone)
            // Left out it would be gp2, which is slower and costs more.
            .volume_type(ec2::VolumeType::Gp3)
            .client_token(token.as_str())
            .set_tag_specifications(tagged(ec2::ResourceType::Volume, &new.tags).map(|tags| vec![tags]))
            .send()
            .await
            .map_err(self.here.failed(CREATE))?;
        let id = answer.volume_id().and_then(VolumeId::parse);
        id.ok_or_else(|| self.here.odd(CREATE, "no volume's id"))
    }

    async fn find(&self, query: &VolumeQuery) -> Result<Vec<Volume>> {
        let ids: Vec<String> = query.ids.iter().map(ToString::to_string).collect();
        let named = !ids.is_empty();
        let mut filters = tag_filters(&query.tags, &query.tag_keys);
        filters.extend(query.attached_to.as_ref().map(|instance| {
            ec2::Filter::builder().name("attachment.instance-id").values(instance.as_str()).build()
        }));
        let mut pages = self
            .here
            .ec2
            .describe_volumes()
            .set_volume_ids(some(ids))
            .set_filters(some(filters))
            // Ids and a page's size exclude each other.
            .set_max_results((!named).then_some(PAGE))
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(self.here.failed(DESCRIBE))?;
            found.extend(page.volumes().iter().filter_map(read));
        }
        Ok(found)
    }

    async fn attach(&self, id: &VolumeId, to: &InstanceId, device: &str) -> Result<()> {
        let call = self.here.ec2.attach_volume().volume_id(id.as_str());
        let sent = call.instance_id(to.as_str()).device(device).send().await;
        sent.map(drop).map_err(|error| {
            let error = self.here.failed(ATTACH)(error);
            // Of all that can be wrong with a value, this one alone is told by the text.
            let taken = error.code.as_deref() == Some("InvalidParameterValue")
                && error.message.contains("already in use");
            if taken { CloudError { kind: ErrorKind::Exists, ..error } } else { error }
        })
    }

    async fn node(&self, id: &VolumeId, device: &str) -> Result<Option<PathBuf>> {
        Ok(device::node(id, device))
    }

    async fn detach(&self, id: &VolumeId) -> Result<()> {
        let sent = self.here.ec2.detach_volume().volume_id(id.as_str()).send().await;
        sent.map(drop).map_err(self.here.failed("DetachVolume"))
    }

    async fn delete(&self, id: &VolumeId) -> Result<()> {
        let sent = self.here.ec2.delete_volume().volume_id(id.as_str()).send().await;
        sent.map(drop).map_err(self.here.failed("DeleteVolume"))
    }

    async fn snapshot(&self, of: &VolumeId, new: &NewSnapshotOf) -> Result<SnapshotId> {
        let answer = self
            .here
            .ec2
            .create_snapshot()
            .volume_id(of.as_str())
            .set_description((!new.description.is_empty()).then(|| new.description.clone()))
            .set_tag_specifications(tagged(ec2::ResourceType::Snapshot, &new.tags).map(|tags| vec![tags]))
            .send()
            .await
            .map_err(self.here.failed(SNAPSHOT))?;
        let id = answer.snapshot_id().and_then(SnapshotId::parse);
        id.ok_or_else(|| self.here.odd(SNAPSHOT, "no snapshot's id"))
    }
}

fn read(volume: &ec2::Volume) -> Option<Volume> {
    let state = match volume.state()? {
        ec2::VolumeState::Creating => VolumeState::Creating,
        ec2::VolumeState::Available => VolumeState::Available,
        ec2::VolumeState::InUse => VolumeState::InUse,
        ec2::VolumeState::Deleting | ec2::VolumeState::Deleted => VolumeState::Deleting,
        _ => VolumeState::Error,
    };
    let attachments = volume.attachments().iter();
    let now = |one: &&ec2::VolumeAttachment| one.state() != Some(&ec2::VolumeAttachmentState::Detached);
    let attachment = attachments.filter(now).find_map(|one| {
        Some(Attachment {
            instance: InstanceId::parse(one.instance_id()?)?,
            device: one.device().unwrap_or_default().to_owned(),
            attached: one.state() == Some(&ec2::VolumeAttachmentState::Attached),
        })
    });
    Some(Volume {
        id: VolumeId::parse(volume.volume_id()?)?,
        state,
        size: volume.size().and_then(|size| u32::try_from(size).ok()).unwrap_or_default(),
        zone: volume.availability_zone().unwrap_or_default().to_owned(),
        // One that was made empty has an empty one.
        snapshot: volume.snapshot_id().and_then(SnapshotId::parse),
        attachment,
        tags: tags_of(volume.tags()),
    })
}
