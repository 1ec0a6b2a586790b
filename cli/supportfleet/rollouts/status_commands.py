"""``supportfleet status`` and ``supportfleet history``: what is to be seen."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal

import click
import yaml
from rich.console import Console, Group
from rich.live import Live

from supportfleet.rollouts.options import Target, agent_argument, complete_agent, now, run, target_options
from supportfleet.rollouts.text import history_text
from supportfleet.rollouts.tree import Painter, console
from supportfleet.rollouts.view import AgentView, revisions, view
from supportfleet.rollouts.watching import Facts, Scope, facts_of, watching

TICK_SECONDS: Final = 1.0
"""How often ages and what is left of pauses are shown anew."""

Output = Literal["tree", "json", "yaml"]

output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["tree", "json", "yaml"]),
    default="tree",
    show_default=True,
    help="For people, or for programs.",
)


@click.command()
@click.argument("name", required=False, shell_complete=complete_agent)
@click.option("-A", "--all-namespaces", is_flag=True, help="The agents of all namespaces.")
@click.option("-w", "--watch", is_flag=True, help="Go on and show what changes, until Ctrl-C.")
@output_option
@target_options
def status(name: str | None, all_namespaces: bool, watch: bool, output: Output, target: Target) -> None:  # noqa: FBT001 - click passes flags by name
    """Show revisions, weights, steps and figures of the agent NAME, or of all agents of the namespace."""
    if all_namespaces and (name or target.namespace):
        raise click.UsageError("--all-namespaces goes with neither NAME nor --namespace")
    scope = Scope(None) if all_namespaces else target.scope(name)
    if not watch:
        run(_show(target, scope, output))
        return
    with contextlib.suppress(KeyboardInterrupt):  # the only way to end it
        run(_follow(target, scope, output))


async def _show(target: Target, scope: Scope, output: Output) -> None:
    async with target.api() as api:
        views = [view(one) for one in await facts_of(api, scope)]
    if output == "tree":
        out = console()
        for painted in _painted(out, views, scope):
            out.print(painted)
    else:
        click.echo(written(views, scope, output), nl=output == "json")


async def _follow(target: Target, scope: Scope, output: Output) -> None:
    out = console()
    shown: Any = None
    with _screen(out, output) as show:
        async with target.api() as api, watching(api, scope) as watched:
            while True:
                changed = await watched.changed(TICK_SECONDS)
                if not (changed or (shown is not None and out.is_terminal and output == "tree")):
                    continue
                views = [view(one) for one in watched.facts]
                if views != shown or out.is_terminal:
                    show(views, scope)
                shown = views


@contextlib.contextmanager
def _screen(out: Console, output: Output) -> Iterator[Callable[[Sequence[AgentView], Scope], None]]:
    """Where the newest state is shown: over the one before on a terminal, else after it."""
    if output != "tree":
        separator = "---\n" if output == "yaml" else ""
        yield lambda views, scope: click.echo(separator + written(views, scope, output, compact=True).rstrip("\n"))
    elif out.is_terminal:
        with Live(console=out, auto_refresh=False, vertical_overflow="visible") as live:
            yield lambda views, scope: live.update(Group(*_painted(out, views, scope)), refresh=True)
    else:
        yield lambda views, scope: out.print(*_painted(out, views, scope), "", sep="\n")


def _painted(out: Console, views: Sequence[AgentView], scope: Scope) -> list[Any]:
    painter = Painter(out, now())
    where = f"in namespace {scope.namespace}" if scope.namespace else "in any namespace"
    return [painter.tree(one) for one in views] or [f"No agents {where}."]


def written(views: Sequence[AgentView], scope: Scope, output: Output, *, compact: bool = False) -> str:
    """The same for programs: one object for an agent that was named, else a list of them as ``items``."""
    found = views[0].to_json() if scope.name else {"items": [one.to_json() for one in views]}
    if output == "yaml":
        return yaml.safe_dump(found, sort_keys=False, width=120, allow_unicode=True)
    return json.dumps(found, indent=None if compact else 2, ensure_ascii=False)


@click.command()
@agent_argument
@output_option
@target_options
def history(name: str, output: Output, target: Target) -> None:
    """List the revisions of the agent NAME that are kept, newest first."""
    facts = run(_facts(target, target.scope(name)))
    found = sorted(revisions(facts), key=lambda one: one.number or 0, reverse=True)
    if output == "tree":
        out = console()
        out.print(history_text(found, now()) if found else f"{name} has no revision yet.")
        return
    items = {"items": [one.to_json() for one in found]}
    click.echo(json.dumps(items, indent=2) if output == "json" else yaml.safe_dump(items, sort_keys=False).rstrip())


async def _facts(target: Target, scope: Scope) -> Facts:
    async with target.api() as api:
        return (await facts_of(api, scope))[0]
