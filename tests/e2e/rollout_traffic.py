"""Customers of an agent behind a gateway, at a steady rate, and what each request got; tests load this with runpy.

The load is open: a request is sent when it is due, whether or not those before were answered, so a gateway that stalls
shows as late and failed answers and not as fewer requests.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import runpy
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

meanwhile = runpy.run_path(str(Path(__file__).parent.parent / "meanwhile.py"))["meanwhile"]
TIMEOUT = aiohttp.ClientTimeout(total=15)
COOKIE = "supportfleet-revision"
HEADER = "x-supportfleet-revision"
CONNECTIONS = 64
_CUSTOMERS = itertools.count()


@dataclass(frozen=True)
class Answer:
    """What one request got, and when."""

    sent: float
    done: float
    status: int
    """0 where there was no answer at all."""
    reply: str = ""
    """What the agent said: revisions greet differently."""
    cookie: str = ""
    """The revision that the gateway named in a cookie, or else in a header."""
    error: str = ""


@dataclass
class Load:
    """Where requests go, and all that was answered so far."""

    url: str
    host: str
    headers: Mapping[str, str] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)

    @property
    def failed(self) -> list[Answer]:
        """What did not get an answer that a customer can use."""
        return [one for one in self.answers if one.status != 200]

    def since(self, moment: float) -> list[Answer]:
        """Answers to requests that were sent after a moment."""
        return [one for one in self.answers if one.sent >= moment]

    async def ask(self, session: aiohttp.ClientSession, more: Mapping[str, str]) -> None:
        """Send one message of a new customer."""
        body = {"customer_id": f"customer-{next(_CUSTOMERS)}-{time.time_ns()}", "text": "Hello"}
        sent = time.monotonic()
        headers = {"Host": self.host, **self.headers, **more}
        try:
            async with session.post(f"{self.url}/v1/messages", json=body, headers=headers) as response:
                text = await response.text()
                said = json.loads(text) if response.content_type.endswith("json") else text
                cookie = response.cookies.get(COOKIE)
                named = cookie.value if cookie else response.headers.get(HEADER, "")
                reply = said.get("reply", "") if isinstance(said, dict) else ""
                self.answers.append(Answer(sent, time.monotonic(), response.status, reply, named, text))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.answers.append(Answer(sent, time.monotonic(), 0, error=repr(error)))

    async def run(self, rate: float, is_over: Callable[[int], bool], more: Mapping[str, str]) -> None:
        """Send at a rate until it is over."""
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        jar = aiohttp.DummyCookieJar()
        async with aiohttp.ClientSession(connector=connector, cookie_jar=jar, timeout=TIMEOUT) as session:
            started, tasks = time.monotonic(), set()
            for number in itertools.count():
                if is_over(number):
                    break
                await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
                tasks.add(task := asyncio.create_task(self.ask(session, more)))
                task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)

    def send(self, count: int, rate: float, **headers: str) -> list[Answer]:
        """Send so many requests, and give what they got."""
        before = len(self.answers)
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        asyncio.run(self.run(rate, lambda number: number >= count, more))
        return self.answers[before:]

    @contextmanager
    def steady(self, rate: float) -> Iterator[None]:
        """Go on sending in the background."""

        def send(stop: threading.Event) -> None:
            asyncio.run(self.run(rate, lambda _: stop.is_set(), {}))

        with meanwhile(send):
            yield
