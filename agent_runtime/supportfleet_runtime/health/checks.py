"""How each dependency is looked at. Every check is cheap, changes nothing, and its time is the monitor's to limit."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final

import aiohttp

from supportfleet_runtime.agent.breaker import State
from supportfleet_runtime.health.readiness import Check

ANTHROPIC_VERSION: Final = "2023-06-01"
LEAST_FREE_BYTES: Final = 100 * 1024 * 1024
REFUSED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


def model_api_check(base_url: str, api_key: str, breaker: Callable[[], State]) -> Check:
    """Whether the Messages API answers and takes the key.

    It is asked for its list of models, which costs nothing; a server that has none (404) answers all the same. While
    the breaker is open the calls themselves have told, and it is left alone.
    """
    headers = {"x-api-key": api_key, "anthropic-version": ANTHROPIC_VERSION}

    async def run() -> str | None:
        if breaker() is State.OPEN:
            return "its circuit breaker is open: calls failed"
        return await _ask(f"{base_url.rstrip('/')}/v1/models?limit=1", headers)

    return run


def http_check(url: str) -> Check:
    """Whether a service answers at ``url``."""

    async def run() -> str | None:
        return await _ask(url, {})

    return run


def redis_check(url: str) -> Check:
    """Whether Redis answers."""

    async def run() -> str | None:
        from redis.asyncio import Redis  # noqa: PLC0415 - an agent without Redis does without its client
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.exceptions import RedisError  # noqa: PLC0415

        client = Redis.from_url(url, retry=Retry(NoBackoff(), 0))
        try:
            await client.ping()
        except (RedisError, OSError) as error:
            return f"it can't be reached: {type(error).__name__}"
        finally:
            await client.aclose()
        return None

    return run


def broker_check(problem: Callable[[], str | None]) -> Check:
    """Whether the queue's broker works: its workers and relay ask it all the time, so its last call says so."""

    async def run() -> str | None:
        return problem()

    return run


def disk_check(folder: Path, *, least: int = LEAST_FREE_BYTES) -> Check:
    """Whether there is room for SQLite to grow."""

    async def run() -> str | None:
        free = (await asyncio.to_thread(shutil.disk_usage, folder)).free
        return None if free >= least else f"only {free // 2**20} MiB are free, and SQLite should have {least // 2**20}"

    return run


async def _ask(url: str, headers: dict[str, str]) -> str | None:
    """What is wrong with the answer to a GET. A connection of its own: one that is kept may outlive the service."""
    try:
        async with (
            aiohttp.ClientSession(trust_env=True) as session,
            session.get(url, headers=headers, allow_redirects=False) as response,
        ):
            status = response.status
    except aiohttp.ClientError as error:
        return f"it can't be reached: {type(error).__name__}"
    if status in REFUSED:
        return f"it refuses the credentials (HTTP {status})"
    return f"HTTP {status}" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else None
