"""Rate limiter: the running agent refuses a customer who asks too often, and nobody else.

Both customers are made up, and only ask for a task that nobody has: what is tried is counted, and stores nothing.
Pods that share no Redis each count for themselves, so there one of them is asked, over a single connection: what comes
of it must not depend on how many are ready.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import Counter
from http import HTTPStatus
from typing import Final

import aiohttp

from supportfleet_runtime.checklist.outcome import NotCheckableError, Outcome, failed, passed
from supportfleet_runtime.checklist.subject import NOBODYS_TASK, REFUSALS, Answer, Subject

MOST_REQUESTS: Final = 5_000
AT_ONCE: Final = 20
QUOTA: Final = re.compile(r";q=(\d+)")


async def check(subject: Subject) -> Outcome:
    """Ask until it is too much, then as somebody else."""
    busy, quiet = (f"checklist-{secrets.token_hex(8)}" for _ in range(2))
    quota = quota_of(await _ask(subject, busy))
    most = 2 * quota + AT_ONCE
    if most > MOST_REQUESTS:
        raise NotCheckableError(f"a limit of {quota} requests a minute is too high to be tried out")
    is_shared = subject.configuration is not None and subject.configuration.settings.redis_url is not None
    answers = await _burst(subject, busy, most, connections=AT_ONCE if is_shared else 1)
    refused = [answer for answer in answers if answer.status == HTTPStatus.TOO_MANY_REQUESTS]
    if not refused:
        statuses = ", ".join(
            f"{number} times {status}" for status, number in Counter(a.status for a in answers).items()
        )
        return failed(
            f"{most} requests at once of a customer who may make {quota} a minute were answered: HTTP {statuses}"
        )
    if not refused[0].headers.get("Retry-After", "").isdigit():
        return failed("a refused customer is not told when to come back: Retry-After is missing")
    if (await _ask(subject, quiet)).status == HTTPStatus.TOO_MANY_REQUESTS:
        return failed("a customer who asked once is refused because another asked often")
    told = f"a customer who may make {quota} requests a minute was refused after {len(answers) - len(refused)}"
    return passed(told if is_shared else f"{told}, by one pod: with REDIS_URL all of them count together")


def quota_of(answer: Answer) -> int:
    """How many requests a minute an answer says there may be. Pure."""
    if answer.status in REFUSALS:
        raise NotCheckableError("it takes a key that the agent takes: --api-key-file")
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        raise NotCheckableError("the agent refuses already: wait a minute, and try again")
    found = QUOTA.search(answer.headers.get("RateLimit-Policy", ""))
    if found is None:
        raise NotCheckableError("no rate limiter is configured: set RATE_LIMIT")
    return int(found[1])


async def _burst(subject: Subject, customer: str, most: int, connections: int) -> list[Answer]:
    """Answers to at most so many requests: it ends soon after the first that is refused."""
    answers: list[Answer] = []
    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector) as session:  # kept: it has to be faster than the bucket fills
        while len(answers) < most and not any(one.status == HTTPStatus.TOO_MANY_REQUESTS for one in answers[-AT_ONCE:]):
            number = min(AT_ONCE, most - len(answers))
            answers += await asyncio.gather(*(_ask(subject, customer, session) for _ in range(number)))
    return answers


async def _ask(subject: Subject, customer: str, session: aiohttp.ClientSession | None = None) -> Answer:
    headers = {"X-API-Key": subject.key} if subject.key else {}
    path = f"{NOBODYS_TASK}?customer_id={customer}"
    if session is None:
        return await subject.ask("GET", path, headers)
    return await subject.ask_over(session, "GET", path, headers)
