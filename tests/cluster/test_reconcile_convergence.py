"""Convergence on a real API server: edits, hand edits, deletions, and no write when there is nothing to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

SEED = "customer-support-agent"
SECRETS = {
    "postgres-credentials": {"DATABASE_URL": "postgresql://u:p@h/d"},
    "s3-credentials": {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"},
}
KINDS = (
    "deployments",
    "services",
    "configmaps",
    "serviceaccounts",
    "horizontalpodautoscalers",
    "poddisruptionbudgets",
    "networkpolicies",
    "jobs",
    "persistentvolumeclaims",
    "controllerrevisions",
)

PER_REVISION = ("deployments", "horizontalpodautoscalers")

pytestmark = pytest.mark.timeout(180)


def with_secrets(place: Any) -> None:
    for name, data in SECRETS.items():
        place.secret(name, **data)


def children(place: Any, agent: str) -> dict[str, list[str]]:
    label = f"?labelSelector=supportfleet.dev/agent={agent}"
    found = {}
    for plural in KINDS:
        items = place.api.request("GET", place.path(plural) + label)["items"]
        if items:
            found[plural] = sorted(one["metadata"]["name"] for one in items)
    return found


@pytest.fixture(scope="module", autouse=True)
def secrets(place: Any) -> None:
    with_secrets(place)


@pytest.fixture
def seed(place: Any, operator: Any, kubelet: Any, example: Any, eventually: Callable[..., Any]) -> dict[str, Any]:
    """The seed example, Ready."""
    agent: dict[str, Any] = example("01")
    place.apply(agent)
    eventually(lambda: place.is_ready(SEED), "the seed agent is ready", 40)
    return agent


def deployment(place: Any) -> dict[str, Any]:
    found: dict[str, Any] = place.of("deployments", SEED)
    return found


def container(place: Any) -> dict[str, Any]:
    first: dict[str, Any] = deployment(place)["spec"]["template"]["spec"]["containers"][0]
    return first


def job(place: Any) -> str:
    """The model Job of the revision that serves: those of revisions that are kept stay as well."""
    serving = deployment(place)["spec"]["template"]["spec"]
    label = f"?labelSelector=supportfleet.dev/agent={SEED}"
    (found,) = (
        one["metadata"]["name"]
        for one in place.api.request("GET", place.path("jobs") + label)["items"]
        if _places(one["spec"]["template"]["spec"]) == _places(serving)
    )
    return str(found)


def _places(pod: dict[str, Any]) -> tuple[str, Any]:
    return pod["containers"][0]["image"], pod.get("nodeSelector")


class TestBecoming:
    def test_an_agent_becomes_everything_it_needs(
        self, place: Any, seed: dict[str, Any], eventually: Callable[..., Any]
    ) -> None:
        """The seed example is Ready with all its children, its status tells of them, and its Events what was done."""
        found, own = children(place, SEED), place.named(SEED)
        (job,) = found.pop("jobs")
        assert job.startswith(f"{SEED}-model-")
        assert found == {
            "controllerrevisions": [own],
            "deployments": [own],
            "services": [SEED, own],
            "configmaps": [f"{own}-config"],
            "serviceaccounts": [SEED],
            "horizontalpodautoscalers": [own],
            "poddisruptionbudgets": [SEED],
            "networkpolicies": [SEED],
        }
        agent = place.get("supportagents", SEED)
        status = agent["status"]
        assert status["phase"] == "Ready"
        assert status["observedGeneration"] == agent["metadata"]["generation"]
        assert (status["replicas"], status["readyReplicas"], status["updatedReplicas"]) == (3, 3, 3)
        assert status["model"] == {"version": "1", "digest": seed["spec"]["model"]["digest"], "loadedPods": 3}
        assert {one["type"]: one["status"] for one in status["conditions"]} == {
            "Ready": "True",
            "Accepted": "True",
            "ModelSynced": "True",
            "ScalingActive": "Unknown",
            "Progressing": "False",
        }

        def noted() -> set[str]:
            about = (one for one in place.list("events") if one["regarding"]["kind"] == "SupportAgent")
            return {event["reason"] for event in about}

        eventually(lambda: noted() >= {"Created", "Available", "Synced"}, "Events follow in the background")

    def test_pods_wait_for_the_model(
        self, place: Any, operator: Any, kubelet: Any, example: Any, eventually: Callable[..., Any]
    ) -> None:
        """Until the model Job has succeeded there is no Deployment; then there is."""
        waiting = example("01")
        waiting["metadata"]["name"] = "waiting"
        with kubelet.told(jobs_run=False):
            place.apply(waiting)
            eventually(lambda: place.reason("waiting", "ModelSynced") == "Downloading")
            time.sleep(1)
            assert not children(place, "waiting").get("deployments")
            assert place.get("supportagents", "waiting")["status"]["phase"] == "SyncingModel"
        eventually(lambda: place.is_ready("waiting"))
        place.delete("supportagents", "waiting")

    def test_the_scale_subresource_and_wait_work(self, place: Any, seed: dict[str, Any]) -> None:
        """What kubectl scale and kubectl wait read is there."""
        scale = place.api.request("GET", place.path("supportagents", SEED, "scale"))
        assert scale["status"]["replicas"] == 3
        assert "supportfleet.dev/agent=" in scale["status"]["selector"]
        place.kubectl("wait", f"supportagent/{SEED}", "--for=condition=Ready", "--timeout=5s")

    def test_deleting_the_agent_leaves_nothing(
        self, place: Any, seed: dict[str, Any], eventually: Callable[..., Any]
    ) -> None:
        """Owner references have the garbage collector take every child."""
        place.delete("supportagents", SEED)
        eventually(lambda: not children(place, SEED), "no child is left", 30)
        time.sleep(2)
        assert not children(place, SEED)


class TestEdits:
    @pytest.mark.parametrize(
        ("change", "plural", "read", "expected"),
        [
            (
                {"template": {"image": "supportfleet/agent:next"}},
                "deployments",
                lambda one: one["spec"]["template"]["spec"]["containers"][0]["image"],
                "supportfleet/agent:next",
            ),
            (
                {"template": {"nodeSelector": {"pool": "agents"}}},
                "deployments",
                lambda one: one["spec"]["template"]["spec"].get("nodeSelector"),
                {"pool": "agents"},
            ),
            ({"service": {"port": 8088}}, "services", lambda one: one["spec"]["ports"][0]["port"], 8088),
            (
                {"autoscaling": {"maxReplicas": 7}},
                "horizontalpodautoscalers",
                lambda one: one["spec"]["maxReplicas"],
                7,
            ),
            (
                {"availability": {"maxUnavailable": 2}},
                "poddisruptionbudgets",
                lambda one: one["spec"]["maxUnavailable"],
                2,
            ),
            (
                {"networkPolicy": {"allowFromNamespaces": ["web"]}},
                "networkpolicies",
                lambda one: len(one["spec"]["ingress"][0]["from"]),
                2,
            ),
        ],
        ids=["image", "node selector", "service port", "max replicas", "availability", "network policy"],
    )
    def test_an_edit_reaches_its_child_and_removing_it_takes_it_back(
        self,
        place: Any,
        seed: dict[str, Any],
        eventually: Callable[..., Any],
        change: dict[str, Any],
        plural: str,
        read: Callable[[Any], Any],
        expected: Any,
    ) -> None:
        """A changed field arrives; the field as it was before arrives too, also where that is its absence."""
        child = lambda: place.of(plural, SEED) if plural in PER_REVISION else place.get(plural, SEED)  # noqa: E731 - read thrice
        before = read(child())
        edited = {**seed, "spec": {**seed["spec"]}}
        for part, values in change.items():
            edited["spec"][part] = {**seed["spec"].get(part, {}), **values}
        place.apply(edited)
        eventually(lambda: read(child()) == expected, "the edit arrives")
        eventually(lambda: place.is_ready(SEED), "ready after the edit", 30)
        place.apply(seed)
        eventually(lambda: read(child()) == before, "and is taken back")

    def test_configuration_replaces_the_pods(
        self, place: Any, seed: dict[str, Any], eventually: Callable[..., Any]
    ) -> None:
        """A change of spec.config is a revision with a ConfigMap of its own, and that of before stays as it was."""
        before = place.named(SEED)
        place.apply({**seed, "spec": {**seed["spec"], "config": {"greeting": "Good day"}}})
        eventually(lambda: place.named(SEED) != before, "the new revision serves", 40)
        config = lambda name: place.get("configmaps", f"{name}-config")["data"]["agent_config.json"]  # noqa: E731
        assert "Good day" in config(place.named(SEED))
        assert "Good day" not in config(before)

    def test_what_is_no_longer_wanted_goes(
        self, place: Any, seed: dict[str, Any], eventually: Callable[..., Any]
    ) -> None:
        """Autoscaler, budget and network policy go with what asked for them."""
        spec = {key: value for key, value in seed["spec"].items() if key not in ("autoscaling", "model")}
        place.apply({**seed, "spec": {**spec, "replicas": 1, "networkPolicy": {"enabled": False}}})
        left = {"deployments", "services", "configmaps", "serviceaccounts", "controllerrevisions", "jobs"}
        eventually(lambda: set(children(place, SEED)) == left, "what is not wanted is gone")
        eventually(lambda: place.is_ready(SEED))
        assert place.condition(SEED, "ModelSynced") == {}
        assert place.condition(SEED, "ScalingActive") == {}

    def test_suspending_and_resuming(self, place: Any, seed: dict[str, Any], eventually: Callable[..., Any]) -> None:
        """A suspended agent has no pods and no autoscaler, and comes back with enough pods for one."""
        place.apply({**seed, "spec": {**seed["spec"], "suspend": True}})
        eventually(lambda: place.reason(SEED) == "Suspended")
        eventually(lambda: deployment(place)["spec"]["replicas"] == 0)
        eventually(lambda: place.of("horizontalpodautoscalers", SEED) is None)
        assert place.get("supportagents", SEED)["status"]["phase"] == "Suspended"
        place.apply({**seed, "spec": {**seed["spec"], "suspend": False}})
        eventually(lambda: deployment(place)["spec"]["replicas"] == 3)
        eventually(lambda: place.of("horizontalpodautoscalers", SEED) is not None)
        eventually(lambda: place.is_ready(SEED))


class TestHands:
    """What people do to children directly."""

    @pytest.mark.parametrize(
        ("command", "broken"),
        [
            (
                ("set", "image", f"deployment/{SEED}-REV", "agent=example.invalid/other:1"),
                lambda place: container(place)["image"] != "supportfleet/agent:dev",
            ),
            (
                ("set", "env", f"deployment/{SEED}-REV", "EXTRA=1"),
                lambda place: any(one["name"] == "EXTRA" for one in container(place)["env"]),
            ),
            (
                ("patch", f"deployment/{SEED}-REV", "-p", '{"spec":{"template":{"spec":{"hostNetwork":true}}}}'),
                lambda place: deployment(place)["spec"]["template"]["spec"].get("hostNetwork"),
            ),
            (
                ("rollout", "pause", f"deployment/{SEED}-REV"),
                lambda place: deployment(place)["spec"].get("paused"),
            ),
            (
                ("patch", f"service/{SEED}", "-p", '{"spec":{"type":"NodePort"}}'),
                lambda place: place.get("services", SEED)["spec"]["type"] != "ClusterIP",
            ),
            (
                ("label", f"service/{SEED}", "supportfleet.dev/agent-"),
                lambda place: "supportfleet.dev/agent" not in place.get("services", SEED)["metadata"]["labels"],
            ),
            (
                ("label", "--overwrite", f"service/{SEED}", "app.kubernetes.io/name=mine"),
                lambda place: place.get("services", SEED)["metadata"]["labels"]["app.kubernetes.io/name"] == "mine",
            ),
            (
                ("patch", f"hpa/{SEED}-REV", "-p", '{"spec":{"maxReplicas":99}}'),
                lambda place: place.of("horizontalpodautoscalers", SEED)["spec"]["maxReplicas"] != 20,
            ),
        ],
        ids=[
            "image",
            "added variable",
            "added field",
            "pause",
            "service type",
            "label removed",
            "label changed",
            "autoscaler",
        ],
    )
    def test_a_hand_edit_is_put_back(
        self,
        place: Any,
        seed: dict[str, Any],
        eventually: Callable[..., Any],
        command: tuple[str, ...],
        broken: Callable[[Any], Any],
    ) -> None:
        """Changed values and added fields alike are as the spec says again, and the fleet stays Ready at its end."""
        place.kubectl(*(word.replace("REV", place.stable(SEED)) for word in command))
        eventually(lambda: not broken(place), "it is put back")
        eventually(lambda: place.is_ready(SEED), "and ready", 30)

    def test_the_operator_says_what_it_put_back(
        self, place: Any, seed: dict[str, Any], eventually: Callable[..., Any]
    ) -> None:
        """An Event names the child and the tool."""
        place.kubectl("set", "env", f"deployment/{place.named(SEED)}", "EXTRA=1")

        def told() -> bool:
            return any("kubectl-set" in (event.get("note") or "") for event in place.list("events"))

        eventually(told)

    def test_a_restart_and_labels_are_left_alone(
        self, place: Any, seed: dict[str, Any], eventually: Callable[..., Any]
    ) -> None:
        """Asking for new pods with kubectl rollout restart works, and labels of others on a child stay."""
        place.kubectl("rollout", "restart", f"deployment/{place.named(SEED)}")
        place.kubectl("label", f"deployment/{place.named(SEED)}", "team=blue")
        eventually(lambda: place.is_ready(SEED), "the restart is through", 30)
        time.sleep(2)
        found = deployment(place)
        assert "kubectl.kubernetes.io/restartedAt" in found["spec"]["template"]["metadata"]["annotations"]
        assert found["metadata"]["labels"]["team"] == "blue"

    @pytest.mark.parametrize("plural", [one for one in KINDS if one != "persistentvolumeclaims"])
    def test_a_deleted_child_returns(
        self, place: Any, seed: dict[str, Any], eventually: Callable[..., Any], plural: str
    ) -> None:
        """Every kind of child comes back under its name, and the agent is Ready again."""
        found = children(place, SEED)[plural]
        name = job(place) if plural == "jobs" else next((one for one in found if place.stable(SEED) in one), found[0])
        before = place.get(plural, name)["metadata"]["uid"]
        place.delete(plural, name)
        eventually(lambda: (place.get(plural, name) or {"metadata": {"uid": before}})["metadata"]["uid"] != before)
        eventually(lambda: place.is_ready(SEED), "ready again", 30)


class TestQuiet:
    def test_a_converged_agent_costs_no_write(
        self, place: Any, seed: dict[str, Any], operator: Any, audit: Any, eventually: Callable[..., Any]
    ) -> None:
        """Woken by events that change nothing, the operator neither writes nor reads anything of the agent's."""
        eventually(lambda: place.reason(SEED, "ScalingActive") != "AutoscalerPending", "the autoscaler looked", 30)
        audit.rest(SEED)
        with audit(SEED) as events:
            for number in range(3):
                place.patch(
                    "deployments", place.named(SEED), {"metadata": {"annotations": {"example.com/n": str(number)}}}
                )
                place.patch("supportagents", SEED, {"metadata": {"annotations": {"example.com/n": str(number)}}})
                time.sleep(0.7)
        assert [(event["verb"], event["requestURI"]) for event in events] == []

    def test_only_the_status_of_an_agent_is_ever_written(
        self,
        place: Any,
        operator: Any,
        kubelet: Any,
        example: Any,
        audit: Any,
        eventually: Callable[..., Any],
    ) -> None:
        """From creation to deletion no annotation, finalizer or field of the SupportAgent comes from the operator."""
        with audit() as events:
            place.apply(example("02"))
            eventually(lambda: place.is_ready("minimal-agent"))
            agent = place.get("supportagents", "minimal-agent")
            place.delete("supportagents", "minimal-agent")
            eventually(lambda: not children(place, "minimal-agent"), seconds=30)
        writes = [
            event["objectRef"].get("subresource", "")
            for event in events
            if event["objectRef"]["resource"] == "supportagents" and event["verb"] not in ("get", "list", "watch")
        ]
        assert writes
        assert set(writes) == {"status"}
        assert "finalizers" not in agent["metadata"]
        assert "annotations" not in agent["metadata"]
        managers = {one["manager"]: one.get("subresource") for one in agent["metadata"]["managedFields"]}
        assert managers == {"tester": None, "supportfleet-operator": "status"}
