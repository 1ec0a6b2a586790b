"""The SupportAgent as a whole, and how the operator reads one."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, ValidationError

from supportfleet_operator.api.base import ApiModel
from supportfleet_operator.api.group import API_VERSION, KIND
from supportfleet_operator.api.rules import Rule
from supportfleet_operator.api.spec import SupportAgentSpec
from supportfleet_operator.api.status import SupportAgentStatus

MAX_NAME: Final = 40
"""Names of children add up to 23 characters to the agent's, and labels and pods' host names end at 63."""

NAME: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""RFC 1035, since the agent's Service has the same name."""


class Metadata(ApiModel):
    """What the operator reads of an object's metadata."""

    model_config = ConfigDict(extra="ignore")

    name: str
    namespace: str
    uid: str
    generation: int = 0
    labels: dict[str, str] = Field({})
    annotations: dict[str, str] = Field({})
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


class SupportAgent(ApiModel):
    """A customer-support AI agent: its pods, model, configuration, scaling and traffic, as one thing."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"self.metadata.name.size() <= {MAX_NAME}",
            message=(
                f"must have at most {MAX_NAME} characters: "
                "the names of the agent's objects are longer by up to 23, and Kubernetes allows 63"
            ),
            check=lambda agent: len(agent.metadata.name) <= MAX_NAME,
            field_path=".metadata.name",
        ),
        Rule(
            cel=f"self.metadata.name.matches(r'{NAME}')",
            message=(
                "must be lower-case letters, digits and '-', beginning with a letter: "
                "the agent's Service has the same name"
            ),
            check=lambda agent: re.fullmatch(NAME, agent.metadata.name) is not None,
            field_path=".metadata.name",
        ),
    )

    api_version: Literal["supportfleet.dev/v1alpha1"] = API_VERSION
    kind: Literal["SupportAgent"] = KIND
    metadata: Metadata
    spec: SupportAgentSpec = Field(description="What the agent should be.")
    status: SupportAgentStatus = Field(SupportAgentStatus(), description="What the operator found.")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with an object."""

    path: str
    """The field, as in ``spec.template.env[0].name``."""
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidSupportAgentError(ValueError):
    """The object is no valid SupportAgent; ``problems`` says everything that is wrong with it."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


def parse(obj: Mapping[str, Any]) -> SupportAgent:
    """Read an object as the API server sends it, or raise InvalidSupportAgentError."""
    try:
        return SupportAgent.model_validate(obj)
    except ValidationError as error:
        raise InvalidSupportAgentError(tuple(_problems(error))) from error


def _problems(error: ValidationError) -> Iterator[Problem]:
    for detail in error.errors(include_url=False, include_input=False):
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).removeprefix(".")
        path += detail.get("ctx", {}).get("field_path", "")
        yield Problem(path.removeprefix("."), detail["msg"])
