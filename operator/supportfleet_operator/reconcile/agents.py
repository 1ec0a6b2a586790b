"""The SupportAgents as kopf's watch tells of them, each rendered once for every generation of its spec.

Rendering waits until a worker asks for the agent: an error in it is then that agent's, and is logged and retried like
any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from supportfleet_operator.api import GROUP, InvalidSupportAgentError, Problem
from supportfleet_operator.cluster.resources import AgentKey
from supportfleet_operator.reconcile.desired import Desired, read, resolution
from supportfleet_operator.rollout import action_of

ACTION: Final = f"{GROUP}/action"
"""How the annotations begin by which people ask something of a rollout."""
SHIFTING: Final = frozenset({"Stepping", "Paused", "Promoting", "Aborting"})
"""Phases of a rollout in which a canary has requests, or has just lost them."""


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent as the API server has it, and what it should become."""

    raw: Mapping[str, Any]
    desired: Desired | None
    """None for a spec that is not valid."""
    problems: tuple[Problem, ...] = ()

    @property
    def uid(self) -> str:
        """The agent's uid."""
        return str(self.raw["metadata"]["uid"])

    @property
    def generation(self) -> int:
        """What changes with the spec."""
        return int(self.raw["metadata"].get("generation", 0))

    @property
    def is_leaving(self) -> bool:
        """Whether the agent is being deleted."""
        return bool(self.raw["metadata"].get("deletionTimestamp"))


class Agents:
    """The agents by key."""

    def __init__(self) -> None:
        self._raw: dict[AgentKey, Mapping[str, Any]] = {}
        self._rendered: dict[AgentKey, Agent] = {}

    def __len__(self) -> int:
        return len(self._raw)

    def __iter__(self) -> Iterator[AgentKey]:
        return iter(self._raw)

    def get(self, key: AgentKey) -> Agent | None:
        """The agent, rendered, or None."""
        raw = self._raw.get(key)
        if raw is None:
            return None
        known = self._rendered.get(key)
        if known is None or _identity(known.raw) != _identity(raw):
            known = _render(raw)
            self._raw[key] = known.raw
        elif known.raw is not raw:
            known = Agent(raw, known.desired, known.problems)
        self._rendered[key] = known
        return known

    def put(self, raw: Mapping[str, Any]) -> AgentKey:
        """Take a newer state of an agent; an older one changes nothing."""
        metadata = raw["metadata"]
        key = AgentKey(metadata["namespace"], metadata["name"])
        known = self._raw.get(key)
        if known is None or _is_newer(metadata, known["metadata"]):
            rendered = self._rendered.get(key)
            same = rendered is not None and _identity(rendered.raw) == _identity(raw)
            self._raw[key] = _slim(raw) if same else raw
        return key

    def remove(self, key: AgentKey, uid: str) -> bool:
        """An agent is gone; False where another of the same name has come meanwhile."""
        known = self._raw.get(key)
        if known is None or known["metadata"]["uid"] != uid:
            return False
        del self._raw[key]
        self._rendered.pop(key, None)
        return True

    def is_urgent(self, key: AgentKey) -> bool:
        """Whether requests of customers, or a person, depend on how soon the agent is looked at."""
        raw = self._raw.get(key)
        if raw is None:
            return False
        state = (raw.get("status") or {}).get("rollout") or {}
        action = action_of(raw["metadata"].get("annotations"))
        asked = action is not None and action.id != state.get("lastActionId")
        undoing = state.get("undoneRevision") is not None and state.get("canaryRevision") is not None
        return bool(state.get("stableRevision")) and (asked or undoing or state.get("phase") in SHIFTING)

    def rollouts(self) -> Counter[str]:
        """How many agents' rollouts are in each phase."""
        states = ((raw.get("status") or {}).get("rollout") or {} for raw in self._raw.values())
        return Counter(str(state.get("phase") or "Unknown") for state in states)

    def phases(self) -> Counter[str]:
        """How many agents are in each phase."""
        return Counter((raw.get("status") or {}).get("phase") or "Unknown" for raw in self._raw.values())


def _identity(raw: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a rendering depends on: the spec, and where its channel points."""
    return raw["metadata"]["uid"], int(raw["metadata"].get("generation", 0)), resolution(raw)


def _is_newer(metadata: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    return metadata["uid"] != known["uid"] or int(metadata["resourceVersion"]) > int(known["resourceVersion"])


def _render(raw: Mapping[str, Any]) -> Agent:
    try:
        return Agent(_slim(raw), read(raw))
    except InvalidSupportAgentError as error:
        return Agent(_slim(raw), None, error.problems)


def _slim(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The agent without what nothing decides by: its spec lives on in what was rendered from it."""
    metadata = {key: value for key, value in raw["metadata"].items() if key not in {"managedFields", "annotations"}}
    annotations = raw["metadata"].get("annotations") or {}
    metadata["annotations"] = {key: value for key, value in annotations.items() if key.startswith(ACTION)}
    return {
        "apiVersion": raw["apiVersion"],
        "kind": raw["kind"],
        "metadata": metadata,
        "status": raw.get("status") or {},
    }
