"""What the checks look at: the environment, as the agent's pods have it, and a running agent, where there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp

from supportfleet_runtime import config
from supportfleet_runtime.checklist.outcome import NotCheckableError
from supportfleet_runtime.config import Configuration, Settings
from supportfleet_runtime.database_location import database_url
from supportfleet_runtime.errors import ConfigurationError, Problem
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.url import DatabaseKind

CALL_SECONDS: Final = 10.0
NOBODYS_ID: Final = "0" * 26
NOBODYS_TASK: Final = f"/v1/tasks/task_{NOBODYS_ID}"
"""What can be asked for without anything coming of it."""
REFUSALS: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
HASHED: Final = "sha256:"
MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """A response of the running agent."""

    status: int
    headers: Mapping[str, str]
    text: str


@dataclass(frozen=True)
class Subject:
    """All that a check may look at. ``url`` is the running agent's."""

    environ: Mapping[str, str] = field(repr=False)
    url: str | None
    now: Callable[[], datetime]
    api_key: str | None = field(default=None, repr=False)
    """One that the running agent takes, where the settings hold hashes alone."""
    configuration: Configuration | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def settings(self) -> Settings:
        """The settings; the checks that need them can't be made without."""
        if self.configuration is None:
            raise NotCheckableError("the configuration can't be used: see the check 'configuration'")
        return self.configuration.settings

    def database(self) -> Database:
        """The agent's database, which the caller closes. An SQLite file is only where the agent is."""
        settings = self.settings
        url = database_url(settings)
        if url.kind is DatabaseKind.SQLITE and not Path(url.target).is_file():
            raise NotCheckableError(
                f"there is no SQLite file {url.target} here: run the checklist where the agent runs (kubectl exec), "
                "or set DATABASE_URL"
            )
        return Database(url, pool=2, timeout=settings.db_timeout)

    async def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Any = None) -> Answer:
        """Send the running agent a request, over a connection of its own."""
        async with aiohttp.ClientSession() as session:
            return await self.ask_over(session, method, path, headers, body)

    async def ask_over(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Answer:
        """Send the running agent a request over the connections of ``session``."""
        if self.url is None:
            raise NotCheckableError("it takes a running agent: give its address with --url")
        address, timeout = self.url.rstrip("/") + path, aiohttp.ClientTimeout(total=CALL_SECONDS)
        try:
            async with session.request(
                method, address, headers=headers, json=body, allow_redirects=False, timeout=timeout
            ) as response:
                content = await response.content.read(MAX_ANSWER_BYTES)
                return Answer(response.status, response.headers.copy(), content.decode("utf-8", "replace"))
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            raise NotCheckableError(f"the agent at --url can't be reached: {type(error).__name__}") from error

    @property
    def key(self) -> str | None:
        """A key to be let in with: the one that was given, else the first that is configured as it is."""
        configured = self.configuration.settings.api_keys if self.configuration else None
        plain = entries(configured.get_secret_value()) if configured else []
        return self.api_key or next(iter(plain), None)

    def file(self, name: str, path: Path | None, holds: str) -> Path:
        """The path that a setting names."""
        if path is None:
            raise NotCheckableError(f"{name} is not set: name {holds}")
        return path


def entries(value: str) -> list[str]:
    """The keys of a list, without those that are given by their hash. Pure."""
    return [entry for entry in value.replace(",", " ").split() if HASHED not in entry]


def make_subject(
    environ: Mapping[str, str], url: str | None, now: Callable[[], datetime], api_key: str | None = None
) -> Subject:
    """The subject of an environment, whether its configuration can be used or not."""
    try:
        return Subject(environ, url, now, api_key, config.load(environ))
    except ConfigurationError as error:
        return Subject(environ, url, now, api_key, problems=error.problems)
