"""What keeps a language model from being called in vain: the breakers of its service and of the model itself.

A service that is down is down for all its models, so they share its breaker: a fallback model is not tried at a place
that doesn't answer, and a service that is down sees little more than the calls that find out. A model that is
overloaded, rate-limited or unknown says nothing of the others, so each has a breaker of its own too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from supportfleet_runtime.agent.breaker import CircuitBreaker, Permit
from supportfleet_runtime.errors import ProviderError

SERVICE_FAILURES: Final = frozenset({"authentication", "malformed", "server_error", "timeout", "unreachable"})
MODEL_FAILURES: Final = frozenset({"overloaded", "rate_limited", "unknown_model"})
CIRCUIT_OPEN: Final = "circuit_open"


@dataclass(frozen=True)
class Leave:
    """Leave for one call."""

    service: Permit
    model: Permit

    def answered(self) -> None:
        """The model answered, whatever it said."""
        self.service.succeeded()
        self.model.succeeded()

    def failed(self, reason: str) -> None:
        """The call failed, for the reason that a ``ProviderError`` gives."""
        if reason in SERVICE_FAILURES:
            self.service.failed()
            self.model.dropped()
        elif reason in MODEL_FAILURES:
            self.service.succeeded()
            self.model.failed()
        else:  # what was asked was wrong: both are there
            self.answered()

    def dropped(self) -> None:
        """Nobody waited for how it would end."""
        self.service.dropped()
        self.model.dropped()


@dataclass(frozen=True)
class Guard:
    """The two breakers of a model."""

    service: CircuitBreaker
    model: CircuitBreaker

    def admit(self) -> Leave:
        """Leave for a call; raises ``ProviderError`` (``circuit_open``) where there is none."""
        service = self.service.admit()
        if service is None:
            raise ProviderError(CIRCUIT_OPEN, "the service failed too often of late")
        model = self.model.admit()
        if model is None:
            service.dropped()
            raise ProviderError(CIRCUIT_OPEN, "the model failed too often of late")
        return Leave(service, model)
