"""A cluster as far as a rollout sees it: pods that get ready or don't, a status that is written, and a clock."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from supportfleet_operator.api import Provider, Rollout, RolloutStatus, Verdict
from supportfleet_operator.rollout import (
    Action,
    AnalysisResult,
    ChecklistResult,
    Decision,
    Inputs,
    RevisionView,
    RolloutState,
    decide,
    due,
    is_unchecked,
)
from supportfleet_operator.rollout.inputs import Scale

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ERRORS = {"metrics": [{"name": "errorRate", "max": 0.05}], "intervalSeconds": 10}


def rollout(**fields: Any) -> Rollout:
    """A spec.rollout, as YAML would give it."""
    return Rollout.model_validate(fields)


def canary(*steps: Any, **fields: Any) -> Rollout:
    """Steps in short.

    A number is a weight, one in brackets a mirror, a text seconds of pause, None a pause for a person, ... an analysis.
    """
    return rollout(strategy="Canary", steps=[_step(one) for one in steps], **fields)


def _step(one: Any) -> dict[str, Any]:
    if isinstance(one, int):
        return {"setWeight": one}
    if isinstance(one, list):
        return {"setMirror": one[0]}
    if one is ...:
        return {"analysis": {}}
    return {"pause": {"durationSeconds": int(one)} if one else {}}


def _read(status: dict[str, Any] | None) -> RolloutState:
    return RolloutState.from_status(RolloutStatus.model_validate(status) if status else None)


@dataclass
class World:
    """Reconciles a rollout, step by step."""

    spec: Rollout = field(default_factory=lambda: canary(10, "60", 50))
    provider: Provider = "Istio"
    sticky_seconds: int | None = None
    target: str = "r1"
    replicas: int = 4
    fewest: int | None = None
    """The autoscaler's minimum, where there is one."""
    suspended: bool = False
    now: dt.datetime = START
    status: dict[str, Any] | None = None
    """As the API server has it."""
    before: dict[str, Any] | None = None
    """As it was a write ago: what an operator sees whose watch is behind."""
    ready: dict[str, int] = field(default_factory=dict)
    scale: Mapping[str, Scale] = field(default_factory=dict)
    weights: Mapping[str, int] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    action: Action | None = None
    verdict: Verdict = "Pass"
    samples: int = 40
    checklist: Literal["Running", "Passed", "Failed"] = "Passed"
    """How the canary's checklist goes, once it has a pod to ask."""
    problem: str | None = None
    served: set[str] = field(default_factory=set)
    """Revisions that were stable once."""
    log: list[Decision] = field(default_factory=list)

    @property
    def state(self) -> RolloutState:
        return _read(self.status)

    def inputs(self) -> Inputs:
        self.known.setdefault(self.target, len(self.known) + 1)
        views = {
            name: RevisionView(
                name,
                desired=self.scale[name].min_replicas if name in self.scale else 0,
                ready=self.ready.get(name, 0),
                problem=self.problem if name == self.target else None,
                number=number,
            )
            for name, number in self.known.items()
        }
        return Inputs(
            now=self.now,
            target=self.target,
            rollout=self.spec,
            provider=self.provider,
            replicas_needed=self.replicas,
            min_replicas=self.replicas if self.fewest is None else self.fewest,
            revisions=views,
            checklist=self.checked(),
            action=self.action,
            suspended=self.suspended,
            sticky_seconds=self.sticky_seconds,
        )

    def checked(self) -> ChecklistResult | None:
        """What came of the canary's checklist, where it has one to pass."""
        state = self.state
        if self.spec.checklist is None or state.canary is None or not is_unchecked(state):
            return None
        if not self.ready.get(state.canary):
            return ChecklistResult(state.canary, "Running", "it is about to begin")
        said = "" if self.checklist == "Passed" else "models FAIL: HTTP 404"
        return ChecklistResult(state.canary, self.checklist, said)

    def measured(self, inputs: Inputs) -> Inputs:
        """With a measurement where one is due."""
        state, waits = self.state, due(self.state, inputs)
        if waits is None or waits > 0:
            return inputs
        verdict: Verdict = self.verdict if state.last_analysis_at or state.baseline else "Inconclusive"
        outcome = {"metric": "errorRate", "value": 0.5, "threshold": 0.05, "samples": self.samples, "verdict": verdict}
        status = RolloutStatus.model_validate({"lastAnalysis": [outcome]})
        result = AnalysisResult(
            at=self.now,
            canary=state.canary,
            step_started_at=state.step_started_at,
            outcomes=status.last_analysis or (),
            verdict=verdict,
            baseline={"@canary": {"scrapes": 1.0}},
        )
        return replace(inputs, analysis=result)

    def reconcile(
        self, crash: Literal["", "behind", "before writing", "after writing", "after traffic"] = ""
    ) -> Decision:
        """Decide, write, route, scale; or only as far as that.

        An operator that is behind decides on an older state, and the API server refuses all that comes of it.
        """
        if crash == "behind":
            return decide(_read(self.before), self.inputs())
        decision = decide(self.state, self.measured(self.inputs()))
        self.log.append(decision)
        if crash == "before writing":
            return decision
        self.before = self.status
        if decision.state.stable is not None:
            self.served.add(decision.state.stable)
        self.status = decision.state.to_status().model_dump(mode="json", by_alias=True, exclude_none=True)
        if crash == "after writing":
            return decision
        self.weights = decision.weights
        if crash == "after traffic":
            return decision
        self.scale = decision.scale
        self.ready = {
            name: min(count, self.scale[name].min_replicas) for name, count in self.ready.items() if name in self.scale
        }
        self.known = {name: number for name, number in self.known.items() if name in decision.keep}
        return decision

    def pods_follow(self) -> bool:
        """All pods that are wanted get ready; returns whether that changed any."""
        before = self.ready
        self.ready = {name: scale.min_replicas for name, scale in self.scale.items()}
        return self.ready != before

    def settle(self, *, pods: bool = True, rounds: int = 40) -> RolloutState:
        """Reconcile without letting time pass, until nothing moves."""
        for _ in range(rounds):
            if self.reconcile().requeue_after != 0 and not (pods and self.pods_follow()):
                return self.state
        raise AssertionError(f"never came to rest: {self.state}")

    def wait(self, seconds: float) -> RolloutState:
        """Let time pass, and settle."""
        self.now += dt.timedelta(seconds=seconds)
        return self.settle()

    def act(self, name: str, revision: str | None) -> RolloutState:
        """Ask for an action, and settle."""
        self.action = Action(name, revision or "", f"{name}-{len(self.log)}")
        return self.settle()

    def serve(self, target: str = "r1") -> World:
        """Bring the first revision up."""
        self.target = target
        self.settle()
        assert self.weights == {target: 100}
        return self

    def change(self, target: str) -> RolloutState:
        """Change the spec, and settle."""
        self.target = target
        return self.settle()
