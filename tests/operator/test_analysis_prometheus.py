"""Prometheus as a source of figures: what it is asked, and that nothing it answers moves a rollout by mistake."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_operator.api import AnalysisOutcome, Rollout
from supportfleet_operator.rollout import (
    AnalysisResult,
    Answer,
    Query,
    RolloutState,
    analyse,
    answered,
    queries,
    scraped,
    unanswered,
)
from supportfleet_operator.rollout.analysis.prometheus import PlaceholderError, substituted

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
STATE = RolloutState(phase="Stepping", stable="r1", canary="r2", weight=50, step_started_at=NOW)
PLAIN = {"name": "refunds", "query": 'sum(refunds{pod=~"{{agent}}-{{canary}}-.*"})', "max": 0.1}
BESIDE = {"name": "refunds", "query": 'sum(refunds{revision="{{revision}}"})', "maxIncreaseOverStable": 0.05}
ADDRESS = "http://prometheus.monitoring.svc:9090"


def spec(*metrics: Mapping[str, Any], **fields: Any) -> Rollout:
    """A canary with an analysis of these metrics."""
    analysis = {"metrics": list(metrics) or [PLAIN], "prometheus": {"address": ADDRESS}, **fields}
    return Rollout.model_validate({"strategy": "Canary", "steps": [{"setWeight": 50}], "analysis": analysis})


def vector(*values: object) -> str:
    """What Prometheus answers with one sample for each value."""
    result = [{"metric": {"n": str(n)}, "value": [1767225600.0, str(value)]} for n, value in enumerate(values)]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


class Canary:
    """A canary under analysis, look by look."""

    def __init__(self, rollout: Rollout | None = None) -> None:
        self.rollout = rollout or spec()
        self.state = STATE
        self.now = NOW

    def asked(self) -> tuple[Query, ...]:
        return queries(self.state, self.rollout, "shop", "support")

    def look(self, canary: Answer, stable: Answer | None = None) -> AnalysisResult:
        self.now += dt.timedelta(seconds=30)
        said = {"canary": canary, "stable": stable or unanswered("timed out")}
        answers = {query: said[query.of] for query in self.asked()}
        result = analyse(self.state, self.rollout, {}, self.now, answers)
        self.state = replace(
            self.state, baseline=result.baseline, last_analysis=result.outcomes, last_analysis_at=result.at
        )
        return result

    def second_look(self, canary: Answer, stable: Answer | None = None) -> AnalysisResult:
        self.look(canary, stable)
        return self.look(canary, stable)


def one(result: AnalysisResult) -> AnalysisOutcome:
    """The only figure."""
    (outcome,) = result.outcomes
    return outcome


class TestAsking:
    def test_names_take_the_place_of_placeholders(self) -> None:
        """The query is sent with the agent's and the revisions' names."""
        canary = Canary()
        canary.look(Answer(0.0))
        assert canary.asked() == (Query("refunds", "canary", 'sum(refunds{pod=~"shop-r2-.*"})'),)

    def test_every_placeholder_is_known(self) -> None:
        """Agent, namespace, both revisions, and the one that is measured."""
        canary = Canary(spec({**PLAIN, "query": "{{agent}} {{namespace}} {{canary}} {{stable}} {{revision}}"}))
        canary.look(Answer(0.0))
        assert [query.text for query in canary.asked()] == ["shop support r2 r1 r2"]

    def test_beside_stable_it_is_asked_for_both(self) -> None:
        """A query that is compared with stable is evaluated for each of the two."""
        canary = Canary(spec(BESIDE))
        canary.look(Answer(0.0))
        assert {query.of: query.text for query in canary.asked()} == {
            "canary": 'sum(refunds{revision="r2"})',
            "stable": 'sum(refunds{revision="r1"})',
        }

    def test_the_first_look_asks_nothing(self) -> None:
        """What Prometheus has when the canary just got its weight is of the time before."""
        canary = Canary()
        assert canary.asked() == ()
        assert canary.look(Answer(1.0)).verdict == "Inconclusive"
        assert canary.asked()

    def test_only_what_is_needed_is_asked(self) -> None:
        """Built-in figures need no query, and queries need no pod."""
        both = spec(PLAIN, {"name": "errorRate", "max": 0.1})
        begun = replace(STATE, baseline={"@canary": {"scrapes": 1.0}})
        assert [query.metric for query in queries(begun, both, "shop", "support")] == ["refunds"]
        assert scraped(begun, both) == ("r1", "r2")
        assert scraped(begun, spec()) == ()

    @given(st.text().filter(lambda text: not text.replace("-", "").replace(".", "").isalnum()))
    def test_nothing_but_a_name_gets_into_a_query(self, name: str) -> None:
        """Whatever ends a string or an expression is refused, wherever it comes from."""
        names = dict.fromkeys(("agent", "namespace", "canary", "stable", "revision"), "r1")
        for placeholder in names:
            with pytest.raises(PlaceholderError, match="no name"):
                substituted("x", {**names, placeholder: name})

    @given(st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", fullmatch=True), st.text())
    def test_the_rest_of_a_query_stays_as_it_is(self, name: str, text: str) -> None:
        """Only placeholders are replaced, and no replacement is replaced again."""
        names = dict.fromkeys(("agent", "namespace", "canary", "stable", "revision"), name)
        if "{{" not in text:
            assert substituted(f"{text}{{{{canary}}}}", names) == text + name

    def test_what_slipped_past_admission_is_said_and_not_asked(self) -> None:
        """A placeholder that stands for nothing is no query; the outcome says which there are."""
        rollout = spec()
        assert rollout.analysis is not None
        bad = rollout.analysis.metrics[0].model_copy(update={"query": "{{secret}}"})
        canary = Canary(
            rollout.model_copy(update={"analysis": rollout.analysis.model_copy(update={"metrics": (bad,)})})
        )
        result = canary.second_look(Answer(0.0))
        assert (canary.asked(), result.verdict) == ((), "Inconclusive")
        assert "agent, namespace, canary, stable, revision" in (one(result).message or "")


class TestAnswers:
    @pytest.mark.parametrize(
        "body",
        [vector(0.1), vector("1e-1"), '{"status":"success","data":{"resultType":"scalar","result":[1,"0.1"]}}'],
    )
    def test_one_number_is_a_figure(self, body: str) -> None:
        """A vector of one sample, and a scalar."""
        assert answered(body) == answered(body.encode()) == Answer(0.1)

    @pytest.mark.parametrize("body", [vector(), vector("NaN"), vector("+Inf"), vector("-Inf")])
    def test_nothing_is_no_data(self, body: str) -> None:
        """No series, or what dividing by no requests gives."""
        answer = answered(body)
        assert (answer.value, answer.unknown) == (None, False)
        assert answer.message

    @pytest.mark.parametrize(
        ("body", "says"),
        [
            (vector(1, 2), "2 series"),
            ('{"status":"success","data":{"resultType":"matrix","result":[]}}', "matrix"),
            ('{"status":"success","data":{"resultType":"string","result":[1,"x"]}}', "string"),
            ('{"status":"success","data":{"resultType":"vector","result":[{"histogram":[1,{}]}]}}', "no number"),
            (vector("x"), "no number"),
            ('{"status":"error","errorType":"bad_data","error":"parse error: unexpected }"}', "parse error"),
            (json.dumps({**json.loads(vector(0)), "warnings": ["store 2 timed out"]}), "store 2 timed out"),
            ("<html>", "no JSON"),
            ("[]", "no success"),
            ('{"status":"success"}', "no data"),
            ("[" * 100_000, "no JSON"),
        ],
    )
    def test_what_is_no_figure_is_not_known(self, body: str, says: str) -> None:
        """Several series, another type, an error, a partial answer: said, and neither data nor the lack of it."""
        answer = answered(body)
        assert (answer.value, answer.unknown) == (None, True)
        assert says in answer.message

    @given(
        st.one_of(
            st.text(),
            st.binary(),
            st.recursive(
                st.none() | st.text() | st.integers(),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["status", "data", "result", "value"]), inner)
                ),
            ).map(json.dumps),
        )
    )
    def test_any_answer_is_read_or_not_known(self, body: str | bytes) -> None:
        """Nothing that a server sends raises, and it is no figure unless it is a number."""
        answer = answered(body)
        assert answer.value is not None or answer.message

    def test_messages_fit_into_the_status(self) -> None:
        """However much a server says, the reason stays short."""
        AnalysisOutcome(metric="x", verdict="NoData", message=unanswered("x" * 10_000).message)


class TestVerdicts:
    @pytest.mark.parametrize(("value", "verdict"), [(0.1, "Pass"), (0.1001, "Fail"), (-5.0, "Pass")])
    def test_the_limit_itself_passes(self, value: float, verdict: str) -> None:
        """A query's value is judged as a built-in figure's is, with no samples to tell."""
        result = Canary().second_look(Answer(value))
        assert (result.verdict, one(result).value, one(result).samples) == (verdict, value, None)

    @pytest.mark.parametrize(("policy", "verdict"), [("Pause", "NoData"), ("Fail", "Fail"), ("Pass", "Pass")])
    def test_no_data_means_what_the_spec_says(self, policy: str, verdict: str) -> None:
        """NaN and no series are governed by onNoData."""
        assert Canary(spec(onNoData=policy)).second_look(answered(vector("NaN"))).verdict == verdict

    @pytest.mark.parametrize("policy", ["Pause", "Fail", "Pass"])
    @pytest.mark.parametrize("answer", [unanswered("timed out"), answered(vector(1, 1)), answered("<html>")])
    def test_a_prometheus_that_cannot_tell_never_decides(self, policy: str, answer: Answer) -> None:
        """Unreachable, or confused: whatever onNoData says, that is neither a pass nor a failure."""
        result = Canary(spec(onNoData=policy)).second_look(answer)
        assert (result.verdict, one(result).message) == ("Inconclusive", answer.message)

    @pytest.mark.parametrize(("value", "verdict"), [(0.15, "Pass"), (0.16, "Fail")])
    def test_stable_sets_the_limit(self, value: float, verdict: str) -> None:
        """Beside a stable 0.1, an increase of 0.05 is allowed."""
        result = Canary(spec(BESIDE)).second_look(Answer(value), Answer(0.1))
        assert (result.verdict, one(result).stable) == (verdict, 0.1)

    def test_without_stable_there_is_no_verdict(self) -> None:
        """A canary is not worse than an unknown, and the outcome says what is missing."""
        result = Canary(spec(BESIDE)).second_look(Answer(9.0))
        assert (result.verdict, one(result).message) == (
            "Inconclusive",
            "has no figure of the stable revision to compare with",
        )

    def test_stable_without_traffic_is_remembered(self) -> None:
        """Once stable has no series any more, what it had earlier in this rollout is the measure."""
        canary = Canary(spec(BESIDE))
        canary.second_look(Answer(0.1), Answer(0.1))
        assert canary.look(Answer(0.2), answered(vector())).verdict == "Fail"

    def test_a_query_that_was_not_asked_decides_nothing(self) -> None:
        """A caller that leaves a query out gets no verdict."""
        canary = Canary()
        canary.look(Answer(0.0))
        result = analyse(canary.state, canary.rollout, {}, canary.now, {})
        assert result.verdict == "Inconclusive"

    def test_one_source_doesnt_stand_in_for_the_other(self) -> None:
        """A passing query doesn't make up for missing pods, nor the other way round."""
        canary = Canary(spec(PLAIN, {"name": "errorRate", "max": 0.1}))
        assert canary.second_look(Answer(0.0)).verdict == "NoData"
        canary = Canary(spec(PLAIN, {"name": "errorRate", "max": 0.1}))
        assert canary.second_look(Answer(1.0)).verdict == "Fail"

    def test_good_times_dont_hide_bad_ones_while_prometheus_is_away(self) -> None:
        """Pods' figures are judged by each interval, however long another source keeps a verdict away."""
        rollout = spec(PLAIN, {"name": "errorRate", "max": 0.1})
        canary, total = Canary(rollout), 0

        def look(bad: int) -> AnalysisResult:
            nonlocal total
            total += 1000 - bad
            text = f'agent_request_total{{status="200"}} {total}\nagent_request_total{{status="500"}} {bad}\n'
            answers = dict.fromkeys(canary.asked(), unanswered("timed out"))
            result = analyse(
                canary.state, rollout, {"r2": {"p": "# TYPE agent_request_total counter\n" + text}}, NOW, answers
            )
            canary.state = replace(canary.state, baseline=result.baseline, last_analysis=result.outcomes)
            return result

        for _ in range(10):
            assert look(0).verdict == "Inconclusive"
        assert look(200).verdict == "Fail"

    @given(st.lists(st.sampled_from(["NaN", "+Inf", None, "two", "down"]), max_size=8))
    def test_doubt_never_decides(self, looks: list[str | None]) -> None:
        """However long Prometheus gives nothing to go by, there is neither a pass nor a failure."""
        canary = Canary()
        for look in looks:
            answer = {"two": answered(vector(1, 1)), "down": unanswered("down"), None: answered(vector())}.get(look)
            assert canary.look(answer or answered(vector(look))).verdict in {"Inconclusive", "NoData"}
