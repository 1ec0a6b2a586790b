from __future__ import annotations

import asyncio
import gzip
import json
import random
from collections import Counter
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supportfleet_runtime.__main__ import main
from supportfleet_runtime.access import hash_key, parse_api_keys
from supportfleet_runtime.errors import StorageUnavailableError
from supportfleet_runtime.gateway.authentication import authentication_middleware
from supportfleet_runtime.gateway.problems import problem_middleware
from supportfleet_runtime.gateway.request_ids import send_request_id
from supportfleet_runtime.gateway.schema import MAX_BODY, MAX_CUSTOMER_ID, MAX_TEXT

MESSAGE = {"customer_id": "cust-1001", "text": "Where is my order A-1001?"}
JSON = {"Content-Type": "application/json"}
KEY = "a-key-of-the-shop-backend"


@pytest.fixture
async def agent(start_agent: Any) -> Any:
    return await start_agent()


async def problem(got: Any, status: int) -> dict[str, Any]:
    """The problem document of a response that must be one."""
    body: dict[str, Any] = json.loads(await got.text())
    assert got.status == status, body
    assert got.content_type == "application/problem+json"
    assert body["status"] == status
    assert body["type"].startswith("urn:supportfleet:problem:")
    assert body["title"]
    assert body["detail"]
    assert body.pop("request_id") == got.headers["X-Request-Id"]
    return body


async def exchange(agent: Any, raw: bytes) -> tuple[bytes, bytes]:
    """What is answered to bytes until the connection ends: the first head, and the rest."""
    reader, writer = await asyncio.open_connection(agent.client.host, agent.client.port)
    writer.write(raw)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    head, separator, body = answer.partition(b"\r\n\r\n")
    return head + separator, body


class TestMessages:
    async def test_a_message_is_answered(self, agent: Any) -> None:
        """The response is the contract's: ids, reply, and how it came about."""
        got = await agent.say("Where is my order A-1001?")
        assert got.keys() == {
            "task_id",
            "conversation_id",
            "message_id",
            "reply",
            "intent",
            "confidence",
            "source",
            "model",
            "tools_enabled",
            "fallback_level",
            "escalated",
            "latency_ms",
        }
        assert (got["intent"], got["source"], got["model"]) == ("order_status", "rules", None)
        assert "DHL" in got["reply"]

    async def test_a_conversation_goes_on(self, agent: Any) -> None:
        """A follow-up continues what was asked; a person, once called, stays called."""
        asked = await agent.say("where is my order?")
        told = await agent.say("A-1002", conversation_id=asked["conversation_id"])
        assert told["conversation_id"] == asked["conversation_id"]
        assert "being packed" in told["reply"]
        called = await agent.say("get me a human", conversation_id=asked["conversation_id"])
        assert called["escalated"]
        assert (await agent.say("hello", conversation_id=asked["conversation_id"]))["escalated"]
        assert await agent.metric("escalation_to_human_total") == 1

    async def test_after_the_limit_it_is_a_task(self, start_agent: Any) -> None:
        """Who need not wait gets 202 at once, and the answer from the task."""
        agent = await start_agent(API_TIMEOUT_SECONDS="0")
        async with agent.client.post("/v1/messages", json=MESSAGE) as got:
            accepted = await got.json()
            assert got.status == 202
            location = got.headers["Location"]
        assert accepted.keys() == {"task_id", "conversation_id", "message_id", "status"}
        assert location == f"/v1/tasks/{accepted['task_id']}"
        async with asyncio.timeout(10):
            while (task := await (await agent.client.get(location)).json())["status"] != "done":  # noqa: ASYNC110 - as callers do
                await asyncio.sleep(0.01)
        assert task["intent"] == "order_status"
        assert task["message_id"] == accepted["message_id"]

    async def test_the_conversation_can_be_read(self, agent: Any) -> None:
        """Both sides' messages, in order, with how the replies came about."""
        got = await agent.say("Where is my order A-1001?")
        url = f"/v1/conversations/{got['conversation_id']}"
        read = await (await agent.client.get(url, params={"customer_id": "cust-1001"})).json()
        assert [message["role"] for message in read["messages"]] == ["customer", "agent"]
        assert read["messages"][0]["text"] == "Where is my order A-1001?"
        assert read["messages"][1]["intent"] == "order_status"
        assert (read["status"], read["customer_id"], read["has_earlier"]) == ("open", "cust-1001", False)
        await problem(await agent.client.get(url, params={"customer_id": "cust-1002"}), 404)

    async def test_many_customers_at_once(self, agent: Any) -> None:
        """Each of many simultaneous messages gets the answer to itself."""
        numbers = [f"X-{n:04}" for n in range(60)]
        got = await asyncio.gather(*(agent.say(f"where is order {number}?") for number in numbers))
        assert all(number in answer["reply"] for number, answer in zip(numbers, got, strict=True))
        assert len({answer["task_id"] for answer in got}) == 60

    async def test_text_survives_unharmed(self, agent: Any) -> None:
        """Any text that JSON can carry is stored and read back to the letter."""
        text = "Grüße 👋🏽 — ‮right to left‬\n\ttabs, \u2028 and \x07 bells, 'quotes'; DROP TABLE tasks; --"  # noqa: PLE2502
        got = await agent.say(text)
        read = await (await agent.client.get(f"/v1/conversations/{got['conversation_id']}")).json()
        assert read["messages"][0]["text"] == text


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "pointers"),
        [
            ({}, {"#/customer_id", "#/text"}),
            ({**MESSAGE, "text": 5}, {"#/text"}),
            ({**MESSAGE, "text": None}, {"#/text"}),
            ({**MESSAGE, "text": ""}, {"#/text"}),
            ({**MESSAGE, "text": " \n\t"}, {"#/text"}),
            ({**MESSAGE, "text": "x" * (MAX_TEXT + 1)}, {"#/text"}),
            ({**MESSAGE, "text": "a\x00b"}, {"#/text"}),
            ({**MESSAGE, "customer_id": "a\x00b"}, {"#/customer_id"}),
            ({**MESSAGE, "customer_id": "c" * (MAX_CUSTOMER_ID + 1)}, {"#/customer_id"}),
            ({**MESSAGE, "customer_id": ["c"]}, {"#/customer_id"}),
            ({**MESSAGE, "conversation_id": ""}, {"#/conversation_id"}),
            ({**MESSAGE, "conversation_id": {}}, {"#/conversation_id"}),
            ({**MESSAGE, "colour": "red", "a/b~c": 1}, {"#/colour", "#/a~1b~0c"}),
            ([MESSAGE], {"#"}),
            ("text", {"#"}),
            (None, {"#"}),
        ],
    )
    async def test_what_is_wrong_is_named(self, agent: Any, body: Any, pointers: set[str]) -> None:
        """A body that is no message gets 422 with a pointer to each thing that is wrong."""
        got = await problem(await agent.client.post("/v1/messages", data=json.dumps(body).encode(), headers=JSON), 422)
        assert {error["pointer"] for error in got["errors"]} == pointers
        assert all(error["detail"] for error in got["errors"])

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"\xff",
            b'{"text": "\xff"}',
            b'"\\ud800"',
            b"NaN",
            b"\xef\xbb\xbf{}",
            b"[" * 5000,
            b"{}x",
            b"\x00",
        ],
    )
    async def test_malformed_json(self, agent: Any, body: bytes) -> None:
        """What is no JSON gets 400 that says where it breaks."""
        got = await problem(await agent.client.post("/v1/messages", data=body, headers=JSON), 400)
        assert "line" in got["detail"]

    @pytest.mark.parametrize(
        "content_type", ["text/plain", "application/xml", "application/json; charset=latin-1", "nonsense", ""]
    )
    async def test_other_media_types(self, agent: Any, content_type: str) -> None:
        """Only JSON in UTF-8 is understood."""
        headers = {"Content-Type": content_type}
        await problem(await agent.client.post("/v1/messages", data=orjson.dumps(MESSAGE), headers=headers), 415)

    async def test_json_with_parameters_is_json(self, agent: Any) -> None:
        """The usual spellings of JSON in UTF-8 are accepted."""
        headers = {"Content-Type": "Application/JSON; charset=UTF-8"}
        async with agent.client.post("/v1/messages", data=orjson.dumps(MESSAGE), headers=headers) as got:
            assert got.status == 200

    async def test_too_large(self, agent: Any) -> None:
        """A body over the limit is refused, whether it says its size or not."""
        body = b'{"text": "' + b"x" * MAX_BODY + b'"}'
        await problem(await agent.client.post("/v1/messages", data=body, headers=JSON), 413)

        async def chunks() -> Any:
            for _ in range(80):
                yield b"x" * 1024

        await problem(await agent.client.post("/v1/messages", data=chunks(), headers=JSON), 413)

    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "x"])
    async def test_compressed_bodies(self, agent: Any, encoding: str) -> None:
        """Nothing is unpacked, so no bomb can go off; what is no archive makes no difference."""
        headers = {**JSON, "Content-Encoding": encoding}
        for body in (gzip.compress(orjson.dumps(MESSAGE)), b"no archive at all"):
            got = await agent.client.post("/v1/messages", data=body, headers=headers)
            await problem(got, 415)
            assert got.headers["Accept-Encoding"] == "identity"

    async def test_strange_conversations(self, agent: Any) -> None:
        """A conversation that isn't there and one of another customer are equally not found."""
        mine = await agent.say("hello")
        others = {"customer_id": "eve", "text": "hi", "conversation_id": mine["conversation_id"]}
        first = await problem(await agent.client.post("/v1/messages", json=others), 404)
        unknown = {**others, "conversation_id": "conv_" + "0" * 26}
        assert await problem(await agent.client.post("/v1/messages", json=unknown), 404) == first

    @pytest.mark.parametrize(
        "path",
        [
            "/v1/tasks/x",
            "/v1/tasks/task_" + "0" * 26,
            "/v1/conversations/conv_" + "0" * 26,
            "/v1/conversations/%00",
            "/v1/conversations/%FF%FE",
            "/v1/conversations/a%2Fb",
            "/v1/nothing",
            "/",
        ],
    )
    async def test_nothing_there(self, agent: Any, path: str) -> None:
        """Unknown ids, impossible ids and unknown paths are 404 problems."""
        await problem(await agent.client.get(path), 404)

    @pytest.mark.parametrize(
        "query", ["customer_id=%00", "customer_id=%ED%A0%80", "customer_id=", "customer_id=" + "c" * 2000]
    )
    async def test_impossible_customers(self, agent: Any, query: str) -> None:
        """A customer id that no message could have owns no conversation."""
        got = await agent.say("hello")
        await problem(await agent.client.get(f"/v1/conversations/{got['conversation_id']}?{query}"), 404)

    @pytest.mark.parametrize("turns", ["0", "501", "-1", "x", "", "１", "9" * 5000])  # noqa: RUF001 - a digit to some
    async def test_impossible_limits(self, agent: Any, turns: str) -> None:
        """A limit that is no number within bounds is named."""
        got = await agent.say("hello")
        url = f"/v1/conversations/{got['conversation_id']}"
        told = await problem(await agent.client.get(url, params={"turns": turns}), 422)
        assert told["errors"][0]["pointer"] == "?turns"

    async def test_wrong_methods(self, agent: Any) -> None:
        """A method that isn't there is a problem that lists those that are."""
        got = await agent.client.get("/v1/messages")
        await problem(got, 405)
        assert got.headers["Allow"] == "POST"
        await problem(await agent.client.delete("/v1/messages"), 405)

    @pytest.mark.parametrize(
        "raw",
        [
            b"secret\r\n\r\n",
            b"POST /v1/messages HTTP/9.9\r\nHost: secret\r\n\r\n",
            b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nA secret: x\r\n\r\n",
            b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nX: secret\x00\r\n\r\n",
            b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nX: " + b"secret" * 2000 + b"\r\n\r\n",
            b"POST /v1/messages HTTP/1.1\r\nHost: x\r\n" + b"X: secret\r\n" * 200 + b"\r\n",
            b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: secret\r\n\r\n",
            b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nsecret\r\n",
        ],
    )
    async def test_what_is_no_http(self, agent: Any, raw: bytes) -> None:
        """Requests that can't be read are problems too, which repeat nothing of them, and the connection ends."""
        head, body = await exchange(agent, raw)
        assert head.startswith(b"HTTP/1.0 400 ")
        assert b"Content-Type: application/problem+json\r\n" in head
        told = json.loads(body)
        assert (told["type"], told["status"]) == ("urn:supportfleet:problem:malformed-request", 400)
        assert f"X-Request-Id: {told['request_id']}\r\n".encode() in head
        assert b"secret" not in head + body

    @pytest.mark.parametrize("path", ["/v1/messages", "/v1/nothing"])
    async def test_expectations_that_nobody_meets(self, agent: Any, path: str) -> None:
        """What a request expects beyond being told to go on is refused by a problem."""
        await problem(await agent.client.post(path, data=b"{}", headers={**JSON, "Expect": "cake"}), 417)

    async def test_a_client_that_leaves(self, agent: Any) -> None:
        """A body that breaks off, or a client that hangs up, harms nobody else."""
        server = agent.client.server
        for sent in (
            b"Content-Length: 500\r\n\r\n{",
            b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"Content-Length: x\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + sent)
            await writer.drain()
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), 10)
            assert b" 500 " not in answer.split(b"\r\n")[0]
            writer.close()
        await agent.say("hello")


class TestKeys:
    @pytest.fixture
    async def locked(self, start_agent: Any) -> Any:
        return await start_agent(API_KEYS=f"another-key-of-the-shop,{KEY}")

    @pytest.mark.parametrize(
        "headers", [{"Authorization": f"Bearer {KEY}"}, {"Authorization": f"bearer  {KEY}"}, {"X-API-Key": KEY}]
    )
    async def test_a_key_opens(self, locked: Any, headers: dict[str, str]) -> None:
        """Any of the keys, in either header, is good."""
        async with locked.client.post("/v1/messages", json=MESSAGE, headers=headers) as got:
            assert got.status == 200

    async def test_a_hashed_key_opens(self, start_agent: Any) -> None:
        """Where only the hash is configured, the key opens and the hash doesn't."""
        entry = f"shop:sha256:{hash_key(KEY).hex()}"
        locked = await start_agent(API_KEYS=entry)
        async with locked.client.post("/v1/messages", json=MESSAGE, headers={"X-API-Key": KEY}) as got:
            assert got.status == 200
        for wrong in (entry, entry.removeprefix("shop:"), hash_key(KEY).hex()):
            await problem(await locked.client.post("/v1/messages", json=MESSAGE, headers={"X-API-Key": wrong}), 401)

    def test_a_key_can_be_made(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The command's key is the one that its entry is the hash of."""
        assert main(["api-key", "--name", "shop"]) == 0
        key, entry = (line.split()[-1] for line in capsys.readouterr().out.splitlines())
        [configured] = parse_api_keys(entry)
        assert (configured.name, configured.digest) == ("shop", hash_key(key))
        assert main(["api-key", "--name", "a:b"]) == 2

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": "Bearer"},
            {"Authorization": f"Basic {KEY}"},
            {"X-API-Key": KEY[:-1]},
            {"X-API-Key": ""},
            {"X-API-Key": "ÿ"},
        ],
    )
    async def test_without_one_all_is_closed(self, locked: Any, headers: dict[str, str]) -> None:
        """No key, half a key or a wrong one: 401, before anything is read or told."""
        got = await locked.client.post("/v1/messages", data=b"{", headers=headers)
        await problem(got, 401)
        assert got.headers["WWW-Authenticate"] == "Bearer"
        await problem(await locked.client.get("/v1/conversations/conv_" + "0" * 26, headers=headers), 401)
        await problem(await locked.client.get("/v1/nothing", headers=headers), 401)

    async def test_probes_stay_open(self, locked: Any) -> None:
        """The kubelet and Prometheus need no key."""
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await locked.client.get(path)).status == 200

    async def test_paths_that_only_look_open(self, locked: Any) -> None:
        """Nothing beside the probes' very paths is open."""
        for path in ("/healthz/", "/%68ealthz/x", "/readyz/../v1/messages"):
            assert (await locked.client.get(path)).status in {401, 404}


class TestRequestIds:
    async def test_it_is_told(self, agent: Any) -> None:
        """A caller's own id comes back, in problems too; one that could forge a log line is replaced."""
        async with agent.client.get("/healthz", headers={"X-Request-Id": "abc-1.2_3"}) as got:
            assert got.headers["X-Request-Id"] == "abc-1.2_3"
        response = await agent.client.get("/v1/nothing", headers={"X-Request-Id": "abc"})
        await problem(response, 404)
        assert response.headers["X-Request-Id"] == "abc"
        for wrong in ("a b", "x" * 129, '"}'):
            async with agent.client.get("/healthz", headers={"X-Request-Id": wrong}) as got:
                assert got.headers["X-Request-Id"] not in {"", wrong}


class TestFaults:
    async def serve(self, error: Exception) -> TestClient[Any, Any]:
        async def broken(_request: web.Request) -> web.Response:
            raise error

        keys = authentication_middleware(parse_api_keys(KEY), None, open_paths=())
        app = web.Application(middlewares=[problem_middleware, keys])
        app.on_response_prepare.append(send_request_id)
        app.router.add_get("/", broken)
        return TestClient(TestServer(app), headers={"X-API-Key": KEY})

    async def test_a_bug_is_a_problem_without_details(self) -> None:
        """An unforeseen exception is a 500 that tells the caller nothing of its text."""
        async with await self.serve(ValueError("ada@example.com")) as client:
            got = await problem(await client.get("/"), 500)
        assert "ada" not in str(got)

    async def test_an_outage_can_be_tried_again(self) -> None:
        """A database that is gone is a 503 that says when to come back."""
        async with await self.serve(StorageUnavailableError("gone")) as client:
            response = await client.get("/")
            await problem(response, 503)
        assert int(response.headers["Retry-After"]) > 0


def wild_bodies() -> st.SearchStrategy[bytes]:
    """Bodies from nearly right to noise."""
    scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text()
    values = st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
    )
    keys = st.sampled_from(["customer_id", "conversation_id", "text"]) | st.text(max_size=5)
    as_json = st.dictionaries(keys, values, max_size=5).map(lambda value: json.dumps(value).encode())
    nearly = st.fixed_dictionaries({"customer_id": st.text(), "text": st.text()}).map(lambda v: json.dumps(v).encode())
    return as_json | nearly | st.binary(max_size=200)


class TestFuzz:
    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(body=wild_bodies())
    async def test_no_body_is_a_server_error(self, agent: Any, body: bytes) -> None:
        """Whatever is sent as a message is answered, refused or not found, and never a 5xx."""
        async with agent.client.post("/v1/messages", data=body, headers=JSON) as got:
            assert got.status < 500, await got.text()
            if got.status >= 400:
                await problem(got, got.status)

    async def test_ten_thousand_mutated_requests(self, start_agent: Any) -> None:
        """Ten thousand requests, each with bytes changed, cut, doubled or moved: none is a server error."""
        agent = await start_agent(RATE_LIMIT="1000000")
        chance = random.Random(3)
        original = orjson.dumps({**MESSAGE, "conversation_id": "conv_" + "0" * 26})
        bodies = [_mutated(original, chance) for _ in range(10_000)]
        server = agent.client.server
        counted = await asyncio.gather(*(_post_all(server.host, server.port, bodies[at::16]) for at in range(16)))
        statuses: Counter[int] = sum(counted, Counter())
        assert statuses.total() == 10_000
        assert all(status < 500 for status in statuses), statuses
        assert {400, 404, 422} <= statuses.keys(), "the mutations reach every kind of check"

    async def test_mutated_heads(self, agent: Any) -> None:
        """Requests whose first line or headers are damaged are answered, refused or cut off, and never a 5xx."""
        chance = random.Random(5)
        head = b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 57\r\n\r\n"
        original = head + orjson.dumps(MESSAGE)
        server = agent.client.server
        for _ in range(300):
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(_mutated(original, chance))
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), 10)
            assert not answer.startswith(b"HTTP/1.1 5"), answer
            writer.close()
        await agent.say("hello")


async def _post_all(host: str, port: int, bodies: list[bytes]) -> Counter[int]:
    """Post each body over one connection with as little ado as possible; the statuses."""
    reader, writer = await asyncio.open_connection(host, port)
    statuses: Counter[int] = Counter()
    for body in bodies:
        head = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        writer.write(f"{head}\r\n\r\n".encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        statuses[int(answer.split(b" ", 2)[1])] += 1
        await reader.readexactly(int(answer.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]))
    writer.close()
    return statuses


def _mutated(body: bytes, chance: random.Random) -> bytes:
    changed = bytearray(body)
    for _ in range(chance.randint(0, 3)):
        at = chance.randrange(len(changed) or 1)
        match chance.randrange(4):
            case 0:
                changed[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del changed[at : at + chance.randint(1, 20)]
            case 2:
                changed[at:at] = changed[at : at + chance.randint(1, 20)]
            case _:
                changed[at:at] = chance.choice([b"\\u0000", b"\\ud83d", b"null", b'"', b"\xc3\x28", b"1e400", b"{}"])
    return bytes(changed)
