"""The agent's configuration: what CONFIG_FILE (``spec.config`` of the SupportAgent) may say.

Everything has a default; a key that is not known is an error that names its path, since a misspelt setting that is
silently ignored is found by a customer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from supportfleet_runtime.agent.orders import OrderBook, sample_order_book
from supportfleet_runtime.agent.toolbox import MAX_CALLS, ToolName
from supportfleet_runtime.errors import Problem

DEFAULT_CONFIG_FILE: Final = "agent_config.json"
MAX_CONFIG_BYTES: Final = 4 * 1024 * 1024

RuleIntent = Literal[
    "order_status", "password_reset", "address_change", "refund", "detailed_history", "human", "greeting"
]
Reply = Annotated[str, Field(min_length=1, max_length=4000)]
WebAddress = Annotated[str, Field(pattern=r"^https?://\S+$", max_length=2000)]


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


class HistorySettings(_Section):
    """How much of a conversation the language model is shown."""

    max_turns: int = Field(default=10, ge=0, le=100)
    max_characters: int = Field(default=12_000, ge=0, le=200_000)


class RuleSettings(_Section):
    """What the rules answer, and the facts they answer with."""

    intents: frozenset[RuleIntent] = frozenset(
        {"order_status", "password_reset", "address_change", "refund", "detailed_history", "human", "greeting"}
    )
    refund_window_days: int = Field(default=30, ge=0, le=3650)
    refund_limit: float = Field(default=200, ge=0, description="dearer refunds go to a person")
    account_url: WebAddress = "https://shop.example.com/account"
    password_reset_url: WebAddress = "https://shop.example.com/password-reset"  # noqa: S105 - a page, no password


Amount = Annotated[Decimal, Field(ge=0, le=1_000_000, decimal_places=2)]
PerDay = Annotated[int, Field(ge=0, le=1000)]


class RefundToolSettings(_Section):
    """How much the agent may pay back by itself, in the order's currency."""

    max_amount: Amount = Field(default=Decimal(200), description="of one refund; dearer ones are a person's alone")
    approval_above: Amount = Field(default=Decimal(100), description="dearer ones are filed for a person's approval")
    per_customer_per_day: Amount = Field(default=Decimal(200), description="in all; what exceeds it is filed, too")


class TicketToolSettings(_Section):
    """How many tickets the agent may open."""

    per_customer_per_day: PerDay = 10


class PasswordResetToolSettings(_Section):
    """How often the agent may start a reset."""

    per_customer_per_day: PerDay = 3


class AddressChangeToolSettings(_Section):
    """How often the agent may change where orders go."""

    per_customer_per_day: PerDay = 5


class ToolSettings(_Section):
    """What the language model may do by itself, and within which limits."""

    enabled: frozenset[ToolName] = frozenset(get_args(ToolName))
    max_calls: int = Field(default=MAX_CALLS, ge=0, le=MAX_CALLS, description="for one message")
    refund: RefundToolSettings = RefundToolSettings()
    create_ticket: TicketToolSettings = TicketToolSettings()
    address_change: AddressChangeToolSettings = AddressChangeToolSettings()
    password_reset: PasswordResetToolSettings = PasswordResetToolSettings()  # a section, no password


class PriceSettings(_Section):
    """What a language model costs, in US dollars for a million tokens."""

    input: float = Field(ge=0, le=10_000)
    output: float = Field(ge=0, le=10_000)


class AgentSettings(_Section):
    """An agent's voice, rules and knowledge."""

    company: Annotated[str, Field(min_length=1, max_length=200)] = "Northwind Outfitters"
    greeting: Reply = "Hello! How can I help you today?"
    system_prompt: Annotated[str, Field(min_length=1, max_length=100_000)] = (
        "You are a customer-support agent. Answer briefly, kindly and truthfully, in the customer's language. "
        "Never claim to have done what you have not done. "
        "Where you are not sure, offer to hand over to a person."
    )
    fallback_reply: Reply = (
        "I'm sorry, I can't answer that right now. Please try again in a few minutes, "
        "or write 'human' and a colleague will get back to you."
    )
    escalation_reply: Reply = "I've passed this conversation to a colleague, who will get back to you here."
    confidence_threshold: float | None = Field(default=None, ge=0, le=1)
    long_intents: frozenset[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        default=frozenset({"detailed_history"}), description="answered as tasks, apart from what takes seconds"
    )
    history: HistorySettings = HistorySettings()
    rules: RuleSettings = RuleSettings()
    tools: ToolSettings = ToolSettings()
    prices: dict[Annotated[str, Field(min_length=1, max_length=200)], PriceSettings] = Field(
        default_factory=dict, description="beside the list prices, and instead of them"
    )
    order_book: OrderBook = Field(default_factory=sample_order_book)


def agent_settings_path(file: Path | None, folder: Path) -> Path:
    """Where the agent's settings are looked for."""
    return folder / (file or DEFAULT_CONFIG_FILE)


def read_agent_settings(file: Path | None, folder: Path) -> tuple[AgentSettings, Sequence[Problem]]:
    """The agent's settings, or their defaults and what is wrong with the file."""
    path = agent_settings_path(file, folder)
    if file is None and not path.is_file():
        return AgentSettings(), ()
    try:
        with path.open("rb") as opened:
            content = opened.read(MAX_CONFIG_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: no path at all
        reason = error.strerror if isinstance(error, OSError) else "it is no path"
        remedy = "name a readable JSON file, or unset it"
        return AgentSettings(), (Problem("CONFIG_FILE", f"{path} can't be read: {reason}", remedy),)
    if len(content) > MAX_CONFIG_BYTES:
        return AgentSettings(), (Problem("CONFIG_FILE", f"{path} is larger than 4 MiB", "make it smaller"),)
    return parse_agent_settings(content, path.name)


def parse_agent_settings(content: bytes, name: str) -> tuple[AgentSettings, Sequence[Problem]]:
    """The settings that ``content`` holds, or all that is wrong with it."""
    try:
        return AgentSettings.model_validate_json(content), ()
    except ValidationError as error:
        return AgentSettings(), [
            Problem(f"{name}: {_path(detail['loc'])}", _message(detail["type"], detail["msg"]), _remedy(detail["type"]))
            for detail in error.errors(include_url=False, include_input=False)
        ]


def _path(location: tuple[int | str, ...]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location if not _is_branch(part))
    return path.removeprefix(".") or "the file"


def _is_branch(part: int | str) -> bool:
    """Whether pydantic names a branch of a union here (``constrained-int``, ``date``) and no key."""
    return isinstance(part, str) and re.fullmatch(r"constrained-\w+|date|int", part) is not None


def _message(kind: str, message: str) -> str:
    return "unknown key" if kind == "extra_forbidden" else message.removeprefix("Value error, ")


def _remedy(kind: str) -> str:
    if kind == "extra_forbidden":
        return "remove it, or correct its spelling: see docs/runtime.md"
    return "correct the file: see docs/runtime.md"
