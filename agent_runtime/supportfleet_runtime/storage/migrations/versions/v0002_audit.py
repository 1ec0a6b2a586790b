"""The audit log, which the database keeps from being changed, and the erasures that may put a pseudonym into it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

MOMENT = sa.DateTime(timezone=True)

IS_REDACTION = """EXISTS (
    SELECT 1 FROM erasures
    WHERE erasures.id = NEW.customer_id AND erasures.customer_id = OLD.customer_id AND erasures.scope = OLD.scope
)"""
KEPT = ("id", "at", "event", "scope", "conversation_id", "turn", "task_id", "facts")


def upgrade() -> None:
    """Make the tables and their guards."""
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("scope", sa.String(200), nullable=False),
        sa.Column("customer_id", sa.String(128)),
        sa.Column("conversation_id", sa.String(64)),
        sa.Column("turn", sa.Integer),
        sa.Column("task_id", sa.String(64)),
        sa.Column("facts", sa.JSON, nullable=False),
    )
    op.create_table(
        "erasures",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("scope", sa.String(200), nullable=False),
        sa.Column("customer_id", sa.String(128)),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT),
    )
    for statement in _on_postgresql() if op.get_bind().dialect.name == "postgresql" else _on_sqlite():
        op.execute(statement)


def _on_sqlite() -> list[str]:
    is_unchanged = " AND ".join(f"NEW.{name} IS OLD.{name}" for name in KEPT)
    refuse = "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
    return [
        f"CREATE TRIGGER audit_log_is_not_deleted BEFORE DELETE ON audit_log {refuse}",
        f"""CREATE TRIGGER audit_log_is_not_updated BEFORE UPDATE ON audit_log
WHEN NOT ({is_unchanged} AND {IS_REDACTION}) {refuse}""",
    ]


def _on_postgresql() -> list[str]:
    return [
        f"""CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF to_jsonb(NEW) - 'customer_id' = to_jsonb(OLD) - 'customer_id' AND {IS_REDACTION} THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'restrict_violation';
END $$""",
        """CREATE TRIGGER audit_log_is_not_changed BEFORE UPDATE OR DELETE ON audit_log
FOR EACH ROW EXECUTE FUNCTION audit_log_is_append_only()""",
        """CREATE TRIGGER audit_log_is_not_truncated BEFORE TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only()""",
    ]
