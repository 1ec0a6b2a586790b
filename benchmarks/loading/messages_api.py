"""A Messages API that is no bottleneck: it answers each call after so many milliseconds, always with the same message.

    python messages_api.py PORT [MILLISECONDS]

``GET /`` tells how many calls it has answered. (The tests' fake checks what it is
sent, which takes it ten times as long.)
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import orjson
import uvloop

TEXT = "Yes, they come in green, and there is a wide fit. Shall I look up your size for you?"
MESSAGE = orjson.dumps(
    {
        "id": "msg_013Zva2CMHLNnXjNJJKqJ2EF",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-5-5",
        "content": [{"type": "text", "text": TEXT, "citations": None}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 412, "output_tokens": 24, "service_tier": "standard"},
    }
)
END_OF_HEAD = b"\r\n\r\n"
calls = 0


def response(body: bytes) -> bytes:
    """An answer, as it goes over the wire."""
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nrequest-id: req_1\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


ANSWER = response(MESSAGE)


class Connection(asyncio.Protocol):
    """One connection: requests are taken as they come, bodies are counted and not read."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where answers go."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer what is whole."""
        self._buffer += data
        while (end := self._buffer.find(END_OF_HEAD)) >= 0:
            head = self._buffer[:end].lower()
            _, found, length = head.partition(b"content-length:")
            whole = end + len(END_OF_HEAD) + (int(length.split(b"\r\n", 1)[0]) if found else 0)
            if len(self._buffer) < whole:
                return
            self._buffer = self._buffer[whole:]
            if head.startswith(b"post"):
                asyncio.get_running_loop().call_later(self._delay, self._answer) if self._delay else self._answer()
            else:
                self._write(response(str(calls).encode()))

    def _answer(self) -> None:
        global calls  # noqa: PLW0603 - the one figure of this process
        calls += 1
        self._write(ANSWER)

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


async def serve(port: int, delay: float) -> None:
    """Serve until the process is told to stop."""
    server = await asyncio.get_running_loop().create_server(lambda: Connection(delay), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000 if len(sys.argv) > 2 else 0.0))  # noqa: PLR2004
