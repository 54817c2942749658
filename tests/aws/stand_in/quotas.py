"""Service Quotas: those of EBS and EC2 that a bake looks at (docs/what-aws-has-seen.md), with their real codes and AWS's defaults.

Assumptions: every account has the defaults, unless the tenant's setting `quotas` says otherwise ({code: value}); GetServiceQuota
answers also for quotas that were never raised."""

from moto.core.responses import ActionResult
from moto.servicequotas.responses import ServiceQuotasResponse

from .errors import Refused
from .world import SETTINGS, WORLD

SETTINGS.update({"quotas": {}})

NAMES = {"ebs": "Amazon Elastic Block Store (Amazon EBS)", "ec2": "Amazon Elastic Compute Cloud (Amazon EC2)"}

# service → code → (name, default, adjustable)
QUOTAS = {
    "ebs": {
        "L-AFAE1BE8": ("PutSnapshotBlock requests per account", 1000, True),
        "L-1774F84A": ("PutSnapshotBlock requests per snapshot", 1000, False),
        "L-C125AE42": ("GetSnapshotBlock requests per account", 1000, True),
        "L-028ACFB9": ("GetSnapshotBlock requests per snapshot", 1000, False),
        "L-18E976AB": ("ListSnapshotBlocks requests per account", 50, False),
        "L-DB2FBAA1": ("ListChangedBlocks requests per account", 50, False),
        "L-AFEBDF7A": ("StartSnapshot requests per account", 10, False),
        "L-1D4D9345": ("CompleteSnapshot requests per account", 10, False),
        "L-94D7AB7D": ("Pending snapshots per account", 100, False),
        "L-309BACF6": ("Snapshots per Region", 100000, True),
        "L-E20676C1": ("Archived snapshots per volume", 25, True),
        "L-D18FCD1D": ("Storage for General Purpose SSD (gp2) volumes, in TiB", 50, True),
        "L-7A658B76": ("Storage for General Purpose SSD (gp3) volumes, in TiB", 50, True),
    },
    "ec2": {
        "L-B665C33B": ("AMIs", 50000, True),
        "L-0E3CBAB9": ("Public AMIs", 5, True),
        "L-1216C47A": ("Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", 5, True),
        "L-34B43A08": ("All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests", 5, True),
    },
}


def told(self, service, code, defaults):
    name, default, adjustable = QUOTAS[service][code]
    own = {} if defaults else WORLD.tenant(self.current_account).settings["quotas"]
    arn = f"arn:aws:servicequotas:{self.region}:{'' if defaults else self.current_account}:{service}/{code}"
    return {
        "ServiceCode": service,
        "ServiceName": NAMES[service],
        "QuotaArn": arn,
        "QuotaCode": code,
        "QuotaName": name,
        "Value": float(own.get(code, default)),
        "Unit": "None",
        "Adjustable": adjustable,
        "GlobalQuota": False,
    }


def asked(self, defaults):
    service, code = self._get_param("ServiceCode"), self._get_param("QuotaCode")
    if service not in QUOTAS or code not in QUOTAS[service]:
        raise Refused(
            "NoSuchResourceException",
            f"The request failed because the specified service quota {code} of {service} does not exist.",
        )
    return ActionResult({"Quota": told(self, service, code, defaults)})


def listed(self, defaults):
    service = self._get_param("ServiceCode")
    if service not in QUOTAS:
        raise Refused("NoSuchResourceException", f"The service {service} is not known to Service Quotas")
    most, start = int(self._get_param("MaxResults") or 100), int(self._get_param("NextToken") or 0)
    codes = list(QUOTAS[service])
    said = {"Quotas": [told(self, service, code, defaults) for code in codes[start : start + most]]}
    if start + most < len(codes):
        said["NextToken"] = str(start + most)
    return ActionResult(said)


def get_service_quota(self):
    """GetServiceQuota: what the account has.

    Assumptions: a quota that is not in the list above is NoSuchResourceException, as an unknown service is; permissions of the
    other service are not asked for."""
    return asked(self, defaults=False)


def get_aws_default_service_quota(self):
    """GetAWSDefaultServiceQuota: what AWS gives.

    Assumption: the same in every region and to every account, where AWS gives new accounts less."""
    return asked(self, defaults=True)


def list_service_quotas(self):
    """ListServiceQuotas, in pages.

    Assumptions: in the order of the list above; it has those quotas too that were never raised; a page has 100 at most where
    MaxResults says nothing."""
    return listed(self, defaults=False)


def list_aws_default_service_quotas(self):
    """ListAWSDefaultServiceQuotas, in pages.

    Assumption: paged as ListServiceQuotas is."""
    return listed(self, defaults=True)


def install(moto):
    moto.replace(ServiceQuotasResponse, "get_service_quota", get_service_quota)
    moto.replace(ServiceQuotasResponse, "list_aws_default_service_quotas", list_aws_default_service_quotas)
    moto.add(ServiceQuotasResponse, "get_aws_default_service_quota", get_aws_default_service_quota)
    moto.add(ServiceQuotasResponse, "list_service_quotas", list_service_quotas)
