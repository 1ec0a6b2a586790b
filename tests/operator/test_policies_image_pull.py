"""Images that cannot be pulled."""

from __future__ import annotations

from typing import Any

import pytest

from supportfleet_operator.reconcile.policies import image_pull


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"])
@pytest.mark.parametrize("component", ["agent", "model-sync"])
def test_it_names_the_image_and_where_to_set_it(world: Any, reason: str, component: str) -> None:
    """Pods of the agent and of its model sync have the same image, so both tell."""
    one = world.with_model().applied()
    one.waiting(reason, "pull access denied", component=component)
    finding = image_pull.check(one.view())
    assert finding.reason == "ImagePullFailed"
    assert finding.stalled
    assert finding.message.startswith("spec.template.image: 'agent:1'")
    assert "push it or set another" in finding.message
    assert "pull access denied" in finding.message


def test_the_first_try_is_no_alarm(world: Any) -> None:
    """ErrImagePull is followed by another try."""
    one = world().applied()
    one.waiting("ErrImagePull")
    assert not image_pull.check(one.view()).stalled


def test_a_container_being_made_is_no_trouble(world: Any) -> None:
    """ContainerCreating is what every pod says first."""
    one = world().applied()
    one.waiting("ContainerCreating")
    assert image_pull.check(one.view()) is None
