"""The public keys that tokens are signed with: a JWK set at an HTTPS address or in a file, cached.

It is read again once an hour, and when a token names a key that is not in it, as after a rotation: never more often
than every 30 s, whatever is sent, and by one request at a time. Where it can't be read, the keys that are known go on
being good; with none known (tried again every 2 s) nobody can be let in and nobody be told that their token is wrong.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp
import jwt
import orjson
import structlog

from supportfleet_runtime.gateway.authentication import SigningKeysUnavailableError

log = structlog.get_logger()

MAX_AGE: Final = 3600.0
PAUSE: Final = 30.0
PAUSE_WITHOUT_KEYS: Final = 2.0
READ_SECONDS: Final = 5.0
MAX_BYTES: Final = 256 * 1024
MIN_RSA_BITS: Final = 2048
FITTING: Final[Mapping[tuple[str, str | None], frozenset[str]]] = {
    ("RSA", None): frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
"""The algorithms of each kind of key (``kty``, ``crv``). Shared secrets (``oct``) are not among them."""

Keys = Mapping[str | None, Mapping[str, jwt.PyJWK]]
"""Keys by id and algorithm."""
FAILURES: Final = (aiohttp.ClientError, OSError, TimeoutError, ValueError)


class SigningKeys:
    """The keys that ``read`` gives, for ``algorithms`` only."""

    def __init__(
        self,
        read: Callable[[], Awaitable[bytes]],
        algorithms: frozenset[str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._algorithms = algorithms
        self._clock = clock
        self._keys: Keys = {}
        self._read_at = self._tried_at = float("-inf")
        self._reading = asyncio.Lock()

    async def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        """The key of that id, or the only one where a token names none."""
        if self._is_due(kid) or (self._reading.locked() and kid not in self._keys):
            async with self._reading:  # whoever comes while the keys are read waits for them
                if self._is_due(kid):
                    await self._refresh()
        if not self._keys:
            raise SigningKeysUnavailableError("the keys that tokens are signed with can't be read")
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values())).get(algorithm)
        return self._keys.get(kid, {}).get(algorithm)

    def _is_due(self, kid: str | None) -> bool:
        now = self._clock()
        is_stale = now - self._read_at >= MAX_AGE or (kid not in self._keys and kid is not None) or not self._keys
        return is_stale and now - self._tried_at >= (PAUSE if self._keys else PAUSE_WITHOUT_KEYS)

    async def _refresh(self) -> None:
        self._tried_at = self._clock()
        try:
            async with asyncio.timeout(READ_SECONDS):
                content = await self._read()
            keys = parse_keys(content, self._algorithms)
        except FAILURES as error:
            log.warning("signing_keys_not_read", reason=type(error).__name__, kept=len(self._keys))
            return
        if not keys:
            log.warning("signing_keys_unusable", remedy="JWT_JWKS must hold a public key for one of JWT_ALGORITHMS")
        self._keys, self._read_at = keys, self._tried_at


def reader(address: str) -> Callable[[], Awaitable[bytes]]:
    """What reads the set at an address or in a file."""

    def read_file() -> bytes:
        with Path(address).open("rb") as file:
            return _bounded(file.read(MAX_BYTES + 1))

    async def read() -> bytes:
        if "://" not in address:
            return await asyncio.to_thread(read_file)
        timeout = aiohttp.ClientTimeout(total=READ_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(address, allow_redirects=False) as response,
        ):
            if response.status != HTTPStatus.OK:
                raise ValueError(f"status {response.status}")
            return _bounded(await _at_most(response.content, MAX_BYTES + 1))

    return read


def parse_keys(content: bytes, algorithms: frozenset[str]) -> Keys:
    """The keys of a set that can be used; raises ``ValueError`` where it is none."""
    document = orjson.loads(content)
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list):
        raise ValueError("no JWK set")  # noqa: TRY004 - the content is wrong, not its type
    found: dict[str | None, dict[str, jwt.PyJWK]] = {}
    for member in members:
        if isinstance(member, dict) and member.get("use", "sig") == "sig":
            kid = member.get("kid")
            usable = dict(_usable(member, algorithms))
            if usable and (kid is None or isinstance(kid, str)):
                found.setdefault(kid, {}).update(usable)
    return found


def _usable(member: dict[str, Any], algorithms: frozenset[str]) -> Iterable[tuple[str, jwt.PyJWK]]:
    """A key for each algorithm that it may be used with: the one it names, or those of its kind."""
    kind = (str(member.get("kty")), str(member["crv"]) if "crv" in member else None)
    fitting = FITTING.get(kind, frozenset()) & algorithms
    for algorithm in sorted(fitting & {str(member["alg"])} if "alg" in member else fitting):
        try:
            key = jwt.PyJWK(member, algorithm)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue  # an unusable key is told by nothing being verified with it; the others stay good
        if kind[0] != "RSA" or key.key.key_size >= MIN_RSA_BITS:
            yield algorithm, key


def _bounded(content: bytes) -> bytes:
    if len(content) > MAX_BYTES:
        raise ValueError("too long for a JWK set")
    return content


async def _at_most(stream: aiohttp.StreamReader, size: int) -> bytes:
    content = bytearray()
    while len(content) < size and (chunk := await stream.read(size - len(content))):
        content += chunk
    return bytes(content)
