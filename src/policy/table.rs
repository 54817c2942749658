//! Which action every call needs, on what, under which conditions, and where that is from. The one place to change when a
//! stage makes another call: a test holds it against the calls that whole bakes make.
//!
//! Sources: SAR is AWS's Service Authorization Reference (the page of the service), EBS-P the page "Control access to EBS
//! direct APIs using IAM", SDK the model of the operation. What is from memory says so, and is a row of
//! docs/what-aws-has-seen.md.

use super::needs::Part::{self, *};
use super::{On, Only};

/// How an action comes to be needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// By the call of its own name.
    Call,
    /// By calls of other names.
    Calls(&'static [&'static str]),
    /// By what AWS does in the course of these calls. It never shows among one's own.
    Implied(&'static [&'static str]),
}

/// An action, by whom it is needed, and the source of that.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    pub action: &'static str,
    pub parts: &'static [Part],
    pub by: By,
    pub source: &'static str,
}

/// Actions that share resources and conditions.
#[derive(Clone, Copy, Debug)]
pub struct Statement {
    pub sid: &'static str,
    pub on: On,
    pub only: &'static [Only],
    pub grants: &'static [Grant],
}

const fn call(action: &'static str, parts: &'static [Part], source: &'static str) -> Grant {
    Grant { action, parts, by: By::Call, source }
}

const fn implied(
    action: &'static str,
    calls: &'static [&'static str],
    parts: &'static [Part],
    source: &'static str,
) -> Grant {
    Grant { action, parts, by: By::Implied(calls), source }
}

/// What pushes: docker or buildah, with the login that `bakehouse ecr` gives.
const PUSH: &[&str] = &["docker push"];
const PUSHING: &str = "Amazon ECR user guide, \"Required IAM permissions for pushing an image\"";
const NO_RESOURCE: &str = "SAR, Amazon EC2: Describe and Get actions of this kind have no resource type";

/// Calls that need no permission at all (SAR, AWS STS: "No permissions are required to perform this operation").
pub const FREE: [&str; 1] = ["sts:GetCallerIdentity"];

const NO_SSM_RESOURCE: &str = "SAR, AWS Systems Manager: the action has no resource type";

/// All of it. Statements of a stage that a recipe does not go through are left out.
pub const STATEMENTS: &[Statement] = &[
    Statement {
        sid: "Look",
        on: On::Everything,
        only: &[],
        grants: &[
            call("ec2:DescribeImages", &[Look, Test, Sweep], NO_RESOURCE),
            call("ec2:DescribeSnapshots", &[Look, Sweep, Upload, Download], NO_RESOURCE),
            call("ec2:DescribeInstances", &[Test, Launch, Sweep], NO_RESOURCE),
            call("ec2:DescribeSubnets", &[Launch], NO_RESOURCE),
            call("ec2:GetEbsEncryptionByDefault", &[Look], NO_RESOURCE),
            call("ec2:GetEbsDefaultKmsKeyId", &[Look], NO_RESOURCE),
            call("ec2:GetImageBlockPublicAccessState", &[Look], NO_RESOURCE),
            call("ec2:GetSnapshotBlockPublicAccessState", &[Look], NO_RESOURCE),
            call(
                "servicequotas:ListServiceQuotas",
                &[Look],
                "SAR, Service Quotas: the action has no resource type",
            ),
            // Of one invocation and one instance, but without a resource that could say so.
            call("ssm:DescribeInstanceInformation", &[Launch], NO_SSM_RESOURCE),
            call("ssm:GetCommandInvocation", &[Launch], NO_SSM_RESOURCE),
            call("ssm:CancelCommand", &[Launch], NO_SSM_RESOURCE),
        ],
    },
    Statement {
        sid: "ReadParameters",
        on: On::Parameters,
        only: &[],
        grants: &[call("ssm:GetParameter", &[Parameter], "SAR, AWS Systems Manager: parameter*")],
    },
    // Whoever reads blocks takes the data, whatever CopySnapshot and CreateVolume are denied (EBS-P): so by tags, as far
    // as the base's are known.
    Statement {
        sid: "ReadBaseFamily",
        on: On::Snapshots,
        only: &[Only::OfBaseFamily],
        grants: &[
            call(
                "ebs:ListSnapshotBlocks",
                &[ReadFamily],
                "SAR, Amazon Elastic Block Store: snapshot*; EBS-P",
            ),
            call("ebs:GetSnapshotBlock", &[ReadFamily], "SAR, Amazon Elastic Block Store: snapshot*; EBS-P"),
        ],
    },
    Statement {
        sid: "ReadImports",
        on: On::Snapshots,
        only: &[Only::OfImports],
        grants: &[
            call("ebs:ListSnapshotBlocks", &[Import], "SAR, Amazon Elastic Block Store: snapshot*; EBS-P"),
            call("ebs:GetSnapshotBlock", &[Import], "SAR, Amazon Elastic Block Store: snapshot*; EBS-P"),
        ],
    },
    Statement {
        sid: "ReadAnySnapshot",
        on: On::Snapshots,
        only: &[],
        grants: &[
            call(
                "ebs:ListSnapshotBlocks",
                &[ReadOwn, Download],
                "SAR, Amazon Elastic Block Store: snapshot*; the base has no tag of ours",
            ),
            call(
                "ebs:GetSnapshotBlock",
                &[ReadOwn, Download],
                "SAR, Amazon Elastic Block Store: snapshot*; the base has no tag of ours",
            ),
        ],
    },
    Statement {
        sid: "StartSnapshot",
        on: On::Snapshots,
        only: &[Only::MakesOfFamily],
        grants: &[
            call("ebs:StartSnapshot", &[Store], "SAR, Amazon Elastic Block Store: snapshot*, aws:RequestTag"),
            // Whether ec2:CreateAction names this call is not documented, so only the tags themselves bound it
            // (IAM-CREATE-ACTION-EBS).
            implied("ec2:CreateTags", &["ebs:StartSnapshot"], &[Store], "SDK, StartSnapshot: Tags; EBS-P"),
        ],
    },
    Statement {
        sid: "StoreBlocks",
        on: On::Snapshots,
        only: &[Only::OfFamily],
        grants: &[
            call(
                "ebs:PutSnapshotBlock",
                &[Store],
                "SAR, Amazon Elastic Block Store: snapshot*, aws:ResourceTag",
            ),
            call(
                "ebs:CompleteSnapshot",
                &[Store],
                "SAR, Amazon Elastic Block Store: snapshot*, aws:ResourceTag",
            ),
            // A sample of what was stored is read back, and a test reads all of it.
            call(
                "ebs:ListSnapshotBlocks",
                &[Store, Test],
                "SAR, Amazon Elastic Block Store: snapshot*; EBS-P",
            ),
            call("ebs:GetSnapshotBlock", &[Store, Test], "SAR, Amazon Elastic Block Store: snapshot*; EBS-P"),
            call("ec2:DeleteSnapshot", &[Store], "SAR, Amazon EC2: snapshot*, aws:ResourceTag"),
        ],
    },
    // The variables of a UEFI base are no part of any listing.
    Statement {
        sid: "ReadUefiData",
        on: On::Images,
        only: &[],
        grants: &[call(
            "ec2:DescribeImageAttribute",
            &[ReadFamily, ReadOwn, Import],
            "SAR, Amazon EC2: image*; the base need not carry a tag of ours",
        )],
    },
    // Imports: made once, never deleted by a bake. The source and the copy are resources of one call and of one form of
    // ARN, and only the copy carries tags of the request, so no condition on those.
    Statement {
        sid: "Import",
        on: On::ImagesAndSnapshots,
        only: &[],
        grants: &[call("ec2:CopyImage", &[Import], "SAR, Amazon EC2: image*, snapshot")],
    },
    Statement {
        sid: "TagImports",
        on: On::ImagesAndSnapshots,
        only: &[Only::MakesImports, Only::TagsOf(&["CopyImage"])],
        grants: &[implied(
            "ec2:CreateTags",
            &["ec2:CopyImage"],
            &[Import],
            "SDK, CopyImage: TagSpecifications; SAR, Amazon EC2: ec2:CreateAction",
        )],
    },
    Statement {
        sid: "NoteLayout",
        on: On::Images,
        only: &[Only::OfImports, Only::TagsLayout],
        grants: &[Grant {
            action: "ec2:CreateTags",
            parts: &[Import],
            by: By::Call,
            source: "SAR, Amazon EC2: image*, aws:ResourceTag, aws:TagKeys",
        }],
    },
    // One that failed is taken away before it is made anew.
    Statement {
        sid: "ReplaceFailedImports",
        on: On::ImagesAndSnapshots,
        only: &[Only::OfImports],
        grants: &[
            call("ec2:DeregisterImage", &[Import], "SAR, Amazon EC2: image*, aws:ResourceTag"),
            call("ec2:DeleteSnapshot", &[Import], "SAR, Amazon EC2: snapshot*, aws:ResourceTag"),
        ],
    },
    Statement {
        sid: "StartUpload",
        on: On::Snapshots,
        only: &[Only::MakesOfBakes],
        grants: &[
            call(
                "ebs:StartSnapshot",
                &[Upload],
                "SAR, Amazon Elastic Block Store: snapshot*, aws:RequestTag",
            ),
            implied("ec2:CreateTags", &["ebs:StartSnapshot"], &[Upload], "SDK, StartSnapshot: Tags; EBS-P"),
        ],
    },
    Statement {
        sid: "StoreUpload",
        on: On::Snapshots,
        only: &[Only::OfBakes],
        grants: &[
            call(
                "ebs:PutSnapshotBlock",
                &[Upload],
                "SAR, Amazon Elastic Block Store: snapshot*, aws:ResourceTag",
            ),
            call(
                "ebs:CompleteSnapshot",
                &[Upload],
                "SAR, Amazon Elastic Block Store: snapshot*, aws:ResourceTag",
            ),
            call("ec2:DeleteSnapshot", &[Upload], "SAR, Amazon EC2: snapshot*, aws:ResourceTag"),
        ],
    },
    Statement {
        sid: "Register",
        on: On::ImagesAndSnapshots,
        only: &[],
        // The image that is made and the snapshot that it is made of are resources of one call, and only the former
        // carries tags of the request: a condition on them would refuse the latter.
        grants: &[call("ec2:RegisterImage", &[Register], "SAR, Amazon EC2: image*, snapshot")],
    },
    Statement {
        sid: "TagImages",
        on: On::Images,
        only: &[Only::MakesOfFamily, Only::TagsOf(&["RegisterImage"])],
        grants: &[implied(
            "ec2:CreateTags",
            &["ec2:RegisterImage"],
            &[Register],
            "SDK, RegisterImage: TagSpecifications; SAR, Amazon EC2: ec2:CreateAction",
        )],
    },
    Statement {
        sid: "UndoImages",
        on: On::Images,
        only: &[Only::OfFamily],
        grants: &[call(
            "ec2:DeregisterImage",
            &[Register, Launch],
            "SAR, Amazon EC2: image*, aws:ResourceTag",
        )],
    },
    Statement {
        sid: "CreateImage",
        on: On::ImagesAndSnapshots,
        only: &[],
        grants: &[call("ec2:CreateImage", &[Launch], "SAR, Amazon EC2: image*, instance*, snapshot*")],
    },
    Statement {
        sid: "TagCreatedImage",
        on: On::ImagesAndSnapshots,
        only: &[Only::MakesOfFamily, Only::TagsOf(&["CreateImage"])],
        grants: &[implied(
            "ec2:CreateTags",
            &["ec2:CreateImage"],
            &[Launch],
            "SDK, CreateImage: TagSpecifications; SAR, Amazon EC2: ec2:CreateAction",
        )],
    },
    // What CreateImage made expires until it is whole: taking the tag away is the commit.
    Statement {
        sid: "KeepImage",
        on: On::ImagesAndSnapshots,
        only: &[Only::OfFamily, Only::TagsExpiry],
        grants: &[call("ec2:DeleteTags", &[Launch], "SAR, Amazon EC2: image*, snapshot*, aws:TagKeys")],
    },
    Statement {
        sid: "UndoCreatedSnapshots",
        on: On::Snapshots,
        only: &[Only::OfFamily],
        grants: &[call("ec2:DeleteSnapshot", &[Launch], "SAR, Amazon EC2: snapshot*, aws:ResourceTag")],
    },
    Statement {
        sid: "WorkOnLaunched",
        on: On::Instances,
        only: &[Only::OfFamily],
        grants: &[
            call("ec2:StopInstances", &[Launch], "SAR, Amazon EC2: instance*, aws:ResourceTag"),
            call("ec2:CreateImage", &[Launch], "SAR, Amazon EC2: instance*, aws:ResourceTag"),
            call("ssm:SendCommand", &[Launch], "SAR, AWS Systems Manager: instance, aws:ResourceTag"),
        ],
    },
    Statement {
        sid: "RunCommands",
        on: On::CommandDocument,
        only: &[],
        grants: &[call("ssm:SendCommand", &[Launch], "SAR, AWS Systems Manager: document*")],
    },
    Statement {
        sid: "BringFiles",
        on: On::Objects,
        only: &[],
        grants: &[
            call("s3:PutObject", &[Launch], "SAR, Amazon S3: object*"),
            implied(
                "s3:PutObjectTagging",
                &["s3:PutObject"],
                &[Launch],
                "S3 API, PutObject: with x-amz-tagging it needs s3:PutObjectTagging",
            ),
            // The instance reads by addresses that are signed with these credentials.
            call(
                "s3:GetObject",
                &[Launch],
                "SAR, Amazon S3: object*; presigned addresses have the signer's permissions",
            ),
            call("s3:DeleteObject", &[Launch], "SAR, Amazon S3: object*"),
        ],
    },
    // What SSM wrote below a bake's prefix is found so; and without it S3 calls an object that is not there yet a denied one.
    Statement {
        sid: "ListFiles",
        on: On::Buckets,
        only: &[Only::Below],
        grants: &[call(
            "s3:ListBucket",
            &[Launch],
            "SAR, Amazon S3: bucket*, s3:prefix; S3 API, ListObjectsV2 and GetObject",
        )],
    },
    // Digests of the blocks, for the record.
    Statement {
        sid: "ReadCreated",
        on: On::Snapshots,
        only: &[Only::OfFamily],
        grants: &[
            call("ebs:ListSnapshotBlocks", &[Launch], "SAR, Amazon Elastic Block Store: snapshot*; EBS-P"),
            call("ebs:GetSnapshotBlock", &[Launch], "SAR, Amazon Elastic Block Store: snapshot*; EBS-P"),
        ],
    },
    Statement {
        sid: "PassProfile",
        on: On::ProfileRole,
        only: &[Only::PassedToEc2],
        grants: &[implied(
            "iam:PassRole",
            &["ec2:RunInstances"],
            &[Launch],
            "SAR, Amazon EC2: RunInstances with a profile depends on iam:PassRole",
        )],
    },
    Statement {
        sid: "LaunchTests",
        on: On::LaunchMakes,
        only: &[Only::MakesOfBakes],
        grants: &[call(
            "ec2:RunInstances",
            &[Test, Launch],
            "SAR, Amazon EC2: instance*, volume, network-interface*",
        )],
    },
    Statement {
        sid: "LaunchFrom",
        on: On::LaunchUses,
        only: &[],
        grants: &[call(
            "ec2:RunInstances",
            &[Test, Launch],
            "SAR, Amazon EC2: image*, snapshot, subnet*, security-group*",
        )],
    },
    Statement {
        sid: "TagLaunched",
        on: On::LaunchMakes,
        only: &[Only::MakesOfBakes, Only::TagsOf(&["RunInstances"])],
        grants: &[implied(
            "ec2:CreateTags",
            &["ec2:RunInstances"],
            &[Test, Launch],
            "SDK, RunInstances: TagSpecifications; SAR, Amazon EC2: ec2:CreateAction",
        )],
    },
    Statement {
        sid: "EndLaunched",
        on: On::Instances,
        only: &[Only::OfBakes],
        grants: &[
            call("ec2:GetConsoleOutput", &[Test], "SAR, Amazon EC2: instance*, aws:ResourceTag"),
            call(
                "ec2:TerminateInstances",
                &[Test, Launch, Sweep],
                "SAR, Amazon EC2: instance*, aws:ResourceTag",
            ),
        ],
    },
    Statement {
        sid: "SweepSnapshots",
        on: On::Snapshots,
        only: &[Only::OfBakes],
        grants: &[call("ec2:DeleteSnapshot", &[Sweep], "SAR, Amazon EC2: snapshot*, aws:ResourceTag")],
    },
    Statement {
        sid: "SweepImages",
        on: On::Images,
        only: &[Only::OfBakes],
        grants: &[call("ec2:DeregisterImage", &[Sweep], "SAR, Amazon EC2: image*, aws:ResourceTag")],
    },
    Statement {
        sid: "TakeRoles",
        on: On::Roles,
        only: &[],
        grants: &[call("sts:AssumeRole", &[Role], "SAR, AWS STS: role*")],
    },
    Statement {
        sid: "PushTo",
        on: On::Repositories,
        only: &[],
        grants: &[
            call("ecr:CreateRepository", &[Registry], "SAR, Amazon ECR: repository*"),
            call("ecr:DescribeRepositories", &[Registry], "SAR, Amazon ECR: repository*"),
            call("ecr:DescribeImages", &[Registry], "SAR, Amazon ECR: repository*"),
            implied("ecr:BatchCheckLayerAvailability", PUSH, &[Registry], PUSHING),
            implied("ecr:InitiateLayerUpload", PUSH, &[Registry], PUSHING),
            implied("ecr:UploadLayerPart", PUSH, &[Registry], PUSHING),
            implied("ecr:CompleteLayerUpload", PUSH, &[Registry], PUSHING),
            implied("ecr:PutImage", PUSH, &[Registry], PUSHING),
        ],
    },
    Statement {
        sid: "LogInToRegistry",
        on: On::Everything,
        only: &[],
        grants: &[call(
            "ecr:GetAuthorizationToken",
            &[Registry],
            "SAR, Amazon ECR: GetAuthorizationToken has no resource type",
        )],
    },
    Statement {
        sid: "LookAtKey",
        on: On::Keys,
        only: &[],
        grants: &[call("kms:DescribeKey", &[Key], "SAR, AWS KMS: key*")],
    },
    Statement {
        sid: "UseKey",
        on: On::Keys,
        only: &[Only::ThroughEbs],
        grants: &[
            implied("kms:Decrypt", &["ebs:GetSnapshotBlock", "ebs:PutSnapshotBlock"], &[Key], "EBS-P"),
            implied("kms:Encrypt", &["ebs:PutSnapshotBlock"], &[Key], "EBS-P"),
            implied("kms:GenerateDataKey*", &["ebs:StartSnapshot", "ec2:CopyImage"], &[Key], "EBS-P"),
            implied("kms:ReEncrypt*", &["ebs:StartSnapshot", "ec2:CopyImage"], &[Key], "EBS-P"),
        ],
    },
    Statement {
        sid: "GrantKey",
        on: On::Keys,
        only: &[Only::GrantsToAws],
        grants: &[implied(
            "kms:CreateGrant",
            &["ebs:StartSnapshot", "ec2:CopyImage", "ec2:RunInstances"],
            &[Key],
            "EBS-P",
        )],
    },
];
