"""Running programs: output, failure, timeout, and nobody left behind."""

import asyncio
import gc
import os
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet.local.processes import Output, ProgramError, run, tail


async def test_output_of_a_success() -> None:
    """What a program prints is returned, both streams apart."""
    assert await run(["sh", "-c", "echo out; echo err >&2"], timeout_s=10) == Output("out\n", "err\n")


async def test_failure_carries_code_and_last_words() -> None:
    """A failure names the command, its exit code and the end of its error output."""
    with pytest.raises(ProgramError, match=r"exited with 3") as caught:
        await run(["sh", "-c", "seq 100 >&2; exit 3"], timeout_s=10)
    assert caught.value.returncode == 3
    assert caught.value.output.endswith("99\n100")
    assert "\n1\n" not in caught.value.output
    assert "100" in str(caught.value)


async def test_failure_without_error_output_shows_the_other() -> None:
    """Programs that complain on standard output are heard too."""
    with pytest.raises(ProgramError) as caught:
        await run(["sh", "-c", "echo why; exit 1"], timeout_s=10)
    assert caught.value.output == "why"


async def test_missing_program_is_named() -> None:
    """A program that is not there gives our error with its name."""
    with pytest.raises(ProgramError, match=r"can't start `no-such-program x`: No such file"):
        await run(["no-such-program", "x"], timeout_s=10)


@pytest.mark.parametrize("child", ["sleep 60", "sh -c 'trap \"\" TERM; sleep 60; sleep 60'"])
async def test_timeout_ends_the_whole_group(tmp_path: Path, child: str) -> None:
    """A program that takes too long is ended with its children, also those that ignore SIGTERM."""
    script = f"{child} & echo $! > {tmp_path / 'child'}; wait"
    with pytest.raises(ProgramError, match=r"took more than 3 s"):
        await run(["sh", "-c", script], timeout_s=3)
    pid = int((tmp_path / "child").read_text())
    for _ in range(500):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        await asyncio.sleep(0.02)
    pytest.fail("the child is still there")


def test_a_program_that_was_ended_leaves_nothing_open() -> None:
    """Its pipes are closed with it, though a child that ignores SIGTERM holds them longer than it lives itself."""
    with pytest.raises(ProgramError, match="took more than"):
        asyncio.run(run(["sh", "-c", "(trap '' TERM; sleep 60; sleep 60) & wait"], timeout_s=0.3))
    gc.collect()  # what is left open warns now, and a warning is an error in tests


async def test_program_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Politeness ends: a program that ignores SIGTERM gets SIGKILL."""
    monkeypatch.setattr("supportfleet.local.processes.TERM_GRACE_SECONDS", 0.2)
    with pytest.raises(ProgramError, match="took more than"):
        await asyncio.wait_for(run(["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], timeout_s=0.3), 20)


async def test_no_input_is_offered() -> None:
    """A program that asks something gets the end of input instead of waiting for ever."""
    assert (await run(["cat"], timeout_s=10)).stdout == ""


async def test_only_the_given_descriptors_are_inherited(tmp_path: Path) -> None:
    """A lock that is passed reaches the program; nothing else does."""
    with (tmp_path / "a").open("w") as passed, (tmp_path / "b").open("w") as kept:
        os.set_inheritable(kept.fileno(), True)  # noqa: FBT003 - the function's own signature
        seen = (await run(["ls", "-l", "/proc/self/fd"], timeout_s=10, pass_fds=[passed.fileno()])).stdout
    assert str(tmp_path / "a") in seen
    assert str(tmp_path / "b") not in seen


@given(st.text(), st.integers(min_value=1, max_value=5))
def test_tail_is_the_end(text: str, lines: int) -> None:
    """The tail has at most so many lines, and they are the last ones."""
    last = tail(text, lines).splitlines()
    assert len(last) <= lines
    assert last == text.rstrip().splitlines()[-lines:]
