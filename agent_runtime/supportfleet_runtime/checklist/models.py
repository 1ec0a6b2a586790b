"""Models: CLAUDE_MODEL and FALLBACK_MODEL answer. Each is really asked, for a single token."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

import aiohttp

from supportfleet_runtime.checklist.outcome import Outcome, judged, passed
from supportfleet_runtime.checklist.subject import Subject
from supportfleet_runtime.config import Settings
from supportfleet_runtime.health.checks import ANTHROPIC_VERSION

QUESTION: Final = {"max_tokens": 1, "messages": [{"role": "user", "content": "ping"}]}


async def check(subject: Subject) -> Outcome:
    """Ask both at once."""
    settings = subject.settings
    key = settings.anthropic_api_key
    if not settings.uses_claude or key is None:
        return passed("the scripted provider answers: there is no language model to ask")
    wrong = []
    models = {"CLAUDE_MODEL": settings.claude_model}
    if settings.fallback_enabled and settings.fallback_model:
        models["FALLBACK_MODEL"] = settings.fallback_model
    elif settings.fallback_enabled:
        wrong.append("FALLBACK_MODEL is not set: set it, or FALLBACK_ENABLED=false")
    found = await asyncio.gather(*(_ask(settings, key.get_secret_value(), model) for model in models.values()))
    wrong += [f"{name} ({models[name]}): {problem}" for name, problem in zip(models, found, strict=True) if problem]
    return judged(wrong, f"{' and '.join(models.values())} answered")


async def _ask(settings: Settings, key: str, model: str) -> str | None:
    """What is wrong with the model's answer."""
    headers = {"x-api-key": key, "anthropic-version": ANTHROPIC_VERSION}
    timeout = aiohttp.ClientTimeout(total=settings.claude_timeout)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            session.post(
                f"{settings.anthropic_base_url.rstrip('/')}/v1/messages",
                headers=headers,
                json={"model": model, **QUESTION},
                allow_redirects=False,
            ) as response,
        ):
            if response.status != HTTPStatus.OK:
                return _refusal(response.status)
            body: Any = await response.json(content_type=None)
    except TimeoutError:
        return f"no answer within {settings.claude_timeout:g} s"
    except (aiohttp.ClientError, ValueError) as error:
        return f"no answer: {type(error).__name__}"
    return None if isinstance(body, dict) and body.get("type") == "message" else "its answer is no message"


def _refusal(status: int) -> str:
    known = {401: "the key is refused", 403: "the key is refused", 404: "there is no such model"}
    return f"{known[status]} (HTTP {status})" if status in known else f"HTTP {status}"
