"""What a rollout wants to be told from outside before it decides: which pods to ask, and what to ask Prometheus."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Final

from supportfleet_operator.api import TOOLS, WORKER
from supportfleet_operator.cluster.scraper import Target
from supportfleet_operator.reconcile import rollouts
from supportfleet_operator.reconcile.observe import Observed, layer_of, revision_of
from supportfleet_operator.reconcile.probes import Probe, targets
from supportfleet_operator.rollout import due, queries, scraped

MEASURED: Final = 32
"""Pods of one revision whose figures are read: enough for a verdict, however many there are."""
OLD: Final = 5.0
"""Seconds after which findings that could not be decided upon, since the API server was away, are replaced."""


def probe(observed: Observed, now: dt.datetime) -> Probe | None:
    """What the decision wants to know now; None while it wants nothing."""
    desired = observed.desired
    if desired is None or not desired.revision:
        return None
    state = rollouts.state_of(observed.agent)
    inputs = rollouts.inputs(observed, desired, state, now)
    wait, analysis = due(state, inputs), inputs.rollout.analysis
    if wait is None or wait > 0 or analysis is None:
        return None
    metadata = desired.agent.metadata
    asked = queries(state, inputs.rollout, metadata.name, metadata.namespace)
    return Probe(
        about=(state.stable, state.canary, state.step_started_at, state.last_analysis_at, asked),
        every=OLD,
        pods={name: _targets(observed, name) for name in scraped(state, inputs.rollout)},
        queries=asked,
        prometheus=analysis.prometheus,
    )


def _targets(observed: Observed, revision: str) -> Mapping[str, Target]:
    """Pods of a revision that count: gateways count requests, workers answers, and who is both counts both.

    Some figures divide what one counts by what the other does, so where there are more pods than are read, as large a
    share of each is.
    """
    agent = observed.as_of(revision)
    if agent is None:
        return {}
    own = [pod for pod in observed.working_pods if revision_of(pod) == revision and layer_of(pod) != TOOLS]
    workers = [pod for pod in own if layer_of(pod) == WORKER]
    gateways = [pod for pod in own if layer_of(pod) is None]
    shared = of_workers(len(gateways), len(workers), MEASURED)
    port = agent.spec.template.port
    return {**targets(gateways, port, MEASURED - shared), **targets(workers, port, shared)}


def of_workers(gateways: int, workers: int, most: int) -> int:
    """How many of the pods that are read are workers: their share, but one of each sort that there is."""
    if gateways + workers <= most or not gateways or not workers:
        return workers
    return max(1, min(most - 1, round(most * workers / (gateways + workers))))
