"""``spec.rollout``: how a new revision takes over from the stable one, and what stops it."""

import re
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, StringConstraints

from supportfleet_operator.api.analysis import Analysis
from supportfleet_operator.api.base import ApiModel
from supportfleet_operator.api.checklist import Checklist
from supportfleet_operator.api.rules import Rule, exactly_one, only_where
from supportfleet_operator.api.types import DAY, Int32

MAX_STEPS: Final = 32
STEPPED: Final = ("Canary", "BlueGreen", "ABTest")
"""Strategies that go step by step, and measure."""

HEADER: Final = r"^[a-z0-9]([-a-z0-9_]*[a-z0-9])?$"
NOT_IN_RE2: Final = re.compile(r"\(\?(<?[=!]|>|\()|\\[1-9]")
"""What Python's expressions have and those of the API server and of Envoy don't: looking around, and back."""


def _is_expression(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return NOT_IN_RE2.search(text) is None


Text = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Expression = Annotated[
    Text,
    # An expression that can't be read is an error in both halves, which is the only way for a rule to refuse it.
    Rule(
        cel="''.matches(self) || !''.matches(self)",
        message="must be a regular expression in RE2 syntax",
        check=_is_expression,
    ),
]


class StringMatch(ApiModel):
    """What a header's value must be."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("exact", "prefix", "regex", message="set exactly one of exact, prefix and regex"),
    )

    exact: Text | None = Field(None, description="The whole value.")
    prefix: Text | None = Field(None, description="How the value begins.")
    regex: Expression | None = Field(
        None, description="A regular expression (RE2) for the whole value, such as .*beta-tester.*."
    )


class HeaderMatch(ApiModel):
    """Requests that are chosen by their headers; all of the headers must match."""

    headers: Annotated[
        dict[str, StringMatch],
        Field(min_length=1, max_length=8),
        Rule(
            cel=f"self.all(name, name.matches(r'{HEADER}'))",
            message="every header's name must be in lower case, such as user-agent",
            check=lambda headers: all(re.fullmatch(HEADER, name, re.ASCII) for name in headers),
        ),
    ] = Field(description="Values by name of the header, in lower case.")


class Pause(ApiModel):
    """A stop."""

    duration_seconds: Annotated[Int32, Field(ge=1, le=DAY)] | None = Field(
        None, description="Seconds to wait. Default: until somebody promotes or resumes."
    )


class AnalysisStep(ApiModel):
    """Wait for a measurement with enough samples that passes."""


class Step(ApiModel):
    """One step of a rollout."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(
            "setWeight",
            "setMirror",
            "pause",
            "analysis",
            message="set exactly one of setWeight, setMirror, pause and analysis",
        ),
    )

    set_weight: Annotated[Int32, Field(ge=1, le=100)] | None = Field(
        None, description="Percent of the traffic for the new revision; moves once its pods for that are ready."
    )
    set_mirror: Annotated[Int32, Field(ge=0, le=100)] | None = Field(
        None,
        description=(
            "Percent of the requests that the new revision gets a copy of, until another setMirror; 0 ends it. "
            "Its answers are thrown away, and nobody notices them. Requests that it answers itself are copied as well, "
            "so mirror before the first setWeight. Needs spec.traffic.provider Istio or GatewayAPI."
        ),
    )
    pause: Pause | None = Field(None, description="Wait, for a time or for a person.")
    analysis: AnalysisStep | None = Field(
        None,
        description=(
            "Wait until a measurement made in this step has passed. "
            "A weight is never left before that anyway; this is for steps between pauses, for BlueGreen and for ABTest."
        ),
    )


def _needs_steps(strategy: str, example: str) -> Rule:
    return Rule(
        cel=f"self.strategy != '{strategy}' || (has(self.steps) && self.steps.size() > 0)",
        message=f"{strategy} needs steps, such as {example}",
        check=lambda rollout: rollout.strategy != strategy or bool(rollout.steps),
        field_path=".steps",
        reason="FieldValueRequired",
    )


def _weights(rollout: "Rollout") -> list[int]:
    return [step.set_weight for step in rollout.steps or () if step.set_weight is not None]


_WEIGHTS: Final = "self.steps.filter(step, has(step.setWeight)).map(step, step.setWeight)"


class Rollout(ApiModel):
    """How a new revision takes over."""

    rules: ClassVar[tuple[Rule, ...]] = (
        only_where("steps", "strategy", *STEPPED),
        only_where("match", "strategy", *STEPPED),
        only_where("analysis", "strategy", *STEPPED),
        _needs_steps("Canary", "[{setWeight: 10}, {pause: {durationSeconds: 300}}]"),
        _needs_steps("ABTest", "[{pause: {durationSeconds: 3600}}, {analysis: {}}]"),
        Rule(
            cel="self.strategy != 'ABTest' || (has(self.match) && self.match.size() > 0)",
            message=(
                "ABTest needs match, such as [{headers: {cookie: {regex: '.*group=b.*'}}}]: "
                "it says whose requests the new revision gets"
            ),
            check=lambda rollout: rollout.strategy != "ABTest" or bool(rollout.match),
            field_path=".match",
            reason="FieldValueRequired",
        ),
        Rule(
            cel=(
                "self.strategy != 'ABTest' || !has(self.steps) || "
                "!self.steps.exists(step, has(step.setWeight) || has(step.setMirror))"
            ),
            message="ABTest gives the new revision the requests of match alone: use pause and analysis, or Canary",
            check=lambda rollout: (
                rollout.strategy != "ABTest"
                or all(step.set_weight is None and step.set_mirror is None for step in rollout.steps or ())
            ),
            field_path=".steps",
            reason="FieldValueForbidden",
        ),
        Rule(
            cel=f"self.strategy != 'BlueGreen' || !has(self.steps) || {_WEIGHTS}.size() == 0",
            message="BlueGreen moves all traffic at once: use setMirror, pause and analysis, or strategy Canary",
            check=lambda rollout: rollout.strategy != "BlueGreen" or not _weights(rollout),
            field_path=".steps",
            reason="FieldValueForbidden",
        ),
        Rule(
            cel=(
                f"!has(self.steps) || ({_WEIGHTS}.isSorted() && "
                f"{_WEIGHTS}.all(one, {_WEIGHTS}.exists_one(other, other == one)))"
            ),
            message="each setWeight must be higher than the one before",
            check=lambda rollout: _weights(rollout) == sorted(set(_weights(rollout))),
            field_path=".steps",
        ),
        Rule(
            cel="!has(self.steps) || has(self.analysis) || !self.steps.exists(step, has(step.analysis))",
            message="a step that waits for an analysis needs spec.rollout.analysis",
            check=lambda rollout: (
                rollout.analysis is not None or all(step.analysis is None for step in rollout.steps or ())
            ),
            field_path=".analysis",
            reason="FieldValueRequired",
        ),
    )

    strategy: Literal["Canary", "BlueGreen", "ABTest", "Rolling"] = Field(
        "Rolling",
        description=(
            "Canary: the new revision gets traffic step by step. "
            "BlueGreen: it comes up at full size with none, then gets all of it. "
            "ABTest: it gets the requests that match chooses and no other, then all of them. "
            "Rolling: it takes over as its pods become ready, with no steps and no analysis."
        ),
    )
    steps: Annotated[tuple[Step, ...], Field(max_length=MAX_STEPS)] | None = Field(
        None, description="What happens to a new revision, in order; after the last step it is promoted."
    )
    match: Annotated[tuple[HeaderMatch, ...], Field(max_length=8)] | None = Field(
        None,
        description=(
            "Requests that always go to the new revision once it is ready: those that any of these matches. "
            "Needs spec.traffic.provider Istio or GatewayAPI."
        ),
    )
    progress_deadline_seconds: Annotated[Int32, Field(ge=1, le=DAY)] = Field(
        600, description="Seconds that a new revision may take to get ready, in each phase, before it is rolled back."
    )
    scale_down_delay_seconds: Annotated[Int32, Field(ge=0, le=DAY)] = Field(
        30, description="Seconds that a revision keeps its pods after its last traffic, for a quick way back."
    )
    paused: bool = Field(default=False, description="Hold the rollout where it is; what serves goes on serving.")
    revision_history_limit: Annotated[Int32, Field(ge=1, le=32)] = Field(
        3, description="Old revisions to keep, without pods, to go back to."
    )
    analysis: Analysis | None = Field(
        None, description="Measure the new revision on its traffic, and roll it back if it is worse than allowed."
    )

    checklist: Checklist | None = Field(
        None,
        description=(
            "Checks that a new revision has to pass before it gets any traffic, made by a Job with its image, "
            "environment and configuration; it is rolled back if it fails one. Set, even to {}, it is on."
        ),
    )

    @property
    def mirrors(self) -> bool:
        """Whether requests are ever copied."""
        return any(step.set_mirror for step in self.steps or ())
