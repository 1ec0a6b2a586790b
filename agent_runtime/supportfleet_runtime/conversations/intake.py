"""Taking messages in: a message and its task are stored together, and only then is it accepted.

Messages that arrive together share a transaction, which also notes in the audit log that they were accepted. A
conversation's row gives out its turns' numbers, and is locked while it does, so turns are in order whichever pods the
messages reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection, bindparam, insert, update

from supportfleet_runtime.conversations.idempotency import Earlier, IdempotencyKeys
from supportfleet_runtime.conversations.records import Incoming
from supportfleet_runtime.errors import KeyReusedError, NotFoundError
from supportfleet_runtime.queue.port import Queue, QueueItem
from supportfleet_runtime.queue.wakeup import Wakeup
from supportfleet_runtime.storage import audit, signals
from supportfleet_runtime.storage.batcher import Batcher
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.keys import among
from supportfleet_runtime.storage.schema import CUSTOMER, READY, callbacks, conversations, messages


class Intake:
    """Accepts messages for one agent (``scope``). Other processes are told only where this one's worker has no room."""

    def __init__(self, database: Database, queue: Queue, scope: str, wakeup: Wakeup) -> None:
        self._database = database
        self._queue = queue
        self._scope = scope
        self._wakeup = wakeup
        self._keys = IdempotencyKeys(scope)
        self._batcher: Batcher[Incoming, Incoming] = Batcher(self._store)

    async def accept(self, incoming: Incoming) -> Incoming:
        """Store the message and its task; what was taken in: it, or the earlier one that has its key.

        Raises ``NotFoundError`` where the conversation isn't this customer's, ``KeyReusedError`` where the key is
        another message's.
        """
        return await self._batcher.submit(incoming)

    async def _store(self, batch: Sequence[Incoming]) -> Sequence[Incoming | Exception]:
        turns, earlier = await self._database.write(lambda connection: self._insert(connection, batch))
        self._wakeup.notify()
        return [_result(item, turns, earlier) for item in batch]

    def _insert(
        self, connection: Connection, batch: Sequence[Incoming]
    ) -> tuple[Mapping[str, int], Mapping[str, Earlier]]:
        """Store what is new, as far as it can be; each accepted message's turn and each repeated one's first."""
        earlier = self._keys.claim(connection, batch)
        batch = [incoming for incoming in batch if incoming.task_id not in earlier]
        turns: dict[str, int] = {}
        escalated: set[str] = set()
        for round_ in _rounds(batch):
            turns |= self._take_turns(connection, round_, escalated)
        accepted = [incoming for incoming in batch if incoming.task_id in turns]
        if accepted:
            connection.execute(_INSERT_MESSAGE, [_message(item, turns[item.task_id]) for item in accepted])
            self._queue.publish(
                connection, [_item(it, turns[it.task_id], urgent=it.conversation_id in escalated) for it in accepted]
            )
            self._keep_callbacks(connection, accepted)
            audit.record(connection, [self._accepted(item, turns[item.task_id]) for item in accepted])
            if not self._wakeup.has_room:
                signals.send(connection, signals.WORK, [self._queue.name])
        refused = [incoming for incoming in batch if incoming.task_id not in turns]
        self._keys.release(connection, refused)
        gone = {incoming.task_id for incoming in refused}
        return turns, {task_id: first for task_id, first in earlier.items() if first.task_id not in gone}

    def _keep_callbacks(self, connection: Connection, accepted: Sequence[Incoming]) -> None:
        asked = [(incoming, incoming.callback) for incoming in accepted if incoming.callback]
        if asked:
            rows = [
                {
                    "id": callback.id,
                    "task_id": incoming.task_id,
                    "scope": self._scope,
                    "kind": callback.kind,
                    "target": callback.target,
                    "state": READY,
                    "tries": 0,
                    "visible_at": incoming.received_at,
                    "created_at": incoming.received_at,
                }
                for incoming, callback in asked
            ]
            connection.execute(_INSERT_CALLBACK, rows)

    def _take_turns(self, connection: Connection, batch: Sequence[Incoming], escalated: set[str]) -> dict[str, int]:
        """The messages' turns, by task; ``escalated`` gains conversations that wait for a person.

        A conversation of someone else's gives none.
        """
        opening = [incoming for incoming in batch if incoming.is_new]
        if opening:
            connection.execute(_INSERT_CONVERSATION, [self._conversation(incoming) for incoming in opening])
        turns = {incoming.task_id: 1 for incoming in opening}
        continuing = {(i.conversation_id, i.customer_id): i for i in batch if not i.is_new}
        if continuing:
            latest = max(incoming.received_at for incoming in continuing.values())
            values = {"scope_": self._scope, "keys_": list(continuing), "now_": latest}
            for row in connection.execute(_TAKE_TURN, values):
                turns[continuing[row.id, row.customer_id].task_id] = row.turns
                if row.escalated_at is not None:
                    escalated.add(row.id)
        return turns

    def _accepted(self, incoming: Incoming, turn: int) -> audit.Event:
        return audit.Event(
            audit.MESSAGE_ACCEPTED,
            incoming.received_at,
            self._scope,
            incoming.customer_id,
            incoming.conversation_id,
            turn,
            incoming.task_id,
        )

    def _conversation(self, incoming: Incoming) -> dict[str, object]:
        return {
            "id": incoming.conversation_id,
            "scope": self._scope,
            "customer_id": incoming.customer_id,
            "turns": 1,
            "created_at": incoming.received_at,
            "updated_at": incoming.received_at,
        }


def _result(item: Incoming, turns: Mapping[str, int], earlier: Mapping[str, Earlier]) -> Incoming | Exception:
    """What ``accept`` returns or raises."""
    if item.task_id in turns:
        return item
    first = earlier.get(item.task_id)
    if first is None:
        return NotFoundError("no such conversation")
    if not first.is_same:
        return KeyReusedError("this Idempotency-Key came with another message before")
    return replace(item, task_id=first.task_id, message_id=first.message_id, conversation_id=first.conversation_id)


def _rounds(batch: Sequence[Incoming]) -> list[list[Incoming]]:
    """The batch in rounds in which no conversation occurs twice: a row gives out one turn at a time."""
    rounds: list[dict[str, Incoming]] = []
    for incoming in batch:
        for round_ in rounds:
            if incoming.conversation_id not in round_:
                round_[incoming.conversation_id] = incoming
                break
        else:
            rounds.append({incoming.conversation_id: incoming})
    return [list(round_.values()) for round_ in rounds]


def _item(incoming: Incoming, turn: int, *, urgent: bool) -> QueueItem:
    """The turn's work. A customer who waits for a person goes first, and who is said to."""
    urgent = urgent or incoming.urgent
    return QueueItem(
        incoming.task_id, incoming.conversation_id, turn, incoming.received_at, incoming.trace, urgent=urgent
    )


def _message(incoming: Incoming, turn: int) -> dict[str, object]:
    return {
        "conversation_id": incoming.conversation_id,
        "turn": turn,
        "role": CUSTOMER,
        "id": incoming.message_id,
        "text": incoming.text,
        "created_at": incoming.received_at,
    }


_INSERT_CONVERSATION = insert(conversations)
_INSERT_CALLBACK = insert(callbacks)
_INSERT_MESSAGE = insert(messages).values(
    {name: bindparam(name) for name in ("conversation_id", "turn", "role", "id", "text", "created_at")}
)
_TAKE_TURN = (
    update(conversations)
    .where(
        conversations.c.scope == bindparam("scope_"),
        among("keys_", conversations.c.id, conversations.c.customer_id),
    )
    .values(turns=conversations.c.turns + 1, updated_at=bindparam("now_"))
    .returning(conversations.c.id, conversations.c.customer_id, conversations.c.turns, conversations.c.escalated_at)
)
