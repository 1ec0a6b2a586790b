"""Random bytes that nobody can guess, drawn from the kernel for many ids at once: a draw costs more than all else."""

from __future__ import annotations

import os
import threading
from typing import Final

DRAWN: Final = 4096


class Pool:
    """Gives out each byte once, whatever thread asks; a forked process has bytes of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = b""
        self._at = 0
        os.register_at_fork(after_in_child=self._renew)

    def take(self, count: int) -> bytes:
        """So many bytes, at most ``DRAWN``."""
        with self._lock:
            if self._at + count > len(self._bytes):
                self._bytes, self._at = os.urandom(DRAWN), 0
            start, self._at = self._at, self._at + count
            return self._bytes[start : self._at]

    def _renew(self) -> None:
        self._lock = threading.Lock()  # it may have been held by a thread that the child does not have
        self._bytes, self._at = b"", 0


random_bytes = Pool().take
