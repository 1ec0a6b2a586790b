"""What every part of `up` is given."""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supportfleet.local import state
from supportfleet.local.embedded.daemons import Daemons
from supportfleet.local.embedded.identities import Identities
from supportfleet.local.embedded.layout import Addresses, Layout
from supportfleet.local.progress import Progress


@dataclass(frozen=True)
class Context:
    """One cluster, and what it is made from."""

    layout: Layout
    record: state.Record
    addresses: Addresses
    identities: Identities
    daemons: Daemons
    programs: Mapping[str, Path]
    images: Mapping[str, Path]
    # Folders of Go modules that hold more than programs.
    sources: Mapping[str, Path]
    progress: Progress
    # Data need not survive a crash of the machine: for tests.
    fast: bool

    @property
    def node_numbers(self) -> range:
        """Nodes are counted from 1."""
        return range(1, self.record.nodes + 1)


async def together(*parts: Coroutine[Any, Any, Any]) -> list[Any]:
    """Do these side by side and return their results; the first failure ends the others and is the one raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in parts]
    except BaseExceptionGroup as failures:
        raise _first(failures) from None
    return [task.result() for task in tasks]


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
