"""``spec.traffic``: who splits customers' traffic between revisions."""

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, StringConstraints

from supportfleet_operator.api.base import ApiModel
from supportfleet_operator.api.rules import ListSet, Rule, matches
from supportfleet_operator.api.types import LABEL, SUBDOMAIN

ISTIO: Final = "Istio"

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
    matches(GATEWAY, "must be NAME or NAMESPACE/NAME of an Istio Gateway, or mesh"),
]


def _only_with_istio(field: str, attribute: str) -> Rule:
    return Rule(
        cel=f"!has(self.{field}) || self.provider == '{ISTIO}'",
        message=f"only has a meaning where provider is {ISTIO}",
        check=lambda traffic: getattr(traffic, attribute) is None or traffic.provider == ISTIO,
        field_path=f".{field}",
        reason="FieldValueForbidden",
    )


class Traffic(ApiModel):
    """Who splits customers' traffic between revisions."""

    rules: ClassVar[tuple[Rule, ...]] = (_only_with_istio("hosts", "hosts"), _only_with_istio("gateways", "gateways"))

    provider: Literal["None", "Istio"] = Field(
        "None",
        description=(
            "None: weights are shares of the pods behind the agent's Service. "
            "Istio: a VirtualService of the agent's name routes by exact weights and by spec.rollout.match."
        ),
    )
    hosts: Annotated[tuple[Host, ...], Field(max_length=16), ListSet()] | None = Field(
        None, description="Hosts that the agent answers for, beside its Service's own name."
    )
    gateways: Annotated[tuple[Gateway, ...], Field(max_length=16), ListSet()] | None = Field(
        None,
        description=(
            "Istio Gateways that the hosts come in through, as NAME or NAMESPACE/NAME; "
            "the mesh itself always does, beside them. Default: the mesh alone."
        ),
    )
