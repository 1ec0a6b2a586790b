"""Running other programs to their end: always with a timeout, and never leaving their children behind."""

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from supportfleet.errors import CommandError

TAIL_LINES = 20
TERM_GRACE_SECONDS = 5.0


class ProgramError(CommandError):
    """A program could not be started, failed, or took too long; `output` holds the end of what it said."""

    def __init__(self, message: str, *, output: str = "", returncode: int | None = None, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.output = output
        self.returncode = returncode

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.output}" if self.output else super().__str__()


@dataclass(frozen=True)
class Output:
    """What a program that succeeded printed."""

    stdout: str
    stderr: str


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """The last lines of a program's output, which say why it failed."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


async def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    stdin: str | BinaryIO | None = None,
) -> Output:
    """Run a program, with no input unless given; raise `ProgramError` unless it exits 0 in time.

    It gets a process group of its own, so that a timeout or a cancelled task ends its children with it.
    """
    shown = shlex.join(str(part) for part in argv)
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=_input(stdin),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            start_new_session=True,
            pass_fds=tuple(pass_fds),
        )
    except OSError as error:
        raise ProgramError(f"can't start `{shown}`: {error.strerror}") from error
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await process.communicate(stdin.encode() if isinstance(stdin, str) else None)
    except TimeoutError as error:
        raise ProgramError(f"`{shown}` took more than {timeout_s:.0f} s and was ended") from error
    finally:
        if process.returncode is None:
            await _end(process)
    output = Output(stdout.decode(errors="replace"), stderr.decode(errors="replace"))
    if process.returncode:
        said = tail(output.stderr or output.stdout)
        how = f"exited with {process.returncode}" if process.returncode > 0 else f"got signal {-process.returncode}"
        raise ProgramError(f"`{shown}` {how}", output=said, returncode=process.returncode)
    return output


def _input(stdin: str | BinaryIO | None) -> int | BinaryIO:
    if stdin is None:
        return asyncio.subprocess.DEVNULL
    return asyncio.subprocess.PIPE if isinstance(stdin, str) else stdin


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the program's whole group: politely first, so that it can remove its temporary files, then for certain."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):  # all of them have ended
            os.killpg(process.pid, signum)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TERM_GRACE_SECONDS):
                await process.wait()
    # Its pipes close once all that it started has ended; only then is nothing of it left in this process either.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TERM_GRACE_SECONDS):
            await process.communicate()
