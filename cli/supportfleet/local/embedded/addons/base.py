"""What an addon is: processes beside the control plane, and objects in the cluster."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from supportfleet.local.embedded.api import Manifest
from supportfleet.local.embedded.context import Context
from supportfleet.local.embedded.daemons import Daemon


async def _nothing(_context: Context) -> None:
    """Most need no preparation."""


def _always(_context: Context) -> bool:
    return True


@dataclass(frozen=True)
class Addon:
    """One addon."""

    name: str
    # Objects, applied in this order once the API server is ready.
    manifests: Callable[[Context], Sequence[Manifest]]
    # Processes in the control namespace, started once the API server is ready.
    daemons: Callable[[Context], Sequence[Daemon]] = lambda _context: ()
    # What can be done meanwhile.
    prepare: Callable[[Context], Coroutine[Any, Any, None]] = _nothing
    # What `status` says of it.
    facts: Callable[[Context], Mapping[str, Any]] = lambda _context: {}
    wanted: Callable[[Context], bool] = _always
