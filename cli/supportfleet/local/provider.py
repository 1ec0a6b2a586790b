"""A local cluster, whoever provides it: kind where a Docker engine answers, else the embedded one.

This is what `supportfleet local` does, to be called from Python as well::

    cluster = await provider.choose("demo")
    with Progress() as progress:
        await cluster.up(Options(nodes=2), progress)
    print((await cluster.status())["kubeconfig"])
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from supportfleet.errors import ClusterError
from supportfleet.local import state
from supportfleet.local.embedded.layout import checked_name
from supportfleet.local.progress import Progress

PROVIDERS = ("auto", "kind", "embedded")

Status = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What `up` was asked for. None: as the cluster was made, or one node for a new one."""

    nodes: int | None = None
    istio: bool = False
    # Install what is missing without asking.
    assume_yes: bool = False
    # Data need not survive a crash of the machine.
    fast: bool = False

    @classmethod
    def from_environment(cls, *, nodes: int | None = None, istio: bool = False, assume_yes: bool = False) -> "Options":
        """With SUPPORTFLEET_FAST=1 tests say that they need no durable disk."""
        return cls(nodes, istio, assume_yes, fast=os.environ.get("SUPPORTFLEET_FAST") == "1")


class Provider(Protocol):
    """One cluster."""

    kind: str
    name: str

    async def prepare(self, options: Options, progress: Progress) -> None:
        """Fetch, build and install what `up` needs; start nothing."""

    async def up(self, options: Options, progress: Progress) -> None:
        """Have the cluster running."""

    async def down(self) -> bool:
        """Leave nothing of it; say whether there was anything."""

    async def status(self) -> Status:
        """What runs, and where it is reached."""

    async def load_image(self, image: str, progress: Progress) -> None:
        """Get an image (a name or an archive) into every node."""

    def log_files(self) -> Mapping[str, Path]:
        """The log of each component, where they are files."""


async def choose(name: str, wanted: str = "auto") -> Provider:
    """The provider of a cluster: the one it was made with, else the wanted one, else what this machine can do."""
    from supportfleet.local.embedded.provider import EmbeddedCluster  # noqa: PLC0415 - each is loaded when it is used
    from supportfleet.local.kind import KindCluster, docker_answers  # noqa: PLC0415

    checked_name(name)
    try:
        record = state.load(name)
    except state.DamagedStateError:
        record = None
    if record and wanted not in ("auto", record.provider):
        raise ClusterError(
            f"cluster {name!r} was made with the provider {record.provider}",
            remedy=f"Take it down first (supportfleet local down --name {name}), or give another --name.",
        )
    kind = record.provider if record else wanted
    embedded = EmbeddedCluster(name)
    if kind == "auto":
        # A cluster whose record is lost is still there.
        kind = "kind" if not embedded.exists() and await docker_answers() else "embedded"
    return KindCluster(name) if kind == "kind" else embedded


def is_archive(image: str) -> bool:
    """Whether an argument of load-image is a file, and not the name of an image."""
    return Path(image).is_file()
