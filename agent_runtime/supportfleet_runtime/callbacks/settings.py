"""What is configured for callbacks, read from single settings. Pure: nothing is opened.

A ``ValueError`` says what is wrong without repeating a secret.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from supportfleet_runtime.callbacks.addresses import AllowList

MIN_SECRET, MAX_SECRET = 24, 64
"""Bytes of a key, as Standard Webhooks asks for."""
MAX_ADDRESS: Final = 254
_ADDRESS: Final = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
)


class Kind(StrEnum):
    """How one is told."""

    WEBHOOK = "webhook"
    EMAIL = "email"


class StartTls(StrEnum):
    """Whether a plain connection to the mail server is encrypted before anything is said."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    NEVER = "never"


@dataclass(frozen=True)
class MailServer:
    """Where mail is handed in."""

    host: str
    port: int
    tls: bool
    start_tls: StartTls
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class CallbackSettings:
    """What is configured; what is not can't be asked for."""

    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Keys that webhooks are signed with: by each, so that one can be replaced."""
    allowed: AllowList = field(default_factory=AllowList)
    mail_server: MailServer | None = None
    sender: str | None = None
    max_tries: int = 8

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """How one can be told."""
        by_webhook = (Kind.WEBHOOK,) if self.secrets else ()
        return (*by_webhook, Kind.EMAIL) if self.mail_server and self.sender else by_webhook


def parse_secrets(text: str) -> tuple[str, ...]:
    """The keys in a list separated by commas or white space, each ``whsec_`` and base64."""
    keys = tuple(text.replace(",", " ").split())
    for key in keys:
        try:
            size = len(base64.b64decode(key.removeprefix("whsec_"), validate=True))
        except binascii.Error as error:
            raise ValueError("a key is not base64") from error
        if not MIN_SECRET <= size <= MAX_SECRET:
            raise ValueError(f"a key has fewer than {MIN_SECRET} or more than {MAX_SECRET} bytes")
    return keys


def parse_mail_server(url: str) -> MailServer:
    """The server that ``smtp://`` or ``smtps://`` spells."""
    parts = urlsplit(url.strip())
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname or parts.path not in {"", "/"}:
        raise ValueError("it is no SMTP address")
    tls = parts.scheme == "smtps"
    options = parse_qs(parts.query, keep_blank_values=True)
    if options.keys() - {"starttls"}:
        raise ValueError("an SMTP address has one parameter: starttls")
    try:
        start_tls = StartTls(options.get("starttls", [StartTls.NEVER if tls else StartTls.REQUIRED])[0])
    except ValueError as error:
        raise ValueError("starttls is required, optional or never") from error
    return MailServer(
        host=parts.hostname,
        port=parts.port or (465 if tls else 587),
        tls=tls,
        start_tls=start_tls,
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


def is_mail_address(text: str) -> bool:
    """Whether mail can be sent there: one plain address, with nothing that a header or a command could take apart."""
    return len(text) <= MAX_ADDRESS and _ADDRESS.fullmatch(text) is not None and len(text.partition("@")[0]) <= 64  # noqa: PLR2004 - RFC 5321's limit
