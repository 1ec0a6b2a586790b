"""What the language model costs: from the tokens that the Messages API says it counted, and a table of prices.

The table is that of the published list prices in November 2026, for prompts of up to 100,000 tokens; what an agent pays
else is set in its configuration (``prices``). A model without a price costs nothing here, and its replies are counted
apart, so that a sum that lacks something is seen to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from supportfleet_runtime.agent.settings import PriceSettings
from supportfleet_runtime.observability.metrics import Metrics

MILLION: Final = 1_000_000
CACHE_WRITE: Final = 1.25
"""Writing tokens into the prompt cache (for 5 minutes) costs so many times the price of reading them."""
CACHE_READ: Final = 0.1
_DATE: Final = re.compile(r"-\d{8}$")


def _price(read: float, written: float) -> PriceSettings:
    return PriceSettings(input=read, output=written)


PRICES: Final[Mapping[str, PriceSettings]] = MappingProxyType(
    {
        "claude-fable-5-1": _price(10, 50),
        "claude-fable-5": _price(10, 50),
        "claude-opus-5-5": _price(4, 20),
        "claude-opus-5": _price(5, 25),
        "claude-opus-4-8": _price(5, 25),
        "claude-opus-4-7": _price(5, 25),
        "claude-opus-4-6": _price(5, 25),
        "claude-opus-4-5": _price(5, 25),
        "claude-sonnet-5-5": _price(2, 10),
        "claude-sonnet-5": _price(2, 10),
        "claude-sonnet-4-6": _price(3, 15),
        "claude-sonnet-4-5": _price(3, 15),
        "claude-haiku-5-5": _price(0.10, 0.50),
        "claude-haiku-4-5": _price(1, 5),
    }
)


@dataclass(frozen=True)
class Usage:
    """The tokens of one call as the service counted them. ``input_tokens`` are those that the cache had no part in."""

    model: str
    input_tokens: int
    output_tokens: int
    cache_write_tokens: int = 0
    cache_read_tokens: int = 0

    @property
    def read(self) -> int:
        """All tokens of the prompt."""
        return self.input_tokens + self.cache_write_tokens + self.cache_read_tokens


def price_of(model: str, prices: Mapping[str, PriceSettings]) -> PriceSettings | None:
    """The price of a model, configured or listed; that of ``name`` holds for its snapshots ``name-20261007`` too."""
    for name in (model, _DATE.sub("", model)):
        if found := prices.get(name) or PRICES.get(name):
            return found
    return None


def cost_of(usage: Usage, price: PriceSettings) -> float:
    """What a call cost, in US dollars."""
    read = usage.input_tokens + CACHE_WRITE * usage.cache_write_tokens + CACHE_READ * usage.cache_read_tokens
    return (read * price.input + usage.output_tokens * price.output) / MILLION


class Spending:
    """Counts what calls took and cost, with the prices that hold at the time."""

    def __init__(self, metrics: Metrics, prices: Callable[[], Mapping[str, PriceSettings]]) -> None:
        self._metrics = metrics
        self._prices = prices

    def __call__(self, usage: Usage) -> None:
        """Count one call."""
        price = price_of(usage.model, self._prices())
        cost = cost_of(usage, price) if price else None
        self._metrics.count_usage(usage.model, usage.read, usage.output_tokens, cost)
