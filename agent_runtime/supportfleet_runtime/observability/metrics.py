"""What Prometheus reads.

One registry for each application, so that two in one process (as in tests) don't share figures. Labels are bounded:
an intent that is none of the model's labels counts as ``other``, and a status is one of HTTP's codes.
"""

from __future__ import annotations

from collections.abc import Iterable

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

NO_INTENT = "none"
"""The intent of a request that was refused, or has no answer yet."""
OTHER_INTENT = "other"
"""The intent of what the rules don't answer, and of any label that is not the model's."""

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
            "agent_request", "Messages by HTTP status and intent.", ["status", "intent"], registry=self.registry
        )
        self.response_latency = Histogram(
            "agent_response_latency_seconds",
            "From a message's arrival to its HTTP response.",
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.nlu_inference_time = Histogram(
            "nlu_inference_time_seconds", "Finding the intent.", buckets=INFERENCE_BUCKETS, registry=self.registry
        )
        self.queue_depth = Gauge(
            "agent_queue_depth", "Messages of the agent's queue that wait for a worker.", registry=self.registry
        )
        self.escalations = Counter("escalation_to_human", "Conversations handed to a person.", registry=self.registry)
        self.fallbacks = Counter(
            "agent_fallback", "Replies by rung of the fallback ladder, 0 the best.", ["level"], registry=self.registry
        )
        self.tokens = Counter("agent_tokens", "Tokens of the language model.", ["direction"], registry=self.registry)
        self.tasks = Counter(
            "agent_task",
            "Attempts at messages: done, retried, dead, lost (its lease).",
            ["outcome"],
            registry=self.registry,
        )
        self.model_info = Gauge(
            "agent_model_info", "The intent model in use.", ["version", "digest"], registry=self.registry
        )
        self._intents = frozenset({OTHER_INTENT, NO_INTENT})

    def use_model(self, version: str, digest: str, intents: Iterable[str]) -> None:
        """Tell which model answers; its labels are the intents that are counted."""
        self.model_info.clear()
        self.model_info.labels(version=version, digest=digest).set(1)
        self._intents = frozenset({OTHER_INTENT, NO_INTENT, *intents})

    def count_request(self, status: int, intent: str) -> None:
        """Count a request to ``/v1/messages``."""
        known = intent if intent in self._intents else OTHER_INTENT
        self.requests.labels(status=str(status), intent=known).inc()

    def count_tokens(self, read: int, written: int) -> None:
        """Count what a reply took."""
        self.tokens.labels(direction="input").inc(read)
        self.tokens.labels(direction="output").inc(written)

    def render(self) -> bytes:
        """The text exposition."""
        return generate_latest(self.registry)
