"""Analysis by a real Prometheus: Debian's, on loopback, which scrapes figures that the test sets.

It scrapes twice a second, so a rate over a few seconds follows within those seconds.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import runpy
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

from supportfleet_operator.api import AnalysisOutcome, Rollout
from supportfleet_operator.cluster.prometheus import PrometheusClient, Server, asking
from supportfleet_operator.rollout import AnalysisResult, RolloutState, analyse, answered, queries, unanswered

serving = runpy.run_path(str(Path(__file__).parent.parent / "serving.py"))["serving"]
free_port = runpy.run_path(str(Path(__file__).parent.parent / "ports.py"))["free_port"]
START_SECONDS = 60
STOP_SECONDS = 20
SHARE = 'sum(rate(bad_total{revision="{{revision}}"}[3s])) / sum(rate(all_total{revision="{{revision}}"}[3s]))'
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
BEGUN = RolloutState(
    phase="Stepping",
    stable="r1",
    canary="r2",
    weight=50,
    step_started_at=NOW,
    baseline={"@canary": {"scrapes": 1.0}},
)


@dataclass
class Figures:
    """Counters of both revisions, which grow at a set rate from one scrape to the next."""

    port: int = 0
    per_scrape: dict[tuple[str, str], float] = field(default_factory=dict)
    values: dict[tuple[str, str], float] = field(default_factory=dict)
    scrapes: int = 0

    def text(self) -> str:
        self.scrapes += 1
        for key, step in self.per_scrape.items():
            self.values[key] = self.values.get(key, 0.0) + step
        return "".join(f'{name}{{revision="{rev}"}} {value}\n' for (name, rev), value in self.values.items())

    def set(self, **bad: float) -> None:
        """So many of a revision's ten requests a scrape are bad."""
        for revision, number in bad.items():
            self.per_scrape[("all_total", revision)] = 10.0
            self.per_scrape[("bad_total", revision)] = number
            self.values.setdefault(("bad_total", revision), 0.0)

    def scraped(self, times: int = 8) -> None:
        """Wait until Prometheus has seen the present rates for a whole window."""
        goal, deadline = self.scrapes + times, time.monotonic() + START_SECONDS
        while self.scrapes < goal:
            assert time.monotonic() < deadline, "Prometheus does not scrape"
            time.sleep(0.1)
        time.sleep(0.2)  # what was scraped last is stored a moment later


@pytest.fixture
def figures() -> Iterator[Figures]:
    found = Figures()
    with serving(lambda _: (200, found.text().encode()), content="text/plain; version=0.0.4") as found.port:
        yield found


class Prometheus:
    """The server, which is started, killed and started again on the same port and data."""

    def __init__(self, folder: Path, target: int) -> None:
        self.folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 500ms, scrape_timeout: 400ms}\n"
            f"scrape_configs: [{{job_name: agents, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
        )

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [
            "prometheus",
            f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/data",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.1)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(STOP_SECONDS)
            self._process = None

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/-/ready", timeout=2) as answer:  # noqa: S310 - http
                return int(answer.status) == 200
        except OSError:
            return False


@pytest.fixture
def prometheus(tmp_path: Path, figures: Figures, unavailable: Callable[[str, str], NoReturn]) -> Iterator[Prometheus]:
    if shutil.which("prometheus") is None:
        unavailable("Prometheus", "install Debian's package prometheus, or run `supportfleet local prepare --tests`")
    server = Prometheus(tmp_path, figures.port)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def client() -> AsyncIterator[PrometheusClient]:
    async with asking() as session:
        yield PrometheusClient(session)


def spec(query: str = SHARE, **limit: Any) -> Rollout:
    """A canary that is judged by one query."""
    metric = {"name": "bad", "query": query, **(limit or {"max": 0.2})}
    analysis = {"metrics": [metric], "prometheus": {"address": "http://prometheus:9090"}}
    return Rollout.model_validate({"strategy": "Canary", "steps": [{"setWeight": 50}], "analysis": analysis})


async def measure(client: PrometheusClient, server: Prometheus, rollout: Rollout) -> AnalysisResult:
    """One measurement, as the operator takes it."""
    asked = queries(BEGUN, rollout, "shop", "support")
    replies: Mapping[str, Any] = await client.ask(Server(server.address, 5.0), [query.text for query in asked])
    answers = {
        query: answered(reply.body) if reply.body is not None else unanswered(reply.why)
        for query in asked
        for reply in [replies[query.text]]
    }
    return analyse(BEGUN, rollout, {}, NOW + dt.timedelta(seconds=30), answers)


def only(result: AnalysisResult) -> AnalysisOutcome:
    (outcome,) = result.outcomes
    return outcome


async def test_a_share_decides(client: PrometheusClient, prometheus: Prometheus, figures: Figures) -> None:
    """Half of the canary's requests being bad fails it, and none of them passes it."""
    figures.set(r1=0, r2=5)
    await asyncio.to_thread(figures.scraped)
    bad = await measure(client, prometheus, spec())
    assert bad.verdict == "Fail"
    assert only(bad).value == pytest.approx(0.5, abs=0.1)
    figures.set(r2=0)
    await asyncio.to_thread(figures.scraped)
    assert (await measure(client, prometheus, spec())).verdict == "Pass"


async def test_stable_is_the_yardstick(client: PrometheusClient, prometheus: Prometheus, figures: Figures) -> None:
    """What stable does as well is no fault of the canary."""
    figures.set(r1=5, r2=5)
    await asyncio.to_thread(figures.scraped)
    beside = spec(maxIncreaseOverStable=0.1)
    assert (await measure(client, prometheus, beside)).verdict == "Pass"
    figures.set(r1=0)
    await asyncio.to_thread(figures.scraped)
    found = await measure(client, prometheus, beside)
    assert found.verdict == "Fail"
    assert only(found).stable == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ('sum(rate(unheard_of_total{revision="{{canary}}"}[3s]))', ""),
        ('sum(rate(bad_total{revision="none-{{canary}}"}[3s])) / sum(rate(all_total{revision="{{canary}}"}[3s]))', ""),
        ('0 * sum(all_total{revision="{{canary}}"}) / 0', ""),
        ('sum(all_total{revision="{{canary}}"}) / 0', ""),
        ("all_total", "series"),
        ('all_total{revision="{{canary}}"}[10s]', ""),
        ('sum(rate(all_total{revision="{{canary}}"}))', "Prometheus said"),
    ],
    ids=["unknown", "empty", "nan", "infinite", "several", "matrix", "not-valid"],
)
async def test_what_is_no_figure_never_decides(
    client: PrometheusClient, prometheus: Prometheus, figures: Figures, query: str, says: str
) -> None:
    """Neither passed nor failed; where Prometheus says why, the outcome does."""
    figures.set(r1=1, r2=1)
    await asyncio.to_thread(figures.scraped, 3)
    found = await measure(client, prometheus, spec(query))
    assert found.verdict not in {"Pass", "Fail"}
    assert only(found).value is None
    assert says in (only(found).message or "")


async def test_a_counter_that_starts_again(client: PrometheusClient, prometheus: Prometheus, figures: Figures) -> None:
    """A pod that restarts begins at nought: that is no burst of bad requests."""
    figures.set(r1=0, r2=0)
    figures.values |= {("bad_total", "r2"): 1e6, ("all_total", "r2"): 1e6}
    await asyncio.to_thread(figures.scraped)
    figures.values |= {("bad_total", "r2"): 0.0, ("all_total", "r2"): 0.0}
    await asyncio.to_thread(figures.scraped, 3)
    assert (await measure(client, prometheus, spec())).verdict == "Pass"


async def test_a_prometheus_that_is_killed(client: PrometheusClient, prometheus: Prometheus, figures: Figures) -> None:
    """While it is away nothing is decided, and the outcome says that it cannot be reached; back again, it decides."""
    figures.set(r1=0, r2=5)
    await asyncio.to_thread(figures.scraped)
    prometheus.kill()
    away = await measure(client, prometheus, spec())
    assert away.verdict not in {"Pass", "Fail"}
    assert "cannot be reached" in (only(away).message or "")
    await asyncio.to_thread(prometheus.start)
    await asyncio.to_thread(figures.scraped)
    assert (await measure(client, prometheus, spec())).verdict == "Fail"
