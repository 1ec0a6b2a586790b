from __future__ import annotations

import asyncio
import io
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from supportfleet_runtime.config import load
from supportfleet_runtime.errors import ConfigurationError
from supportfleet_runtime.observability.logs import configure_logging
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.observability.otlp_headers import otlp_headers
from supportfleet_runtime.observability.outbox import BATCH, Destination, Outbox
from supportfleet_runtime.observability.tracing import NOTHING, Field, Kind, in_hand, span, traceparent
from supportfleet_runtime.observability.tracing_otlp import OtlpTracer, encode
from supportfleet_runtime.telemetry import make_telemetry

_receiver = runpy.run_path(str(Path(__file__).with_name("telemetry_receiver.py")))
MISSING_MODEL = "sha256:" + "a" * 64
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MESSAGE = {"customer_id": "cust-1001", "text": "Do your boots run small?"}


@pytest.fixture
async def collector() -> AsyncIterator[Any]:
    """A collector that runs."""
    async with _receiver["Receiver"]().serving() as running:
        yield running


def traced(collector: Any, **more: str) -> dict[str, str]:
    return {"ENABLE_TRACING": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **more}


def below(spans: Sequence[Any], top: Any) -> dict[str, Any]:
    """The spans right below another, by name."""
    return {one.name: one for one in spans if one.parent == top.id and one.trace == top.trace}


async def no_depth() -> int:
    return 0


def kept() -> tuple[OtlpTracer, list[Any]]:
    """A tracer whose spans are kept."""
    spans: list[Any] = []

    class Keeping:
        def put(self, item: Any) -> None:
            spans.append(item)

    return OtlpTracer([Keeping()], {"service.name": "test"}), spans  # type: ignore[list-item]


class TestATrace:
    async def test_it_spans_the_queue_and_two_processes(
        self, start_agent: Any, messages_api: Any, collector: Any, database_url: str, tmp_path: Path
    ) -> None:
        """A message that one process accepts and another answers is one trace, from the caller's span to the store."""
        model = {"ANTHROPIC_API_KEY": messages_api.key, "ANTHROPIC_BASE_URL": messages_api.url}
        gateway = await start_agent(
            until_ready=False,
            MODEL_DIGEST=MISSING_MODEL,
            POD_NAME="gateway",
            API_TIMEOUT_SECONDS="90",
            **traced(collector),
        )
        environ = {
            **os.environ,
            **traced(collector),
            **model,
            "DATABASE_URL": database_url,
            "MODEL_DIR": str(tmp_path),
            "API_PORT": "0",
            "POD_NAME": "worker",
        }
        command = (sys.executable, "-m", "supportfleet_runtime", "serve")
        worker = await asyncio.create_subprocess_exec(*command, env=environ, stderr=subprocess.DEVNULL)
        try:
            async with asyncio.timeout(60):
                while gateway.parts.progress.schema is not None:  # noqa: ASYNC110 - it sets no event
                    await asyncio.sleep(0.02)
            headers = {"traceparent": CALLER}
            async with gateway.client.post("/v1/messages", json=MESSAGE, headers=headers) as got:
                body = await got.json(content_type=None)
                assert (got.status, body.get("source")) == (200, "model"), body
            spans = await collector.until("POST /v1/messages", "store")
        finally:
            worker.send_signal(signal.SIGTERM)
            await asyncio.wait_for(worker.wait(), 60)
        assert {one.trace for one in spans} == {CALLER.split("-")[1]}
        request = collector.named("POST /v1/messages")
        assert (request.parent, request.kind) == (CALLER.split("-")[2], "SERVER")
        assert below(spans, request).keys() == {"accept", "reply", "queue wait", "work"}
        working = collector.named("work")
        assert below(spans, working).keys() == {"load", "nlu", "rung", "store"}
        (call,) = below(spans, collector.named("rung")).values()
        assert (call.name, call.kind) == ("model call", "CLIENT")
        assert call.fields["gen_ai.usage.output_tokens"] == 7
        pods = {one.name: one.resource["k8s.pod.name"] for one in spans}
        assert (pods["accept"], pods["queue wait"], pods["store"]) == ("gateway", "worker", "worker")
        accepted, waited = collector.named("accept"), collector.named("queue wait")
        assert request.begun <= accepted.begun
        assert waited.ended <= working.begun <= collector.named("store").ended

    async def test_rules_and_failures_show(self, start_agent: Any, messages_api: Any, collector: Any) -> None:
        """What rules answer says so; a model call that failed is told by its code, on its rung."""
        agent = await start_agent(
            ANTHROPIC_API_KEY=messages_api.key,
            ANTHROPIC_BASE_URL=messages_api.url,
            CLAUDE_RETRIES="0",
            **traced(collector),
        )
        await agent.say("hello")
        await collector.until("rules", "work")
        assert collector.named("rules").fields == {"supportfleet.intent": "greeting", "supportfleet.found": True}
        messages_api.then(lambda: messages_api.error(529))
        await agent.say(MESSAGE["text"])
        await collector.until("model call")
        failed = {one.name: one.fields.get("error.type") for one in collector.spans if one.failed}
        assert failed == {"model call": "overloaded", "rung": "overloaded"}

    async def test_a_refused_request_is_a_span_too(self, start_agent: Any, collector: Any) -> None:
        """Its status is told; where it was going, if that is known, and never what the caller wrote there."""
        agent = await start_agent(**traced(collector))
        async with agent.client.request("PROPFIND", "/v1/secret-4111") as got:
            assert got.status == 404
        await agent.client.get("/healthz")
        (seen,) = await collector.until("_OTHER _OTHER")
        assert seen.fields["http.response.status_code"] == 404
        assert b"4111" not in b"".join(collector.bodies)

    async def test_lines_of_the_log_name_their_trace(self, start_agent: Any, collector: Any) -> None:
        """A line that is written within a span has the trace's and the span's id, so that one finds the other."""
        stream = io.StringIO()
        configure_logging("info", stream)
        agent = await start_agent(**traced(collector))
        async with agent.client.post("/v1/messages", json=MESSAGE, headers={"traceparent": CALLER}) as got:
            assert got.status == 200
        request = (await collector.until("POST /v1/messages"), collector.named("POST /v1/messages"))[1]
        events = {event["event"]: event for event in map(json.loads, stream.getvalue().splitlines())}
        assert (events["message_answered"]["trace_id"], events["message_answered"]["span_id"]) == (
            request.trace,
            request.id,
        )
        assert "trace_id" not in events["ready"]


class TestSampling:
    async def test_who_does_not_sample_is_heeded(self) -> None:
        """Of a caller's trace that is not sampled nothing is sent, and whoever goes on is told so."""
        tracer, spans = kept()
        with tracer.begin("top", parent=CALLER[:-1] + "0"), span("below"):
            assert (traceparent() or "").endswith("-00")
            assert (traceparent() or "").split("-")[1] == CALLER.split("-")[1]
        assert spans == []

    @pytest.mark.parametrize(
        "given",
        [
            "",
            "garbage",
            CALLER.upper(),
            CALLER.replace("00-", "ff-", 1),
            f"00-{'0' * 32}-b7ad6b7169203331-01",
            f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
            CALLER + "x",
        ],
    )
    async def test_a_bad_traceparent_begins_a_trace(self, given: str) -> None:
        """What is no ``traceparent`` is as if there were none."""
        tracer, spans = kept()
        with tracer.begin("top", parent=given):
            pass
        assert (spans[0].parent, len(spans)) == (None, 1)


class TestASpan:
    async def test_nothing_is_in_hand_without_a_trace(self) -> None:
        """Where no trace was begun a span is nothing, and costs no more than finding that out."""
        with span("nlu", {Field.INTENT: "refund"}) as opened:
            assert opened is NOTHING
            assert in_hand() is NOTHING
        assert traceparent() is None

    async def test_tasks_have_their_own(self) -> None:
        """Work that runs at the same time has each its own span in hand."""
        tracer, spans = kept()

        async def work(name: str) -> None:
            with tracer.begin(name):
                await asyncio.sleep(0)
                with span(f"below {name}", kind=Kind.CLIENT):
                    await asyncio.sleep(0)

        await asyncio.gather(work("a"), work("b"))
        parents = {one.name: one.parent.span_id for one in spans if one.parent}
        ids = {one.name: one.context.span_id for one in spans}
        assert parents == {"below a": ids["a"], "below b": ids["b"]}

    async def test_a_failure_is_told_by_its_kind(self) -> None:
        """An exception's words stay out of its span."""
        tracer, spans = kept()
        with pytest.raises(ValueError, match="4111"), tracer.begin("top"):
            raise ValueError("my card is 4111")
        assert spans[0].attributes == {"error.type": "ValueError"}
        assert not spans[0].events
        assert b"4111" not in encode(spans)


class TestAnOutbox:
    async def test_a_collector_that_is_away_costs_a_count(self, collector: Any) -> None:
        """What doesn't fit is dropped and counted at once; what does is sent when the collector is back."""
        lost: list[tuple[int, str]] = []
        box = Outbox[bytes](
            Destination("otlp", f"{collector.url}/v1/traces"), b"".join, lambda *it: lost.append(it), size=BATCH + 1
        )
        collector.status = 503
        for _ in range(BATCH + 3):
            box.put(b"")
        assert lost == [(1, "full")] * 2
        assert not await box._send_all()
        collector.status = 200
        await box.close(10)
        assert (len(lost), collector.requests) == (2, 3)

    async def test_a_refusal_is_final(self, collector: Any) -> None:
        """What a collector refuses for good, as with a wrong key, is dropped and counted; no one waits for it."""
        lost: list[tuple[int, str]] = []
        box = Outbox[bytes](Destination("otlp", f"{collector.url}/v1/traces"), b"".join, lambda *it: lost.append(it))
        collector.status = 403
        box.put(b"")
        await box.close(10)
        assert lost == [(1, "refused")]

    async def test_a_process_does_not_wait_for_it_to_end(self) -> None:
        """A collector that takes connections and says nothing holds up a stop no longer than its grace."""
        left = asyncio.Event()

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()
            left.set()

        server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        lost: list[tuple[int, str]] = []
        box = Outbox[bytes](Destination("otlp", f"http://127.0.0.1:{port}/"), b"".join, lambda *it: lost.append(it))
        box.put(b"")
        await box.close(0.2)
        await asyncio.wait_for(left.wait(), 10)
        server.close()
        assert lost == [(1, "unsent")]

    async def test_answers_do_not_wait_for_a_collector(self, start_agent: Any) -> None:
        """With the collector out of reach messages are answered as ever."""
        agent = await start_agent(ENABLE_TRACING="true", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
        assert (await agent.say("hello"))["source"] == "rules"

    async def test_headers_and_compression_are_as_set(self, start_agent: Any, collector: Any, tmp_path: Path) -> None:
        """The standard variables are heeded: the headers, which may come from a file, and gzip."""
        (tmp_path / "headers").write_text("api-key=a%20b,other=1\n")
        agent = await start_agent(
            **traced(
                collector,
                OTEL_EXPORTER_OTLP_HEADERS_FILE=str(tmp_path / "headers"),
                OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
            )
        )
        await agent.say("hello")
        await collector.until("work")
        assert (collector.headers[0]["api-key"], collector.headers[0]["other"]) == ("a b", "1")
        assert collector.headers[0]["Content-Encoding"] == "gzip"


class TestConfiguration:
    def test_off_imports_nothing(self) -> None:
        """Without tracing nothing of OpenTelemetry is loaded, neither by the program nor by building the app."""
        code = (
            "import sys; from supportfleet_runtime.app import build; from supportfleet_runtime.config import load; "
            "build(load({'DATABASE_URL': 'sqlite:///x'})); "
            "print([name for name in sys.modules if name.startswith('opentelemetry')])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/tmp")
        assert done.stdout.strip() == "[]"

    def test_off_is_the_default(self) -> None:
        """Without ENABLE_TRACING no trace is begun and nothing is sent, whatever the other variables say."""
        configuration = load({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})
        telemetry = make_telemetry(configuration, Metrics(), no_depth)
        assert not telemetry.traces
        assert not telemetry.senders

    @pytest.mark.parametrize("given", ["key", "a b=c", "key=%0A", "=x"])
    def test_bad_headers_are_told_without_their_value(self, given: str) -> None:
        """A list of headers that is none is an error at the start that doesn't repeat it."""
        with pytest.raises(ConfigurationError) as error:
            load({"OTEL_EXPORTER_OTLP_HEADERS": f"good=s3cr3t,{given}"})
        assert error.value.problems[0].name == "OTEL_EXPORTER_OTLP_HEADERS"
        assert "s3cr3t" not in str(error.value)

    def test_headers_are_decoded(self) -> None:
        """Values are percent-encoded, and may hold an equals sign."""
        assert otlp_headers("a=b%2Cc, d=e=f,") == {"a": "b,c", "d": "e=f"}
