"""What EC2's Describe calls have in common: filters with wildcards, owners, pages, and times as EC2 writes them."""

import base64
import binascii
import datetime
import re

from .errors import Refused


def time_of(seconds):
    """EC2's times as dates have whole seconds."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


def text_of(seconds):
    return time_of(seconds).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def pattern(text):
    r"""A filter's value: `*` and `?` are wildcards, `\*` and `\?` themselves."""
    out = ""
    for part in re.findall(r"\\[*?\\]|.", text, re.DOTALL):
        out += {"*": ".*", "?": "."}.get(part) or re.escape(part[-1] if len(part) == 2 else part)
    return re.compile(f"^{out}$", re.DOTALL)


def matches(filters, values, tags):
    """Whether something passes all filters: of one filter any value, of all filters each. `values` gives for each filter's
    name what it is compared with. An unknown filter is an error, as EC2 has it."""
    for wanted in filters or []:
        name, patterns = wanted.get("Name", ""), [pattern(v) for v in wanted.get("Values", [])]
        if name.startswith("tag:"):
            have = [tags[name[4:]]] if name[4:] in tags else []
        elif name == "tag-key":
            have = list(tags)
        elif name in values:
            have = values[name]
        else:
            raise Refused("InvalidParameterValue", f"The filter '{name}' is invalid")
        have = have if isinstance(have, (list, tuple, set)) else [have]
        texts = [str(v).lower() if isinstance(v, bool) else str(v) for v in have if v is not None]
        if not any(p.match(text) for p in patterns for text in texts):
            return False
    return True


def page(items, params, tenant, least, most, ids):
    """(the page's items, the next page's token or None). `ids` is the parameter that excludes pages, if it was given.

    Assumption: without MaxResults everything is on one page."""
    wanted, token = params.get("MaxResults"), params.get("NextToken")
    if wanted is None and token is None:
        return items, None
    if ids and wanted is not None:
        raise Refused("InvalidParameterCombination", "MaxResults cannot be used together with a list of ids")
    if wanted is not None and not least <= wanted <= most:
        raise Refused("InvalidParameterValue", f"MaxResults is from {least} to {most}")
    start = 0
    if token is not None:
        try:
            start = int(base64.urlsafe_b64decode(token.encode()).decode().removeprefix("from "))
        except (ValueError, binascii.Error):
            raise Refused("InvalidNextToken", f"The token '{token}' is invalid") from None
    end = start + min(wanted or most, tenant.settings["page_resources"])
    more = base64.urlsafe_b64encode(f"from {end}".encode()).decode() if end < len(items) else None
    return items[start:end], more


def tags_of(resource):
    """A moto resource's tags as a dictionary."""
    return dict(resource.ec2_backend.tags.get(resource.id, {}))


def tag_list(resource):
    return [{"Key": k, "Value": v} for k, v in sorted(tags_of(resource).items())]


def tags_given(params, kinds):
    """The tags of TagSpecifications by resource type. A type that the operation does not make is refused."""
    out = {kind: {} for kind in kinds}
    for one in params.get("TagSpecifications") or []:
        kind = one.get("ResourceType")
        if kind not in out:
            raise Refused(
                "InvalidParameterValue", f"'{kind}' is not a valid taggable resource type for this operation."
            )
        for tag in one.get("Tags") or []:
            if tag["Key"].startswith("aws:"):
                raise Refused("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
            out[kind][tag["Key"]] = tag.get("Value", "")
    return out
