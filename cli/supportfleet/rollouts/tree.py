"""An agent and its rollout as a tree, for people: coloured where the terminal is, and no wider than it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Final, Literal

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from supportfleet.rollouts.steps import duration, in_words
from supportfleet.rollouts.view import FULL, SERVING, AgentView, Condition, Figure, Revision, Step, troubles

WIDE: Final = 130
"""Columns from which on there is room for tables with images; else what belongs together is lines."""
PIPED_WIDTH: Final = 240
"""Where nobody looks at a terminal, nothing is cut."""
BAR: Final = 16
DIGEST_SHOWN: Final = len("sha256:") + 12

Mark = Literal["good", "bad", "busy", "waiting"]
MARKS: Final[dict[Mark, tuple[str, str, str]]] = {
    # what it looks like, the same in ASCII, and its style
    "good": ("✔", "+", "green"),
    "bad": ("✖", "x", "bold red"),
    "busy": ("▶", ">", "bold cyan"),
    "waiting": ("·", ".", "dim"),
}
UNWANTED: Final = ("failed", "undone")
"""Roles of revisions that the spec asks for, and that are shown though they have no pods."""
ROLE_STYLES: Final = {"stable": "green", "canary": "yellow", "failed": "red", "undone": "red"}
VERDICTS: Final[dict[str, Mark]] = {"Pass": "good", "Fail": "bad", "Inconclusive": "busy", "NoData": "waiting"}


def console() -> Console:
    """Where output goes; the library leaves colours out without a terminal, and where NO_COLOR is set."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=PIPED_WIDTH)


class Painter:
    """Renders for one terminal: what its width and its characters allow."""

    def __init__(self, target: Console, now: dt.datetime) -> None:
        self._wide = target.width >= WIDE
        self._ascii = target.options.ascii_only
        self._now = now

    def tree(self, agent: AgentView) -> Tree:
        """All that there is to see."""
        root = Tree(self._title(agent), guide_style="dim")
        for section in self._sections(agent):
            root.add(section)
        return root

    def _sections(self, agent: AgentView) -> Iterator[RenderableType]:
        shown = [one for one in agent.revisions if one.role in SERVING or one.desired or one.role in UNWANTED]
        if shown:
            yield Group(Text("revisions", "bold"), self._revisions(shown))
        if agent.steps:
            yield Group(Text("steps", "bold"), *(self._step(one) for one in agent.steps))
        if agent.analysis:
            yield Group(self._analysis_title(agent), self._figures(agent.analysis))
        if bad := troubles(agent):
            yield Group(Text("conditions", "bold"), *(self._trouble(one, agent) for one in bad))

    def _title(self, agent: AgentView) -> Text:
        mark: Mark = "good" if agent.ready and agent.observed else "bad" if agent.stalled else "busy"
        title = Text.assemble(self._mark(mark), " ", (agent.name, "bold"), (f" in {agent.namespace}", "dim"))
        title.append(f"  {agent.strategy}", "cyan")
        if agent.provider != "None":
            title.append(f" by {agent.provider}", "cyan")
        if agent.phase is None:
            title.append("  the operator has not seen it yet")
            return title
        title.append(f"  {agent.phase}", _phase_style(agent))
        if agent.mirror:
            title.append(f"  {agent.mirror} % copied to the canary", "yellow")
        if agent.message:
            title.append(f": {agent.message}")
        if not agent.observed:
            title.append("  (a newer spec is not looked at yet)", "yellow")
        return title

    def _revisions(self, revisions: list[Revision]) -> RenderableType:
        if not self._wide:
            return Group(*(self._revision_lines(one) for one in revisions))
        rows = self._grid()
        for one in revisions:
            style = ROLE_STYLES.get(one.role, "dim")
            rows.add_row(
                Text(one.name, "bold"),
                Text(one.role, style),
                ProgressBar(total=FULL, completed=one.weight, width=BAR, complete_style=style, finished_style=style),
                Text(f"{one.weight} %", justify="right"),
                _pods(one),
                Text(one.image or "", overflow="fold"),
                Text(_model(one)),
                Text(self._age(one), "dim"),
            )
        return rows

    def _revision_lines(self, one: Revision) -> Text:
        line = Text.assemble((one.name, "bold"), "  ", (f"{one.role:8}", ROLE_STYLES.get(one.role, "dim")))
        line.append(f"  {one.weight:3} %  ").append_text(_pods(one)).append(f"  {self._age(one)}", "dim")
        details = ", ".join(part for part in (one.image, _model(one)) if part)
        return line.append(f"\n  {details}", "dim") if details else line

    def _age(self, one: Revision) -> str:
        if one.retired_at is not None and one.role not in {"stable", "canary"}:
            return f"no traffic for {self._since(one.retired_at)}"
        return self._since(one.created_at)

    def _step(self, one: Step) -> Text:
        mark: Mark = {"done": "good", "current": "busy", "waiting": "waiting"}[one.state]  # type: ignore[assignment]
        line = Text.assemble(self._mark(mark), " ", (in_words(one.step), "" if one.state == "current" else "dim"))
        if one.ends_at is not None:
            left = (one.ends_at - self._now).total_seconds()
            line.append(f", {duration(left)} left" if left > 0 else ", over", "cyan")
        return line

    def _analysis_title(self, agent: AgentView) -> Text:
        title = Text("analysis", "bold")
        if agent.analysed_at is not None:
            title.append(f"  {self._since(agent.analysed_at)} ago", "not bold dim")
        if agent.analysis_failures:
            limit = f" of {agent.failure_limit}" if agent.failure_limit else ""
            title.append(f"  failed {agent.analysis_failures}{limit}", "red")
        return title

    def _figures(self, figures: tuple[Figure, ...]) -> RenderableType:
        rows = self._grid()
        cells = [[self._mark(VERDICTS.get(one.verdict, "waiting")), *_figure(one)] for one in figures]
        if not self._wide:
            return Group(*(Text(" ").join(cell for cell in row if cell) for row in cells))
        for row in cells:
            rows.add_row(*row)
        return rows

    def _trouble(self, one: Condition, agent: AgentView) -> Text:
        mark: Mark = "bad" if agent.stalled and one.type != "Reconciling" else "busy"
        return Text.assemble(self._mark(mark), f" {one.type} ", (one.reason, "yellow"), f": {one.message}")

    def _grid(self) -> Table:
        return Table.grid(padding=(0, 2, 0, 0))

    def _mark(self, mark: Mark) -> Text:
        symbol, plain, style = MARKS[mark]
        return Text(plain if self._ascii else symbol, style)

    def _since(self, then: dt.datetime | None) -> str:
        return duration((self._now - then).total_seconds()) if then else ""


def limits_in_words(figure: Figure) -> str:
    """What a figure must reach."""
    words = {"max": "max {:.4g}", "min": "min {:.4g}", "maxIncreaseOverStable": "at most {:.4g} above stable"}
    return ", ".join(words[limit].format(value) for limit, value in figure.limits.items())


def _figure(one: Figure) -> tuple[Text, ...]:
    """Name, value, limits, and what it was measured on."""
    return (
        Text(one.metric),
        Text("-" if one.value is None else f"{one.value:.4g}", MARKS[VERDICTS.get(one.verdict, "waiting")][2]),
        Text(limits_in_words(one), "dim"),
        Text("" if one.stable is None else f"stable {one.stable:.4g}", "dim"),
        Text("" if one.samples is None else f"{one.samples} samples", "dim"),
        Text(one.message or ("" if one.verdict in {"Pass", "Fail"} else one.verdict), "yellow"),
    )


def _pods(one: Revision) -> Text:
    """Ready pods of those that are wanted, and after them those of the layers behind."""
    parts = [(f"{one.ready}/{one.desired} ready", one.ready >= one.desired)]
    parts += [(f", {it.name} {it.ready}/{it.desired}", it.ready >= it.desired) for it in one.layers or ()]
    return Text.assemble(*((text, "" if is_whole else "yellow") for text, is_whole in parts))


def _model(one: Revision) -> str:
    if one.model_version is None:
        return ""
    return f"model {one.model_version}" + (f" ({one.model_digest[:DIGEST_SHOWN]})" if one.model_digest else "")


def _phase_style(agent: AgentView) -> str:
    if agent.phase in {"Aborting", "RolledBack"}:
        return "bold red"
    return "green" if agent.phase == "Idle" else "yellow"
