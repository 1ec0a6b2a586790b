"""Plans and histories as people read them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from supportfleet.rollouts.plan import Change, Plan
from supportfleet.rollouts.steps import duration, in_words
from supportfleet.rollouts.tree import ROLE_STYLES
from supportfleet.rollouts.view import Revision

LONGEST_VALUE: Final = 200
ABSENT: Final = "(none)"
STATES: Final = {"failed": "rolled back", "kept": "", "previous": "previous: undo goes back to it"}


def plan_text(plan: Plan) -> Iterator[RenderableType]:
    """A plan, line by line."""
    yield _headline(plan)
    for problem in plan.problems:
        yield Text.assemble("  ", (f"{problem.path}: " if problem.path else "", "bold"), problem.message)
    for change in plan.changes:
        yield _change(change)
    if plan.rollout:
        yield Text.assemble(("revision: ", "bold"), plan.rollout)
    if plan.because:
        yield Text(f"  because of {', '.join(plan.because)}", "dim")
    yield from _steps(plan)
    if plan.stable:
        yield Text.assemble(("stable: ", "bold"), plan.stable)
    for effect in plan.effects:
        yield Text.assemble(("at once: ", "bold"), effect)
    for note in plan.notes:
        yield Text.assemble(("note: ", "bold yellow"), note)


def _headline(plan: Plan) -> Text:
    said, style = {
        "create": ("would be created", "green"),
        "none": ("nothing would change", "dim"),
        "refused": ("is refused", "bold red"),
        "change": ("another revision" if plan.new_revision else "would change, with no new revision", "yellow"),
    }[plan.verb]
    return Text.assemble((f"supportagent/{plan.name}", "bold"), f" in {plan.namespace}: ", (said, style))


def _change(change: Change) -> Text:
    line = Text.assemble("  ", change.path, "  ", (shown(change.before), "red"))
    return line.append(" -> ").append(shown(change.after), "green")


def shown(value: Any) -> str:
    """A value on one line."""
    text = ABSENT if value is None else value if isinstance(value, str) and value else json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def _steps(plan: Plan) -> Iterator[Text]:
    if not plan.steps:
        return
    waits = f", and {plan.people} times somebody's word" if plan.people > 1 else ", and somebody's word"
    at_least = f"at least {duration(plan.least_seconds or 0)}{waits if plan.people else ''}"
    yield Text.assemble(("steps: ", "bold"), at_least, ", beside the time that pods take to get ready")
    for number, step in enumerate(plan.steps, 1):
        yield Text(f"  {number}. {in_words(step)}")


def history_text(revisions: Sequence[Revision], now: dt.datetime) -> Table:
    """The revisions that are kept, newest first."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("NUMBER", "REVISION", "STATE", "IMAGE", "MODEL", "CREATED"):
        table.add_column(column, overflow="fold", no_wrap=column in {"NUMBER", "REVISION"})
    for one in revisions:
        state = STATES.get(one.role, one.role)
        table.add_row(
            "" if one.number is None else str(one.number),
            one.name,
            Text(state, ROLE_STYLES.get(one.role, "")),
            one.image or "",
            one.model_version or "",
            f"{duration((now - one.created_at).total_seconds())} ago" if one.created_at else "",
        )
    return table
