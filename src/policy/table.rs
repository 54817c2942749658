//! Which action every call needs, on what, under which conditions, and where that is from. The one place to change when a
//! stage makes another call: a test holds it against the calls that whole bakes make. What AWS does in the course of a call
//! (tags, the use of a key, a role that is passed) is here too, as `implied`: it never shows among one's own calls.
//!
//! Sources: SAR is AWS's Service Authorization Reference (the page of the service), EBS-P the page "Control access to EBS
//! direct APIs using IAM", EBS-E "Requirements for Amazon EBS encryption", SDK the model of the operation. What is from
//! memory says so, and is a row of docs/what-aws-has-seen.md.
//!
//! A statement is one condition, and so may hold actions on several kinds of resources. Its resources are those of all its
//! actions: an action must gain nothing by the others' (a test looks).

mod jobs;
mod vpcs;

use super::needs::Part::{self, *};
use super::{On, Only};

/// How an action comes to be needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// By the call of its own name.
    Call,
    /// By what AWS does in the course of these calls.
    Implied(&'static [&'static str]),
}

/// An action, what it is done to, by whom it is needed, and the source of that.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    pub action: &'static str,
    pub on: On,
    pub parts: &'static [Part],
    pub by: By,
    pub source: &'static str,
}

/// Actions that share conditions.
#[derive(Clone, Copy, Debug)]
pub struct Statement {
    pub sid: &'static str,
    pub only: &'static [Only],
    pub grants: &'static [Grant],
}

const fn call(action: &'static str, on: On, parts: &'static [Part], source: &'static str) -> Grant {
    Grant { action, on, parts, by: By::Call, source }
}

const fn implied(
    action: &'static str,
    calls: &'static [&'static str],
    on: On,
    parts: &'static [Part],
    source: &'static str,
) -> Grant {
    Grant { action, on, parts, by: By::Implied(calls), source }
}

/// What pushes: docker or buildah, with the login that `bakehouse ecr` gives.
pub const PUSH: &[&str] = &["docker push"];
const PUSHING: &str =
    "Amazon ECR user guide, \"IAM permissions for pushing an image to an Amazon ECR private repository\"";
const NO_RESOURCE: &str = "SAR, Amazon EC2: Describe and Get actions of this kind have no resource type";
const NO_SSM_RESOURCE: &str = "SAR, AWS Systems Manager: the action has no resource type";
const BLOCKS: &str = "SAR, Amazon Elastic Block Store: snapshot*, aws:ResourceTag; EBS-P";
const KEY_OF_NEW: &[&str] =
    &["ebs:StartSnapshot", "ec2:AttachVolume", "ec2:CopyImage", "ec2:CreateVolume", "ec2:RunInstances"];
const VOLUME: &str = "SAR, Amazon EC2: volume*, aws:ResourceTag";

/// Calls that need no permission at all (SAR, AWS STS: "No permissions are required to perform this operation").
pub const FREE: [&str; 1] = ["sts:GetCallerIdentity"];

/// All of it. Statements of a stage that a recipe does not go through are left out.
pub const STATEMENTS: &[Statement] = &[
    Statement {
        sid: "Look",
        only: &[],
        grants: &[
            call("ec2:DescribeImages", On::Everything, &[Look, Test, Sweep], NO_RESOURCE),
            call(
                "ec2:DescribeSnapshots",
                On::Everything,
                &[Look, Test, Sweep, Upload, Download],
                NO_RESOURCE,
            ),
            call("ec2:DescribeInstances", On::Everything, &[Test, Launch, Sweep, Vpc], NO_RESOURCE),
            call("ec2:DescribeVolumes", On::Everything, &[Chroot, Sweep], NO_RESOURCE),
            call("ec2:DescribeSubnets", On::Everything, &[FindSubnet, Sweep, Vpc], NO_RESOURCE),
            call("ec2:DescribeVpcs", On::Everything, &[Sweep, Vpc], NO_RESOURCE),
            call("ec2:DescribeInternetGateways", On::Everything, &[Sweep, Vpc], NO_RESOURCE),
            call("ec2:DescribeRouteTables", On::Everything, &[Sweep, Vpc], NO_RESOURCE),
            call("ec2:DescribeSecurityGroups", On::Everything, &[Sweep, Vpc], NO_RESOURCE),
            call("ec2:DescribeNetworkInterfaces", On::Everything, &[Sweep, Vpc], NO_RESOURCE),
            call("ec2:GetEbsEncryptionByDefault", On::Everything, &[Look], NO_RESOURCE),
            call("ec2:GetEbsDefaultKmsKeyId", On::Everything, &[Look], NO_RESOURCE),
            call("ec2:GetImageBlockPublicAccessState", On::Everything, &[Look], NO_RESOURCE),
            call("ec2:GetSnapshotBlockPublicAccessState", On::Everything, &[Look], NO_RESOURCE),
            call(
                "servicequotas:ListServiceQuotas",
                On::Everything,
                &[Look],
                "SAR, Service Quotas: the action has no resource type",
            ),
            // Of one invocation and one instance, but without a resource that could say so.
            call("ssm:DescribeInstanceInformation", On::Everything, &[Launch], NO_SSM_RESOURCE),
            call("ssm:GetCommandInvocation", On::Everything, &[Launch], NO_SSM_RESOURCE),
            call("ssm:CancelCommand", On::Everything, &[Launch], NO_SSM_RESOURCE),
            call(
                "ecr:GetAuthorizationToken",
                On::Everything,
                &[Registry],
                "SAR, Amazon ECR: the action has no resource type",
            ),
        ],
    },
    Statement {
        sid: "Parameters",
        only: &[],
        grants: &[call(
            "ssm:GetParameter",
            On::Parameters,
            &[Parameter, Variables],
            "SAR, AWS Systems Manager: parameter*",
        )],
    },
    jobs::SECRETS,
    // Whoever reads blocks takes the data, whatever CopySnapshot and CreateVolume are denied (EBS-P): so by tags, as far
    // as the base's are known.
    Statement {
        sid: "ReadFamily",
        only: &[Only::OfBaseFamily],
        grants: &[
            call("ebs:ListSnapshotBlocks", On::Snapshots, &[ReadFamily], BLOCKS),
            call("ebs:GetSnapshotBlock", On::Snapshots, &[ReadFamily], BLOCKS),
        ],
    },
    // The base need not carry a tag of ours.
    Statement {
        sid: "Base",
        only: &[],
        grants: &[
            call("ebs:ListSnapshotBlocks", On::Snapshots, &[ReadOwn, Download], BLOCKS),
            call("ebs:GetSnapshotBlock", On::Snapshots, &[ReadOwn, Download], BLOCKS),
            // The variables of a UEFI base are no part of any listing.
            call(
                "ec2:DescribeImageAttribute",
                On::Images,
                &[ReadFamily, ReadOwn, Import, Chroot],
                "SAR, Amazon EC2: image*",
            ),
            // The source and the copy are resources of one call and of one form of ARN, and only the copy carries tags of the
            // request, so no condition on those.
            call("ec2:CopyImage", On::ImagesAndSnapshots, &[Import], "SAR, Amazon EC2: image*, snapshot*"),
        ],
    },
    // Imports: made once, never deleted by a bake but where one failed, before it is made anew.
    Statement {
        sid: "Imports",
        only: &[Only::OfImports],
        grants: &[
            call("ebs:ListSnapshotBlocks", On::Snapshots, &[ReadImport], BLOCKS),
            call("ebs:GetSnapshotBlock", On::Snapshots, &[ReadImport], BLOCKS),
            call("ec2:DeregisterImage", On::Images, &[Import], "SAR, Amazon EC2: image*, aws:ResourceTag"),
            call(
                "ec2:DeleteSnapshot",
                On::Snapshots,
                &[Import],
                "SAR, Amazon EC2: snapshot*, aws:ResourceTag",
            ),
        ],
    },
    Statement {
        sid: "TagImports",
        only: &[Only::MakesImports, Only::TagsInCall],
        grants: &[implied(
            "ec2:CreateTags",
            &["ec2:CopyImage"],
            On::ImagesAndSnapshots,
            &[Import],
            "SDK, CopyImage: TagSpecifications; SAR, Amazon EC2: CopyImage depends on ec2:CreateTags; ec2:CreateAction",
        )],
    },
    Statement {
        sid: "NoteLayout",
        only: &[Only::OfImports, Only::TagsLayout],
        grants: &[call(
            "ec2:CreateTags",
            On::Images,
            &[Import],
            "SAR, Amazon EC2: image*, aws:ResourceTag, aws:TagKeys",
        )],
    },
    // What is used to make something carries no tag of the request: RegisterImage's snapshot, and what RunInstances launches
    // from, are in statements of their own.
    Statement {
        sid: "Make",
        only: &[Only::MakesOfFamily],
        grants: &[
            call(
                "ebs:StartSnapshot",
                On::Snapshots,
                &[Store],
                "SAR, Amazon Elastic Block Store: snapshot*, aws:RequestTag",
            ),
            call("ec2:RegisterImage", On::Images, &[Register], "SAR, Amazon EC2: image*, aws:RequestTag"),
            call(
                "ec2:CreateImage",
                On::ImagesAndSnapshots,
                &[Launch],
                "SAR, Amazon EC2: image*, snapshot*, aws:RequestTag",
            ),
            call(
                "ec2:CreateVolume",
                On::Volumes,
                &[Chroot],
                "SAR, Amazon EC2: volume*, snapshot, aws:RequestTag",
            ),
            call(
                "ec2:CreateSnapshot",
                On::Snapshots,
                &[Chroot],
                "SAR, Amazon EC2: snapshot*, volume*, aws:RequestTag",
            ),
            call(
                "ec2:RunInstances",
                On::LaunchMakes,
                &[Test, Launch],
                "SAR, Amazon EC2: instance*, volume, network-interface*, aws:RequestTag; EC2 user guide, \"Work with Spot Instances\": spot-instances-request",
            ),
        ],
    },
    Statement {
        sid: "TagMade",
        only: &[Only::MakesOfFamily, Only::TagsInCall],
        grants: &[
            implied(
                "ec2:CreateTags",
                &["ec2:RegisterImage"],
                On::Images,
                &[Register],
                "SDK, RegisterImage: TagSpecifications; SAR, Amazon EC2: RegisterImage depends on ec2:CreateTags; ec2:CreateAction",
            ),
            implied(
                "ec2:CreateTags",
                &["ec2:CreateImage"],
                On::ImagesAndSnapshots,
                &[Launch],
                "SDK, CreateImage: TagSpecifications; SAR, Amazon EC2: CreateImage depends on ec2:CreateTags; ec2:CreateAction",
            ),
            implied(
                "ec2:CreateTags",
                &["ec2:CreateVolume"],
                On::Volumes,
                &[Chroot],
                "SDK, CreateVolume: TagSpecifications; SAR, Amazon EC2: CreateVolume depends on ec2:CreateTags; ec2:CreateAction",
            ),
            implied(
                "ec2:CreateTags",
                &["ec2:CreateSnapshot"],
                On::Snapshots,
                &[Chroot],
                "SDK, CreateSnapshot: TagSpecifications; SAR, Amazon EC2: CreateSnapshot depends on ec2:CreateTags; ec2:CreateAction",
            ),
            implied(
                "ec2:CreateTags",
                &["ec2:RunInstances"],
                On::LaunchMakes,
                &[Test, Launch],
                "SDK, RunInstances: TagSpecifications; SAR, Amazon EC2: RunInstances depends on ec2:CreateTags; ec2:CreateAction",
            ),
        ],
    },
    // Whether ec2:CreateAction names this call is not documented, so only the tags themselves bound it
    // (IAM-CREATE-ACTION-EBS).
    Statement {
        sid: "TagStarted",
        only: &[Only::MakesOfFamily],
        grants: &[implied(
            "ec2:CreateTags",
            &["ebs:StartSnapshot"],
            On::Snapshots,
            &[Store],
            "SDK, StartSnapshot: Tags; SAR, Amazon Elastic Block Store: StartSnapshot depends on ec2:CreateTags",
        )],
    },
    Statement {
        sid: "Own",
        only: &[Only::OfFamily],
        grants: &[
            call("ebs:PutSnapshotBlock", On::Snapshots, &[Store], BLOCKS),
            call("ebs:CompleteSnapshot", On::Snapshots, &[Store], BLOCKS),
            // A sample of what was stored is read back, a test reads all of it, and so do what the cloud itself stores, for the
            // record's digests.
            call("ebs:ListSnapshotBlocks", On::Snapshots, &[Store, Test, Launch, Chroot], BLOCKS),
            call("ebs:GetSnapshotBlock", On::Snapshots, &[Store, Test, Launch, Chroot], BLOCKS),
            call(
                "ec2:DeleteSnapshot",
                On::Snapshots,
                &[Store, Launch, Chroot],
                "SAR, Amazon EC2: snapshot*, aws:ResourceTag",
            ),
            call("ec2:AttachVolume", On::Volumes, &[Chroot], VOLUME),
            call("ec2:DetachVolume", On::Volumes, &[Chroot], VOLUME),
            call("ec2:DeleteVolume", On::Volumes, &[Chroot], VOLUME),
            call("ec2:CreateSnapshot", On::Volumes, &[Chroot], VOLUME),
            call(
                "ec2:DeregisterImage",
                On::Images,
                &[Register, Launch],
                "SAR, Amazon EC2: image*, aws:ResourceTag",
            ),
            call("ec2:RunInstances", On::Images, &[Test], "SAR, Amazon EC2: image*, aws:ResourceTag"),
            call(
                "ec2:GetConsoleOutput",
                On::Instances,
                &[Test, Launch],
                "SAR, Amazon EC2: instance*, aws:ResourceTag",
            ),
            call(
                "ec2:TerminateInstances",
                On::Instances,
                &[Test, Launch],
                "SAR, Amazon EC2: instance*, aws:ResourceTag",
            ),
            call(
                "ec2:StopInstances",
                On::Instances,
                &[Launch],
                "SAR, Amazon EC2: instance*, aws:ResourceTag",
            ),
            call("ec2:CreateImage", On::Instances, &[Launch], "SAR, Amazon EC2: instance*, aws:ResourceTag"),
            call(
                "ec2:ModifyImageAttribute",
                On::Images,
                &[RequireImds],
                "SAR, Amazon EC2: image*, aws:ResourceTag",
            ),
            call(
                "ssm:SendCommand",
                On::Instances,
                &[Launch],
                "SAR, AWS Systems Manager: instance, aws:ResourceTag",
            ),
        ],
    },
    // A base's further volumes go into the image with their own snapshots, whatever tags these have.
    Statement {
        sid: "RegisterFrom",
        only: &[],
        grants: &[call("ec2:RegisterImage", On::Snapshots, &[Register], "SAR, Amazon EC2: snapshot")],
    },
    // The base's snapshot has whatever tags it has; and the instance is the one that bakes, which has none of ours. What is
    // attached to it is bound by its own tags, in other statements.
    Statement {
        sid: "AttachTo",
        only: &[],
        grants: &[
            call("ec2:CreateVolume", On::Snapshots, &[Chroot], "SAR, Amazon EC2: snapshot"),
            call("ec2:AttachVolume", On::Instances, &[Chroot], "SAR, Amazon EC2: instance*, volume*"),
            call("ec2:DetachVolume", On::Instances, &[Chroot, Sweep], "SAR, Amazon EC2: volume*, instance"),
        ],
    },
    Statement {
        sid: "LaunchFrom",
        only: &[],
        grants: &[
            call("ec2:RunInstances", On::BaseImages, &[Launch], "SAR, Amazon EC2: image*"),
            call("ec2:RunInstances", On::Snapshots, &[Test, Launch], "SAR, Amazon EC2: snapshot"),
            call(
                "ec2:RunInstances",
                On::Networks,
                &[Test, Launch],
                "SAR, Amazon EC2: subnet*, security-group*",
            ),
        ],
    },
    Statement {
        sid: "LaunchIn",
        only: &[Only::OfSubnet],
        grants: &[call(
            "ec2:RunInstances",
            On::TaggedSubnets,
            &[Launch],
            "SAR, Amazon EC2: subnet*, aws:ResourceTag",
        )],
    },
    // The group of a VPC of Bakehouse's own is another one after each `vpc create`: its tag tells it, as the subnet's does.
    Statement {
        sid: "LaunchWith",
        only: &[Only::OfSubnetsVpc],
        grants: &[call(
            "ec2:RunInstances",
            On::GroupsOfVpc,
            &[Launch],
            "SAR, Amazon EC2: security-group*, aws:ResourceTag",
        )],
    },
    // What CreateImage made expires until it is whole: taking the tag away is the commit.
    Statement {
        sid: "KeepImage",
        only: &[Only::OfFamily, Only::TagsExpiry],
        grants: &[call(
            "ec2:DeleteTags",
            On::Images,
            &[Launch],
            "SAR, Amazon EC2: image, aws:ResourceTag, aws:TagKeys",
        )],
    },
    Statement {
        sid: "PassProfile",
        only: &[Only::PassedToEc2],
        grants: &[implied(
            "iam:PassRole",
            &["ec2:RunInstances"],
            On::ProfileRole,
            &[Launch],
            "SAR, Amazon EC2: RunInstances with a profile depends on iam:PassRole",
        )],
    },
    Statement {
        sid: "RunCommands",
        only: &[],
        grants: &[call(
            "ssm:SendCommand",
            On::CommandDocument,
            &[Launch],
            "SAR, AWS Systems Manager: document*",
        )],
    },
    Statement {
        sid: "Files",
        only: &[],
        grants: &[
            call("s3:PutObject", On::Objects, &[Launch], "SAR, Amazon S3: object*"),
            implied(
                "s3:PutObjectTagging",
                &["s3:PutObject"],
                On::Objects,
                &[Launch],
                "S3 API, PutObject: with x-amz-tagging it needs s3:PutObjectTagging",
            ),
            // The instance reads by addresses that are signed with these credentials.
            call(
                "s3:GetObject",
                On::Objects,
                &[Launch],
                "SAR, Amazon S3: object*; presigned addresses have the signer's permissions",
            ),
            // Each version for good; of a bucket that keeps none it is called `null`, and which of both actions is asked
            // for then is not documented (IAM-S3-NULL).
            call(
                "s3:DeleteObjectVersion",
                On::Objects,
                &[Launch],
                "SAR, Amazon S3: object*; S3 API, DeleteObject with a version",
            ),
            implied(
                "s3:DeleteObject",
                &["s3:DeleteObjectVersion"],
                On::Objects,
                &[Launch],
                "SAR, Amazon S3: object*",
            ),
        ],
    },
    // What SSM wrote below a bake's prefix is found so, and whether an output is there yet.
    Statement {
        sid: "ListFiles",
        only: &[Only::Below],
        grants: &[call(
            "s3:ListBucketVersions",
            On::Buckets,
            &[Launch],
            "SAR, Amazon S3: bucket*, s3:prefix; S3 API, ListObjectVersions",
        )],
    },
    Statement {
        sid: "MakeUpload",
        only: &[Only::MakesOfBakes],
        grants: &[
            call(
                "ebs:StartSnapshot",
                On::Snapshots,
                &[Upload],
                "SAR, Amazon Elastic Block Store: snapshot*, aws:RequestTag",
            ),
            implied(
                "ec2:CreateTags",
                &["ebs:StartSnapshot"],
                On::Snapshots,
                &[Upload],
                "SDK, StartSnapshot: Tags; SAR, Amazon Elastic Block Store: StartSnapshot depends on ec2:CreateTags",
            ),
        ],
    },
    Statement {
        sid: "OfBakes",
        only: &[Only::OfBakes],
        grants: &[
            call("ebs:PutSnapshotBlock", On::Snapshots, &[Upload], BLOCKS),
            call("ebs:CompleteSnapshot", On::Snapshots, &[Upload], BLOCKS),
            // A parent is read, and the sample.
            call("ebs:ListSnapshotBlocks", On::Snapshots, &[Upload], BLOCKS),
            call("ebs:GetSnapshotBlock", On::Snapshots, &[Upload], BLOCKS),
            call(
                "ec2:DeleteSnapshot",
                On::Snapshots,
                &[Upload, Sweep],
                "SAR, Amazon EC2: snapshot*, aws:ResourceTag",
            ),
            call("ec2:DeregisterImage", On::Images, &[Sweep], "SAR, Amazon EC2: image*, aws:ResourceTag"),
            call("ec2:DetachVolume", On::Volumes, &[Sweep], VOLUME),
            call("ec2:DeleteVolume", On::Volumes, &[Sweep], VOLUME),
            call(
                "ec2:TerminateInstances",
                On::Instances,
                &[Sweep, Vpc],
                "SAR, Amazon EC2: instance*, aws:ResourceTag",
            ),
        ],
    },
    vpcs::MAKE,
    vpcs::TAG,
    vpcs::TAKE_OVER,
    vpcs::OWN,
    Statement {
        sid: "TakeRoles",
        only: &[],
        grants: &[call("sts:AssumeRole", On::Roles, &[Role], "SAR, AWS STS: role*")],
    },
    jobs::POLL,
    jobs::JOBS,
    Statement {
        sid: "Push",
        only: &[],
        grants: &[
            call("ecr:CreateRepository", On::Repositories, &[Registry], "SAR, Amazon ECR: repository*"),
            call("ecr:DescribeRepositories", On::Repositories, &[Registry], "SAR, Amazon ECR: repository*"),
            call("ecr:DescribeImages", On::Repositories, &[Registry], "SAR, Amazon ECR: repository*"),
            implied("ecr:BatchCheckLayerAvailability", PUSH, On::Repositories, &[Registry], PUSHING),
            implied("ecr:BatchGetImage", PUSH, On::Repositories, &[Registry], PUSHING),
            implied("ecr:InitiateLayerUpload", PUSH, On::Repositories, &[Registry], PUSHING),
            implied("ecr:UploadLayerPart", PUSH, On::Repositories, &[Registry], PUSHING),
            implied("ecr:CompleteLayerUpload", PUSH, On::Repositories, &[Registry], PUSHING),
            implied("ecr:PutImage", PUSH, On::Repositories, &[Registry], PUSHING),
        ],
    },
    Statement {
        sid: "LookAtKey",
        only: &[],
        grants: &[
            call("kms:DescribeKey", On::Keys, &[Key], "SAR, AWS KMS: key*"),
            implied("kms:DescribeKey", KEY_OF_NEW, On::Keys, &[Key], "EBS-P; EBS-E"),
        ],
    },
    Statement {
        sid: "UseKey",
        only: &[Only::ThroughEbs],
        grants: &[
            implied(
                "kms:Decrypt",
                &[
                    "ebs:GetSnapshotBlock",
                    "ebs:PutSnapshotBlock",
                    "ebs:StartSnapshot",
                    "ec2:AttachVolume",
                    "ec2:CopyImage",
                    "ec2:CreateVolume",
                    "ec2:RunInstances",
                ],
                On::Keys,
                &[Key],
                "EBS-P; EBS-E",
            ),
            implied("kms:Encrypt", &["ebs:PutSnapshotBlock"], On::Keys, &[Key], "EBS-P"),
            implied("kms:GenerateDataKey*", KEY_OF_NEW, On::Keys, &[Key], "EBS-P; EBS-E"),
            implied("kms:ReEncrypt*", KEY_OF_NEW, On::Keys, &[Key], "EBS-P; EBS-E"),
        ],
    },
    Statement {
        sid: "GrantKey",
        only: &[Only::GrantsToAws],
        grants: &[implied("kms:CreateGrant", KEY_OF_NEW, On::Keys, &[Key], "EBS-P; EBS-E")],
    },
];
