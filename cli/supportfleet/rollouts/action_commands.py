"""``supportfleet promote|abort|retry|pause|resume|undo``: what people say to a rollout."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Final

import click

from supportfleet.rollouts import actions
from supportfleet.rollouts.actions import ActionFailedError, Intent, intended, progress
from supportfleet.rollouts.api import FIELD_MANAGER, Api, Object
from supportfleet.rollouts.options import Target, agent_argument, run, target_options
from supportfleet.rollouts.watching import Facts, Scope, agent_of, watching

WAIT_SECONDS: Final = 900.0


def _command(action: str) -> click.Command:
    @click.command(action, help=f"{actions.HELP[action]} The agent is NAME.", short_help=actions.HELP[action])
    @agent_argument
    @click.option("--wait", is_flag=True, help="Follow it until it is done; exit code 1 where it comes to nothing.")
    @click.option(
        "--timeout",
        type=click.FloatRange(min=1),
        default=WAIT_SECONDS,
        show_default=True,
        help="Seconds to follow it for.",
    )
    @target_options
    def command(name: str, wait: bool, timeout: float, target: Target) -> None:  # noqa: FBT001 - click passes flags by name
        run(_do(action, target, target.scope(name), timeout if wait else None))

    return command


promote, abort, retry, pause, resume, undo = (
    _command(action)
    for action in (actions.PROMOTE, actions.ABORT, actions.RETRY, actions.PAUSE, actions.RESUME, actions.UNDO)
)


async def _do(action: str, target: Target, scope: Scope, seconds: float | None) -> None:
    async with target.api() as api:
        intent = intended(action, await agent_of(api, scope), str(uuid.uuid4()))
        await ask(api, scope, intent)
        click.echo(f"{scope.name}: asked for {action} of {intent.revision}")
        if seconds is not None:
            click.echo(f"{scope.name}: {await followed(api, scope, intent, seconds, click.echo)}")


async def ask(api: Api, scope: Scope, intent: Intent) -> Object:
    """Write the action down; the operator takes it up from there."""
    return await api.patch(scope.agent, intent.patch, fieldManager=FIELD_MANAGER)


async def followed(api: Api, scope: Scope, intent: Intent, seconds: float, say: Callable[[str], None]) -> str:
    """What came of an action, once it is done; says what happens meanwhile.

    Raises:
        ActionFailedError: It came to nothing, or is not done in time.
    """
    last = ""

    def is_over(facts: Facts) -> bool:
        nonlocal last
        now = progress(intent, facts.agent)
        if now.outcome == "waiting" and now.message not in {last, "", actions.NOT_TAKEN_UP}:
            say(f"{scope.name}: {now.message}")
        last = now.message
        return now.outcome != "waiting"

    async with watching(api, scope) as watched:
        over = await watched.until(is_over, seconds)
        found = progress(intent, watched.facts[0].agent) if over else None
    if found is None:
        remedy = f"It goes on by itself: see 'supportfleet status {scope.name} --watch'"
        if last in {"", actions.NOT_TAKEN_UP}:
            remedy = "Is the operator running? kubectl -n supportfleet-system get pods"
        raise ActionFailedError(
            f"{intent.action} is not done after {seconds:g} s: {last or 'no answer'}", remedy=remedy
        )
    if found.outcome == "failed":
        raise ActionFailedError(f"{intent.action} came to nothing: {found.message}")
    return found.message
