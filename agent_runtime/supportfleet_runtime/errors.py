"""The runtime's errors, one tree.

::

    SupportfleetError
    ├── ConfigurationError           settings are wrong: all problems at once, exit code 2
    ├── StorageError                 the database refused something
    │   ├── StorageUnavailableError  it can't be reached or takes too long: HTTP 503, worth a retry
    │   └── MigrationError           its schema could not be brought up to date
    ├── NotFoundError                no such conversation or task, or it is another customer's: HTTP 404
    ├── ConflictError                what is asked doesn't go with how things stand: HTTP 409
    ├── DeliveryError                a callback could not be made: tried again, unless that is in vain
    ├── KeyReusedError               an idempotency key came again with another message: HTTP 422
    └── ProviderError                the language model gave no usable answer: the agent falls back

They become HTTP problems, exit codes or fallback replies at the edge only. A message in this tree never holds a
customer's text or a secret, so it may be logged; the messages of foreign exceptions may, so they are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class SupportfleetError(Exception):
    """Base of everything the runtime raises on purpose."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the configuration."""

    name: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.message} → {self.remedy}"


class ConfigurationError(SupportfleetError):
    """The settings can't be used; nothing was started."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))


class StorageError(SupportfleetError):
    """The database refused a statement."""


class StorageUnavailableError(StorageError):
    """The database can't be reached, or did not answer in time."""


class MigrationError(StorageError):
    """The database's schema could not be brought up to date."""


class NotFoundError(SupportfleetError):
    """No such thing, or not this customer's: the two are told apart to nobody."""


class ConflictError(SupportfleetError):
    """What is asked doesn't go with how things stand, as when another was faster."""


class DeliveryError(SupportfleetError):
    """A callback could not be made. ``is_final``: another attempt would end alike."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_final = is_final


class KeyReusedError(SupportfleetError):
    """An idempotency key came again with another message."""


class ProviderError(SupportfleetError):
    """The language model gave no usable answer."""

    def __init__(self, reason: str, message: str, *, retry_after: float | None = None, retryable: bool = False) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.retry_after = retry_after
        self.retryable = retryable
