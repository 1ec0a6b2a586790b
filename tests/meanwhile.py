"""Something that goes on in a thread while a test does something else; tests load this with runpy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def meanwhile(run: Callable[[threading.Event], object], patience: float = 60) -> Iterator[None]:
    """Run it until it is told, by the event, that the block is over; it has ``patience`` seconds to come to its end."""
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(patience)
