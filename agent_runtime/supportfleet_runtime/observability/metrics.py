"""What Prometheus reads.

One registry for each application, so that two in one process (as in tests) don't share figures. Labels are bounded:
an intent that is none of the model's labels counts as ``other``, and a status is one of HTTP's codes.

``docs/metrics.md`` holds the table that ``reference()`` renders; a test keeps them in step.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics import MetricWrapperBase

from supportfleet_runtime.errors import StorageError

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of what is rendered."""
NO_INTENT = "none"
"""The intent of a request that was refused, or has no answer yet."""
OTHER_INTENT = "other"
"""The intent of what the rules don't answer, and of any label that is not the model's."""

OTHER_MODEL = "other"
"""The label of language models beyond the first few: the service names them, so their number is bounded here."""
MAX_MODELS = 20
MAX_MODEL_CHARACTERS = 200

CALLBACK_KINDS = ("webhook", "email")

LATENCY_BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60)
INFERENCE_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)


disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each first one, which nothing reads


class Metrics:
    """The runtime's metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "agent_request",
            "Messages by HTTP status and intent (`none` where there is none).",
            ["status", "intent"],
            registry=self.registry,
        )
        self.response_latency = Histogram(
            "agent_response_latency_seconds",
            "From a message's arrival to its HTTP response, 200 or 202.",
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.nlu_inference_time = Histogram(
            "nlu_inference_time_seconds", "Finding the intent.", buckets=INFERENCE_BUCKETS, registry=self.registry
        )
        self.queue_depth = Gauge(
            "agent_queue_depth",
            "Messages of the revision's queue that wait for a worker; NaN while the database is away.",
            registry=self.registry,
        )
        self.escalations = Counter("escalation_to_human", "Conversations handed to a person.", registry=self.registry)
        self.fallbacks = Counter(
            "agent_fallback",
            "Replies by rung of the fallback ladder: 0 the best, 4 generic.",
            ["level"],
            registry=self.registry,
        )
        self.tokens = Counter(
            "agent_tokens",
            "Tokens of the language model as it counted them, `input` and `output`.",
            ["model", "kind"],
            registry=self.registry,
        )
        self.cost = Counter(
            "agent_cost_usd", "What the language model cost, by the price table.", ["model"], registry=self.registry
        )
        self.unpriced = Counter(
            "agent_unpriced_reply", "Replies of models that have no price.", ["model"], registry=self.registry
        )
        self.tasks = Counter(
            "agent_task",
            "Attempts at messages that were `done`, `deferred` (long), `retried`, `dead`, or `lost` their lease.",
            ["outcome"],
            registry=self.registry,
        )
        self.callbacks = Counter(
            "agent_callback",
            "Attempts at callbacks (`webhook`, `email`): `delivered`, `retried`, or `failed` for good.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.model_info = Gauge(
            "agent_model_info", "The intent model in use, and no other.", ["version", "digest"], registry=self.registry
        )
        self.breaker_state = Gauge(
            "agent_breaker_state",
            "Circuit breakers: 0 closed, 1 half-open, 2 open.",
            ["dependency"],
            registry=self.registry,
        )
        self.dependency_healthy = Gauge(
            "agent_dependency_healthy",
            "What the health loop looks at: 1 healthy, 0 unhealthy; no sample before that is known.",
            ["dependency"],
            registry=self.registry,
        )
        self.tool_calls = Counter(
            "agent_tool_call", "Calls of tools, by how they ended.", ["tool", "status"], registry=self.registry
        )
        self.ambiguous_effects = Counter(
            "agent_effect_ambiguous", "Effects of tools of which nobody knows the outcome.", registry=self.registry
        )
        self.reloads = Counter(
            "agent_model_reload",
            "Reloads after the first load: a `success`, `failed` (refused), `unreachable` (tried again).",
            ["result"],
            registry=self.registry,
        )
        self.reload_failed_info = Gauge(
            "agent_model_reload_failed_info",
            "The intent model that is wanted and not in use, and why; gone once it is in use.",
            ["version", "digest", "reason"],
            registry=self.registry,
        )
        self.telemetry_dropped = Counter(
            "agent_telemetry_dropped",
            "Spans, or readings of metrics, that were not delivered: no room (`full`), `refused`, `unsent` at the end.",
            ["destination", "signal", "reason"],
            registry=self.registry,
        )
        # Somebody is called for the first of these, and Prometheus sees no increase in a series that begins at 1.
        self.tasks.labels(outcome="dead")
        for kind in CALLBACK_KINDS:
            self.callbacks.labels(kind=kind, outcome="failed")
        self._intents = frozenset({OTHER_INTENT, NO_INTENT})
        self._models: set[str] = set()

    def use_model(self, version: str, digest: str, intents: Iterable[str]) -> None:
        """Tell which model answers; its labels are the intents that are counted."""
        self.model_info.clear()
        self.model_info.labels(version=version, digest=digest).set(1)
        self._intents = frozenset({OTHER_INTENT, NO_INTENT, *intents})

    def count_request(self, status: int, intent: str) -> None:
        """Count a request to ``/v1/messages``."""
        known = intent if intent in self._intents else OTHER_INTENT
        self.requests.labels(status=str(status), intent=known).inc()

    def reload_failed(self, version: str, digest: str, reason: str) -> None:
        """Tell which model is wanted and why it is not in use."""
        self.reload_failed_info.clear()
        self.reload_failed_info.labels(version=version, digest=digest, reason=reason).set(1)

    def reload_ended(self) -> None:
        """The model in use is the one that is wanted."""
        self.reload_failed_info.clear()

    def count_answer(self, level: int, *, escalated: bool) -> None:
        """Count an answer of the agent, whether it is stored or only compared."""
        self.fallbacks.labels(level=str(level)).inc()
        if escalated:
            self.escalations.inc()

    def count_usage(self, model: str, read: int, written: int, cost: float | None) -> None:
        """Count what a call of the language model took, and cost, where its price is known."""
        if model not in self._models:
            if len(self._models) >= MAX_MODELS or len(model) > MAX_MODEL_CHARACTERS:
                model = OTHER_MODEL
            self._models.add(model)
        self.tokens.labels(model=model, kind="input").inc(read)
        self.tokens.labels(model=model, kind="output").inc(written)
        if cost is None:
            self.unpriced.labels(model=model).inc()
        else:
            self.cost.labels(model=model).inc(cost)

    async def read_depth(self, depth: Callable[[], Awaitable[int]], within: float) -> None:
        """Take over the queue's depth; one that can't be known ``within`` so many seconds is NaN."""
        try:
            async with asyncio.timeout(within):
                self.queue_depth.set(await depth())
        except (StorageError, TimeoutError):
            self.queue_depth.set(math.nan)

    def breakers(self) -> dict[str, int]:
        """The state of each breaker, by its dependency."""
        (family,) = self.breaker_state.collect()
        return {sample.labels["dependency"]: int(sample.value) for sample in family.samples}

    def render(self) -> bytes:
        """The text exposition."""
        return generate_latest(self.registry)


@dataclass(frozen=True)
class Described:
    """A metric as its reader knows it. ``name`` is that of its samples, for a histogram without their suffixes."""

    name: str
    labels: tuple[str, ...]
    type: str
    meaning: str


def described() -> list[Described]:
    """All of the runtime's own metrics."""
    found = []
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = tuple(metric._labelnames)  # noqa: SLF001 - it tells them in no other way
            found.append(Described(name, labels, family.type, family.documentation))
    return found


def reference() -> str:
    """The metrics as a Markdown table."""
    rows = ["| Metric | Type | What |", "|---|---|---|"]
    for one in described():
        labels = f"{{{','.join(one.labels)}}}" if one.labels else ""
        rows.append(f"| `{one.name}{labels}` | {one.type} | {one.meaning} |")
    return "\n".join(rows) + "\n"
