"""The queue that is configured."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime

from supportfleet_runtime.queue.broker import Backend, Broker
from supportfleet_runtime.queue.brokered import BrokeredQueue
from supportfleet_runtime.queue.port import Queue
from supportfleet_runtime.queue.settings import QueueAddress, QueueType, broker_name, kafka_address, sqs_address
from supportfleet_runtime.queue.sql import SqlQueue
from supportfleet_runtime.queue.wakeup import Wakeup
from supportfleet_runtime.storage.database import Database

# ruff: noqa: PLC0415 - a client library is imported where its broker is configured, and nowhere else


def make_queue(
    database: Database,
    name: str,
    *,
    scope: str,
    address: QueueAddress,
    consumer: str,
    lease: float,
    wakeup: Wakeup,
    now: Callable[[], datetime],
) -> Queue:
    """The queue ``name`` of the agent ``scope``. ``consumer`` is what a broker shows for this process."""
    store = SqlQueue(database, name, lease=lease, now=now, scope=scope)
    if address.type is QueueType.SQL:
        return store
    backend = make_backend(address, broker_name(name), f"{consumer}-{secrets.token_hex(4)}")
    return BrokeredQueue(store, Broker(backend), wakeup)


def make_backend(address: QueueAddress, queue: str, consumer: str) -> Backend:
    """How to reach a broker's queue of that name. Nothing is opened yet."""
    if address.type is QueueType.REDIS:
        from supportfleet_runtime.queue.brokers import redis_streams

        return Backend(lambda: redis_streams.connect(address.url, queue, consumer), redis_streams.FAILURES)
    if address.type is QueueType.RABBITMQ:
        from supportfleet_runtime.queue.brokers import rabbitmq

        return Backend(lambda: rabbitmq.connect(address.url, queue), rabbitmq.FAILURES)
    if address.type is QueueType.KAFKA:
        from supportfleet_runtime.queue.brokers import kafka

        at = kafka_address(address.url)
        cluster = kafka.Cluster(at.servers, at.security, at.partitions, at.replicas)
        return Backend(lambda: kafka.connect(cluster, queue), kafka.FAILURES, kafka.PATIENCE)
    if address.type is QueueType.SQS:
        from supportfleet_runtime.queue.brokers import sqs

        where = sqs_address(address.url)
        return Backend(lambda: sqs.connect(where.region, where.endpoint, queue), sqs.FAILURES)
    raise ValueError(f"{address.type} has no broker")
