"""The kind provider: a cluster in containers, where a Docker engine answers.

kind and kubectl do the work; this decides what they are told and reads what they print. The configuration is
local_cluster/kind.yaml; S3 and PostgreSQL are pods, local_cluster/kind-addons.yaml.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from supportfleet.errors import ClusterError, CommandError, NoClusterError
from supportfleet.local import binaries, images, processes, state
from supportfleet.local.embedded import files, nodes
from supportfleet.local.embedded.addons.base import LOCAL_NAMESPACE, namespace, secret
from supportfleet.local.embedded.addons.credentials import Credentials, kept_in
from supportfleet.local.embedded.controlplane import AUDIT_POLICY
from supportfleet.local.pins import local_cluster_dir
from supportfleet.local.progress import Progress
from supportfleet.local.provider import Options, Status, is_archive

CREATE_SECONDS = 900
LOAD_SECONDS = 600
ADDONS_SECONDS = 600
ASK_SECONDS = 60
DOCKER_SECONDS = 5
S3_NODE_PORT = 30900


async def docker_answers() -> bool:
    """Whether there is a Docker engine to make containers with."""
    try:
        said = await processes.run(("docker", "version", "--format", "{{.Server.Version}}"), timeout_s=DOCKER_SECONDS)
    except CommandError:
        return False
    return said.stdout.strip() != ""


def configuration(base: Mapping[str, Any], nodes: int, folder: Path) -> dict[str, Any]:
    """What kind is told: the base, its workers, and where the audit policy and log are on this machine."""
    config = copy.deepcopy(dict(base))
    mounts = [
        {"hostPath": str(folder / "etc"), "containerPath": "/etc/supportfleet", "readOnly": True},
        {"hostPath": str(folder / "audit"), "containerPath": "/var/log/supportfleet"},
    ]
    control_plane = {**config["nodes"][0], "extraMounts": mounts}
    # kind lets pods run on the control plane only where it is alone.
    workers = [{"role": "worker"} for _ in range(nodes)] if nodes > 1 else []
    return {**config, "nodes": [control_plane, *workers]}


def secrets(credentials: Credentials) -> list[Mapping[str, Any]]:
    """The Secrets that the addons and the agents read."""
    s3 = {"AWS_ACCESS_KEY_ID": credentials.s3_access_key, "AWS_SECRET_ACCESS_KEY": credentials.s3_secret_key}
    password = credentials.postgres_password
    where = f"postgres.{LOCAL_NAMESPACE}.svc.cluster.local:5432"
    url = f"postgresql://supportfleet:{password}@{where}/supportfleet"
    return [
        namespace(LOCAL_NAMESPACE),
        *(secret("s3-credentials", place, s3) for place in (LOCAL_NAMESPACE, "default")),
        secret("postgres-credentials", LOCAL_NAMESPACE, {"DATABASE_URL": url, "PASSWORD": password}),
        secret("postgres-credentials", "default", {"DATABASE_URL": url}),
    ]


def wanted_record(name: str, before: state.Record | None, options: Options) -> state.Record:
    """What the cluster is to be. kind makes nodes only when it makes the cluster."""
    if before is None:
        return state.Record(name=name, provider="kind", nodes=1 if options.nodes is None else max(1, options.nodes))
    if options.nodes not in (None, before.nodes):
        raise ClusterError(
            f"kind can't change the nodes of a cluster, and {name!r} has {before.nodes}",
            remedy=f"Take it down first: supportfleet local down --name {name}",
        )
    return before


@dataclass(frozen=True)
class Tools:
    """The programs that do the work."""

    kind: Path
    kubectl: Path

    @classmethod
    async def built(cls, progress: Progress) -> "Tools":
        """Those of the cache, built first where they are missing."""
        programs = await binaries.ensure(["kind", "kubectl"], progress=progress)
        return cls(programs["kind"], programs["kubectl"])


class KindCluster:
    """One cluster made by kind."""

    kind = "kind"

    def __init__(self, name: str, tools: Tools | None = None) -> None:
        self.name = name
        self.tools = tools
        self.folder = state.folder(name)
        self.kubeconfig = self.folder / "kubeconfig"

    async def prepare(self, options: Options, progress: Progress) -> None:
        """Have kind, kubectl and the project's images; start nothing."""
        _refuse_istio(options)
        await self._tools(progress)
        await images.build(["operator", "agent"], progress=progress)

    async def up(self, options: Options, progress: Progress) -> None:
        """Have the cluster running."""
        _refuse_istio(options)
        tools = await self._tools(progress)
        async with state.locked(self.name):
            before = state.load(self.name)
            record = wanted_record(self.name, before, options)
            state.save(record)
            with progress.step("kind cluster", expected=60):
                await self._create(tools.kind, record.nodes)
            with progress.step("S3 and PostgreSQL", expected=60):
                await self._addons(tools.kubectl)
            state.save(replace(record, complete=True))

    async def down(self) -> bool:
        """Delete the cluster; say whether there was one."""
        kind = (await self._tools()).kind
        async with state.locked(self.name):
            found = self.name in await self._clusters(kind)
            await processes.run((kind, "delete", "cluster", "--name", self.name), timeout_s=LOAD_SECONDS)
            return state.forget(self.name) or found

    async def status(self) -> Status:
        """What runs, and where it is reached."""
        record = self._record()
        kubectl = (await self._tools()).kubectl
        found = await self._nodes(kubectl)
        addresses = [node["address"] for node in found if node["address"]]
        running = record.complete and bool(found) and all(node["ready"] for node in found)
        endpoint = f"http://{addresses[0]}:{S3_NODE_PORT}" if addresses else ""
        return {
            "name": self.name,
            "provider": self.kind,
            "state": "Running" if running else "Degraded" if found else "Stopped",
            "kubeconfig": str(self.kubeconfig),
            "kubectl": str(kubectl),
            "auditLog": str(self.folder / "audit" / "audit.log"),
            "nodes": found,
            "s3": {"endpoint": endpoint, "bucket": "models", "credentials": str(self.folder / "credentials.json")},
        }

    async def load_image(self, image: str, progress: Progress) -> None:
        """Get an image into every node."""
        self._record()
        kind = (await self._tools(progress)).kind
        if is_archive(image):
            load = ("image-archive", image)
        elif image.removeprefix("docker.io/").startswith("supportfleet/"):
            load = ("image-archive", str(await images.archive_of(image, progress=progress)))
        else:
            load = ("docker-image", image)
        with progress.step(f"load {image}", expected=10):
            await processes.run((kind, "load", *load, "--name", self.name), timeout_s=LOAD_SECONDS)

    def log_files(self) -> Mapping[str, Path]:
        """The audit log; the components log in their containers."""
        self._record()
        log = self.folder / "audit" / "audit.log"
        return {"audit": log} if log.exists() else {}

    async def _tools(self, progress: Progress | None = None) -> Tools:
        if self.tools is None:
            self.tools = await Tools.built(progress or Progress())
        return self.tools

    async def _create(self, kind: Path, nodes: int) -> None:
        files.write(self.folder / "etc" / "audit-policy.yaml", files.to_yaml(dict(AUDIT_POLICY)), 0o644)
        (self.folder / "audit").mkdir(exist_ok=True)
        if self.name in await self._clusters(kind):
            await self._start_stopped(kind)
        else:
            base = yaml.safe_load((local_cluster_dir() / "kind.yaml").read_text())
            config = self.folder / "kind.yaml"
            files.write(config, files.to_yaml(configuration(base, nodes, self.folder)))
            create = ("create", "cluster", "--name", self.name, "--config", str(config), "--wait", "120s")
            await processes.run((kind, *create, "--kubeconfig", str(self.kubeconfig)), timeout_s=CREATE_SECONDS)
        said = await processes.run((kind, "get", "kubeconfig", "--name", self.name), timeout_s=ASK_SECONDS)
        files.write(self.kubeconfig, said.stdout)

    async def _start_stopped(self, kind: Path) -> None:
        """The engine does not start the nodes again by itself after a restart of the machine."""
        said = await processes.run((kind, "get", "nodes", "--name", self.name), timeout_s=ASK_SECONDS)
        await processes.run(("docker", "start", *said.stdout.split()), timeout_s=LOAD_SECONDS)

    async def _addons(self, kubectl: Path) -> None:
        documents = files.to_yaml(*map(dict, secrets(kept_in(self.folder))))
        manifests = documents + "---\n" + (local_cluster_dir() / "kind-addons.yaml").read_text()
        apply = ("apply", "--server-side", "--force-conflicts", "-f", "-")
        await self._kubectl(kubectl, *apply, stdin=manifests)
        waiting = ("wait", "deployment", "--all", "--for=condition=Available", f"--timeout={ADDONS_SECONDS}s")
        await self._kubectl(kubectl, "-n", LOCAL_NAMESPACE, *waiting, seconds=ADDONS_SECONDS + ASK_SECONDS)

    async def _nodes(self, kubectl: Path) -> list[dict[str, Any]]:
        try:
            listed = yaml.safe_load(await self._kubectl(kubectl, "get", "nodes", "-o", "json"))
        except CommandError:
            return []
        return [nodes.facts(node) for node in listed["items"]]

    async def _kubectl(
        self, kubectl: Path, *arguments: str, stdin: str | None = None, seconds: float = ASK_SECONDS
    ) -> str:
        command: list[str | Path] = [kubectl, "--kubeconfig", self.kubeconfig, *arguments]
        return (await processes.run(command, timeout_s=seconds, stdin=stdin)).stdout

    async def _clusters(self, kind: Path) -> list[str]:
        return (await processes.run((kind, "get", "clusters"), timeout_s=ASK_SECONDS)).stdout.split()

    def _record(self) -> state.Record:
        record = state.load(self.name)
        if record is None:
            raise NoClusterError(
                f"there is no cluster {self.name!r}", remedy=f"Make it: supportfleet local up --name {self.name}"
            )
        return record


def _refuse_istio(options: Options) -> None:
    if options.istio:
        raise ClusterError(
            "the provider kind has no --istio", remedy="Install Istio into it, or use --provider embedded."
        )
