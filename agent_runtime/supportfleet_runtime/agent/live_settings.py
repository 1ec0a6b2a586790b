"""The agent's configuration as it is now: a changed file takes effect with the next message.

A file that can't be used changes nothing: what held before holds on, and the log says all that is wrong. Looking once a
second sees every way in which a file is replaced, also a ConfigMap's, which moves a symbolic link two folders up.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import structlog

from supportfleet_runtime.agent.settings import AgentSettings, agent_settings_path, read_agent_settings

log = structlog.get_logger()

POLL_SECONDS: Final = 1.0

Signature = tuple[int, int, int]


class LiveSettings:
    """Holds the settings; a call gives those that hold now. Take them once for each message."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings

    def __call__(self) -> AgentSettings:
        """The settings that hold now."""
        return self._settings

    async def follow(self, file: Path | None, folder: Path, poll: float = POLL_SECONDS) -> None:
        """Take over the file's content whenever it changes, for ever."""
        path = agent_settings_path(file, folder)
        seen = _signature(path)
        while True:
            await asyncio.sleep(poll)
            found = _signature(path)
            if found is None or found == seen:  # it is away for a moment while it is replaced
                continue
            seen = found
            settings, problems = await asyncio.to_thread(read_agent_settings, file, folder)
            if problems:
                log.error("configuration_not_changed", problems=[str(problem) for problem in problems])
                continue
            self._settings = settings
            log.info("configuration_changed", path=str(path))


def _signature(path: Path) -> Signature | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
