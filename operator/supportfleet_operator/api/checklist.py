"""``spec.rollout.checklist``: what a new revision has to pass before it gets traffic."""

from typing import Annotated, Final, Literal

from pydantic import Field

from supportfleet_operator.api.base import ApiModel
from supportfleet_operator.api.rules import ListSet
from supportfleet_operator.api.types import DataKey, Int32, ObjectName

CheckName = Literal[
    "configuration",
    "migrations",
    "breakers",
    "monitoring",
    "models",
    "rate-limiter",
    "queue",
    "authentication",
    "secrets",
    "logging",
    "alert-rules",
    "runbooks",
    "on-call",
]

LONGEST: Final = 3600

OF_DOCUMENTS: Final[tuple[CheckName, ...]] = ("alert-rules", "runbooks", "on-call")
"""Checks of what people have written, which no pod has by itself."""
OF_A_DATABASE: Final[tuple[CheckName, ...]] = ("queue",)
"""Checks that take a database which other pods can reach."""


class AgentKeySecretRef(ApiModel):
    """The Secret with a key that the agent takes."""

    name: ObjectName = Field(description="Name of the Secret, in the agent's namespace.")
    key: DataKey = Field("api-key", description="Key within the Secret whose value is one API key as callers send it.")


class Checklist(ApiModel):
    """The checks that `supportfleet-runtime checklist` makes of a new revision, before it gets traffic."""

    skip: Annotated[tuple[CheckName, ...], Field(max_length=12), ListSet()] | None = Field(
        None,
        description=(
            "Checks to leave out. Left out anyway are alert-rules, runbooks and on-call without configMapName, "
            "and queue without spec.database: an SQLite file can be reached in its own pod alone."
        ),
    )
    api_key_secret_ref: AgentKeySecretRef | None = Field(
        None, description="A key that the agent takes; needed where it knows only the hashes of its keys."
    )
    config_map_name: ObjectName | None = Field(
        None,
        description=(
            "Name of the ConfigMap with agent.rules.yaml, oncall.yaml and the runbooks, "
            "for the checks alert-rules, on-call and runbooks."
        ),
    )
    timeout_seconds: Annotated[Int32, Field(ge=10, le=LONGEST)] = Field(
        300, description="Seconds that the checks may take, all together, before they are tried again."
    )

    def left_out(self, *, has_database: bool) -> tuple[CheckName, ...]:
        """Checks that are not made, in the order of their names."""
        names = {*(self.skip or ()), *(() if self.config_map_name else OF_DOCUMENTS)}
        return tuple(sorted(names | (set() if has_database else set(OF_A_DATABASE))))
