"""The SupportAgents as kopf's watch tells of them, each rendered once for every generation of its spec."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from supportfleet_operator.api import InvalidSupportAgentError, Problem
from supportfleet_operator.cluster.resources import AgentKey
from supportfleet_operator.reconcile.desired import Desired, render


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
        self._agents: dict[AgentKey, Agent] = {}

    def __len__(self) -> int:
        return len(self._agents)

    def __iter__(self) -> Iterator[AgentKey]:
        return iter(self._agents)

    def get(self, key: AgentKey) -> Agent | None:
        """The agent, or None."""
        return self._agents.get(key)

    def put(self, raw: Mapping[str, Any]) -> AgentKey:
        """Take a newer state of an agent; an older one changes nothing."""
        metadata = raw["metadata"]
        key = AgentKey(metadata["namespace"], metadata["name"])
        known = self._agents.get(key)
        if known is None or known.uid != metadata["uid"]:
            self._agents[key] = _rendered(raw)
        elif int(metadata["resourceVersion"]) > int(known.raw["metadata"]["resourceVersion"]):
            same = known.generation == int(metadata.get("generation", 0))
            self._agents[key] = Agent(_slim(raw), known.desired, known.problems) if same else _rendered(raw)
        return key

    def remove(self, key: AgentKey, uid: str) -> bool:
        """An agent is gone; False where another of the same name has come meanwhile."""
        known = self._agents.get(key)
        if known is None or known.uid != uid:
            return False
        del self._agents[key]
        return True

    def phases(self) -> Counter[str]:
        """How many agents are in each phase."""
        return Counter((agent.raw.get("status") or {}).get("phase") or "Unknown" for agent in self._agents.values())


def _rendered(raw: Mapping[str, Any]) -> Agent:
    try:
        return Agent(_slim(raw), render(raw))
    except InvalidSupportAgentError as error:
        return Agent(_slim(raw), None, error.problems)


def _slim(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The agent without what nothing decides by: its spec lives on in what was rendered from it."""
    metadata = {key: value for key, value in raw["metadata"].items() if key not in {"managedFields", "annotations"}}
    return {
        "apiVersion": raw["apiVersion"],
        "kind": raw["kind"],
        "metadata": metadata,
        "status": raw.get("status") or {},
    }
