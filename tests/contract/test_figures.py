"""What pods serve at /metrics is what the operator reads: names, labels and how a status is written."""

from __future__ import annotations

from supportfleet_operator.reconcile import hot
from supportfleet_operator.rollout.analysis import reading
from supportfleet_runtime.observability.metrics import Metrics


def counted(metrics: Metrics) -> dict[str, float]:
    """What the operator's analysis makes of a pod's text."""
    found = reading.read(metrics.render().decode())
    assert found is not None
    return dict(found)


def test_a_pod_that_has_answered_nothing_counts_nothing() -> None:
    """Every counter is known from the start, so that a canary without errors has none, and not: no data."""
    found = counted(Metrics())
    names = (reading.REQUESTS, reading.ERRORS, reading.ANSWERS, reading.FALLBACKS, reading.ESCALATIONS, reading.COST)
    assert {name: found.get(name) for name in names} == dict.fromkeys(names, 0.0)


def test_every_figure_is_read() -> None:
    """Errors, latency, fallbacks, escalations and cost come from the runtime's own metrics."""
    metrics = Metrics()
    for status in (200, 200, 202, 422, 500):
        metrics.count_request(status, "other")
    for level, escalated in ((0, False), (0, True), (2, False), (4, True)):
        metrics.count_answer(level, escalated=escalated)
    metrics.count_usage("claude", 1000, 100, 0.25)
    metrics.response_latency.observe(0.001)
    found = counted(metrics)
    assert (found[reading.REQUESTS], found[reading.ERRORS]) == (4, 1)
    assert (found[reading.ANSWERS], found[reading.FALLBACKS]) == (4, 2)
    assert (found[reading.ESCALATIONS], found[reading.COST]) == (2, 0.25)
    assert found[f"{reading.BUCKET}+Inf"] == 1


def test_the_model_in_use_is_read_and_why_another_is_not() -> None:
    """Which model a pod answers with, and the reason why the wanted one could not replace it."""
    metrics = Metrics()
    metrics.use_model("1", "sha256:aa", ["refund"])
    metrics.reload_failed("2", "sha256:bb", "SelfTestFailed")
    assert hot.loaded(metrics.render().decode()) == hot.Loaded("sha256:aa", ("sha256:bb", "SelfTestFailed"))
    metrics.reload_ended()
    assert hot.loaded(metrics.render().decode()) == hot.Loaded("sha256:aa", None)
