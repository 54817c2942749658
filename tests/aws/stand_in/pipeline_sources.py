"""Where an execution's source is from: the S3 action.

Assumptions:
- Nothing here looks for a new object: an execution is started by a call.
- The revision is the object's version; in a bucket that keeps none, its ETag without quotes.
- An object that is not there fails the action with the code ConfigurationError."""

from . import pipeline_artifacts as artifacts
from . import pipeline_executions as executions


def s3(action):
    bucket, key = action.configuration["S3Bucket"], action.configuration["S3ObjectKey"]
    for one in action.execution.revisions:
        if one["actionName"] == action.name and one["revisionType"] == "S3_OBJECT_KEY":
            key = one["revisionValue"]
    found = artifacts.object_of(action.execution.account, bucket, key)
    if found is None:
        return action.fail("ConfigurationError", f"The object with key {key} is not in the bucket {bucket}")
    etag = found.etag.strip('"')
    version = found.version_id if found.version_id not in (None, "null") else None
    for output in action.outputs.values():
        output.put(found.value, version or etag)
    variables = {"BucketName": bucket, "ETag": etag, "ObjectKey": key, **({"VersionId": version} if version else {})}
    revision = {"revisionId": version or etag, "revisionChangeId": etag[:100], "created": action.execution.tenant.now()}
    action.succeed(variables=variables, revision=revision, summary=f"Amazon S3 version id: {version}")


executions.RUNNERS[("AWS", "Source", "S3")] = s3
