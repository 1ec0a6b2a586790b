"""The benchmarks that take long are run briefly, so that they still work when somebody needs their figures."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SECONDS = 240


def run(script: str, *arguments: str) -> str:
    """What a benchmark prints, once it ended well."""
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(SECONDS + 30)
def test_the_runtime_is_measured_beside_a_bare_server() -> None:
    """Every message is answered by the model, in its request; what is taken in is in the database."""
    options = ["--rounds", "1", "--seconds", "0.5", "--concurrency", "4", "--delays", "0", "--without-litellm"]
    printed = run("against_litellm.py", *options, "--parts", "compare", "accept")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines()]
    servers = {row[2]: row for row in rows if len(row) == 12}
    assert [servers[name][-1] for name in ("runtime", "aiohttp echo")] == ["0", "0"], "none was answered wrongly"
    assert float(servers["runtime"][3]) > 0
    assert "messages accepted a second, sqlite as the queue" in printed


@pytest.mark.timeout(SECONDS + 30)
def test_the_soak_answers_every_message(tmp_path: Path) -> None:
    """A brief soak of gateway and worker loses nothing."""
    options = ["--minutes", "0.05", "--rate", "10", "--database", f"sqlite:///{tmp_path / 'soak.db'}"]
    assert "nothing failed" in run("soak.py", *options)


@pytest.mark.timeout(SECONDS + 30)
def test_a_full_file_is_measured_beside_an_empty_one() -> None:
    """Every message is answered; what it costs is for a quiet machine to say."""
    options = ["--rounds", "1", "--seconds", "0.5", "--stored", "1000", "--limit", "1000"]
    assert "answered wrongly: none" in run("stored.py", *options)


def test_a_slope_is_that_of_the_last_three_quarters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that grows at first and then stays is flat; memory that goes on growing is not."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    resident: Any = runpy.run_path(str(BENCHMARKS / "soak.py"))["Resident"]
    settled, growing = resident(), resident()
    for minute in range(60):
        settled.add(minute / 60, min(100 + 2 * minute, 120))
        growing.add(minute / 60, 100 + minute)
    assert abs(settled.slope) < 1e-9
    assert growing.slope == pytest.approx(60)
