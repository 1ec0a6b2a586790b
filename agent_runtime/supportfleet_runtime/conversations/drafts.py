"""The answers that language models are saying in this process, and who here listens to them.

A model is asked to stream where somebody listens to the conversation when it is asked, in this process; anywhere else
it costs nothing. Nothing of a draft is stored, and no other process hears of it.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial

from supportfleet_runtime.agent.draft import Draft
from supportfleet_runtime.agent.turn import Turn
from supportfleet_runtime.conversations.turn_set import TurnSet


class Drafts:
    """The drafts of conversations. ``changed`` is told of the conversation in which one has changed."""

    def __init__(self, changed: Callable[[str], None] = lambda _conversation_id: None) -> None:
        self._changed = changed
        self._listeners: Counter[str] = Counter()
        self._open: defaultdict[str, dict[str, Draft]] = defaultdict(dict)

    @contextlib.contextmanager
    def listening(self, conversation_id: str) -> Iterator[None]:
        """Somebody listens here."""
        self._listeners[conversation_id] += 1
        try:
            yield
        finally:
            self._listeners[conversation_id] -= 1
            if not self._listeners[conversation_id]:
                del self._listeners[conversation_id]

    @contextlib.contextmanager
    def writing(self, turn: Turn) -> Iterator[Draft | None]:
        """A draft of the turn's answer, if somebody listens; where there comes no answer it is void."""
        conversation_id = turn.conversation_id
        if conversation_id not in self._listeners:
            yield None
            return
        draft = Draft(turn.task_id, turn.number, partial(self._changed, conversation_id))
        self._open[conversation_id][turn.task_id] = draft
        try:
            yield draft
        except BaseException:
            draft.void()
            raise
        finally:
            self._close(conversation_id, draft)

    def of(self, conversation_id: str) -> Collection[Draft]:
        """Those that are being written."""
        return self._open[conversation_id].values() if conversation_id in self._open else ()

    def _close(self, conversation_id: str, draft: Draft) -> None:
        drafts = self._open[conversation_id]
        if drafts.get(draft.task_id) is draft:  # and not that of a later attempt
            del drafts[draft.task_id]
        if not drafts:
            del self._open[conversation_id]


@dataclass(frozen=True)
class News:
    """What to tell a listener: how a task's text goes on; without ``text`` that what they were told of it is void."""

    task_id: str
    turn: int
    text: str | None


class Heard:
    """What one listener was told of a conversation's drafts."""

    def __init__(self) -> None:
        self._drafts: dict[str, Draft] = {}
        self._told: dict[str, str] = {}

    def news(self, drafts: Collection[Draft], seen: TurnSet) -> Iterator[News]:
        """What is to be told now; nothing of turns whose replies were ``seen``.

        A draft that was written to its end is told of to its end, though it is none of ``drafts`` any more.
        """
        self._drafts |= {draft.task_id: draft for draft in drafts}
        for task_id, draft in list(self._drafts.items()):
            if draft.turn in seen:
                del self._drafts[task_id]
                self._told.pop(task_id, None)
            else:
                yield from self._news_of(draft)

    def ended(self, task_id: str | None, turn: int, reply: str) -> Iterator[News]:
        """What is to be told before a reply that is stored: nothing, if what was told of the task is how it begins."""
        told = self._told.get(task_id, "") if task_id else ""
        if task_id and not reply.startswith(told):
            yield News(task_id, turn, None)

    def _news_of(self, draft: Draft) -> Iterator[News]:
        told, text = self._told.get(draft.task_id, ""), draft.text
        self._told[draft.task_id] = text
        if not text.startswith(told):
            yield News(draft.task_id, draft.turn, None)
            told = ""
        if text != told:
            yield News(draft.task_id, draft.turn, text[len(told) :])
