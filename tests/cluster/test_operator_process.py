"""The operator as a process: leadership, failover, rights, health, and what it costs to run."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.timeout(180)

ALONE = ("--no-leader-election",)
"""For tests that kill a replica and are not about the lease, which they would have to wait for."""


@pytest.fixture(autouse=True)
def ended(operators: Any, place: Any) -> Iterator[None]:
    """A test that fails with replicas left running costs the next ones nothing."""
    yield
    operators.end()
    if holder(place):
        place.delete("leases", "supportfleet-operator")


def agent(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "supportfleet.dev/v1alpha1",
        "kind": "SupportAgent",
        "metadata": {"name": name},
        "spec": {"template": {"image": "supportfleet/agent:dev"}, **spec},
    }


def leads(operator: Any) -> bool:
    return bool(operator.lines("caches filled"))


def holder(place: Any) -> str:
    lease = place.get("leases", "supportfleet-operator") or {}
    return str(lease.get("spec", {}).get("holderIdentity", ""))


class TestLeadership:
    def test_a_killed_leader_is_followed_within_twenty_seconds(
        self, operators: Any, place: Any, kubelet: Any, eventually: Callable[..., Any]
    ) -> None:
        """After kill -9 the standby reconciles what was applied meanwhile."""
        first = operators.start()
        eventually(lambda: leads(first), "the first leads", 30)
        second = operators.start()
        eventually(lambda: second.lines("started"), "the second is up", 30)
        eventually(lambda: second.ask("/readyz")[0] == 200, "a standby is ready", 20)
        assert not leads(second)
        first.process.kill()
        killed = time.monotonic()
        place.apply(agent("orphaned"))
        eventually(lambda: place.list("deployments"), "the standby reconciles", 25)
        assert time.monotonic() - killed < 20
        eventually(lambda: place.is_ready("orphaned"))
        assert second.stop() == 0

    def test_a_clean_stop_hands_over_at_once(
        self, operators: Any, place: Any, kubelet: Any, eventually: Callable[..., Any]
    ) -> None:
        """SIGTERM ends the process with 0 and releases the lease, so that the standby need not wait."""
        first = operators.start()
        eventually(lambda: leads(first), "the first leads", 30)
        second = operators.start()
        eventually(lambda: second.lines("started") and second.ask("/readyz")[0] == 200, "the second stands by", 30)
        stopped = time.monotonic()
        assert first.stop() == 0
        assert first.lines("released the lease")
        eventually(lambda: leads(second), "the second leads", 20)
        assert time.monotonic() - stopped < 10
        assert second.stop() == 0
        assert holder(place) == ""

    def test_a_leader_whose_lease_is_taken_stops(
        self, operators: Any, place: Any, eventually: Callable[..., Any]
    ) -> None:
        """A replica that finds another holder ends with 1 and writes nothing more."""
        leader = operators.start()
        eventually(lambda: leads(leader), "it leads", 30)
        spec = {"holderIdentity": "usurper", "renewTime": "2026-01-01T00:00:00.000000Z"}
        place.patch("leases", "supportfleet-operator", {"spec": spec})
        assert leader.process.wait(20) == 1
        assert leader.lines("leadership lost")
        assert holder(place) == "usurper"
        place.delete("leases", "supportfleet-operator")


class TestRestart:
    def test_a_restart_in_the_middle_changes_nothing(
        self, operators: Any, place: Any, kubelet: Any, audit: Any, eventually: Callable[..., Any]
    ) -> None:
        """Killed while an agent is coming up, the operator goes on where it was; killed after, it writes nothing."""
        first = operators.start(*ALONE)
        eventually(lambda: leads(first), "it leads", 30)
        with kubelet.told(agents_run=False):
            place.apply(agent("middle"))
            eventually(lambda: place.get("services", "middle"))
            first.process.kill()
            first.process.wait(10)
        second = operators.start(*ALONE)
        eventually(lambda: place.is_ready("middle"), "the second finishes it", 40)
        audit.rest("middle")
        second.stop()
        with audit() as events:
            third = operators.start(*ALONE)
            eventually(lambda: leads(third), "it leads", 30)
            time.sleep(3)
        assert audit.writes(events) == []
        third.stop()

    def test_a_deletion_that_nobody_saw_is_no_resurrection(
        self, operators: Any, place: Any, kubelet: Any, eventually: Callable[..., Any]
    ) -> None:
        """Agents deleted while no operator ran leave nothing when one comes back."""
        first = operators.start(*ALONE)
        eventually(lambda: leads(first), "it leads", 30)
        place.apply(agent("unseen"))
        eventually(lambda: place.is_ready("unseen"), seconds=30)
        first.process.kill()
        place.delete("supportagents", "unseen")
        second = operators.start(*ALONE)
        eventually(lambda: leads(second), "the second leads", 40)

        def left() -> list[str]:
            there = [one["metadata"]["name"] for plural in ("deployments", "services") for one in place.list(plural)]
            return [name for name in there if name.startswith("unseen")]

        eventually(lambda: not left(), "it is gone", 40)
        time.sleep(2)
        assert left() == []
        second.stop()


class TestRunning:
    def test_what_it_says_of_itself(
        self, operators: Any, place: Any, kubelet: Any, eventually: Callable[..., Any]
    ) -> None:
        """A leader is healthy and ready, its metrics tell of its work, and its logs are JSON without a secret."""
        operator = operators.start()
        eventually(lambda: leads(operator), "it leads", 30)
        place.secret("db", DATABASE_URL="postgresql://top-secret")
        place.apply(agent("told", database={"secretRef": {"name": "db"}}))
        eventually(lambda: place.is_ready("told"), seconds=30)
        assert operator.ask("/healthz") == (200, "ok\n")
        assert operator.ask("/readyz") == (200, "ok\n")
        lines = (
            "supportfleet_leader 1.0",
            'supportfleet_agents{phase="Ready"}',
            'supportfleet_rollouts{phase="Idle"}',
            'supportfleet_reconcile_total{result="success"}',
            'supportfleet_api_requests_total{code="200",resource="deployments",verb="list"}',
            'supportfleet_watch_last_event_age_seconds{resource="pods"}',
            "supportfleet_queue_depth 0.0",
            "process_resident_memory_bytes",
        )

        def lacking() -> list[str]:
            metrics = operator.ask("/metrics")[1]
            return [line for line in lines if line not in metrics]

        # It counts what it did, and empties its queue, a moment after the agent is Ready.
        eventually(lambda: not lacking(), f"its metrics tell of its work: {lines}")
        text = operator.log.read_text().rpartition("\n")[0]  # the last line may be half written
        assert all(json.loads(line)["event"] for line in text.splitlines())
        assert "top-secret" not in text
        assert not operator.lines("reconciling failed")
        assert operator.stop() == 0

    def test_without_the_right_to_read_secrets_it_still_works(
        self, installed: Any, operators: Any, place: Any, kubelet: Any, eventually: Callable[..., Any]
    ) -> None:
        """Installed without secret-reader.yaml nothing is looked up, and a missing Secret shows through the pods."""
        binding = "clusterrolebinding/supportfleet-operator-secret-reader"
        kept = yaml.safe_load(installed.kubectl("get", binding, "-o", "yaml").stdout)
        installed.kubectl("delete", binding)
        try:
            operator = operators.start()
            eventually(lambda: leads(operator), "it leads", 30)
            with kubelet.told(agents_run=False):
                place.apply(agent("unread", database={"secretRef": {"name": "absent"}}))
                label = "?labelSelector=supportfleet.dev/agent=unread"
                pods = eventually(lambda: place.api.request("GET", place.path("pods") + label)["items"])
                waiting = {"reason": "CreateContainerConfigError", "message": 'secret "absent" not found'}
                state = {"name": "agent", "ready": False, "restartCount": 0, "image": "i", "imageID": ""}
                kubelet.say(pods[0], {"containerStatuses": [{**state, "state": {"waiting": waiting}}]})
                eventually(lambda: place.reason("unread") == "MissingReference")
            assert "spec.database.secretRef" in place.condition("unread", "Ready")["message"]
            operator.stop()
        finally:
            metadata = {"name": kept["metadata"]["name"], "labels": kept["metadata"].get("labels", {})}
            body = {**kept, "metadata": metadata}
            installed.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(body))

    def test_one_operator_serves_every_namespace_by_default(
        self, operators: Any, place: Any, kubelet: Any, eventually: Callable[..., Any]
    ) -> None:
        """Without --namespace the watches are cluster-wide."""
        operator = operators.start(namespaces=())
        eventually(lambda: leads(operator), "it leads", 30)
        place.apply(agent("anywhere"))
        eventually(lambda: place.is_ready("anywhere"), seconds=30)
        operator.process.send_signal(signal.SIGINT)
        assert operator.process.wait(25) == 0
