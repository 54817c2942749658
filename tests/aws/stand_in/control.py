"""The stand-in's own calls, below /stand-in/: what a test seeds, sets, asks and looks at. None of it is AWS's.

All take `account` (in the query of a GET, in the body of a POST): the test's tenant is meant, unless a call says otherwise."""

import json
import traceback
import urllib.parse

from . import code_build, code_commit, hosts, pipeline_jobs, seed, state
from .world import SETTINGS, WORLD


def handle(method, target, body):
    path, _, query = target.partition("?")
    call = CALLS.get((method, path.removeprefix("/stand-in/")))
    try:
        asked = dict(urllib.parse.parse_qsl(query)) if method == "GET" else json.loads(body or b"{}")
        if call is None:
            raise ValueError(f"no such call: {method} {path}")
        if len(asked.get("account", "")) != 12:
            raise ValueError("account: twelve digits are needed")
        said, status = call(WORLD.tenant(asked["account"]), asked), 200
    except Exception as error:  # a test asked wrongly, or the stand-in fails: the test is told and fails
        said, status = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}, 400
    return status, [("Content-Type", "application/json")], json.dumps(said, default=str).encode()


def findings(tenant, _):
    return tenant.findings


def exchanges(tenant, asked):
    """Those of all its accounts, or from number `from` on."""
    return tenant.exchanges[int(asked.get("from", 0)) :]


def set_settings(tenant, asked):
    given = asked.get("settings", {})
    for name in given:
        if name not in SETTINGS:
            raise ValueError(f"{name} is no setting; they are {', '.join(SETTINGS)}")
    tenant.settings.update(given)
    return tenant.settings


def set_faults(tenant, asked):
    """`rules` are added; with `clear` those before are taken away."""
    if asked.get("clear"):
        tenant.faults.clear()
    tenant.faults.add(asked.get("rules", []))
    return tenant.faults.told()


def told_faults(tenant, _):
    return tenant.faults.told()


def tick(tenant, asked):
    tenant.tick(float(asked["seconds"]))
    return {"now": tenant.now()}


def pushed(tenant, asked):
    """The hook of a repository: somebody pushed to it."""
    from .app import one_at_a_time

    with one_at_a_time:
        return code_commit.pushed(asked)


def credentials(tenant, asked):
    """A build's: see code_build.py."""
    from .app import one_at_a_time

    with one_at_a_time:
        return code_build.credentials(asked)


def host(tenant, asked):
    """This machine as an instance: see hosts.py."""
    from .app import one_at_a_time

    with one_at_a_time:
        return hosts.plant(asked)


CALLS = {
    ("POST", "asked"): lambda tenant, asked: tenant.take_asked(asked["account"]),
    ("GET", "build"): lambda tenant, asked: code_build.told(asked),
    ("GET", "credentials"): credentials,
    ("GET", "findings"): findings,
    ("GET", "exchanges"): exchanges,
    ("GET", "faults"): told_faults,
    ("GET", "jobs"): lambda tenant, asked: pipeline_jobs.told(asked["account"]),
    ("GET", "state"): lambda tenant, asked: state.of_account(asked["account"]),
    ("POST", "pushed"): pushed,
    ("POST", "faults"): set_faults,
    ("POST", "host"): host,
    ("POST", "settings"): set_settings,
    ("POST", "tick"): tick,
    ("POST", "seed"): lambda tenant, asked: seed.plant(asked),
    ("POST", "disk"): lambda tenant, asked: state.write_disk(asked),
}
