"""Options that every command on agents has, and the way from them to the cluster."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from supportfleet.kubectl import Kubectl, KubectlError
from supportfleet.rollouts.api import Api, connect
from supportfleet.rollouts.watching import Scope

COMPLETION_SECONDS: Final = 3.0
Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Target:
    """The cluster and the namespace that a command is for."""

    kubectl: Kubectl
    namespace: str | None
    """None: that of the context."""

    def scope(self, name: str | None, namespace: str | None = None) -> Scope:
        """The agent of this name, or all agents of the namespace."""
        return Scope(namespace or self.namespace or self.kubectl.namespace(), name)

    @contextlib.asynccontextmanager
    async def api(self) -> AsyncIterator[Api]:
        """The API server."""
        async with connect(self.kubectl) as api:
            yield api


def target_options(command: Command) -> Command:
    """Add ``-n``, ``--context`` and ``--kubeconfig``, which become the argument ``target``."""

    @click.option("-n", "--namespace", metavar="NAME", help="The agent's namespace. Default: that of the context.")
    @click.option("--context", metavar="NAME", help="The kubeconfig's context. Default: the current one.")
    @click.option(
        "--kubeconfig",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="The kubeconfig. Default: KUBECONFIG, or ~/.kube/config.",
    )
    @functools.wraps(command)
    def wrapped(
        *arguments: Any, namespace: str | None, context: str | None, kubeconfig: Path | None, **more: Any
    ) -> Any:
        return command(*arguments, target=Target(Kubectl(kubeconfig, context=context), namespace), **more)

    return wrapped  # type: ignore[return-value]


def complete_agent(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:  # noqa: ARG001 - click's signature
    """Names of agents, for the shell; none where the cluster does not answer at once."""
    values = ctx.params
    kubectl = Kubectl(values.get("kubeconfig"), context=values.get("context"))
    where = ["-n", values["namespace"]] if values.get("namespace") else []
    try:
        said = kubectl.run("get", "supportagents", "-o", "name", *where, timeout=COMPLETION_SECONDS)
    except (KubectlError, OSError):
        return []
    names = [line.partition("/")[2] for line in said.splitlines()]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


agent_argument = click.argument("name", shell_complete=complete_agent)


def now() -> dt.datetime:
    """The time."""
    return dt.datetime.now(dt.UTC)


Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Do something asynchronous."""
    return asyncio.run(work)
