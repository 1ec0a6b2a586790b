"""The rate limit as configured: in Redis where there is one, else in memory, or none."""

from __future__ import annotations

from supportfleet_runtime.config import Settings
from supportfleet_runtime.gateway.buckets import MemoryBuckets, Policy
from supportfleet_runtime.gateway.limiting import WINDOW, Limits


def make_limits(settings: Settings) -> Limits:
    """What requests are charged to."""
    if not settings.rate_limit:
        return Limits()
    policy = Policy(settings.rate_limit, WINDOW)
    if settings.redis_url is None:
        return Limits(MemoryBuckets(policy))
    from supportfleet_runtime.gateway.shared_buckets import SharedBuckets  # noqa: PLC0415 - it brings Redis's client

    return Limits(SharedBuckets(settings.redis_url.get_secret_value(), settings.scope, policy))
