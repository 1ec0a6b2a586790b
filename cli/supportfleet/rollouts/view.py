"""What is to be seen of an agent's rollout: one value, the same for people and for programs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from supportfleet.rollouts.api import Object
from supportfleet.rollouts.watching import Facts

Role = Literal["stable", "canary", "retiring", "failed", "undone", "previous", "kept"]
StepState = Literal["done", "current", "waiting"]

SERVING: Final[tuple[Role, ...]] = ("stable", "canary", "retiring")
FULL: Final = 100
PROGRESSING: Final = "Progressing"
"""The condition that only says whether a rollout moves, which is nothing bad either way."""
LIMITS: Final = ("max", "min", "maxIncreaseOverStable")


class Seen(BaseModel):
    """A part of what is seen."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True, populate_by_name=True)

    def to_json(self) -> dict[str, Any]:
        """The same for programs: in camelCase, without what is unknown."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Layer(Seen):
    """One layer of a revision, behind the pods that customers reach."""

    name: str
    ready: int = 0
    desired: int = 0


class Revision(Seen):
    """One revision, and what runs of it."""

    name: str
    number: int | None = None
    """Revisions count up: the newest has the highest."""
    role: Role
    weight: int = 0
    """Percent of the traffic."""
    ready: int = 0
    desired: int = 0
    layers: tuple[Layer, ...] | None = None
    image: str | None = None
    model_version: str | None = None
    model_digest: str | None = None
    created_at: dt.datetime | None = None
    retired_at: dt.datetime | None = None
    """Since when it has no traffic, while it keeps its pods."""


class Step(Seen):
    """One step of the rollout."""

    step: dict[str, Any]
    """As in spec.rollout.steps."""
    state: StepState
    ends_at: dt.datetime | None = None
    """When the pause of the current step is over; absent where a person or a verdict ends it."""


class Figure(Seen):
    """One figure of the newest measurement, against its limits."""

    metric: str
    verdict: str
    value: float | None = None
    limits: dict[str, float] = {}
    """max, min and maxIncreaseOverStable, as the spec sets them."""
    stable: float | None = None
    samples: int | None = None
    message: str | None = None


class Condition(Seen):
    """One condition of the agent."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


class AgentView(Seen):
    """One agent, its revisions, and how far its rollout is."""

    name: str
    namespace: str
    ready: bool
    stalled: bool
    observed: bool
    """Whether the operator has seen the newest spec."""
    strategy: str
    provider: str
    phase: str | None = None
    """What the rollout is doing."""
    reason: str | None = None
    message: str | None = None
    stable_revision: str | None = None
    canary_revision: str | None = None
    weight: int | None = None
    """Percent of the traffic for the canary."""
    mirror: int | None = None
    """Percent of the requests that are copied to the canary."""
    revisions: tuple[Revision, ...] = ()
    steps: tuple[Step, ...] = ()
    analysis: tuple[Figure, ...] = ()
    analysed_at: dt.datetime | None = None
    analysis_failures: int | None = None
    failure_limit: int | None = None
    conditions: tuple[Condition, ...] = ()


def view(facts: Facts) -> AgentView:
    """An agent as it is to be seen."""
    agent = facts.agent
    meta, spec, status = agent["metadata"], agent.get("spec") or {}, agent.get("status") or {}
    rollout, state = spec.get("rollout") or {}, status.get("rollout") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    moving = state.get("canaryRevision")
    return AgentView(
        name=meta["name"],
        namespace=meta.get("namespace", ""),
        ready=conditions.get("Ready", {}).get("status") == "True",
        stalled=conditions.get("Stalled", {}).get("status") == "True",
        observed=status.get("observedGeneration") == meta.get("generation"),
        strategy=rollout.get("strategy", "Rolling"),
        provider=(spec.get("traffic") or {}).get("provider", "None"),
        phase=state.get("phase"),
        reason=state.get("reason"),
        message=state.get("message"),
        stable_revision=state.get("stableRevision"),
        canary_revision=moving,
        weight=state.get("currentWeight", 0) if moving else None,
        mirror=state.get("currentMirror") or None,
        revisions=tuple(revisions(facts)),
        steps=tuple(_steps(rollout, state)),
        analysis=tuple(_figures(rollout, state)),
        analysed_at=state.get("lastAnalysisAt"),
        analysis_failures=state.get("analysisFailures"),
        failure_limit=(rollout.get("analysis") or {}).get("failureLimit"),
        conditions=tuple(_condition(one) for one in conditions.values()),
    )


def revisions(facts: Facts) -> Iterator[Revision]:
    """Every revision that is known, those that serve first, then the newest."""
    state = (facts.agent.get("status") or {}).get("rollout") or {}
    named = [state.get("stableRevision"), state.get("canaryRevision"), *(state.get("retiring") or {})]
    known = [name for name in [*named, *reversed(facts.revisions), *facts.deployments] if name]
    for name in dict.fromkeys(known):
        yield _revision(name, facts, state)


def _revision(name: str, facts: Facts, state: Mapping[str, Any]) -> Revision:
    kept, deployment = facts.revisions.get(name) or {}, facts.deployments.get(name) or {}
    parts = (kept.get("data") or {}).get("spec") or {}
    model = parts.get("model") or {}
    # Where pods reload hot, the model is none of the revision's: the revision that serves has the status's.
    serving = (facts.agent.get("status") or {}).get("model") or {} if model.get("reload") == "Hot" else {}
    return Revision(
        name=name,
        number=kept.get("revision"),
        role=_role(name, state),
        weight=_weight(name, state),
        ready=_ready(deployment),
        desired=_desired(deployment),
        layers=_layers(name, facts),
        image=(parts.get("template") or {}).get("image") or _image(deployment),
        model_version=serving.get("version") or model.get("version"),
        model_digest=serving.get("digest") or model.get("digest"),
        created_at=(kept or deployment).get("metadata", {}).get("creationTimestamp"),
        retired_at=(state.get("retiring") or {}).get(name),
    )


def _layers(revision: str, facts: Facts) -> tuple[Layer, ...] | None:
    """The layers of a revision; None where one Deployment does it all."""
    found = {name: own[revision] for name, own in facts.layers.items() if revision in own}
    return tuple(Layer(name=name, ready=_ready(one), desired=_desired(one)) for name, one in found.items()) or None


def _ready(deployment: Object) -> int:
    return int((deployment.get("status") or {}).get("readyReplicas", 0))


def _desired(deployment: Object) -> int:
    return int((deployment.get("spec") or {}).get("replicas", 0))


def _image(deployment: Object) -> str | None:
    pods = deployment.get("spec", {}).get("template", {}).get("spec", {})
    image: str | None = next((one.get("image") for one in pods.get("containers") or ()), None)
    return image


def _role(name: str, state: Mapping[str, Any]) -> Role:
    """What a revision is; one that is several things is the first of them."""
    roles: tuple[tuple[Role, Any], ...] = (
        ("stable", state.get("stableRevision")),
        ("canary", state.get("canaryRevision")),
        ("failed", state.get("failedRevision")),
        ("undone", state.get("undoneRevision")),
    )
    by_name = next((role for role, named in roles if named == name), None)
    if by_name is not None:
        return by_name
    if name in (state.get("retiring") or {}):
        return "retiring"
    return "previous" if name == state.get("previousRevision") else "kept"


def _weight(name: str, state: Mapping[str, Any]) -> int:
    stable, canary = state.get("stableRevision"), state.get("canaryRevision")
    moved: int = state.get("currentWeight", 0) if canary and stable else 0
    return {canary: moved, stable: FULL - moved}.get(name, 0) if stable else 0


def _steps(rollout: Mapping[str, Any], state: Mapping[str, Any]) -> Iterator[Step]:
    """The steps of a rollout that goes on: going back to an earlier revision has none."""
    stable, canary = state.get("stableRevision"), state.get("canaryRevision")
    if not canary or not stable or state.get("undoneRevision") == stable:
        return
    current = state.get("currentStep", 0)
    for number, step in enumerate(rollout.get("steps") or ()):
        done = number < current or state.get("phase") == "Promoting"
        now = number == current and not done
        yield Step(
            step=step,
            state="done" if done else "current" if now else "waiting",
            ends_at=_ends_at(step, state) if now else None,
        )


def _ends_at(step: Mapping[str, Any], state: Mapping[str, Any]) -> dt.datetime | None:
    """When a pause is over, while it runs."""
    seconds, began = (step.get("pause") or {}).get("durationSeconds"), state.get("stepStartedAt")
    if seconds is None or began is None or state.get("reason") in {"PausedByAction", "PausedBySpec"}:
        return None
    return dt.datetime.fromisoformat(began) + dt.timedelta(seconds=seconds)


def _figures(rollout: Mapping[str, Any], state: Mapping[str, Any]) -> Iterator[Figure]:
    asked = {one["name"]: one for one in (rollout.get("analysis") or {}).get("metrics") or ()}
    for one in state.get("lastAnalysis") or ():
        limits = {limit: asked[one["metric"]][limit] for limit in LIMITS if limit in asked.get(one["metric"], {})}
        yield Figure(
            metric=one["metric"],
            verdict=one["verdict"],
            value=one.get("value"),
            limits=limits,
            stable=one.get("stable"),
            samples=one.get("samples"),
            message=one.get("message"),
        )


def _condition(one: Mapping[str, Any]) -> Condition:
    return Condition(
        type=one["type"], status=one["status"], reason=one.get("reason", ""), message=one.get("message", "")
    )


def troubles(agent: AgentView) -> list[Condition]:
    """The conditions that are not as they should be; one for each thing that is said and is not the rollout's own."""
    bad = [one for one in agent.conditions if (one.status == "True") == (one.type in {"Stalled", "Reconciling"})]
    said: dict[str, Condition] = {}
    for one in bad:
        if one.type != PROGRESSING and one.message != agent.message:
            said.setdefault(one.message or one.type, one)
    return list(said.values())
