"""An error of an operation, and how each protocol writes it."""

import json
import uuid
from xml.sax.saxutils import escape

from moto.core.exceptions import ServiceException


# What AWS answers with a status of 5xx though nothing failed.
MEANT = {"InsufficientInstanceCapacity"}


class Refused(ServiceException):
    """What an operation answers instead. moto writes it by the operation's protocol."""

    def __init__(self, code, message):
        super().__init__(code, message)


def throttled(service):
    """(status, code) by which a service says that it is asked too often."""
    return {
        "ec2": (503, "RequestLimitExceeded"),
        "ebs": (400, "RequestThrottledException"),
        "s3": (503, "SlowDown"),
        "sts": (400, "Throttling"),
        "iam": (400, "Throttling"),
        "service-quotas": (400, "TooManyRequestsException"),
    }.get(service, (400, "ThrottlingException"))


def broken(service):
    """(status, code) by which a service says that it failed."""
    return {
        "ebs": (500, "InternalServerException"),
        "ec2": (500, "InternalError"),
        "s3": (500, "InternalError"),
        "ssm": (500, "InternalServerError"),
        "ecr": (500, "ServerException"),
        "kms": (500, "KMSInternalException"),
        "service-quotas": (500, "ServiceException"),
    }.get(service, (500, "InternalFailure"))


def written(protocol, status, code, message, reason=None):
    """(status, headers, body) of an error."""
    request_id = str(uuid.uuid4())
    if protocol in ("json", "rest-json"):
        said = {"Message" if protocol == "rest-json" else "message": message}
        if reason:
            said["Reason"] = reason
        if protocol == "json":
            said["__type"] = code
        kind = "application/x-amz-json-1.1" if protocol == "json" else "application/json"
        headers = [("Content-Type", kind), ("x-amzn-RequestId", request_id), ("x-amzn-ErrorType", code)]
        return status, headers, json.dumps(said).encode()
    code, message = escape(code), escape(message)
    error = f"<Code>{code}</Code><Message>{message}</Message>"
    if protocol == "ec2":
        body = f"<Response><Errors><Error>{error}</Error></Errors><RequestID>{request_id}</RequestID></Response>"
    elif protocol == "query":
        kind = "Sender" if status < 500 else "Receiver"
        body = (
            f"<ErrorResponse><Error><Type>{kind}</Type>{error}</Error>"
            f"<RequestId>{request_id}</RequestId></ErrorResponse>"
        )
    else:
        body = f"<Error>{error}<RequestId>{request_id}</RequestId></Error>"
    headers = [("Content-Type", "text/xml;charset=UTF-8"), ("x-amzn-RequestId", request_id)]
    return status, headers, ('<?xml version="1.0" encoding="UTF-8"?>' + body).encode()
