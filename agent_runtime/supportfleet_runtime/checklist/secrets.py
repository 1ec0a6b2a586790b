"""Secrets: none is a placeholder or easily guessed, none lies in a file that others may read, none is in /metrics.

Variables are as good as files here: Kubernetes sets them from Secrets, as the operator does.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from supportfleet_runtime.checklist.outcome import NotCheckableError, Outcome, judged
from supportfleet_runtime.checklist.subject import Subject, entries
from supportfleet_runtime.config import Settings
from supportfleet_runtime.config_sources import is_secret

LEAST_CHARACTERS: Final = 24
LEAST_DIFFERENT: Final = 8
LEAST_PASSWORD: Final = 12
PLACEHOLDERS: Final = (
    "changeme",
    "change-me",
    "example",
    "placeholder",
    "password",
    "secret",
    "default",
    "xxxx",
    "1234567",
)
KEYS: Final = ("KEY", "KEYS", "SECRET", "SECRETS", "TOKEN")
"""What the names of settings end in that are keys themselves, or lists of them; other secrets may hold more."""
SHORTEST_SOUGHT: Final = 8
"""Shorter values occur by chance."""


async def check(subject: Subject) -> Outcome:
    """Look at every secret of the settings."""
    secrets = dict(_values(subject.settings))
    wrong = [*_weak(secrets), *_open_files(subject)]
    try:
        page = (await subject.ask("GET", "/metrics")).text
    except NotCheckableError as error:
        if wrong:
            return judged(wrong, "")
        raise NotCheckableError(f"no secret is weak, but whether one is in /metrics is not known: {error}") from error
    wrong += [f"{name} is in /metrics" for name, value in secrets.items() if any(one in page for one in _parts(value))]
    told = f"{', '.join(secrets)}: not weak, not readable by others, not in /metrics" if secrets else "there are none"
    return judged(wrong, told)


def _values(settings: Settings) -> Iterator[tuple[str, str]]:
    for name, info in Settings.model_fields.items():
        value = getattr(settings, name)
        if is_secret(info) and isinstance(value, SecretStr):
            yield name.upper(), value.get_secret_value()


def _weak(secrets: dict[str, str]) -> Iterator[str]:
    for name, value in secrets.items():
        password = _password(value)
        if password is not None and is_weak(password, LEAST_PASSWORD):
            yield f"the password in {name} is short, repetitive or a well-known one: use a random one"
        elif name.endswith(KEYS) and any(is_weak(key, LEAST_CHARACTERS) for key in entries(value)):
            yield f"{name} is shorter than {LEAST_CHARACTERS} characters, repetitive or a placeholder: use a random one"


def is_weak(value: str, least: int) -> bool:
    """Whether a key or password is one that nobody should rely on. Pure."""
    plain = value.lower()
    return len(value) < least or len(set(value)) < LEAST_DIFFERENT or any(word in plain for word in PLACEHOLDERS)


def _password(url: str) -> str | None:
    """The password of an address, if it has one; read by hand, since Kafka's lists of servers are no host to Python."""
    login, found, _ = urlsplit(url).netloc.rpartition("@")
    _, has, password = login.partition(":")
    return unquote(password) if found and has else None


def _parts(value: str) -> list[str]:
    """What of a secret must be nowhere: of an address its password, of ``NAME=VALUE`` the value."""
    parts = [_password(value) or ""] if "://" in value else [*entries(value), *re.split(r"[\s,=]+", value)]
    return [part for part in parts if len(part) >= SHORTEST_SOUGHT]


def _open_files(subject: Subject) -> Iterator[str]:
    for name, info in Settings.model_fields.items():
        path = subject.environ.get(f"{name.upper()}_FILE", "")
        if not is_secret(info) or not path.strip():
            continue
        mode = stat.S_IMODE(Path(path).stat().st_mode)
        if mode & (stat.S_IRWXO | stat.S_IWGRP):
            yield f"{name.upper()}_FILE has mode {mode:04o}: others may read or change it; use 0440 (defaultMode: 0440)"
