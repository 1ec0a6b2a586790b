"""What language models cost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_runtime.agent.pricing import PRICES, Spending, Usage, cost_of, price_of
from supportfleet_runtime.agent.settings import AgentSettings, PriceSettings, parse_agent_settings
from supportfleet_runtime.config import Settings
from supportfleet_runtime.observability.metrics import Metrics

TOKENS = st.integers(0, 1_000_000)


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        (Usage("claude-opus-5-5", 1_000_000, 0), 4),
        (Usage("claude-opus-5-5", 0, 1_000_000), 20),
        (Usage("claude-opus-5-5", 2000, 500), 0.018),
        (Usage("claude-opus-5-5", 0, 0, cache_write_tokens=1_000_000), 5),
        (Usage("claude-opus-5-5", 0, 0, cache_read_tokens=1_000_000), 0.4),
        (Usage("claude-opus-5-5-20261001", 1_000_000, 0), 4),
    ],
)
def test_the_list_price(usage: Usage, dollars: float) -> None:
    """A call costs its tokens at the model's price, also of a dated snapshot; the cache has its own rates."""
    price = price_of(usage.model, {})
    assert price
    assert cost_of(usage, price) == pytest.approx(dollars)


def test_the_default_model_has_a_price() -> None:
    """Who configures nothing sees what it costs."""
    assert price_of(Settings().claude_model, {})


def test_a_configured_price_comes_first() -> None:
    """An agent's own prices stand before the list's, for models that the list knows and for others."""
    prices = {"claude-opus-5-5": PriceSettings(input=1, output=2), "house-model": PriceSettings(input=3, output=4)}
    assert price_of("claude-opus-5-5", prices) == PriceSettings(input=1, output=2)
    assert price_of("house-model", prices) == PriceSettings(input=3, output=4)
    assert price_of("claude-sonnet-5-5", prices) == PRICES["claude-sonnet-5-5"]
    assert price_of("unheard-of", prices) is None


@pytest.mark.parametrize("price", [{"input": -1, "output": 1}, {"input": 1}, {"input": "x", "output": 1}])
def test_a_wrong_price_is_named(price: dict[str, Any]) -> None:
    """A price that can't be one is refused with its path."""
    import json  # noqa: PLC0415

    _, problems = parse_agent_settings(json.dumps({"prices": {"m": price}}).encode(), "agent_config.json")
    assert problems
    assert all(problem.name.startswith("agent_config.json: prices.m") for problem in problems)


@given(st.lists(st.builds(Usage, st.sampled_from([*PRICES, "unknown"]), TOKENS, TOKENS, TOKENS, TOKENS), max_size=30))
def test_the_sums_are_the_services_own(calls: list[Usage]) -> None:
    """Tokens add up to what the service counted; a model without a price costs nothing and is counted apart."""
    metrics = Metrics()
    spending = Spending(metrics, lambda: AgentSettings().prices)
    for usage in calls:
        spending(usage)

    def total(name: str, **labels: str) -> float:
        (family,) = [one for one in metrics.registry.collect() if one.name == name]
        wanted = labels.items()
        return sum(s.value for s in family.samples if s.name.endswith("_total") and wanted <= s.labels.items())

    assert total("agent_tokens", kind="output") == sum(usage.output_tokens for usage in calls)
    assert total("agent_tokens", kind="input") == sum(usage.read for usage in calls)
    assert total("agent_unpriced_reply") == sum(usage.model == "unknown" for usage in calls)
    assert total("agent_cost_usd", model="unknown") == 0
    expected = sum(cost_of(usage, PRICES[usage.model]) for usage in calls if usage.model != "unknown")
    assert total("agent_cost_usd") == pytest.approx(expected)
