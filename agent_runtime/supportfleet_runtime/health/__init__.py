"""Health: whether the process may be sent messages, and how everything it depends on is.

``readiness`` answers the kubelet, at once and for this pod alone. ``monitor`` looks after the dependencies in the
background, ``window`` keeps the figures of the last minutes, and ``report`` makes one picture of it all.
"""

from supportfleet_runtime.health.readiness import Check, Readiness, check, database_check

__all__ = ["Check", "Readiness", "check", "database_check"]
