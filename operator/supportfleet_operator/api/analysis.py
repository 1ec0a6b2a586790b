"""``spec.rollout.analysis``: what is measured of a new revision, and what it must reach."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from supportfleet_operator.api.base import ApiModel
from supportfleet_operator.api.rules import ListMap, Rule
from supportfleet_operator.api.types import Int32

MetricName = Literal["errorRate", "latencyP99", "escalationRate", "fallbackRate", "resolutionRate"]
Threshold = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]


def _is_rate(field: str, attribute: str) -> Rule:
    return Rule(
        cel=f"!has(self.{field}) || self.name == 'latencyP99' || self.{field} <= 1.0",
        message="must be at most 1: a rate is a share of the requests, such as 0.02",
        check=lambda metric: (
            getattr(metric, attribute) is None or metric.name == "latencyP99" or getattr(metric, attribute) <= 1
        ),
        field_path=f".{field}",
    )


class AnalysisMetric(ApiModel):
    """One figure, read from the pods' own metrics."""

    rules: ClassVar[tuple[Rule, ...]] = (
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
            cel="!has(self.maxIncreaseOverStable) || self.name != 'resolutionRate'",
            message="a higher resolutionRate is better: set min",
            check=lambda metric: metric.max_increase_over_stable is None or metric.name != "resolutionRate",
            field_path=".maxIncreaseOverStable",
            reason="FieldValueForbidden",
        ),
        _is_rate("max", "max"),
        _is_rate("min", "min"),
        _is_rate("maxIncreaseOverStable", "max_increase_over_stable"),
    )

    name: MetricName = Field(
        description=(
            "The figure. errorRate: requests that failed. latencyP99: seconds within which 99 of 100 are answered. "
            "escalationRate: requests handed to a person. fallbackRate: replies that were a fallback. "
            "resolutionRate: requests answered without a person. Rates are shares of the requests, 0 to 1."
        )
    )
    max: Threshold | None = Field(None, description="The highest value that passes.")
    min: Threshold | None = Field(None, description="The lowest value that passes.")
    max_increase_over_stable: Threshold | None = Field(
        None,
        description=(
            "How much higher than that of the stable revision, measured at the same time, the value may be: "
            "with 0.02 for errorRate, 5 % pass beside a stable 3 %."
        ),
    )


class Analysis(ApiModel):
    """What is measured of a new revision, and what it must reach before it gets more traffic."""

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
