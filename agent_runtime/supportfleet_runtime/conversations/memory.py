"""What was said lately, kept at hand, so that a conversation that goes on need not be read again with each message.

The database is the truth. An entry is the turns up to one that was answered, put here once that answer is committed,
and says which: it is used for the turn that follows that one and no other, and only if the conversation's ``revision``
is still the same, which counts whatever else changes what was said (a late answer, a dead letter that is worked again).
So an entry that is out of date, because another pod has answered meanwhile, is never used; it only costs a look.

Where there is no Redis (``shared_memory``) each process has its own, bounded by entries, characters and time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from supportfleet_runtime.agent.turn import Exchange, Turn

MOST_ENTRIES: Final = 10_000
MOST_CHARACTERS: Final = 4_000_000
SWEEP_SECONDS: Final = 60.0
LARGEST_ENTRY: Final = 100_000
"""Characters; a conversation with more is read from the database."""


@dataclass(frozen=True)
class Said:
    """The turns of a conversation up to ``last``, as long as its revision is ``revision``."""

    revision: int
    last: int
    exchanges: tuple[Exchange, ...]

    @property
    def characters(self) -> int:
        """How much it is."""
        return sum(len(one.text) + len(one.reply or "") for one in self.exchanges)

    def before(self, number: int, revision: int, window: int) -> tuple[Exchange, ...] | None:
        """What a turn is shown, if this is what it has to be shown."""
        first = max(1, number - window)
        is_current = self.last == number - 1 and self.revision == revision
        if not (is_current and self.exchanges and self.exchanges[0].number <= first):
            return None
        return tuple(one for one in self.exchanges if one.number >= first)


def said_with(turn: Turn, reply: str, window: int) -> Said | None:
    """What was said once a turn is answered; ``None`` where it is too much to keep."""
    first = turn.number + 1 - window
    kept = tuple(one for one in turn.history if one.number >= first)
    said = Said(turn.revision, turn.number, (*kept, Exchange(turn.text, reply, turn.number)))
    return said if window and said.characters <= LARGEST_ENTRY else None


class Memory(Protocol):
    """A place for entries. None of its methods fails because that place is out of reach, but ``forget``."""

    async def get(self, conversation_ids: Sequence[str]) -> Mapping[str, Said]:
        """Those that are known."""
        ...

    def put(self, entries: Mapping[str, Said]) -> None:
        """Keep these, in place of earlier ones."""
        ...

    async def forget(self, conversation_ids: Sequence[str]) -> None:
        """Drop these."""
        ...

    async def run(self) -> None:
        """Do what has to be done in the background, for as long as the process lives."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class LocalMemory:
    """This process's own. What was written longest ago goes first."""

    def __init__(
        self,
        clock: Callable[[], float],
        ttl: float,
        *,
        most_entries: int = MOST_ENTRIES,
        most_characters: int = MOST_CHARACTERS,
    ) -> None:
        self._clock = clock
        self._ttl = ttl
        self._most_entries = most_entries
        self._most_characters = most_characters
        self._entries: OrderedDict[str, tuple[float, int, Said]] = OrderedDict()
        self.characters = 0

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, conversation_ids: Sequence[str]) -> Mapping[str, Said]:
        """Those that are known and not too old."""
        now = self._clock()
        found = {id_: self._entries.get(id_) for id_ in conversation_ids}
        return {id_: entry[2] for id_, entry in found.items() if entry and entry[0] > now}

    def put(self, entries: Mapping[str, Said]) -> None:
        """Keep these; others go where there is no room."""
        until = self._clock() + self._ttl
        for id_, said in entries.items():
            self._drop(id_)
            size = said.characters
            self._entries[id_] = (until, size, said)
            self.characters += size
        while self._entries and self._is_full():
            self._drop(next(iter(self._entries)))

    async def forget(self, conversation_ids: Sequence[str]) -> None:
        """Drop these."""
        for id_ in conversation_ids:
            self._drop(id_)

    async def run(self) -> None:
        """Let go of what is too old, though nothing new comes, for ever."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.put({})

    async def close(self) -> None:
        """There is nothing to be closed."""

    def _is_full(self) -> bool:
        """Whether something must go: too many, too much, or its time is over."""
        oldest = next(iter(self._entries.values()))
        too_old = oldest[0] <= self._clock()
        return too_old or len(self._entries) > self._most_entries or self.characters > self._most_characters

    def _drop(self, conversation_id: str) -> None:
        entry = self._entries.pop(conversation_id, None)
        if entry is not None:
            self.characters -= entry[1]
