"""An agent in layers on a real API server: three Deployments of each revision, which come, are kept and go together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

KEY = {"name": "TOOLS_API_KEY", "valueFrom": {"secretKeyRef": {"name": "tools", "key": "TOOLS_API_KEY"}}}
LAYERED = {
    "topology": "Layered",
    "traffic": {"provider": "None"},
    "worker": {"replicas": 5},
    "tools": {"replicas": 2},
}
NAMES = ("", "-worker", "-tools")

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("database")]


@pytest.fixture(scope="module")
def tools_key(place: Any) -> None:
    """The Secret with the key of the tools layer."""
    place.secret("tools", TOOLS_API_KEY="0123456789abcdef")


@pytest.fixture
def desk(desk: Any, tools_key: None) -> Any:
    """An agent with four gateways, five workers and two pods of tools."""
    desk.spec = layered("agent:1")
    return desk


def layered(image: str) -> dict[str, Any]:
    return {**LAYERED, "template": {"image": image, "env": [KEY]}}


def sizes(desk: Any, revision: str) -> tuple[int, ...]:
    """Pods of gateway, worker and tools, as their Deployments want them."""
    found = [desk.place.get("deployments", f"{desk.name}-{revision}{layer}") for layer in NAMES]
    return tuple(int(one["spec"]["replicas"]) if one else 0 for one in found)


def status(desk: Any) -> dict[str, Any]:
    return dict(desk.place.get("supportagents", desk.name)["status"])


def test_layers_come_are_kept_and_go_with_their_revision(
    desk: Any, place: Any, kubelet: Any, eventually: Callable[..., Any]
) -> None:
    """An agent is Ready with all layers, what is deleted comes back, and a canary waits for each layer of its own."""
    first = desk.started()
    assert sizes(desk, first) == (4, 5, 2)
    assert (status(desk)["replicas"], status(desk)["readyReplicas"]) == (4, 4)
    eventually(
        lambda: (
            status(desk)["layers"]
            == [
                {"name": "worker", "replicas": 5, "readyReplicas": 5},
                {"name": "tools", "replicas": 2, "readyReplicas": 2},
            ]
        ),
        "the status tells both layers",
    )

    worker = place.get("deployments", f"{desk.name}-{first}-worker")
    place.delete("deployments", worker["metadata"]["name"])
    place.patch("deployments", f"{desk.name}-{first}-tools", {"spec": {"replicas": 7}}, manager="kubectl-edit")

    def is_right() -> bool:
        now = place.get("deployments", worker["metadata"]["name"])
        is_new = now is not None and now["metadata"]["uid"] != worker["metadata"]["uid"]
        return is_new and sizes(desk, first) == (4, 5, 2) and place.is_ready(desk.name)

    eventually(is_right, "what was deleted and changed is right again")

    with kubelet.told(broken_components=("worker",)):
        desk.spec = layered("agent:2")
        desk.apply("agent:2")
        eventually(lambda: "no pod of worker is ready" in place.condition(desk.name, "Ready")["message"], "it waits")
        assert status(desk)["rollout"].get("currentWeight", 0) == 0
    second = desk.at_pause()
    assert (sizes(desk, first), sizes(desk, second)) == ((4, 5, 2), (1, 2, 1))
    desk.ask("promote", second)
    eventually(lambda: desk.is_stable(second) and sizes(desk, first) == (0, 0, 0), "the revision of before goes", 60)
    eventually(lambda: sizes(desk, second) == (4, 5, 2) and place.is_ready(desk.name), "the next one has it all")
