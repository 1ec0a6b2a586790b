"""Logs: JSON lines of an event name and fields, on standard error, without personal data.

What customers write reaches no log: events carry ids, codes and durations only. Exceptions are the leak one forgets:
a driver's message may quote the row, a parser's the text. So an exception is logged as its type and its frames, and
its message only where it is of our own tree, whose messages are written to be logged. Other libraries' logs pass
through the same renderer, from "warning" up, because their debug output holds whole requests. Should a secret that is
known get into a line all the same, it is masked there.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterable, MutableMapping
from types import TracebackType
from typing import Any, Final, TextIO

import orjson
import structlog

from supportfleet_runtime.errors import SupportfleetError
from supportfleet_runtime.observability.masking import masking
from supportfleet_runtime.observability.tracing import in_hand

MAX_FRAMES: Final = 12
MAX_CAUSES: Final = 5

ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def configure_logging(
    level: str = "info", stream: TextIO | None = None, *, secrets: Iterable[str] = (), **context: str
) -> None:
    """Log from ``level`` up, with ``context`` on every line and ``secrets`` masked in each."""
    mask = masking(secrets)

    def mask_line(_logger: object, _method: str, line: Any) -> str:
        return mask(line)

    number = logging.getLevelNamesMapping()[level.upper()]
    output = stream or sys.stderr
    structlog.contextvars.clear_contextvars()
    structlog.configure(
        processors=[
            lambda _logger, _method, event: {"event": event.pop("event", None), **context, **event},
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            name_trace,
            render_exception,
            render_line,
            mask_line,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(output),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[ForeignHandler()], level=max(number, logging.WARNING), force=True)
    logging.captureWarnings(capture=True)


def describe_exception(error: BaseException) -> dict[str, Any]:
    """An exception without the data that its message may quote."""
    described: dict[str, Any] = {"type": _name(error), "frames": _frames(error)}
    if isinstance(error, SupportfleetError):
        described["message"] = str(error)
    causes: list[dict[str, Any]] = []
    cause = error.__cause__ or error.__context__
    while cause is not None and len(causes) < MAX_CAUSES:
        causes.append({"type": _name(cause), "frames": _frames(cause)})
        cause = cause.__cause__ or cause.__context__
    if causes:
        described["causes"] = causes
    return described


def name_trace(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Name the trace and the span in which this happens, so that one is found by the other."""
    if ids := in_hand().ids:
        event["trace_id"], event["span_id"] = ids
    return event


def render_exception(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace ``exc_info`` by a description that is safe to keep."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()[1]
    if isinstance(info, tuple):
        info = info[1]
    if isinstance(info, BaseException):
        event["exception"] = describe_exception(info)
    return event


def render_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """One line of JSON, whatever the values are."""
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()


class ForeignHandler(logging.Handler):
    """Other libraries' records as events: where they come from and their template, since the rest may be data."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record's template under its logger's name."""
        fields: dict[str, Any] = {"logger": record.name, "at": f"{record.pathname}:{record.lineno}"}
        if isinstance(record.msg, str) and record.args:
            fields["template"] = record.msg
        if record.exc_info and record.exc_info[1]:
            fields["exc_info"] = record.exc_info[1]
        structlog.get_logger().log(record.levelno, "library_log", **fields)


def _frames(error: BaseException) -> list[str]:
    summary = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in summary[-MAX_FRAMES:]]


def _name(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"
