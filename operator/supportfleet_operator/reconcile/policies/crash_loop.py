"""A container of the agent cannot be started, or ends again and again."""

from __future__ import annotations

from typing import Final

from supportfleet_operator.reconcile.policies import pods
from supportfleet_operator.reconcile.policies.base import Finding, View
from supportfleet_operator.reconcile.policies.model_reasons import explain

REASON: Final = "CrashLoop"
NOT_STARTED: Final = "ContainerNotStarted"
OUT_OF_MEMORY: Final = "OutOfMemory"
SYNC: Final = "sync-model"

_BACK_OFF: Final = "CrashLoopBackOff"
_NOT_STARTED: Final = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError")


def check(view: View) -> Finding | None:
    """What the failing container said last."""
    found = next(pods.waiting(view.agent_pods, (_BACK_OFF, *_NOT_STARTED)), None)
    if found is None:
        return None
    if found.reason in _NOT_STARTED:
        return Finding(
            NOT_STARTED,
            f"spec.template: container {found.container!r} of pod {found.pod!r} cannot be started: {found.message}",
        )
    return _ended(found)


def _ended(found: pods.Waiting) -> Finding:
    ended = pods.last_termination(found.status)
    restarts = found.status.get("restartCount", 0)
    who = f"container {found.container!r} of pod {found.pod!r}"
    if ended is None:
        return Finding(REASON, f"{who} ended {restarts} times: see `kubectl logs {found.pod} -c {found.container} -p`")
    if ended.reason == "OOMKilled":
        return Finding(OUT_OF_MEMORY, f"spec.template.resources.limits.memory: raise it: {who} was killed for memory")
    if found.container == SYNC and ended.report:
        reason, message = explain(ended.report)
        return Finding("ModelNotReady", f"{reason}: {message} (pod {found.pod!r})")
    said = f": {ended.message}" if ended.message else ""
    return Finding(
        REASON,
        f"{who} ended {restarts} times, last with exit code {ended.exit_code}; "
        f"see `kubectl logs {found.pod} -c {found.container} -p`{said}",
    )
