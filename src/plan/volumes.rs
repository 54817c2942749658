//! The image's volumes: the base's, and what the recipe says of them.

use std::collections::BTreeMap;

use super::PlanError;
use crate::cloud::{BlockDevice, DiskType, EbsDisk, ImageAttributes, SnapshotId};
use crate::recipe::{Disk, Size, Volume};

/// Changes a base's volumes to what the recipe wants.
pub(super) fn apply(
    disk: &Disk,
    snapshots: &BTreeMap<SnapshotId, u32>,
    attributes: &mut ImageAttributes,
) -> Result<(), PlanError> {
    let root_device = attributes.root_device.clone();
    let root = attributes.devices.iter_mut().find(|device| device.name == root_device);
    if let (Some(kind), Some(ebs)) = (disk.kind, root.and_then(|device| device.ebs.as_mut())) {
        // What the base's volume had is of its own type.
        ebs.kind = kind;
        ebs.iops = disk.iops;
        ebs.throughput = disk.throughput.map(Size::mib);
    }
    for volume in &disk.volumes {
        let device = volume.device.clone();
        if device == root_device {
            return Err(PlanError::RootAsVolume { device });
        }
        let before = attributes.devices.iter().position(|one| one.name == device);
        if volume.no_device {
            let at = before.ok_or(PlanError::NoSuchVolume { device })?;
            attributes.devices.remove(at);
            continue;
        }
        let new = BlockDevice { name: device, ebs: Some(ebs(volume, snapshots)?), virtual_name: None };
        match before {
            Some(at) => attributes.devices[at] = new,
            None => attributes.devices.push(new),
        }
    }
    Ok(())
}

fn ebs(volume: &Volume, snapshots: &BTreeMap<SnapshotId, u32>) -> Result<EbsDisk, PlanError> {
    let snapshot = volume.snapshot.as_deref().and_then(SnapshotId::parse);
    // What is no id, and what is not here, was found out with the facts.
    let least = snapshot.as_ref().and_then(|id| snapshots.get(id)).copied().unwrap_or(1);
    let size = volume.size.map_or(least, Size::gib);
    if size < least {
        return Err(PlanError::VolumeTooSmall { device: volume.device.clone(), size, least });
    }
    Ok(EbsDisk {
        snapshot,
        size,
        kind: volume.kind.unwrap_or(DiskType::Gp3),
        iops: volume.iops,
        throughput: volume.throughput.map(Size::mib),
        delete_on_termination: volume.delete_on_termination.unwrap_or(true),
    })
}
