"""Transactions that wait for each other because of what they are about, not of the rows they touch."""

from __future__ import annotations

from sqlalchemy import Connection, text


def one_at_a_time(connection: Connection, subject: str) -> None:
    """Let no other transaction on this subject go on until this one ends. SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:subject, 0))"), {"subject": subject})
