"""Files that appear whole or not at all."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import yaml

PRIVATE = 0o600


def write(path: Path, content: str | bytes, mode: int = PRIVATE) -> bool:
    """Write a file unless it is already so; say whether it was written."""
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, so that the mode holds from the start
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return True


def digest(text: str) -> str:
    """A short name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def to_yaml(*documents: Any) -> str:
    """Documents as YAML, in the order of their keys."""
    return yaml.safe_dump_all(documents, sort_keys=False)


def to_json(value: Any) -> str:
    """A value as JSON for people."""
    return json.dumps(value, indent=2) + "\n"
