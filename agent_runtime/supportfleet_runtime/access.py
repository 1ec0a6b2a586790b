"""Who may call the gateway, as it is configured: API keys, and what JSON Web Tokens must say.

An API key is configured as it is, or as the hash that ``supportfleet-runtime api-key`` prints, with or without a name
for logs: ``KEY``, ``sha256:HEX``, ``NAME:sha256:HEX``. A key is long and random, so one plain SHA-256 hides it well.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

MIN_KEY: Final = 16
ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
"""All have a private and a public key: a secret that the gateway shared could sign tokens too."""
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?")
"""As browsers send it: no path, no capitals."""
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""What a key may be called."""
_HASHED: Final = re.compile(rf"(?:(?P<name>{NAME.pattern}):)?sha256:(?P<digest>[0-9a-f]{{64}})")


@dataclass(frozen=True)
class ApiKey:
    """A key by its hash."""

    name: str
    digest: bytes


@dataclass(frozen=True)
class TokenRules:
    """What a token must say, and where the keys are that may have signed it (``https://…`` or a file)."""

    jwks: str
    issuer: str
    audience: str
    algorithms: frozenset[str]
    customer_claim: str
    leeway: float


def parse_api_keys(text: str) -> tuple[ApiKey, ...]:
    """The keys in a list separated by commas or white space; raises ``ValueError``."""
    return tuple(_parse(entry, f"key-{number}") for number, entry in enumerate(text.replace(",", " ").split(), 1))


def first_key(text: str) -> str | None:
    """The first entry of such a list where it is a key and no hash: what a caller can send."""
    first = text.replace(",", " ").split()[0]
    return None if "sha256:" in first else first


def _parse(entry: str, name: str) -> ApiKey:
    if hashed := _HASHED.fullmatch(entry):
        return ApiKey(hashed["name"] or name, bytes.fromhex(hashed["digest"]))
    if "sha256:" in entry:
        raise ValueError("a hash is not 'sha256:' and 64 lowercase hexadecimal digits")
    if len(entry) < MIN_KEY:
        raise ValueError("a key is shorter than 16 characters")
    return ApiKey(name, hash_key(entry))


def hash_key(key: str) -> bytes:
    """What is kept and compared of a key."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


def parse_algorithms(text: str) -> frozenset[str]:
    """The algorithms in a list separated by commas; raises ``ValueError``."""
    given = frozenset(text.replace(",", " ").split())
    if unknown := sorted(given - ALGORITHMS):
        raise ValueError(f"{', '.join(unknown)} can't be used")
    if not given:
        raise ValueError("it names none")
    return given


def parse_origins(text: str) -> frozenset[str]:
    """The origins in a list separated by commas; raises ``ValueError``."""
    given = frozenset(text.replace(",", " ").split())
    if wrong := sorted(origin for origin in given if not _ORIGIN.fullmatch(origin)):
        raise ValueError(f"{wrong[0][:80]!r} is no origin")
    return given


def check_jwks(address: str) -> None:
    """Raise ``ValueError`` unless keys from there can be trusted: who can change them on the way can sign anything."""
    if "://" not in address:
        if not Path(address).is_file():
            raise ValueError("there is no such file")
        return
    url = urlsplit(address)
    if url.scheme != "https" and not (url.scheme == "http" and url.hostname in LOOPBACK):
        raise ValueError("keys must come by https, from this machine, or from a file")
    if not url.hostname:
        raise ValueError("it names no host")


def missing_token_settings(jwks: str | None, issuer: str | None, audience: str | None) -> Sequence[str]:
    """The variables that tokens need and that are not set."""
    if not jwks:
        return ["JWT_JWKS"] if issuer or audience else []
    return [name for name, value in (("JWT_ISSUER", issuer), ("JWT_AUDIENCE", audience)) if not value]
