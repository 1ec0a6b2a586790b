"""How a tool's call ends, as it is stored and as it goes over the wire; and the errors of calling one.

::

    SupportfleetError
    └── ToolError
        ├── KeyReusedError          the key was used for another call: nothing was done
        ├── ToolsUnavailableError   the call was not made, or refused unseen: nothing was done
        └── OutcomeUnknownError     it may have been done
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from supportfleet_runtime.agent.toolbox import ToolResult, ToolStatus
from supportfleet_runtime.errors import SupportfleetError
from supportfleet_runtime.tools.catalogue import Tool

NO_SUCH_ORDER: Final = "I can't find an order {} in your account."
UNKNOWN: Final = (
    "I could not confirm whether this was carried out. A colleague will check it; please don't ask for it again."
)


class ToolError(SupportfleetError):
    """A call that has no outcome."""


class KeyReusedError(ToolError):
    """The key was used for another call."""


class ToolsUnavailableError(ToolError):
    """Nothing was done: the tools can't be had."""


class OutcomeUnknownError(ToolError):
    """It may have been done, or not."""


class Outcome(BaseModel):
    """What came of a call that was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: ToolStatus
    message: Annotated[str, Field(min_length=1, max_length=2000, description="May be shown to the customer.")]
    data: dict[str, Any] = Field(default_factory=dict)
    needs_person: bool = False

    def as_result(self, tool: Tool) -> ToolResult:
        """What the agent is told."""
        return ToolResult(
            tool.name, self.status, self.message, self.data, changes=tool.changes, needs_person=self.needs_person
        )


def not_found(order_number: str) -> Outcome:
    """No such order in this customer's account, whoever else's it may be."""
    return Outcome(status=ToolStatus.NOT_FOUND, message=NO_SUCH_ORDER.format(order_number))


def refused(message: str, *, needs_person: bool = False) -> Outcome:
    """Nothing was done, for a reason that the customer may know."""
    return Outcome(status=ToolStatus.REFUSED, message=message, needs_person=needs_person)


def unknown() -> Outcome:
    """Nobody knows."""
    return Outcome(status=ToolStatus.AMBIGUOUS, message=UNKNOWN, needs_person=True)
