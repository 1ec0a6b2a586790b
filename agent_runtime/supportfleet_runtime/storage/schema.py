"""The tables.

A conversation is a list of turns: the customer's message and, once, the agent's reply. That a reply is given once is
the messages' primary key, whatever is worked twice. A task is one turn's work: the queue's item while it is unfinished
(``ready`` or ``leased``), the record of it afterwards. ``visible_at`` is when a worker may take it: at once, after a
pause, or when its lease has run out. A lease is known by the task's id and its number of tries, which each lease adds
to: a worker whose lease ran out holds a number that is no longer the row's. ``trace`` is the W3C ``traceparent`` of the
request that brought it, where that is traced.

A task that takes long leaves the queue (``long``) for ``long_tasks``, whose rows are leased alike. A callback waits in
``callbacks`` from the message on; it is due once its task has ended, by the very commit that ends it.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    FromClause,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    bindparam,
    text,
)

metadata = MetaData()

READY, LEASED, LONG, DONE, DEAD = "ready", "leased", "long", "done", "dead"
CUSTOMER, AGENT = "customer", "agent"
OPEN, CLAIMED, RESOLVED = "open", "claimed", "resolved"

UNFINISHED = text("state IN ('ready', 'leased')")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment. PostgreSQL keeps the zone; SQLite has none, so it is UTC there by agreement."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """What the driver is given."""
        if value is None or dialect.name == "postgresql":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's
        """What the driver gave, with its zone."""
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


conversations = Table(
    "conversations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("scope", String(200), nullable=False),
    Column("customer_id", String(128), nullable=False),
    Column("turns", Integer, nullable=False),
    Column("pending_intent", String(64)),
    Column("pending_asked", Integer),
    Column("escalated_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("revision", Integer, nullable=False, server_default=text("0")),
)

messages = Table(
    "messages",
    metadata,
    Column("conversation_id", String(64), ForeignKey("conversations.id", ondelete="CASCADE"), primary_key=True),
    Column("turn", Integer, primary_key=True, autoincrement=False),
    Column("role", String(16), primary_key=True),
    Column("id", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("intent", String(128)),
    Column("confidence", Float),
    Column("source", String(16)),
    Column("model", String(200)),
    Column("tools_enabled", Boolean),
    Column("fallback_level", Integer),
    UniqueConstraint("id", name="messages_id_key"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("queue", String(200), nullable=False),
    Column("conversation_id", String(64), ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
    Column("turn", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("tries", Integer, nullable=False),
    Column("visible_at", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("error", String(200)),
    Column("trace", String(64)),
    UniqueConstraint("conversation_id", "turn", name="tasks_conversation_id_turn_key"),
)

escalations = Table(
    "escalations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("conversation_id", String(64), ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
    Column("turn", Integer, nullable=False),
    Column("reason", String(64), nullable=False),
    Column("intent", String(128), nullable=False),
    Column("attempts", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("claimed_by", String(200)),
    Column("claimed_at", UtcDateTime),
    Column("resolved_at", UtcDateTime),
    UniqueConstraint("conversation_id", "turn", name="escalations_conversation_id_turn_key"),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("event", String(64), nullable=False),
    Column("scope", String(200), nullable=False),
    Column("customer_id", String(128)),
    Column("conversation_id", String(64)),
    Column("turn", Integer),
    Column("task_id", String(64)),
    Column("facts", JSON, nullable=False),
)
"""What happened (see ``audit``). It refers to conversations and tasks by name alone: it outlives them."""

erasures = Table(
    "erasures",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("scope", String(200), nullable=False),
    Column("customer_id", String(128)),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
)
"""Erasures of customers: ``id`` is the pseudonym that stays; ``customer_id`` is gone once one has finished."""

# Only unfinished tasks are looked for, and there are few: these indexes stay small however long the history gets.
Index("tasks_due", tasks.c.queue, tasks.c.visible_at, sqlite_where=UNFINISHED, postgresql_where=UNFINISHED)
Index("tasks_in_order", tasks.c.conversation_id, tasks.c.turn, sqlite_where=UNFINISHED, postgresql_where=UNFINISHED)

long_tasks = Table(
    "long_tasks",
    metadata,
    Column("id", String(64), ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
    Column("scope", String(200), nullable=False),
    Column("queue", String(200), nullable=False),
    Column("pending_intent", String(64)),
    Column("pending_asked", Integer),
    Column("progress", Integer, nullable=False),
    Column("result", Text),
    Column("state", String(16), nullable=False),
    Column("tries", Integer, nullable=False),
    Column("visible_at", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("error", String(200)),
)

callbacks = Table(
    "callbacks",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("task_id", String(64), ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False),
    Column("scope", String(200), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("target", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("tries", Integer, nullable=False),
    Column("visible_at", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("error", String(200)),
    UniqueConstraint("task_id", name="callbacks_task_id_key"),
)

for _table in (long_tasks, callbacks):
    Index(
        f"{_table.name}_due",
        _table.c.scope,
        _table.c.visible_at,
        sqlite_where=UNFINISHED,
        postgresql_where=UNFINISHED,
    )
Index("conversations_of_customer", conversations.c.scope, conversations.c.customer_id)
Index("erasures_under_way", erasures.c.scope, erasures.c.customer_id, unique=True)
UNRESOLVED = text("state IN ('open', 'claimed')")
Index("escalations_unresolved", escalations.c.created_at, sqlite_where=UNRESOLVED, postgresql_where=UNRESOLVED)


idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("scope", String(200), primary_key=True),
    Column("customer_id", String(128), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("task_id", String(64), nullable=False),
    Column("message_id", String(64), nullable=False),
    Column(
        "conversation_id",
        String(64),
        ForeignKey("conversations.id", ondelete="CASCADE", deferrable=True, initially="DEFERRED"),
        nullable=False,
    ),
    Column("created_at", UtcDateTime, nullable=False),
)
"""Keys of messages (see ``idempotency``). They are claimed before their conversations are there: hence deferred."""
Index("idempotency_keys_age", idempotency_keys.c.scope, idempotency_keys.c.created_at)
Index("idempotency_keys_of_conversation", idempotency_keys.c.conversation_id)


def is_unfinished(task: FromClause) -> ColumnElement[bool]:
    """Whether a task is still the queue's, in the words of the partial indexes, which parameters would hide."""
    return task.c.state.in_(bindparam("unfinished", (READY, LEASED), expanding=True, literal_execute=True))
