"""`supportfleet local …`: what people type, and what is printed."""

import asyncio
import json
import subprocess
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from supportfleet.errors import UnknownComponentError
from supportfleet.local import binaries, packages, provider
from supportfleet.local.progress import Progress
from supportfleet.local.provider import PROVIDERS, Options, Provider, Status

DEFAULT_NAME = "supportfleet"
DEGRADED_EXIT = 3
# What judges and drives the project's agents in its GitOps tests.
TEST_BINARIES = ("gitops",)

name_option = click.option(
    "--name", default=DEFAULT_NAME, show_default=True, envvar="SUPPORTFLEET_CLUSTER", help="The cluster's name."
)
provider_option = click.option(
    "--provider",
    "wanted",
    type=click.Choice(PROVIDERS),
    default="auto",
    show_default=True,
    help="auto: kind where a Docker engine answers, else embedded.",
)
istio_option = click.option("--istio", is_flag=True, help="With Istio and an ingress gateway.")
yes_option = click.option("--yes", "assume_yes", is_flag=True, help="Install missing packages without asking.")


@click.group()
def local() -> None:
    """A real Kubernetes on this machine, with or without a container engine."""


@local.command()
@provider_option
@istio_option
@click.option("--tests", is_flag=True, help="With what the project's own tests run besides: servers, and kstatus.")
@yes_option
def prepare(wanted: str, istio: bool, tests: bool, assume_yes: bool) -> None:  # noqa: FBT001 - click passes flags by name
    """Install, build and fetch what a cluster needs; start nothing."""
    options = Options.from_environment(istio=istio, assume_yes=assume_yes)

    async def work(cluster: Provider, progress: Progress) -> None:
        await cluster.prepare(options, progress)
        if tests:
            await packages.ensure_packages(packages.TEST_PACKAGES, progress=progress, assume_yes=assume_yes)
            await binaries.ensure(TEST_BINARIES, progress=progress)

    _with_progress(DEFAULT_NAME, wanted, work)


@local.command()
@name_option
@click.option("--nodes", type=int, help="How many nodes: 1 for a new cluster; 0 for a control plane alone.")
@istio_option
@provider_option
@yes_option
def up(name: str, nodes: int | None, istio: bool, wanted: str, assume_yes: bool) -> None:  # noqa: FBT001
    """Have a cluster running: make it, resume making it, or restart what has ended."""
    options = Options.from_environment(nodes=nodes, istio=istio, assume_yes=assume_yes)
    cluster = _with_progress(name, wanted, lambda cluster, progress: cluster.up(options, progress))
    status = asyncio.run(cluster.status())
    click.echo(f"{name} is {status['state']}.\n\n  export KUBECONFIG={status['kubeconfig']}\n  kubectl get nodes")


@local.command()
@name_option
def down(name: str) -> None:
    """Take a cluster down, with its data; nothing of it stays."""
    cluster = asyncio.run(provider.choose(name))
    found = asyncio.run(cluster.down())
    click.echo(f"{name} is gone." if found else f"There is no cluster {name!r}.")


@local.command()
@name_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def status(name: str, output: str) -> None:
    """Say what runs and where it is reached. Exit code 3 where not all of it runs."""
    found = asyncio.run(_status(name))
    if output == "json":
        click.echo(json.dumps(found, indent=2))
    else:
        _show(found)
    if found["state"] != "Running":
        raise SystemExit(DEGRADED_EXIT)


@local.command()
@name_option
@click.option("--path", "only_path", is_flag=True, help="Print the file's path instead of its content.")
def kubeconfig(name: str, only_path: bool) -> None:  # noqa: FBT001
    """Print the kubeconfig of a cluster."""
    path = asyncio.run(_status(name))["kubeconfig"]
    click.echo(path if only_path else Path(path).read_text(), nl=only_path)


@local.command("load-image")
@name_option
@click.argument("images", nargs=-1, required=True, metavar="IMAGE_OR_TAR...")
def load_image(name: str, images: tuple[str, ...]) -> None:
    """Get images into every node: archives, or supportfleet/operator:dev and the like, built if needed."""

    async def load(cluster: Provider, progress: Progress) -> None:
        for image in images:
            await cluster.load_image(image, progress)

    _with_progress(name, "auto", load)


@local.command()
@name_option
@click.argument("component", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on as it is written.")
def logs(name: str, component: str | None, follow: bool) -> None:  # noqa: FBT001
    """Print the log of a component, or the names of all."""
    files = asyncio.run(provider.choose(name)).log_files()
    if component is None:
        click.echo("\n".join(files))
    elif component not in files:
        raise UnknownComponentError(
            f"cluster {name!r} has no component {component!r}", remedy=f"It has {', '.join(files) or 'none'}."
        )
    else:
        how = ("-F", "-n", "100") if follow else ("-n", "+1")
        subprocess.run(["tail", *how, str(files[component])], check=False)


def _with_progress(name: str, wanted: str, work: Callable[[Provider, Progress], Coroutine[Any, Any, None]]) -> Provider:
    async def run() -> Provider:
        cluster = await provider.choose(name, wanted)
        with Progress() as progress:
            await work(cluster, progress)
        return cluster

    return asyncio.run(run())


async def _status(name: str) -> Status:
    return await (await provider.choose(name)).status()


def _show(found: Status) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold]{found['name']}[/] is [bold]{found['state']}[/] ({found['provider']}, {found['version']})")
    for node in found["nodes"]:
        console.print(f"  {node['name']}  {node['address']}  {'Ready' if node['ready'] else 'NotReady'}")
    table = Table("component", "state", "pid", "MiB", "since", box=None, pad_edge=False)
    for part in found.get("components", []):
        table.add_row(*(str(part.get(key, "")) for key in ("name", "state", "pid", "memoryMiB", "since")))
    console.print(table)
    for key in ("kubeconfig", "server", "auditLog", "s3", "postgres", "ingress"):
        if value := found.get(key):
            facts = value if isinstance(value, dict) else {"": value}
            console.print(f"{key}: {', '.join(f'{name} {fact}'.strip() for name, fact in facts.items())}")
