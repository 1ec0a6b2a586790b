"""The time that a plan says a rollout takes at least is the time that it takes when nothing holds it up."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from supportfleet.rollouts.steps import least_seconds

WORLD = runpy.run_path(str(Path(__file__).parent.parent / "operator" / "rollout_world.py"))
INTERVAL = 10
ANALYSIS = {"metrics": [{"name": "errorRate", "max": 0.05}], "intervalSeconds": INTERVAL}
PAUSES = st.fixed_dictionaries({"pause": st.fixed_dictionaries({}, optional={"durationSeconds": st.integers(1, 90)})})
MATCH = [{"headers": {"x-beta": {"exact": "1"}}}]


@st.composite
def rollouts(draw: st.DrawFn) -> dict[str, Any]:
    """A spec.rollout with steps."""
    strategy = draw(st.sampled_from(["Canary", "BlueGreen", "ABTest"]))
    measured = draw(st.booleans())
    waits = [PAUSES, st.just({"analysis": {}})] if measured else [PAUSES]
    if strategy != "Canary":
        steps = draw(st.lists(st.one_of(*waits), min_size=1, max_size=6))
    else:
        weights = sorted(draw(st.sets(st.integers(1, 100), min_size=1, max_size=4)))
        between = st.lists(st.one_of(*waits, st.builds(_mirror, st.sampled_from([0, 20]))), max_size=2)
        steps = [one for weight in weights for one in ({"setWeight": weight}, *draw(between))]
        steps = draw(between) + steps
    spec: dict[str, Any] = {"strategy": strategy, "steps": steps, "progressDeadlineSeconds": 86400}
    return spec | ({"analysis": ANALYSIS} if measured else {}) | ({"match": MATCH} if strategy == "ABTest" else {})


def _mirror(percent: int) -> dict[str, Any]:
    return {"setMirror": percent}


@settings(deadline=None)
@given(rollouts())
def test_it_is_the_least(spec: dict[str, Any]) -> None:
    """With pods that are ready at once, figures that pass and a person who answers at once, it takes just as long."""
    world = WORLD["World"](spec=WORLD["rollout"](**spec)).serve()
    began = world.now
    world.change("r2")
    for _ in range(500):
        if world.state.stable == "r2":
            break
        if _is_open_pause(world):
            world.act("resume", "r2")
        else:
            world.wait(world.log[-1].requeue_after)
    took = (world.now - began).total_seconds()
    interval = INTERVAL if "analysis" in spec else None
    assert world.state.stable == "r2"
    assert took == least_seconds(spec["steps"], interval, always_measured=spec["strategy"] == "ABTest")


def _is_open_pause(world: Any) -> bool:
    state = world.state
    return bool(state.phase == "Paused" and world.spec.steps[state.step].pause.duration_seconds is None)
