"""The checklist of a canary: a Job once its first pod is ready, and what came of it.

Only a check that failed ends the Job at once, which is a verdict on the revision. What could not be checked, and a pod
that could not run, the Job tries again by itself; when it gives up it is made again, until the rollout's deadline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from supportfleet_operator.cluster.resources import Manifest
from supportfleet_operator.reconcile.desired import Desired, stamped
from supportfleet_operator.reconcile.observe import Observed, is_leaving, revision_of
from supportfleet_operator.reconcile.policies import jobs
from supportfleet_operator.reconcile.policies.base import condition
from supportfleet_operator.resources import COMPONENT, checklist_job
from supportfleet_operator.resources.checklist import FAILED
from supportfleet_operator.rollout import ChecklistResult, RolloutState, is_unchecked

BY_POLICY: Final = "PodFailurePolicy"
"""Why a Job failed of which a pod ended with the exit code that is a verdict."""
LONGEST: Final = 1000
"""Characters of the command's last word that are told."""
REASONS: Final = frozenset({"ChecklistPassed", "ChecklistFailed", "ChecklistIncomplete"})
"""What the command's last word begins with; anything else a pod left may be a line of its log."""


def is_checklist(job: Mapping[str, Any]) -> bool:
    """Whether a Job is one of these."""
    return (job["metadata"].get("labels") or {}).get(COMPONENT) == "checklist"


def wanted_job(observed: Observed, desired: Desired, state: RolloutState) -> Manifest | None:
    """The Job of the canary that has yet to pass; none where it needs none."""
    if desired.agent.spec.rollout.checklist is None or state.canary is None or not is_unchecked(state):
        return None
    agent = observed.as_of(state.canary)
    if agent is None or state.step_started_at is None:
        return None
    job = checklist_job(agent, state.canary, state.step_started_at.isoformat())
    return None if job is None else stamped(job)


def result(observed: Observed, desired: Desired, state: RolloutState) -> ChecklistResult | None:
    """How the canary's checklist went so far; None where it needs none."""
    wanted = wanted_job(observed, desired, state)
    if wanted is None or state.canary is None:
        return None
    job = observed.child(wanted)
    if job is None:
        return ChecklistResult(state.canary, "Running", "it is about to begin")
    if jobs.is_true(job, "Complete"):
        return ChecklistResult(state.canary, "Passed")
    said = _last_word(observed, job)
    if _is_verdict(observed, job):
        name = job["metadata"]["name"]
        return ChecklistResult(state.canary, "Failed", said or f"see `kubectl logs job/{name}`")
    return ChecklistResult(state.canary, "Running", said)


def due(observed: Observed, desired: Desired, state: RolloutState) -> Manifest | None:
    """The Job to make now: as soon as the canary has a pod to ask."""
    wanted = wanted_job(observed, desired, state)
    if wanted is None or observed.child(wanted) is not None or observed.ready_pods(state.canary or "") == 0:
        return None
    return wanted


def obsolete(observed: Observed, desired: Desired, state: RolloutState) -> Iterator[tuple[Manifest, str]]:
    """Jobs to delete, and why: those of other tries, and one that gave up without a verdict.

    What a rollout has come to is kept as long as it goes on, and a verdict that it failed until the spec changes.
    """
    wanted = wanted_job(observed, desired, state)
    for job in observed.jobs:
        if not is_checklist(job) or is_leaving(job):
            continue
        if wanted is not None and job["metadata"]["name"] == wanted["metadata"]["name"]:
            if jobs.is_true(job, "Failed") and not _is_verdict(observed, job):
                yield job, "to try again"
        elif wanted is not None or not _is_kept(job, state):
            yield job, "superseded"


def _is_kept(job: Manifest, state: RolloutState) -> bool:
    return jobs.is_finished(job) and revision_of(job) in {state.checked, state.failed} - {None}


def _is_verdict(observed: Observed, job: Manifest) -> bool:
    """Whether a check failed; its pod is heard first, unless it is gone, as it may be known later than its Job."""
    ended = condition(job, "Failed")
    if ended is None or ended["status"] != "True" or ended.get("reason") != BY_POLICY:
        return False
    return not observed.pods_of(job) or any(end.code == FAILED for end in jobs.ends(observed, job))


def _last_word(observed: Observed, job: Manifest) -> str:
    """What the latest pod to end left behind."""
    latest = max(jobs.ends(observed, job), key=lambda end: end[:2], default=None)
    if latest is None:
        return ""
    if latest.report.get("reason") in REASONS:
        said = str(latest.report.get("message") or "").strip()
        return said if len(said) <= LONGEST else f"{said[:LONGEST]}…"
    return f"its pod ended with exit code {latest.code}: see `kubectl logs job/{job['metadata']['name']}`"
