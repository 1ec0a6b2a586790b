from __future__ import annotations

from pathlib import Path

from prometheus_client.metrics import Histogram

from supportfleet_runtime.callbacks.settings import Kind
from supportfleet_runtime.observability.metrics import Metrics, described, reference

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"

# What dashboards, alerts and the operator's analysis are built on: name, type, labels.
CONTRACT = {
    "agent_request_total": ("counter", ("status", "intent")),
    "agent_response_latency_seconds": ("histogram", ()),
    "nlu_inference_time_seconds": ("histogram", ()),
    "escalation_to_human_total": ("counter", ()),
    "agent_queue_depth": ("gauge", ()),
    "agent_fallback_total": ("counter", ("level",)),
    "agent_tokens_total": ("counter", ("model", "kind")),
    "agent_cost_usd_total": ("counter", ("model",)),
    "agent_breaker_state": ("gauge", ("dependency",)),
    "agent_dependency_healthy": ("gauge", ("dependency",)),
    "agent_tool_call_total": ("counter", ("tool", "status")),
    "agent_effect_ambiguous_total": ("counter", ()),
    "agent_callback_total": ("counter", ("kind", "outcome")),
    "agent_task_total": ("counter", ("outcome",)),
    "agent_unpriced_reply_total": ("counter", ("model",)),
    "agent_model_info": ("gauge", ("version", "digest")),
    "agent_model_reload_total": ("counter", ("result",)),
    "agent_model_reload_failed_info": ("gauge", ("version", "digest", "reason")),
}
BUCKETS = {
    "agent_response_latency_seconds": [
        0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, float("inf"),
    ],
    "nlu_inference_time_seconds": [
        0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, float("inf"),
    ],
}  # fmt: skip
FREE_TEXT = {"customer_id", "conversation_id", "task_id", "message_id", "text", "path", "url", "key", "tenant"}


def test_the_contract_is_kept() -> None:
    """Every metric that others build on has its name, type and labels."""
    found = {one.name: (one.type, one.labels) for one in described()}
    assert {name: found.get(name) for name in CONTRACT} == CONTRACT


def test_buckets_are_kept() -> None:
    """Quantiles can be compared between versions: the buckets of the histograms stay."""
    histograms = [metric for metric in vars(Metrics()).values() if isinstance(metric, Histogram)]
    found = {metric._name: metric._upper_bounds for metric in histograms}
    assert {name: found.get(name) for name in BUCKETS} == BUCKETS


def test_the_reference_is_in_step_with_the_metrics() -> None:
    """The table in docs/metrics.md is the one that the metrics render: the same names, types and labels."""
    assert reference() in DOCUMENT.read_text(), (
        "run: python -c 'from supportfleet_runtime.observability.metrics import reference; print(reference())'"
    )


def test_what_somebody_is_called_for_is_there_from_the_start() -> None:
    """The first dead letter, lost effect or failed callback is an increase from 0: alerts see it."""
    registry = Metrics().registry
    assert registry.get_sample_value("agent_task_total", {"outcome": "dead"}) == 0
    assert registry.get_sample_value("agent_effect_ambiguous_total") == 0
    for kind in Kind:
        assert registry.get_sample_value("agent_callback_total", {"kind": kind.value, "outcome": "failed"}) == 0


def test_no_label_can_grow_without_bound() -> None:
    """No label is meant for ids or texts, and none has more than three."""
    for one in described():
        assert not FREE_TEXT & set(one.labels), one.name
        assert len(one.labels) <= 3
