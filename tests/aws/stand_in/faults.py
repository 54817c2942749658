"""Faults on demand: rules that a test gives its tenant, and which of them strikes an exchange. Read-only to everything else."""

import threading
import time

from . import errors

# What the beginning of an operation's name says of it: these change nothing.
READS = ("Describe", "Get", "List", "Head", "AssumeRole", "Search", "Lookup", "BatchGet")

KINDS = ("throttle", "error", "drop", "latency", "rate", "tick")


def mutates(operation):
    return not operation.startswith(READS)


class Struck:
    """What a fault does to an exchange: an answer in place of the operation's, or none at all."""

    def __init__(self, rule, when):
        self.rule, self.after, self.kind = rule, when == "after", rule["kind"]

    def answer(self, request):
        rule = self.rule
        status, code = errors.throttled(request.service) if self.kind in ("throttle", "rate") else errors.broken(request.service)
        status, code = rule.get("status", status), rule.get("code", code)
        message = rule.get("message", "Request limit exceeded." if self.kind != "error" else "An internal error has occurred")
        reason = rule.get("reason")
        if reason is None and request.service == "ebs" and code == "RequestThrottledException":
            reason = "ACCOUNT_THROTTLED"
        return errors.written(request.protocol, status, code, message, reason)


class Faults:
    """The rules of a tenant. Each is
    `{kind, service?, operation?, mutating?, nth?, times?, each?, when?, status?, code?, message?, reason?, seconds?, per_second?, burst?}`:

    - which exchanges: those of `service` and `operation` (`*` or nothing: all), with `mutating` only those that change
      something; of these the `nth` (from 1) and `times - 1` following ones, or all of them; or with `each`, a parameter's name,
      the first one with each of its values;
    - `throttle`, `error`: answered with the service's own code, or the one given, `when: before` (the default) or `after`
      the operation took effect;
    - `drop`: the connection is closed without an answer, `before` or `after`;
    - `latency`: answered `seconds` later; `tick`: the tenant's clock is put forward by `seconds` before it is answered;
    - `rate`: throttled beyond `per_second`, with `burst` at once."""

    def __init__(self, tenant):
        self._lock, self._rules, self._tenant = threading.Lock(), [], tenant

    def add(self, rules):
        with self._lock:
            for rule in rules:
                if rule.get("kind") not in KINDS:
                    raise ValueError(f"a fault's kind is one of {', '.join(KINDS)}")
                if rule.get("when", "before") not in ("before", "after"):
                    raise ValueError("a fault strikes `before` or `after`")
                burst = rule.get("burst", rule.get("per_second", 0))
                own = {"seen": 0, "struck": 0, "tokens": burst, "since": time.monotonic(), "values": []}
                self._rules.append({**own, **rule})

    def clear(self):
        with self._lock:
            self._rules = []

    def told(self):
        """The rules with how often each has seen its exchanges and has struck."""
        with self._lock:
            return [dict(rule) for rule in self._rules]

    def strike(self, request):
        """What happens to an exchange, or None. Sleeps where a rule says so."""
        sleep, struck = 0.0, None
        with self._lock:
            for rule in self._rules:
                if not self._is_meant(rule, request):
                    continue
                rule["seen"] += 1
                if rule["kind"] == "rate":
                    hits = self._is_over(rule)
                elif "each" in rule:
                    value = request.params.get(rule["each"])
                    hits = value is not None and value not in rule["values"]
                    if hits:
                        rule["values"].append(value)
                else:
                    first = rule.get("nth")
                    hits = first is None or first <= rule["seen"] < first + rule.get("times", 1)
                    if first is None and "times" in rule:
                        hits = rule["struck"] < rule["times"]
                if not hits:
                    continue
                rule["struck"] += 1
                if rule["kind"] == "latency":
                    sleep += rule["seconds"]
                elif rule["kind"] == "tick":
                    self._tenant.tick(rule["seconds"])
                elif struck is None:
                    struck = Struck(rule, rule.get("when", "before"))
        if sleep:
            time.sleep(sleep)
        return struck

    @staticmethod
    def _is_meant(rule, request):
        for key, value in (("service", request.service), ("operation", request.name)):
            if rule.get(key, "*") not in ("*", value):
                return False
        return not rule.get("mutating") or mutates(request.name)

    @staticmethod
    def _is_over(rule):
        now = time.monotonic()
        burst = rule.get("burst", rule["per_second"])
        rule["tokens"] = min(burst, rule["tokens"] + (now - rule["since"]) * rule["per_second"])
        rule["since"] = now
        if rule["tokens"] >= 1:
            rule["tokens"] -= 1
            return False
        return True
