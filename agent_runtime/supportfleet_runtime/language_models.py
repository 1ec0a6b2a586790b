"""The language models of an agent, as they are configured: the rungs of its ladder, each behind its breakers."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from pydantic import SecretStr

from supportfleet_runtime.agent.breaker import CircuitBreaker, State
from supportfleet_runtime.agent.guard import Guard
from supportfleet_runtime.agent.ladder import BEST, FALLBACK_MODEL, WITHOUT_TOOLS, AnswerCache, Ladder, Rung
from supportfleet_runtime.agent.pricing import Usage
from supportfleet_runtime.agent.providers import Provider
from supportfleet_runtime.agent.providers.scripted import ScriptedProvider
from supportfleet_runtime.config import Settings
from supportfleet_runtime.observability.metrics import Metrics

log = structlog.get_logger()

SERVICE = "messages-api"
"""The dependency that all models of the Messages API share."""


def make_ladder(settings: Settings, metrics: Metrics, spent: Callable[[Usage], None]) -> Ladder:
    """Claude with tools and without, its fallback model and earlier answers, as configured; else the script."""
    key = settings.anthropic_api_key
    if not settings.uses_claude or key is None:
        return Ladder([Rung(BEST, ScriptedProvider())])
    service = make_breaker(SERVICE, metrics)
    guard = Guard(service, make_breaker("model", metrics))
    claude = _claude(settings, key, settings.claude_model, spent, guard)
    rungs = [Rung(BEST, claude, uses_tools=True), Rung(WITHOUT_TOOLS, claude)]
    if settings.fallback_enabled and settings.fallback_model:
        guard = Guard(service, make_breaker("fallback-model", metrics))
        rungs.append(Rung(FALLBACK_MODEL, _claude(settings, key, settings.fallback_model, spent, guard)))
    return Ladder(rungs, AnswerCache() if settings.fallback_enabled else None)


def _claude(settings: Settings, key: SecretStr, model: str, spent: Callable[[Usage], None], guard: Guard) -> Provider:
    from supportfleet_runtime.agent.providers.claude import ClaudeProvider, ClaudeSettings  # noqa: PLC0415 - see there

    return ClaudeProvider(
        ClaudeSettings(
            api_key=key.get_secret_value(),
            base_url=settings.anthropic_base_url,
            model=model,
            timeout=settings.claude_timeout,
            retries=settings.claude_retries,
            max_tokens=settings.claude_max_tokens,
        ),
        spent,
        guard,
    )


def make_breaker(dependency: str, metrics: Metrics) -> CircuitBreaker:
    """The breaker of a dependency, whose state is a metric."""
    shown = metrics.breaker_state.labels(dependency=dependency)

    def changed(state: State) -> None:
        shown.set(state)
        log.warning("breaker_changed", dependency=dependency, state=state.name.lower())

    return CircuitBreaker(time.monotonic, changed)
