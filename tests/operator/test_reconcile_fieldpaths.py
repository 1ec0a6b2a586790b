"""Field paths of server-side apply's conflicts."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from supportfleet_operator.reconcile.fieldpaths import remove

MANIFEST = {
    "metadata": {"labels": {"app.kubernetes.io/name": "x", "team": "y"}},
    "spec": {
        "replicas": 3,
        "template": {
            "spec": {
                "containers": [
                    {"name": "mesh", "image": "m"},
                    {
                        "name": "agent",
                        "image": "a",
                        "env": [{"name": "A.B", "value": "1"}, {"name": 'Q"Q', "value": "2"}],
                        "ports": [{"containerPort": 8080, "protocol": "TCP", "name": "http"}],
                        "args": ["serve", "--fast"],
                    },
                ]
            }
        },
    },
}


@pytest.mark.parametrize(
    ("path", "read"),
    [
        (".spec.replicas", lambda m: "replicas" in m["spec"]),
        (".metadata.labels.app.kubernetes.io/name", lambda m: "app.kubernetes.io/name" in m["metadata"]["labels"]),
        ('.spec.template.spec.containers[name="agent"].image', lambda m: "image" in agent(m)),
        (
            '.spec.template.spec.containers[name="agent"].env[name="A.B"].value',
            lambda m: "value" in agent(m)["env"][0],
        ),
        (
            '.spec.template.spec.containers[name="agent"].ports[containerPort=8080,protocol="TCP"].name',
            lambda m: "name" in agent(m)["ports"][0],
        ),
        ('.spec.template.spec.containers[name="agent"].args[="--fast"]', lambda m: "--fast" in agent(m)["args"]),
        ('.spec.template.spec.containers[name="agent"].args[0]', lambda m: "serve" in agent(m)["args"]),
        (
            '.spec.template.spec.containers[name="agent"]',
            lambda m: len(m["spec"]["template"]["spec"]["containers"]) > 1,
        ),
    ],
)
def test_the_field_goes_and_nothing_else(path: str, read: Any) -> None:
    """Names, keys with dots, several keys, values and indexes all lead to their field."""
    manifest = copy.deepcopy(MANIFEST)
    assert read(manifest)
    assert remove(manifest, path)
    assert not read(manifest)


@pytest.mark.parametrize(
    "path",
    ["", ".spec.none", ".spec.replicas.deeper", '.spec.template.spec.containers[name="x"].image', ".spec[3]", "[]"],
)
def test_a_path_to_nothing_changes_nothing(path: str) -> None:
    """What is not there cannot be removed, and is no error."""
    manifest = copy.deepcopy(MANIFEST)
    assert not remove(manifest, path)
    assert manifest == MANIFEST


def agent(manifest: Any) -> Any:
    return next(one for one in manifest["spec"]["template"]["spec"]["containers"] if one["name"] == "agent")
