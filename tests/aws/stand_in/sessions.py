"""Sessions of assumed roles: how long they last by their tenant's clock, and that nobody works with one that is over."""

import datetime

from moto.sts.models import STSBackend, sts_backends

from . import errors
from .world import SETTINGS, WORLD

# Seconds that a session lasts, whatever is asked for; None: as long as is asked for, or an hour.
SETTINGS.update({"session_seconds": None})

# Access key → (tenant, when it is over, its secret)
_sessions = {}


def of_role(account, region, role, name):
    """The session of a role that a service takes by itself, for an hour."""
    return sts_backends[account]["aws"].assume_role(
        region_name=region,
        role_session_name=name,
        role_arn=role,
        policy=None,
        duration=3600,
        external_id=None,
    )


def secret_of(access_key):
    """What a session signs with, or None."""
    return _sessions[access_key][2] if access_key in _sessions else None


def refusal(request):
    """What a service answers to a call of a session that is over, or None.

    Assumption: the code is RequestExpired of EC2, ExpiredTokenException of services that speak JSON, ExpiredToken of others."""
    tenant, over, _ = _sessions.get(request.access_key, (None, None, None))
    if tenant is None or tenant.now() < over:
        return None
    json = request.protocol in ("json", "rest-json")
    code = "RequestExpired" if request.service == "ec2" else "ExpiredTokenException" if json else "ExpiredToken"
    return errors.written(request.protocol, 400, code, "The security token included in the request is expired")


def install(moto):
    def assume_role(self, duration, **given):
        """AssumeRole (of STS's backend). Assumption: any role may be taken by anybody (moto)."""
        role = of_moto(self, duration=duration, **given)
        tenant = WORLD.tenant(role.account_id)
        over = tenant.now() + (tenant.settings["session_seconds"] or duration)
        role.expiration = datetime.datetime.fromtimestamp(over, datetime.timezone.utc).replace(tzinfo=None)
        _sessions[role.access_key_id] = (tenant, over, role.secret_access_key)
        return role

    of_moto = moto.replace(STSBackend, "assume_role", assume_role)
