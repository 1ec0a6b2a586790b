"""Labelled messages: a CSV file with the columns ``text`` and ``intent``."""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from supportfleet_runtime.nlu.errors import DatasetError

COLUMNS: Final = ("text", "intent")
MAX_INTENT_CHARACTERS: Final = 100


@dataclass(frozen=True)
class Dataset:
    """Messages and, in the same order, what each asks for."""

    path: Path
    sha256: str
    texts: tuple[str, ...]
    intents: tuple[str, ...]
    lines: tuple[int, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The intents there are, sorted."""
        return tuple(sorted(set(self.intents)))

    @property
    def counts(self) -> Counter[str]:
        """How many messages each intent has."""
        return Counter(self.intents)

    def conflicts(self) -> list[tuple[int, int]]:
        """Pairs of lines with one text and two intents: the second line, and the first that it contradicts."""
        seen: dict[str, tuple[int, str]] = {}
        found = []
        for line, text, intent in zip(self.lines, self.texts, self.intents, strict=True):
            earlier = seen.setdefault(" ".join(text.casefold().split()), (line, intent))
            if earlier[1] != intent:
                found.append((line, earlier[0]))
        return found


def read_dataset(path: Path) -> Dataset:
    """Read a CSV file of labelled messages.

    Raises:
        DatasetError: It can't be read or is malformed: all that is wrong, line by line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(path, [error.strerror or str(error)]) from error
    text = _decode(path, data)
    problems: list[str] = []
    rows: list[tuple[int, str, str]] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = _columns(path, next(reader, []))
        for line, values in _numbered(reader):
            row = [value.strip() for value in values]
            if problem := _problem(row, columns):
                problems.append(f"line {line}: {problem}")
            else:
                rows.append((line, row[columns.index("text")], row[columns.index("intent")]))
    except csv.Error as error:
        problems.append(f"line {reader.line_num}: {error}")
    if not rows and not problems:
        problems.append("there are no messages in it")
    if problems:
        raise DatasetError(path, problems)
    lines, texts, intents = zip(*rows, strict=True)
    return Dataset(path, hashlib.sha256(data).hexdigest(), texts, intents, lines)


def _decode(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DatasetError(path, [f"line {line}: not UTF-8 (byte 0x{data[error.start]:02x})"]) from error


def _columns(path: Path, header: Sequence[str]) -> list[str]:
    columns = [name.strip() for name in header]
    if missing := [name for name in COLUMNS if name not in columns]:
        raise DatasetError(
            path, [f"line 1: no column {' and no column '.join(missing)}; it must start with text,intent"]
        )
    return columns


def _numbered(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Rows with the line that each starts on; a quoted text may span several. Empty lines are skipped."""
    start = 2
    for values in reader:
        if values:
            yield start, values
        start = reader.line_num + 1  # type: ignore[attr-defined]  # csv's reader has it, its protocol does not


def _problem(row: Sequence[str], columns: Sequence[str]) -> str | None:
    if len(row) != len(columns):
        return f"{len(row)} values where the header has {len(columns)} columns; quote a text that has commas"
    text, intent = (row[columns.index(name)] for name in COLUMNS)
    if not text:
        return "the text is empty"
    if not intent:
        return "the intent is empty"
    if len(intent) > MAX_INTENT_CHARACTERS or not intent.isprintable():
        return f"the intent is longer than {MAX_INTENT_CHARACTERS} characters or has control characters"
    return None
