"""The kind provider, with programs that answer as kind, docker and kubectl do and write down what they were told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from supportfleet.errors import ClusterError, CommandError, NoClusterError
from supportfleet.local import state
from supportfleet.local.kind import KindCluster, Tools, configuration, docker_answers
from supportfleet.local.pins import local_cluster_dir
from supportfleet.local.progress import Progress
from supportfleet.local.provider import Options, choose

KIND = """
case "$1 $2" in
  "get clusters") cat "$FAKE/clusters" 2>/dev/null || echo "No kind clusters found." >&2 ;;
  "get nodes") echo "$4-control-plane" ;;
  "get kubeconfig") echo "kind: Config" ;;
  "create cluster") [ ! -e "$FAKE/no-space" ] || { echo "ERROR: no space left on device" >&2; exit 1; }
    echo "$4" >> "$FAKE/clusters" ;;
  "delete cluster") rm -f "$FAKE/clusters" ;;
esac
"""
KUBECTL = """
case "$*" in
  *"apply"*) cat > "$FAKE/applied.yaml" ;;
  *"get nodes"*) cat "$FAKE/nodes.json" ;;
esac
"""


class Fakes:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.ready(ready=True)
        self.tools = Tools(self.program("kind", KIND), self.program("kubectl", KUBECTL))

    def program(self, name: str, body: str) -> Path:
        path = self.folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> "$FAKE/calls"\n{body}\n')
        path.chmod(0o755)
        return path

    def ready(self, *, ready: bool) -> None:
        status = {
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "addresses": [{"type": "InternalIP", "address": "172.18.0.2"}],
        }
        node = {"metadata": {"name": "demo-control-plane"}, "status": status}
        (self.folder / "nodes.json").write_text(json.dumps({"items": [node]}))

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    def cluster(self) -> KindCluster:
        return KindCluster("demo", self.tools)


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    monkeypatch.setenv("SUPPORTFLEET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FAKE", str(tmp_path / "fakes"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'fakes'}:{os.environ['PATH']}")
    return Fakes(tmp_path / "fakes")


async def test_kind_is_used_where_an_engine_answers(fakes: Fakes) -> None:
    """With a Docker engine that answers, auto is kind; with a client whose engine is down, or none, it is embedded."""
    fakes.program("docker", "echo 29.1.0")
    assert await docker_answers()
    assert (await choose("demo")).kind == "kind"
    fakes.program("docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    assert not await docker_answers()
    assert (await choose("demo")).kind == "embedded"


async def test_the_provider_of_a_cluster_stays(fakes: Fakes) -> None:
    """A cluster belongs to the provider that made it; asking for another says how to change."""
    fakes.program("docker", "echo 29.1.0")
    state.save(state.Record(name="demo", provider="embedded", nodes=1))
    assert (await choose("demo")).kind == "embedded"
    with pytest.raises(ClusterError, match="made with the provider embedded") as caught:
        await choose("demo", "kind")
    assert "local down --name demo" in caught.value.remedy


def test_the_configuration_is_kinds(tmp_path: Path) -> None:
    """One node is a control plane that takes pods; more are workers beside it; the audit log is a file here."""
    base = yaml.safe_load((local_cluster_dir() / "kind.yaml").read_text())
    assert [node["role"] for node in configuration(base, 1, tmp_path)["nodes"]] == ["control-plane"]
    three = configuration(base, 3, tmp_path)
    assert [node["role"] for node in three["nodes"]] == ["control-plane", "worker", "worker", "worker"]
    mounts = {mount["containerPath"]: mount["hostPath"] for mount in three["nodes"][0]["extraMounts"]}
    (patch,) = map(yaml.safe_load, three["kubeadmConfigPatches"])
    arguments = {argument["name"]: argument["value"] for argument in patch["apiServer"]["extraArgs"]}
    assert str(Path(arguments["audit-log-path"]).parent) in mounts
    assert mounts["/var/log/supportfleet"] == str(tmp_path / "audit")
    assert base["nodes"] == [{"role": "control-plane"}]


async def test_up_makes_a_cluster_with_its_addons(fakes: Fakes) -> None:
    """`up` creates the cluster once, applies S3 and PostgreSQL with their Secrets, and says where S3 is."""
    cluster = fakes.cluster()
    await cluster.up(Options(nodes=2), Progress())
    (create,) = [call for call in fakes.calls if call.startswith("kind create")]
    assert "--name demo" in create
    config = yaml.safe_load((state.folder("demo") / "kind.yaml").read_text())
    assert len(config["nodes"]) == 3
    applied = list(yaml.safe_load_all((fakes.folder / "applied.yaml").read_text()))
    names = {(m["kind"], m["metadata"]["name"], m["metadata"].get("namespace")) for m in applied}
    assert ("Secret", "s3-credentials", "default") in names
    assert ("Deployment", "postgres", "supportfleet-local") in names
    status = await cluster.status()
    assert status["state"] == "Running"
    assert status["s3"]["endpoint"] == "http://172.18.0.2:30900"
    assert (state.folder("demo") / "kubeconfig").read_text() == "kind: Config\n"
    assert status["kubeconfig"] == str(state.folder("demo") / "kubeconfig")


async def test_up_again_starts_what_was_stopped(fakes: Fakes) -> None:
    """The second `up` makes no second cluster: it starts the containers that a reboot stopped."""
    fakes.program("docker", "")
    await fakes.cluster().up(Options(), Progress())
    await fakes.cluster().up(Options(), Progress())
    assert sum(call.startswith("kind create") for call in fakes.calls) == 1
    assert "docker start demo-control-plane" in fakes.calls


async def test_nodes_can_not_be_changed(fakes: Fakes) -> None:
    """Nodes can't be added by kind: another number is refused with the way out, and changes nothing."""
    await fakes.cluster().up(Options(nodes=1), Progress())
    with pytest.raises(ClusterError, match="can't change the nodes") as caught:
        await fakes.cluster().up(Options(nodes=2), Progress())
    assert "local down" in caught.value.remedy


async def test_a_failure_carries_what_kind_said(fakes: Fakes) -> None:
    """When kind fails its own words are in the error, and the cluster is not taken to be complete."""
    (fakes.folder / "no-space").touch()
    with pytest.raises(CommandError) as caught:
        await fakes.cluster().up(Options(), Progress())
    assert "no space left on device" in str(caught.value)
    record = state.load("demo")
    assert record is not None
    assert not record.complete


async def test_status_says_what_is_not_ready(fakes: Fakes) -> None:
    """A node that is not Ready makes the cluster Degraded; a cluster that was never made is an error."""
    with pytest.raises(NoClusterError, match="no cluster 'demo'"):
        await fakes.cluster().status()
    await fakes.cluster().up(Options(), Progress())
    fakes.ready(ready=False)
    assert (await fakes.cluster().status())["state"] == "Degraded"


async def test_images_are_loaded_as_what_they_are(fakes: Fakes, tmp_path: Path) -> None:
    """A file is loaded as an archive, any other name from the engine."""
    await fakes.cluster().up(Options(), Progress())
    archive = tmp_path / "image.tar"
    archive.touch()
    await fakes.cluster().load_image(str(archive), Progress())
    await fakes.cluster().load_image("nginx:1.29", Progress())
    assert f"kind load image-archive {archive} --name demo" in fakes.calls
    assert "kind load docker-image nginx:1.29 --name demo" in fakes.calls


async def test_down_forgets(fakes: Fakes) -> None:
    """`down` deletes the cluster and its folder, and can be run again."""
    await fakes.cluster().up(Options(), Progress())
    assert await fakes.cluster().down()
    assert state.load("demo") is None
    assert not await fakes.cluster().down()


async def test_istio_is_refused(fakes: Fakes) -> None:
    """What the provider can't do is refused before anything is made."""
    with pytest.raises(ClusterError, match="no --istio"):
        await fakes.cluster().up(Options(istio=True), Progress())
    assert not (fakes.folder / "calls").exists()
