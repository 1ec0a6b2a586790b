"""Logs: one JSON object a line, an event's name with its fields. No spec, no status and no secret is ever logged."""

from __future__ import annotations

import datetime as dt
import logging
import sys
from typing import Any, Final

import orjson

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET: Final = ("kopf", "aiohttp.access", "kubernetes")
"""Libraries that log much of what is nothing to an operator's user; their warnings remain."""
_KOPF: Final = frozenset({"settings", "k8s_skip", "k8s_ref"})
"""Attributes that kopf adds for its own formatters."""


class JsonFormatter(logging.Formatter):
    """Formats records as JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, Any] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        extras = vars(record).items()
        line |= {key: value for key, value in extras if key not in _STANDARD | _KOPF}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def configure(level: str) -> None:
    """Send all logs to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
