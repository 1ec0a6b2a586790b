"""What goes between the agent and the tool service: the same models on both sides."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
KEY_PATTERN: Final = r"^[A-Za-z0-9_-]{16,64}$"
TOOLS_PATH: Final = "/v1/tools"
EFFECTS_PATH: Final = "/v1/effects"


PRINTABLE: Final = r"^[^\x00-\x1f\x7f]+$"


class CallBody(BaseModel):
    """A call: whose, and with which arguments. Callers are trusted to say whose: they hold the key of the service."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    customer_id: Annotated[str, Field(min_length=1, max_length=128, pattern=PRINTABLE)]
    conversation_id: Annotated[str, Field(min_length=1, max_length=64, pattern=PRINTABLE)] | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
