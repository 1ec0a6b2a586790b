"""Passwords of the servers beside the control plane: random, made once for each cluster, kept in its folder."""

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from supportfleet.local.embedded import files
from supportfleet.local.embedded.context import Context


@dataclass(frozen=True)
class Credentials:
    """All of them."""

    s3_access_key: str
    s3_secret_key: str
    postgres_password: str


def path_of(context: Context) -> Path:
    """Where they are kept."""
    return context.layout.folder / "credentials.json"


def credentials(context: Context) -> Credentials:
    """Those of this cluster, made when they are first asked for."""
    path = path_of(context)
    if path.exists():
        return Credentials(**json.loads(path.read_text()))
    made = Credentials(f"SF{secrets.token_hex(9).upper()}", secrets.token_hex(20), secrets.token_hex(20))
    files.write(path, files.to_json(asdict(made)))
    return made
