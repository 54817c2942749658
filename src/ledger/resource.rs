//! What can be created in a cloud and undone again: of which kind it is, and its id.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cloud::{ImageId, InstanceId, ObjectsId, PartId, PartKind, SnapshotId, VolumeId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Instance,
    Image,
    Snapshot,
    Volume,
    /// All below a prefix of a bucket.
    Objects,
    /// A VPC, or a part of one.
    VpcPart(PartKind),
}

impl Kind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Image => "image",
            Self::Snapshot => "snapshot",
            Self::Volume => "volume",
            Self::Objects => "objects",
            Self::VpcPart(kind) => kind.as_str(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The id of something that was created. Its prefix says which kind it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    Instance(InstanceId),
    Image(ImageId),
    Snapshot(SnapshotId),
    Volume(VolumeId),
    Objects(ObjectsId),
    VpcPart(PartId),
}

impl Id {
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Instance(_) => Kind::Instance,
            Self::Image(_) => Kind::Image,
            Self::Snapshot(_) => Kind::Snapshot,
            Self::Volume(_) => Kind::Volume,
            Self::Objects(_) => Kind::Objects,
            Self::VpcPart(id) => Kind::VpcPart(id.kind()),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(id) => id.fmt(f),
            Self::Image(id) => id.fmt(f),
            Self::Snapshot(id) => id.fmt(f),
            Self::Volume(id) => id.fmt(f),
            Self::Objects(id) => id.fmt(f),
            Self::VpcPart(id) => id.fmt(f),
        }
    }
}

impl From<InstanceId> for Id {
    fn from(id: InstanceId) -> Self {
        Self::Instance(id)
    }
}

impl From<ImageId> for Id {
    fn from(id: ImageId) -> Self {
        Self::Image(id)
    }
}

impl From<ObjectsId> for Id {
    fn from(id: ObjectsId) -> Self {
        Self::Objects(id)
    }
}

impl From<VolumeId> for Id {
    fn from(id: VolumeId) -> Self {
        Self::Volume(id)
    }
}

impl From<SnapshotId> for Id {
    fn from(id: SnapshotId) -> Self {
        Self::Snapshot(id)
    }
}

impl From<PartId> for Id {
    fn from(id: PartId) -> Self {
        Self::VpcPart(id)
    }
}
