"""SSM's parameters: what SSM refuses and moto takes. All else of them is moto's."""

import re

from moto.core.responses import ActionResult
from moto.ec2.models import ec2_backends
from moto.ssm.responses import SimpleSystemManagerResponse

from .errors import Refused

NAME = re.compile(r"[A-Za-z0-9_.\-/]+")
LABEL = re.compile(r"[A-Za-z0-9_.\-]{1,100}")
LEVELS = 15
LONGEST_ARN = 1011
LONGEST_VALUE = 4096
IMAGE_TYPE = "aws:ec2:image"

original = {}


def refuse_name(name, account, region):
    """What is wrong with a name (SSM API model, PutParameter)."""
    arn = f"arn:aws:ssm:{region}:{account}:parameter/{name.lstrip('/')}"
    levels = name.count("/") - (0 if name.startswith("/") else 1) if "/" in name else 1
    first = name.lstrip("/").lower()
    if (
        not NAME.fullmatch(name)
        or name.endswith("/")
        or "//" in name
        or ("/" in name and not name.startswith("/"))
        or levels > LEVELS
        or len(arn) > LONGEST_ARN
    ):
        raise Refused("ValidationException", f"Parameter name: {name} is not well formed.")
    if first.startswith(("aws", "ssm")):
        raise Refused("ValidationException", f"No access to reserved parameter name: {name}.")


def put_parameter(self):
    """PutParameter.

    Assumptions:
    - a value of the type aws:ec2:image that is no image's id is refused at once; one of an image that is not there is
      answered well and never stored, as AWS's asynchronous check has it (docs/what-aws-has-seen.md);
    - a standard parameter's value has 1 to 4,096 bytes."""
    name, value = self._get_param("Name"), self._get_param("Value") or ""
    refuse_name(name, self.current_account, self.region)
    if not 1 <= len(value.encode()) <= LONGEST_VALUE:
        raise Refused("ValidationException", "Standard tier parameters support a maximum parameter value of 4096 characters.")
    if self._get_param("DataType") == IMAGE_TYPE:
        if not re.fullmatch(r"ami-[0-9a-f]{8,17}", value):
            raise Refused("ValidationException", f"{value} is not a valid value for the data type {IMAGE_TYPE}.")
        if value not in ec2_backends[self.current_account][self.region].amis:
            known = self.ssm_backend._parameters.get(name) or []
            return ActionResult({"Version": len(known) + 1, "Tier": "Standard"})
    return original["put_parameter"](self)


def get_parameter(self):
    """GetParameter.

    Assumptions: a version or label that a parameter does not have is ParameterVersionNotFound; the answer's Selector is what
    was asked for, with its colon; a version has no leading zero; of a secret of Secrets Manager, stages and ids of its versions
    are its labels."""
    name = self._get_param("Name")
    plain, colon, selector = name.partition(":")
    if not colon or name.startswith("arn:"):
        return original["get_parameter"](self)
    known = self.ssm_backend._parameters
    versions = known[plain] if plain in known else []
    if not versions:
        raise Refused("ParameterNotFound", f"Parameter {plain} not found.")
    if not any(str(one.version) == selector or selector in one.labels for one in versions):
        raise Refused("ParameterVersionNotFound", f"Systems Manager could not find version {selector} of {plain}.")
    answer = original["get_parameter"](self)
    answer.result["Parameter"]["Selector"] = f":{selector}"
    return answer


def label_parameter_version(self):
    """LabelParameterVersion.

    Assumptions: what is no label is answered well and listed in InvalidLabels; aws and ssm begin none, in whatever case."""
    wrong = [
        label
        for label in self._get_param("Labels")
        if not LABEL.fullmatch(label) or label[0].isdigit() or label.lower().startswith(("aws", "ssm"))
    ]
    long = [label for label in wrong if not 1 <= len(label) <= 100]
    if long:
        raise Refused("ValidationException", f"Value '{long}' at 'labels' failed to satisfy constraint: 1 to 100 characters")
    if wrong and self.ssm_backend._parameters.get(self._get_param("Name")):
        return ActionResult({"InvalidLabels": wrong, "ParameterVersion": self._get_param("ParameterVersion")})
    return original["label_parameter_version"](self)


def install(moto):
    for function in (put_parameter, get_parameter, label_parameter_version):
        original[function.__name__] = moto.replace(SimpleSystemManagerResponse, function.__name__, function)
