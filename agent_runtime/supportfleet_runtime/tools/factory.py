"""The agent's tools as they are configured: at TOOLS_URL, or in this process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from supportfleet_runtime.access import first_key
from supportfleet_runtime.agent.settings import AgentSettings
from supportfleet_runtime.config import Settings
from supportfleet_runtime.language_models import make_breaker
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.tools.backend import Backend
from supportfleet_runtime.tools.client import HttpTools
from supportfleet_runtime.tools.desk import ToolDesk
from supportfleet_runtime.tools.ledger import Ledger
from supportfleet_runtime.tools.toolbox import Tools

DEPENDENCY: Final = "tools"
"""The circuit breaker's name."""


def make_tools(
    settings: Settings,
    database: Database,
    live: Callable[[], AgentSettings],
    metrics: Metrics,
    now: Callable[[], datetime],
) -> Tools:
    """Tools over the backend that is configured; the ledger is the agent's own."""
    backend: Backend
    key = first_key(settings.tools_api_key.get_secret_value()) if settings.tools_api_key else None
    if settings.tools_url is not None and key is not None:
        backend = HttpTools(settings.tools_url, key, make_breaker(DEPENDENCY, metrics))
    else:
        backend = ToolDesk(database, live, settings.scope, now)
    return Tools(
        backend=backend,
        ledger=Ledger(database, settings.scope, now),
        settings=lambda: live().tools,
        metrics=metrics,
        scope=settings.scope,
        timeout=settings.tools_timeout,
    )
