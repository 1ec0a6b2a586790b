"""The trace that a task's request began, so that whoever works the task can continue it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column; tasks from before have none."""
    op.add_column("tasks", sa.Column("trace", sa.String(64)))
