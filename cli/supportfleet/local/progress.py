"""Progress of long work: what is being done, what is done, and about how long is left.

Steps have names and expected seconds; they may overlap, as tasks of one event loop or as threads. Steps of one *lane*
run one after another, and lanes run side by side: what is left is the longest lane's rest. How long a step took is
kept in the cache and is the next run's expectation, so the first guess matters once only.

On a terminal one live block shows what runs; elsewhere (a log, CI) a plain line marks each start and finish, and one
every 30 seconds says that work goes on. The state and the estimates are plain values; only `Progress` draws.
"""

import asyncio
import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from supportfleet.local import cache

HEARTBEAT_SECONDS = 30.0
# A step that outlives its expectation is taken to need this share of it still, and never nothing.
OVERRUN_SHARE = 0.1
MINUTE = 60
# Names come and go (images, nodes, files); the oldest are forgotten.
MOST_DURATIONS = 200


@dataclass
class Step:
    """One piece of work, announced or running."""

    name: str
    expected: float
    lane: str
    started: float | None = None
    detail: str = ""
    measured: bool = True

    def note(self, detail: str) -> None:
        """Say what the step is doing just now."""
        self.detail = detail

    def found_done(self) -> None:
        """Another run did the work while this step waited: its duration says nothing."""
        self.measured = False

    def left(self, now: float) -> float:
        """About how many seconds it still needs."""
        if self.started is None:
            return self.expected
        return max(self.expected - (now - self.started), self.expected * OVERRUN_SHARE)


def seconds_left(steps: Iterable[Step], now: float) -> float:
    """About how long until all of the steps are done: lanes run side by side."""
    lanes: dict[str, float] = {}
    for step in steps:
        lanes[step.lane] = lanes.get(step.lane, 0.0) + step.left(now)
    return max(lanes.values(), default=0.0)


def in_words(seconds: float) -> str:
    """A duration for people: `7 s`, `3 min 20 s`; an estimate needs no finer grain."""
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    return f"{whole // MINUTE} min {whole % MINUTE:02d} s"


@dataclass
class Durations:
    """How long steps took, kept in the cache from run to run. Losing it costs an estimate, so it is never an error."""

    path: Path
    known: dict[str, float] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what earlier runs left; a missing or damaged file means that nothing is known."""
        try:
            table = json.loads(path.read_text())
        except (OSError, ValueError):
            table = {}
        items = table.items() if isinstance(table, Mapping) else ()
        return cls(path, {str(name): float(value) for name, value in items if isinstance(value, int | float)})

    def record(self, name: str, seconds: float) -> None:
        """Remember one duration, beside what other processes remembered meanwhile."""
        known = {**self.known, **type(self).load(self.path).known}
        known.pop(name, None)
        self.known = dict([*known.items(), (name, round(seconds, 1))][-MOST_DURATIONS:])
        temporary = self.path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.tmp")
        with contextlib.suppress(OSError):  # a read-only or full cache must not fail the work that was measured
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self.known, indent=1))
            temporary.replace(self.path)


class Progress:
    """The display, and the measure of what it shows. Use it as a context manager around all of the work."""

    def __init__(
        self,
        *,
        console: Console | None = None,
        durations: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        heartbeat: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._console = console or Console(stderr=True)
        self._durations = Durations.load(durations or cache.root() / "durations.json")
        self._clock = clock
        self._heartbeat = heartbeat
        self._lock = threading.Lock()
        self._open: dict[str, Step] = {}
        self._done = 0
        self._held: list[tuple[str, str]] | None = None
        self._live: Live | None = None
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hide()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal to a question; work goes on, and what it says is shown afterwards."""
        shown = self._live is not None or self._ticker is not None
        self._hide()
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held, None
            if shown:
                self._show()
            for message, style in held:
                self._say(message, style)

    def _show(self) -> None:
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=2, transient=True)
            self._live.start()
        else:
            self._stop.clear()
            self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
            self._ticker.start()

    def _hide(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None
        if self._ticker:
            self._stop.set()
            self._ticker.join()
            self._ticker = None

    def plan(self, name: str, *, expected: float = 0.0, lane: str = "main") -> None:
        """Announce a step that will run later, so that what is left counts it."""
        with self._lock:
            self._open.setdefault(name, self._step(name, expected, lane))

    def drop(self, name: str) -> None:
        """Take back the announcement of a step that turned out not to be needed."""
        with self._lock:
            self._open.pop(name, None)

    @contextlib.contextmanager
    def step(self, name: str, *, expected: float = 0.0, lane: str = "main") -> Iterator[Step]:
        """Do one step: its start and finish are shown, and its duration is remembered if it succeeds."""
        with self._lock:
            step = self._open.setdefault(name, self._step(name, expected, lane))
            step.started = self._clock()
        self._started(name)
        outcome, style = "failed after", "red"
        try:
            yield step
            outcome, style = "done in", "green"
        except (asyncio.CancelledError, KeyboardInterrupt):
            outcome, style = "stopped after", "yellow"
            raise
        finally:
            took = self._clock() - step.started
            with self._lock:
                self._open.pop(name, None)
                self._done += style == "green"
            if style == "green" and step.measured:
                self._durations.record(name, took)
            self._say(f"{name}: {outcome} {in_words(took)}", style)

    def say(self, message: str) -> None:
        """Print one line above the live block."""
        self._say(message, "")

    def _step(self, name: str, expected: float, lane: str) -> Step:
        return Step(name, self._durations.known.get(name, expected), lane)

    def _snapshot(self) -> tuple[list[Step], int]:
        with self._lock:
            return list(self._open.values()), self._done

    def _about_left(self) -> str:
        left = seconds_left(self._snapshot()[0], self._clock())
        return f" (about {in_words(left)} left in all)" if left >= 1 else ""

    def _say(self, message: str, style: str) -> None:
        if self._held is not None:
            self._held.append((message, style))
            return
        if self._live:
            self._live.refresh()
        self._console.print(Text(message, style=style), soft_wrap=True)

    def _started(self, name: str) -> None:
        if self._live:
            self._live.refresh()
        else:
            self._say(f"{name} …{self._about_left()}", "")

    def _tick(self) -> None:
        while not self._stop.wait(self._heartbeat):
            now = self._clock()
            running = [
                f"{step.name} ({in_words(now - step.started)}{', ' + step.detail if step.detail else ''})"
                for step in self._snapshot()[0]
                if step.started is not None
            ]
            if running:
                self._say(f"still working: {', '.join(running)}{self._about_left()}", "")

    def _render(self) -> Group:
        """The live block: a row for each running step, and a line for the whole."""
        steps, done = self._snapshot()
        now = self._clock()
        rows = Table.grid(padding=(0, 2))
        for step in steps:
            if step.started is not None:
                elapsed = in_words(now - step.started)
                expected = f"of about {in_words(step.expected)}" if step.expected >= 1 else ""
                rows.add_row(Text("•", "cyan"), step.name, elapsed, Text(expected, "dim"), Text(step.detail, "dim"))
        total = f"{done} of {done + len(steps)} steps done{self._about_left()}"
        return Group(*([rows] if rows.row_count else []), Text(total, style="bold"))
