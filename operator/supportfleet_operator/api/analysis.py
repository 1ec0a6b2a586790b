"""``spec.rollout.analysis``: what is measured of a new revision, and what it must reach."""

from typing import Annotated, ClassVar, Final, Literal, get_args

from pydantic import Field, StringConstraints

from supportfleet_operator.api.base import ApiModel
from supportfleet_operator.api.rules import ListMap, Rule, matches
from supportfleet_operator.api.types import DataKey, HttpUrl, Int32, ObjectName

MetricName = Literal["errorRate", "latencyP99", "escalationRate", "fallbackRate", "resolutionRate", "costPerReply"]
"""The figures that the operator knows how to read from the pods."""
BUILT_IN: Final[tuple[MetricName, ...]] = get_args(MetricName)
RATES: Final = tuple(name for name in BUILT_IN if name.endswith("Rate"))
"""Those that are a share of the requests."""

PLACEHOLDERS: Final = ("agent", "namespace", "canary", "stable", "revision")
"""What a query may have between {{ and }}: names, put in by the operator."""
EACH_REVISION: Final = "{{revision}}"
"""What tells the two revisions apart in a query that is asked for both."""

Threshold = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]


def _in_range(field: str, attribute: str) -> Rule:
    """The rule on a limit for a built-in figure; the figure of a query can be anything."""
    return Rule(
        cel=(
            f"!has(self.{field}) || has(self.query) || "
            f"(self.{field} >= 0.0 && self.{field} <= (self.name in {list(RATES)} ? 1.0 : 3600.0))"
        ),
        message=(
            "must be from 0 to 1 for a rate, which is a share of the requests such as 0.02, "
            "and from 0 to 3600 for latencyP99, in seconds, and costPerReply, in US dollars"
        ),
        check=lambda metric: (
            getattr(metric, attribute) is None
            or metric.query is not None
            or 0 <= getattr(metric, attribute) <= (1 if metric.name in RATES else 3600)
        ),
        field_path=f".{field}",
    )


def _without_placeholders(query: str) -> str:
    for name in PLACEHOLDERS:
        query = query.replace(f"{{{{{name}}}}}", "")
    return query


_REPLACED: Final = "".join(f".replace('{{{{{name}}}}}', '')" for name in PLACEHOLDERS)


class AnalysisMetric(ApiModel):
    """One figure, read from the pods' own metrics or asked of Prometheus."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"has(self.query) || self.name in {list(BUILT_IN)}",
            message=f"must be one of {', '.join(BUILT_IN)}; for any other figure write a query",
            check=lambda metric: metric.query is not None or metric.name in BUILT_IN,
            field_path=".name",
        ),
        Rule(
            cel="has(self.max) || has(self.min) || has(self.maxIncreaseOverStable)",
            message="set at least one of max, min and maxIncreaseOverStable",
            check=lambda metric: (metric.max, metric.min, metric.max_increase_over_stable) != (None, None, None),
        ),
        Rule(
            cel="!has(self.max) || !has(self.min) || self.min <= self.max",
            message="must be at least min",
            check=lambda metric: metric.max is None or metric.min is None or metric.min <= metric.max,
            field_path=".max",
        ),
        Rule(
            cel="!has(self.maxIncreaseOverStable) || has(self.query) || self.name != 'resolutionRate'",
            message="a higher resolutionRate is better: set min",
            check=lambda metric: (
                metric.max_increase_over_stable is None or metric.query is not None or metric.name != "resolutionRate"
            ),
            field_path=".maxIncreaseOverStable",
            reason="FieldValueForbidden",
        ),
        _in_range("max", "max"),
        _in_range("min", "min"),
        _in_range("maxIncreaseOverStable", "max_increase_over_stable"),
        Rule(
            cel=f"!has(self.query) || !self.query{_REPLACED}.contains('{{{{')",
            message=(
                f"between {{{{ and }}}} can only be one of {', '.join(PLACEHOLDERS)}, "
                "with no spaces, as in {{canary}}"
            ),
            check=lambda metric: metric.query is None or "{{" not in _without_placeholders(metric.query),
            field_path=".query",
        ),
        Rule(
            cel=f"!has(self.query) || !has(self.maxIncreaseOverStable) || self.query.contains('{EACH_REVISION}')",
            message=(
                f"must have {EACH_REVISION} in it where maxIncreaseOverStable is set: "
                "it is asked once for each of the two revisions"
            ),
            check=lambda metric: (
                metric.query is None or metric.max_increase_over_stable is None or EACH_REVISION in metric.query
            ),
            field_path=".query",
        ),
    )

    name: Annotated[
        str,
        StringConstraints(min_length=1, max_length=63),
        matches(
            r"^[A-Za-z]([-A-Za-z0-9_]*[A-Za-z0-9])?$",
            "must be letters, digits, '-' and '_', beginning with a letter",
        ),
    ] = Field(
        description=(
            "The figure. errorRate: requests that failed. latencyP99: seconds within which 99 of 100 are answered. "
            "escalationRate: requests handed to a person. fallbackRate: replies that were a fallback. "
            "resolutionRate: requests answered without a person. costPerReply: US dollars for the language model, "
            "for each request. Rates are shares of the requests, 0 to 1. With a query any name."
        )
    )
    query: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = Field(
        None,
        description=(
            "PromQL that gives the figure as one number, asked of analysis.prometheus. {{agent}}, {{namespace}}, "
            "{{canary}} and {{stable}} stand for names; so does {{revision}}, for that of the revision which is "
            "measured. Default: the pods' own metrics."
        ),
    )
    max: Threshold | None = Field(None, description="The highest value that passes.")
    min: Threshold | None = Field(None, description="The lowest value that passes.")
    max_increase_over_stable: Annotated[Threshold, Field(ge=0)] | None = Field(
        None,
        description=(
            "How much higher than that of the stable revision, measured at the same time, the value may be: "
            "with 0.02 for errorRate, 5 % pass beside a stable 3 %."
        ),
    )

    @property
    def built_in(self) -> MetricName | None:
        """The figure of the pods that this is; None for one that Prometheus is asked for."""
        return None if self.query is not None else next((name for name in BUILT_IN if name == self.name), None)


class BearerTokenSecretRef(ApiModel):
    """The Secret with the token for Prometheus."""

    name: ObjectName = Field(description="Name of the Secret, in the agent's namespace.")
    key: DataKey = Field("token", description="Key within the Secret.")


class Prometheus(ApiModel):
    """The Prometheus that answers queries."""

    address: HttpUrl = Field(
        description="Its address, such as http://prometheus.monitoring.svc:9090; /api/v1/query is added to it."
    )
    timeout_seconds: Annotated[Int32, Field(ge=1, le=30)] = Field(
        5, description="Seconds that it has for an answer; after that the figure has no data."
    )
    bearer_token_secret_ref: BearerTokenSecretRef | None = Field(
        None, description="Token that is sent as Authorization: Bearer. Default: none."
    )


class Analysis(ApiModel):
    """What is measured of a new revision, and what it must reach before it gets more traffic."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.prometheus) || !self.metrics.exists(metric, has(metric.query))",
            message="a metric has a query: set prometheus.address to the Prometheus that answers it",
            check=lambda analysis: (
                analysis.prometheus is not None or all(metric.query is None for metric in analysis.metrics)
            ),
            field_path=".prometheus",
            reason="FieldValueRequired",
        ),
    )

    interval_seconds: Annotated[Int32, Field(ge=1, le=3600)] = Field(30, description="Seconds between measurements.")
    min_samples: Annotated[Int32, Field(ge=1, le=1_000_000)] = Field(
        20,
        description=(
            "Requests below which a measurement says nothing, neither good nor bad; it goes on until there are as many."
        ),
    )
    failure_limit: Annotated[Int32, Field(ge=1, le=100)] = Field(
        1, description="Failed measurements at which the revision is rolled back."
    )
    on_no_data: Literal["Pause", "Fail", "Pass"] = Field(
        "Pause",
        description=(
            "What no figures at all mean. Pause: wait for some; never promote and never roll back. "
            "Fail: a failed measurement. Pass: a passed one."
        ),
    )
    on_inconclusive: Literal["Pause"] = Field(
        "Pause", description="What too few samples mean. Pause: wait for more; never promote and never roll back."
    )
    metrics: Annotated[
        tuple[AnalysisMetric, ...],
        Field(max_length=8),
        ListMap(("name",)),
        Rule(cel="self.size() > 0", message="name at least one figure", check=lambda metrics: len(metrics) > 0),
    ] = Field(description="Figures, which must all pass.")
    prometheus: Prometheus | None = Field(
        None, description="The Prometheus that metrics with a query are asked of. Default: none."
    )
