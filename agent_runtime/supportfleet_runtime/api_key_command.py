"""The command ``api-key``: make a key, and what to configure for it."""

from __future__ import annotations

import argparse
import secrets
import sys
from typing import Final

from supportfleet_runtime.access import NAME, hash_key

OK, WRONG = 0, 2
KEY_BYTES: Final = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--name", default="", help="whose key it is: letters, digits, '.', '_' and '-'")


def run(arguments: argparse.Namespace) -> int:
    """Print a fresh key and its hash."""
    name = arguments.name
    if name and not NAME.fullmatch(name):
        sys.stderr.write("--name: up to 63 letters, digits, '.', '_' and '-', beginning with a letter or digit\n")
        return WRONG
    key = secrets.token_urlsafe(KEY_BYTES)
    entry = f"{name}:" * bool(name) + f"sha256:{hash_key(key).hex()}"
    sys.stdout.write(f"key (for the caller; it is shown once): {key}\nAPI_KEYS entry: {entry}\n")
    return OK
