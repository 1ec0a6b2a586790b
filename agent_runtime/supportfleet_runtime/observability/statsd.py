"""Readings of the metrics for Datadog's agent on the node: DogStatsD, lines of text over UDP.

A histogram is its count, its sum and its buckets, each a counter, as Prometheus names them. What doesn't arrive is not
known to: that is what UDP is.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import structlog

from supportfleet_runtime.observability.readings import Count, Labels, Level, Reading

log = structlog.get_logger()

PACKET: Final = 1432
"""Bytes that an Ethernet frame takes without being cut up."""
FORBIDDEN: Final = re.compile(r"[|,:#\s]")


def lines(readings: Iterable[Reading], tags: Mapping[str, str]) -> Iterator[str]:
    """The readings' lines."""
    fixed = tuple(tags.items())
    for one in readings:
        if isinstance(one, Level):
            yield _line(one.name, one.value, "g", (*fixed, *one.labels))
        elif isinstance(one, Count):
            yield _line(one.name, one.value, "c", (*fixed, *one.labels))
        else:
            labels = (*fixed, *one.labels)
            yield _line(f"{one.name}_count", one.count, "c", labels)
            yield _line(f"{one.name}_sum", one.sum, "c", labels)
            so_far = 0
            for bound, count in zip((*map(_number, one.bounds), "inf"), one.counts, strict=True):
                so_far += count
                yield _line(f"{one.name}_bucket", so_far, "c", (*labels, ("le", bound)))


def packets(given: Iterable[str]) -> Iterator[bytes]:
    """Lines, as many in each packet as fit."""
    packet = b""
    for line in given:
        data = line.encode()
        if packet and len(packet) + 1 + len(data) > PACKET:
            yield packet
            packet = b""
        packet += b"\n" + data if packet else data
    if packet:
        yield packet


class StatsdClient:
    """Sends readings to an agent; ``tags`` go with each."""

    def __init__(self, host: str, port: int, tags: Mapping[str, str]) -> None:
        self._address = (host, port)
        self._tags = tags
        self._transport: asyncio.DatagramTransport | None = None

    async def send(self, readings: Sequence[Reading]) -> None:
        """Send readings; where the agent's name can't be resolved they are lost."""
        if self._transport is None or self._transport.is_closing():
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(5):
                    self._transport, _ = await loop.create_datagram_endpoint(
                        asyncio.DatagramProtocol, remote_addr=self._address
                    )
            except (OSError, TimeoutError) as error:
                log.warning("telemetry_not_delivered", destination="dogstatsd", reason=type(error).__name__)
                return
        for packet in packets(lines(readings, self._tags)):
            self._transport.sendto(packet)

    def close(self) -> None:
        """Close the socket."""
        if self._transport is not None:
            self._transport.close()


def _line(name: str, value: float, kind: str, labels: Labels) -> str:
    tags = ",".join(f"{label}:{FORBIDDEN.sub('_', text)}" for label, text in labels)
    return f"{name}:{_number(value)}|{kind}" + (f"|#{tags}" if tags else "")


def _number(value: float) -> str:
    return f"{value:.10g}"
