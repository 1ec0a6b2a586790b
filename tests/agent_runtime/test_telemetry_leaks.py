"""Secrets and personal data, planted in whatever the runtime takes in, and looked for in whatever it tells."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import runpy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import ClientError
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_runtime import config
from supportfleet_runtime.__main__ import main
from supportfleet_runtime.observability.logs import configure_logging
from supportfleet_runtime.observability.masking import MASK, known_secrets, masking

_receiver = runpy.run_path(str(Path(__file__).with_name("telemetry_receiver.py")))

CALLER_KEY = "planted-caller-key-0123456789"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJwbGFudGVkIn0.cGxhbnRlZC1zaWduYXR1cmU"
DATADOG_KEY = "planted-datadog-key-0123456789"
COLLECTOR_KEY = "planted-collector-key-0123456789"
DATABASE_PASSWORD = "planted-database-p%40ssword"
BROKER_PASSWORD = "planted-broker-password"
SECRETS = {
    "a caller's API key": CALLER_KEY,
    "a token": JWT,
    "a token's claims": JWT.split(".")[1],
    "Datadog's key": DATADOG_KEY,
    "the collector's key": COLLECTOR_KEY,
    "the database's password": DATABASE_PASSWORD,
    "the database's password, decoded": "planted-database-p@ssword",
    "the broker's password": BROKER_PASSWORD,
    "the model's key": "sk-ant-test-key-0123456789",
}
PERSONAL = {
    "a name": "Wilhelmina Quarterstaff",
    "an e-mail address": "wilhelmina.q@example.org",
    "a telephone number": "+49 171 5550123",
    "a card": "4111-1111-1111-1111",
    "an order's content": "Orthopaedic insoles, pair",
    "a street": "Plantedstrasse 17",
}
TEXT = "hm, I am {a name}, {an e-mail address}, {a telephone number}, card {a card}, {a street}".format_map(PERSONAL)
CUSTOMER = PERSONAL["an e-mail address"]
PLANTED = {**SECRETS, **PERSONAL}


@pytest.fixture
async def receiver() -> AsyncIterator[Any]:
    async with _receiver["Receiver"]().serving() as running:
        yield running


def found_in(told: dict[str, str]) -> list[str]:
    """What of the planted is told, and where."""
    return [f"{what} in {where}" for where, text in told.items() for what, one in PLANTED.items() if one in text]


def order_book() -> dict[str, Any]:
    """A configuration that holds a customer's order."""
    return {
        "company": "Northwind",
        "order_book": {
            "orders": [
                {
                    "id": "A-1001",
                    "customer_id": CUSTOMER,
                    "item": PERSONAL["an order's content"],
                    "status": "shipped",
                    "ordered_on": "2026-11-01",
                }
            ]
        },
    }


async def talk(agent: Any, api: Any) -> None:
    """All ways in, with something planted in each: headers, bodies, queries, paths; and failures of all kinds."""
    headers = {
        "X-API-Key": CALLER_KEY,
        "User-Agent": PERSONAL["a name"],
        "Cookie": f"session={JWT}",
        "Referer": f"https://shop.example/?email={CUSTOMER}&key={CALLER_KEY}",
        "X-Forwarded-For": PERSONAL["a card"],
        "traceparent": JWT,
        "tracestate": f"v={CALLER_KEY}",
        "baggage": f"user={CUSTOMER}",
    }
    message = {"customer_id": CUSTOMER, "text": TEXT}

    numbers = itertools.count()

    async def ask(method: str, path: str, **more: Any) -> Any:
        headers["Idempotency-Key"] = f"{PERSONAL['a card']}-{next(numbers)}"  # the same one is answered the same
        with contextlib.suppress(ClientError):
            async with agent.client.request(method, path, **{"headers": headers, **more}) as got:
                await got.read()
                return got

    await ask("POST", "/v1/messages", json=message)
    for status in (400, 401, 500):
        api.then(lambda status=status: api.error(status, f"{TEXT} {api.key}"))
        await ask("POST", "/v1/messages", json=message)
    await ask("POST", "/v1/messages", json={**message, "text": [TEXT]})
    await ask("POST", "/v1/messages", json={**message, TEXT: JWT})
    await ask("POST", "/v1/messages", json={**message, "conversation_id": PERSONAL["a card"]})
    await ask("POST", "/v1/messages", data=json.dumps(message) + "}")
    await ask("POST", "/v1/messages", json=message, headers={"Authorization": f"Bearer {JWT}"})
    await ask("GET", f"/v1/tasks/{PERSONAL['a card']}", params={"customer_id": CUSTOMER})
    await ask("GET", f"/v1/conversations/{CALLER_KEY}", params={"turns": TEXT, "key": CALLER_KEY})
    await ask("GET", f"/v1/{PERSONAL['a street']}", params={"email": CUSTOMER})
    await ask("PROPFIND", f"/{CUSTOMER}")

    def bug(_text: str) -> Any:
        raise RuntimeError(f"{TEXT} {CALLER_KEY}") from KeyError(TEXT)

    agent.parts.model.classifier.classify = bug
    await ask("POST", "/v1/messages", json=message)


@pytest.mark.parametrize("level", ["debug", "info"])
async def test_nothing_planted_is_told(
    start_agent: Any,
    messages_api: Any,
    receiver: Any,
    database_url: str,
    tmp_path: Path,
    capfd: Any,
    level: str,
    monkeypatch: Any,
) -> None:
    """Keys and personal data in every input are in no log, metric, trace or listing of dead letters."""
    (tmp_path / "agent_config.json").write_text(json.dumps({"company": "Northwind"}))
    environ = {
        "API_KEYS": CALLER_KEY,
        "ANTHROPIC_API_KEY": messages_api.key,
        "ANTHROPIC_BASE_URL": messages_api.url,
        "CLAUDE_RETRIES": "0",
        "QUEUE_MAX_TRIES": "1",
        "LOG_LEVEL": level,
        "ENABLE_TRACING": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"api-key={COLLECTOR_KEY}",
        "DATADOG_API_KEY": DATADOG_KEY,
        "DD_OTLP_ENDPOINT": receiver.url,
    }
    stream = io.StringIO()
    configure_logging(level, stream)  # nothing is masked: what is told is fit to be told as it is
    agent = await start_agent(**environ)
    await talk(agent, messages_api)
    (tmp_path / "agent_config.json").write_text(json.dumps({**order_book(), "history": TEXT}))
    await start_agent(
        until_ready=False,
        DATABASE_URL=f"postgresql://u:{DATABASE_PASSWORD}@127.0.0.1:9/d",
        QUEUE_TYPE="redis",
        QUEUE_URL=f"redis://u:{BROKER_PASSWORD}@127.0.0.1:9/0",
        CONFIG_DIR=str(tmp_path / "none"),
    )
    await asyncio.wait_for(_logged(stream, "schema_not_ready", "tasks_not_sent", "configuration_not_changed"), 30)
    await receiver.until("work", "model call")
    await agent.parts.telemetry.close()
    monkeypatch.setenv("DATABASE_URL", database_url)
    capfd.readouterr()
    assert await asyncio.to_thread(main, ["deadletters", "list", "-o", "json"]) == 0
    letters = capfd.readouterr().out
    configure_logging(level, stream)  # the command logged to its own
    assert json.loads(letters)
    log = stream.getvalue()
    assert all(event in log for event in ("message_answered", "task_dead", "provider_failed", "task_failed"))
    told = {
        "the log": log,
        "the metrics": agent.parts.metrics.render().decode(),
        "what was sent": b"".join(receiver.bodies).decode(errors="replace"),
        "the dead letters": letters,
        "the settings": repr(agent.parts.settings),
    }
    assert found_in(told) == []


async def _logged(stream: io.StringIO, *events: str) -> None:
    while not all(f'"{event}"' in stream.getvalue() for event in events):  # noqa: ASYNC110 - another task logs
        await asyncio.sleep(0.02)


class TestMasking:
    def test_known_secrets_are_masked(self) -> None:
        """Should a secret get into a line all the same, it is masked there, as is what looks like one."""
        stream = io.StringIO()
        configuration = config.load(
            {
                "API_KEYS": f"{CALLER_KEY}, another-long-api-key",
                "DATABASE_URL": f"postgresql://u:{DATABASE_PASSWORD}@h/d",
                "OTEL_EXPORTER_OTLP_HEADERS": f"api-key={COLLECTOR_KEY}",
                "AWS_SECRET_ACCESS_KEY": "planted-aws-secret",
            }
        )
        configure_logging("info", stream, secrets=config.secrets(configuration))
        for secret in (*SECRETS.values(), "another-long-api-key", "planted-aws-secret"):
            if secret not in {DATADOG_KEY, BROKER_PASSWORD, JWT.split(".")[1]}:  # these are not configured here
                structlog.get_logger().info("oops", text=f"so {secret} it is")
        lines = stream.getvalue().splitlines()
        assert {json.loads(line)["text"] for line in lines} == {f"so {MASK} it is"}

    @given(st.text(min_size=6).filter(lambda text: len(text.strip()) >= 6), st.text(), st.text())
    def test_however_a_line_writes_it(self, secret: str, before: str, after: str) -> None:
        """Whatever a secret is made of, it isn't in a line of JSON any more, and the line is JSON still."""
        mask = masking(known_secrets({"MY_TOKEN": secret}))
        line = json.loads(mask(json.dumps({"a": before, "b": f"{secret.strip()}", "c": after})))
        assert secret.strip() not in str(line.get("b"))

    def test_short_values_are_left_alone(self) -> None:
        """A password of a few letters would be masked all over the log."""
        assert masking(known_secrets({"MY_TOKEN": "abc"}))("abcdef") == "abcdef"
