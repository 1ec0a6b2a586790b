"""What a cluster is made from: Debian packages, programs and images, each made once and kept in the cache."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from supportfleet.local import binaries, images, packages
from supportfleet.local.embedded.context import together
from supportfleet.local.progress import Progress

# Images that a node itself needs: the sandbox of every pod, and a shell for the helper pods of volumes.
NODE_IMAGES = ("pause", "base")
# Where custom resource definitions are published: Istio's, and those of the Gateway API that this Istio knows.
ISTIO_API = "istio.io/api"
GATEWAY_API = "sigs.k8s.io/gateway-api"
PROJECT_IMAGES = ("operator", "agent")


@dataclass(frozen=True)
class Materials:
    """Where everything is."""

    programs: Mapping[str, Path]
    archives: Mapping[str, Path]
    sources: Mapping[str, Path]


async def gather(wanted: Iterable[str], *, istio: bool, assume_yes: bool, progress: Progress) -> Materials:
    """Have programs and the wanted images in the cache."""
    await packages.ensure_packages(progress=progress, assume_yes=assume_yes)
    groups = ["core", "istio"] if istio else ["core"]
    programs, archives = await together(
        binaries.ensure(groups, progress=progress), images.build(list(wanted), progress=progress)
    )
    published = (ISTIO_API, GATEWAY_API) if istio else ()
    sources = {name: await binaries.module_dir("istio", name, progress=progress) for name in published}
    return Materials(programs, archives, sources)
