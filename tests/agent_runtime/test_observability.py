from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from supportfleet_runtime.errors import ProviderError, StorageUnavailableError
from supportfleet_runtime.observability.logs import configure_logging, describe_exception
from supportfleet_runtime.observability.metrics import Metrics

SECRETS = {
    "what the customer wrote": "my card is 4111-1111-1111-1111",
    "the customer's name": "ada.lovelace@example.com",
    "the API key of the model": "sk-ant-test-key-0123456789",
    "the caller's API key": "a-key-of-the-shop-backend",
    "what the model said": "An answer from the model.",
}


@pytest.fixture
def logged() -> Callable[..., io.StringIO]:
    """Configure logging into a stream."""
    stream = io.StringIO()

    def configure(level: str = "info", **context: str) -> io.StringIO:
        configure_logging(level, stream, **context)
        return stream

    return configure


def _fail(words: str) -> None:
    try:
        int(words)
    except ValueError as error:
        raise StorageUnavailableError("the database can't be reached") from error


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class TestLogs:
    def test_a_line_is_an_event_with_fields(self, logged: Any) -> None:
        """JSON, the event first, with level, time and the process's own fields."""
        stream = logged("info", pod="p-1")
        structlog.get_logger().info("message_answered", intent="refund", odd=object())
        (line,) = stream.getvalue().splitlines()
        assert line.startswith('{"event":"message_answered"')
        event = json.loads(line)
        assert (event["pod"], event["level"], event["intent"]) == ("p-1", "info", "refund")
        assert re.match(r"\d{4}-\d\d-\d\dT.*Z$", event["timestamp"])

    def test_the_level_is_kept(self, logged: Any) -> None:
        """What is less severe than the level is not written."""
        stream = logged("warning")
        structlog.get_logger().info("quiet")
        structlog.get_logger().warning("loud")
        assert [event["event"] for event in events(stream)] == ["loud"]

    def test_exceptions_are_told_without_their_words(self, logged: Any) -> None:
        """A foreign exception's type and place are logged, its message is not; ours is."""
        stream = logged()
        try:
            _fail("my card is 4111-1111-1111-1111")
        except StorageUnavailableError:
            structlog.get_logger().exception("request_failed")
        assert "4111" not in stream.getvalue()
        (event,) = events(stream)
        assert event["exception"]["message"] == "the database can't be reached"
        assert event["exception"]["causes"][0]["type"] == "builtins.ValueError"
        assert "test_observability" in event["exception"]["frames"][-1]

    def test_other_libraries_say_where_not_what(self, logged: Any) -> None:
        """Records of other libraries appear from "warning" up, with their template and without arguments."""
        stream = logged("debug")
        library = logging.getLogger("some.library")
        library.debug("request: %s", "my card")
        library.info("request: %s", "my card")
        library.warning("failed for %s", "my card")
        library.error("ready-made with my card")
        told = events(stream)
        assert [event["event"] for event in told] == ["library_log"] * 2
        assert told[0]["template"] == "failed for %s"
        assert "my card" not in stream.getvalue()

    @given(st.text())
    def test_no_message_of_an_exception_leaks(self, words: str) -> None:
        """Whatever an exception says, its description holds only its type and frames."""
        described = describe_exception(ValueError(words))
        assert described == {"type": "builtins.ValueError", "frames": []}

    @pytest.mark.parametrize("level", ["debug", "info"])
    async def test_nothing_personal_is_ever_logged(
        self, logged: Any, start_agent: Any, messages_api: Any, level: str
    ) -> None:
        """Through answers, fallbacks, refusals, bugs and dead letters no planted secret reaches the log."""
        stream = logged(level)
        agent = await start_agent(
            API_KEYS=SECRETS["the caller's API key"],
            ANTHROPIC_API_KEY=messages_api.key,
            ANTHROPIC_BASE_URL=messages_api.url,
            CLAUDE_RETRIES="1",
            QUEUE_MAX_TRIES="1",
            LOG_LEVEL=level,
        )
        key = SECRETS["the caller's API key"]
        headers = {"X-API-Key": key}
        message = {
            "customer_id": SECRETS["the customer's name"],
            "text": f"hm, {SECRETS['what the customer wrote']}",
        }

        async def post(body: Any, **more: Any) -> None:
            async with agent.client.post("/v1/messages", **{"headers": headers, "json": body, **more}) as got:
                await got.read()

        await post(message)
        messages_api.then(lambda: messages_api.error(500, json.dumps(message)))
        await post(message)
        messages_api.then(lambda: messages_api.error(400, json.dumps(message)))
        await post(message)
        await post({**message, "text": [message["text"]]})
        await post({**message, "conversation_id": SECRETS["what the customer wrote"]})
        await post(None, data=json.dumps(message) + "}", json=None)
        await post(message, headers={"Authorization": f"Bearer x{key}"})

        def bug(_text: str) -> Any:
            raise KeyError(message["text"])

        agent.parts.model.classifier.classify = bug
        await post(message)
        written = stream.getvalue()
        assert "message_answered" in written
        assert "task_dead" in written
        assert "provider_failed" in written
        for what, secret in SECRETS.items():
            assert secret not in written, what


class TestMetrics:
    async def test_the_contract_is_exposed(self, start_agent: Any) -> None:
        """The metrics that operators and dashboards build on are there after a message, by name and label."""
        agent = await start_agent()
        await agent.say("Where is my order A-1001?")
        async with agent.client.get("/metrics") as got:
            assert got.headers["Content-Type"].startswith("text/plain; version=")
            families = {family.name: family for family in text_string_to_metric_families(await got.text())}
        assert families.keys() >= {
            "agent_request",
            "agent_response_latency_seconds",
            "nlu_inference_time_seconds",
            "agent_queue_depth",
            "escalation_to_human",
            "agent_model_info",
            "agent_fallback",
            "agent_task",
            "agent_tokens",
            "agent_cost_usd",
            "agent_unpriced_reply",
            "agent_model_reload",
            "agent_model_reload_failed_info",
            "process_resident_memory_bytes",
        }
        (request,) = families["agent_request"].samples
        assert (request.name, request.labels) == ("agent_request_total", {"status": "200", "intent": "order_status"})
        (model,) = families["agent_model_info"].samples
        assert model.labels == {"version": "builtin", "digest": ""}

    async def test_every_message_is_counted_with_its_status(self, start_agent: Any) -> None:
        """Answers, refusals and unknown conversations are counted apart; other paths are not messages."""
        agent = await start_agent()
        await agent.say("hello")
        for body in ("{", '{"customer_id": "c"}', '{"customer_id": "c", "text": "t", "conversation_id": "x"}'):
            async with agent.client.post("/v1/messages", data=body, headers={"Content-Type": "application/json"}):
                pass
        async with agent.client.get("/v1/nothing"):
            pass
        counted = {
            status: await agent.metric(f'agent_request_total{{intent="none",status="{status}"}}')
            for status in (400, 404, 422)
        }
        assert counted == {400: 1, 404: 1, 422: 1}
        assert await agent.metric('agent_request_total{intent="greeting",status="200"}') == 1

    @given(st.lists(st.text(), max_size=50))
    def test_labels_are_bounded(self, intents: list[str]) -> None:
        """Whatever intents occur, only the model's labels and two more become label values."""
        metrics = Metrics()
        metrics.use_model("1", "sha256:x", ["refund"])
        for intent in intents:
            metrics.count_request(200, intent)
        (family,) = [f for f in metrics.registry.collect() if f.name == "agent_request"]
        assert {sample.labels["intent"] for sample in family.samples} <= {"refund", "other", "none"}

    @given(st.lists(st.text(min_size=1, max_size=300)))
    def test_language_models_are_bounded(self, names: list[str]) -> None:
        """Whatever models a service says it is, only so many become label values."""
        metrics = Metrics()
        for name in [*names, *(f"model-{number}" for number in range(50))]:
            metrics.count_usage(name, 1, 1, None)
        (family,) = [f for f in metrics.registry.collect() if f.name == "agent_unpriced_reply"]
        totals = [sample for sample in family.samples if sample.name.endswith("_total")]
        assert len(totals) <= 21
        assert sum(sample.value for sample in totals) == len(names) + 50

    def test_one_model_at_a_time(self) -> None:
        """After a change of model the old one is no longer told."""
        metrics = Metrics()
        metrics.use_model("1", "sha256:a", [])
        metrics.use_model("2", "sha256:b", [])
        assert metrics.registry.get_sample_value("agent_model_info", {"version": "1", "digest": "sha256:a"}) is None
        assert metrics.registry.get_sample_value("agent_model_info", {"version": "2", "digest": "sha256:b"}) == 1

    async def test_two_applications_count_apart(self, start_agent: Any) -> None:
        """Applications in one process don't share figures."""
        one, two = await asyncio.gather(start_agent(), start_agent())
        await one.say("hello")
        name = 'agent_request_total{intent="greeting",status="200"}'
        assert (await one.metric(name), await two.metric(name)) == (1, 0)


def test_provider_errors_keep_to_codes() -> None:
    """The message of a provider's error is made of its reason and a code, so that it may be logged."""
    assert str(ProviderError("rate_limited", "HTTP 429")) == "rate_limited: HTTP 429"
