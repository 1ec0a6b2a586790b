"""References to nothing, found by looking or told by the kubelet."""

from __future__ import annotations

from typing import Any

import pytest

from supportfleet_operator.cluster.resources import STORAGE_CLASSES
from supportfleet_operator.reconcile.policies import missing_reference
from supportfleet_operator.reconcile.references import Missing, Reference, references

SPEC = {
    "database": {"secretRef": {"name": "db", "key": "URL"}},
    "template": {
        "image": "agent:1",
        "envFrom": [{"configMapRef": {"name": "flags"}}],
        "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "db", "key": "X"}}}],
    },
}


def test_what_was_looked_up_names_field_object_and_remedy(world: Any) -> None:
    """An absent Secret and an absent key read differently, and both are looked for again."""
    one = world(**SPEC)
    database = references(one.desired.agent)[0]
    one.missing = (Missing(database),)
    finding = missing_reference.check(one.view())
    assert finding.message == (
        "spec.database.secretRef: there is no Secret 'db' in the agent's namespace: create it, or name another"
    )
    assert finding.recheck
    one.missing = (Missing(database, "URL"),)
    assert "Secret 'db' has no key 'URL'" in missing_reference.check(one.view()).message


def test_a_cluster_scoped_object_is_missing_in_the_cluster(world: Any) -> None:
    """A StorageClass is in no namespace."""
    one = world()
    one.missing = (Missing(Reference("spec.model.cache.storageClassName", STORAGE_CLASSES, "fast")),)
    assert "no StorageClass 'fast' in the cluster" in missing_reference.check(one.view()).message


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ('secret "db" not found', "spec.database.secretRef"),
        ("couldn't find key URL in Secret shop/db", "spec.database.secretRef"),
        ("couldn't find key X in Secret shop/db", "spec.template.env[0].valueFrom.secretKeyRef"),
        ('configmap "flags" not found', "spec.template.envFrom[0].configMapRef"),
    ],
)
def test_what_the_kubelet_says_is_traced_to_its_field(world: Any, said: str, field: str) -> None:
    """Without the right to read Secrets the pods tell, and the field is found by the name."""
    one = world(**SPEC).applied()
    one.waiting("CreateContainerConfigError", said)
    assert field in missing_reference.check(one.view()).message


def test_other_trouble_with_a_container_is_not_about_references(world: Any) -> None:
    """A message that names nothing of the spec is left to the policy of containers."""
    one = world(**SPEC).applied()
    one.waiting("CreateContainerConfigError", 'secret "someone-elses" not found')
    one.waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root")
    assert missing_reference.check(one.view()) is None
