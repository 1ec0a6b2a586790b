"""Amazon SQS, over aiobotocore: it finds credentials the ways pods get them (IRSA, Pod Identity, instance profiles).

What was received is invisible to others for ``VISIBILITY`` seconds, far longer than claiming a task takes; if the
process is gone by then it is delivered to another. A message that was delivered ``MAX_RECEIVES`` times without being
deleted, or is no task's id, goes to the queue ``<name>-dead``. A standard queue is enough: the table keeps
conversations in order and drops duplicates for good, which a FIFO queue does for five minutes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, TypeVar

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from supportfleet_runtime.queue.broker import CALL_SECONDS, CONNECT_SECONDS, Delivery

FAILURES: Final = (BotoCoreError, ClientError, HTTPClientError)
BATCH: Final = 10  # SQS's own limit
VISIBILITY: Final = 30
MAX_RECEIVES: Final = 20
RETENTION: Final = 14 * 24 * 3600  # the longest there is
MISSING: Final = "QueueDoesNotExist"

T = TypeVar("T")


class SqsLink:
    """A queue and its dead-letter queue."""

    def __init__(self, client: Any, closing: contextlib.AsyncExitStack) -> None:
        self._client = client
        self._closing = closing
        self._url = ""
        self._dead_url = ""

    async def prepare(self, name: str) -> None:
        """Find the queues, or make them."""
        self._dead_url = await self._find_or_make(f"{name}-dead", {})
        about = await self._client.get_queue_attributes(QueueUrl=self._dead_url, AttributeNames=["QueueArn"])
        redrive = {"deadLetterTargetArn": about["Attributes"]["QueueArn"], "maxReceiveCount": MAX_RECEIVES}
        attributes = {"VisibilityTimeout": str(VISIBILITY), "RedrivePolicy": json.dumps(redrive)}
        self._url = await self._find_or_make(name, attributes)

    async def send(self, bodies: Sequence[bytes], urgent: Collection[bytes] = ()) -> None:  # noqa: ARG002 - all are alike
        """Send in batches of ten."""
        await self._send(self._url, [body.decode() for body in bodies])

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Up to ten messages, by long polling."""
        got = await self._client.receive_message(
            QueueUrl=self._url, MaxNumberOfMessages=min(BATCH, limit), WaitTimeSeconds=max(1, round(wait))
        )
        return [Delivery(one["Body"].encode(), one["ReceiptHandle"]) for one in got.get("Messages", ())]

    async def settle(self, done: Sequence[Delivery], rejected: Sequence[Delivery]) -> None:
        """Copy the rejected to the dead-letter queue, and delete all. What isn't deleted comes again."""
        await self._send(self._dead_url, [delivery.body.decode() for delivery in rejected])
        for entries in _batches((*done, *rejected), lambda delivery: {"ReceiptHandle": delivery.tag}):
            await self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Make them visible at once."""
        for entries in _batches(deliveries, lambda one: {"ReceiptHandle": one.tag, "VisibilityTimeout": 0}):
            await self._client.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)

    async def close(self) -> None:
        """Close all connections."""
        await self._closing.aclose()

    async def _send(self, url: str, bodies: Sequence[str]) -> None:
        for entries in _batches(bodies, lambda body: {"MessageBody": body}):
            done = await self._client.send_message_batch(QueueUrl=url, Entries=entries)
            if done.get("Failed"):
                raise OSError(f"SQS refused {len(done['Failed'])} of {len(entries)} messages")

    async def _find_or_make(self, name: str, attributes: dict[str, str]) -> str:
        try:
            return str((await self._client.get_queue_url(QueueName=name))["QueueUrl"])
        except ClientError as error:
            if MISSING not in error.response["Error"]["Code"].replace("NonExistentQueue", MISSING):
                raise
        attributes = {**attributes, "MessageRetentionPeriod": str(RETENTION)}
        return str((await self._client.create_queue(QueueName=name, Attributes=attributes))["QueueUrl"])


def _batches(items: Sequence[T], entry: Callable[[T], dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Entries of batch calls, ten at a time."""
    for start in range(0, len(items), BATCH):
        yield [{"Id": str(number), **entry(item)} for number, item in enumerate(items[start : start + BATCH])]


async def connect(region: str, endpoint: str | None, queue: str) -> SqsLink:
    """Connect, and make the queues where they are missing."""
    config = AioConfig(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=2 * CALL_SECONDS,  # longer than a poll waits
        retries={"total_max_attempts": 1},
        ignore_configured_endpoint_urls=True,  # AWS_ENDPOINT_URL is where models are
    )
    closing = contextlib.AsyncExitStack()
    try:
        client = get_session().create_client("sqs", region_name=region, endpoint_url=endpoint, config=config)
        link = SqsLink(await closing.enter_async_context(client), closing)
        await link.prepare(queue)
    except BaseException:
        await closing.aclose()
        raise
    return link
