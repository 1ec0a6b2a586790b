"""What the tests of intents share: a small data set, and a model that was trained on it once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from supportfleet_runtime.__main__ import main

# A busy machine is no bug: tests have a timeout, and single examples need none.
settings.register_profile("supportfleet", deadline=None)
settings.load_profile("supportfleet")

SUBJECTS = ["parcel", "order", "package", "shipment", "delivery", "box"]
ROWS = [
    *((f"where is my {subject}", "order_status") for subject in SUBJECTS),
    *((f"when does the {subject} arrive", "order_status") for subject in SUBJECTS),
    *((f"my {word} is forgotten, reset it", "password_reset") for word in ["password", "login", "pin", "passphrase"]),
    *((f"i can't {verb} any more", "password_reset") for verb in ["log in", "sign in", "log on", "get in"]),
    *((f"what is the {thing} today", "other") for thing in ["weather", "news", "exchange rate", "date", "lunch menu"]),
    *((f"tell me a {thing}", "other") for thing in ["joke", "story", "riddle", "recipe"]),
]


def write_csv(path: Path, rows: list[tuple[str, str]]) -> Path:
    lines = ["text,intent", *(f'"{text}",{intent}' for text, intent in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file from which a model can be trained in a moment."""
    return write_csv(tmp_path_factory.mktemp("data") / "small.csv", ROWS)


@pytest.fixture(scope="session")
def train(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Train by the command; the artifact's folder."""

    def train(data: Path, *arguments: str) -> Path:
        folder = tmp_path_factory.mktemp("trained") / "artifact"
        fixed = ("--bits", "12", "--created-at", "2026-11-21T00:00:00Z")
        assert main(["train", "--data", str(data), "--output", str(folder), *fixed, *arguments]) == 0
        return folder

    return train


@pytest.fixture(scope="session")
def trained(train: Callable[..., Path], data: Path) -> Path:
    """The folder of a model that was trained on the small data set."""
    return train(data)
