"""Passwords of the servers beside the control plane: random, made once for each cluster, kept in its folder."""

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from supportfleet.local.embedded import files


@dataclass(frozen=True)
class Credentials:
    """All of them."""

    s3_access_key: str
    s3_secret_key: str
    postgres_password: str


def path_in(folder: Path) -> Path:
    """Where they are kept."""
    return folder / "credentials.json"


def kept_in(folder: Path) -> Credentials:
    """Those of the cluster with this folder, made when they are first asked for."""
    path = path_in(folder)
    if path.exists():
        return Credentials(**json.loads(path.read_text()))
    made = Credentials(f"SF{secrets.token_hex(9).upper()}", secrets.token_hex(20), secrets.token_hex(20))
    files.write(path, files.to_json(asdict(made)))
    return made
