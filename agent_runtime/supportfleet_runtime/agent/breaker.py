"""The circuit breaker: who doesn't answer is left alone for a while.

::

    closed --- 5 failures in a row ---> open --- 60 s later, to whoever asks next ---> half-open (one probe)
      ^                                  ^                                                |   |
      |                                  +------------------- it fails -------------------+   |
      +------------------------------------------- it succeeds -------------------------------+

A call needs a permit, and says on it how it ended. Permits belong to the state they were given in: a call that began
before the breaker opened neither closes it nor keeps it open. A probe that is dropped (cancelled: nobody knows how it
would have ended) lets the next caller probe. Time is an argument; nothing runs in the background.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

FAILURES: Final = 5
PAUSE_SECONDS: Final = 60.0


class State(IntEnum):
    """A breaker's state, as its metric shows it."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True)
class Permit:
    """Leave to call the dependency once; exactly one of its methods is called at the end."""

    _breaker: CircuitBreaker
    _generation: int

    def succeeded(self) -> None:
        """The dependency answered."""
        self._breaker._ended(self._generation, failed=False)  # noqa: SLF001 - its other half

    def failed(self) -> None:
        """It did not, or with an error of its own."""
        self._breaker._ended(self._generation, failed=True)  # noqa: SLF001

    def dropped(self) -> None:
        """Nobody waited for the answer."""
        self._breaker._dropped(self._generation)  # noqa: SLF001


class CircuitBreaker:
    """The breaker of one dependency. ``changed`` is told of each new state."""

    def __init__(
        self,
        clock: Callable[[], float],
        changed: Callable[[State], None] = lambda _state: None,
        *,
        failures: int = FAILURES,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self._clock = clock
        self._changed = changed
        self._limit = failures
        self._pause = pause
        self._generation = 0
        self._failures = 0
        self._opened_at = 0.0
        self._probing = False
        self.state = State.CLOSED

    @property
    def would_admit(self) -> bool:
        """Whether there would be a permit now, without taking it."""
        if self.state is State.OPEN:
            return self._clock() - self._opened_at >= self._pause
        return not self._probing

    def admit(self) -> Permit | None:
        """A permit, or none while the dependency is to be left alone."""
        if self.state is State.OPEN and self._clock() - self._opened_at >= self._pause:
            self._become(State.HALF_OPEN)
        if self.state is State.OPEN or self._probing:
            return None
        self._probing = self.state is State.HALF_OPEN
        return Permit(self, self._generation)

    def _ended(self, generation: int, *, failed: bool) -> None:
        if generation != self._generation:
            return
        self._failures = self._failures + 1 if failed else 0
        if failed and (self.state is State.HALF_OPEN or self._failures >= self._limit):
            self._opened_at = self._clock()
            self._become(State.OPEN)
        elif self.state is State.HALF_OPEN:
            self._become(State.CLOSED)

    def _dropped(self, generation: int) -> None:
        if generation == self._generation:
            self._probing = False

    def _become(self, state: State) -> None:
        self.state = state
        self._generation += 1
        self._failures = 0
        self._probing = False
        self._changed(state)
