"""Holds every exchange against botocore's models: what a request says that its operation does not know, and what an answer
says that an SDK would not read. It knows nothing of what the stand-in holds, and changes nothing."""

import json
import urllib.parse

import botocore.parsers
import botocore.validate
from botocore.awsrequest import HeadersDict

from . import signature, wire

# Error codes that every service may answer, without a model saying so.
COMMON_ERRORS = {
    "AccessDenied",
    "AccessDeniedException",
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InternalFailure",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "SignatureDoesNotMatch",
    "Throttling",
    "ThrottlingException",
    "UnauthorizedOperation",
    "UnknownOperationException",
    "UnrecognizedClientException",
    "ValidationError",
    "ValidationException",
}


class Request:
    """A request as the model reads it. `operation` is None where no operation is meant."""

    def __init__(self, method, target, headers, body):
        self.wrong = wire.Wrong()
        self.service = self.operation = self.protocol = None
        self.access_key, self.region = "", "us-east-1"
        self.params = {}
        scope = wire.scope_of(headers)
        if scope is None and "X-Amz-Credential" in target:
            query = dict(urllib.parse.parse_qsl(target.partition("?")[2]))
            parts = query.get("X-Amz-Credential", "").split("/")
            scope = (parts[0], parts[2], parts[3]) if len(parts) == 5 else None
        if scope is None:
            self.wrong.add("no SigV4 Authorization header")
            return
        self.access_key, self.region, signing_name = scope
        unsigned = signature.wrong_with(method, target, headers, body)
        if unsigned:
            self.wrong.add(unsigned)
        self.service = wire.SERVICE_OF_SIGNING_NAME.get(signing_name, signing_name)
        model = wire.model_of(signing_name)
        if model is None:
            self.wrong.add(f"botocore has no model of {signing_name}")
            return
        try:
            name = self._decode(model, method, target, headers, body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.wrong.add(f"cannot be decoded: {type(error).__name__}: {error}")
            return
        if name is None:
            self.wrong.add(f"no operation for {method} {target} {headers.get('x-amz-target', '')}")
            return
        self.operation = model.operation_model(name)
        spoken = wire.protocols_of(model)
        if self.protocol not in spoken:
            self.wrong.add(f"protocol {self.protocol} is none of {spoken}")
        if self.operation.input_shape is not None and self.protocol != "rest-xml":
            report = botocore.validate.ParamValidator().validate(self.params, self.operation.input_shape)
            if report.has_errors():
                self.wrong.add(report.generate_report().replace("\n", "; "))

    @property
    def name(self):
        return self.operation.name if self.operation is not None else None

    def _decode(self, model, method, target, headers, body):
        content_type, protocols = headers.get("content-type", ""), wire.protocols_of(model)
        if "x-amz-target" in headers:
            self.protocol = "json"
            prefix, _, name = headers["x-amz-target"].rpartition(".")
            if prefix != model.metadata.get("targetPrefix"):
                self.wrong.add(f"X-Amz-Target's prefix is {prefix}")
            if content_type.split(";")[0] != f"application/x-amz-json-{model.metadata.get('jsonVersion')}":
                self.wrong.add(f"Content-Type is {content_type}")
            if name not in model.operation_names:
                return None
            shape = model.operation_model(name).input_shape
            if shape is not None:
                self.params = wire.from_json(shape, json.loads(body or b"{}"), name, self.wrong)
            return name
        if content_type.startswith("application/x-www-form-urlencoded") and {"ec2", "query"} & set(protocols):
            self.protocol = "ec2" if "ec2" in protocols else "query"
            pairs = urllib.parse.parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True)
            tree = wire.tree_of(pairs, self.wrong)
            name, version = tree.pop("Action", None), tree.pop("Version", None)
            if version != model.api_version:
                self.wrong.add(f"Version is {version}, not {model.api_version}")
            if name not in model.operation_names:
                return None
            shape = model.operation_model(name).input_shape
            if shape is not None:
                self.params = wire.from_query(shape, tree, name, self.wrong, self.protocol == "ec2")
            elif tree:
                self.wrong.add("parameters sent to an operation without input")
            return name
        self.protocol = "rest-xml" if "rest-xml" in protocols else "rest-json"
        routed = wire.route(model, method, target, headers)
        if routed is None:
            return None
        operation, labels, query = routed
        xml = self.protocol == "rest-xml"
        self.params = wire.from_rest(operation, labels, query, headers, body, self.wrong, xml)
        return operation.name


def check_answer(request, status, headers, body):
    """(what is wrong with an answer, the code of the error that it carries or None)."""
    wrong = wire.Wrong()
    operation = request.operation
    if operation is None:
        return wrong, None
    streamed = operation.has_streaming_output and status < 300
    code = None
    try:
        parsed = {}
        if not streamed:
            parser = botocore.parsers.create_parser(request.protocol)
            raw = {"status_code": status, "headers": HeadersDict(headers), "body": body}
            parsed = parser.parse(raw, operation.output_shape)
        if status >= 400:
            code = parsed.get("Error", {}).get("Code", "") or "?"
            known = {s.name for s in operation.error_shapes}
            known |= {s.metadata.get("error", {}).get("code") for s in operation.error_shapes}
            # EC2's and S3's models have no errors.
            unmodelled = code not in known | COMMON_ERRORS
            if request.protocol not in ("ec2", "rest-xml") and body and unmodelled:
                wrong.add(f"answer: the error {code!r} is not modelled for {operation.name}")
        elif operation.output_shape is not None:
            shape = operation.output_shape
            if request.protocol in ("json", "rest-json") and body and not shape.serialization.get("payload"):
                wire.from_json(shape, json.loads(body), "answer", wrong)
            if not streamed:
                missing = [name for name in shape.required_members if name not in parsed]
                if missing:
                    wrong.add(f"answer: misses {missing}")
    except Exception as error:  # whatever botocore's parser says of it
        wrong.add(f"answer: cannot be read as {request.protocol}: {type(error).__name__} {str(error)[:100]}")
    return wrong, code
