"""RabbitMQ: a quorum queue, publisher confirms, explicit acknowledgement.

A consumer exists while a worker has room and waits, so no messages gather at a worker that is full. Messages that are
no tasks, and one that was delivered ``DELIVERY_LIMIT`` times without an acknowledgement, go to the dead-letter queue
``<name>.dead``. A connection that broke is not mended (aio-pika's robust connections have been seen to come back
without their consumer): another one is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any, Final

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError
from pamqp.exceptions import PAMQPException

from supportfleet_runtime.queue.broker import CONNECT_SECONDS, MAX_REJECTED, Delivery

FAILURES: Final = (AMQPError, ChannelInvalidStateError, PAMQPException)
DELIVERY_LIMIT: Final = 20
UNUSED_MS: Final = 14 * 24 * 3600 * 1000
"""After how long the queue of a revision that is gone is removed."""
URGENT: Final = 9
"""The priority of what is urgent: for a quorum queue above 4 is high (from 4.0 on), and gets two turns of three."""
LINGER: Final = 0.003
"""How long the next message of a batch may take to arrive."""


class RabbitLink:
    """A connection with a channel to send and one to receive."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._sending: AbstractChannel
        self._receiving: AbstractChannel
        self._queue: AbstractQueue
        self._prefetch = 0

    async def prepare(self, name: str) -> None:
        """Open the channels, and declare the queues."""
        self._sending = await self._connection.channel(publisher_confirms=True)
        self._receiving = await self._connection.channel(publisher_confirms=False)
        quorum: dict[str, Any] = {"x-queue-type": "quorum"}
        dead = f"{name}.dead"
        about_dead = {**quorum, "x-max-length": MAX_REJECTED, "x-expires": UNUSED_MS}
        await self._receiving.declare_queue(dead, durable=True, arguments=about_dead)
        arguments = {
            **quorum,
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-expires": UNUSED_MS,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead,
        }
        self._queue = await self._receiving.declare_queue(name, durable=True, arguments=arguments)

    async def send(self, bodies: Sequence[bytes], urgent: Collection[bytes] = ()) -> None:
        """Publish, and wait for all confirmations."""
        exchange = self._sending.default_exchange
        mode = aio_pika.DeliveryMode.PERSISTENT
        messages = [
            aio_pika.Message(body, delivery_mode=mode, priority=URGENT if body in urgent else None) for body in bodies
        ]
        await asyncio.gather(
            *(exchange.publish(message, routing_key=self._queue.name, mandatory=True) for message in messages)
        )

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Consume until there is a batch, or nothing more at the moment."""
        if limit != self._prefetch:
            await self._receiving.set_qos(prefetch_count=limit)
            self._prefetch = limit
        arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        tag = await self._queue.consume(arrived.put)
        got: list[AbstractIncomingMessage] = []
        try:
            async with asyncio.timeout(wait) as patience:
                while len(got) < limit:
                    got.append(await arrived.get())
                    patience.reschedule(asyncio.get_running_loop().time() + LINGER)
        except TimeoutError:
            pass  # that is all there is
        await self._queue.cancel(tag)
        while not arrived.empty():  # what came before the consumer was gone
            got.append(arrived.get_nowait())
        return [Delivery(message.body, message) for message in got]

    async def settle(self, done: Sequence[Delivery], rejected: Sequence[Delivery]) -> None:
        """Acknowledge each; the rejected are dead-lettered."""
        for delivery in rejected:
            await delivery.tag.reject(requeue=False)
        for delivery in done:
            await delivery.tag.ack()

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Put them back into the queue."""
        for delivery in deliveries:
            await delivery.tag.nack(requeue=True)

    async def close(self) -> None:
        """Close the connection; what is not acknowledged goes back."""
        await self._connection.close()


async def connect(url: str, queue: str) -> RabbitLink:
    """Connect, and declare what is missing."""
    connection = await aio_pika.connect(url, timeout=CONNECT_SECONDS, client_properties={"connection_name": queue})
    link = RabbitLink(connection)
    try:
        await link.prepare(queue)
    except BaseException:
        await link.close()
        raise
    return link
