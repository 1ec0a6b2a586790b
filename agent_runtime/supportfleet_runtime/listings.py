"""What commands share: lists, as a table for people and JSON for programs, and options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final, TypeVar

import orjson

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

LIMIT: Final = 100
MOST: Final = 10_000
MOST_CHARACTERS: Final = 200
"""Of a person's name, as the columns have it."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a list: how long, and for whom."""
    parser.add_argument("--limit", type=_number, default=LIMIT, help=f"how many at most (default {LIMIT})")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")


def person(given: str) -> str:
    """The type of an option that names who acts."""
    name = given.strip()
    if not 1 <= len(name) <= MOST_CHARACTERS or not name.isprintable():
        raise argparse.ArgumentTypeError(f"it is not 1 to {MOST_CHARACTERS} printable characters")
    return name


def print_found(found: Sequence[T], output: str, heading: Sequence[str], row: Callable[[T], Sequence[str]]) -> None:
    """Dataclasses as JSON, or as a table: a ``row`` for each below the heading."""
    if output == "json":
        rows = orjson.dumps([asdict(one) for one in found], option=orjson.OPT_INDENT_2)
        sys.stdout.write(f"{rows.decode()}\n")
    else:
        _print_table([heading, *map(row, found)])


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")


def _number(given: str) -> int:
    number = int(given)
    if not 1 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"it is not from 1 to {MOST}")
    return number
