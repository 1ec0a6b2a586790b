"""The gate before the pods: the model Job of the desired digest must have succeeded.

Until it has, the revision's Deployment stays as it is, so that what ran before keeps serving. A failed Job is
deleted and made again, since the trouble may lie outside: a bucket that is created later, a Secret that is corrected, a
version that is published again. The wait between tries grows with how long it has been failing, which the condition's
lastTransitionTime tells, so nothing has to be remembered.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from supportfleet_operator.api import MODEL_SYNCED
from supportfleet_operator.api.model import Model
from supportfleet_operator.cluster.resources import Manifest
from supportfleet_operator.reconcile.observe import Observed
from supportfleet_operator.reconcile.policies import jobs, pods
from supportfleet_operator.reconcile.policies.base import Finding, View, condition, parse_time
from supportfleet_operator.reconcile.policies.model_reasons import CONTENT, UNKNOWN, explain

NOT_READY: Final = "ModelNotReady"
DOWNLOADING: Final = "Downloading"
SYNCED: Final = "Synced"
RESOLVING: Final = "ResolvingChannel"
RELOADING: Final = "Reloading"
RELOAD_FAILED: Final = "ReloadFailed"
UNDER_WAY: Final = frozenset({RESOLVING, DOWNLOADING, RELOADING})
"""Reasons for which nobody has to do anything."""
NO_POD: Final = "JobNotStarted"

SOONEST: Final = 10.0
LATEST: Final = 300.0
CONTENT_SOONEST: Final = 60.0
NO_POD_PATIENCE: Final = 30.0

State = Literal["NotNeeded", "Synced", "Running", "Failed"]


@dataclass(frozen=True, slots=True)
class Gate:
    """Where the model of the desired spec stands."""

    state: State
    reason: str = ""
    message: str = ""
    retry_in: float | None = None
    """Seconds until a failed Job is to be made again (0 or less when that is now), or until to look again."""
    stuck: bool = False
    """Whether the Job cannot even begin."""

    @property
    def is_open(self) -> bool:
        """Whether pods may run on the desired model."""
        return self.state in {"NotNeeded", "Synced"}

    @property
    def is_due(self) -> bool:
        """Whether the sync failed and is to be tried again now."""
        return self.state == "Failed" and self.retry_in is not None and self.retry_in <= 0


def gate(observed: Observed, wanted: Manifest | None, model: Model | None, now: dt.datetime) -> Gate:
    """Where a revision's model stands, from its Job and the Job's pods."""
    if wanted is None or model is None:
        return Gate("NotNeeded")
    job = observed.child(wanted)
    if job is None:
        return Gate("Running", DOWNLOADING, f"the sync of version {model.version!r} is about to start")
    if jobs.is_true(job, "Complete"):
        return Gate("Synced", SYNCED, f"version {model.version!r} is {model.digest}")
    failure = _failure(observed, job)
    ended = condition(job, "Failed")
    if ended is not None and ended["status"] == "True":
        reason, message = failure or (UNKNOWN, f"spec.model: {ended.get('message') or 'the model Job failed'}")
        return Gate("Failed", reason, message, _retry_in(observed, reason, ended, now))
    if failure is not None:
        return Gate("Running", *failure)
    return _running(observed, job, model.version or "", now)


def check(view: View) -> Finding | None:
    """The model is not verified (yet)."""
    found = view.gate
    if found is None or found.is_open:
        return None
    if found.reason == RELOADING and not _is_serving(view.observed):
        return None  # what keeps pods from getting ready is of more interest
    serving = "; the pods of before keep serving" if _is_serving(view.observed) else ""
    if found.reason in {RELOADING, RELOAD_FAILED}:
        serving = "; pods go on with the model that they have"
    again = max(1.0, found.retry_in) if found.retry_in is not None else None
    if found.reason in UNDER_WAY:
        return Finding(NOT_READY, found.message + serving, stalled=False, recheck=again)
    stalled = found.state == "Failed" or found.stuck
    return Finding(NOT_READY, f"{found.reason}: {found.message}{serving}", stalled=stalled, recheck=again)


def _running(observed: Observed, job: Manifest, version: str, now: dt.datetime) -> Gate:
    """A Job at work, or one whose pods the cluster refuses: only its events say why."""
    if observed.pods_of(job) or (job.get("status") or {}).get("active"):
        return Gate("Running", DOWNLOADING, f"version {version!r} is being fetched and verified")
    created = parse_time(job["metadata"].get("creationTimestamp")) or now
    waited = (now - created).total_seconds()
    if waited < NO_POD_PATIENCE:
        message = f"the sync of version {version!r} is starting"
        return Gate("Running", DOWNLOADING, message, retry_in=NO_POD_PATIENCE - waited)
    name = job["metadata"]["name"]
    return Gate("Running", NO_POD, f"the cluster makes no pod for it: see `kubectl describe job {name}`", stuck=True)


def _is_serving(observed: Observed) -> bool:
    return any((one.get("status") or {}).get("readyReplicas") for one in observed.deployments.values())


def _failure(observed: Observed, job: Manifest) -> tuple[str, str] | None:
    """What the latest pod of the Job that failed reported."""
    latest: tuple[str, pods.Termination] | None = None
    for pod in observed.pods_of(job):
        for container in pods.containers(pod):
            ended = pods.last_termination(container)
            if ended is None:
                continue
            state = (container.get("state") or {}).get("terminated") or container["lastState"]["terminated"]
            when = str(state.get("finishedAt", ""))
            if latest is None or when >= latest[0]:
                latest = (when, ended)
    if latest is None:
        return None
    ended = latest[1]
    if ended.report:
        return explain(ended.report)
    reason = "OutOfMemory" if ended.reason == "OOMKilled" else UNKNOWN
    return explain({"reason": reason, "message": ended.message or f"exit code {ended.exit_code}"})


def _retry_in(observed: Observed, reason: str, ended: Mapping[str, Any], now: dt.datetime) -> float:
    """Half as long as it has been failing, within bounds."""
    failed_at = parse_time(ended.get("lastTransitionTime")) or now
    synced = condition(observed.agent, MODEL_SYNCED)
    since = parse_time(synced["lastTransitionTime"]) if synced and synced["status"] == "False" else None
    failing = (failed_at - since).total_seconds() if since else 0.0
    soonest = CONTENT_SOONEST if reason in CONTENT else SOONEST
    wait = min(LATEST, max(soonest, failing / 2))
    return wait - (now - failed_at).total_seconds()
