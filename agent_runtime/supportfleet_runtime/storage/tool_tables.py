"""The tables of tools: the agent's ledger of effects, and what the tool service keeps.

The two sides may share a database or not, so neither refers to the other's rows, nor to conversations. An effect is
known on both by its key. Amounts are whole numbers of a currency's hundredths.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, String, Table, Text

from supportfleet_runtime.storage.schema import UtcDateTime, metadata

PENDING, DONE, REFUSED, AMBIGUOUS = "pending", "done", "refused", "ambiguous"
PAID, AWAITING_APPROVAL = "paid", "awaiting_approval"

effects = Table(
    "effects",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("scope", String(200), nullable=False),
    Column("task_id", String(64), nullable=False),
    Column("conversation_id", String(64), nullable=False),
    Column("customer_id", String(128), nullable=False),
    Column("tool", String(64), nullable=False),
    Column("arguments_hash", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("outcome", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)
Index("effects_by_task", effects.c.task_id)

tool_effects = Table(
    "tool_effects",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("scope", String(200), nullable=False),
    Column("customer_id", String(128), nullable=False),
    Column("tool", String(64), nullable=False),
    Column("arguments_hash", String(64), nullable=False),
    Column("outcome", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
Index("tool_effects_by_customer", tool_effects.c.scope, tool_effects.c.customer_id, tool_effects.c.created_at)

refunds = Table(
    "refunds",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("scope", String(200), nullable=False),
    Column("customer_id", String(128), nullable=False),
    Column("order_number", String(32), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("state", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
Index("refunds_by_customer", refunds.c.scope, refunds.c.customer_id)
Index("refunds_by_order", refunds.c.scope, refunds.c.order_number)

tickets = Table(
    "tickets",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("scope", String(200), nullable=False),
    Column("customer_id", String(128), nullable=False),
    Column("conversation_id", String(64)),
    Column("order_number", String(32)),
    Column("subject", String(200), nullable=False),
    Column("description", Text, nullable=False),
    Column("state", String(32), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
Index("tickets_by_customer", tickets.c.scope, tickets.c.customer_id)

address_changes = Table(
    "address_changes",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("scope", String(200), nullable=False),
    Column("customer_id", String(128), nullable=False),
    Column("order_number", String(32), nullable=False),
    Column("address", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
Index("address_changes_by_customer", address_changes.c.scope, address_changes.c.customer_id)
