//! What a user can do about an error of AWS: which permission, which quota, which key of the recipe or option.

use crate::cloud::{ErrorKind, Place};

pub(super) const LOG_IN: &str = "log in again (`aws sso login`), set AWS_PROFILE or the AWS_ACCESS_KEY_ID family, or \
     run where a role gives credentials";
pub(super) const UNREACHED: &str = "is the network there, is the region's name right, and does AWS_ENDPOINT_URL, where it is set, name what it should?";

/// The IAM action that an operation needs, and on what. `*`: the action knows no resources (service authorization
/// reference). Written with REGION, ACCOUNT and PARTITION. An operation whose name another service has too has its service
/// before it.
#[rustfmt::skip]
const PERMISSIONS: [(&str, &str, &str); 79] = [
    ("AcknowledgeJob", "codepipeline:AcknowledgeJob", "*"),
    ("AssociateRouteTable", "ec2:AssociateRouteTable", "arn:PARTITION:ec2:REGION:ACCOUNT:route-table/* and :subnet/*"),
    ("AssumeRole", "sts:AssumeRole", "the role, whose trust policy must name the caller"),
    ("AttachInternetGateway", "ec2:AttachInternetGateway", "arn:PARTITION:ec2:REGION:ACCOUNT:internet-gateway/* and :vpc/*"),
    ("AttachVolume", "ec2:AttachVolume", "arn:PARTITION:ec2:REGION:ACCOUNT:volume/* and the instance"),
    ("AuthorizeSecurityGroupEgress", "ec2:AuthorizeSecurityGroupEgress", "arn:PARTITION:ec2:REGION:ACCOUNT:security-group/*"),
    ("CancelCommand", "ssm:CancelCommand", "*"),
    ("CompleteSnapshot", "ebs:CompleteSnapshot", "arn:PARTITION:ec2:REGION::snapshot/*"),
    ("CopyImage", "ec2:CopyImage", "arn:PARTITION:ec2:REGION::image/* and arn:PARTITION:ec2:REGION::snapshot/*"),
    ("CreateImage", "ec2:CreateImage", "arn:PARTITION:ec2:REGION::image/*, ::snapshot/* and the instance"),
    ("CreateInternetGateway", "ec2:CreateInternetGateway and ec2:CreateTags", "arn:PARTITION:ec2:REGION:ACCOUNT:internet-gateway/*"),
    ("CreateRepository", "ecr:CreateRepository", "arn:PARTITION:ecr:REGION:ACCOUNT:repository/*"),
    ("CreateRoute", "ec2:CreateRoute", "arn:PARTITION:ec2:REGION:ACCOUNT:route-table/*"),
    ("CreateRouteTable", "ec2:CreateRouteTable and ec2:CreateTags", "arn:PARTITION:ec2:REGION:ACCOUNT:route-table/* and :vpc/*"),
    ("CreateSecurityGroup", "ec2:CreateSecurityGroup and ec2:CreateTags", "arn:PARTITION:ec2:REGION:ACCOUNT:security-group/* and :vpc/*"),
    ("CreateSnapshot", "ec2:CreateSnapshot and ec2:CreateTags", "arn:PARTITION:ec2:REGION::snapshot/* and arn:PARTITION:ec2:REGION:ACCOUNT:volume/*"),
    ("CreateSubnet", "ec2:CreateSubnet and ec2:CreateTags", "arn:PARTITION:ec2:REGION:ACCOUNT:subnet/* and :vpc/*"),
    ("CreateTags", "ec2:CreateTags", "arn:PARTITION:ec2:REGION::image/*; of a VPC, on its parts"),
    ("CreateVolume", "ec2:CreateVolume and ec2:CreateTags", "arn:PARTITION:ec2:REGION:ACCOUNT:volume/* and arn:PARTITION:ec2:REGION::snapshot/*"),
    ("CreateVpc", "ec2:CreateVpc and ec2:CreateTags", "arn:PARTITION:ec2:REGION:ACCOUNT:vpc/*"),
    ("DeleteInternetGateway", "ec2:DeleteInternetGateway", "arn:PARTITION:ec2:REGION:ACCOUNT:internet-gateway/*"),
    ("DeleteObject", "s3:DeleteObject and s3:DeleteObjectVersion", "the bucket's objects"),
    ("DeleteRouteTable", "ec2:DeleteRouteTable", "arn:PARTITION:ec2:REGION:ACCOUNT:route-table/*"),
    ("DeleteSecurityGroup", "ec2:DeleteSecurityGroup", "arn:PARTITION:ec2:REGION:ACCOUNT:security-group/*"),
    ("DeleteSnapshot", "ec2:DeleteSnapshot", "arn:PARTITION:ec2:REGION::snapshot/*"),
    ("DeleteSubnet", "ec2:DeleteSubnet", "arn:PARTITION:ec2:REGION:ACCOUNT:subnet/*"),
    ("DeleteTags", "ec2:DeleteTags", "arn:PARTITION:ec2:REGION::image/*"),
    ("DeleteVolume", "ec2:DeleteVolume", "arn:PARTITION:ec2:REGION:ACCOUNT:volume/*"),
    ("DeleteVpc", "ec2:DeleteVpc", "arn:PARTITION:ec2:REGION:ACCOUNT:vpc/*"),
    ("DeregisterImage", "ec2:DeregisterImage", "arn:PARTITION:ec2:REGION::image/*"),
    ("DescribeImageAttribute", "ec2:DescribeImageAttribute", "arn:PARTITION:ec2:REGION::image/*"),
    ("DescribeImages", "ec2:DescribeImages", "*"),
    ("DescribeInstanceInformation", "ssm:DescribeInstanceInformation", "*"),
    ("DescribeInstances", "ec2:DescribeInstances", "*"),
    ("DescribeInternetGateways", "ec2:DescribeInternetGateways", "*"),
    ("DescribeKey", "kms:DescribeKey", "the key"),
    ("DescribeNetworkInterfaces", "ec2:DescribeNetworkInterfaces", "*"),
    ("DescribeRepositories", "ecr:DescribeRepositories", "arn:PARTITION:ecr:REGION:ACCOUNT:repository/*"),
    ("DescribeRouteTables", "ec2:DescribeRouteTables", "*"),
    ("DescribeSecurityGroups", "ec2:DescribeSecurityGroups", "*"),
    ("DescribeSnapshots", "ec2:DescribeSnapshots", "*"),
    ("DescribeSubnets", "ec2:DescribeSubnets", "*"),
    ("DescribeVolumes", "ec2:DescribeVolumes", "*"),
    ("DescribeVpcs", "ec2:DescribeVpcs", "*"),
    ("DetachInternetGateway", "ec2:DetachInternetGateway", "arn:PARTITION:ec2:REGION:ACCOUNT:internet-gateway/* and :vpc/*"),
    ("DetachVolume", "ec2:DetachVolume", "arn:PARTITION:ec2:REGION:ACCOUNT:volume/* and the instance"),
    ("DisassociateRouteTable", "ec2:DisassociateRouteTable", "arn:PARTITION:ec2:REGION:ACCOUNT:route-table/* and :subnet/*"),
    ("GetAuthorizationToken", "ecr:GetAuthorizationToken", "*"),
    ("GetCommandInvocation", "ssm:GetCommandInvocation", "*"),
    ("GetConsoleOutput", "ec2:GetConsoleOutput", "arn:PARTITION:ec2:REGION:ACCOUNT:instance/*"),
    ("GetEbsDefaultKmsKeyId", "ec2:GetEbsDefaultKmsKeyId", "*"),
    ("GetEbsEncryptionByDefault", "ec2:GetEbsEncryptionByDefault", "*"),
    ("GetImageBlockPublicAccessState", "ec2:GetImageBlockPublicAccessState", "*"),
    ("GetJobDetails", "codepipeline:GetJobDetails", "*"),
    ("GetObject", "s3:GetObject", "the bucket's objects"),
    ("GetParameter", "ssm:GetParameter", "arn:PARTITION:ssm:REGION:ACCOUNT:parameter/*"),
    ("GetParameterHistory", "ssm:GetParameterHistory", "arn:PARTITION:ssm:REGION:ACCOUNT:parameter/*"),
    ("GetSnapshotBlock", "ebs:GetSnapshotBlock", "arn:PARTITION:ec2:REGION::snapshot/*"),
    ("GetSnapshotBlockPublicAccessState", "ec2:GetSnapshotBlockPublicAccessState", "*"),
    ("LabelParameterVersion", "ssm:LabelParameterVersion", "arn:PARTITION:ssm:REGION:ACCOUNT:parameter/*"),
    ("ListObjectVersions", "s3:ListBucketVersions", "the bucket, which must be of account ACCOUNT"),
    ("ListServiceQuotas", "servicequotas:ListServiceQuotas", "*"),
    ("ListSnapshotBlocks", "ebs:ListSnapshotBlocks", "arn:PARTITION:ec2:REGION::snapshot/*"),
    ("ModifyImageAttribute", "ec2:ModifyImageAttribute", "arn:PARTITION:ec2:REGION::image/*"),
    ("ModifySubnetAttribute", "ec2:ModifySubnetAttribute", "arn:PARTITION:ec2:REGION:ACCOUNT:subnet/*"),
    ("PollForJobs", "codepipeline:PollForJobs", "arn:PARTITION:codepipeline:REGION:ACCOUNT:actiontype:Custom/*"),
    ("PutJobFailureResult", "codepipeline:PutJobFailureResult", "*"),
    ("PutJobSuccessResult", "codepipeline:PutJobSuccessResult", "*"),
    ("PutObject", "s3:PutObject and s3:PutObjectTagging", "the bucket's objects; the bucket must be of account ACCOUNT"),
    ("PutParameter", "ssm:PutParameter", "arn:PARTITION:ssm:REGION:ACCOUNT:parameter/*"),
    ("PutSnapshotBlock", "ebs:PutSnapshotBlock", "arn:PARTITION:ec2:REGION::snapshot/*"),
    ("RegisterImage", "ec2:RegisterImage and ec2:CreateTags", "arn:PARTITION:ec2:REGION::image/* and arn:PARTITION:ec2:REGION::snapshot/*"),
    ("RevokeSecurityGroupEgress", "ec2:RevokeSecurityGroupEgress", "arn:PARTITION:ec2:REGION:ACCOUNT:security-group/*"),
    ("RunInstances", "ec2:RunInstances and ec2:CreateTags", "arn:PARTITION:ec2:REGION:ACCOUNT:instance/*, :volume/*, :network-interface/*, :subnet/*, :security-group/* and arn:PARTITION:ec2:REGION::image/*, ::snapshot/*"),
    ("SendCommand", "ssm:SendCommand", "the instance and arn:PARTITION:ssm:REGION::document/AWS-RunShellScript"),
    ("StartSnapshot", "ebs:StartSnapshot and ec2:CreateTags", "arn:PARTITION:ec2:REGION::snapshot/*"),
    ("StopInstances", "ec2:StopInstances", "arn:PARTITION:ec2:REGION:ACCOUNT:instance/*"),
    ("TerminateInstances", "ec2:TerminateInstances", "arn:PARTITION:ec2:REGION:ACCOUNT:instance/*"),
    ("ecr:DescribeImages", "ecr:DescribeImages", "arn:PARTITION:ecr:REGION:ACCOUNT:repository/*"),
];

/// Calls on blocks that the method direct alone cannot do without.
const BLOCKS: [&str; 2] = ["GetSnapshotBlock", "StartSnapshot"];

/// What one code is answered with, whatever the operation.
#[rustfmt::skip]
const BY_CODE: [(&str, &str); 41] = [
    ("ExpiredToken", "the credentials are over: log in again (`aws sso login`), or let the build's role be renewed"),
    ("ExpiredTokenException", "the credentials are over: log in again (`aws sso login`), or let the build's role be renewed"),
    ("RequestExpired", "the credentials are over, or this host's clock is wrong: log in again, and set the clock"),
    ("RequestTimeTooSkewed", "this host's clock is wrong: set it"),
    ("SignatureDoesNotMatch", "the secret key is wrong, or this host's clock is: check both"),
    ("InvalidSignatureException", "the secret key is wrong, or this host's clock is: check both"),
    ("InvalidClientTokenId", "AWS does not know this access key: is it of this partition, and still active?"),
    ("InvalidAccessKeyId", "AWS does not know this access key: is it of this partition, and still active?"),
    ("UnrecognizedClientException", "AWS does not know this access key: is it active, and the region enabled for the account?"),
    ("AuthFailure", "is the access key valid, the region enabled for the account, and the image or snapshot shared with it?"),
    ("OptInRequired", "enable the region, or subscribe to the image's product, for this account"),
    ("Blocked", "the account is blocked: ask AWS Support"),
    ("PendingVerification", "the account is being verified by AWS: wait, or ask AWS Support"),
    ("InvalidAMIName.Duplicate", "an image of that name exists: change `image.name`, as with {{ timestamp }} in it, or deregister that one"),
    ("InvalidAMIName.Malformed", "`image.name` has 3 to 128 letters, digits, spaces or ( ) [ ] . / - ' @ _"),
    ("InvalidAMIID.NotFound", "is it in this region, and shared with this account? see `base:` of the recipe, or the image that was named"),
    ("InvalidAMIID.Malformed", "an image's id is ami- and 8 or 17 hexadecimal digits"),
    ("InvalidAMIID.Unavailable", "the image is not available any more: name another under `base:`"),
    ("InvalidSnapshot.InUse", "an image uses it: deregister that first"),
    ("VcpuLimitExceeded", "ask for more of the quota `Running On-Demand instances` (Service Quotas, EC2), or use a smaller instance type"),
    ("InstanceLimitExceeded", "ask for more of the quota `Running On-Demand instances` (Service Quotas, EC2), or end others"),
    ("MaxSpotInstanceCountExceeded", "ask for more of the quota `All Spot Instance Requests` (Service Quotas, EC2), or launch on demand"),
    ("SnapshotLimitExceeded", "ask for more of the quota `Snapshots per Region` (Service Quotas, EBS), or delete old ones: bakehouse sweep"),
    ("ConcurrentLimitExceededException", "ask for more of the quota `Concurrent pending snapshots` (Service Quotas, EBS), or bake fewer images at once"),
    ("ServiceQuotaExceededException", "a key of KMS, or the snapshots of the account, are at their quota: see Service Quotas"),
    ("ResourceLimitExceeded", "a limit of the account is reached (20 copies of snapshots run at once): try again when the others are done, or ask for more (Service Quotas, EC2)"),
    ("AMIQuotaExceeded", "ask for more of the quota `AMIs` (Service Quotas, EC2), or deregister old ones: bakehouse images rm"),
    ("ParameterLimitExceeded", "ask for more of the quota `Standard parameters` (Service Quotas, Systems Manager), or delete old ones"),
    ("ParameterMaxVersionLimitExceeded", "the oldest of its 100 versions has a label: move that to a newer version"),
    ("ParameterVersionLabelLimitExceeded", "a version has at most 10 labels: move one to another version"),
    ("TagLimitExceeded", "a resource has at most 50 tags: take some out of `image.tags`"),
    ("InsufficientInstanceCapacity", "none of this instance type is free there now: name another, or try again later"),
    ("Unsupported", "the zone or the image does not take this instance type: name another"),
    ("InsufficientFreeAddressesInSubnet", "the subnet has no address left: name another"),
    ("VPCIdNotSpecified", "the account has no default VPC in this region: name a subnet"),
    ("VpcLimitExceeded", "ask for more of the quota `VPCs per Region` (Service Quotas, VPC; 5 at first), or delete one: `bakehouse vpc delete`, `bakehouse sweep`"),
    ("InternetGatewayLimitExceeded", "ask for more of the quota `Internet gateways per Region` (Service Quotas, VPC; it goes with that of VPCs), or delete one"),
    ("DependencyViolation", "something hangs on it that has to go first: an instance, a network interface, an endpoint, a load balancer"),
    ("InvalidSubnet.Conflict", "the VPC has another subnet with these addresses: delete that, or choose other addresses for a VPC of its own"),
    ("InvalidGroup.Duplicate", "the VPC has another security group of that name: delete or rename that"),
    ("IncorrectState", "it is not in the state that this needs: wait until it is completed or available"),
];

/// What to do about an error, where anything is known.
pub(super) fn of(operation: &str, code: &str, kind: ErrorKind, text: &str, place: &Place) -> Option<String> {
    if let Some((_, what)) = BY_CODE.iter().find(|(known, _)| *known == code) {
        return Some((*what).to_owned());
    }
    if text.contains("KMS") || text.contains("kms:") || code.contains("KMS") || code.contains("Kms") {
        return Some(key(kind, place));
    }
    match kind {
        ErrorKind::Denied => permission(operation, text, place),
        ErrorKind::Throttled => Some(format!(
            "the account makes too many calls of {operation} in {}: run fewer bakes at once, or ask for a higher rate \
             (Service Quotas)",
            place.region
        )),
        ErrorKind::Quota => Some(format!(
            "a limit of account {} in {} is reached: see Service Quotas, and `bakehouse sweep` for what is not needed",
            place.account, place.region
        )),
        _ => None,
    }
}

fn key(kind: ErrorKind, place: &Place) -> String {
    let allow =
        if kind == ErrorKind::Denied { "allow" } else { "is the key enabled and in this region? allow" };
    format!(
        "{allow} kms:DescribeKey, CreateGrant, Decrypt, Encrypt, GenerateDataKey* and ReEncrypt* on the key of the disk \
         to this caller, in the key's policy or in IAM (account {}, {})",
        place.account, place.region
    )
}

fn permission(operation: &str, text: &str, place: &Place) -> Option<String> {
    let (_, action, resource) = PERMISSIONS.iter().find(|(known, _, _)| *known == operation)?;
    let resource = resource
        .replace("PARTITION", &place.partition.to_string())
        .replace("REGION", place.region.as_str())
        .replace("ACCOUNT", place.account.as_str());
    let who = if operation == "AssumeRole" { "the caller's identity" } else { "this identity" };
    let explicit = if text.contains("explicit deny") {
        "; an explicit deny (service control policy, permissions boundary) must go, whatever else allows it"
    } else {
        ""
    };
    let encoded = if text.contains("Encoded authorization failure message") {
        "; `aws sts decode-authorization-message` says which statement refused it"
    } else {
        ""
    };
    let without = if BLOCKS.contains(&operation) {
        "; where that stays forbidden, `method: chroot` on an EC2 instance reads and stores by a volume"
    } else {
        ""
    };
    Some(format!("allow {who} {action} on {resource}{explicit}{encoded}{without}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::cloud::{AccountId, Partition, Region};

    fn place() -> Place {
        Place {
            partition: Partition::parse("aws-cn").unwrap(),
            account: AccountId::parse("123456789012").unwrap(),
            region: Region::parse("cn-north-1").unwrap(),
        }
    }

    #[test]
    fn a_denied_call_names_action_and_resource_in_the_partition() {
        let told = of("PutParameter", "AccessDeniedException", ErrorKind::Denied, "no", &place()).unwrap();
        assert_eq!(
            told,
            "allow this identity ssm:PutParameter on arn:aws-cn:ssm:cn-north-1:123456789012:parameter/*"
        );
        let text = "with an explicit deny. Encoded authorization failure message: x";
        let told = of("RunInstances", "UnauthorizedOperation", ErrorKind::Denied, text, &place()).unwrap();
        for part in ["ec2:RunInstances", "explicit deny", "decode-authorization-message"] {
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn a_key_a_quota_and_a_name_are_told_apart() {
        let told = |operation, code, kind, text| of(operation, code, kind, text, &place()).unwrap();
        let key = told("StartSnapshot", "AccessDeniedException", ErrorKind::Denied, "The KMS key is refused");
        assert!(key.contains("kms:DescribeKey"), "{key}");
        let quota = told("RunInstances", "VcpuLimitExceeded", ErrorKind::Quota, "");
        assert!(quota.contains("Running On-Demand instances"), "{quota}");
        let name = told("RegisterImage", "InvalidAMIName.Duplicate", ErrorKind::Exists, "");
        assert!(name.contains("`image.name`"), "{name}");
        assert!(of("RegisterImage", "InvalidParameterValue", ErrorKind::Invalid, "no", &place()).is_none());
    }

    /// The operations that the files beside this one name: in a constant, or where they ask for an error's meaning.
    fn called() -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/aws");
        let mut called = BTreeSet::new();
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if ["advice.rs", "error.rs"].iter().any(|name| path.ends_with(name)) {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let constants = text.lines().filter(|line| line.starts_with("const "));
            let constants = constants.filter_map(|line| line.split_once(": &str = \"")).map(|(_, rest)| rest);
            let asked = text.split("failed(").skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"'));
            let names = constants.chain(asked).filter_map(|rest| rest.split('"').next());
            let is_operation = |name: &str| {
                let name = name.rsplit(':').next().unwrap();
                name.starts_with(|c: char| c.is_ascii_uppercase())
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
            };
            called.extend(names.filter(|name| is_operation(name)).map(str::to_owned));
        }
        called
    }

    #[test]
    fn every_operation_that_is_called_has_its_permission_and_no_other_has() {
        let mut wanted = called();
        assert!(wanted.len() > 30 && wanted.contains("StopInstances") && wanted.contains("RunInstances"));
        // Needs none (service authorization reference, AWS STS).
        assert!(wanted.remove("GetCallerIdentity"));
        // The SDK calls it where credentials are needed (error.rs).
        wanted.insert("AssumeRole".to_owned());
        let have: Vec<&str> = PERMISSIONS.iter().map(|(operation, _, _)| *operation).collect();
        assert_eq!(have, Vec::from_iter(&wanted));
    }

    #[test]
    fn operations_of_one_name_are_told_apart() {
        let told =
            |operation| of(operation, "AccessDeniedException", ErrorKind::Denied, "", &place()).unwrap();
        assert_eq!(told("DescribeImages"), "allow this identity ec2:DescribeImages on *");
        let of_ecr = told("ecr:DescribeImages");
        assert_eq!(
            of_ecr,
            "allow this identity ecr:DescribeImages on arn:aws-cn:ecr:cn-north-1:123456789012:repository/*"
        );
    }
}
