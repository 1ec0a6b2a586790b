"""Following a channel: one Job after the other asks the bucket where it points, and the status remembers the answer.

What was resolved last is kept in ``status.model`` and holds until a look finds something else: an agent is rendered as
if its spec had named that version, so a channel that moves is a change like any other, and a bucket that is away
changes nothing. The newest Job stays until the next look is due: it tells when was looked, and how often in vain, so
a look that finds nothing new costs no write beside its Job's own. Agents with no answer yet go on as their stable
revision was; those that have none wait.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from supportfleet_operator.api import GROUP
from supportfleet_operator.api.model import VERSION
from supportfleet_operator.cluster.resources import JOBS, Manifest, ObjectRef, ref_of
from supportfleet_operator.reconcile.desired import Desired, resolution, stamp, stamped
from supportfleet_operator.reconcile.observe import Observed, is_leaving
from supportfleet_operator.reconcile.policies import jobs
from supportfleet_operator.reconcile.policies.base import condition, parse_time
from supportfleet_operator.reconcile.policies.model_reasons import explain
from supportfleet_operator.reconcile.policies.model_sync import RESOLVING, Gate
from supportfleet_operator.resources import channel_job

FAILURES: Final = f"{GROUP}/failures"
"""Annotation of a channel's Job: how many looks before it were in vain."""
SOONEST: Final = 10.0
LATEST: Final = 300.0
REPORT_PATIENCE: Final = 10.0
"""Seconds that the end of a Job may be known before that of its pod is."""

INVALID: Final = "InvalidPointer"
LOST: Final = "NoReport"
NOT_FOUND: Final = "NotFound"

_NUMBER: Final = re.compile(r"-channel-([0-9]+)$")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where a channel points."""

    channel: str
    version: str
    digest: str
    at: str
    """When it answered."""


@dataclass(frozen=True, slots=True)
class Following:
    """Where following a channel stands, and what to do for it."""

    pointer: Pointer | None = None
    """What the newest look found."""
    trouble: tuple[str, str] | None = None
    """Reason and message, where it was in vain."""
    job: Manifest | None = None
    """The next look, when it is due."""
    obsolete: tuple[Manifest, ...] = ()
    """Jobs that are of no use any more."""
    again: float | None = None
    """Seconds until the next look is due."""


NOTHING: Final = Following()


def follow(observed: Observed, now: dt.datetime) -> Following:
    """What to do for the agent's channel; whoever follows none has no Jobs for it."""
    desired = observed.desired
    jobs = sorted((job for job in observed.jobs if is_look(job) and not is_leaving(job)), key=_number)
    if desired is None:
        return NOTHING
    model = desired.source.spec.model
    if model is None or model.channel is None or desired.source.spec.suspend:
        return Following(obsolete=tuple(jobs))
    newest = jobs[-1] if jobs else None
    if newest is None or stamp(newest) != stamp(_job(desired, _number(newest), _failures(newest))):
        number = _number(newest) + 1 if newest else 1
        return Following(job=_job(desired, number, 0), obsolete=tuple(jobs))
    found = _look(observed, newest, model.channel, now)
    if found.pointer is None and found.trouble is None:  # under way: the look before it still says how things are
        before = _look(observed, jobs[-2], model.channel, now) if len(jobs) > 1 else NOTHING
        return Following(trouble=before.trouble, obsolete=tuple(jobs[:-2]), again=found.again)
    if found.again is None or found.again > 0:
        return replace(found, obsolete=tuple(jobs[:-1]))
    failures = _failures(newest) + 1 if found.trouble else 0
    return replace(found, job=_job(desired, _number(newest) + 1, failures), obsolete=tuple(jobs[:-1]), again=None)


def is_look(job: Manifest) -> bool:
    """Whether a Job is a look at a channel."""
    return is_look_ref(ref_of(job))


def is_look_ref(ref: ObjectRef) -> bool:
    """Whether a child is one: they come and go with every poll, which is no news."""
    return ref.kind == JOBS.kind and _NUMBER.search(ref.name) is not None


def gate(desired: Desired, following: Following) -> Gate:
    """What an agent waits for whose channel has never answered."""
    channel = desired.source.spec.model.channel if desired.source.spec.model else None
    if following.trouble is None:
        return Gate("Running", RESOLVING, f"spec.model.channel: finding out where {channel!r} points")
    return Gate("Failed", *following.trouble, following.again)


def status_fields(observed: Observed, following: Following) -> dict[str, Any]:
    """What ``status.model`` says of the channel: the newest answer, and when it was first given."""
    before = (observed.agent.get("status") or {}).get("model") or {}
    known = {name: before.get(name) for name in ("channel", "channelVersion", "channelDigest", "channelCheckedAt")}
    if not follows(observed.desired):
        return {}
    found = following.pointer
    if found is None:
        return known
    said = {"channel": found.channel, "channelVersion": found.version, "channelDigest": found.digest}
    return known if said.items() <= known.items() else {**said, "channelCheckedAt": found.at}


def follows(desired: Desired | None) -> bool:
    """Whether the spec names a channel."""
    model = desired.source.spec.model if desired else None
    return model is not None and model.channel is not None


def is_news(observed: Observed, following: Following) -> bool:
    """Whether the channel points elsewhere than the agent was rendered for."""
    found = following.pointer
    return found is not None and (found.version, found.digest) != resolution(observed.agent)


def _look(observed: Observed, job: Manifest, channel: str, now: dt.datetime) -> Following:
    """What came of a look, and when the next is due."""
    model = observed.desired.source.spec.model if observed.desired else None
    poll = float(model.channel_poll_seconds) if model else LATEST
    for kind in ("Complete", "Failed"):
        ended = condition(job, kind)
        if ended is None or ended["status"] != "True":
            continue
        at = parse_time(ended.get("lastTransitionTime")) or now
        passed = (now - at).total_seconds()
        report = _report(observed, job)
        if report is None and passed < REPORT_PATIENCE:
            return Following(again=REPORT_PATIENCE - passed)
        if kind == "Complete" and (pointer := _pointer(report or {}, channel, at)):
            return Following(pointer, again=poll - passed)
        wait = min(LATEST, max(poll, SOONEST), SOONEST * 2.0 ** min(_failures(job), 10))
        return Following(trouble=_trouble(report, kind, channel), again=wait - passed)
    return NOTHING


def _report(observed: Observed, job: Manifest) -> Mapping[str, Any] | None:
    """The last word of the Job's pod; None while there is none."""
    return next((end.report for end in jobs.ends(observed, job) if end.report), None)


def _pointer(report: Mapping[str, Any], channel: str, at: dt.datetime) -> Pointer | None:
    """What the bucket says goes into pods' environment and into names, so it must be what the API allows."""
    version, digest = report.get("version"), report.get("digest")
    if not isinstance(version, str) or not isinstance(digest, str):
        return None
    if re.fullmatch(VERSION, version, re.ASCII) is None or _DIGEST.fullmatch(digest) is None:
        return None
    return Pointer(channel, version, digest, at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))


def _trouble(report: Mapping[str, Any] | None, kind: str, channel: str) -> tuple[str, str]:
    if report is None:
        return LOST, f"spec.model.channel: the look at {channel!r} left no report: see the events of its Job"
    if kind == "Complete":
        return INVALID, f"spec.model.channel: {channel!r} points at no version and digest: publish to it again"
    if report.get("reason") == NOT_FOUND:
        return NOT_FOUND, (
            f"spec.model.channel: there is no channel {channel!r} below spec.model.uri: publish a model to it, "
            "or name another"
        )
    return explain(report)


def _job(desired: Desired, number: int, failures: int) -> Manifest:
    manifest = channel_job(desired.source, number)
    metadata = manifest["metadata"]
    annotations = (metadata.get("annotations") or {}) | {FAILURES: str(failures)}
    return stamped(manifest | {"metadata": metadata | {"annotations": annotations}})


def _number(job: Manifest) -> int:
    found = _NUMBER.search(job["metadata"]["name"])
    return int(found.group(1)) if found else 0


def _failures(job: Manifest) -> int:
    said = str((job["metadata"].get("annotations") or {}).get(FAILURES, ""))
    return int(said) if said.isdigit() else 0
