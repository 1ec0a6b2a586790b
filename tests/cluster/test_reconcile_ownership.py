"""Whose fields are whose, on a real API server: autoscalers, other controllers, and objects that are not ours."""

from __future__ import annotations

import runpy
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

meanwhile = runpy.run_path(str(Path(__file__).parent.parent / "meanwhile.py"))["meanwhile"]

pytestmark = pytest.mark.timeout(180)


def agent(name: str, **spec: Any) -> dict[str, Any]:
    template = {"image": "supportfleet/agent:dev", "resources": {"requests": {"cpu": "10m"}}}
    return {
        "apiVersion": "supportfleet.dev/v1alpha1",
        "kind": "SupportAgent",
        "metadata": {"name": name},
        "spec": {"template": template, "database": {"secretRef": {"name": "database"}}, **spec},
    }


AUTOSCALING = {"autoscaling": {"minReplicas": 2, "maxReplicas": 9}}


@pytest.fixture(scope="module", autouse=True)
def running(place: Any, operator: Any, kubelet: Any) -> None:
    place.secret("database", DATABASE_URL="postgresql://u:p@h/d")


def replicas(place: Any, name: str) -> int:
    return int(place.of("deployments", name)["spec"]["replicas"])


def scale(place: Any, name: str, number: int) -> None:
    """Scale as the autoscaler does: by the scale subresource, under its manager's name."""
    body = {"spec": {"replicas": number}}
    place.patch("deployments", place.named(name), body, "scale", manager="kube-controller-manager")


@contextmanager
def watching(place: Any, name: str) -> Iterator[set[int]]:
    """Every number of replicas that the Deployment ever has meanwhile."""
    seen: set[int] = set()

    def look(stop: threading.Event) -> None:
        while not stop.wait(0.02):
            seen.add(replicas(place, name))

    with meanwhile(look):
        yield seen


class TestAutoscaler:
    def test_adding_one_never_shrinks(self, place: Any, eventually: Callable[..., Any]) -> None:
        """The number of pods at the hand-over stays until the autoscaler itself changes it."""
        place.apply(agent("grows", replicas=5))
        eventually(lambda: place.is_ready("grows"))
        with watching(place, "grows") as seen:
            place.apply(agent("grows", replicas=5, **AUTOSCALING))
            eventually(lambda: place.of("horizontalpodautoscalers", "grows"))
            eventually(lambda: place.is_ready("grows"))
            time.sleep(2)
        assert seen == {5}

    def test_the_autoscalers_number_is_left_alone(self, place: Any, eventually: Callable[..., Any]) -> None:
        """Whatever the autoscaler sets stays, through edits of the agent and through a restart's first look."""
        place.apply(agent("scaled", **AUTOSCALING))
        eventually(lambda: place.is_ready("scaled"))
        assert replicas(place, "scaled") == 2
        scale(place, "scaled", 7)
        with watching(place, "scaled") as seen:
            edited = agent("scaled", **AUTOSCALING)
            edited["spec"]["template"]["image"] = "supportfleet/agent:next"
            place.apply(edited)
            eventually(lambda: place.is_ready("scaled"), seconds=40)
            place.kubectl("set", "env", f"deployment/{place.named('scaled')}", "EXTRA=1")
            eventually(lambda: _variables(place, "scaled").isdisjoint({"EXTRA"}))
            eventually(lambda: place.is_ready("scaled"), seconds=40)
        assert seen == {7}

    def test_scaling_by_hand_under_an_autoscaler_is_its_business(
        self, place: Any, eventually: Callable[..., Any]
    ) -> None:
        """With an autoscaler the operator does not undo kubectl scale: the autoscaler decides."""
        place.apply(agent("by-hand", **AUTOSCALING))
        eventually(lambda: place.is_ready("by-hand"))
        place.kubectl("scale", f"deployment/{place.named('by-hand')}", "--replicas=4")
        place.kubectl("set", "env", f"deployment/{place.named('by-hand')}", "EXTRA=1")
        eventually(lambda: _variables(place, "by-hand").isdisjoint({"EXTRA"}))
        time.sleep(1)
        assert replicas(place, "by-hand") == 4

    def test_without_one_scaling_by_hand_is_undone(self, place: Any, eventually: Callable[..., Any]) -> None:
        """Without an autoscaler the number is the spec's, and kubectl scale of the agent is the way to change it."""
        place.apply(agent("fixed", replicas=3))
        eventually(lambda: place.is_ready("fixed"))
        place.kubectl("scale", f"deployment/{place.named('fixed')}", "--replicas=1")
        eventually(lambda: replicas(place, "fixed") == 3)
        place.kubectl("scale", "supportagent/fixed", "--replicas=4")
        eventually(lambda: replicas(place, "fixed") == 4)

    def test_removing_it_sets_the_number_of_the_spec(self, place: Any, eventually: Callable[..., Any]) -> None:
        """The autoscaler goes first, and the number it left is taken over."""
        place.apply(agent("fewer", **AUTOSCALING))
        eventually(lambda: place.is_ready("fewer"))
        scale(place, "fewer", 6)
        place.apply(agent("fewer", replicas=3))
        eventually(lambda: replicas(place, "fewer") == 3)
        assert place.of("horizontalpodautoscalers", "fewer") is None
        eventually(lambda: place.is_ready("fewer"))

    def test_there_and_back_again(self, place: Any, eventually: Callable[..., Any]) -> None:
        """Adding and removing an autoscaler repeatedly ends where the spec is, with no conflict left."""
        place.apply(agent("swings", replicas=3))
        eventually(lambda: place.is_ready("swings"))
        for _ in range(2):
            place.apply(agent("swings", replicas=3, **AUTOSCALING))
            eventually(lambda: place.of("horizontalpodautoscalers", "swings") and place.is_ready("swings"))
            scale(place, "swings", 5)
            place.apply(agent("swings", replicas=3))
            eventually(lambda: replicas(place, "swings") == 3 and place.is_ready("swings"))

    def test_somebody_elses_autoscaler_is_not_fought(
        self, place: Any, eventually: Callable[..., Any], audit: Any
    ) -> None:
        """An autoscaler that a user made keeps the number; a condition names it, and the writes end."""
        place.apply(agent("foreign", replicas=2))
        eventually(lambda: place.is_ready("foreign"))
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": place.named("foreign")}
        hpa = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 9}
        body = {"metadata": {"name": "theirs"}, "spec": hpa}
        place.api.request("POST", place.path("horizontalpodautoscalers"), body)
        scale(place, "foreign", 5)
        eventually(lambda: place.reason("foreign") == "FieldConflict")
        message = place.condition("foreign", "Ready")["message"]
        assert "spec.replicas" in message
        assert "kube-controller-manager" in message
        assert replicas(place, "foreign") == 5
        eventually(lambda: place.get("supportagents", "foreign")["status"]["readyReplicas"] == 5)
        audit.rest("foreign")
        with audit("foreign") as events:
            for number in range(2):
                place.patch(
                    "deployments", place.named("foreign"), {"metadata": {"annotations": {"example.com/n": str(number)}}}
                )
                time.sleep(0.5)
        assert audit.writes(events) == []
        place.delete("horizontalpodautoscalers", "theirs")
        place.apply(agent("foreign", replicas=3))
        eventually(lambda: replicas(place, "foreign") == 3 and place.is_ready("foreign"))


def _deployments(place: Any, name: str) -> list[Any]:
    label = f"?labelSelector=supportfleet.dev/agent={name}"
    found: list[Any] = place.api.request("GET", place.path("deployments") + label)["items"]
    return found


def _variables(place: Any, name: str) -> set[str]:
    return {one["name"] for one in place.of("deployments", name)["spec"]["template"]["spec"]["containers"][0]["env"]}


class TestOtherControllers:
    def test_a_field_of_another_controller_is_left_to_it(self, place: Any, eventually: Callable[..., Any]) -> None:
        """A controller that sets the image by force keeps it; a condition names both, and other edits still arrive."""
        place.apply(agent("contested"))
        eventually(lambda: place.is_ready("contested"))
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "spec": {"template": {"spec": {"containers": [{"name": "agent", "image": "policy/pinned:1"}]}}},
        }
        path = place.path("deployments", place.named("contested")) + "?fieldManager=policy-engine&force=true"
        place.api.request("PATCH", path, body, "application/apply-patch+yaml")
        eventually(lambda: place.reason("contested") == "FieldConflict")
        message = place.condition("contested", "Ready")["message"]
        assert "policy-engine" in message
        assert "image" in message
        place.apply(agent("contested", service={"port": 8081}))
        eventually(lambda: place.get("services", "contested")["spec"]["ports"][0]["port"] == 8081)
        image = place.of("deployments", "contested")["spec"]["template"]["spec"]["containers"][0]["image"]
        assert image == "policy/pinned:1"

    def test_an_object_that_is_not_ours_is_never_taken_over(self, place: Any, eventually: Callable[..., Any]) -> None:
        """A Service of the agent's name that somebody made stays as it is; a condition names it, the rest is made."""
        body = {"metadata": {"name": "taken"}, "spec": {"ports": [{"port": 1}], "selector": {"mine": "yes"}}}
        before = place.api.request("POST", place.path("services"), body)
        place.apply(agent("taken"))
        eventually(lambda: place.reason("taken") == "NameTaken")
        assert "Service/taken" in place.condition("taken", "Ready")["message"]
        assert place.condition("taken", "Stalled")["status"] == "True"
        assert place.get("services", "taken") == before
        assert _deployments(place, "taken")
        place.delete("services", "taken")
        place.apply(agent("taken", config={"woken": True}))
        eventually(lambda: place.is_ready("taken"))

    def test_a_predecessors_children_are_waited_for(self, place: Any, eventually: Callable[..., Any]) -> None:
        """An agent deleted and made again at once ends with children of its own."""
        place.apply(agent("again"))
        eventually(lambda: place.is_ready("again"))
        first = place.get("supportagents", "again")["metadata"]["uid"]
        place.delete("supportagents", "again")
        place.apply(agent("again"))
        eventually(lambda: place.is_ready("again"), "the second is ready", 60)
        owner = place.of("deployments", "again")["metadata"]["ownerReferences"][0]["uid"]
        assert owner == place.get("supportagents", "again")["metadata"]["uid"] != first
