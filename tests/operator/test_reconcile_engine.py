"""The engine against a fake API server: from an event to its outcome, through every failure on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from supportfleet_operator.cluster import watch as watch_module
from supportfleet_operator.cluster.client import Client
from supportfleet_operator.cluster.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    SERVICES,
    SUPPORT_AGENTS,
    AgentKey,
)
from supportfleet_operator.metrics import Metrics
from supportfleet_operator.reconcile import engine as engine_module
from supportfleet_operator.reconcile import queue as queue_module
from supportfleet_operator.reconcile.engine import Engine

DESK = AgentKey("shop", "desk")


class Silence:
    """No pod and no Prometheus answers."""

    async def scrape(self, targets: Any) -> dict[str, str]:
        return {}

    async def ask(self, server: Any, queries: Any) -> dict[str, Any]:
        return {}


class Stage:
    """An engine, fed as kopf would feed it."""

    def __init__(self, api: Any, engine: Engine, metrics: Metrics, world: Any) -> None:
        self.api, self.engine, self.metrics, self.world = api, engine, metrics, world

    def apply(self, **spec: Any) -> dict[str, Any]:
        """Create or edit the agent, and tell the engine."""
        known = self.api.get(SUPPORT_AGENTS, "shop", "desk")
        agent = self.world(**spec).agent
        if known:
            agent = {**known, "spec": agent["spec"]}
        stored: dict[str, Any] = self.api.put(agent)
        self.engine.agent_changed(stored)
        return stored

    def status(self) -> dict[str, Any]:
        found = self.api.get(SUPPORT_AGENTS, "shop", "desk")
        return dict(found.get("status") or {}) if found else {}

    def reason(self, kind: str = "Ready") -> str:
        conditions = self.status().get("conditions", [])
        return next((str(one["reason"]) for one in conditions if one["type"] == kind), "")

    @property
    def deployment(self) -> Any:
        """The Deployment of the agent's only revision, or None."""
        return next(iter(self.api.all(DEPLOYMENTS)), None)

    def roll_out(self) -> None:
        """What the Deployment's controller and a node would report."""
        deployment = self.deployment
        wanted = deployment["spec"]["replicas"]
        deployment["status"] = {
            "observedGeneration": deployment["metadata"]["generation"],
            **dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas", "readyReplicas"), wanted),
            "conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}],
        }
        self.api.put(deployment)
        template = deployment["spec"]["template"]["metadata"]
        status = {"phase": "Running", "podIP": "10.1.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
        for number in range(wanted):
            name = f"{deployment['metadata']['name']}-{number}"
            metadata = {"name": name, "namespace": "shop", "labels": template["labels"]}
            self.api.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status})

    def count(self, result: str) -> float:
        return float(self.metrics.reconciles.labels(result)._value.get())

    def idle(self) -> bool:
        return not len(self.engine.queue) and not self.engine._busy_since


@pytest.fixture
async def stage(api: Any, client: Client, world: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(queue_module, "FIRST_DELAY", 0.02)
    monkeypatch.setattr(watch_module, "FIRST_DELAY", 0.02)
    monkeypatch.setattr(watch_module, "SHORT", 0.0)
    metrics = Metrics()
    engine = Engine(client, metrics, Silence(), Silence(), workers=4)
    task = asyncio.create_task(engine.run())
    yield Stage(api, engine, metrics, world)
    task.cancel()
    await asyncio.wait({task})


async def test_from_an_event_to_ready(stage: Stage, until: Callable[..., Any]) -> None:
    """An agent becomes its children, its status follows theirs, and its Events tell."""
    stage.apply()
    await until(lambda: stage.reason() == "Progressing")
    stage.roll_out()
    await until(lambda: stage.reason() == "Available")
    assert stage.status()["phase"] == "Ready"
    await until(lambda: {"Created", "Available"} <= {event["reason"] for event in stage.api.all(EVENTS)})


async def test_at_rest_nothing_is_requested(stage: Stage, until: Callable[..., Any]) -> None:
    """Events that change nothing cost neither a read nor a write."""
    stage.apply()
    await until(lambda: stage.reason() == "Progressing")
    stage.roll_out()
    await until(lambda: stage.reason() == "Available")
    await until(stage.idle)
    await asyncio.sleep(0.1)
    stage.api.requests.clear()
    before = stage.count("success")
    for _ in range(5):
        service = stage.api.get(SERVICES, "shop", "desk")
        service["metadata"].setdefault("annotations", {})["n"] = str(_)
        stage.api.put(service)
        await asyncio.sleep(0.02)
    await until(lambda: stage.count("success") >= before + 1)
    assert [one for one in stage.api.requests if "/events" not in one[1]] == []


async def test_a_deleted_child_returns(stage: Stage, until: Callable[..., Any]) -> None:
    """The watch tells, and it is made again."""
    stage.apply()
    await until(lambda: stage.api.get(SERVICES, "shop", "desk"))
    await until(stage.idle)
    stage.api.remove(SERVICES, "shop", "desk")
    await until(lambda: stage.api.get(SERVICES, "shop", "desk"))


@pytest.mark.parametrize("status", [409, 429, 500, 503])
async def test_failures_of_the_server_are_retried(stage: Stage, until: Callable[..., Any], status: int) -> None:
    """Whatever the API server answers for a while, the agent converges, and the queue owns the retry."""
    headers = {"Retry-After": "0"}
    stage.api.fail(status, times=4, method="PATCH", body={"message": "later", "reason": "Later"}, headers=headers)
    stage.apply()
    await until(lambda: stage.deployment)
    await until(lambda: stage.reason() == "Progressing")
    assert stage.count("retry") >= 1
    assert stage.count("error") == 0


async def test_dropped_watches_lose_nothing(stage: Stage, until: Callable[..., Any]) -> None:
    """With every watch cut again and again, and history compacted, what happens is still noticed."""
    stage.apply()
    config = (await until(lambda: stage.api.all(CONFIG_MAPS)))[0]["metadata"]["name"]
    for cut in (stage.api.drop_watches, stage.api.compact, stage.api.drop_watches):
        await until(stage.idle)
        stage.api.remove(CONFIG_MAPS, "shop", config)
        cut()
        await until(lambda: stage.api.get(CONFIG_MAPS, "shop", config))


async def test_a_bug_in_one_agent_stops_no_other(
    stage: Stage, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted as an error and retried; other agents are reconciled meanwhile."""
    broken = AgentKey("shop", "broken")
    known = stage.engine.agents.get

    def fail(key: AgentKey) -> Any:
        if key == broken:
            raise KeyError("a bug")
        return known(key)

    monkeypatch.setattr(stage.engine.agents, "get", fail)
    stage.engine.queue.add(broken)
    stage.apply()
    await until(lambda: stage.deployment)
    await until(lambda: stage.count("error") >= 2)


async def test_an_agent_that_is_gone_is_not_resurrected(stage: Stage, until: Callable[..., Any]) -> None:
    """A deletion that kopf missed: before anything is written the agent is looked for, and forgotten."""
    stage.apply()
    await until(lambda: stage.api.get(SERVICES, "shop", "desk"))
    await until(stage.idle)
    stage.api.remove(SUPPORT_AGENTS, "shop", "desk")
    stage.api.remove(SERVICES, "shop", "desk")
    await until(lambda: stage.engine.agents.get(DESK) is None)
    await until(stage.idle)
    assert stage.api.get(SERVICES, "shop", "desk") is None


async def test_an_agent_on_its_way_out_is_left(stage: Stage, until: Callable[..., Any]) -> None:
    """With a deletionTimestamp nothing is written for it any more."""
    stored = stage.apply()
    await until(lambda: stage.api.get(SERVICES, "shop", "desk"))
    await until(stage.idle)
    leaving = stage.api.put({**stored, "metadata": {**stored["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    stage.engine.agent_changed(leaving)
    stage.api.remove(SERVICES, "shop", "desk")
    await asyncio.sleep(0.1)
    await until(stage.idle)
    assert stage.api.get(SERVICES, "shop", "desk") is None


async def test_a_deletion_forgets_the_agent(stage: Stage, until: Callable[..., Any]) -> None:
    """Neither the agent nor its appointments stay in memory."""
    stored = stage.apply()
    await until(lambda: stage.reason() == "Progressing")
    stage.engine.agent_deleted(stored)
    await until(stage.idle)
    assert stage.engine.agents.get(DESK) is None
    assert stage.engine.queue._schedule.next_at() is None


async def test_a_missing_secret_is_looked_for_again(
    stage: Stage, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent heals by itself once the Secret exists."""
    policies = "supportfleet_operator.reconcile.policies.missing_reference.RECHECK"
    monkeypatch.setattr(policies, 0.05)
    monkeypatch.setattr("supportfleet_operator.reconcile.references.ABSENT_SECONDS", 0.01)
    stage.apply(database={"secretRef": {"name": "db"}})
    await until(lambda: stage.reason() == "MissingReference")
    data = {"DATABASE_URL": "x"}
    stage.api.put({"kind": "Secret", "metadata": {"name": "db", "namespace": "shop"}, "data": data})
    await until(lambda: stage.reason() == "Progressing")
    assert stage.reason("Accepted") == "Valid"


async def test_a_model_opens_the_gate(stage: Stage, until: Callable[..., Any]) -> None:
    """The Job, then, once it is complete, the Deployment."""
    stage.apply(model={"uri": "s3://models/intent", "version": "1", "digest": stage.world.digest})
    (job,) = await until(lambda: stage.api.all(JOBS))
    await until(stage.idle)
    assert stage.deployment is None
    assert stage.status()["phase"] == "SyncingModel"
    job["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    stage.api.put(job)
    await until(lambda: stage.deployment)
    await until(lambda: stage.reason("ModelSynced") == "Synced")


async def test_many_agents_share_the_workers(stage: Stage, until: Callable[..., Any]) -> None:
    """A fleet converges, each agent by itself."""
    for number in range(30):
        agent = stage.world().agent
        agent["metadata"] |= {"name": f"desk-{number}", "uid": f"uid-{number}"}
        stage.engine.agent_changed(stage.api.put(agent))
    await until(lambda: len(stage.api.all(DEPLOYMENTS)) == 30, seconds=20)


async def test_nobody_works_on_half_a_picture(api: Any, client: Client, world: Any, until: Callable[..., Any]) -> None:
    """Until the last kind has its first list no worker begins."""
    api.fail(500, times=2, path="/deployments")
    engine = Engine(client, Metrics(), Silence(), Silence(), workers=2)
    engine.agent_changed(api.put(world().agent))
    task = asyncio.create_task(engine.run())
    await asyncio.sleep(0.2)
    assert not engine.synced
    assert api.writes() == []
    await until(lambda: api.all(DEPLOYMENTS))
    task.cancel()
    await asyncio.wait({task})


async def test_a_silent_watch_and_a_stuck_worker_are_ailments(
    stage: Stage, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a restart would cure is reported to the liveness probe."""
    await until(lambda: stage.engine.synced)
    assert stage.engine.ailments() == []
    monkeypatch.setattr(engine_module, "STALE_WATCH", -1.0)
    assert "the watch of pods is silent" in stage.engine.ailments()
    monkeypatch.setattr(engine_module, "STALE_WATCH", 100.0)
    stage.engine._busy_since[DESK] = asyncio.get_running_loop().time() - 1000
    assert stage.engine.ailments() == ["shop/desk is stuck"]
    stage.engine._busy_since.clear()


async def test_figures_are_read_on_request(stage: Stage, until: Callable[..., Any]) -> None:
    """Queue, watches, cache and phases can be scraped at any time."""
    from prometheus_client import generate_latest  # noqa: PLC0415 - only here

    stage.apply()
    await until(lambda: stage.reason() == "Progressing")
    await until(stage.idle)
    text = generate_latest(stage.metrics.registry).decode()
    assert "supportfleet_queue_depth 0.0" in text
    assert 'supportfleet_agents{phase="Progressing"} 1.0' in text
    assert 'supportfleet_watch_last_event_age_seconds{resource="deployments"}' in text
    assert 'supportfleet_rollouts{phase="Starting"} 1.0' in text
    assert "supportfleet_cached_objects 7.0" in text
