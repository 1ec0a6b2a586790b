"""The memory of conversations, as it is configured: Redis's where there is one, else this process's own."""

from __future__ import annotations

import time

from supportfleet_runtime.config import Settings
from supportfleet_runtime.conversations.memory import LocalMemory, Memory


def make_memory(settings: Settings) -> Memory:
    """Where conversations are remembered."""
    if settings.redis_url is None:
        return LocalMemory(time.monotonic, settings.redis_ttl)
    from supportfleet_runtime.conversations.shared_memory import SharedMemory  # noqa: PLC0415 - it brings its client

    return SharedMemory(settings.redis_url.get_secret_value(), settings.scope, settings.redis_ttl)
