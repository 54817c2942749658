"""A pipeline's artifacts: objects in its bucket, and the credentials by which a job reads and writes them.

Assumptions:
- An artifact's key is the pipeline's name (20 characters of it), the artifact's (10), and seven letters or digits.
- A job's credentials read and write its own artifacts and do nothing else. They are a session of the pipeline's role that lasts an hour, or as long as the setting `session_seconds`
  says; each GetJobDetails and each poll gives a new one."""

import random
import string

from moto.s3.models import s3_backends

from . import errors, sessions
from .errors import Refused

# Access key of a job → {(bucket, key)} that it reads or writes.
_of_jobs = {}


class Artifact:
    def __init__(self, account, name, bucket, key):
        self.account, self.name, self.bucket, self.key = account, name, bucket, key
        self.revision = None

    def exists(self):
        buckets = s3_backends[self.account]["aws"].buckets
        return self.bucket in buckets and self.key in buckets[self.bucket].keys

    def put(self, content, revision=None):
        """Stores it: what AWS's own actions do."""
        self.revision = revision
        s3_backends[self.account]["aws"].put_object(self.bucket, self.key, content)

    def read(self):
        return object_of(self.account, self.bucket, self.key).value

    def located(self):
        """As ListActionExecutions has it."""
        return {"name": self.name, "s3location": {"bucket": self.bucket, "key": self.key}}

    def of_job(self):
        """As a job has it."""
        said = {"name": self.name, "location": {"type": "S3", "s3Location": {"bucketName": self.bucket, "objectKey": self.key}}}
        return {**said, "revision": self.revision} if self.revision else said


def object_of(account, bucket, key):
    """An object of the account, or None."""
    buckets = s3_backends[account]["aws"].buckets
    return buckets[bucket].keys.get(key) if bucket in buckets else None


def store_of(execution):
    pipeline = execution.pipeline
    return pipeline.get("artifactStore") or (pipeline.get("artifactStores") or {}).get(execution.region)


def new(execution, name):
    """Where an action's output is to be."""
    store = store_of(execution)
    if store is None:
        raise Refused("InvalidStructureException", "The pipeline has no artifact store")
    end = "".join(random.choices(string.ascii_letters + string.digits, k=7))
    return Artifact(execution.account, name, store["location"], f"{execution.name[:20]}/{name[:10]}/{end}")


def encryption_key(execution):
    return store_of(execution).get("encryptionKey")


def is_of_a_job(access_key):
    return access_key in _of_jobs


def refusal(request):
    """What a job's credentials are refused, or None."""
    own = _of_jobs.get(request.access_key)
    allowed = request.service == "s3" and request.name in ("GetObject", "PutObject")
    if own is None or (allowed and (request.params.get("Bucket"), request.params.get("Key")) in own):
        return None
    return errors.written(request.protocol, 403, "AccessDenied", "Access Denied")


def credentials(execution, of):
    """For a job with these artifacts."""
    role = sessions.of_role(execution.account, execution.region, execution.pipeline["roleArn"], "codepipeline")
    _of_jobs[role.access_key_id] = {(one.bucket, one.key) for one in of}
    return {
        "accessKeyId": role.access_key_id,
        "secretAccessKey": role.secret_access_key,
        "sessionToken": role.session_token,
    }
