"""The IAM action by which AWS decides on an operation. What an operation implies besides (CreateTags, grants of a key) is not
here: it follows from its parameters."""

# IAM's name of a service where it is not the signing name.
PREFIX = {"service-quotas": "servicequotas"}

# Operations whose action has another name (service authorization reference).
OTHER_NAME = {
    ("s3", "HeadBucket"): "ListBucket",
    ("s3", "ListObjects"): "ListBucket",
    ("s3", "ListObjectsV2"): "ListBucket",
    ("s3", "ListObjectVersions"): "ListBucketVersions",
    ("s3", "HeadObject"): "GetObject",
    ("s3", "CopyObject"): "PutObject",
    ("s3", "DeleteObjects"): "DeleteObject",
    ("s3", "CreateMultipartUpload"): "PutObject",
    ("s3", "UploadPart"): "PutObject",
    ("s3", "CompleteMultipartUpload"): "PutObject",
    ("s3", "ListMultipartUploads"): "ListBucketMultipartUploads",
    ("s3", "ListParts"): "ListMultipartUploadParts",
    ("s3", "ListBuckets"): "ListAllMyBuckets",
}


def action_of(service, operation, params):
    if operation is None:
        return None
    if (service, operation) == ("s3", "DeleteObject") and params.get("VersionId"):
        return "s3:DeleteObjectVersion"
    return f"{PREFIX.get(service, service)}:{OTHER_NAME.get((service, operation), operation)}"
