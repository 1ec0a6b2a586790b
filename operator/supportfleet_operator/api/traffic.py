"""``spec.traffic``: who splits customers' traffic between revisions."""

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, StringConstraints

from supportfleet_operator.api.base import ApiModel
from supportfleet_operator.api.rules import ListSet, Rule, exactly_one, matches, only_where
from supportfleet_operator.api.types import DAY, LABEL, SUBDOMAIN, Int32

Provider = Literal["None", "Istio", "GatewayAPI"]
ISTIO: Final = "Istio"
GATEWAY_API: Final = "GatewayAPI"
ROUTED: Final[tuple[Provider, ...]] = (ISTIO, GATEWAY_API)
"""Providers that route each request by itself: exact weights, matches, copies and stickiness."""

MESH: Final = "mesh"
"""Istio's name for the sidecars' own requests."""

_PART: Final = LABEL.removeprefix("^").removesuffix("$")
GATEWAY: Final = f"^(mesh|({_PART}/)?{SUBDOMAIN.removeprefix('^').removesuffix('$')})$"

Host = Annotated[
    str,
    StringConstraints(min_length=1, max_length=253),
    matches(
        rf"^(\*\.)?{SUBDOMAIN.removeprefix('^')}",
        "must be a host's name, such as agent.example.com or *.example.com",
    ),
]
Gateway = Annotated[
    str,
    StringConstraints(min_length=1, max_length=317),
    matches(GATEWAY, "must be NAME or NAMESPACE/NAME of a Gateway, or mesh"),
]


def _together(field: str, other: str, message: str) -> Rule:
    """The rule that, with the Gateway API, one list is not empty where the other isn't."""
    return Rule(
        cel=(
            f"self.provider != '{GATEWAY_API}' || !has(self.{other}) || self.{other}.size() == 0 || "
            f"(has(self.{field}) && self.{field}.size() > 0)"
        ),
        message=message,
        check=lambda traffic: (
            traffic.provider != GATEWAY_API or not getattr(traffic, other) or bool(getattr(traffic, field))
        ),
        field_path=f".{field}",
        reason="FieldValueRequired",
    )


class StickyCookie(ApiModel):
    """A cookie that names the revision."""

    name: Annotated[
        str,
        StringConstraints(min_length=1, max_length=63),
        matches(r"^[A-Za-z0-9]([-A-Za-z0-9_]*[A-Za-z0-9])?$", "must be a cookie's name: letters, digits, '-' and '_'"),
    ] = Field("supportfleet-revision", description="Name of the cookie.")


class StickyHeader(ApiModel):
    """A header that names the revision."""

    name: Annotated[
        str,
        StringConstraints(min_length=3, max_length=63),
        matches(
            r"^x-[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
            "must be a header's name in lower case that begins with x-, such as x-supportfleet-revision: "
            "responses get it too",
        ),
    ] = Field("x-supportfleet-revision", description="Name of the header, of responses and of requests.")


class Stickiness(ApiModel):
    """What keeps a customer on the revision that answered first."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("cookie", "header", message="set exactly one of cookie and header, such as cookie: {}"),
    )

    cookie: StickyCookie | None = Field(
        None, description="Responses set a cookie that names their revision; for browsers, which send it back."
    )
    header: StickyHeader | None = Field(
        None, description="Responses have a header that names their revision; for programs that send it back."
    )
    ttl_seconds: Annotated[Int32, Field(ge=1, le=DAY)] = Field(
        3600,
        description=(
            "How long a customer stays on a revision after its last answer. A revision that was replaced keeps its "
            "pods at least as long; one that was rolled back loses its customers at once."
        ),
    )


class Traffic(ApiModel):
    """Who splits customers' traffic between revisions."""

    rules: ClassVar[tuple[Rule, ...]] = (
        only_where("hosts", "provider", *ROUTED),
        only_where("gateways", "provider", *ROUTED),
        only_where("stickiness", "provider", *ROUTED),
        _together(
            "hosts", "gateways", "a route with gateways and no hosts would take every host's requests: name them"
        ),
        _together("gateways", "hosts", "hosts come in through a Gateway: name it, as NAME or NAMESPACE/NAME"),
        Rule(
            cel=f"self.provider != '{GATEWAY_API}' || !has(self.gateways) || !('{MESH}' in self.gateways)",
            message=f"{MESH} is a word of Istio's: with GatewayAPI the mesh always has the route, so leave it out",
            check=lambda traffic: traffic.provider != GATEWAY_API or MESH not in (traffic.gateways or ()),
            field_path=".gateways",
        ),
    )

    provider: Provider = Field(
        "None",
        description=(
            "None: weights are shares of the pods behind the agent's Service. "
            "Istio: a VirtualService of the agent's name routes by exact weights and by spec.rollout.match. "
            "GatewayAPI: an HTTPRoute of the agent's name does, for any implementation of the Gateway API."
        ),
    )
    hosts: Annotated[tuple[Host, ...], Field(max_length=16), ListSet()] | None = Field(
        None, description="Hosts that the agent answers for, beside its Service's own name."
    )
    gateways: Annotated[tuple[Gateway, ...], Field(max_length=16), ListSet()] | None = Field(
        None,
        description=(
            "Gateways that the hosts come in through, as NAME or NAMESPACE/NAME: Istio's own with provider Istio, "
            "else those of the Gateway API. The mesh itself always does, beside them. Default: the mesh alone."
        ),
    )
    stickiness: Stickiness | None = Field(
        None,
        description=(
            "Keep customers on the revision that answered them, through a promotion too. "
            "spec.rollout.match comes first. Default: each request goes by itself."
        ),
    )
