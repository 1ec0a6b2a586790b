"""What a Deployment of a revision does: all of the agent's work, or one layer of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from supportfleet_operator.api import TOOLS, WORKER, LayerName, SupportAgent
from supportfleet_operator.api.pod import Resources
from supportfleet_operator.resources import names
from supportfleet_operator.resources.environment import agent_env, gateway_env, tools_env
from supportfleet_operator.resources.labels import Component


@dataclass(frozen=True, slots=True)
class Role:
    """One command of the runtime, and what its pods need for it."""

    command: str
    layer: LayerName | None
    """None for the pods that customers reach."""
    loads_model: bool
    env: Callable[[SupportAgent, str], list[dict[str, Any]]]

    @property
    def component(self) -> Component:
        """What the pods' label says."""
        return self.layer or "agent"

    def name(self, agent: SupportAgent, revision: str) -> str:
        """Name of the Deployment and of its autoscaler."""
        if self.layer is None:
            return names.of_revision(agent, revision)
        return names.of_layer(agent, revision, self.layer)

    def resources(self, agent: SupportAgent) -> Resources:
        """CPU and memory of each pod."""
        own = agent.spec.layers[self.layer].resources if self.layer is not None else None
        return own or agent.spec.template.resources


SERVE: Final = Role("serve", None, loads_model=True, env=agent_env)
GATEWAY: Final = Role("gateway", None, loads_model=False, env=gateway_env)
OF_LAYER: Final[Mapping[LayerName, Role]] = MappingProxyType(
    {
        WORKER: Role("worker", WORKER, loads_model=True, env=agent_env),
        TOOLS: Role("tools", TOOLS, loads_model=False, env=tools_env),
    }
)


def reached(agent: SupportAgent) -> Role:
    """The role of the pods that customers reach."""
    return GATEWAY if agent.spec.is_layered else SERVE
