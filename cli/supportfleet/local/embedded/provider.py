"""The embedded provider, as `supportfleet local` sees it."""

import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from supportfleet.errors import ClusterError, NoClusterError, NotRootError
from supportfleet.local import binaries, images, state
from supportfleet.local.embedded import cluster, materials, namespaces, nodes, status, teardown
from supportfleet.local.embedded.context import Context, together
from supportfleet.local.embedded.daemons import Daemons
from supportfleet.local.embedded.host import Cgroups
from supportfleet.local.embedded.identities import Identities
from supportfleet.local.embedded.layout import MAX_NODES, RUN_ROOT, Addresses, Layout
from supportfleet.local.embedded.materials import Materials
from supportfleet.local.progress import Progress
from supportfleet.local.provider import Options, Status, is_archive

DEFAULT_NODES = 1


class EmbeddedCluster:
    """One embedded cluster."""

    kind = "embedded"

    def __init__(self, name: str) -> None:
        self.name = name
        self.layout = Layout(name, state.folder(name))
        self.cgroups = Cgroups.here()

    def exists(self) -> bool:
        """Whether anything of the cluster is on this machine, remembered or not."""
        return teardown.Scope.of_cluster(self.layout).exists(self.cgroups)

    async def prepare(self, options: Options, progress: Progress) -> None:
        """Install, build and fetch everything, the project's own images too; start nothing."""
        require_root()
        await _gather((*materials.NODE_IMAGES, *materials.PROJECT_IMAGES), options.istio, options, progress)

    async def up(self, options: Options, progress: Progress) -> None:
        """Have the cluster running."""
        require_root()
        istio = wanted_record(self.name, state.load(self.name), options).istio
        made = await _gather(materials.NODE_IMAGES, istio, options, progress)
        async with state.locked(self.name):
            context = await self._begin(options, made, progress)
            await cluster.up(context)
            state.save(replace(context.record, complete=True))

    async def down(self) -> bool:
        """Leave nothing of the cluster; say whether there was anything."""
        require_root()
        async with state.locked(self.name):
            scope = teardown.Scope.of_cluster(self.layout)
            found = scope.exists(self.cgroups)
            await teardown.remove(scope, self.cgroups)
        await teardown.remove_empty(RUN_ROOT, *(state.home() / name for name in ("clusters", "locks")), state.home())
        return found

    async def status(self) -> Status:
        """What runs, and where it is reached."""
        record = self._record()
        kubectl = await binaries.find("kubectl") or Path("kubectl")
        return await status.describe(self._context(record, Materials({"kubectl": kubectl}, {}, {}), Progress()))

    async def load_image(self, image: str, progress: Progress) -> None:
        """Get an image into every node."""
        require_root()
        archive = Path(image) if is_archive(image) else await images.archive_of(image, progress=progress)
        async with state.locked(self.name):
            layouts = [self.layout.node(number) for number in range(1, self._record().nodes + 1)]
            with progress.step(f"load {image}", expected=5):
                await together(*(nodes.load_image(layout, archive) for layout in layouts))

    def log_files(self) -> Mapping[str, Path]:
        """The log of each component."""
        self._record()
        return {path.stem: path for path in sorted(self.layout.logs.glob("*.log"))}

    async def _begin(self, options: Options, made: Materials, progress: Progress) -> Context:
        """Settle what the cluster is to be, and where; from then on its addresses are taken."""
        async with state.locked("addresses", where=RUN_ROOT):
            before = state.load(self.name)
            self._refuse_remains(before)
            record = wanted_record(self.name, before, options)
            record = replace(record, index=await self._index(before))
            context = self._context(record, made, progress, fast=options.fast)
            state.save(record)
            await cluster.lay_ground(context)
            return context

    def _refuse_remains(self, before: state.Record | None) -> None:
        """What runs under this name must be what is remembered here: another's data would be mixed up with ours."""
        link = self.layout.run / "state"
        elsewhere = link.is_symlink() and link.readlink() != self.layout.folder
        if elsewhere or (before is None and self.exists()):
            where = f", made with {link.readlink()}" if elsewhere else ""
            raise ClusterError(
                f"a cluster {self.name!r} is on this machine{where}, and {state.home()} knows nothing of it",
                remedy=f"Take it down (supportfleet local down --name {self.name}), give another --name, or set "
                "SUPPORTFLEET_HOME to where it was made.",
            )

    async def _index(self, before: state.Record | None) -> int:
        taken = await namespaces.taken_ranges(self.layout)
        if before is None:
            others = {record.index for record in state.known() if record.provider == self.kind}
            return namespaces.free_addresses(taken, others).index
        namespaces.require_free(self.layout, Addresses(before.index), taken)
        return before.index

    def _context(self, record: state.Record, made: Materials, progress: Progress, *, fast: bool = False) -> Context:
        addresses = Addresses(record.index)
        return Context(
            layout=self.layout,
            record=record,
            addresses=addresses,
            identities=Identities(self.layout, addresses, datetime.now(UTC)),
            daemons=Daemons(self.layout, self.cgroups),
            programs=made.programs,
            images=made.archives,
            sources=made.sources,
            progress=progress,
            fast=fast,
        )

    def _record(self) -> state.Record:
        record = state.load(self.name)
        if record is None:
            as_root = "" if os.geteuid() == 0 else " (as root, if root made it)"
            raise NoClusterError(
                f"there is no cluster {self.name!r}",
                remedy=f"Make it{as_root}: supportfleet local up --name {self.name}",
            )
        return record


def wanted_record(name: str, before: state.Record | None, options: Options) -> state.Record:
    """What the cluster is to be: as asked for, else as it was."""
    known = before or state.Record(name=name, provider="embedded", nodes=DEFAULT_NODES)
    nodes_wanted = known.nodes if options.nodes is None else options.nodes
    if not 0 <= nodes_wanted <= MAX_NODES:
        raise ClusterError(f"{nodes_wanted} nodes can't be made", remedy=f"--nodes takes 0 to {MAX_NODES}.")
    wanted = replace(known, nodes=nodes_wanted, istio=known.istio or options.istio)
    return wanted if wanted == before else replace(wanted, complete=False)


async def _gather(images: Iterable[str], istio: bool, options: Options, progress: Progress) -> Materials:  # noqa: FBT001
    return await materials.gather(images, istio=istio, assume_yes=options.assume_yes, progress=progress)


def require_root() -> None:
    """Say what to do where this is not root."""
    if os.geteuid() != 0:
        command = shlex.join([sys.executable, "-m", "supportfleet", *sys.argv[1:]])
        raise NotRootError(
            "the embedded cluster makes namespaces, mounts and cgroups, for which root is needed",
            remedy=f"Run it as root: sudo {command}",
        )
