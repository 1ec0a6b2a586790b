"""Reading bodies of answers from servers that nobody vouches for."""

from __future__ import annotations

import aiohttp


async def read_within(stream: aiohttp.StreamReader, most: int) -> bytes:
    """The whole body; of one with more bytes than the most, enough to see that it has more."""
    body = bytearray()
    async for chunk in stream.iter_any():
        body += chunk
        if len(body) > most:
            break
    return bytes(body)
