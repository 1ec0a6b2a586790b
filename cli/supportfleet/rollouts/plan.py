"""What an edited SupportAgent would change, before it does: from the API server's answer to a dry run.

The dry run says what the object would be, with defaults and the fields of other writers, or why it is refused. What
follows from that, such as a new revision, is told from the fields that differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from supportfleet.rollouts.api import Object
from supportfleet.rollouts.revisions import LAYERS, changes_behaviour, fingerprint, is_unresolved, resolved, same_as
from supportfleet.rollouts.steps import least_seconds, waits_for_person
from supportfleet.rollouts.view import Seen
from supportfleet.rollouts.watching import Facts

Verb = Literal["create", "change", "none", "refused"]


class Change(Seen):
    """One field that differs."""

    path: str
    before: Any = None
    after: Any = None


class Problem(Seen):
    """One thing for which the API server refuses the object."""

    path: str = ""
    message: str


class Plan(Seen):
    """What would come of an object."""

    name: str
    namespace: str
    verb: Verb
    problems: tuple[Problem, ...] = ()
    """Why it is refused."""
    changes: tuple[Change, ...] = ()
    new_revision: bool = False
    """Whether another revision than that of the spec before is asked for."""
    revision: str | None = None
    """The revision that is asked for, where it is one that is known."""
    because: tuple[str, ...] = ()
    """The fields that make it another revision."""
    rollout: str = ""
    """What comes of the revision, in a sentence."""
    steps: tuple[dict[str, Any], ...] = ()
    """The steps that follow."""
    least_seconds: float | None = None
    """The time that the steps take at least, beside that of pods to get ready and of people to answer."""
    people: int = 0
    """How often a step waits for a person."""
    effects: tuple[str, ...] = ()
    """What takes effect at once, without a rollout."""
    stable: str = ""
    """What becomes of the revision that serves."""
    notes: tuple[str, ...] = ()
    """What else is worth knowing."""


def refused(name: str, namespace: str, message: str, causes: Sequence[Mapping[str, Any]] = ()) -> Plan:
    """The plan of an object that the API server does not take."""
    problems = tuple(Problem(path=one.get("field") or "", message=one.get("message") or "") for one in causes)
    return Plan(name=name, namespace=namespace, verb="refused", problems=problems or (Problem(message=message),))


def plan(before: Facts | None, after: Object, notes: Sequence[str] = ()) -> Plan:
    """What would come of an object that the API server takes; ``before`` is None for a new one."""
    name, namespace = after["metadata"]["name"], after["metadata"].get("namespace", "")
    if before is None:
        return Plan(name=name, namespace=namespace, verb="create", notes=tuple(notes), **_first(after["spec"]))
    changes = tuple(_changes(before.agent, after))
    if not changes:
        return Plan(name=name, namespace=namespace, verb="none", notes=tuple(notes))
    old, new = before.agent["spec"], after["spec"]
    return Plan(
        name=name,
        namespace=namespace,
        verb="change",
        changes=changes,
        effects=tuple(_effects(changes, new)),
        notes=tuple(notes),
        **(_another(before, changes, new) if _differs(old, new, before) else _same(before, changes)),
    )


def _differs(old: Mapping[str, Any], new: Mapping[str, Any], before: Facts) -> bool:
    status = before.agent.get("status")
    return fingerprint(resolved(old, status)) != fingerprint(resolved(new, status))


def _first(spec: Mapping[str, Any]) -> dict[str, Any]:
    rollout = "the first revision takes over as soon as its pods are ready, with no steps"
    if spec.get("suspend"):
        rollout = "nothing runs while spec.suspend is set"
    return {"new_revision": True, "rollout": rollout, "least_seconds": 0.0}


def _same(before: Facts, changes: Sequence[Change]) -> dict[str, Any]:
    state = _state(before)
    rollout = "no new revision: no pod is replaced"
    failed = state.get("failedRevision") or state.get("undoneRevision")
    if failed:
        rollout += f"; {failed} stays rolled back until its fields change or somebody asks for a retry"
    elif canary := state.get("canaryRevision"):
        rollout += f"; the rollout of {canary} goes on"
        if any(one.path.startswith("spec.rollout.steps") for one in changes):
            rollout += f", at step {state.get('currentStep', 0) + 1} of the new list"
    return {"rollout": rollout, "stable": _stable_stays(state) if state.get("canaryRevision") else ""}


def _another(before: Facts, changes: Sequence[Change], spec: Mapping[str, Any]) -> dict[str, Any]:
    state = _state(before)
    because = tuple(one.path for one in _each(changes) if changes_behaviour(one.path))
    wanted = resolved(spec, before.agent.get("status"))
    revision = None if is_unresolved(wanted) else same_as(wanted, before.revisions)
    stable, canary = state.get("stableRevision"), state.get("canaryRevision")
    told: dict[str, Any] = {"new_revision": True, "revision": revision, "because": because}
    discarded = f"; the rollout of {canary}, at {state.get('currentWeight', 0)} %, ends" if canary and stable else ""
    if revision is not None and revision == stable:
        return told | {"rollout": f"back to {stable}, which is stable: no steps{discarded}", "least_seconds": 0.0}
    name = f"{revision}, which is kept," if revision else "a new revision"
    told["stable"] = _stable_stays(state)
    if spec.get("suspend"):
        return told | {"rollout": f"{name} waits: nothing runs while spec.suspend is set"}
    if not stable:
        return told | {"rollout": f"{name} takes over once its pods are ready, with no steps", "least_seconds": 0.0}
    if not _runs_pods(spec):
        return told | {"rollout": f"{name} takes over at once: there are no replicas to try it on{discarded}"}
    return told | _steps(spec, name, discarded)


def _steps(spec: Mapping[str, Any], name: str, discarded: str) -> dict[str, Any]:
    rollout = spec.get("rollout") or {}
    strategy, steps = rollout.get("strategy", "Rolling"), tuple(rollout.get("steps") or ())
    interval = (rollout.get("analysis") or {}).get("intervalSeconds") if rollout.get("analysis") else None
    how = {
        "Rolling": "takes over as its pods get ready",
        "BlueGreen": "comes up at full size with no traffic, then gets all of it",
    }.get(strategy, "comes up beside the stable one and goes through the steps")
    held = "; held at once, since spec.rollout.paused is set" if rollout.get("paused") else ""
    return {
        "rollout": f"{name} {how} ({strategy}){held}{discarded}",
        "steps": steps,
        "least_seconds": least_seconds(steps, interval, always_measured=strategy == "ABTest"),
        "people": sum(waits_for_person(step) for step in steps),
    }


def _runs_pods(spec: Mapping[str, Any]) -> bool:
    return bool(spec.get("autoscaling")) or spec.get("replicas", 1) > 0


def _stable_stays(state: Mapping[str, Any]) -> str:
    stable = state.get("stableRevision")
    return f"{stable} keeps its pods and its autoscaler until the rollout is over" if stable else ""


def _state(facts: Facts) -> Mapping[str, Any]:
    state: Mapping[str, Any] = (facts.agent.get("status") or {}).get("rollout") or {}
    return state


AT_ONCE: Final[Mapping[str, str]] = {
    "autoscaling": "the autoscaler of each revision that runs changes; no pod is replaced",
    "availability": "the PodDisruptionBudget changes; no pod is replaced",
    "networkPolicy": "the NetworkPolicy changes for the pods of all revisions",
    "service": "the Services change; no pod is replaced",
    "tools": "the pods of the tools layer become more or fewer; none is replaced",
    "traffic": "the routes change at once, for a rollout in progress too",
    "worker": "the pods of the worker layer become more or fewer; none is replaced",
    "rollout": "holds from the next step on, for a rollout in progress too",
}
"""What a change of a field outside of revisions does."""


def _effects(changes: Sequence[Change], spec: Mapping[str, Any]) -> Iterator[str]:
    """What takes effect without a rollout, once for each field."""
    fields = dict.fromkeys(_part(one.path) for one in _each(changes) if _is_at_once(one))
    for field in fields:
        if field == "replicas":
            scaled = "nothing changes: spec.autoscaling decides" if spec.get("autoscaling") else _pods(spec)
            yield f"spec.replicas: {scaled}"
        elif field == "suspend":
            yield f"spec.suspend: {'all pods stop' if spec.get('suspend') else 'pods start again'}"
        elif field in AT_ONCE:
            yield f"spec.{field}: {AT_ONCE[field]}"
    model = spec.get("model") or {}
    if "model" in fields and model.get("reload") == "Hot":
        yield "spec.model: pods that run load the new model once it is verified, and no pod is replaced (reload: Hot)"
    if "model" in fields and is_unresolved(spec):
        yield f"spec.model: what channel {model['channel']!r} points at decides about a new revision"


def _each(changes: Sequence[Change]) -> Iterator[Change]:
    """The same, a layer that is new or gone by its fields: some change its pods, and others their number."""
    for one in changes:
        if one.path.removeprefix("spec.") in LAYERS:
            yield from differences(one.path, one.before or {}, one.after or {})
        else:
            yield one


def _is_at_once(change: Change) -> bool:
    """Whether a change may have an effect without a rollout: one of a layer's pods themselves has none."""
    return _part(change.path) not in LAYERS or not changes_behaviour(change.path)


def _pods(spec: Mapping[str, Any]) -> str:
    return f"the stable revision has {spec.get('replicas', 1)} pods, and none of the others is replaced"


def _part(path: str) -> str:
    """The field of the spec that a path leads through."""
    parts = path.replace("[", ".").split(".")
    return parts[1] if parts[0] == "spec" and len(parts) > 1 else ""


def _changes(before: Object, after: Object) -> Iterator[Change]:
    """Fields that differ, of the spec and of what people write in the metadata."""
    yield from differences("spec", before.get("spec") or {}, after.get("spec") or {})
    for field in ("labels", "annotations"):
        old, new = ((one["metadata"].get(field) or {}) for one in (before, after))
        unseen = {"kubectl.kubernetes.io/last-applied-configuration"}
        kept = ({key: value for key, value in one.items() if key not in unseen} for one in (old, new))
        yield from differences(f"metadata.{field}", *kept)


def differences(path: str, before: Any, after: Any) -> Iterator[Change]:
    """Where two values differ: by key in maps, by name in lists whose items have one, else as a whole."""
    if before == after and type(before) is type(after):
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            inner = f"{path}[{key}]" if "." in key or "/" in key else f"{path}.{key}"
            yield from differences(inner, before.get(key), after.get(key))
    elif (old := _by_name(before)) is not None and (new := _by_name(after)) is not None and old.keys() == new.keys():
        for name in old:
            yield from differences(f"{path}[{name}]", old[name], new[name])
        if list(old) != list(new):
            yield Change(path=path, before=list(old), after=list(new))
    else:
        yield Change(path=path, before=before, after=after)


def _by_name(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, list) or not all(isinstance(one, dict) and "name" in one for one in value):
        return None
    named = {one["name"]: one for one in value}
    return named if len(named) == len(value) else None
