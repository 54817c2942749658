"""An exchange from end to end: read by the model, struck by faults or answered by an operation, checked and recorded.

EBS's operations are called here; everything else goes to moto with what the other files put into it."""

import io
import threading
import time
import traceback
import urllib.parse
import uuid

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from . import authorization, control, ebs, errors, oracle, pipeline_artifacts, sessions
from .actions import action_of
from .world import WORLD, account_of

# Parameters whose value is not recorded: a block's bytes, an object's, and what nobody should see.
NOT_RECORDED = {"BlockData", "Body", "UserData", "UefiData"}

# A sender of a dropped connection's answer: there is none.
DROPPED = object()

_moto = DomainDispatcherApplication(create_backend_app)
# moto's backends are not made for threads: what one call looks at and then does, no other may do in between.
one_at_a_time = threading.RLock()


def handle(method, target, raw_headers, body, peer):
    """(status, headers, body) of a request, or DROPPED."""
    if target.startswith("/stand-in/"):
        return control.handle(method, target, body)
    began = time.monotonic()
    headers = {}
    for key, value in raw_headers:
        key = key.lower()
        headers[key] = f"{headers[key]},{value}" if key in headers else value
    request = oracle.Request(method, target, headers, body)
    account = account_of(request.access_key)
    tenant = WORLD.tenant(account)
    exchange = {
        "time": tenant.now(),
        "account": account,
        "region": request.region,
        "service": request.service,
        "operation": request.name,
        "action": action_of(request.service, request.name, request.params),
        "parameters": _recorded(request.params),
        # Whether it came with the credentials of a pipeline's job.
        "of_job": pipeline_artifacts.is_of_a_job(request.access_key),
        "fault": None,
    }
    # Who calls is looked at when the call comes, however long the answer takes.
    over = sessions.refusal(request) or pipeline_artifacts.refusal(request)
    # What a job reads and writes is allowed by the pipeline's role.
    if request.name and not request.wrong and over is None and not exchange["of_job"]:
        tenant.is_asked(account, _asked_about(request, account))
    struck = tenant.faults.strike(request) if request.name and over is None else None
    trace = None
    if over is not None:
        answer = over
    elif struck is not None and not struck.after:
        exchange["fault"] = f"{struck.kind} before"
        answer = DROPPED if struck.kind == "drop" else struck.answer(request)
    else:
        answer, trace = _operate(request, account, tenant, method, target, raw_headers, headers, body, peer)
        if struck is not None:
            exchange["fault"] = f"{struck.kind} after"
            exchange["effect"] = answer[0]
            answer = DROPPED if struck.kind == "drop" else struck.answer(request)
    wrong = list(request.wrong)
    if answer is DROPPED:
        exchange["status"] = exchange["error"] = None
    else:
        status, its_headers, its_body = answer
        said, code = oracle.check_answer(request, status, {k.lower(): v for k, v in its_headers}, its_body)
        wrong += said
        exchange["status"], exchange["error"] = status, code
        if status >= 500 and struck is None and code not in errors.MEANT:
            wrong.append("not emulated: " + (trace or its_body[:300].decode("utf-8", "replace")))
    exchange["milliseconds"] = round((time.monotonic() - began) * 1000, 1)
    number = tenant.record(exchange)
    for sentence in wrong:
        tenant.find(f"{request.service}:{request.name}: {sentence}", number)
    return answer


def _recorded(params):
    """Parameters as they are kept: no bytes."""

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k not in NOT_RECORDED}
        if isinstance(value, list):
            return [plain(v) for v in value]
        if isinstance(value, (bytes, bytearray)):
            return f"({len(value)} bytes)"
        return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)

    return plain(params)


def _asked_about(request, account):
    """What IAM is asked, before anything changes."""
    if request.service == "ebs":
        return authorization.asked_about(request, account)
    with one_at_a_time:
        return authorization.asked_about(request, account)


def _operate(request, account, tenant, method, target, raw_headers, headers, body, peer):
    """The operation's own answer, and the trace where the stand-in failed."""
    if request.name is None:
        message = f"no operation of AWS: {'; '.join(request.wrong)}"
        return errors.written(request.protocol or "rest-json", 400, "UnknownOperationException", message), None
    try:
        if request.service == "ebs":
            return ebs.answer(request, account, tenant), None
        with one_at_a_time:
            return _by_moto(method, target, raw_headers, headers, body, peer), None
    except Exception:  # a failure of the stand-in, told as a finding
        trace = traceback.format_exc()
        status, code = errors.broken(request.service)
        return errors.written(request.protocol, status, code, "the stand-in failed"), trace[-1500:]


def _by_moto(method, target, raw_headers, headers, body, peer):
    path, _, query = target.partition("?")
    host = headers.get("host", "127.0.0.1")
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": urllib.parse.unquote(path).encode().decode("latin-1"),
        "QUERY_STRING": query,
        "REQUEST_URI": target,
        "RAW_URI": target,
        "SERVER_NAME": host.partition(":")[0],
        "SERVER_PORT": host.partition(":")[2] or "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": peer,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": headers.get("content-type", ""),
    }
    for key, value in headers.items():
        if key not in ("content-length", "content-type", "transfer-encoding"):
            environ["HTTP_" + key.upper().replace("-", "_")] = value
    said = {}

    def start_response(status, its_headers, exc_info=None):
        said["status"], said["headers"] = int(status.split()[0]), its_headers

    chunks = _moto(environ, start_response)
    try:
        whole = b"".join(chunks)
    finally:
        if hasattr(chunks, "close"):
            chunks.close()
    kept = [(k, v) for k, v in said["headers"] if k.lower() not in ("content-length", "connection")]
    if not any(k.lower() in ("x-amzn-requestid", "x-amz-request-id") for k, _ in kept):
        kept.append(("x-amzn-RequestId", str(uuid.uuid4())))
    return said["status"], kept, whole
