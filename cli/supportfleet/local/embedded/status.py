"""What there is to say about a cluster: for people, and as JSON for programs."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from supportfleet.errors import KubernetesError
from supportfleet.local import state
from supportfleet.local.embedded import nodes
from supportfleet.local.embedded.addons import ADDONS
from supportfleet.local.embedded.api import connect
from supportfleet.local.embedded.certificates import Pair
from supportfleet.local.embedded.context import Context

API_SECONDS = 5
RUNNING, DEGRADED, STOPPED = "Running", "Degraded", "Stopped"


async def describe(context: Context) -> dict[str, Any]:
    """The whole status."""
    components = [_component(context, name) for name in context.daemons.names()]
    found = await _ask_api(context)
    return {
        "name": context.layout.name,
        "provider": "embedded",
        "state": overall(context.record, components, found),
        "server": context.identities.server,
        "version": found.get("version", ""),
        "kubeconfig": str(context.layout.kubeconfig),
        "kubectl": str(context.programs["kubectl"]),
        "auditLog": str(context.layout.audit_log),
        "logs": str(context.layout.logs),
        "nodes": found.get("nodes", []),
        "components": components,
        **{key: value for addon in ADDONS if addon.wanted(context) for key, value in addon.facts(context).items()},
    }


def overall(record: state.Record, components: list[dict[str, Any]], found: Mapping[str, Any]) -> str:
    """One word for all of it."""
    running = [component["state"] == RUNNING for component in components]
    if not any(running):
        return STOPPED
    ready = [node["ready"] for node in found.get("nodes", [])]
    whole = record.complete and all(running) and found and len(ready) == record.nodes and all(ready)
    return RUNNING if whole else DEGRADED


def _component(context: Context, name: str) -> dict[str, Any]:
    process = context.daemons.find(name)
    if process is None:
        return {"name": name, "state": STOPPED}
    return {
        "name": name,
        "state": RUNNING,
        "pid": process.pid,
        "memoryMiB": process.resident_mebibytes(),
        "since": datetime.fromtimestamp(process.started_at(), UTC).isoformat(timespec="seconds"),
    }


async def _ask_api(context: Context) -> dict[str, Any]:
    """What the API server says; nothing where it does not answer."""
    authority, admin = (Pair(context.layout.pki / f"{n}.crt", context.layout.pki / f"{n}.key") for n in ("ca", "admin"))
    if not all(file.exists() for pair in (authority, admin) for file in pair.files):
        return {}
    try:
        async with connect(context.identities.server, authority.certificate, admin, seconds=API_SECONDS) as api:
            version = await api.get("/version") or {}
            return {
                "version": version.get("gitVersion", ""),
                "nodes": [nodes.facts(node) for node in await nodes.listed(api)],
            }
    except KubernetesError:
        return {}
