"""The checklist itself, and going through it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from types import MappingProxyType
from typing import Final

import structlog

from supportfleet_runtime.checklist import (
    alert_rules,
    authentication,
    breakers,
    configuration,
    logs,
    migrations,
    models,
    monitoring,
    on_call,
    queue_round_trip,
    rate_limiter,
    runbooks,
    secrets,
)
from supportfleet_runtime.checklist.outcome import Outcome, Result, Verdict
from supportfleet_runtime.checklist.subject import Subject
from supportfleet_runtime.errors import SupportfleetError

log = structlog.get_logger()

CHECK_SECONDS: Final = 90.0

Check = Callable[[Subject], Awaitable[Outcome]]

CHECKS: Final[Mapping[str, Check]] = MappingProxyType(
    {
        "configuration": configuration.check,
        "migrations": migrations.check,
        "breakers": breakers.check,
        "monitoring": monitoring.check,
        "models": models.check,
        "rate-limiter": rate_limiter.check,
        "queue": queue_round_trip.check,
        "authentication": authentication.check,
        "secrets": secrets.check,
        "logging": logs.check,
        "alert-rules": alert_rules.check,
        "runbooks": runbooks.check,
        "on-call": on_call.check,
    }
)


async def run_checks(
    subject: Subject,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    *,
    checks: Mapping[str, Check] = CHECKS,
    limit: float = CHECK_SECONDS,
) -> list[Result]:
    """Make the checks, or ``only`` those, one after the other: what one sends must not spoil another's figures."""
    chosen = [name for name in checks if (not only or name in only) and name not in skip]
    return [await _run(name, checks[name], subject, limit) for name in chosen]


async def _run(name: str, check: Check, subject: Subject, limit: float) -> Result:
    begun = time.perf_counter()
    try:
        async with asyncio.timeout(limit):
            outcome = await check(subject)
    except TimeoutError:
        outcome = Outcome(Verdict.ERROR, f"it did not end within {limit:g} s")
    except SupportfleetError as error:
        outcome = Outcome(Verdict.ERROR, str(error))
    except Exception as error:
        log.exception("check_broken", check=name)
        outcome = Outcome(Verdict.ERROR, f"the check broke: {type(error).__name__}; the log says where")
    return Result(name, outcome, time.perf_counter() - begun)
