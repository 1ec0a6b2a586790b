"""Rows by their keys, of which there may be any number: one statement, whatever the number.

``column IN (…)`` with a parameter for each value is another statement for each number of values: drivers prepare each
of them on each connection, and keep it. And SQLite reads a whole table for ``(a, b) IN ((…), (…))``. Here all keys are
one parameter, a JSON array that the database takes apart. It looks them up in an index, and in the index's or the
table's order, whatever theirs is: two transactions lock the same rows in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import orjson
from sqlalchemy import Boolean, Column, Dialect, Integer, Text, TypeDecorator, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class Keys(TypeDecorator[Sequence[Any]]):
    """Keys as JSON, each an array: of one string, or of what there is for each column."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Sequence[Any] | None, dialect: Dialect) -> str:  # noqa: ARG002 - SQLAlchemy's
        """What the driver is given."""
        return orjson.dumps([key if isinstance(key, tuple) else (key,) for key in value or ()]).decode()


class _Among(FunctionElement[bool]):
    name = "among"
    type = Boolean()
    inherit_cache = True

    def self_group(self, against: object = None) -> Self:  # noqa: ARG002 - SQLAlchemy's
        """A condition as it is, with its own parentheses: SQLite has none of the values true and false."""
        return self


def among(name: str, *columns: Column[Any]) -> FunctionElement[bool]:
    """Whether a row is one of those that the parameter ``name`` gives the keys of.

    With one column keys are strings; with several they are tuples of strings and integers.
    """
    return _Among(*columns, bindparam(name, type_=Keys()))


@compiles(_Among)
def _in_sqlite(element: _Among, compiler: SQLCompiler, **options: Any) -> str:
    *columns, keys = (compiler.process(clause, **options) for clause in element.clauses)
    members = ", ".join(f"json_extract(json_each.value, '$[{index}]')" for index in range(len(columns)))
    return f"(({', '.join(columns)}) IN (SELECT {members} FROM json_each({keys})))"  # noqa: S608 - names and a parameter


@compiles(_Among, "postgresql")
def _in_postgresql(element: _Among, compiler: SQLCompiler, **options: Any) -> str:
    *columns, keys = element.clauses
    names = [compiler.process(column, **options) for column in columns]
    each = f"jsonb_array_elements(CAST({compiler.process(keys, **options)} AS JSONB))"
    types = ["BIGINT" if isinstance(column.type, Integer) else "VARCHAR" for column in columns]
    conditions = [
        f"{name} = ANY (ARRAY(SELECT CAST(given.key ->> {index} AS {type_}) FROM {each} AS given(key)))"  # noqa: S608 - names and a parameter
        for index, (name, type_) in enumerate(zip(names, types, strict=True))
    ]
    if len(columns) > 1:
        conditions.append(f"jsonb_build_array({', '.join(names)}) = ANY (ARRAY(SELECT {each}))")
    return f"({' AND '.join(conditions)})"
