"""The progress display: estimates, plain lines, the live block, and what is remembered."""

import asyncio
import json
import threading
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from supportfleet.local.progress import Durations, Progress, Step, in_words, seconds_left

SECONDS = st.floats(min_value=0, max_value=10_000)
LANES = st.sampled_from(["build", "images", "cluster"])


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Heard(StringIO):
    """A log that wakes whoever waits for a word in it."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word
        self.heard = threading.Event()

    def write(self, text: str) -> int:
        if self.word in text:
            self.heard.set()
        return super().write(text)


def plain(tmp_path: Path, clock: Clock | None = None, out: StringIO | None = None, heartbeat: float = 30) -> Progress:
    return Progress(
        console=Console(file=out or StringIO(), width=200),
        durations=tmp_path / "durations.json",
        clock=clock or Clock(),
        heartbeat=heartbeat,
    )


@given(st.lists(st.tuples(SECONDS, LANES)))
def test_lanes_run_side_by_side(plan: list[tuple[float, str]]) -> None:
    """What is left is the longest lane: at most the sum of all steps, at least the longest step."""
    left = seconds_left([Step(f"s{i}", expected, lane) for i, (expected, lane) in enumerate(plan)], now=0)
    assert left <= sum(expected for expected, _ in plan) + 1e-6
    assert left >= max((expected for expected, _ in plan), default=0)
    in_one_lane = seconds_left([Step(f"s{i}", expected, "one") for i, (expected, _) in enumerate(plan)], now=0)
    assert in_one_lane == pytest.approx(sum(expected for expected, _ in plan))


def test_what_is_left_is_the_longest_lane() -> None:
    """Ten and five seconds in one lane beside twelve in another take fifteen."""
    steps = [Step("a", 10, "build"), Step("b", 12, "images"), Step("c", 5, "build")]
    assert seconds_left(steps, now=0) == 15


@given(SECONDS, SECONDS)
def test_a_running_step_needs_less_and_never_nothing(expected: float, elapsed: float) -> None:
    """The estimate falls as the step runs, and an overrun step is not said to be done."""
    step = Step("s", expected, "main", started=0)
    assert step.left(elapsed) <= expected
    assert step.left(elapsed) >= expected * 0.1
    assert step.left(elapsed) >= step.left(elapsed + 1)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (218, "3 min 38 s"), (3600, "60 min 00 s")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    """Durations read well and never say sixty seconds."""
    assert in_words(seconds) == words


def test_plain_lines_mark_start_and_finish(tmp_path: Path) -> None:
    """Without a terminal one line says that a step starts and what is left, and one that it is done and how long."""
    out, clock = StringIO(), Clock()
    with plain(tmp_path, clock, out) as progress:
        progress.plan("build b", expected=60)
        with progress.step("build a", expected=30):
            clock.now += 12
    assert out.getvalue().splitlines() == ["build a … (about 1 min 30 s left in all)", "build a: done in 12 s"]


def test_failed_step_says_so_and_is_not_remembered(tmp_path: Path) -> None:
    """A step that raises is shown as failed, its error goes on, and its duration estimates nothing."""
    out = StringIO()
    with plain(tmp_path, out=out) as progress, pytest.raises(ValueError, match="no"), progress.step("build a"):
        raise ValueError("no")
    assert "build a: failed after 0 s" in out.getvalue()
    assert not (tmp_path / "durations.json").exists()


async def test_cancelled_step_is_not_called_failed(tmp_path: Path) -> None:
    """Ctrl-C shows as stopped."""
    out = StringIO()
    with plain(tmp_path, out=out) as progress, pytest.raises(asyncio.CancelledError), progress.step("build a"):
        raise asyncio.CancelledError
    assert "build a: stopped after" in out.getvalue()


def test_measured_durations_replace_the_guess(tmp_path: Path) -> None:
    """The next run expects what the last one took, whatever the caller guesses."""
    clock, out = Clock(), StringIO()
    with plain(tmp_path, clock) as progress, progress.step("build a", expected=500):
        clock.now += 20
    with plain(tmp_path, clock, out) as progress, progress.step("build a", expected=500) as step:
        assert step.expected == 20
    assert "about 20 s left" in out.getvalue()


def test_work_that_another_run_did_is_not_measured(tmp_path: Path) -> None:
    """The time spent waiting for another run says nothing of the work's own."""
    with plain(tmp_path) as progress, progress.step("build a", expected=500) as step:
        step.found_done()
    assert Durations.load(tmp_path / "durations.json").known == {}


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"build a": "long"}', "\x00"])
def test_damaged_memory_is_forgotten(tmp_path: Path, content: str) -> None:
    """A damaged file of durations costs an estimate and nothing else, and is mended by the next step."""
    (tmp_path / "durations.json").write_text(content)
    with plain(tmp_path) as progress, progress.step("build a", expected=7) as step:
        assert step.expected == 7
    assert json.loads((tmp_path / "durations.json").read_text()) == {"build a": 0.0}


def test_two_runs_keep_each_others_durations(tmp_path: Path) -> None:
    """What another process recorded meanwhile is not lost."""
    one, other = Durations.load(tmp_path / "d"), Durations.load(tmp_path / "d")
    one.record("a", 1)
    other.record("b", 2)
    assert Durations.load(tmp_path / "d").known == {"a": 1.0, "b": 2.0}


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Of many names the latest are remembered, and using one again keeps it."""
    durations = Durations.load(tmp_path / "d")
    for number in range(250):
        durations.record("always", 1)
        durations.record(f"step {number}", 2)
    assert len(durations.known) == 200
    assert {"always", "step 249"} <= durations.known.keys()
    assert "step 0" not in durations.known


async def test_steps_overlap(tmp_path: Path) -> None:
    """Tasks of one loop may be in steps at once, and each is counted."""
    out = StringIO()
    inside = asyncio.Barrier(2)

    async def work(progress: Progress, name: str) -> None:
        with progress.step(name, lane=name):
            await inside.wait()

    with plain(tmp_path, out=out) as progress:
        await asyncio.gather(work(progress, "a"), work(progress, "b"))
    assert {"a: done in 0 s", "b: done in 0 s"} <= set(out.getvalue().splitlines())


def test_heartbeat_says_that_work_goes_on(tmp_path: Path) -> None:
    """Without a terminal a long step is mentioned again, with its note."""
    out = Heard("still working: build a (0 s, linking)")
    with plain(tmp_path, out=out, heartbeat=0.01) as progress, progress.step("build a") as step:
        step.note("linking")
        assert out.heard.wait(10)


def test_terminal_shows_a_live_block_that_goes_away(tmp_path: Path) -> None:
    """On a terminal running steps are redrawn in place; what remains is a line for each finished step."""
    out = StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    progress = Progress(console=console, durations=tmp_path / "d", clock=Clock())
    with progress:
        progress.plan("build b", expected=60)
        with progress.step("build a", expected=30) as step:
            step.note("linking")
            progress.say("hello")
    text = out.getvalue()
    assert "0 of 2 steps done (about 1 min 30 s left in all)" in text
    assert "linking" in text
    assert "hello" in text
    assert "build a: done in 0 s" in text
    assert "\x1b[?25h" in text, "the cursor is shown again"


def test_a_question_has_the_terminal_to_itself(tmp_path: Path) -> None:
    """While paused nothing is drawn though work goes on; afterwards what it said is shown and the block is back."""
    out = StringIO()
    progress = Progress(console=Console(file=out, force_terminal=True), durations=tmp_path / "d", clock=Clock())
    with progress, progress.step("build a"):
        with progress.paused():
            before = out.getvalue()
            with progress.step("build b"):
                progress.say("hello")
            assert out.getvalue() == before
        after = out.getvalue().removeprefix(before)
        assert "hello" in after
        assert "build b: done in 0 s" in after
        assert "build a" in after


def test_pausing_what_is_not_shown_shows_nothing(tmp_path: Path) -> None:
    """A display that was never started stays so after a question."""
    out = StringIO()
    progress = Progress(console=Console(file=out, force_terminal=True), durations=tmp_path / "d")
    with progress.paused():
        pass
    assert out.getvalue() == ""
