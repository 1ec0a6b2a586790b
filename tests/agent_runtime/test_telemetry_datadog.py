from __future__ import annotations

import asyncio
import io
import itertools
import math
import runpy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from supportfleet_runtime.config import load
from supportfleet_runtime.errors import ConfigurationError, StorageUnavailableError
from supportfleet_runtime.observability.logs import configure_logging
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.observability.readings import Count, Level, Reading, Readings, Spread
from supportfleet_runtime.observability.statsd import PACKET, lines, packets
from supportfleet_runtime.telemetry import MetricsSender, datadog, trace_destinations

_receiver = runpy.run_path(str(Path(__file__).with_name("telemetry_receiver.py")))
KEY = "dd-0123456789abcdef0123456789abcdef"


@pytest.fixture
async def intake() -> AsyncIterator[Any]:
    """Datadog's intake."""
    async with _receiver["Receiver"]().serving() as running:
        yield running


class Agent(asyncio.DatagramProtocol):
    """Datadog's agent: ``told`` are the lines it was sent."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.arrived = asyncio.Event()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        assert len(data) <= PACKET
        self.told += data.decode().split("\n")
        self.arrived.set()


class TestTheIntake:
    async def test_it_is_sent_traces_and_metrics(self, start_agent: Any, intake: Any) -> None:
        """With a key alone Datadog gets both, with the key as its header, deltas, and who it is about."""
        agent = await start_agent(DATADOG_API_KEY=KEY, DD_OTLP_ENDPOINT=intake.url, POD_NAME="p-1")
        await agent.say("hello")
        await agent.say("hello")
        await intake.until("work")
        await agent.parts.telemetry.close()
        assert {headers["dd-api-key"] for headers in intake.headers} == {KEY}
        assert {headers["compute_stats"] for headers in intake.headers if "compute_stats" in headers} == {"true"}
        (group,) = intake.metrics[0].resource_metrics
        assert {"k8s.pod.name": "p-1"}.items() <= {
            one.key: one.value.string_value for one in group.resource.attributes
        }.items()
        found = {metric.name: metric for metric in group.scope_metrics[0].metrics}
        requests = found["agent_request_total"].sum
        assert (requests.is_monotonic, requests.aggregation_temporality) == (True, pb.AGGREGATION_TEMPORALITY_DELTA)
        assert sum(point.as_double for point in requests.data_points) == 2
        latency = found["agent_response_latency_seconds"].histogram
        assert latency.aggregation_temporality == pb.AGGREGATION_TEMPORALITY_DELTA
        assert latency.data_points[0].count == sum(latency.data_points[0].bucket_counts) == 2

    async def test_the_key_is_nowhere_else(self, start_agent: Any, intake: Any) -> None:
        """Neither where it is taken nor where it is refused is the key in a log, a metric or a body."""
        stream = io.StringIO()
        configure_logging("debug", stream)
        agent = await start_agent(DATADOG_API_KEY=KEY, DD_OTLP_ENDPOINT=intake.url, LOG_LEVEL="debug")
        await agent.say("hello")
        await intake.until("work")
        intake.status = 403
        await agent.say("hello")
        await agent.parts.telemetry.close()
        assert "telemetry_not_delivered" in stream.getvalue()
        for where in (stream.getvalue(), agent.parts.metrics.render().decode(), repr(agent.parts.settings)):
            assert KEY not in where
        assert KEY.encode() not in b"".join(intake.bodies)
        assert KEY not in repr(trace_destinations(agent.parts.settings))

    def test_each_site_has_its_own(self) -> None:
        """The address is the site's; what is no site is refused."""
        settings = load({"DATADOG_API_KEY": KEY, "DD_SITE": "us3.datadoghq.com"}).settings
        assert datadog(settings, "traces").url == "https://otlp.us3.datadoghq.com/v1/traces"
        with pytest.raises(ConfigurationError, match="DD_SITE"):
            load({"DD_SITE": "evil.example/x"})

    def test_a_collector_and_datadog_have_each_their_own_key(self) -> None:
        """Where traces go to both, neither is sent the other's headers."""
        settings = load(
            {"ENABLE_TRACING": "true", "OTEL_EXPORTER_OTLP_HEADERS": "api-key=theirs", "DATADOG_API_KEY": KEY}
        ).settings
        collector, intake = trace_destinations(settings)
        assert collector.headers == {"api-key": "theirs"}
        assert intake.headers == {"dd-api-key": KEY, "compute_stats": "true"}


class TestTheAgent:
    async def test_it_is_sent_metrics(self, start_agent: Any, intake: Any) -> None:
        """With an agent on the node metrics go there by DogStatsD, and not to the intake as well."""
        loop = asyncio.get_running_loop()
        transport, told = await loop.create_datagram_endpoint(Agent, local_addr=("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        agent = await start_agent(
            DATADOG_API_KEY=KEY,
            DD_OTLP_ENDPOINT=intake.url,
            DD_AGENT_HOST="127.0.0.1",
            DD_DOGSTATSD_PORT=str(port),
            AGENT_NAME="shop",
        )
        await agent.say("hello")
        await agent.parts.telemetry.close()
        await asyncio.wait_for(told.arrived.wait(), 10)
        async with asyncio.timeout(10):
            while not any(line.startswith("agent_task_total") for line in told.told):  # noqa: ASYNC110 - lines come
                await asyncio.sleep(0.01)
        transport.close()
        tags = "service:shop,kube_namespace:default,pod_name:local"
        assert f"agent_request_total:1|c|#{tags},status:200,intent:greeting" in told.told
        assert not intake.metrics

    @given(st.lists(st.text(max_size=30), max_size=200))
    def test_lines_hold_together(self, texts: list[str]) -> None:
        """Whatever labels say, a line stays a line with its tags, and packets are small and whole."""
        given_lines = list(lines([Count("m", (("label", text),), 1.0) for text in texts], {}))
        assert all(line.startswith("m:1|c|#label:") and len(line.splitlines()) == 1 for line in given_lines)
        sent = list(packets(given_lines))
        assert b"\n".join(sent).decode() == "\n".join(given_lines)
        assert all(len(packet) <= PACKET for packet in sent)


class TestReadings:
    def test_a_counter_is_told_by_its_change(self) -> None:
        """Each reading begins where the last one ended; what stands still is not told."""
        registry = CollectorRegistry()
        counter = Counter("c", "c", ["l"], registry=registry)
        readings = Readings(registry)
        counter.labels("a").inc(2)
        assert [one for one in readings.take() if one.name == "c_total"] == [Count("c_total", (("l", "a"),), 2.0)]
        counter.labels("a").inc(3)
        counter.labels("b").inc()
        told = [one for one in readings.take() if one.name == "c_total"]
        assert told == [Count("c_total", (("l", "a"),), 3.0), Count("c_total", (("l", "b"),), 1.0)]
        assert [one for one in readings.take() if one.name == "c_total"] == []

    def test_a_gauge_is_told_as_it_is(self) -> None:
        """One that is not known is not told."""
        registry = CollectorRegistry()
        gauge = Gauge("g", "g", registry=registry)
        readings = Readings(registry)
        gauge.set(4)
        assert list(readings.take()) == list(readings.take()) == [Level("g", (), 4.0)]
        gauge.set(math.nan)
        assert list(readings.take()) == []

    @given(st.lists(st.lists(st.floats(0, 20), max_size=20), max_size=5))
    def test_a_histogram_is_told_by_what_it_took(self, rounds: list[list[float]]) -> None:
        """Its readings add up to all it was given, each value in the right bucket."""
        registry = CollectorRegistry()
        histogram = Histogram("h", "h", buckets=(1, 5, 10), registry=registry)
        readings = Readings(registry)
        for values in rounds:
            for value in values:
                histogram.observe(value)
            told: list[Reading] = [one for one in readings.take() if one.name == "h"]
            if not values:
                assert told == []
                continue
            (spread,) = told
            assert isinstance(spread, Spread)
            bounds = (-math.inf, 1, 5, 10, math.inf)
            expected = [sum(low < value <= high for value in values) for low, high in itertools.pairwise(bounds)]
            assert (spread.bounds, list(spread.counts)) == ((1, 5, 10), expected)
            assert spread.sum == pytest.approx(sum(values))

    async def test_an_unknown_depth_is_not_told(self) -> None:
        """Metrics are read though the database is away; the queue's depth is then left out."""
        told: list[Reading] = []

        async def away() -> int:
            raise StorageUnavailableError("away")

        async def deliver(readings: Any) -> None:
            told.extend(readings)

        await MetricsSender(Metrics(), away, deliver).read()
        assert told
        assert "agent_queue_depth" not in {one.name for one in told}
