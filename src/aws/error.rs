//! What an error of the SDK means. Nothing else reads error codes: everybody above decides by the kind.

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::error::SdkError;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::advice;
use crate::cloud::{CloudError, ErrorKind, Place};
use crate::host::error::chain;

/// The key of the request's id in an error's metadata, where the answer's body holds it.
const REQUEST_ID: &str = "aws_request_id";
/// Where every service has it.
const REQUEST_ID_HEADERS: [&str; 2] = ["x-amzn-requestid", "x-amz-request-id"];
const WITH_WEB_IDENTITY: &str = "AssumeRoleWithWebIdentity";
/// Characters of a body that is not what the service's model says: enough to see who wrote it.
const SHOWN: usize = 200;

/// Codes that mean the same in every operation.
#[rustfmt::skip]
const KINDS: [(&str, ErrorKind); 70] = [
    // Throttling: EC2, then the other services, then S3 (SDK guide, "retry behavior"; EBS and SSM API models).
    ("RequestLimitExceeded", ErrorKind::Throttled),
    ("Throttling", ErrorKind::Throttled),
    ("ThrottlingException", ErrorKind::Throttled),
    ("ThrottledException", ErrorKind::Throttled),
    ("RequestThrottled", ErrorKind::Throttled),
    ("RequestThrottledException", ErrorKind::Throttled),
    ("TooManyRequestsException", ErrorKind::Throttled),
    ("EC2ThrottledException", ErrorKind::Throttled),
    ("BandwidthLimitExceeded", ErrorKind::Throttled),
    ("SlowDown", ErrorKind::Throttled),
    // Another change of the same thing is under way.
    ("TooManyUpdates", ErrorKind::Throttled),
    ("PriorRequestNotComplete", ErrorKind::Throttled),
    ("SnapshotCreationPerVolumeRateExceeded", ErrorKind::Throttled),
    // Not allowed, or nobody.
    ("UnauthorizedOperation", ErrorKind::Denied),
    ("AccessDenied", ErrorKind::Denied),
    ("AccessDeniedException", ErrorKind::Denied),
    ("AuthFailure", ErrorKind::Denied),
    ("Blocked", ErrorKind::Denied),
    ("OptInRequired", ErrorKind::Denied),
    ("PendingVerification", ErrorKind::Denied),
    ("ExpiredToken", ErrorKind::Denied),
    ("ExpiredTokenException", ErrorKind::Denied),
    ("RequestExpired", ErrorKind::Denied),
    ("RequestTimeTooSkewed", ErrorKind::Denied),
    ("InvalidClientTokenId", ErrorKind::Denied),
    ("InvalidAccessKeyId", ErrorKind::Denied),
    ("UnrecognizedClientException", ErrorKind::Denied),
    ("InvalidSignatureException", ErrorKind::Denied),
    ("SignatureDoesNotMatch", ErrorKind::Denied),
    ("IncompleteSignature", ErrorKind::Denied),
    ("MissingAuthenticationToken", ErrorKind::Denied),
    ("MissingAuthenticationTokenException", ErrorKind::Denied),
    ("NotAuthorized", ErrorKind::Denied),
    // Limits of the account whose codes do not end in LimitExceeded.
    ("ServiceQuotaExceededException", ErrorKind::Quota),
    ("ConcurrentLimitExceededException", ErrorKind::Quota),
    ("LimitExceededException", ErrorKind::Quota),
    ("VolumeLimitExceeded", ErrorKind::Quota),
    ("MaxSpotInstanceCountExceeded", ErrorKind::Quota),
    ("InsufficientFreeAddressesInSubnet", ErrorKind::Quota),
    // Tags beyond 50 are a wrong request, not a quota that can be raised.
    ("TagLimitExceeded", ErrorKind::Invalid),
    // None free now.
    ("InsufficientInstanceCapacity", ErrorKind::Capacity),
    ("InsufficientHostCapacity", ErrorKind::Capacity),
    ("InsufficientReservedInstanceCapacity", ErrorKind::Capacity),
    ("InsufficientCapacityOnHost", ErrorKind::Capacity),
    ("SpotMaxPriceTooLow", ErrorKind::Capacity),
    // Taken.
    ("ConflictException", ErrorKind::Exists),
    ("IdempotentParameterMismatch", ErrorKind::Exists),
    ("ParameterAlreadyExists", ErrorKind::Exists),
    ("VolumeInUse", ErrorKind::InUse),
    // What is in a VPC, or hangs on a part of one, has to go first.
    ("DependencyViolation", ErrorKind::InUse),
    ("Resource.AlreadyAssociated", ErrorKind::Exists),
    ("InvalidSubnet.Conflict", ErrorKind::Exists),
    // Not there.
    ("ResourceNotFoundException", ErrorKind::NotFound),
    ("NotFoundException", ErrorKind::NotFound),
    ("ParameterNotFound", ErrorKind::NotFound),
    ("ParameterVersionNotFound", ErrorKind::NotFound),
    ("InvalidAMIID.Unavailable", ErrorKind::NotFound),
    ("RepositoryNotFoundException", ErrorKind::NotFound),
    ("ImageNotFoundException", ErrorKind::NotFound),
    ("RepositoryAlreadyExistsException", ErrorKind::Exists),
    // A job that has its result is not given another, and one that a worker has is no other's.
    ("JobNotFoundException", ErrorKind::NotFound),
    ("ActionTypeNotFoundException", ErrorKind::NotFound),
    ("InvalidJobStateException", ErrorKind::Exists),
    ("InvalidNonceException", ErrorKind::InUse),
    ("Gateway.NotAttached", ErrorKind::NotFound),
    ("NoSuchKey", ErrorKind::NotFound),
    ("NoSuchBucket", ErrorKind::NotFound),
    // Inside.
    ("InternalError", ErrorKind::Transient),
    ("InternalFailure", ErrorKind::Transient),
    ("RequestTimeout", ErrorKind::Transient),
];

/// What the end of a code means where the whole is in no table.
#[rustfmt::skip]
const ENDINGS: [(&str, ErrorKind); 10] = [
    (".NotFound", ErrorKind::NotFound),
    (".Duplicate", ErrorKind::Exists),
    (".InUse", ErrorKind::InUse),
    (".Malformed", ErrorKind::Invalid),
    ("LimitExceeded", ErrorKind::Quota),
    ("LimitExceededException", ErrorKind::Quota),
    ("QuotaExceeded", ErrorKind::Quota),
    ("AlreadyExists", ErrorKind::Exists),
    ("InternalServerException", ErrorKind::Transient),
    ("InternalServerError", ErrorKind::Transient),
];

/// Codes that mean something else in one operation.
#[rustfmt::skip]
const HERE: [(&str, &str, ErrorKind); 8] = [
    // Who vouches for the token did not answer STS (STS API model: "often a transient error").
    (WITH_WEB_IDENTITY, "IDPCommunicationError", ErrorKind::Transient),
    // SendCommand's invocation is there a little later; so is an instance whose agent just came up.
    ("GetCommandInvocation", "InvocationDoesNotExist", ErrorKind::NotYet),
    ("SendCommand", "InvalidInstanceId", ErrorKind::NotYet),
    // The zone has no such type: another type may do. Of other operations it says that they cannot do what is asked.
    ("RunInstances", "Unsupported", ErrorKind::Capacity),
    // An instance profile that was just made is unknown to EC2 for seconds, but nothing here makes one.
    ("RunInstances", "InvalidParameterCombination", ErrorKind::Invalid),
    // 50 per parameter's version (SSM API model): older ones must be moved, the quota cannot be raised by waiting.
    ("LabelParameterVersion", "ParameterVersionLabelLimitExceeded", ErrorKind::Quota),
    ("PutParameter", "ParameterMaxVersionLimitExceeded", ErrorKind::Quota),
    ("StartSnapshot", "ConcurrentLimitExceededException", ErrorKind::Quota),
];

/// Codes of which their `Reason` says more (EBS direct API model, ValidationExceptionReason and
/// ResourceNotFoundExceptionReason).
#[rustfmt::skip]
const REASONS: [(&str, &str, &str, ErrorKind); 3] = [
    // A snapshot that was just started is unknown to the blocks' store for up to two minutes (awslabs/coldsnap#43). Its
    // key or its parent is not: that a `DEPENDENCY_RESOURCE_NOT_FOUND` tells.
    ("PutSnapshotBlock", "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", ErrorKind::NotYet),
    ("CompleteSnapshot", "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", ErrorKind::NotYet),
    // The block came too slowly, and comes again.
    ("PutSnapshotBlock", "ValidationException", "WRITE_REQUEST_TIMEOUT", ErrorKind::Transient),
];

/// The seam's error for one of the SDK's.
pub(super) fn failed<E>(
    operation: &'static str,
    place: &Place,
    error: SdkError<E, HttpResponse>,
) -> CloudError
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    // Without credentials no call is sent; why is deep in the chain.
    if let Some(refused) = without_credentials(operation, place, &error) {
        return refused.with_source(error);
    }
    match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            let said = answer.err().meta();
            let request = said.extra(REQUEST_ID).map(str::to_owned).or_else(|| request_id(answer.raw()));
            match said.code() {
                Some(code) => {
                    let reason = reason(answer.raw());
                    let reason = reason.as_deref();
                    answered(operation, place, Answer { status, code, reason, text: said.message(), request })
                }
                None => unreadable(operation, place, status, answer.raw(), request),
            }
        }
        SdkError::ResponseError(answer) => {
            let status = answer.raw().status().as_u16();
            let request = request_id(answer.raw());
            let error = unreadable(operation, place, status, answer.raw(), request);
            error.with_source(SdkError::<E, HttpResponse>::ResponseError(answer))
        }
        SdkError::ConstructionFailure(_) => {
            CloudError::new(ErrorKind::Invalid, operation, place, "the request cannot be made")
                .with_source(error)
        }
        SdkError::TimeoutError(_) => {
            let error = CloudError::new(ErrorKind::Transient, operation, place, "no answer in time")
                .with_source(error);
            advised(error, advice::UNREACHED)
        }
        SdkError::DispatchFailure(_) => {
            let error =
                CloudError::new(ErrorKind::Transient, operation, place, "no answer").with_source(error);
            advised(error, advice::UNREACHED)
        }
        // The enum is open. Whatever it is, the call may have taken effect.
        other => {
            CloudError::new(ErrorKind::Unknown, operation, place, "it is not known why").with_source(other)
        }
    }
}

/// What a service says of a call that it refuses.
struct Answer<'a> {
    status: u16,
    code: &'a str,
    reason: Option<&'a str>,
    text: Option<&'a str>,
    request: Option<String>,
}

fn answered(operation: &'static str, place: &Place, answer: Answer<'_>) -> CloudError {
    let Answer { status, code, reason, text, request } = answer;
    let kind = kind(operation, code, reason, status);
    let text = text.unwrap_or("no reason is given");
    let mut error = CloudError::new(kind, operation, place, format!("{code}: {text}")).with_code(code);
    error.request_id = request;
    error.advice = advice::of(operation, code, kind, text, place);
    error
}

/// An answer that is not in the service's form: a proxy's page, or a service in trouble.
fn unreadable(
    operation: &'static str,
    place: &Place,
    status: u16,
    raw: &HttpResponse,
    request: Option<String>,
) -> CloudError {
    let kind = if status >= 500 { ErrorKind::Transient } else { ErrorKind::Unknown };
    let body = String::from_utf8_lossy(raw.body().bytes().unwrap_or_default());
    let body: String = body.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SHOWN).collect();
    let text = format!("status {status} with an answer that cannot be read: {body}");
    let mut error = CloudError::new(kind, operation, place, text);
    error.request_id = request;
    error
}

/// The `Reason` beside the message, where the service writes JSON and gives one.
fn reason(raw: &HttpResponse) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Body {
        #[serde(rename = "Reason")]
        reason: Option<String>,
    }
    serde_json::from_slice::<Body>(raw.body().bytes()?).ok()?.reason
}

fn request_id(raw: &HttpResponse) -> Option<String> {
    REQUEST_ID_HEADERS.iter().find_map(|name| raw.headers().get(*name)).map(str::to_owned)
}

fn advised(error: CloudError, advice: &str) -> CloudError {
    error.with_advice(advice)
}

/// Where a call failed since its credentials could not be had: a role that may not be assumed, a login that is over, or
/// somebody who gives them and is away for a moment.
fn without_credentials(
    operation: &'static str,
    place: &Place,
    error: &(dyn std::error::Error + 'static),
) -> Option<CloudError> {
    let mut found: Option<&CredentialsError> = None;
    let mut passing = false;
    let mut cause = error.source();
    // To the chain's end: a role is taken with credentials that may be missing themselves.
    while let Some(current) = cause {
        if let Some(said) = refused_by::<AssumeRoleError>("AssumeRole", place, current)
            .or_else(|| refused_by::<AssumeRoleWithWebIdentityError>(WITH_WEB_IDENTITY, place, current))
        {
            return Some(said);
        }
        // The deepest tells: below a role that was not to be had may be its own credentials that are not there.
        if let Some(one) = current.downcast_ref::<CredentialsError>() {
            passing = matches!(one, CredentialsError::ProviderTimedOut(_));
            found.get_or_insert(one);
        } else if found.is_some() {
            // Above it would be the call itself that got no answer.
            passing |= is_timeout::<AssumeRoleError>(current)
                || is_timeout::<AssumeRoleWithWebIdentityError>(current)
                || current.downcast_ref::<ConnectorError>().is_some_and(|connector| !connector.is_user());
        }
        cause = current.source();
    }
    let text = format!("there are no credentials: {}", chain(found?));
    Some(if passing {
        CloudError::new(ErrorKind::Transient, operation, place, text).with_advice(advice::UNREACHED)
    } else {
        CloudError::new(ErrorKind::Denied, operation, place, text).with_advice(advice::LOG_IN)
    })
}

/// What STS says where it is STS that was asked, by the operation of this error, and gave an answer.
fn refused_by<E>(
    operation: &'static str,
    place: &Place,
    error: &(dyn std::error::Error + 'static),
) -> Option<CloudError>
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    let (raw, said) = match error.downcast_ref::<SdkError<E, HttpResponse>>()? {
        SdkError::ServiceError(answer) => (answer.raw(), Some(answer.err().meta())),
        SdkError::ResponseError(answer) => (answer.raw(), None),
        _ => return None,
    };
    let (status, request) = (raw.status().as_u16(), request_id(raw));
    let (code, text) = (said.and_then(|said| said.code()), said.and_then(|said| said.message()));
    Some(match code {
        Some(code) => answered(operation, place, Answer { status, code, reason: None, text, request }),
        None => unreadable(operation, place, status, raw, request),
    })
}

fn is_timeout<E: std::error::Error + 'static>(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref::<SdkError<E, HttpResponse>>(), Some(SdkError::TimeoutError(_)))
}

/// What a code means. The status decides where no table knows it.
fn kind(operation: &str, code: &str, reason: Option<&str>, status: u16) -> ErrorKind {
    // Some services put a namespace before it, or `Client.` as CloudTrail does.
    let code = code.rsplit(['#', ':']).next().unwrap_or(code).trim_start_matches("Client.");
    let of_reason = || {
        let reason = reason?;
        let known = |(of, known, said, _): &&(&str, &str, &str, ErrorKind)| {
            *of == operation && *known == code && *said == reason
        };
        REASONS.iter().find(known).map(|(.., kind)| kind)
    };
    let here =
        || HERE.iter().find(|(of, known, _)| *of == operation && *known == code).map(|(_, _, kind)| kind);
    let known = || KINDS.iter().find(|(known, _)| *known == code).map(|(_, kind)| kind);
    let ending = || ENDINGS.iter().find(|(ending, _)| code.ends_with(ending)).map(|(_, kind)| kind);
    match of_reason().or_else(here).or_else(known).or_else(ending) {
        Some(kind) => *kind,
        None if status >= 500 => ErrorKind::Transient,
        None if status == 429 => ErrorKind::Throttled,
        None if matches!(status, 401 | 403) => ErrorKind::Denied,
        None if (400..500).contains(&status) => ErrorKind::Invalid,
        None => ErrorKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::operation::describe_images::DescribeImagesError;
    use aws_smithy_types::error::ErrorMetadata;

    use super::*;
    use crate::cloud::{AccountId, Partition, Region};

    fn place() -> Place {
        Place {
            partition: Partition::parse("aws").unwrap(),
            account: AccountId::parse("123456789012").unwrap(),
            region: Region::parse("eu-west-1").unwrap(),
        }
    }

    #[test]
    fn every_code_has_its_kind() {
        let cases = [
            ("DescribeImages", "RequestLimitExceeded", 503, ErrorKind::Throttled),
            ("PutSnapshotBlock", "ThrottlingException", 400, ErrorKind::Throttled),
            ("PutObject", "SlowDown", 503, ErrorKind::Throttled),
            ("RegisterImage", "UnauthorizedOperation", 403, ErrorKind::Denied),
            ("AssumeRole", "AccessDenied", 403, ErrorKind::Denied),
            ("DescribeImages", "ExpiredToken", 400, ErrorKind::Denied),
            ("RegisterImage", "InvalidAMIName.Duplicate", 400, ErrorKind::Exists),
            ("RegisterImage", "InvalidAMIName.Malformed", 400, ErrorKind::Invalid),
            ("DeleteSnapshot", "InvalidSnapshot.InUse", 400, ErrorKind::InUse),
            ("DeleteSnapshot", "InvalidSnapshot.NotFound", 400, ErrorKind::NotFound),
            ("DescribeImages", "InvalidAMIID.NotFound", 400, ErrorKind::NotFound),
            ("DescribeInstances", "InvalidInstanceID.NotFound", 400, ErrorKind::NotFound),
            ("ListSnapshotBlocks", "ResourceNotFoundException", 404, ErrorKind::NotFound),
            ("RunInstances", "InsufficientInstanceCapacity", 500, ErrorKind::Capacity),
            ("RunInstances", "Unsupported", 400, ErrorKind::Capacity),
            ("CreateImage", "Unsupported", 400, ErrorKind::Invalid),
            ("RunInstances", "VcpuLimitExceeded", 400, ErrorKind::Quota),
            ("CopyImage", "ResourceLimitExceeded", 400, ErrorKind::Quota),
            ("CreateVpc", "VpcLimitExceeded", 400, ErrorKind::Quota),
            ("DeleteVpc", "DependencyViolation", 400, ErrorKind::InUse),
            ("DeleteSecurityGroup", "InvalidGroup.NotFound", 400, ErrorKind::NotFound),
            ("CreateSecurityGroup", "InvalidGroup.Duplicate", 400, ErrorKind::Exists),
            ("CreateRoute", "RouteAlreadyExists", 400, ErrorKind::Exists),
            ("DetachInternetGateway", "Gateway.NotAttached", 400, ErrorKind::NotFound),
            ("CreateTags", "TagLimitExceeded", 400, ErrorKind::Invalid),
            ("StartSnapshot", "ConflictException", 409, ErrorKind::Exists),
            ("StartSnapshot", "com.amazonaws.ebs#ConflictException", 409, ErrorKind::Exists),
            ("StartSnapshot", "ValidationException", 400, ErrorKind::Invalid),
            ("GetSnapshotBlock", "InternalServerException", 500, ErrorKind::Transient),
            ("RegisterImage", "Unavailable", 503, ErrorKind::Transient),
            ("RegisterImage", "NobodyKnowsThis", 400, ErrorKind::Invalid),
            ("RegisterImage", "NobodyKnowsThis", 302, ErrorKind::Unknown),
        ];
        for (operation, code, status, wanted) in cases {
            assert_eq!(kind(operation, code, None, status), wanted, "{operation} {code} {status}");
        }
    }

    #[test]
    fn a_reason_says_more_than_its_code() {
        let cases = [
            ("PutSnapshotBlock", "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", ErrorKind::NotYet),
            ("CompleteSnapshot", "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", ErrorKind::NotYet),
            (
                "PutSnapshotBlock",
                "ResourceNotFoundException",
                "DEPENDENCY_RESOURCE_NOT_FOUND",
                ErrorKind::NotFound,
            ),
            ("ListSnapshotBlocks", "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", ErrorKind::NotFound),
            ("StartSnapshot", "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", ErrorKind::NotFound),
            ("PutSnapshotBlock", "ValidationException", "WRITE_REQUEST_TIMEOUT", ErrorKind::Transient),
            ("PutSnapshotBlock", "ValidationException", "INVALID_BLOCK", ErrorKind::Invalid),
        ];
        for (operation, code, reason, wanted) in cases {
            assert_eq!(kind(operation, code, Some(reason), 400), wanted, "{operation} {code} {reason}");
        }
    }

    #[test]
    fn a_reason_is_read_from_the_answer() {
        let said = |body: &'static str| reason(&HttpResponse::new(400.try_into().unwrap(), body.into()));
        let timed_out = r#"{"Message":"too slow","Reason":"WRITE_REQUEST_TIMEOUT"}"#;
        assert_eq!(said(timed_out).as_deref(), Some("WRITE_REQUEST_TIMEOUT"));
        assert_eq!(said(r#"{"Message":"no"}"#), None);
        assert_eq!(said("<Error><Code>SlowDown</Code></Error>"), None);
    }

    /// A call for which no credentials were to be had.
    fn without(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CloudError {
        let connector = ConnectorError::other(CredentialsError::provider_error(why).into(), None);
        let error = SdkError::<DescribeImagesError, HttpResponse>::dispatch_failure(connector);
        failed("DescribeImages", &place(), error)
    }

    #[test]
    fn credentials_that_cannot_be_had_for_a_moment_are_asked_for_again() {
        use std::time::Duration;
        type Sts = SdkError<AssumeRoleError, HttpResponse>;
        type Web = SdkError<AssumeRoleWithWebIdentityError, HttpResponse>;
        let raw = |status: u16| HttpResponse::new(status.try_into().unwrap(), "<html>".into());
        let of_code = |status, code: &str| {
            let meta = ErrorMetadata::builder().code(code).build();
            without(Sts::service_error(AssumeRoleError::generic(meta), raw(status))).kind
        };
        let nameless = |status| {
            let meta = ErrorMetadata::builder().build();
            without(Sts::service_error(AssumeRoleError::generic(meta), raw(status))).kind
        };
        let idp = ErrorMetadata::builder().code("IDPCommunicationError").build();
        let idp = Web::service_error(AssumeRoleWithWebIdentityError::generic(idp), raw(400));
        // The role is taken with credentials that have timed out themselves.
        let base = CredentialsError::provider_timed_out(Duration::from_secs(5));
        let nested = Sts::dispatch_failure(ConnectorError::other(base.into(), None));
        for (what, kind) in [
            ("5xx", of_code(503, "ServiceUnavailable")),
            ("5xx without a code", nameless(502)),
            ("a proxy's page", without(Sts::response_error("no XML", raw(504))).kind),
            ("a reset connection", without(Sts::dispatch_failure(ConnectorError::io("reset".into()))).kind),
            (
                "a dropped connection",
                without(Sts::dispatch_failure(ConnectorError::other("closed".into(), None))).kind,
            ),
            ("no connection", without(Sts::dispatch_failure(ConnectorError::timeout("late".into()))).kind),
            ("no answer", without(Sts::timeout_error("late")).kind),
            ("the same of a web identity", without(Web::timeout_error("late")).kind),
            ("whoever vouches for a web identity", without(idp).kind),
            ("its own credentials late", without(nested).kind),
        ] {
            assert_eq!(kind, ErrorKind::Transient, "{what}");
        }
        assert_eq!(of_code(400, "Throttling"), ErrorKind::Throttled);
        assert_eq!(of_code(403, "AccessDenied"), ErrorKind::Denied);
        let base = CredentialsError::not_loaded("no profile");
        let missing = without(Sts::dispatch_failure(ConnectorError::other(base.into(), None)));
        assert_eq!((missing.kind, missing.advice.as_deref()), (ErrorKind::Denied, Some(advice::LOG_IN)));
        assert_eq!(without("the SSO session has expired").kind, ErrorKind::Denied);
    }

    #[test]
    fn no_code_is_in_a_table_twice() {
        let mut codes: Vec<&str> = KINDS.iter().map(|(code, _)| *code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), KINDS.len());
    }

    #[test]
    fn an_error_tells_operation_code_request_and_what_to_do() {
        let answer = Answer {
            status: 403,
            code: "UnauthorizedOperation",
            reason: None,
            text: Some("You are not authorized to perform this operation."),
            request: Some("59dbff89-35bd-4eac-99ed-be587EXAMPLE".to_owned()),
        };
        let error = answered("RegisterImage", &place(), answer);
        assert_eq!(
            error.to_string(),
            "RegisterImage in 123456789012/eu-west-1 failed: UnauthorizedOperation: You are not authorized to perform \
             this operation. (request 59dbff89-35bd-4eac-99ed-be587EXAMPLE)"
        );
        let advice = error.advice.unwrap();
        assert!(advice.contains("ec2:RegisterImage") && advice.contains("image/*"), "{advice}");
    }
}
