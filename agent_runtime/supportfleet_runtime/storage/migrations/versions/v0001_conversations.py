"""Conversations, their messages, and the tasks of the queue."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

MOMENT = sa.DateTime(timezone=True)
UNFINISHED = sa.text("state IN ('ready', 'leased')")


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "conversations",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("scope", sa.String(200), nullable=False),
        sa.Column("customer_id", sa.String(128), nullable=False),
        sa.Column("turns", sa.Integer, nullable=False),
        sa.Column("pending_intent", sa.String(64)),
        sa.Column("pending_asked", sa.Integer),
        sa.Column("escalated_at", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
    )
    _create_messages()
    _create_tasks()


def _create_messages() -> None:
    op.create_table(
        "messages",
        sa.Column(
            "conversation_id", sa.String(64), sa.ForeignKey("conversations.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("turn", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("role", sa.String(16), primary_key=True),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("intent", sa.String(128)),
        sa.Column("confidence", sa.Float),
        sa.Column("source", sa.String(16)),
        sa.Column("model", sa.String(200)),
        sa.Column("tools_enabled", sa.Boolean),
        sa.Column("fallback_level", sa.Integer),
        sa.UniqueConstraint("id", name="messages_id_key"),
    )


def _create_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("queue", sa.String(200), nullable=False),
        sa.Column(
            "conversation_id", sa.String(64), sa.ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("turn", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("visible_at", MOMENT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT),
        sa.Column("error", sa.String(200)),
        sa.UniqueConstraint("conversation_id", "turn", name="tasks_conversation_id_turn_key"),
    )
    for name, columns in (("tasks_due", ["queue", "visible_at"]), ("tasks_in_order", ["conversation_id", "turn"])):
        op.create_index(name, "tasks", columns, sqlite_where=UNFINISHED, postgresql_where=UNFINISHED)
