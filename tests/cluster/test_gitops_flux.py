"""Flux's own kustomize-controller applies an agent from Git and waits for it, through rollouts good and bad.

The controller is Flux's, built by local_cluster/flux; the source it applies from is an object that the test writes as
source-controller would, with an archive that the test serves.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import runpy
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from supportfleet.local import binaries
from supportfleet.local.progress import Progress

HELPER = runpy.run_path(str(Path(__file__).parent / "rollout_desk.py"))
Desk, ROLLOUT, serving = HELPER["Desk"], HELPER["ROLLOUT"], HELPER["serving"]
shares_of, watching = HELPER["shares_of"], HELPER["watching"]
SOURCES = {"gitrepositories": "GitRepository", "ocirepositories": "OCIRepository", "buckets": "Bucket"}
GROUP = "source.toolkit.fluxcd.io"
FLUX = {
    "gitrepositories": f"/apis/{GROUP}/v1",
    "kustomizations": "/apis/kustomize.toolkit.fluxcd.io/v1",
}
HEALTH_SECONDS = 5
"""What Flux waits for health; it makes 30 of anything less."""

pytestmark = [pytest.mark.timeout(420), pytest.mark.usefixtures("database", "istio")]


class Git:
    """A repository as source-controller shows it: an object, and an archive of its newest revision."""

    def __init__(self, place: Any, name: str) -> None:
        self.place, self.name = place, name
        self.archive = b""
        self.port = 0
        """Where the archive is served."""

    def path(self, plural: str) -> str:
        return f"{FLUX[plural]}/namespaces/{self.place.name}/{plural}"

    def push(self, revision: str, manifest: dict[str, Any]) -> None:
        """Commit an agent."""
        self.archive = archive({"agent.yaml": yaml.safe_dump(manifest)})
        artifact = {
            "path": f"git/{revision}.tar.gz",
            "url": f"http://127.0.0.1:{self.port}/{revision}.tar.gz",
            "revision": f"main@sha1:{revision}",
            "digest": f"sha256:{hashlib.sha256(self.archive).hexdigest()}",
            "lastUpdateTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        source = {
            "apiVersion": f"{GROUP}/v1",
            "kind": "GitRepository",
            "metadata": {"name": self.name},
            "spec": {"interval": "1h", "url": "https://git.example.com/shop"},
            "status": {"artifact": artifact, "conditions": []},
        }
        path = f"{self.path('gitrepositories')}/{self.name}?fieldManager=git&force=true"
        self.place.api.request("PATCH", path, source, "application/apply-patch+yaml")

    def follow(self) -> None:
        """Have Flux apply it, and wait for what it applied."""
        spec = {
            "sourceRef": {"kind": "GitRepository", "name": self.name},
            "path": "./",
            "targetNamespace": self.place.name,
            "prune": True,
            "wait": True,
            "interval": "1m",
            "retryInterval": "1s",
            "timeout": f"{HEALTH_SECONDS}s",
        }
        body = {"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "spec": spec}
        self.place.api.request("POST", self.path("kustomizations"), {**body, "metadata": {"name": self.name}})

    def ready(self) -> dict[str, Any]:
        """What Flux says of it."""
        found = self.place.api.request("GET", f"{self.path('kustomizations')}/{self.name}").get("status", {})
        return next((one for one in found.get("conditions", []) if one["type"] == "Ready"), {})

    def is_at(self, revision: str) -> bool:
        """Whether Flux counts a revision as applied and healthy."""
        said = self.ready()
        return said.get("status") == "True" and revision in said["message"]

    def leave(self) -> None:
        """Have Flux remove what it applied."""
        self.place.api.request("DELETE", f"{self.path('kustomizations')}/{self.name}")

    def is_left(self) -> bool:
        """Whether Flux is done with that."""
        names = (one["metadata"]["name"] for one in self.place.api.request("GET", self.path("kustomizations"))["items"])
        return self.name not in names


def archive(files: dict[str, str]) -> bytes:
    """The files as source-controller packs them."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


@pytest.fixture(scope="module")
def flux(installed: Any, place: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Flux's kustomize-controller, for the namespace of these tests; gives its log."""
    with Progress() as progress:
        made = asyncio.run(_gather(progress))
    definitions = [HELPER["definition"](GROUP, plural, kind) for plural, kind in SOURCES.items()]
    definitions += [yaml.safe_load(path.read_text()) for path in (made["crds"]).glob("*.yaml")]
    kinds = {one["metadata"]["name"]: one["spec"]["names"]["kind"] for one in definitions}
    installed.kubectl(
        *("apply", "--server-side", "-f", "-"),
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": definitions}),
    )
    HELPER["established"](installed, kinds)
    log = tmp_path_factory.mktemp("flux") / "kustomize-controller.log"
    command = [str(made["controller"]), "--watch-all-namespaces=false", "--metrics-addr=0", "--health-addr=127.0.0.1:0"]
    command += ["--events-addr=", "--log-encoding=json", "--min-retry-delay=500ms"]
    environment = {**os.environ, "KUBECONFIG": str(installed.kubeconfig), "RUNTIME_NAMESPACE": place.name}
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, env=environment) as process:
        yield log
        process.terminate()
        process.wait(20)
    installed.kubectl("delete", "crd", *kinds, "--timeout=60s", timeout=70)


async def _gather(progress: Progress) -> dict[str, Path]:
    programs = await binaries.ensure(["kustomize-controller"], progress=progress)
    source = await binaries.module_dir("flux", "github.com/fluxcd/kustomize-controller", progress=progress)
    return {"controller": programs["kustomize-controller"], "crds": source / "config" / "crd" / "bases"}


@pytest.fixture
def git(
    flux: Path, place: Any, operator: Any, kubelet: Any, eventually: Callable[..., Any]
) -> Iterator[tuple[Git, Any]]:
    """A repository with an agent in it, as Flux applied it for the first time."""
    desk = Desk(place, eventually, "shop", rollout=ROLLOUT)
    git = Git(place, "shop")
    with serving(lambda _: (200, git.archive)) as git.port:
        git.push("aaaa1", desk.manifest("agent:1"))
        git.follow()
        eventually(lambda: git.is_at("aaaa1"), "Flux has applied the first commit", 40)
        yield git, desk
        git.leave()
    eventually(lambda: place.get("supportagents", "shop") is None and git.is_left(), "Flux prunes what it made", 60)


def test_flux_waits_for_the_promotion(git: tuple[Git, Any], place: Any, flux: Path) -> None:
    """A commit is healthy once its revision has all of the traffic; applied again meanwhile, it moves none."""
    repository, desk = git
    assert place.is_ready("shop")
    first = desk.state["stableRevision"]
    with watching(place, "virtualservices", "shop", shares_of) as shares:
        repository.push("bbbb2", desk.manifest("agent:2"))
        second = desk.at_pause()
        before = desk.state
        rounds = applied(flux)
        desk.eventually(lambda: applied(flux) > rounds, "Flux gives up waiting and applies it again", 60)
        assert not repository.is_at("bbbb2")
        assert desk.state == before
        desk.ask("resume", second)
        desk.eventually(lambda: repository.is_at("bbbb2"), "Flux says that the commit is healthy", 60)
    assert desk.is_stable(second)
    assert [one.get(first, 0) for one in shares] == [80, 50, 0]


def test_flux_says_what_failed(git: tuple[Git, Any], kubelet: Any) -> None:
    """A commit whose revision is rolled back is unhealthy and names the agent; the next commit heals it."""
    repository, desk = git
    first = desk.state["stableRevision"]
    desk.spec["rollout"] = {**ROLLOUT, "progressDeadlineSeconds": 5}
    with kubelet.told(broken_images=("agent:2",)):
        repository.push("cccc3", desk.manifest("agent:2"))
        desk.eventually(lambda: desk.state["phase"] == "RolledBack", "the revision is rolled back", 40)
        said = desk.eventually(
            lambda: (
                (one := repository.ready()).get("reason") == "HealthCheckFailed"
                and "'Failed'" in one["message"]
                and one
            ),
            "Flux reports it",
            40,
        )
        assert "SupportAgent" in said["message"]
        assert desk.shares == {first: 100}
    repository.push("dddd4", desk.manifest("agent:1"))
    desk.eventually(lambda: repository.is_at("dddd4"), "the next commit is healthy", 40)


def applied(log: Path) -> int:
    """How often the controller has applied what is in Git."""
    return log.read_text().count("server-side apply completed")
