"""Kafka: a topic for each queue, one consumer group.

A partition's messages are acknowledged in order and in one step, by committing how far its tasks have been claimed. As
tasks are claimed at once and worked afterwards, a slow task holds up no partition. Messages carry no key: the table
keeps conversations in order. Rejected messages go to the topic ``<name>.dead``.

The client is aiokafka: it is asyncio all through (confluent-kafka runs librdkafka's threads and hands each message
over), its wheels are a tenth of the size, and what librdkafka does faster is not needed for ids of 31 bytes. It mends
its connections by itself, and says so ten times a second: the queue's own log tells it once.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    RebalanceInProgressError,
    TopicAlreadyExistsError,
    for_code,
)

from supportfleet_runtime.queue.broker import CALL_SECONDS, Delivery

FAILURES: Final = (KafkaError,)
SESSION_MS: Final = 10_000
"""After how long a process that fell silent loses its partitions to the others."""
HEARTBEAT_MS: Final = 3_000
MOST_REPLICAS: Final = 3
PATIENCE: Final = 60.0
"""How long aiokafka may take to mend a connection."""
BACKOFF_MS: Final = 500


@dataclass(frozen=True)
class Cluster:
    """How a cluster is reached, and what its topics are made like."""

    servers: str
    security: Mapping[str, Any]
    partitions: int
    replicas: int | None
    """Copies of a new topic; ``None``: three, or as many as there are brokers."""


class KafkaLink:
    """A producer and, from the first ``receive`` on, a consumer.

    Whoever only sends must not join the group: it would be given partitions, and read none of them.
    """

    def __init__(self, producer: Any, make_consumer: Callable[[], Any], topic: str) -> None:
        self._producer = producer
        self._make_consumer = make_consumer
        self._consumer: Any = None
        self._topic = topic

    async def send(self, bodies: Sequence[bytes], urgent: Collection[bytes] = ()) -> None:  # noqa: ARG002 - all are alike
        """Produce, and wait until all in-sync replicas have them."""
        await self._produce(self._topic, bodies)

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Poll the partitions that are this process's."""
        if self._consumer is None:
            self._consumer = await _started(self._make_consumer())
        got = await self._consumer.getmany(timeout_ms=round(wait * 1000), max_records=limit)
        return [
            Delivery(record.value or b"", (partition, record.offset))
            for partition, records in got.items()
            for record in records
        ]

    async def settle(self, done: Sequence[Delivery], rejected: Sequence[Delivery]) -> None:
        """Copy the rejected to their topic, and commit.

        A partition that is another's by now is no failure: its messages come again there.
        """
        await self._produce(f"{self._topic}.dead", [delivery.body for delivery in rejected])
        ends: dict[Any, int] = {}
        for partition, offset in (delivery.tag for delivery in (*done, *rejected)):
            ends[partition] = max(ends.get(partition, 0), offset + 1)
        try:
            await self._consumer.commit(ends)
        except (CommitFailedError, IllegalStateError, RebalanceInProgressError):
            return

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Go back to where each partition was."""
        starts: dict[Any, int] = {}
        for partition, offset in (delivery.tag for delivery in deliveries):
            starts[partition] = min(starts.get(partition, offset), offset)
        for partition, offset in starts.items():
            if partition in self._consumer.assignment():
                self._consumer.seek(partition, offset)

    async def close(self) -> None:
        """Leave the group, and close all connections. During an outage ``stop`` is cancelled by its own clean-up."""
        clients = [client for client in (self._consumer, self._producer) if client is not None]
        await asyncio.gather(*(client.stop() for client in clients), return_exceptions=True)

    async def _produce(self, topic: str, bodies: Sequence[bytes]) -> None:
        sent = [await self._producer.send(topic, body) for body in bodies]
        await asyncio.gather(*sent)


async def connect(cluster: Cluster, queue: str) -> KafkaLink:
    """Connect, and make the topics where they are missing."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    client = {
        "bootstrap_servers": cluster.servers,
        "client_id": "supportfleet",
        "retry_backoff_ms": BACKOFF_MS,
        **with_context(cluster.security),
    }
    await _make_topics(client, cluster, [queue, f"{queue}.dead"])
    producer = AIOKafkaProducer(
        acks="all", enable_idempotence=True, request_timeout_ms=round(CALL_SECONDS * 1000), **client
    )

    def make_consumer() -> Any:
        return AIOKafkaConsumer(
            queue,
            group_id=queue,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            **client,
        )

    return KafkaLink(await _started(producer), make_consumer, queue)


async def _started(client: Any) -> Any:
    try:
        await client.start()
    except BaseException:
        await client.stop()
        raise
    return client


def with_context(security: Mapping[str, Any]) -> dict[str, Any]:
    """What clients are told of a cluster's security, with the certificates that encryption takes."""
    encrypted = str(security.get("security_protocol", "")).endswith("SSL")
    return {**security, **({"ssl_context": ssl.create_default_context()} if encrypted else {})}


async def _make_topics(client: Mapping[str, Any], cluster: Cluster, names: Sequence[str]) -> None:
    admin = AIOKafkaAdminClient(request_timeout_ms=round(CALL_SECONDS * 1000), **client)
    try:
        await admin.start()
        existing = set(await admin.list_topics())
        missing = [name for name in names if name not in existing]
        if not missing:
            return
        brokers = len((await admin.describe_cluster())["brokers"])
        replicas = cluster.replicas or min(MOST_REPLICAS, brokers)
        topics = [NewTopic(name, cluster.partitions, replicas) for name in missing]
        for _, code, _ in (await admin.create_topics(topics)).topic_errors:
            if code not in {0, TopicAlreadyExistsError.errno}:
                raise for_code(code)
    finally:
        await admin.close()
