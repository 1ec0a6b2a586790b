from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from supportfleet_runtime.gateway.authentication import SigningKeysUnavailableError
from supportfleet_runtime.gateway.jwks import MAX_BYTES, SigningKeys, parse_keys

ISSUER, AUDIENCE = "https://login.example", "support"
RSA = rsa.generate_private_key(65537, 2048)
PRIVATE: Mapping[str, Any] = {
    "RS256": RSA,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def public_jwk(algorithm: str, key: Any, **members: Any) -> dict[str, Any]:
    """The public half, as a member of a JWK set."""
    encoded = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**encoded, "kid": algorithm, "use": "sig", **members}


def key_set(*algorithms: str) -> dict[str, Any]:
    return {"keys": [public_jwk(name, PRIVATE[name]) for name in algorithms or PRIVATE]}


def token(
    algorithm: str = "ES256", *, kid: str | None = None, key: Any = None, header: Any = None, **claims: Any
) -> str:
    """A token of cust-1001, good for an hour unless a claim says otherwise; ``None`` leaves a claim out."""
    said = {"sub": "cust-1001", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 3600, **claims}
    return jwt.encode(
        {name: value for name, value in said.items() if value is not None},
        key or PRIVATE[algorithm],
        algorithm=algorithm,
        headers={"kid": kid or algorithm, **(header or {})},
    )


def unsigned(header: Mapping[str, Any], signature: str = "", **claims: Any) -> str:
    """A token put together by hand."""
    said = {"sub": "cust-1001", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 3600, **claims}
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, said))
    return ".".join([*parts, signature])


class Issuer:
    """A server of keys that counts how often it is asked."""

    def __init__(self) -> None:
        self.document: Any = key_set()
        self.status = 200
        self.asked = 0

    async def get(self, _request: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response(self.document, status=self.status)


@pytest.fixture
async def issuer() -> AsyncIterator[tuple[Issuer, str]]:
    served = Issuer()
    app = web.Application()
    app.router.add_get("/keys", served.get)
    async with TestServer(app) as server:
        yield served, str(server.make_url("/keys"))


@pytest.fixture
async def agent(start_agent: Any, issuer: tuple[Issuer, str]) -> Any:
    return await start_agent(JWT_JWKS=issuer[1], JWT_ISSUER=ISSUER, JWT_AUDIENCE=AUDIENCE)


async def send(agent: Any, bearer: str, customer: str = "cust-1001", **members: Any) -> tuple[int, dict[str, Any]]:
    body = {"customer_id": customer, "text": "hello", **members}
    headers = {"Authorization": f"Bearer {bearer}"}
    async with agent.client.post("/v1/messages", json=body, headers=headers) as got:
        return got.status, json.loads(await got.text())


async def get(agent: Any, path: str, bearer: str) -> int:
    async with agent.client.get(path, headers={"Authorization": f"Bearer {bearer}"}) as got:
        return int(got.status)


class TestGoodTokens:
    @pytest.mark.parametrize("algorithm", PRIVATE)
    async def test_a_token_opens(self, agent: Any, algorithm: str) -> None:
        """A token of each allowed algorithm lets its customer in; keys are read once for all of them."""
        assert (await send(agent, token(algorithm)))[0] == 200

    async def test_keys_are_cached(self, agent: Any, issuer: tuple[Issuer, str]) -> None:
        """Many tokens cost one reading of the keys."""
        for algorithm in PRIVATE:
            assert (await send(agent, token(algorithm)))[0] == 200
        assert issuer[0].asked == 1

    async def test_keys_from_a_file(self, start_agent: Any, tmp_path: Any) -> None:
        """The set may be a mounted file; another claim may name the customer; an API key works beside tokens."""
        (tmp_path / "jwks.json").write_text(json.dumps(key_set()))
        agent = await start_agent(
            JWT_JWKS=str(tmp_path / "jwks.json"),
            JWT_ISSUER=ISSUER,
            JWT_AUDIENCE=AUDIENCE,
            JWT_CUSTOMER_CLAIM="customer",
            API_KEYS="a-key-of-the-shop-backend",
        )
        assert (await send(agent, token(sub="x", customer="cust-1001")))[0] == 200
        assert (await send(agent, token(customer=None)))[0] == 401
        assert (await send(agent, "a-key-of-the-shop-backend", customer="anyone"))[0] == 200

    async def test_a_clock_that_is_late(self, agent: Any) -> None:
        """A token that expired within the leeway is good."""
        assert (await send(agent, token(exp=time.time() - 10)))[0] == 200


class TestOneCustomer:
    async def test_nobody_elses_name(self, agent: Any) -> None:
        """A message in another customer's name is refused."""
        status, body = await send(agent, token(), customer="cust-1002")
        assert (status, body["errors"][0]["pointer"]) == (403, "#/customer_id")

    async def test_nobody_elses_things(self, agent: Any) -> None:
        """Another customer's task and conversation do not exist for a token, whatever the query claims."""
        _, mine = await send(agent, token())
        paths = [f"/v1/tasks/{mine['task_id']}", f"/v1/conversations/{mine['conversation_id']}"]
        others = token(sub="cust-1002")
        for path in paths:
            assert await get(agent, path, token()) == 200
            assert await get(agent, f"{path}?customer_id=cust-1001", token()) == 200
            assert await get(agent, f"{path}?customer_id=cust-1002", token()) == 404
            assert await get(agent, path, others) == 404
            assert await get(agent, f"{path}?customer_id=cust-1001", others) == 404
        assert (await send(agent, others, "cust-1002", conversation_id=mine["conversation_id"]))[0] == 404


def forged() -> dict[str, str]:
    """Tokens that must not open, by what is wrong with each."""
    good, now = token("RS256"), time.time()
    pem = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    hs_input = unsigned({"alg": "HS256", "typ": "JWT", "kid": "RS256"}).rstrip(".")
    mac = jwt.get_algorithm_by_name("HS256").sign(hs_input.encode(), pem)
    hs256 = f"{hs_input}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    head, body, signature = good.split(".")
    other_body = unsigned({"alg": "RS256"}, sub="cust-1002").split(".")[1]
    return {
        "alg none": unsigned({"alg": "none"}),
        "alg None": unsigned({"alg": "None", "kid": "RS256"}, "x"),
        "no alg": unsigned({"kid": "RS256"}, signature),
        "alg is a list": unsigned({"alg": ["RS256"], "kid": "RS256"}, signature),
        "HS256 with the public key": hs256,
        "a stranger's key": token("RS256", key=rsa.generate_private_key(65537, 2048)),
        "another key's id": token("ES256", kid="RS256"),
        "its own key along": token(key=ec.generate_private_key(ec.SECP256R1()), header={"jwk": key_set()["keys"][1]}),
        "critical extension": unsigned({"alg": "RS256", "kid": "RS256", "crit": ["x"]}, signature),
        "id is a number": unsigned({"alg": "RS256", "kid": 5}, signature),
        "changed claims": f"{head}.{other_body}.{signature}",
        "no signature": f"{head}.{body}.",
        "cut": good[:-5],
        "two parts": f"{head}.{body}",
        "four parts": f"{good}.x",
        "noise": "a.b.c",
        "deep header": base64.urlsafe_b64encode(b"[" * 5000).decode().rstrip("=") + ".e30.x",
        "deep claims": f"{head}.{base64.urlsafe_b64encode(b'[' * 500).decode()}.{signature}",
        "expired": token(exp=now - 3600),
        "no expiry": token(exp=None),
        "expires never": token(exp=float("inf")),
        "expiry is text": token(exp="soon"),
        "not yet": token(nbf=now + 3600),
        "other audience": token(aud="shop"),
        "no audience": token(aud=None),
        "audience is a number": token(aud=5),
        "other issuer": token(iss="https://evil.example"),
        "no issuer": token(iss=None),
        "no customer": token(sub=None),
        "customer with a control character": token(sub="cust-1001\n"),
    }


class TestForgedTokens:
    async def test_none_opens(self, agent: Any) -> None:
        """Whatever is wrong with a token, it is 401: never let in, and never an error of the server."""
        for what, wrong in forged().items():
            status, body = await send(agent, wrong)
            assert status == 401, (what, body)
            assert "cust-1001" not in body["detail"]

    async def test_only_as_a_bearer(self, agent: Any) -> None:
        """A token in the place of an API key opens nothing."""
        body = {"customer_id": "cust-1001", "text": "hello"}
        async with agent.client.post("/v1/messages", json=body, headers={"X-API-Key": token()}) as got:
            assert got.status == 401


class TestKeysOutOfReach:
    async def test_before_any_key_is_known(self, agent: Any, issuer: tuple[Issuer, str]) -> None:
        """While no key is known, a token is neither good nor wrong: 503, and what is no token stays 401."""
        issuer[0].status = 500
        assert (await send(agent, token()))[0] == 503
        assert (await send(agent, unsigned({"alg": "none"})))[0] == 401

    async def test_a_rotation(self) -> None:
        """An unknown id has the keys read again, at most every 30 s; an outage leaves the known ones good."""
        now = 0.0
        served = key_set("ES256")
        reads = 0

        async def read() -> bytes:
            nonlocal reads
            reads += 1
            if not served:
                raise OSError
            return json.dumps(served).encode()

        keys = SigningKeys(read, frozenset({"RS256", "ES256"}), clock=lambda: now)
        assert await keys.find("ES256", "ES256")
        for number in range(50):
            assert await keys.find(f"unknown-{number}", "ES256") is None
        assert reads == 1
        served = key_set("RS256")
        now = 31.0
        assert await keys.find("RS256", "RS256")
        assert await keys.find("ES256", "ES256") is None, "a key that was withdrawn is no longer good"
        served = {}
        now = 3700.0
        assert await keys.find("RS256", "RS256"), "they outlive the outage"
        assert reads == 3

    async def test_many_at_the_start(self) -> None:
        """Who comes while the keys are read for the first time waits for them, and they are read once."""
        reads = 0

        async def read() -> bytes:
            nonlocal reads
            reads += 1
            await asyncio.sleep(0)
            return json.dumps(key_set()).encode()

        keys = SigningKeys(read, frozenset({"ES256"}), clock=lambda: 0.0)
        assert all(await asyncio.gather(*(keys.find("ES256", "ES256") for _ in range(20))))
        assert reads == 1

    async def test_an_outage_at_the_start_is_short(self) -> None:
        """Without any key it is tried again after two seconds, not thirty."""
        now, content = 0.0, b"no JSON"

        async def read() -> bytes:
            return content

        keys = SigningKeys(read, frozenset({"ES256"}), clock=lambda: now)
        with pytest.raises(SigningKeysUnavailableError):
            await keys.find("ES256", "ES256")
        content = json.dumps(key_set()).encode()
        with pytest.raises(SigningKeysUnavailableError):
            await keys.find("ES256", "ES256")
        now = 2.0
        assert await keys.find("ES256", "ES256")

    async def test_answers_without_end(self, start_agent: Any, issuer: tuple[Issuer, str]) -> None:
        """A set that is too long is not read on."""
        issuer[0].document = {"keys": [], "padding": "x" * MAX_BYTES}
        agent = await start_agent(JWT_JWKS=issuer[1], JWT_ISSUER=ISSUER, JWT_AUDIENCE=AUDIENCE)
        assert (await send(agent, token()))[0] == 503


class TestKeySets:
    def test_only_public_signing_keys_count(self) -> None:
        """Shared secrets, keys for encryption, weak ones and junk are left out; the others stay."""
        weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - to be refused
        members = [
            {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"},
            public_jwk("RS256", RSA, use="enc", kid="encryption"),
            public_jwk("RS256", weak, kid="weak"),
            {"kty": "RSA", "n": 5, "e": [], "kid": "junk"},
            {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "no point"},
            "text",
            public_jwk("ES256", PRIVATE["ES256"], alg="ES256"),
            public_jwk("RS256", RSA, alg="RS512", kid="bound"),
            public_jwk("RS256", RSA, alg=["RS256"], kid="list"),
        ]
        allowed = frozenset({"RS256", "RS512", "ES256", "EdDSA"})
        found = parse_keys(json.dumps({"keys": members}).encode(), allowed)
        assert {kid: set(keys) for kid, keys in found.items()} == {"ES256": {"ES256"}, "bound": {"RS512"}}

    @pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"keys": {}}', b"\xff"])
    def test_what_is_no_set(self, content: bytes) -> None:
        """Other documents are errors, so that known keys are kept."""
        with pytest.raises(ValueError):  # noqa: PT011 - any kind of it
            parse_keys(content, frozenset({"RS256"}))
