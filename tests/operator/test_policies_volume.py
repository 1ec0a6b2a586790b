"""The claim for models."""

from __future__ import annotations

from typing import Any

from supportfleet_operator.reconcile.policies import volume


def with_claim(world: Any, phase: str, *, storage_class: str = "fast", age: float = 10) -> Any:
    cache = {"type": "PersistentVolumeClaim"}
    one = world(model={"uri": "s3://models/x", "version": "1", "digest": world.digest, "cache": cache}).applied()
    claim = one.child("PersistentVolumeClaim")
    claim["status"] = {"phase": phase}
    claim["spec"]["storageClassName"] = storage_class
    claim["metadata"]["creationTimestamp"] = one.stamp(age)
    return one


def test_a_bound_claim_is_fine(world: Any) -> None:
    """And so is an agent without one."""
    assert volume.check(with_claim(world, "Bound").view()) is None
    assert volume.check(world().applied().view()) is None


def test_provisioning_takes_a_while(world: Any) -> None:
    """Pending is progress for a minute, and trouble afterwards; no event may come at that time."""
    finding = volume.check(with_claim(world, "Pending", age=10).view())
    assert not finding.stalled
    assert finding.recheck == 51
    finding = volume.check(with_claim(world, "Pending", age=61).view())
    assert finding.stalled
    assert "kubectl describe pvc desk-models" in finding.message


def test_without_a_default_class_the_field_is_named(world: Any) -> None:
    """A claim that got no class from anyone waits for ever."""
    finding = volume.check(with_claim(world, "Pending", storage_class="").view())
    assert finding.stalled
    assert finding.message.startswith("spec.model.cache.storageClassName: ")


def test_a_lost_volume_says_how_to_begin_again(world: Any) -> None:
    """Deleting the claim makes another."""
    finding = volume.check(with_claim(world, "Lost").view())
    assert finding.reason == "VolumeLost"
    assert "delete the claim" in finding.message
