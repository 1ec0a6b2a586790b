"""Calls for a person."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

MOMENT = sa.DateTime(timezone=True)
UNRESOLVED = sa.text("state IN ('open', 'claimed')")


def upgrade() -> None:
    """Make the table."""
    conversation = sa.ForeignKey("conversations.id", ondelete="CASCADE")
    op.create_table(
        "escalations",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("conversation_id", sa.String(64), conversation, nullable=False),
        sa.Column("turn", sa.Integer, nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("intent", sa.String(128), nullable=False),
        sa.Column("attempts", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("claimed_by", sa.String(200)),
        sa.Column("claimed_at", MOMENT),
        sa.Column("resolved_at", MOMENT),
        sa.UniqueConstraint("conversation_id", "turn", name="escalations_conversation_id_turn_key"),
    )
    op.create_index(
        "escalations_unresolved",
        "escalations",
        ["created_at"],
        sqlite_where=UNRESOLVED,
        postgresql_where=UNRESOLVED,
    )
