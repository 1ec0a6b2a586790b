"""What becomes of Deployments, pods and autoscalers on a real API server while one revision takes over from another."""

from __future__ import annotations

import runpy
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

HELPER = runpy.run_path(str(Path(__file__).parent / "rollout_desk.py"))
ROLLOUT, history, shares_of, watching, weights = (
    HELPER[name] for name in ("ROLLOUT", "history", "shares_of", "watching", "weights")
)
DELAY = 5
SCALED = ("deployments", "horizontalpodautoscalers")

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("database", "istio")]


@dataclass(frozen=True)
class Version:
    """A Deployment at some time: who it is, how large, and all else that it asks for."""

    uid: str
    generation: int
    size: int
    rest: str

    @classmethod
    def of(cls, found: dict[str, Any]) -> Version:
        rest = {key: value for key, value in found["spec"].items() if key != "replicas"}
        meta = found["metadata"]
        return cls(meta["uid"], meta["generation"], found["spec"]["replicas"], repr(rest))


def asked_of(name: str, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Requests about a revision's Deployment and autoscaler, but for those by which a controller says how they are."""
    about = ((event, event["objectRef"]) for event in events)
    return [
        event
        for event, what in about
        if what["resource"] in SCALED and what.get("name") == name and what.get("subresource") != "status"
    ]


class TestBlueGreen:
    def test_all_of_the_traffic_at_once(self, desk: Any, kubelet: Any, place: Any) -> None:
        """The new revision is whole before its first request, then gets all; the old one stays for the delay."""
        desk.spec["rollout"] = {
            **ROLLOUT,
            "strategy": "BlueGreen",
            "steps": [{"pause": {}}],
            "scaleDownDelaySeconds": DELAY,
        }
        first = desk.started()
        moved: list[float] = []
        left: list[float] = []
        with (
            history(place, desk.name) as states,
            watching(place, "virtualservices", desk.name, shares_of, lambda: moved.append(time.monotonic())) as shares,
        ):
            with kubelet.told(broken_images=("agent:2",)):
                desk.apply("agent:2")
                second = desk.eventually(lambda: desk.state.get("canaryRevision"), "the new revision comes up")
                desk.eventually(lambda: desk.pods(second) == 4, "it has its full size from the start")
                time.sleep(1)
                assert desk.state["phase"] == "Starting"
            desk.eventually(lambda: desk.state["phase"] == "Paused", "it waits for a word", 40)
            assert desk.ready(second) == 4
            with watching(
                place,
                "deployments",
                f"{desk.name}-{first}",
                lambda found: found["spec"]["replicas"],
                lambda: left.append(time.monotonic()),
            ) as sizes:
                desk.ask("resume", second)
                desk.eventually(lambda: desk.is_stable(second), "it has taken over", 40)
                desk.eventually(lambda: desk.pods(first) == 0, "the old one gives its pods back", 30)
        assert weights(states) == [0, 100]
        assert [one for one in shares if one != {first: 100}] == [{second: 100}]
        assert shares[-1] == {second: 100}
        assert [size for size in sizes if size != 4] == [0]
        assert left[-1] - moved[-1] > DELAY - 2  # times in the status are whole seconds


class TestPromotion:
    def test_it_restarts_no_pod_and_copies_nothing(self, desk: Any, place: Any, audit: Any) -> None:
        """What was the canary's is stable's as it is: its Deployment but for the size, its ReplicaSet and its pods."""
        first = desk.started()
        desk.apply("agent:2")
        second = desk.at_pause()
        name = f"{desk.name}-{second}"
        tried, before = desk.objects("pods", second), Version.of(place.get("deployments", name))
        assert (len(tried), before.generation, before.size) == (1, 1, 1)
        sets = desk.objects("replicasets", second)
        with audit(desk.name) as requests, watching(place, "deployments", name, Version.of) as versions:
            desk.ask("resume", second)
            desk.eventually(lambda: desk.is_stable(second), "the canary is promoted", 40)
            desk.eventually(lambda: desk.pods(first) == 0 and place.is_ready(desk.name), "all is over", 20)
        assert {(one.uid, one.rest) for one in versions} == {(before.uid, before.rest)}
        seen = dict.fromkeys((one.generation, one.size) for one in (before, *versions))
        assert list(seen) == [(1, 1), (2, 2), (3, 4)]
        assert desk.objects("replicasets", second) == sets
        pods = desk.objects("pods", second)
        assert len(pods) == 4
        assert tried.items() <= pods.items()
        made = [one["requestURI"] for one in requests if one["responseStatus"]["code"] == 201]
        assert {path.partition("?")[0].rpartition("/")[2] for path in made} <= {"events"}


class TestAutoscaling:
    def test_each_revision_has_its_own(self, desk: Any, place: Any, audit: Any) -> None:
        """The canary's autoscaler scales the canary; what stable is scaled by, and its Deployment, nobody writes to."""
        steps = [{"setWeight": 20}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]
        rollout = {**ROLLOUT, "steps": steps, "progressDeadlineSeconds": 60}  # an autoscaler looks every 15 seconds
        desk.spec |= {"autoscaling": {"minReplicas": 4, "maxReplicas": 9}, "rollout": rollout}
        first = desk.started()
        stable = place.of("horizontalpodautoscalers", desk.name)
        with replace(audit, user="")(desk.name) as requests:
            desk.apply("agent:2")
            second = desk.at_pause()
            desk.ask("resume", second)
            desk.eventually(lambda: desk.state.get("currentStep") == 3, "its autoscaler brings the pods for 50 %", 60)
        names = {revision: f"{desk.name}-{revision}" for revision in (first, second)}
        assert audit.writes(asked_of(names[first], requests)) == []
        assert (desk.pods(first), desk.pods(second)) == (4, 2)
        scalers = {revision: place.get("horizontalpodautoscalers", name) for revision, name in names.items()}
        assert {one: scaler["spec"]["scaleTargetRef"]["name"] for one, scaler in scalers.items()} == names
        assert scalers[first]["metadata"]["uid"] == stable["metadata"]["uid"]
        assert scalers[first]["spec"] == stable["spec"]
        scales = [one for one in asked_of(names[second], requests) if one["objectRef"].get("subresource") == "scale"]
        assert audit.writes(scales), "the autoscaler's own requests are among what is looked at"
