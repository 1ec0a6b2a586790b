"""Who calls: an API key's owner, who may speak for any customer, or one customer with a JSON Web Token.

With neither configured the API is open. Where a customer is known by a token, nothing of another customer's exists for
it: their tasks and conversations are 404, and a message in their name is 403. Probes, metrics and the API's description
stay open: the kubelet and Prometheus carry no key, and they tell nothing of customers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol

from aiohttp import web
from aiohttp.typedefs import Middleware

from supportfleet_runtime.access import ApiKey
from supportfleet_runtime.errors import NotFoundError, SupportfleetError
from supportfleet_runtime.gateway.keys import find_key
from supportfleet_runtime.gateway.problems import FieldError, Handler, HttpProblemError, unavailable


class TokenError(SupportfleetError):
    """The token proves nothing. Its message may be told to the caller."""


class SigningKeysUnavailableError(SupportfleetError):
    """No key is known that could have signed a token: whether it is good can't be told."""


@dataclass(frozen=True)
class Principal:
    """Who calls. ``customer`` is the only one it may speak for; without, it may for all."""

    name: str
    customer: str | None = None


ANYONE: Final = Principal("anyone")
PRINCIPAL: Final = web.RequestKey("principal", Principal)


class Tokens(Protocol):
    """What verifies tokens."""

    async def verify(self, token: str) -> Principal:
        """Whose it is; raises ``TokenError`` or ``SigningKeysUnavailableError``."""
        ...


def authentication_middleware(
    keys: Sequence[ApiKey], tokens: Tokens | None, *, open_paths: Collection[str]
) -> Middleware:
    """Refuse requests, but to ``open_paths``, without one of ``keys`` or a good token."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in open_paths:
            request[PRINCIPAL] = await _identify(request, keys, tokens)
        return await handler(request)

    return check


def customer_of(request: web.Request, named: str | None) -> str | None:
    """The customer whose things may be told: the token's, else the one that was named, else anyone."""
    own = request.get(PRINCIPAL, ANYONE).customer
    if own is not None and named not in {None, own}:
        raise NotFoundError("no such customer")
    return own or named


def check_speaks_for(request: web.Request, customer: str) -> None:
    """Refuse a message in another customer's name than the token's."""
    own = request.get(PRINCIPAL, ANYONE).customer
    if own is not None and own != customer:
        errors = [FieldError("#/customer_id", "must be the token's")]
        raise HttpProblemError(HTTPStatus.FORBIDDEN, "other-customer", "the token is another customer's", errors)


async def _identify(request: web.Request, keys: Sequence[ApiKey], tokens: Tokens | None) -> Principal:
    bearer = _bearer(request)
    given = bearer or request.headers.get("X-API-Key", "")
    if key := find_key(given, keys):
        return Principal(key.name)
    if tokens is None or not bearer:
        ways = ["an API key ('Authorization: Bearer KEY' or 'X-API-Key: KEY')"] if keys else []
        ways += ["a token ('Authorization: Bearer TOKEN')"] if tokens else []
        raise _unauthorized(f"send {' or '.join(ways)}", "Bearer")
    try:
        return await tokens.verify(bearer)
    except TokenError as error:
        raise _unauthorized(str(error), 'Bearer error="invalid_token"') from error
    except SigningKeysUnavailableError as error:
        raise unavailable(str(error)) from error


def _bearer(request: web.Request) -> str:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def _unauthorized(detail: str, challenge: str) -> HttpProblemError:
    return HttpProblemError(HTTPStatus.UNAUTHORIZED, "unauthorized", detail, headers={"WWW-Authenticate": challenge})
