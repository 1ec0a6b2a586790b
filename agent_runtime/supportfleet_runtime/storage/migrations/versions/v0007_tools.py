"""Tools: the ledger of effects, and the tool service's refunds, tickets and changes of address."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add their tables."""
    _create_effects()
    _create_tool_effects()
    _create_refunds()
    _create_tickets()
    _create_address_changes()


def _create_effects() -> None:
    op.create_table(
        "effects",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("scope", sa.String(200), nullable=False),
        sa.Column("task_id", sa.String(64), nullable=False),
        sa.Column("conversation_id", sa.String(64), nullable=False),
        sa.Column("customer_id", sa.String(128), nullable=False),
        sa.Column("tool", sa.String(64), nullable=False),
        sa.Column("arguments_hash", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("outcome", sa.Text),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
    )
    op.create_index("effects_by_task", "effects", ["task_id"])


def _create_tool_effects() -> None:
    op.create_table(
        "tool_effects",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("scope", sa.String(200), nullable=False),
        sa.Column("customer_id", sa.String(128), nullable=False),
        sa.Column("tool", sa.String(64), nullable=False),
        sa.Column("arguments_hash", sa.String(64), nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
    )
    op.create_index("tool_effects_by_customer", "tool_effects", ["scope", "customer_id", "created_at"])


def _create_refunds() -> None:
    op.create_table(
        "refunds",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("scope", sa.String(200), nullable=False),
        sa.Column("customer_id", sa.String(128), nullable=False),
        sa.Column("order_number", sa.String(32), nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
    )
    op.create_index("refunds_by_customer", "refunds", ["scope", "customer_id"])
    op.create_index("refunds_by_order", "refunds", ["scope", "order_number"])


def _create_tickets() -> None:
    op.create_table(
        "tickets",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("scope", sa.String(200), nullable=False),
        sa.Column("customer_id", sa.String(128), nullable=False),
        sa.Column("conversation_id", sa.String(64)),
        sa.Column("order_number", sa.String(32)),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
    )
    op.create_index("tickets_by_customer", "tickets", ["scope", "customer_id"])


def _create_address_changes() -> None:
    op.create_table(
        "address_changes",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("scope", sa.String(200), nullable=False),
        sa.Column("customer_id", sa.String(128), nullable=False),
        sa.Column("order_number", sa.String(32), nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
    )
    op.create_index("address_changes_by_customer", "address_changes", ["scope", "customer_id"])
