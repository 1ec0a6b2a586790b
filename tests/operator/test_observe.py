"""Gathering what exists: what is the agent's, what only looks like it, and what its spec refers to."""

from __future__ import annotations

from typing import Any

import pytest

from supportfleet_operator.cluster.client import Client
from supportfleet_operator.cluster.resources import SUPPORT_AGENTS, AgentKey
from supportfleet_operator.reconcile.agents import Agents
from supportfleet_operator.reconcile.references import ReferenceReader, references


class TestObserving:
    def test_what_the_agent_controls_is_told_from_what_carries_its_label(self, world: Any) -> None:
        """A Service with our labels and another owner is a stranger."""
        one = world().applied()
        theirs = next(ref for ref in one.rendered.manifests if (ref.kind, ref.name) == ("Service", "desk"))
        one.put(one.rendered.manifests[theirs], owned=False)
        observed = one.observed()
        assert set(observed.strangers) == {theirs}
        assert set(observed.children) == set(one.objects) - {theirs}

    def test_absence_is_none(self, world: Any) -> None:
        """Nothing there is no error."""
        observed = world().observed()
        assert observed.claim is observed.of_revision("HorizontalPodAutoscaler", "r0000000") is None
        assert observed.deployments == observed.snapshots == {}
        assert observed.jobs == observed.agent_pods == []
        assert observed.ready_pods("r0000000") == 0
        assert observed.child(None) is None

    def test_pods_are_sorted_by_what_they_do(self, world: Any) -> None:
        """Pods of the agent, those of one Job, and none that are leaving."""
        one = world.with_model().applied()
        (serving,) = one.pods
        starting, sync, leaving = one.pod(), one.pod("model-sync"), one.pod()
        leaving["metadata"]["deletionTimestamp"] = one.stamp()
        observed = one.observed()
        assert observed.agent_pods == [serving, starting]
        assert observed.pods_of(one.child("Job")) == [sync]
        assert observed.ready_pods(one.revision) == 1

    def test_revisions_are_told_apart(self, world: Any) -> None:
        """Each has its own Deployment and pods; what no revision is named on is an earlier operator's."""
        one = world().applied()
        before = one.revision
        one.edit(template={"image": "agent:2"}).settle()
        metadata = {**one.child("Deployment", before)["metadata"], "name": "desk", "labels": {}}
        one.put({**one.child("Deployment", before), "metadata": metadata})
        observed = one.observed()
        assert set(observed.deployments) == {before, one.revision, ""}
        assert list(observed.snapshots) == [before, one.revision], "the oldest first"
        assert observed.of_revision("Service", before)["metadata"]["name"] == f"desk-{before}"


class TestAgents:
    KEY = AgentKey("shop", "desk")

    def test_a_newer_state_is_taken_and_an_older_is_not(self, world: Any) -> None:
        """Our own answer and kopf's event may come in any order."""
        agents, raw = Agents(), world().agent
        agents.put({**raw, "metadata": {**raw["metadata"], "resourceVersion": "5"}, "status": {"phase": "Ready"}})
        agents.put({**raw, "metadata": {**raw["metadata"], "resourceVersion": "4"}, "status": {"phase": "Pending"}})
        assert agents.get(self.KEY).raw["status"]["phase"] == "Ready"
        assert agents.phases() == {"Ready": 1}

    def test_a_status_is_not_read_again(self, world: Any) -> None:
        """What is wanted depends on the spec, which has a generation."""
        agents, raw = Agents(), world().agent
        agents.put(raw)
        first = agents.get(self.KEY)
        agents.put({**raw, "metadata": {**raw["metadata"], "resourceVersion": "9"}, "status": {"phase": "Ready"}})
        second = agents.get(self.KEY)
        assert second.desired is first.desired
        assert second.raw["status"] == {"phase": "Ready"}

    def test_another_generation_does(self, world: Any) -> None:
        """An edit is read, and is a new revision only if it changes behaviour."""
        agents, one = Agents(), world()
        agents.put(one.agent)
        first = agents.get(self.KEY)
        one.edit(service={"port": 81})
        one.agent["metadata"]["resourceVersion"] = "9"
        agents.put(one.agent)
        second = agents.get(self.KEY)
        assert second.desired.agent.spec.service.port == 81
        assert second.desired.revision == first.desired.revision
        one.edit(template={"image": "agent:2"})
        one.agent["metadata"]["resourceVersion"] = "10"
        agents.put(one.agent)
        assert agents.get(self.KEY).desired.revision != first.desired.revision

    def test_a_successor_is_another_agent(self, world: Any) -> None:
        """The same name with another uid is rendered anew, and is not removed by its predecessor's end."""
        agents, raw = Agents(), world().agent
        agents.put(raw)
        agents.get(self.KEY)
        agents.put({**raw, "metadata": {**raw["metadata"], "uid": "second", "resourceVersion": "9"}})
        assert not agents.remove(self.KEY, raw["metadata"]["uid"])
        assert agents.get(self.KEY).uid == "second"
        assert agents.remove(self.KEY, "second")
        assert agents.get(self.KEY) is None
        assert len(agents) == 0

    def test_an_invalid_spec_is_kept_with_its_problems(self, world: Any) -> None:
        """It is reported, not dropped."""
        agents = Agents()
        agents.put(world(replicas="many").agent)
        found = agents.get(self.KEY)
        assert found.desired is None
        assert [problem.path for problem in found.problems] == ["spec.replicas"]

    def test_what_nothing_decides_by_is_not_kept(self, world: Any) -> None:
        """Specs may hold long configurations; they live on only as what was rendered from them."""
        agents = Agents()
        agents.put(world(config={"long": "x" * 1000}).agent)
        found = agents.get(self.KEY)
        assert "spec" not in found.raw
        assert found.uid == "agent-uid"


SPEC: dict[str, Any] = {
    "database": {"secretRef": {"name": "db", "key": "URL"}},
    "llm": {"provider": "Anthropic", "apiKeySecretRef": {"name": "claude"}},
    "model": {
        "uri": "s3://models/intent",
        "version": "1",
        "digest": "sha256:" + "a" * 64,
        "credentialsSecretRef": {"name": "s3"},
        "cache": {"type": "PersistentVolumeClaim", "storageClassName": "fast"},
    },
    "template": {
        "image": "agent:1",
        "imagePullSecrets": [{"name": "registry"}],
        "envFrom": [{"secretRef": {"name": "more", "optional": True}}, {"configMapRef": {"name": "flags"}}],
        "env": [
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "db", "key": "A"}}},
            {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "flags", "key": "B", "optional": True}}},
        ],
    },
}


class TestReferences:
    def secret(self, api: Any, name: str, **data: str) -> None:
        api.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "shop"}, "data": data})

    def test_every_reference_has_its_field(self, world: Any) -> None:
        """All but the optional ones, with the keys that they need."""
        found = {(one.field, one.resource.kind, one.name, one.keys) for one in references(world(**SPEC).desired.agent)}
        assert found == {
            ("spec.database.secretRef", "Secret", "db", ("URL",)),
            ("spec.llm.apiKeySecretRef", "Secret", "claude", ("ANTHROPIC_API_KEY",)),
            ("spec.model.credentialsSecretRef", "Secret", "s3", ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")),
            ("spec.template.imagePullSecrets[0]", "Secret", "registry", ()),
            ("spec.template.envFrom[1].configMapRef", "ConfigMap", "flags", ()),
            ("spec.template.env[0].valueFrom.secretKeyRef", "Secret", "db", ("A",)),
            ("spec.model.cache.storageClassName", "StorageClass", "fast", ()),
        }

    def test_a_scripted_agent_needs_no_key(self, world: Any) -> None:
        """What the spec turns off is not asked for."""
        llm = {"provider": "Scripted", "apiKeySecretRef": {"name": "claude"}}
        assert references(world(llm=llm).desired.agent) == []

    async def test_what_is_missing_is_found(self, api: Any, client: Client, world: Any) -> None:
        """Absent objects and absent keys, each with its field."""
        self.secret(api, "db", A="x")
        self.secret(api, "s3", AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x")
        api.put({"kind": "StorageClass", "metadata": {"name": "fast"}})
        reader = ReferenceReader(client, lambda: 0.0)
        found = {(one.reference.field, one.key) for one in await reader.missing(world(**SPEC).desired.agent)}
        assert found == {
            ("spec.database.secretRef", "URL"),
            ("spec.llm.apiKeySecretRef", ""),
            ("spec.template.imagePullSecrets[0]", ""),
            ("spec.template.envFrom[1].configMapRef", ""),
        }

    async def test_answers_are_remembered_for_a_while(self, api: Any, client: Client, world: Any) -> None:
        """What is there is asked for again after minutes, what is missing after seconds."""
        now = [0.0]
        reader = ReferenceReader(client, lambda: now[0])
        agent = world(database={"secretRef": {"name": "db"}}).desired.agent
        assert await reader.missing(agent)
        assert await reader.missing(agent)
        assert len(api.requests) == 1
        self.secret(api, "db", DATABASE_URL="x")
        now[0] = 9.0
        assert await reader.missing(agent) == ()
        now[0] = 300.0
        assert await reader.missing(agent) == ()
        assert len(api.requests) == 2
        now[0] = 310.0
        await reader.missing(agent)
        assert len(api.requests) == 3

    async def test_values_are_not_kept(self, api: Any, client: Client, world: Any) -> None:
        """Only the names of keys stay in memory."""
        self.secret(api, "db", DATABASE_URL="dG9wLXNlY3JldA==")
        reader = ReferenceReader(client, lambda: 0.0)
        await reader.missing(world(database={"secretRef": {"name": "db"}}).desired.agent)
        assert "dG9wLXNlY3JldA" not in repr(reader._answers)

    async def test_without_the_right_nothing_is_said_to_be_missing(self, api: Any, client: Client, world: Any) -> None:
        """403 is no absence; the pods will tell."""
        api.fail(403, times=9, path="/secrets/", body={"message": "forbidden"})
        reader = ReferenceReader(client, lambda: 0.0)
        assert await reader.missing(world(database={"secretRef": {"name": "db"}}).desired.agent) == ()

    async def test_the_memory_is_bounded(
        self, api: Any, client: Client, world: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A fleet with ever new names does not fill it."""
        monkeypatch.setattr("supportfleet_operator.reconcile.references.REMEMBERED", 3)
        reader = ReferenceReader(client, lambda: 0.0)
        for number in range(10):
            await reader.missing(world(database={"secretRef": {"name": f"db{number}"}}).desired.agent)
        assert len(reader._answers) <= 3


def test_agents_are_served_where_the_crd_says() -> None:
    """The path of the collection."""
    assert SUPPORT_AGENTS.path("shop") == "/apis/supportfleet.dev/v1alpha1/namespaces/shop/supportagents"
