"""The process with kopf as its shell: what kopf is told, what it passes on, and how it all starts and stops."""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import kopf
import pytest
import yaml
from aiohttp import ClientSession

from supportfleet_operator import handlers
from supportfleet_operator.cluster.connection import connect
from supportfleet_operator.cluster.resources import DEPLOYMENTS, LEASES, SERVICES, SUPPORT_AGENTS

ROOT = Path(__file__).parent.parent.parent
free_port = runpy.run_path(str(ROOT / "tests" / "ports.py"))["free_port"]

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def kubeconfig(api: Any, tmp_path: Path) -> Path:
    """A kubeconfig of the fake API server, with a token."""
    config = {
        "current-context": "fake",
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        "clusters": [{"name": "fake", "cluster": {"server": api.url}}],
        "users": [{"name": "fake", "user": {"token": "a-token"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


class Process:
    """The operator as a child process."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process, self.log = process, log

    def events(self) -> list[str]:
        whole = [line for line in self.log.read_text().splitlines(keepends=True) if line.endswith("}\n")]
        return [json.loads(line)["event"] for line in whole if line.startswith("{")]

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 25)


@pytest.fixture
async def start(kubeconfig: Path, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Starts operators; what still runs at the end is killed."""
    started: list[Process] = []

    async def begin(*flags: str, port: int = 0) -> Process:
        log = tmp_path / f"{len(started)}.log"
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
        environment.pop("KUBERNETES_SERVICE_HOST", None)
        command = ["-m", "supportfleet_operator", "run", "--kubeconfig", str(kubeconfig)]
        command += ["--listen", f"127.0.0.1:{port}", *flags]
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, stdout=out, stderr=out, env=environment
            )
        started.append(Process(process, log))
        return started[-1]

    yield begin
    for one in started:
        if one.process.returncode is None:
            one.process.kill()
            await one.process.wait()


class TestSettings:
    def test_kopf_neither_writes_nor_scans(self) -> None:
        """Events, peering and the watching of CRDs are off, and what is left is bounded."""
        settings = kopf.OperatorSettings()
        handlers.apply_settings(settings)
        assert not settings.posting.enabled
        assert settings.peering.standalone
        assert settings.scanning.disabled
        assert settings.networking.enforce_retry_after
        assert settings.queueing.worker_limit == handlers.EVENT_WORKERS
        assert settings.watching.chunk_size == handlers.PAGE

    def test_only_events_are_handled(self) -> None:
        """No create, update, resume or delete handler, timer, daemon, index or webhook that kopf keeps state for."""
        registry = handlers.registry_for(None, None)  # type: ignore[arg-type]
        assert len(list(registry._watching.get_all_handlers())) == 1
        for other in (registry._changing, registry._spawning, registry._indexing, registry._webhooks):
            assert list(other.get_all_handlers()) == []

    async def test_kopf_logs_in_with_our_credentials(self, kubeconfig: Path, api: Any) -> None:
        """Server and token are those of our own connection."""
        async with connect(kubeconfig) as connection:
            found = await handlers.credentials(connection)
        assert found.server == api.url
        assert found.as_http_headers() == {"Authorization": "Bearer a-token"}


class TestProcess:
    async def test_agents_are_reconciled_and_only_their_status_is_written(
        self, api: Any, start: Callable[..., Any], world: Any, until: Callable[..., Any]
    ) -> None:
        """From kopf's watch to children and status, through an edit and a deletion; kopf itself writes nothing."""
        one = world()
        api.put(one.agent)
        process = await start()
        await until(lambda: api.get(DEPLOYMENTS, "shop", f"desk-{one.revision}"), seconds=30)
        edited = api.get(SUPPORT_AGENTS, "shop", "desk")
        api.put({**edited, "spec": {**edited["spec"], "service": {"port": 8080}}})
        await until(lambda: api.get(SERVICES, "shop", "desk")["spec"]["ports"][0]["port"] == 8080)
        api.remove(SUPPORT_AGENTS, "shop", "desk")
        await asyncio.sleep(0.3)
        writes = [path for method, path in api.writes() if "supportagents" in path]
        assert writes
        assert {path.rsplit("/", 1)[1] for path in writes} == {"status"}
        assert await process.stop() == 0
        assert "reconciling failed" not in process.events()

    async def test_a_signal_stops_it_in_order(
        self, api: Any, start: Callable[..., Any], until: Callable[..., Any]
    ) -> None:
        """SIGTERM ends with 0 within seconds, with the lease released."""
        process = await start()
        await until(lambda: "caches filled" in process.events(), seconds=30)
        assert api.get(LEASES, "supportfleet-system", "supportfleet-operator")["spec"]["holderIdentity"]
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert await process.stop() == 0
        assert loop.time() - begun < 8
        assert api.get(LEASES, "supportfleet-system", "supportfleet-operator")["spec"]["holderIdentity"] == ""
        assert process.events()[-1] == "stopped"

    async def test_a_standby_stops_as_well(
        self, api: Any, start: Callable[..., Any], until: Callable[..., Any]
    ) -> None:
        """A replica that waits for the lease is ready, reconciles nothing, and ends on SIGINT."""
        spec = {"holderIdentity": "another", "renewTime": "t0"}
        metadata = {"name": "supportfleet-operator", "namespace": "supportfleet-system"}
        api.put({"kind": "Lease", "metadata": metadata, "spec": spec})
        process = await start(port=(port := free_port()))
        await until(lambda: "started" in process.events(), seconds=30)

        async def ready() -> bool:
            async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz") as response:
                return response.status == 200

        async with asyncio.timeout(10):
            while not await ready():  # noqa: ASYNC110 - the condition is in another process
                await asyncio.sleep(0.05)
        assert api.writes() == []
        assert await process.stop(signal.SIGINT) == 0

    async def test_it_waits_for_the_crd(
        self, api: Any, start: Callable[..., Any], world: Any, until: Callable[..., Any]
    ) -> None:
        """Installed before its definition, the operator says so, is not ready, and begins when it is there."""
        api.fail(404, times=1000, path="supportfleet.dev/v1alpha1")
        process = await start(port=(port := free_port()))
        missing = "the CustomResourceDefinition is not installed"
        await until(lambda: missing in process.events(), seconds=30)
        async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz") as response:
            assert response.status == 503
            assert "supportagents.supportfleet.dev" in await response.text()
        api.faults.clear()
        api.put(world().agent)
        await until(lambda: api.all(DEPLOYMENTS), seconds=30)
        assert await process.stop() == 0

    async def test_an_api_server_that_is_away_at_first_is_waited_for(
        self, api: Any, start: Callable[..., Any], world: Any, until: Callable[..., Any]
    ) -> None:
        """Failures at the start end nothing."""
        api.fail(503, times=2, body={"message": "starting"})
        process = await start()
        api.put(world().agent)
        await until(lambda: api.all(DEPLOYMENTS), seconds=30)
        assert await process.stop() == 0

    async def test_bad_flags_are_all_named(self, start: Callable[..., Any]) -> None:
        """Everything that is wrong is said at once, with exit code 2, before anything starts."""
        process = await start("--workers", "none", "--log-level", "loud")
        assert await asyncio.wait_for(process.process.wait(), 20) == 2
        text = process.log.read_text()
        assert "--workers" in text
        assert "--log-level" in text
