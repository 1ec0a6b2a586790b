"""The spec names a Secret, ConfigMap, claim or key that does not exist.

The operator looks the names up where it may read Secrets; where it may not, the kubelet says the same of the pods that
it cannot start. Pods wait for what is missing and start when it appears, so nothing has to be applied again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from supportfleet_operator.reconcile.policies import pods
from supportfleet_operator.reconcile.policies.base import Finding, View
from supportfleet_operator.reconcile.references import Missing, Reference, references

REASON: Final = "MissingReference"
RECHECK: Final = 10.0

CONFIG_ERROR: Final = "CreateContainerConfigError"
_NOT_FOUND: Final = re.compile(r'(?P<kind>secret|configmap) "(?P<name>[^"]+)" not found', re.IGNORECASE)
_NO_KEY: Final = re.compile(r"couldn't find key (?P<key>\S+) in (?P<kind>Secret|ConfigMap) [^/\s]+/(?P<name>\S+)")


def check(view: View) -> Finding | None:
    """Every reference to nothing, by field."""
    found = [*view.observed.missing, *_from_pods(view)]
    messages = sorted({_message(missing) for missing in found})
    return Finding(REASON, "; ".join(messages), recheck=RECHECK) if messages else None


def _message(missing: Missing) -> str:
    reference, kind = missing.reference, missing.reference.resource.kind
    if missing.key:
        return f"{reference.field}: {kind} {reference.name!r} has no key {missing.key!r}: add it, or name another key"
    where = "the cluster" if not reference.resource.namespaced else "the agent's namespace"
    return f"{reference.field}: there is no {kind} {reference.name!r} in {where}: create it, or name another"


def _from_pods(view: View) -> Iterator[Missing]:
    if view.observed.desired is None:
        return
    known = references(view.observed.desired.agent)
    for container in pods.waiting(view.pods, [CONFIG_ERROR]):
        for pattern in (_NOT_FOUND, _NO_KEY):
            if said := pattern.search(container.message):
                yield from _named(known, **said.groupdict())


def _named(known: list[Reference], kind: str, name: str, key: str = "") -> Iterator[Missing]:
    """The fields of the spec by which the object is meant."""
    for reference in known:
        same = reference.resource.kind.lower() == kind.lower() and reference.name == name
        if same and (not key or key in reference.keys):
            yield Missing(reference, key)
