"""Models that running pods take: which one they are told to load, and which they have loaded.

``NAME-model`` is written once the artifact's Job has verified it, and not before; until then it stays as it is. Pods
see a changed file within a minute or two. What they made of it is read from their own figures, and only while a change
is under way: a pod that starts later has loaded the model before it is ready.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from supportfleet_operator.api import MODEL_SYNCED, WORKER, Artifact, SupportAgent
from supportfleet_operator.cluster.resources import CONFIG_MAPS, Manifest
from supportfleet_operator.reconcile.observe import Observed, is_ready, layer_of, revision_of
from supportfleet_operator.reconcile.policies import model_sync
from supportfleet_operator.reconcile.policies.base import condition, parse_time
from supportfleet_operator.reconcile.policies.model_reasons import explain
from supportfleet_operator.reconcile.policies.model_sync import RELOAD_FAILED, RELOADING, Gate
from supportfleet_operator.reconcile.probes import Probe, targets
from supportfleet_operator.resources import MODEL_DIGEST
from supportfleet_operator.resources.model_job import model_job
from supportfleet_operator.resources.names import MODEL_FILE, model_pointer

SOONEST: Final = 2.0
LATEST: Final = 30.0
PATIENCE: Final = 10.0
"""Pods are asked less and less often: a tenth of the time that the change has taken so far."""
ASKED: Final = 1000
"""Pods whose figures are read, however many there are."""

_INFO: Final = "agent_model_info"
_FAILED: Final = "agent_model_reload_failed_info"
_OURS: Final = re.compile(rf"^(# (TYPE|HELP) )?({_INFO}|{_FAILED})\b")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What one pod says of its model."""

    digest: str | None = None
    refused: tuple[str, str] | None = None
    """Digest that it could not load, and why."""


def wanted_artifact(observed: Observed) -> Artifact | None:
    """The spec's model, where it is one that running pods take."""
    model = observed.desired.agent.spec.model if observed.desired else None
    return model.artifact if model is not None and model.hot else None


def artifact(observed: Observed, revisions: Iterable[str], now: dt.datetime) -> Artifact | None:
    """What pods are to load now: the spec's model once it is verified, and until then what they were told before."""
    wanted = wanted_artifact(observed)
    if wanted is None:
        return told(observed)
    agents = (observed.as_of(name) for name in revisions)
    verified = job_gate(observed, (agent for agent in agents if agent is not None), now)
    return wanted if verified.state == "Synced" else told(observed)


def job_gate(observed: Observed, agents: Iterable[SupportAgent], now: dt.datetime) -> Gate:
    """Where the spec's model is being verified: the Job of any revision that follows it is proof for all."""
    wanted = wanted_artifact(observed)
    models = [(agent, agent.spec.model) for agent in agents if agent.spec.model is not None and agent.spec.model.hot]
    gates = [
        model_sync.gate(observed, model_job(agent), model, now) for agent, model in models if model.artifact == wanted
    ]
    ended = [one for one in gates if one.state == "Synced"] + [one for one in gates if one.state == "Failed"]
    return next(iter([*ended, *gates]), Gate("NotNeeded"))


def told(observed: Observed) -> Artifact | None:
    """What pods are told to load; None where there is nothing that can be read."""
    if observed.desired is None:
        return None
    live = observed.child_named(CONFIG_MAPS.kind, model_pointer(observed.desired.agent))
    try:
        said = json.loads(((live or {}).get("data") or {}).get(MODEL_FILE, ""))
        return Artifact(said["uri"], said["version"], said["digest"])
    except (ValueError, TypeError, KeyError):
        return None


def probe(observed: Observed, now: dt.datetime) -> Probe | None:
    """Which pods to ask what they have loaded; None while that is known."""
    if not _is_under_way(observed):
        return None
    ports = {name: agent.spec.template.port for name, agent in _hot_agents(observed).items()}
    pods = {name: targets(_followers(observed, name), port, ASKED) for name, port in ports.items()}
    if not any(pods.values()):
        return None
    return Probe(about=told(observed), every=every(observed, now), pods=pods)


def every(observed: Observed, now: dt.datetime) -> float:
    """Seconds between two looks at the pods."""
    synced = condition(observed.agent, MODEL_SYNCED)
    since = parse_time(synced["lastTransitionTime"]) if synced and synced["status"] == "False" else None
    taken = (now - since).total_seconds() if since else 0.0
    return min(LATEST, max(SOONEST, taken / PATIENCE))


def gate(observed: Observed, verified: Gate, now: dt.datetime) -> Gate:
    """Where the model stands as people see it: verified, and then taken by the pods that run."""
    wanted = wanted_artifact(observed)
    if wanted is None or verified.state != "Synced":
        return verified
    again = every(observed, now)
    if told(observed) != wanted:
        return Gate("Running", RELOADING, f"pods are about to be told to load version {wanted.version!r}", again)
    if not _is_under_way(observed):
        return verified
    before = condition(observed.agent, MODEL_SYNCED)
    if observed.loading is None and before is not None and before["reason"] in {RELOADING, RELOAD_FAILED}:
        failed = before["reason"] == RELOAD_FAILED
        return Gate("Failed" if failed else "Running", before["reason"], before["message"], again)
    return _taken(observed, wanted, verified, again)


def _taken(observed: Observed, wanted: Artifact, verified: Gate, again: float) -> Gate:
    """How far pods are with it."""
    said, pods = _said(observed), _ready(observed)
    have, ready = _having(said, pods, wanted.digest), len(pods)
    refused = sorted(_refusals(said, wanted.digest))
    if refused:
        pod, why = refused[0]
        remedy = explain({"reason": why})[1]
        message = f"{remedy} ({why} in pod {pod!r}; {have} of {ready} pods run version {wanted.version!r})"
        return Gate("Failed", RELOAD_FAILED, message, again)
    if ready and have >= ready:
        return verified
    return Gate("Running", RELOADING, f"{have} of {ready} pods have loaded version {wanted.version!r}", again)


def loaded_pods(observed: Observed, digest: str) -> int:
    """Ready pods that have a model loaded: those that were made for it, and those that took it."""
    hot = _hot_agents(observed)
    made = [pod for pod in loading_pods(observed) if is_ready(pod) and revision_of(pod) not in hot]
    return sum(1 for pod in made if made_for(pod) == digest) + _took(observed, digest)


def loading_pods(observed: Observed) -> list[Manifest]:
    """Pods that load models: those that answer messages, which are the workers where a revision has layers."""
    layered = {name for name in {revision_of(pod) for pod in observed.agent_pods} if observed.is_layered(name)}
    reached = [pod for pod in observed.agent_pods if revision_of(pod) not in layered]
    return [*reached, *(pod for pod in observed.working_pods if layer_of(pod) == WORKER)]


def made_for(pod: Manifest) -> str | None:
    """The model that a pod cannot be without."""
    digest: str | None = (pod["metadata"].get("annotations") or {}).get(MODEL_DIGEST)
    return digest


def _took(observed: Observed, digest: str) -> int:
    """By their own word while a change is under way; else all, since a pod that starts loads it before it is ready."""
    if not _is_under_way(observed):
        return len(_ready(observed))
    return _having(_said(observed), _ready(observed), digest)


def _having(said: Mapping[str, Loaded], pods: Iterable[str], digest: str) -> int:
    return sum(1 for pod in pods if pod in said and said[pod].digest == digest)


def _said(observed: Observed) -> dict[str, Loaded]:
    """What pods say of their models."""
    return {pod: loaded(text) for pods in (observed.loading or {}).values() for pod, text in pods.items()}


def loaded(text: str) -> Loaded:
    """What a pod's figures say of its model; nothing where they cannot be read."""
    lines = "\n".join(line for line in text.splitlines() if _OURS.match(line)) + "\n"
    digest: str | None = None
    refused: tuple[str, str] | None = None
    try:
        for family in text_string_to_metric_families(lines):
            for sample in family.samples:
                if sample.name == _INFO and sample.value == 1:
                    digest = sample.labels.get("digest")
                elif sample.name == _FAILED and sample.value == 1:
                    refused = (sample.labels.get("digest", ""), sample.labels.get("reason", ""))
    except (ValueError, KeyError, IndexError, TypeError):  # whatever a parser may say to a text that is no exposition
        return Loaded()
    return Loaded(digest, refused)


def _is_under_way(observed: Observed) -> bool:
    """Whether it is not known yet that all pods have the model that they were told to load."""
    wanted = wanted_artifact(observed)
    if wanted is None or told(observed) != wanted:
        return False
    before = (observed.agent.get("status") or {}).get("model") or {}
    synced = condition(observed.agent, MODEL_SYNCED)
    return before.get("digest") != wanted.digest or synced is None or synced["status"] != "True"


def _hot_agents(observed: Observed) -> dict[str, SupportAgent]:
    """The agent as of each revision that has pods and takes models while they run."""
    names = {revision_of(pod) for pod in loading_pods(observed)}
    agents = {name: agent for name in sorted(names) if (agent := observed.as_of(name)) is not None}
    return {name: agent for name, agent in agents.items() if agent.spec.model is not None and agent.spec.model.hot}


def _followers(observed: Observed, revision: str) -> list[Manifest]:
    return [pod for pod in loading_pods(observed) if revision_of(pod) == revision]


def _ready(observed: Observed) -> list[str]:
    """Pods that are ready and take models while they run."""
    pods = [pod for name in _hot_agents(observed) for pod in _followers(observed, name)]
    return [str(pod["metadata"]["name"]) for pod in pods if is_ready(pod)]


def _refusals(said: Mapping[str, Loaded], digest: str) -> Iterator[tuple[str, str]]:
    """Pods that could not load an artifact, and why."""
    for pod, one in said.items():
        if one.refused is not None and one.refused[0] == digest:
            yield pod, one.refused[1]
