"""The agent's tools: arguments checked, effects through the ledger, results in the customer's words.

Of a call that changes something, in this order:

1. Its key is derived from the message and what the call is about, and written down as pending (``Ledger.begin``).
2. The call is made, with the key.
3. What came of it is written down (``Ledger.settle``).

Whatever ends the process in between, the message is tried again and finds the key: an outcome is replayed; a pending
effect is looked up by its key where the tools work, and asked for again only if it is not known there, under the same
key, which is carried out once. Where the outcome of a call is not known (no answer, a broken connection), it is looked
up once in the same way; if that doesn't tell it is ``AMBIGUOUS``: a person is called, and nothing is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog
from pydantic import ValidationError

from supportfleet_runtime.agent.settings import ToolSettings
from supportfleet_runtime.agent.toolbox import Authority, ToolResult, ToolSpec, ToolStatus, unavailable
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.tools.backend import Backend, ToolRequest
from supportfleet_runtime.tools.catalogue import TOOLS, Tool
from supportfleet_runtime.tools.ledger import Entry, Ledger
from supportfleet_runtime.tools.outcome import (
    KeyReusedError,
    Outcome,
    OutcomeUnknownError,
    ToolsUnavailableError,
    refused,
    unknown,
)

log = structlog.get_logger()

LOOKUP_SHARE: Final = 0.3
"""Part of the time for a call that is kept for asking what came of it."""
OTHER_ARGUMENTS: Final = (
    "This was asked for already with this message, with another amount or another address; it can't be changed here."
)
REHEARSAL: Final = "This message is a copy, so nothing was carried out. Answer as if it had been."


class Tools:
    """A ``Toolbox`` over a backend and a ledger."""

    def __init__(
        self,
        *,
        backend: Backend,
        ledger: Ledger,
        settings: Callable[[], ToolSettings],
        metrics: Metrics,
        scope: str,
        timeout: float,
    ) -> None:
        self._backend = backend
        self._ledger = ledger
        self._settings = settings
        self._metrics = metrics
        self._scope = scope
        self._timeout = timeout

    @property
    def available(self) -> bool:
        """Whether a call has a chance now."""
        return self._backend.available

    def specs(self) -> Sequence[ToolSpec]:
        """The tools that are enabled, always in the same order."""
        enabled = self._settings().enabled
        return [tool.spec for tool in TOOLS.values() if tool.name in enabled]

    async def call(self, name: str, arguments: Mapping[str, Any], authority: Authority, *, within: float) -> ToolResult:
        """Use a tool once, for the customer whose conversation it is."""
        tool = TOOLS.get(name)
        if tool is None or tool.name not in self._settings().enabled:
            return ToolResult(name[:64], ToolStatus.INVALID, "There is no such tool.")
        try:
            request = self._request(tool, arguments, authority)
        except ValidationError as error:
            result = ToolResult(name, ToolStatus.INVALID, _complaint(error))
        else:
            limit = min(within, self._timeout)
            result = (await self._outcome(request, authority, limit)).as_result(tool)
        self._metrics.tool_calls.labels(tool=tool.name, status=result.status.value).inc()
        log.info("tool_used", task_id=authority.task_id, tool=tool.name, status=result.status.value)
        return result

    async def earlier(self, authority: Authority, *, within: float) -> Sequence[ToolResult]:
        """What an earlier attempt at the message changed; what is not known is found out, or a person's."""
        if not authority.may_change:
            return ()
        found = []
        for entry in await self._ledger.of_task(authority.task_id):
            outcome = entry.outcome or await self._resolve(entry, within)
            if outcome is not None:
                found.append(outcome.as_result(entry.tool))
        return found

    async def close(self) -> None:
        """Let go of connections."""
        await self._backend.close()

    def _request(self, tool: Tool, arguments: Mapping[str, Any], authority: Authority) -> ToolRequest:
        checked = tool.arguments.model_validate(dict(arguments))
        key = tool.key(self._scope, authority.task_id, checked) if tool.changes else None
        return ToolRequest(tool, checked, authority.customer_id, authority.conversation_id, key)

    async def _outcome(self, request: ToolRequest, authority: Authority, within: float) -> Outcome:
        if request.key is not None and not authority.may_change:
            return Outcome(status=ToolStatus.NOT_CARRIED_OUT, message=REHEARSAL)
        try:
            if request.key is None:
                return await self._backend.perform(request, within=within)
            return await self._effect(request, request.key, authority, within)
        except (ToolsUnavailableError, OutcomeUnknownError) as error:  # nothing was changed: that has its own outcome
            raise unavailable(str(error)) from error

    async def _effect(self, request: ToolRequest, key: str, authority: Authority, within: float) -> Outcome:
        """Have an effect once."""
        hashed = request.tool.arguments_hash(request.arguments)
        entry = await self._ledger.begin(key, request.tool, hashed, authority)
        if entry is not None:
            if entry.arguments_hash != hashed:
                return refused(OTHER_ARGUMENTS)
            outcome = entry.outcome or await self._resolve(entry, within * LOOKUP_SHARE)
            if outcome is not None:
                return outcome
        outcome = await self._ask(request, key, within)
        await self._ledger.settle(key, outcome)
        self._count(outcome)
        return outcome

    async def _ask(self, request: ToolRequest, key: str, within: float) -> Outcome:
        try:
            return await self._backend.perform(request, within=within * (1 - LOOKUP_SHARE))
        except KeyReusedError:
            return refused(OTHER_ARGUMENTS)
        except ToolsUnavailableError:
            await self._ledger.forget(key)
            raise
        except OutcomeUnknownError as error:
            log.warning("effect_unknown", key=key, tool=request.tool.name, reason=str(error))
            return await self._look_up(key, within * LOOKUP_SHARE) or unknown()

    async def _resolve(self, entry: Entry, within: float) -> Outcome | None:
        """What came of a pending effect, or ``None`` where it never reached the tools."""
        try:
            outcome = await self._backend.effect(entry.key, within=within)
        except OutcomeUnknownError as error:
            log.warning("effect_unknown", key=entry.key, tool=entry.tool.name, reason=str(error))
            outcome = unknown()
        if outcome is not None:
            await self._ledger.settle(entry.key, outcome)
            self._count(outcome)
        return outcome

    async def _look_up(self, key: str, within: float) -> Outcome | None:
        try:
            return await self._backend.effect(key, within=within)
        except OutcomeUnknownError as error:
            log.warning("effect_not_found_out", key=key, reason=str(error))
            return None

    def _count(self, outcome: Outcome) -> None:
        if outcome.status is ToolStatus.AMBIGUOUS:
            self._metrics.ambiguous_effects.inc()


def _complaint(error: ValidationError) -> str:
    """What is wrong with arguments, without quoting them."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}" for one in found[:10])
