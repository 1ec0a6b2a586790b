"""What is in manifests/ can be installed as it is, by kubectl alone, and changed by an overlay."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
READER = "supportfleet-operator-secret-reader"


def named(objects: list[Any]) -> set[tuple[str, str]]:
    return {(one["kind"], one["metadata"]["name"]) for one in objects}


@pytest.fixture(scope="module")
def built(installed: Any) -> Any:
    """What kubectl makes of a kustomization."""

    def build(folder: Path) -> list[Any]:
        return list(yaml.safe_load_all(installed.kubectl("kustomize", str(folder)).stdout))

    return build


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in MANIFESTS.glob("*/kustomization.yaml")))
def test_each_is_accepted_without_a_warning(folder: str, installed: Any) -> None:
    """The API server takes every object of a kustomization, with nothing to say about any."""
    arguments = ("--server-side", "--force-conflicts", "--dry-run=server", "--warnings-as-errors")
    installed.kubectl("apply", *arguments, "-k", str(MANIFESTS / folder))


def test_secrets_need_not_be_read(built: Any) -> None:
    """Without the reader it is the whole operator but for that role, and no other rule is about Secrets."""
    all_of_it, without = built(MANIFESTS / "default"), built(MANIFESTS / "without-secret-reader")
    assert named(all_of_it) - named(without) == {("ClusterRole", READER), ("ClusterRoleBinding", READER)}
    rules = [rule for one in without if one["kind"] in {"ClusterRole", "Role"} for rule in one["rules"]]
    assert rules
    assert not [rule for rule in rules if {"secrets", "*"} & set(rule["resources"])]


def test_an_overlay_sets_the_image(built: Any, tmp_path: Path) -> None:
    """The overlay of docs/operations.md installs the same with an image of one's own."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE | re.DOTALL)
    overlay = next(found for block in blocks if (found := yaml.safe_load(block))["kind"] == "Kustomization")
    assert re.findall(r"//(\S+)\?", "\n".join(overlay["resources"])) == ["manifests/default"]
    overlay["resources"] = [os.path.relpath(MANIFESTS / "default", tmp_path.resolve())]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    own = built(tmp_path)
    (image,) = (one["spec"]["template"]["spec"]["containers"][0]["image"] for one in own if one["kind"] == "Deployment")
    assert image == "{newName}:{newTag}".format(**overlay["images"][0])
    assert named(own) == named(built(MANIFESTS / "default"))


def test_argo_cd_is_told_in_one_key(installed: Any, namespace: str) -> None:
    """The health check is one key of Argo CD's own ConfigMap: applied beside others, it leaves them alone."""
    argocd = str(MANIFESTS / "argocd" / "argocd-cm.yaml")
    installed.kubectl(
        "-n", namespace, "create", "configmap", "argocd-cm", "--from-literal=url=https://argo.example.com"
    )
    installed.kubectl("-n", namespace, "apply", "--server-side", "-f", argocd)
    data = installed.get("-n", namespace, "configmap", "argocd-cm")["data"]
    assert data.pop("url") == "https://argo.example.com"
    assert [*data] == ["resource.customizations.health.supportfleet.dev_SupportAgent"]
