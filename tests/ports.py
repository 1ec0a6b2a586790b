"""A port for a server that a test starts; tests load this with runpy.

It is taken from below those that the kernel gives to whoever asks for any: between the choice and the server's start,
and while the server is away, no connection and no other server gets it by chance.
"""

from __future__ import annotations

import secrets
import socket

LOWEST, HIGHEST = 10_000, 30_000
"""Above the well-known ports, and below those of Kubernetes' Services and of the kernel's own choice."""
TRIES = 100


def free_port() -> int:
    """A port of the loopback interface that nothing uses."""
    for _ in range(TRIES):
        port = LOWEST + secrets.randbelow(HIGHEST - LOWEST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError(f"none of {TRIES} ports is free")
