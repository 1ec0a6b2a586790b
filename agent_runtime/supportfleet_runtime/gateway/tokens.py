"""JSON Web Tokens: signed by a key of the set, meant for this API, not expired, and naming a customer.

The algorithm is one of those configured and the key's own, so neither ``none`` nor a public key taken for a shared
secret verifies anything. Imported only where tokens are configured: cryptography is large.
"""

from __future__ import annotations

from typing import Any, Final

import jwt

from supportfleet_runtime.access import TokenRules
from supportfleet_runtime.gateway.authentication import Principal, TokenError
from supportfleet_runtime.gateway.jwks import SigningKeys, reader
from supportfleet_runtime.gateway.schema import is_customer_id

MAX_KID: Final = 256
# Whatever a forged token makes the parsers raise, it is refused: numbers without end, JSON without bottom.
UNREADABLE: Final = (jwt.PyJWTError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError)


class TokenVerifier:
    """Verifies tokens by ``rules``."""

    def __init__(self, rules: TokenRules, keys: SigningKeys | None = None) -> None:
        self._rules = rules
        self._keys = keys or SigningKeys(reader(rules.jwks), rules.algorithms)

    async def verify(self, token: str) -> Principal:
        """The customer that the token was given to."""
        kid, algorithm = self._header(token)
        key = await self._keys.find(kid, algorithm)
        if key is None:
            raise TokenError("the token is signed with an unknown key")
        claims = self._claims(token, key, algorithm)
        customer = claims.get(self._rules.customer_claim)
        if not isinstance(customer, str) or not is_customer_id(customer):
            raise TokenError(f"the token names no customer (claim {self._rules.customer_claim!r})")
        return Principal("token", customer)

    def _header(self, token: str) -> tuple[str | None, str]:
        try:
            header = jwt.get_unverified_header(token)
        except UNREADABLE as error:
            raise TokenError("it is neither a known key nor a token") from error
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._rules.algorithms or "crit" in header:
            raise TokenError("the token is not signed in a way that is accepted here")
        if kid is not None and not (isinstance(kid, str) and len(kid) <= MAX_KID):
            raise TokenError("the token is signed with an unknown key")
        return kid, algorithm

    def _claims(self, token: str, key: jwt.PyJWK, algorithm: str) -> dict[str, Any]:
        rules = self._rules
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=rules.audience,
                issuer=rules.issuer,
                leeway=rules.leeway,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise TokenError("the token has expired") from error
        except UNREADABLE as error:
            raise TokenError("the token is not good for this API") from error
