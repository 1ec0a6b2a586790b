"""Reading pods: the containers that wait, the ones that ended, and what they said."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from supportfleet_operator.reconcile.observe import Observed, is_ready, revision_of
from supportfleet_operator.reconcile.policies.base import View, age, condition

MESSAGE_LIMIT: Final = 400
SLOW: Final = 30.0
"""Seconds after which a pod that runs should be ready."""


class Waiting(NamedTuple):
    """A container that waits to run."""

    pod: str
    container: str
    reason: str
    message: str
    status: Mapping[str, Any]


class Termination(NamedTuple):
    """How a container ended, and what it left in its termination message."""

    reason: str
    exit_code: int
    message: str
    report: Mapping[str, Any]
    """The JSON object of the message, where it is one."""


def containers(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Statuses of all containers, init containers first."""
    status = pod.get("status") or {}
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def waiting(pods: Iterable[Mapping[str, Any]], reasons: Iterable[str]) -> Iterator[Waiting]:
    """Containers that wait for one of these reasons."""
    wanted = frozenset(reasons)
    for pod in pods:
        for container in containers(pod):
            state = (container.get("state") or {}).get("waiting") or {}
            if state.get("reason") in wanted:
                yield Waiting(
                    pod["metadata"]["name"],
                    container["name"],
                    state["reason"],
                    shorten(state.get("message") or ""),
                    container,
                )


def unready_hint(view: View) -> str:
    """Where to look when a pod runs and does not become ready; empty while there is none."""
    for pod in view.agent_pods:
        ready = condition(pod, "Ready")
        runs = (pod.get("status") or {}).get("phase") == "Running"
        if (
            runs
            and ready is not None
            and ready["status"] != "True"
            and age(view, ready.get("lastTransitionTime")) > SLOW
        ):
            name = pod["metadata"]["name"]
            return f"; pod {name!r} runs but does not become ready: see `kubectl logs {name}`"
    return ""


def lacks(observed: Observed, revision: str) -> str | None:
    """The layers without which a revision's ready pods can answer nobody."""
    waits = any(revision_of(pod) == revision and is_ready(pod) for pod in observed.agent_pods)
    lacking = observed.lacking(revision) if waits else ()
    return f"no pod of {' and '.join(lacking)} is ready" if lacking else None


def last_termination(container: Mapping[str, Any]) -> Termination | None:
    """The latest end of a container that was not a success."""
    for moment in ("state", "lastState"):
        ended = (container.get(moment) or {}).get("terminated")
        if ended and ended.get("exitCode"):
            message = (ended.get("message") or "").strip()
            return Termination(ended.get("reason", ""), ended["exitCode"], shorten(message), report_of(message))
    return None


def report_of(message: str) -> Mapping[str, Any]:
    """The JSON object in a termination message; where logs stand in for it, the last line that is one."""
    for line in reversed(message.splitlines()):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("reason"), str):
            return value
    return {}


def shorten(text: str) -> str:
    """The end of a text, which is where programs say what went wrong."""
    text = text.strip()
    return text if len(text) <= MESSAGE_LIMIT else "…" + text[-MESSAGE_LIMIT:]
