"""Malformed and hostile requests: none may be an error of the server's, none may pass the authentication.

    python benchmarks/hostile_requests.py [--requests 10000] [--seed 1]

A gateway with API keys and tokens runs as a process of its own. It is sent bytes over raw sockets: lengths that lie,
requests inside requests, heads without end, text that is no text, JSON without bottom, paths that climb, and forged,
expired, cut and borrowed tokens. A third of the malformed ones carry a good key, so that they reach what lies behind
the authentication. The table tells how each kind ended.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import random
import re
import runpy
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

KEY: Final = "a-key-of-the-shop-backend"
ISSUER, AUDIENCE = "https://login.example", "support"
MESSAGE: Final = {"customer_id": "cust-1001", "text": "Where is my order A-1001?"}
AT_ONCE: Final = 16
ANSWER_SECONDS: Final = 30.0
GRACE_SECONDS: Final = 0.2
STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
OPEN: Final = (b"/healthz", b"/readyz", b"/metrics", b"/openapi.json")
NO_ANSWER: Final = 0
SERVER_ERROR: Final = 500
REFUSED: Final = 400


@dataclass(frozen=True)
class Hostile:
    """One request. ``trusted``: it carries a good key, so that it may be answered. ``whole``: an answer must come."""

    kind: str
    raw: bytes
    trusted: bool = False
    whole: bool = True


@dataclass
class Outcome:
    """How they ended, and which of them ended as none may."""

    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, sent: Hostile, found: list[int]) -> None:
        """Judge one."""
        self.statuses.setdefault(sent.kind, Counter()).update(found or [NO_ANSWER])
        is_open = any(path in sent.raw.split(b"\r\n", 1)[0] for path in OPEN)
        passed = not sent.trusted and not is_open and any(status < REFUSED for status in found)
        if passed or any(status >= SERVER_ERROR for status in found) or (sent.whole and not found):
            self.failures.append(f"{sent.kind}: {found} for {sent.raw[:300]!r}")


class Forger:
    """Makes tokens that must not open, of a key whose public half the gateway knows."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        self.stranger = rsa.generate_private_key(65537, 2048)
        public = jwt.get_algorithm_by_name("RS256").to_jwk(self.key.public_key(), as_dict=True)
        self.key_set = json.dumps({"keys": [{**public, "kid": "k", "use": "sig"}]})
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        self.pem = self.key.public_key().public_bytes(serialization.Encoding.PEM, form)

    def environment(self, key_set: Path) -> dict[str, str]:
        """What the gateway is configured with."""
        key_set.write_text(self.key_set)
        return {"API_KEYS": KEY, "JWT_JWKS": str(key_set), "JWT_ISSUER": ISSUER, "JWT_AUDIENCE": AUDIENCE}

    def token(self, chance: random.Random) -> str:
        """One of them."""
        now = time.time()
        makers: list[Callable[[], str]] = [
            lambda: _unsigned({"alg": chance.choice(["none", "None", "NONE", "", None, ["none"]]), "kid": "k"}),
            lambda: self._with_public_key(chance.choice(["HS256", "HS384", "HS512"])),
            lambda: self._good(key=self.stranger),
            lambda: self._good(exp=now - chance.uniform(60, 1e6)),
            lambda: self._good(aud=chance.choice(["shop", "", ["x"], 5, None])),
            lambda: self._good(iss=chance.choice(["https://evil.example", "", None])),
            lambda: self._good(nbf=now + 3600),
            lambda: self._good(sub=chance.choice([None, "", "a\x00b", "x" * 200])),
            lambda: self._good(exp=chance.choice([None, "soon", float("inf"), float("nan"), [], -1])),
            lambda: self._good()[: chance.randrange(400)],
            lambda: _changed(self._good(), chance),
            lambda: _encoded(b"[" * chance.randrange(5000)) + ".e30.x",
            lambda: ".".join(_encoded(chance.randbytes(chance.randrange(40))) for _ in range(chance.randrange(6))),
            lambda: KEY[: chance.randrange(len(KEY))],
        ]
        return chance.choice(makers)()

    def _good(self, *, key: Any = None, **claims: Any) -> str:
        said = {"sub": "cust-1001", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 3600, **claims}
        header, claims_ = _encoded(b'{"alg":"RS256","kid":"k"}'), _encoded(json.dumps(_without_none(said)).encode())
        signature = jwt.get_algorithm_by_name("RS256").sign(f"{header}.{claims_}".encode(), key or self.key)
        return f"{header}.{claims_}.{_encoded(signature)}"

    def _with_public_key(self, algorithm: str) -> str:
        """Signed with the public key, taken for a shared secret."""
        signed = _unsigned({"alg": algorithm, "kid": "k"}).rstrip(".")
        hmac = jwt.get_algorithm_by_name(algorithm)
        return f"{signed}.{_encoded(hmac.sign(signed.encode(), self.pem))}"


def _without_none(claims: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in claims.items() if value is not None}


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _unsigned(header: Mapping[str, Any]) -> str:
    claims = {"sub": "cust-1001", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 3600}
    return f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}."


def _changed(token: str, chance: random.Random) -> str:
    """One character is another: not the last, some of whose bits say nothing."""
    at = chance.randrange(len(token) - 1)
    return token[:at] + chance.choice([c for c in "AZaz09-_" if c != token[at]]) + token[at + 1 :]


def request(
    body: bytes = b"", *headers: bytes, line: bytes = b"POST /v1/messages HTTP/1.1", length: bool = True
) -> bytes:
    """A request that is in order, but for what is given."""
    given = [line, b"Host: x", b"Connection: close", b"Content-Type: application/json", *headers]
    if length:
        given.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(given) + b"\r\n\r\n" + body


def lengths(chance: random.Random, key: bytes) -> tuple[bytes, bool]:
    """Lengths that lie, and requests inside requests."""
    body = json.dumps(MESSAGE).encode()
    inner = b"GET /v1/tasks/task_00000000000000000000000000 HTTP/1.1\r\nHost: x\r\n\r\n"
    lies = [
        [b"Content-Length: -1"],
        [b"Content-Length: +5"],
        [b"Content-Length: 0x10"],
        [b"Content-Length: 1e3"],
        [b"Content-Length: " + b"9" * chance.randrange(1, 400)],
        [b"Content-Length: 5", b"Content-Length: 6"],
        [b"Content-Length: 5, 6"],
        [b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 0"],
        [b"Transfer-Encoding: xchunked"],
        [b"Transfer-Encoding: chunked, identity"],
        [b"Transfer-Encoding : chunked"],
        [b"Transfer-Encoding:\x0bchunked"],
        [b"X: y\r\n Transfer-Encoding: chunked"],
    ]
    sizes = [b"zz", b"-1", b"0x5", b"F" * 20, b"5;" + b"a" * 5000, b"", b"0"]
    chunked = chance.choice(sizes) + b"\r\n" + body + b"\r\n0\r\n\r\n"
    if chance.random() < 0.5:  # noqa: PLR2004 - a coin
        return request(body + inner, key, *chance.choice(lies), length=False), False
    return request(chunked + inner, key, b"Transfer-Encoding: chunked", length=False), False


def heads(chance: random.Random, key: bytes) -> tuple[bytes, bool]:
    """Heads that are too long, no text, or another protocol's."""
    body = json.dumps(MESSAGE).encode()
    size = chance.randrange(9_000, 40_000)
    makers: list[Callable[[], bytes]] = [
        lambda: request(body, key, b"X-Long: " + b"x" * size),
        lambda: request(body, key, *(b"X-%d: y" % number for number in range(300))),
        lambda: request(body, key, b"X" * size + b": y"),
        lambda: request(body, key, line=b"GET /" + b"a" * size + b" HTTP/1.1"),
        lambda: request(body, key, b"X-\xff\xfe: \x80"),
        lambda: request(body, key, b"X: a\x00b"),
        lambda: request(body, key, b"X: a\rb"),
        lambda: request(body, key, b"no colon"),
        lambda: request(body, key, line=b"POST /v1/\xff\xfe HTTP/1.1"),
        lambda: request(body, key, line=b"POST /v1/messages HTTP/9.9"),
        lambda: request(body, key, line=b"\x80\x81 /v1/messages HTTP/1.1"),
        lambda: request(body, key, line=b"CONNECT example.com:443 HTTP/1.1"),
        lambda: request(body, key, line=b"POST http://evil.example/v1/messages HTTP/1.1"),
        lambda: b"GET /v1/messages\r\n\r\n",
        lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(500),
        lambda: chance.randbytes(chance.randrange(1, 2000)) + b"\r\n\r\n",
        lambda: request(body, key).replace(b"\r\n", b"\n"),
        lambda: request(body, key)[: chance.randrange(1, 150)],
        lambda: request(body, key, b"Upgrade: websocket", b"Connection: upgrade"),
    ]
    return chance.choice(makers)(), False


def bodies(chance: random.Random, key: bytes) -> tuple[bytes, bool]:
    """Bodies that are no JSON, or no message."""
    depth = chance.randrange(100, 30_000)
    texts: list[bytes] = [
        b"[" * depth,
        b'{"a":' * (depth // 5) + b"1" + b"}" * (depth // 5),
        b'{"customer_id": "c", "text": "\xff\xfe"}',
        b'{"customer_id": "c", "text": "\\ud800"}',
        b'{"customer_id": "c", "customer_id": "d", "text": "x"}',
        b'{"customer_id": ' + b"9" * depth + b', "text": "x"}',
        b'{"customer_id": "c", "text": 1e999}',
        b"\xef\xbb\xbf{}",
        b"\x00" * depth,
        chance.randbytes(chance.randrange(300)),
        json.dumps({**MESSAGE, "customer_id": "x" * depth}).encode(),
        json.dumps({**MESSAGE, "conversation_id": "../" * chance.randrange(1, 30)}).encode(),
        json.dumps({**MESSAGE, f"k{chance.random()}": 1}).encode(),
        json.dumps({**MESSAGE, "text": "a" * chance.choice([0, 8001, 70_000])}).encode(),
        json.dumps({**MESSAGE, "callback": {"webhook": {"url": "http://169.254.169.254/"}}}).encode(),
        json.dumps([MESSAGE]).encode(),
    ]
    extra = chance.choice([b"X: y", b"Idempotency-Key: \x80", b"X-Request-Id: \x1b[0m", b"Content-Encoding: gzip"])
    return request(chance.choice(texts), key, extra), True


def paths(chance: random.Random, key: bytes) -> tuple[bytes, bool]:
    """Paths that climb, and methods that are not there."""
    targets = [
        b"/healthz/../v1/tasks/x",
        b"/healthz/%2e%2e/v1/messages",
        b"//v1/messages",
        b"/v1/messages/",
        b"/v1//messages",
        b"/v1/tasks/%00",
        b"/v1/tasks/%ff%fe",
        b"/v1/tasks/..%2f..%2fetc%2fpasswd",
        b"/v1/tasks/task_00000000000000000000000000%20",
        b"/v1/conversations/conv_00000000000000000000000000?customer_id=%ed%a0%80",
        b"/v1/conversations/conv_00000000000000000000000000?turns=" + b"9" * 4000,
        b"/v1/conversations/conv_00000000000000000000000000?turns=1&turns=x",
        b"/v1/tasks/'%20OR%201=1--",
        b"/%2e%2e/%2e%2e/etc/passwd",
        b"*",
    ]
    method = chance.choice([b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"HACK"])
    target = chance.choice(targets)
    return request(b"", key, line=method + b" " + target + b" HTTP/1.1"), target != b"*"


MALFORMED: Final = {"lengths": lengths, "heads": heads, "bodies": bodies, "paths": paths}


def requests(count: int, seed: int, forger: Forger) -> list[Hostile]:
    """So many of them; the same ones for the same seed, but for keys and times."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated
    made = []
    for number in range(count):
        if number % 3 == 0:
            header = chance.choice([b"Authorization: Bearer ", b"Authorization: bearer ", b"X-API-Key: "])
            credential = forger.token(chance).encode()
            made.append(Hostile("credentials", request(json.dumps(MESSAGE).encode(), header + credential), whole=False))
            continue
        kind = chance.choice(list(MALFORMED))
        trusted = number % 3 == 1
        key = b"X-API-Key: " + (KEY.encode() if trusted else chance.choice([b"", b"wrong", b"\xff" * 20]))
        raw, whole = MALFORMED[kind](chance, key)
        made.append(Hostile(kind, raw, trusted=trusted, whole=whole))
    return made


async def attack(host: str, port: int, sent: list[Hostile]) -> Outcome:
    """Send all of them, a few at a time, each over a connection of its own."""
    outcome, left = Outcome(), iter(sent)

    async def send_some() -> None:
        for one in left:
            outcome.add(one, await _send(host, port, one))

    await asyncio.gather(*(send_some() for _ in range(AT_ONCE)))
    return outcome


async def _send(host: str, port: int, sent: Hostile) -> list[int]:
    """The statuses that came back: several, where a request was taken for more than one."""
    reader, writer = await asyncio.open_connection(host, port)
    answer = bytearray()
    try:
        with contextlib.suppress(ConnectionError):  # cut off: its good right
            writer.write(sent.raw)
            await writer.drain()
            await _read(reader, answer, ANSWER_SECONDS if sent.whole else GRACE_SECONDS)
            if not sent.whole and not reader.at_eof():
                writer.write_eof()
                await _read(reader, answer, ANSWER_SECONDS)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return [int(status) for status in STATUS.findall(bytes(answer))]


async def _read(reader: asyncio.StreamReader, into: bytearray, seconds: float) -> None:
    """Read until the other side closes, or the time is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while chunk := await reader.read(65536):
                into += chunk


@contextlib.asynccontextmanager
async def gateway(forger: Forger) -> AsyncIterator[int]:
    """A gateway as a process; its port."""
    shared = runpy.run_path(str(Path(__file__).with_name("runtime_messages.py")))
    port = shared["free_port"]()
    with tempfile.TemporaryDirectory(prefix="supportfleet-hostile-") as folder:
        environ = {
            **forger.environment(Path(folder) / "jwks.json"),
            "API_HOST": "127.0.0.1",
            "API_PORT": str(port),
            "DATABASE_URL": f"sqlite:///{folder}/messages.db",
            "LLM_PROVIDER": "scripted",
            "LOG_LEVEL": "error",
            "RATE_LIMIT": "0",
        }
        command = (sys.executable, "-m", "supportfleet_runtime", "serve")
        async with shared["running"](*command, port=port, path="/readyz", **{**os.environ, **environ}):
            yield port


async def main_async(count: int, seed: int) -> int:
    """Attack, print, and tell whether all went as it must."""
    forger = Forger()
    async with gateway(forger) as port:
        started = time.perf_counter()
        outcome = await attack("127.0.0.1", port, requests(count, seed, forger))
        took = time.perf_counter() - started
    print(f"| {'kind':<12} | requests | how they ended (status: times; 0: cut off) |")
    print(f"|{'-' * 14}|---------:|{'-' * 45}|")
    for kind, statuses in sorted(outcome.statuses.items()):
        shown = ", ".join(f"{status}: {times}" for status, times in sorted(statuses.items()))
        print(f"| {kind:<12} | {statuses.total():>8} | {shown} |")
    print(f"{count} requests in {took:.1f} s: {len(outcome.failures)} that passed, failed the server or got no answer")
    for failure in outcome.failures[:20]:
        print(failure)
    return 1 if outcome.failures else 0


def main() -> None:
    """Parse the command line and attack."""
    parser = argparse.ArgumentParser(description="Send hostile requests to a gateway.")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    sys.exit(asyncio.run(main_async(arguments.requests, arguments.seed)))


if __name__ == "__main__":
    main()
