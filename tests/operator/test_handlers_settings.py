"""Flags, logs, probes and metrics: what the process is told, and what it tells."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from supportfleet_operator.cluster.connection import connect
from supportfleet_operator.errors import SettingsError, api_error
from supportfleet_operator.logs import JsonFormatter
from supportfleet_operator.metrics import Metrics
from supportfleet_operator.server import Health, serving
from supportfleet_operator.settings import identity, read


class TestFlags:
    def test_defaults(self) -> None:
        """With nothing set it serves all namespaces with eight workers and takes part in the election."""
        settings = read(["run"], {})
        assert settings.namespaces == ()
        assert settings.workers == 8
        assert settings.listen == ("0.0.0.0", 8080)  # noqa: S104 - what is expected
        assert settings.leader_election
        assert settings.lease_namespace == "supportfleet-system"
        assert settings.kubeconfig is None

    def test_flags_come_before_the_environment(self) -> None:
        """A flag wins over its variable, and a repeated one is one."""
        environ = {"OPERATOR_NAMESPACES": "a,b", "OPERATOR_WORKERS": "3", "LOG_LEVEL": "DEBUG", "KUBECONFIG": "/k"}
        assert read(["run"], environ).namespaces == ("a", "b")
        settings = read(["run", "-n", "c", "--namespace", "c", "--workers", "5", "--listen", ":9"], environ)
        assert settings.namespaces == ("c",)
        assert settings.workers == 5
        assert settings.listen == ("0.0.0.0", 9)  # noqa: S104 - what is expected
        assert settings.log_level == "debug"
        assert settings.kubeconfig == Path("/k")

    def test_everything_wrong_is_said_at_once(self) -> None:
        """One run shows all mistakes."""
        flags = ["--workers", "0", "--api-qps", "x", "--api-burst", "0.5", "--listen", "here", "--log-level", "loud"]
        with pytest.raises(SettingsError) as caught:
            read(["run", *flags], {})
        for flag in ("--workers", "--api-qps", "--api-burst", "--listen", "--log-level"):
            assert flag in str(caught.value)

    def test_a_replica_is_its_pod(self) -> None:
        """A container that is restarted in its pod is the same holder; elsewhere every process is another."""
        assert identity({"POD_NAME": "operator-1"}) == "operator-1"
        assert identity({}) != identity({})


class TestConnection:
    async def test_a_missing_kubeconfig_says_what_to_do(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The remedy is in the message."""
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        with pytest.raises(SettingsError, match="--kubeconfig"):
            async with connect(tmp_path / "none"):
                pass

    async def test_a_broken_kubeconfig_is_a_settings_error(self, tmp_path: Path) -> None:
        """Whatever the library raises becomes an error of ours."""
        path = tmp_path / "kubeconfig"
        path.write_text("contexts: []\nclusters: []\ncurrent-context: none\n")
        with pytest.raises(SettingsError, match="cannot be used"):
            async with connect(path):
                pass


class TestLogs:
    def line(self, **extra: Any) -> dict[str, Any]:
        record = logging.makeLogRecord({"name": "x", "levelname": "INFO", "msg": "wrote %s", "args": ("it",), **extra})
        parsed: dict[str, Any] = json.loads(JsonFormatter().format(record))
        return parsed

    def test_an_event_with_its_fields(self) -> None:
        """Extras are fields of the line."""
        line = self.line(agent="shop/desk")
        assert line["event"] == "wrote it"
        assert line["agent"] == "shop/desk"
        assert line["level"] == "info"
        assert line["time"].endswith("+00:00")

    def test_what_is_not_json_is_text(self) -> None:
        """No value breaks a line."""
        assert self.line(thing=object())["thing"].startswith("<object")

    def test_a_trace_is_one_field(self) -> None:
        """A log line stays one line."""
        error = ValueError("because")
        assert "ValueError: because" in self.line(exc_info=(type(error), error, None))["trace"]

    def test_what_kopf_adds_for_itself_is_left_out(self) -> None:
        """Its settings object is no field."""
        assert "settings" not in self.line(settings=object(), k8s_ref={})


class TestServer:
    async def ask(self, port: int, path: str) -> tuple[int, str]:
        async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
            return response.status, await response.text()

    async def test_probes_follow_what_they_are_told(self) -> None:
        """Each ailment fails liveness, each thing waited for fails readiness, and says why."""
        health = Health()
        async with serving(("127.0.0.1", 0), Metrics(), health) as port:
            assert await self.ask(port, "/healthz") == (200, "ok\n")
            assert await self.ask(port, "/readyz") == (503, "the API server\n")
            health.waits_for = list
            health.ailments = lambda: ["a is stuck", "b is silent"]
            assert await self.ask(port, "/readyz") == (200, "ok\n")
            assert await self.ask(port, "/healthz") == (503, "a is stuck\nb is silent\n")

    async def test_metrics_are_served(self) -> None:
        """Requests, leadership and the process itself."""
        metrics = Metrics()
        metrics.request("apply", "services", "200", 0.01)
        metrics.request("watch", "services", "200", 300.0)
        metrics.leads(leading=True)
        async with serving(("127.0.0.1", 0), metrics, Health()) as port:
            _, text = await self.ask(port, "/metrics")
        assert 'supportfleet_api_requests_total{code="200",resource="services",verb="apply"} 1.0' in text
        assert "supportfleet_leader 1.0" in text
        assert "process_cpu_seconds_total" in text
        assert 'supportfleet_api_request_duration_seconds_count{verb="watch"}' not in text


def test_a_status_without_details_is_an_error_all_the_same() -> None:
    """The least that a server can say."""
    error = api_error(418, {})
    assert str(error) == "the API server answered 418"
    assert api_error(429, {"details": {"retryAfterSeconds": 3}}).retry_after == 3.0
