"""Counting what changes earlier turns of a conversation, so that a copy of them can be told to be out of date."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the column."""
    op.add_column("conversations", sa.Column("revision", sa.Integer, nullable=False, server_default=sa.text("0")))
