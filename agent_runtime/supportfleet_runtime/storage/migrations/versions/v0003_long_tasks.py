"""Long tasks, callbacks, and finding a customer's conversations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

MOMENT = sa.DateTime(timezone=True)
UNFINISHED = sa.text("state IN ('ready', 'leased')")


def upgrade() -> None:
    """Add the tables and the index."""
    op.create_table(
        "long_tasks",
        sa.Column("id", sa.String(64), sa.ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("scope", sa.String(200), nullable=False),
        sa.Column("queue", sa.String(200), nullable=False),
        sa.Column("pending_intent", sa.String(64)),
        sa.Column("pending_asked", sa.Integer),
        sa.Column("progress", sa.Integer, nullable=False),
        sa.Column("result", sa.Text),
        *_leased(),
    )
    op.create_table(
        "callbacks",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("task_id", sa.String(64), sa.ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False),
        sa.Column("scope", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        *_leased(),
        sa.UniqueConstraint("task_id", name="callbacks_task_id_key"),
    )
    for table in ("long_tasks", "callbacks"):
        columns = ["scope", "visible_at"]
        op.create_index(f"{table}_due", table, columns, sqlite_where=UNFINISHED, postgresql_where=UNFINISHED)
    op.create_index("conversations_of_customer", "conversations", ["scope", "customer_id"])


def _leased() -> list[sa.Column[object]]:
    return [
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("visible_at", MOMENT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT),
        sa.Column("error", sa.String(200)),
    ]
