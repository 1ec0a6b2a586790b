"""``spec.service`` and ``spec.networkPolicy``: how customers' traffic reaches an agent, and whose may."""

from ipaddress import ip_network
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from supportfleet_operator.api.base import ApiModel
from supportfleet_operator.api.pod import LabelSelector
from supportfleet_operator.api.rules import ListSet, Rule
from supportfleet_operator.api.template import Annotations
from supportfleet_operator.api.types import NamespaceName, Port, label_keys


class Service(ApiModel):
    """The Service that the agent is reached through. It has the agent's name."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = Field(
        "ClusterIP", description="Where it can be reached from."
    )
    port: Port = Field(80, description="Port of the Service.")
    annotations: Annotated[Annotations, label_keys("an annotation's key")] | None = Field(
        None, description="Annotations of the Service, such as those that a cloud's load balancer reads."
    )


def _is_cidr(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return "/" in text


Cidr = Annotated[
    str,
    StringConstraints(min_length=1, max_length=64),
    Rule(cel="isCIDR(self)", message="must be a range of addresses, such as 10.0.0.0/8", check=_is_cidr),
]


class IPBlock(ApiModel):
    """A range of addresses."""

    cidr: Cidr = Field(description="The range, such as 10.0.0.0/8.")
    except_: Annotated[tuple[Cidr, ...], Field(max_length=16)] | None = Field(
        None, alias="except", description="Ranges within it that are left out."
    )


class NetworkPeer(ApiModel):
    """Pods or addresses at the other end of a connection."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.ipBlock) != (has(self.podSelector) || has(self.namespaceSelector))",
            message="set ipBlock, or one or both of namespaceSelector and podSelector",
            check=lambda peer: (
                (peer.ip_block is not None) != (peer.pod_selector is not None or peer.namespace_selector is not None)
            ),
        ),
    )

    namespace_selector: LabelSelector | None = Field(
        None, description="Namespaces, by label. Default: the agent's own namespace."
    )
    pod_selector: LabelSelector | None = Field(None, description="Pods in those namespaces, by label. Default: all.")
    ip_block: IPBlock | None = Field(None, description="Addresses outside the cluster.")


class NetworkPolicyPort(ApiModel):
    """A port, or a range of ports, of the other end."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.endPort) || self.endPort >= self.port",
            message="must be at least port",
            check=lambda ports: ports.end_port is None or ports.end_port >= ports.port,
            field_path=".endPort",
        ),
    )

    protocol: Literal["TCP", "UDP", "SCTP"] = Field("TCP", description="Protocol of the connection.")
    port: Port = Field(description="The port, or the first of a range.")
    end_port: Port | None = Field(None, description="The last port of a range.")


class EgressRule(ApiModel):
    """Connections that the agent's pods may open."""

    to: Annotated[tuple[NetworkPeer, ...], Field(max_length=16)] | None = Field(
        None, description="Where to. Default: anywhere."
    )
    ports: Annotated[tuple[NetworkPolicyPort, ...], Field(max_length=16)] | None = Field(
        None, description="Which ports. Default: all."
    )


class NetworkPolicy(ApiModel):
    """The NetworkPolicy of the agent's pods. It takes a network plugin that enforces such policies."""

    enabled: bool = Field(default=True, description="Whether the agent has a NetworkPolicy.")
    allow_from_namespaces: Annotated[tuple[NamespaceName, ...], Field(max_length=32), ListSet()] | None = Field(
        None,
        description=(
            "Namespaces whose pods may send requests, such as those of the ingress gateway and of Prometheus, "
            "beside the agent's own namespace, which always may."
        ),
    )
    allow_from: Annotated[tuple[NetworkPeer, ...], Field(max_length=32)] | None = Field(
        None,
        description=(
            "More that may send requests, by namespace, pod or address. "
            "Where spec.service.type is NodePort or LoadBalancer and this is unset, everyone may."
        ),
    )
    allow_egress: Annotated[tuple[EgressRule, ...], Field(max_length=32)] | None = Field(
        None,
        description=(
            "Connections that the pods and the model sync may open, beside DNS. Default: all. "
            "They need the model's storage, the database and the Claude API."
        ),
    )
