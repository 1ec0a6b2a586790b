"""The analysis: from what pods serve to a verdict, however bad what they serve is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from supportfleet_operator.api import AnalysisOutcome, Rollout
from supportfleet_operator.rollout import AnalysisResult, RolloutState, analyse, scraped
from supportfleet_operator.rollout.analysis.figures import quantile
from supportfleet_operator.rollout.analysis.reading import MOST_LINES, read
from supportfleet_operator.rollout.analysis.window import MOST_PODS, STABLE

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
STATE = RolloutState(phase="Stepping", stable="r1", canary="r2", weight=50, step_started_at=NOW)


def spec(*metrics: Mapping[str, Any], **fields: Any) -> Rollout:
    """A canary with an analysis of these metrics."""
    analysis = {"metrics": list(metrics) or [{"name": "errorRate", "max": 0.1}], **fields}
    return Rollout.model_validate({"strategy": "Canary", "steps": [{"setWeight": 50}], "analysis": analysis})


def pod(good: float = 0, bad: float = 0, *, start: float = 1, refused: float = 0) -> str:
    """What a pod serves."""
    return (
        "# TYPE agent_request_total counter\n"
        f'agent_request_total{{status="200",intent="faq"}} {good}\n'
        f'agent_request_total{{status="500",intent="none"}} {bad}\n'
        f'agent_request_total{{status="422",intent="none"}} {refused}\n'
        f"process_start_time_seconds {start}\n"
    )


class Canary:
    """A canary under analysis, look by look."""

    def __init__(self, rollout: Rollout | None = None) -> None:
        self.rollout = rollout or spec()
        self.state = STATE
        self.now = NOW

    def look(self, canary: Mapping[str, str], stable: Mapping[str, str] | None = None) -> AnalysisResult:
        self.now += dt.timedelta(seconds=30)
        result = analyse(self.state, self.rollout, {"r2": canary, "r1": stable or {}}, self.now)
        self.state = replace(
            self.state, baseline=result.baseline, last_analysis=result.outcomes, last_analysis_at=result.at
        )
        return result


def one(result: AnalysisResult) -> AnalysisOutcome:
    """The only figure."""
    (outcome,) = result.outcomes
    return outcome


class TestErrorRate:
    def test_only_what_was_counted_since_the_first_look_matters(self) -> None:
        """A thousand old errors don't fail a canary that makes none now."""
        canary = Canary()
        assert canary.look({"p": pod(0, 1000)}).verdict == "Inconclusive"
        assert canary.look({"p": pod(40, 1000)}).verdict == "Pass"

    @pytest.mark.parametrize(("bad", "verdict"), [(10, "Pass"), (11, "Fail")])
    def test_the_limit_itself_passes(self, bad: int, verdict: str) -> None:
        """With max 0.1, ten errors of a hundred pass and eleven fail, with value, limit and samples told."""
        canary = Canary()
        canary.look({"p": pod()})
        result = canary.look({"p": pod(100 - bad, bad)})
        assert result.verdict == verdict
        outcome = one(result)
        assert (outcome.value, outcome.threshold, outcome.samples) == (bad / 100, 0.1, 100)

    @pytest.mark.parametrize("bad", [0, 19])
    def test_too_few_samples_mean_nothing(self, bad: int) -> None:
        """Nineteen requests of twenty that are needed are neither good nor bad, whatever they were."""
        canary = Canary()
        canary.look({"p": pod()})
        assert canary.look({"p": pod(19 - bad, bad)}).verdict == "Inconclusive"

    def test_few_samples_add_up(self) -> None:
        """Ten bad requests in one interval and ten in the next are twenty."""
        canary = Canary()
        canary.look({"p": pod()})
        assert canary.look({"p": pod(0, 10)}).verdict == "Inconclusive"
        assert canary.look({"p": pod(0, 20)}).verdict == "Fail"

    def test_each_request_is_judged_once(self) -> None:
        """After a verdict a new measurement begins: good times before don't hide bad ones."""
        canary = Canary()
        canary.look({"p": pod()})
        assert canary.look({"p": pod(10_000)}).verdict == "Pass"
        assert canary.look({"p": pod(10_000, 20)}).verdict == "Fail"

    def test_what_the_caller_got_wrong_is_no_sample(self) -> None:
        """Refused requests (4xx) are neither errors nor successes."""
        canary = Canary()
        canary.look({"p": pod()})
        assert one(canary.look({"p": pod(10, 10, refused=1000)})).value == 0.5


class TestRestarts:
    def test_a_counter_that_starts_again_counts_from_zero(self) -> None:
        """After a restart what the new process counted is added, and nothing is taken away."""
        canary = Canary(spec(minSamples=50))
        canary.look({"p": pod(1000)})
        canary.look({"p": pod(1030)})
        outcome = one(canary.look({"p": pod(20, start=2)}))
        assert (outcome.samples, outcome.value) == (50, 0)

    def test_a_restart_that_has_overtaken_its_old_counters_is_seen(self) -> None:
        """The process's start tells, even where every counter is higher than before."""
        canary = Canary()
        canary.look({"p": pod(5)})
        assert one(canary.look({"p": pod(100, start=2)})).samples == 100

    def test_a_new_pod_begins_with_nothing(self) -> None:
        """What a pod counted before it was first seen belongs to no measurement."""
        canary = Canary()
        canary.look({"p": pod()})
        assert canary.look({"p": pod(), "q": pod(0, 500)}).verdict == "NoData"
        assert one(canary.look({"p": pod(), "q": pod(30, 500)})).value == 0

    def test_a_pod_that_was_silent_catches_up(self) -> None:
        """A pod that misses a look adds what it counted meanwhile when it answers again."""
        canary = Canary()
        canary.look({"p": pod()})
        canary.look({})
        assert one(canary.look({"p": pod(30)})).samples == 30

    def test_a_pod_that_went_takes_nothing_with_it(self) -> None:
        """What a pod that is gone counted before stays counted."""
        canary = Canary()
        canary.look({"p": pod(), "q": pod()})
        canary.look({"p": pod(0, 10), "q": pod()})
        assert one(canary.look({"q": pod(10)})).value == 0.5


class TestNoData:
    @pytest.mark.parametrize(("policy", "verdict"), [("Pause", "NoData"), ("Fail", "Fail"), ("Pass", "Pass")])
    @pytest.mark.parametrize("texts", [{}, {"p": pod()}, {"p": "<html>"}, {"p": "up 1\n"}])
    def test_no_figures_mean_what_the_spec_says(self, texts: dict[str, str], policy: str, verdict: str) -> None:
        """No pod, no request, no text of an agent's: all are no data, and by default that is no verdict."""
        canary = Canary(spec(onNoData=policy))
        assert canary.look(texts).verdict == "Inconclusive"
        assert canary.look(texts).verdict == verdict

    @pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "-Inf", "x", ""])
    def test_a_number_that_is_none_makes_the_pod_silent(self, value: str) -> None:
        """A pod with NaN, an infinite or a negative counter is left out whole."""
        assert read(pod(good=5).replace(" 5\n", f" {value}\n")) is None

    def test_a_text_without_end_is_left_out(self) -> None:
        """A pod can't make the operator parse for ever."""
        assert read("".join(f'agent_request_total{{status="{n}"}} 1\n' for n in range(MOST_LINES + 1))) is None

    @given(st.text())
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        """Nothing that a pod serves raises."""
        read("agent_request_total" + text)
        read(text)

    @given(st.lists(st.sampled_from([pod(1, 1), pod(50), "", "NaN", 'agent_request_total{status="200"} NaN'])))
    def test_without_enough_samples_there_is_never_a_verdict(self, looks: list[str]) -> None:
        """However pods come, go, restart and talk nonsense, fewer than minSamples neither pass nor fail."""
        canary = Canary(spec(minSamples=10_000))
        for text in looks:
            assert canary.look({"p": text}).verdict in {"Inconclusive", "NoData"}


class TestBesideStable:
    RELATIVE: Mapping[str, Any] = {"name": "errorRate", "maxIncreaseOverStable": 0.05}

    @pytest.mark.parametrize(("bad", "verdict"), [(15, "Pass"), (16, "Fail")])
    def test_stable_sets_the_limit(self, bad: int, verdict: str) -> None:
        """With 10 % for stable and an increase of 0.05, 15 % pass and 16 % fail."""
        canary = Canary(spec(self.RELATIVE))
        canary.look({"p": pod()}, {"s": pod()})
        result = canary.look({"p": pod(100 - bad, bad)}, {"s": pod(90, 10)})
        assert (result.verdict, one(result).stable) == (verdict, 0.1)

    def test_without_stable_samples_there_is_no_verdict(self) -> None:
        """A canary is worse than nothing in particular, so nothing is decided."""
        canary = Canary(spec(self.RELATIVE))
        canary.look({"p": pod()}, {"s": pod()})
        assert canary.look({"p": pod(0, 100)}, {"s": pod(5)}).verdict == "Inconclusive"

    def test_few_stable_samples_add_up(self) -> None:
        """A stable revision with little traffic left is measured for as long as it takes."""
        canary = Canary(spec(self.RELATIVE))
        canary.look({"p": pod()}, {"s": pod()})
        assert canary.look({"p": pod(100)}, {"s": pod(10)}).verdict == "Inconclusive"
        assert canary.look({"p": pod(200)}, {"s": pod(20)}).verdict == "Pass"

    def test_stable_without_traffic_is_remembered(self) -> None:
        """With all of the traffic on the canary, what stable did earlier in the rollout is the measure."""
        canary = Canary(spec(self.RELATIVE))
        canary.look({"p": pod()}, {"s": pod()})
        canary.look({"p": pod(100)}, {"s": pod(100)})
        assert canary.look({"p": pod(100, 100)}, {"s": pod(100)}).verdict == "Fail"


class TestOtherFigures:
    def texts(self, answers: int, fallbacks: int, escalations: int, seconds: float = 0.02) -> dict[str, str]:
        registry = CollectorRegistry()
        fallback = Counter("agent_fallback", "x", ["level"], registry=registry)
        escalation = Counter("escalation_to_human", "x", registry=registry)
        latency = Histogram("agent_response_latency_seconds", "x", buckets=(0.01, 0.1, 1), registry=registry)
        fallback.labels("0").inc(answers - fallbacks)
        fallback.labels("4").inc(fallbacks)
        escalation.inc(escalations)
        for _ in range(answers):
            latency.observe(seconds)
        return {"p": generate_latest(registry).decode()}

    @pytest.mark.parametrize(
        ("metric", "value", "verdict"),
        [
            ({"name": "fallbackRate", "max": 0.3}, 0.25, "Pass"),
            ({"name": "fallbackRate", "max": 0.2}, 0.25, "Fail"),
            ({"name": "escalationRate", "max": 0.1}, 0.1, "Pass"),
            ({"name": "escalationRate", "max": 0.09}, 0.1, "Fail"),
            ({"name": "resolutionRate", "min": 0.9}, 0.9, "Pass"),
            ({"name": "resolutionRate", "min": 0.91}, 0.9, "Fail"),
        ],
    )
    def test_shares_of_the_answers(self, metric: dict[str, Any], value: float, verdict: str) -> None:
        """Fallbacks, escalations and resolutions are shares of what the pod answered, against max or min."""
        canary = Canary(spec(metric))
        canary.look(self.texts(0, 0, 0))
        result = canary.look(self.texts(40, 10, 4))
        assert (one(result).value, result.verdict) == (pytest.approx(value), verdict)

    def test_all_figures_must_pass(self) -> None:
        """One that fails fails the measurement, and one without data keeps it from passing."""
        canary = Canary(spec({"name": "fallbackRate", "max": 1}, {"name": "escalationRate", "max": 0.01}))
        canary.look(self.texts(0, 0, 0))
        assert canary.look(self.texts(40, 10, 4)).verdict == "Fail"
        doubt = Canary(spec({"name": "fallbackRate", "max": 1}, {"name": "errorRate", "max": 1}))
        doubt.look(self.texts(0, 0, 0))
        assert doubt.look(self.texts(40, 10, 4)).verdict == "NoData"

    @pytest.mark.parametrize(
        ("limit", "seconds", "verdict"),
        [(0.1, 0.02, "Pass"), (0.05, 0.02, "Fail"), (0.9, 5, "Fail"), (30, 5, "Inconclusive")],
    )
    def test_latency_beyond_the_last_bucket_is_only_a_lower_bound(
        self, limit: float, seconds: float, verdict: str
    ) -> None:
        """A p99 beyond the histogram fails a limit inside of it, and can't be told from one outside."""
        canary = Canary(spec({"name": "latencyP99", "max": limit}))
        canary.look(self.texts(0, 0, 0))
        assert canary.look(self.texts(100, 0, 0, seconds)).verdict == verdict

    @given(st.lists(st.integers(0, 50), min_size=4, max_size=4), st.floats(0.01, 1))
    def test_a_quantile_lies_in_its_bucket(self, counts: list[int], share: float) -> None:
        """The interpolated value is within the bucket that holds the sample of that rank."""
        bounds = [0.1, 0.5, 1.0, inf]
        buckets = {bound: float(sum(counts[: n + 1])) for n, bound in enumerate(bounds)}
        found = quantile(share, buckets)
        assert found.samples == sum(counts)
        if found.value is None:
            assert not sum(counts)
            return
        first = next(n for n, bound in enumerate(bounds) if buckets[bound] >= share * sum(counts))
        assert found.at_least == (bounds[first] == inf)
        upper = bounds[first] if bounds[first] != inf else 1.0
        assert ([0.0, *bounds][first]) - 1e-9 <= found.value <= upper + 1e-9


class TestBounds:
    def test_status_holds_some_pods_only(self) -> None:
        """However many pods there are, the baseline stays small, and those once chosen stay chosen."""
        canary = Canary()
        many = {f"p{n:03}": pod() for n in range(200)}
        canary.look(many, many | {"s": pod()})
        before = set(canary.state.baseline)
        assert len(before) <= 2 * MOST_PODS + 2
        canary.look({"a-new-one": pod(), **many})
        assert set(canary.state.baseline) >= {name for name in before if name in many and name != STABLE}

    def test_the_state_survives_the_status(self) -> None:
        """What is written to status.rollout and read back is the same measurement."""
        canary = Canary()
        canary.look({"p": pod(3)}, {"s": pod(4)})
        canary.look({"p": pod(13, 1)}, {"s": pod(24)})
        assert RolloutState.from_status(canary.state.to_status()) == canary.state

    def test_both_revisions_are_asked(self) -> None:
        """Stable's pods are measured at the same time as the canary's."""
        assert scraped(STATE, spec()) == ("r1", "r2")
