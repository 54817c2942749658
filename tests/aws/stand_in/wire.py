"""Decodes a request as it was on the wire by botocore's model of its service, and says what is wrong with it.

It reads the same models as the SDKs were generated from, but none of their code. It never answers anything."""

import base64
import functools
import json
import re
import urllib.parse

import botocore.session
from botocore.utils import parse_timestamp

SESSION = botocore.session.get_session()

# A signing name that is not botocore's name of the service.
SERVICE_OF_SIGNING_NAME = {"servicequotas": "service-quotas"}

# Headers that belong to the protocol and to no operation.
PROTOCOL_HEADERS = {
    "x-amz-date",
    "x-amz-content-sha256",
    "x-amz-security-token",
    "x-amz-user-agent",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-trailer",
    "x-amz-decoded-content-length",
    "x-amzn-trace-id",
    "x-amz-request-payer",
}


class Wrong(list):
    """What was found, as sentences."""

    def add(self, sentence):
        self.append(sentence)


@functools.cache
def model_of(signing_name):
    """The model of a service by the name that requests are signed for, or None."""
    try:
        return SESSION.get_service_model(SERVICE_OF_SIGNING_NAME.get(signing_name, signing_name))
    except Exception:  # botocore has several kinds of "unknown"
        return None


def scope_of(headers):
    """(access key, region, signing name) of a SigV4 request, or None. Presigned ones carry it in the query."""
    found = re.search(
        r"Credential=([^/]+)/\d{8}/([^/]+)/([^/]+)/aws4_request", headers.get("authorization", "")
    )
    return found.groups() if found else None


def protocols_of(model):
    return model.metadata.get("protocols") or [model.metadata["protocol"]]


def scalar(shape, value, path, wrong, wire):
    """A value of a simple type. `wire` is `text` where the protocol sends text for everything, else `json`."""
    kind = shape.type_name
    try:
        if kind in ("integer", "long"):
            number = int(value) if wire == "text" else of_type(value, int, path, wrong)
            bounds(shape, number, path, wrong)
            return number
        if kind in ("float", "double"):
            return float(value) if wire == "text" else of_type(value, (int, float), path, wrong)
        if kind == "boolean":
            if wire == "text":
                if value not in ("true", "false"):
                    wrong.add(f"{path}: boolean sent as {value!r}")
                return value == "true"
            return of_type(value, bool, path, wrong)
        if kind == "timestamp":
            return value if hasattr(value, "year") else parse_timestamp(value)
        if kind == "blob":
            return base64.b64decode(value, validate=True) if isinstance(value, str) else value
        if kind == "string":
            if isinstance(value, str):
                string(shape, value, path, wrong)
            else:
                wrong.add(f"{path}: string expected, {type(value).__name__} sent")
    except Exception as error:  # what the value's own parser says of it
        wrong.add(f"{path}: bad {kind} {value!r}: {error}")
    return value


def of_type(value, types, path, wrong):
    if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
        wrong.add(f"{path}: {types} expected, got {value!r}")
    return value


def bounds(shape, number, path, wrong):
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if not isinstance(number, int):
        return
    if low is not None and number < low:
        wrong.add(f"{path}: {number} is less than {low}")
    if high is not None and number > high:
        wrong.add(f"{path}: {number} is more than {high}")


@functools.cache
def pattern_of(text):
    try:
        return re.compile(text if text.startswith("^") else f"^(?:{text})$", re.DOTALL)
    except re.error:  # a pattern of another dialect says nothing here
        return None


def string(shape, value, path, wrong):
    if shape.enum and value not in shape.enum:
        wrong.add(f"{path}: {value!r} is none of {shape.enum[:6]}")
    pattern = shape.metadata.get("pattern")
    if pattern and (compiled := pattern_of(pattern)) and not compiled.search(value):
        wrong.add(f"{path}: {value[:60]!r} does not match {pattern[:60]}")
    most, least = shape.metadata.get("max"), shape.metadata.get("min")
    if most is not None and len(value) > most:
        wrong.add(f"{path}: longer than {most}")
    if least is not None and len(value) < least:
        wrong.add(f"{path}: shorter than {least}")


def from_json(shape, value, path, wrong):
    """A decoded JSON value by its shape."""
    if value is None:
        return None
    kind = shape.type_name
    if kind == "structure":
        if not isinstance(value, dict):
            wrong.add(f"{path}: object expected")
            return {}
        if getattr(shape, "is_document_type", False):
            return value
        names = {m.serialization.get("name", n): (n, m) for n, m in shape.members.items()}
        out = {}
        for key, inner in value.items():
            if key not in names:
                wrong.add(f"{path}.{key}: unknown member")
                continue
            name, member = names[key]
            decoded = from_json(member, inner, f"{path}.{name}", wrong)
            if decoded is not None:
                out[name] = decoded
        return out
    if kind == "list":
        if not isinstance(value, list):
            wrong.add(f"{path}: list expected")
            return []
        return [from_json(shape.member, x, f"{path}[{i}]", wrong) for i, x in enumerate(value)]
    if kind == "map":
        if not isinstance(value, dict):
            wrong.add(f"{path}: map expected")
            return {}
        return {
            scalar(shape.key, k, f"{path}.key", wrong, "json"): from_json(
                shape.value, x, f"{path}[{k}]", wrong
            )
            for k, x in value.items()
        }
    return scalar(shape, value, path, wrong, "json")


def tree_of(pairs, wrong):
    """`A.1.B=c` as nested dictionaries."""
    root = {}
    for key, value in pairs:
        node, parts = root, key.split(".")
        for part in parts[:-1]:
            node = node.setdefault(part, {}) if isinstance(node, dict) else {}
        if not isinstance(node, dict) or parts[-1] in node:
            wrong.add(f"{key}: sent twice")
        else:
            node[parts[-1]] = value
    return root


def query_name(member, name, ec2):
    if ec2:
        given = member.serialization.get("queryName")
        if given:
            return given
        given = member.serialization.get("name", name)
        return given[0].upper() + given[1:]
    return member.serialization.get("name", name)


def from_query(shape, node, path, wrong, ec2):
    """A node of the query or ec2 protocol by its shape."""
    kind = shape.type_name
    if kind == "structure":
        if not isinstance(node, dict):
            wrong.add(f"{path}: structure expected, scalar sent")
            return {}
        names = {}
        for name, member in shape.members.items():
            on_wire = query_name(member, name, ec2)
            if not ec2 and member.type_name == "list" and member.serialization.get("flattened"):
                on_wire = member.member.serialization.get("name", on_wire)
            names[on_wire] = (name, member)
        out = {}
        for key, inner in node.items():
            if key not in names:
                wrong.add(f"{path}.{key}: unknown member")
                continue
            name, member = names[key]
            out[name] = from_query(member, inner, f"{path}.{name}", wrong, ec2)
        return out
    if kind == "list":
        if node == "":
            return []
        if not isinstance(node, dict):
            wrong.add(f"{path}: list expected, scalar sent")
            return []
        if not (ec2 or shape.serialization.get("flattened")):
            inner = shape.member.serialization.get("name", "member")
            if set(node) != {inner}:
                wrong.add(f"{path}: list not wrapped in .{inner}. (keys {list(node)[:3]})")
            node = node.get(inner, {})
        indexes = sorted(node, key=lambda s: int(s) if s.isdigit() else -1)
        if [str(i) for i in range(1, len(indexes) + 1)] != indexes:
            wrong.add(f"{path}: list indices {indexes[:5]} are not 1..n")
        return [from_query(shape.member, node[i], f"{path}[{i}]", wrong, ec2) for i in indexes]
    if kind == "map":
        if not shape.serialization.get("flattened"):
            node = node.get("entry", {})
        key_name = shape.key.serialization.get("name", "key")
        value_name = shape.value.serialization.get("name", "value")
        return {
            e.get(key_name): from_query(shape.value, e.get(value_name), f"{path}[{e.get(key_name)}]", wrong, ec2)
            for e in node.values()
        }
    if isinstance(node, dict):
        wrong.add(f"{path}: scalar expected, structure sent")
        return None
    return scalar(shape, node, path, wrong, "text")


@functools.cache
def routes_of(model):
    """(method, pattern of the path, fixed query keys, what else is required, operation) of every REST operation: where two
    have one path, as PutObject and CopyObject, the required query keys and headers tell them apart."""
    routes = []
    for name in model.operation_names:
        operation = model.operation_model(name)
        path, _, query = operation.http["requestUri"].partition("?")
        pattern = re.escape(path)
        pattern = re.sub(r"\\\{(\w+)\\\+\\\}", r"(?P<\1>.+)", pattern)
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", pattern)
        fixed = {k for k, _ in urllib.parse.parse_qsl(query, keep_blank_values=True)}
        required = set()
        if "rest-xml" in protocols_of(model) and operation.input_shape is not None:
            members = [operation.input_shape.members[one].serialization for one in operation.input_shape.required_members]
            required = {one["name"].lower() for one in members if one.get("location") in ("querystring", "header")}
        routes.append((operation.http["method"], re.compile(f"^{pattern}/?$"), fixed, required, operation))
    return routes


def route(model, method, target, headers):
    """(operation, labels, query) of a REST request, or None."""
    path, _, query = target.partition("?")
    pairs = urllib.parse.parse_qsl(query, keep_blank_values=True)
    keys = {k for k, _ in pairs}
    given = {k.lower() for k in keys} | set(headers)
    best = None
    for its_method, pattern, fixed, required, operation in routes_of(model):
        found = pattern.match(path) if its_method == method else None
        if not found or not fixed <= keys or not required <= given:
            continue
        score = (len(fixed) + len(required), -len(found.groupdict()))
        if best is None or score > best[0]:
            labels = {k: urllib.parse.unquote(v) for k, v in found.groupdict().items()}
            best = (score, operation, labels, [(k, v) for k, v in pairs if k not in fixed])
    return best and best[1:]


def from_rest(operation, labels, query, headers, body, wrong, xml):
    """The parameters of a REST request. Of XML ones without the body."""
    shape, params = operation.input_shape, {}
    if shape is None:
        return params
    payload = shape.serialization.get("payload")
    in_label, in_query, in_header, prefixes, in_body = {}, {}, {}, [], {}
    for name, member in shape.members.items():
        location = member.serialization.get("location")
        on_wire = member.serialization.get("name", name)
        if location == "uri":
            in_label[on_wire] = (name, member)
        elif location == "querystring":
            in_query[on_wire] = (name, member)
        elif location == "header":
            in_header[on_wire.lower()] = (name, member)
        elif location == "headers":
            prefixes.append(on_wire.lower())
        elif name != payload:
            in_body[on_wire] = (name, member)
    for key, value in labels.items():
        if key in in_label:
            name, member = in_label[key]
            params[name] = scalar(member, value, f"uri.{key}", wrong, "text")
    for key, value in query:
        if key == "x-id" or key.lower().startswith("x-amz-"):  # the SDK's own mark; a presigned request's parts
            continue
        if key not in in_query:
            wrong.add(f"query.{key}: unknown query parameter")
            continue
        name, member = in_query[key]
        if member.type_name == "list":
            params.setdefault(name, []).append(scalar(member.member, value, f"query.{key}", wrong, "text"))
        else:
            params[name] = scalar(member, value, f"query.{key}", wrong, "text")
    for key, value in headers.items():
        if key in in_header:
            name, member = in_header[key]
            simple = member.type_name not in ("list", "timestamp")
            params[name] = scalar(member, value, f"header.{key}", wrong, "text") if simple else value
        elif (
            key.startswith("x-amz-")
            and key not in PROTOCOL_HEADERS
            and not (xml and key.startswith("x-amz-checksum-"))
            and not any(key.startswith(prefix) for prefix in prefixes)
        ):
            wrong.add(f"header.{key}: unknown x-amz header")
    if payload:
        member = shape.members[payload]
        if member.type_name in ("blob", "string"):
            if body or member.serialization.get("streaming"):
                params[payload] = body
        elif not xml:
            params[payload] = from_json(member, json.loads(body or b"{}"), payload, wrong)
    elif in_body and not xml:
        for key, value in (json.loads(body) if body else {}).items():
            if key not in in_body:
                wrong.add(f"body.{key}: unknown member")
                continue
            name, member = in_body[key]
            params[name] = from_json(member, value, name, wrong)
    elif body and not xml:
        wrong.add("a body is sent, none is modelled")
    return {k: v for k, v in params.items() if v is not None}
