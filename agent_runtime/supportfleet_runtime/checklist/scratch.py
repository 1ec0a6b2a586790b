"""Removing a scratch queue from its broker, with whatever belongs to it."""

from __future__ import annotations

import asyncio
from typing import Final

from supportfleet_runtime.queue.broker import BrokerUnavailableError
from supportfleet_runtime.queue.settings import QueueAddress, QueueType, kafka_address, sqs_address

# ruff: noqa: PLC0415 - a client library is imported where its broker is configured, and nowhere else

SECONDS: Final = 20.0


async def remove(address: QueueAddress, queue: str) -> None:
    """Remove it; in the database there is nothing but its rows."""
    if address.type is QueueType.SQL:
        return
    remover = {
        QueueType.REDIS: _from_redis,
        QueueType.RABBITMQ: _from_rabbitmq,
        QueueType.KAFKA: _from_kafka,
        QueueType.SQS: _from_sqs,
    }[address.type]
    try:
        async with asyncio.timeout(SECONDS):
            await remover(address.url, queue)
    except Exception as error:  # each library has errors of its own, and all mean the same here
        raise BrokerUnavailableError(f"the scratch queue {queue} is left behind: {type(error).__name__}") from error


async def _from_redis(url: str, queue: str) -> None:
    from redis.asyncio import Redis

    client = Redis.from_url(url)
    try:
        key = f"supportfleet:{{{queue}}}"
        await client.delete(key, f"{key}:dead")
    finally:
        await client.aclose()


async def _from_rabbitmq(url: str, queue: str) -> None:
    import aio_pika

    async with await aio_pika.connect(url, timeout=SECONDS) as connection:
        channel = await connection.channel()
        await channel.queue_delete(queue)
        await channel.queue_delete(f"{queue}.dead")


async def _from_kafka(url: str, queue: str) -> None:
    from aiokafka.admin import AIOKafkaAdminClient

    from supportfleet_runtime.queue.brokers.kafka import with_context

    at = kafka_address(url)
    admin = AIOKafkaAdminClient(bootstrap_servers=at.servers, **with_context(at.security))
    try:
        await admin.start()
        await admin.delete_topics([queue, f"{queue}.dead"])
    finally:
        await admin.close()


async def _from_sqs(url: str, queue: str) -> None:
    from aiobotocore.session import get_session

    at = sqs_address(url)
    async with get_session().create_client("sqs", region_name=at.region, endpoint_url=at.endpoint) as client:
        for name in (queue, f"{queue}-dead"):
            await client.delete_queue(QueueUrl=(await client.get_queue_url(QueueName=name))["QueueUrl"])
