from __future__ import annotations

import asyncio
import runpy
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from supportfleet_runtime.callbacks.addresses import AllowList, parse_allow_list
from supportfleet_runtime.callbacks.mail import Mails
from supportfleet_runtime.callbacks.settings import (
    MailServer,
    StartTls,
    is_mail_address,
    parse_mail_server,
    parse_secrets,
)
from supportfleet_runtime.callbacks.webhook import MAX_BODY, Webhooks
from supportfleet_runtime.errors import DeliveryError
from supportfleet_runtime.storage.schema import callbacks

receiving = runpy.run_path(str(Path(__file__).parent / "webhook_receiver.py"))
SECRET = receiving["SECRET"]
LOCAL = parse_allow_list("127.0.0.1")
ALL = "show me all my orders"


@pytest.fixture
async def receiver() -> AsyncIterator[Any]:
    made = receiving["Receiver"]()
    async with made.serving():
        yield made


class Mailbox:
    """An SMTP server's handler: keeps mails, refuses recipients and content as it is told."""

    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.port = 0
        self.recipient = "250 OK"
        self.content = "250 OK"

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        if self.recipient.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.recipient

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, _server: Any, _session: Any, envelope: Any
    ) -> str:
        if self.content.startswith("250"):
            self.mails.append(envelope)
        return self.content


@pytest.fixture
async def mailbox() -> AsyncIterator[Any]:
    handler = Mailbox()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(handler, loop=loop), "127.0.0.1", 0)
    handler.port = server.sockets[0].getsockname()[1]
    yield handler
    server.close()
    await server.wait_closed()


@pytest.fixture
async def webhooks() -> AsyncIterator[Any]:
    made = Webhooks([SECRET], LOCAL, now=now, total=0.5)
    yield made
    await made.close()


def now() -> datetime:
    return datetime.now(UTC)


async def reason_of(sending: Any) -> tuple[str, bool]:
    with pytest.raises(DeliveryError) as caught:
        await sending
    return caught.value.reason, caught.value.is_final


class TestWebhooks:
    async def test_it_is_signed(self, receiver: Any, webhooks: Any) -> None:
        """A receiver with the secret, and the standard's own library, finds event, id and time to be ours."""
        await webhooks.send("cb_1", receiver.url, {"type": "task.done"})
        assert receiver.verified() == {"type": "task.done"}
        assert receiver.ids == ["cb_1"]

    async def test_a_secret_can_be_replaced(self, receiver: Any) -> None:
        """With two keys a receiver that knows either is content."""
        other = "whsec_" + "QUJD" * 8
        both = Webhooks([other, SECRET], LOCAL, now=now)
        await both.send("cb_1", receiver.url, {})
        await both.close()
        assert receiver.verified() == receiver.verified(secret=other) == {}

    @pytest.mark.parametrize(
        ("behaviour", "reason", "is_final"),
        [
            (receiving["status"](500), "http_500", False),
            (receiving["status"](404), "http_404", False),
            (receiving["status"](410), "http_410", True),
            (receiving["status"](302, Location="http://127.0.0.1:9/"), "redirect", False),
            (receiving["hang"], "timeout", False),
            (receiving["break_off"], "unreachable", False),
        ],
    )
    async def test_what_goes_wrong(
        self,
        receiver: Any,
        webhooks: Any,
        behaviour: Any,
        reason: str,
        is_final: bool,  # noqa: FBT001 - parametrized
    ) -> None:
        """Errors, redirects, silence and broken connections are failures with a reason; nothing is followed."""
        receiver.behaviours.append(behaviour)
        assert await reason_of(webhooks.send("cb_1", receiver.url, {})) == (reason, is_final)
        assert len(receiver.received) == 1

    async def test_an_endless_answer_is_not_read(self, receiver: Any, webhooks: Any) -> None:
        """A success whose body never ends is a success."""
        receiver.behaviours.append(receiving["endless"])
        await webhooks.send("cb_1", receiver.url, {})

    async def test_nobody_there(self, webhooks: Any) -> None:
        """A port where nobody listens is worth another try."""
        assert await reason_of(webhooks.send("cb_1", "http://127.0.0.1:9/", {})) == ("unreachable", False)

    async def test_closed_addresses_are_not_called(self, receiver: Any) -> None:
        """Without the allow-list loopback is out of reach: as an address, and as what a name resolves to."""
        port = receiver.url.split(":")[2].split("/")[0]

        async def inwards(host: str, port: int, _family: Any) -> Any:
            return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0, "flags": 0}]

        strict = Webhooks([SECRET], AllowList(), now=now, resolve=inwards)
        for url in (f"https://127.0.0.1:{port}/", f"https://rebind.example:{port}/", receiver.url):
            assert await reason_of(strict.send("cb_1", url, {})) == ("address_not_allowed", True)
        await strict.close()
        assert not receiver.received

    async def test_the_connection_is_made_to_what_was_judged(self, receiver: Any) -> None:
        """A name whose answer changes after it was judged is connected to where it was judged to be."""
        answers = ["127.0.0.1", "127.0.0.2"]
        host, port = "turns.example", receiver.url.split(":")[2].split("/")[0]

        async def turning(name: str, port: int, _family: Any) -> Any:
            return [{"hostname": name, "host": answers.pop(0), "port": port, "family": 2, "proto": 0, "flags": 0}]

        webhooks = Webhooks([SECRET], parse_allow_list(f"{host} 127.0.0.1/32"), now=now, resolve=turning)
        await webhooks.send("cb_1", f"http://{host}:{port}/", {})
        await webhooks.close()
        assert answers == ["127.0.0.2"], "it was asked for once"

    async def test_a_large_result_is_left_out(self, receiver: Any, webhooks: Any) -> None:
        """Nobody is posted megabytes: the task has them."""
        await webhooks.send("cb_1", receiver.url, {"type": "task.done", "data": {"result": "x" * MAX_BODY}})
        assert receiver.verified()["data"] == {"result": None, "result_left_out": True}


class TestMails:
    def mails(self, mailbox: Any, company: str = "Northwind") -> Mails:
        server = MailServer("127.0.0.1", mailbox.port, tls=False, start_tls=StartTls.NEVER)
        return Mails(server, "support@shop.example", lambda: f"Your request to {company}", now=now)

    async def test_the_reply_arrives(self, mailbox: Any) -> None:
        """One mail, to that address, from the sender, with the reply as its text."""
        await self.mails(mailbox).send("cb_1", "ada@customer.example", "Grüße, your order is on its way.")
        (envelope,) = mailbox.mails
        assert (envelope.mail_from, envelope.rcpt_tos) == ("support@shop.example", ["ada@customer.example"])
        assert b"Message-ID: <cb_1@shop.example>" in envelope.content
        assert b"your order is on its way" in envelope.content

    async def test_a_resend_can_be_recognised(self, mailbox: Any) -> None:
        """The same callback has the same Message-ID, whenever it is sent."""
        for _ in range(2):
            await self.mails(mailbox).send("cb_1", "ada@customer.example", "hello")
        ids = {line for mail in mailbox.mails for line in mail.content.splitlines() if line.startswith(b"Message-ID")}
        assert len(ids) == 1

    @given(st.text(max_size=80), st.text(max_size=80))
    def test_no_header_can_be_smuggled_in(self, text: str, company: str) -> None:
        """Whatever a reply or the company's name holds, the mail has its own headers and no others."""
        server = MailServer("127.0.0.1", 25, tls=False, start_tls=StartTls.NEVER)
        mails = Mails(server, "support@shop.example", lambda: f"Your request to {company}", now=now)
        clean = text.encode("utf-8", "replace").decode()
        mail = mails.message("cb_1", "ada@customer.example", clean)
        head = bytes(mail).partition(b"\r\n\r\n")[0]
        names = [line.partition(b":")[0] for line in head.split(b"\r\n") if not line.startswith((b" ", b"\t"))]
        assert names == [
            b"From",
            b"To",
            b"Subject",
            b"Date",
            b"Message-ID",
            b"Auto-Submitted",
            b"Content-Type",
            b"Content-Transfer-Encoding",
            b"MIME-Version",
        ]

    @pytest.mark.parametrize(
        "address",
        [
            "ada",
            "@example.com",
            "ada@",
            "ada@exa mple.com",
            "ada@example.com\r\nBcc: eve@example.com",
            "ada@example.com,eve@example.com",
            "Ada <ada@example.com>",
            "ada@example..com",
            ".ada@example.com",
            "ada@-example.com",
            '"a b"@example.com',
            "a" * 65 + "@example.com",
            "ädä@example.com",
        ],
    )
    def test_what_is_no_address(self, address: str) -> None:
        """Anything but one plain address is refused."""
        assert not is_mail_address(address)

    @pytest.mark.parametrize("address", ["ada@example.com", "a.b+c@sub.example.co", "x@localhost"])
    def test_what_is(self, address: str) -> None:
        """Plain addresses are taken."""
        assert is_mail_address(address)

    async def test_what_goes_wrong(self, mailbox: Any) -> None:
        """A recipient that doesn't exist is final; a server that is busy, or gone, is worth another try."""
        sending = self.mails(mailbox)
        mailbox.recipient = "550 no such user"
        assert await reason_of(sending.send("cb_1", "ada@x.example", "hi")) == ("recipient_refused", True)
        mailbox.recipient = "451 later"
        assert await reason_of(sending.send("cb_1", "ada@x.example", "hi")) == ("recipient_refused", False)
        mailbox.recipient, mailbox.content = "250 OK", "554 no"
        assert await reason_of(sending.send("cb_1", "ada@x.example", "hi")) == ("smtp_554", True)
        mailbox.content = "452 full"
        assert await reason_of(sending.send("cb_1", "ada@x.example", "hi")) == ("smtp_452", False)
        mailbox.port = 9
        assert await reason_of(self.mails(mailbox).send("cb_1", "ada@x.example", "hi")) == ("unreachable", False)

    async def test_encryption_is_demanded(self, mailbox: Any) -> None:
        """A server that offers no encryption gets no mail where it is required, which is the default."""
        server = parse_mail_server(f"smtp://user:secret@127.0.0.1:{mailbox.port}")
        sending = Mails(server, "support@shop.example", lambda: "Hello", now=now)
        assert await reason_of(sending.send("cb_1", "ada@x.example", "hi")) == ("unreachable", False)
        assert not mailbox.mails


class TestSettings:
    @pytest.mark.parametrize("text", ["whsec_!!", "whsec_QUJD", "short", "whsec_" + "QUJD" * 40])
    def test_bad_secrets(self, text: str) -> None:
        """A key that is not base64 of 24 to 64 bytes is refused, without being repeated."""
        with pytest.raises(ValueError, match="a key") as caught:
            parse_secrets(text)
        assert text not in str(caught.value)

    def test_mail_servers(self) -> None:
        """Ports and encryption have the usual defaults; what is percent-encoded is decoded."""
        assert parse_mail_server("smtp://mail.example") == MailServer(
            "mail.example", 587, tls=False, start_tls=StartTls.REQUIRED
        )
        found = parse_mail_server("smtps://a%40b:p%2Fw@mail.example")
        assert (found.port, found.tls, found.user, found.password) == (465, True, "a@b", "p/w")
        assert "p/w" not in repr(found)

    @pytest.mark.parametrize(
        "url", ["http://mail", "smtp://", "smtp://mail/x", "smtp://mail?x=1", "smtp://mail?starttls=maybe", "mail:25"]
    )
    def test_bad_mail_servers(self, url: str) -> None:
        """What is no SMTP address is refused."""
        with pytest.raises(ValueError, match=r".+"):
            parse_mail_server(url)


def configured(**more: str) -> dict[str, str]:
    return {"WEBHOOK_SECRET": SECRET, "WEBHOOK_ALLOWED": "127.0.0.1", **more}


async def post(agent: Any, callback: Any, text: str = "hello") -> tuple[int, Any]:
    body = {"customer_id": "cust-1001", "text": text, "callback": callback}
    async with agent.client.post("/v1/messages", json=body) as got:
        return got.status, await got.json(content_type=None)


async def task_when(agent: Any, task_id: str, state: str) -> Any:
    async with asyncio.timeout(20):
        while True:
            async with agent.client.get(f"/v1/tasks/{task_id}") as got:
                task = await got.json()
            if task["callback"]["state"] == state:
                return task
            await asyncio.sleep(0.02)


class TestAsking:
    @pytest.mark.parametrize(
        ("callback", "pointer", "remedy"),
        [
            ({"webhook": {"url": "https://hooks.example/"}}, "#/callback/webhook", "WEBHOOK_SECRET"),
            ({"email": {"address": "ada@example.com"}}, "#/callback/email", "SMTP_URL"),
            ({}, "#/callback", "name a webhook"),
            ({"webhook": {"url": "https://x.example/"}, "email": {"address": "a@b.c"}}, "#/callback", "name a"),
            ({"webhook": {}}, "#/callback/webhook/url", "required"),
            ("https://hooks.example/", "#/callback", "valid"),
        ],
    )
    async def test_what_is_not_configured(self, start_agent: Any, callback: Any, pointer: str, remedy: str) -> None:
        """What can't be done is refused before the message is taken, with the place and the remedy."""
        agent = await start_agent()
        status, told = await post(agent, callback)
        assert status == 422
        assert told["errors"][0]["pointer"] == pointer
        assert remedy in told["errors"][0]["detail"]
        assert await agent.metric('agent_task_total{outcome="done"}') == 0

    @pytest.mark.parametrize(
        ("callback", "pointer"),
        [
            ({"webhook": {"url": "http://hooks.example/"}}, "#/callback/webhook/url"),
            ({"webhook": {"url": "https://10.0.0.1/"}}, "#/callback/webhook/url"),
            ({"webhook": {"url": "https://2130706433/"}}, "#/callback/webhook/url"),
            ({"email": {"address": "ada@example.com\nBcc: eve@example.com"}}, "#/callback/email/address"),
        ],
    )
    async def test_what_may_not_be_called(self, start_agent: Any, callback: Any, pointer: str) -> None:
        """An address that would not be called is refused at once."""
        agent = await start_agent(**configured(SMTP_URL="smtp://127.0.0.1", EMAIL_FROM="support@shop.example"))
        status, told = await post(agent, callback)
        assert (status, told["errors"][0]["pointer"]) == (422, pointer)


class TestDelivering:
    async def test_a_webhook_tells_the_reply(self, start_agent: Any, receiver: Any) -> None:
        """When the task has ended its answer is delivered once, and the task says so, without the address."""
        agent = await start_agent(**configured())
        status, got = await post(agent, {"webhook": {"url": receiver.url}})
        assert status == 200
        task = await task_when(agent, got["task_id"], "delivered")
        assert task["callback"].keys() == {"kind", "state", "tries", "error", "finished_at"}
        event = receiver.verified()
        assert (event["type"], event["data"]["task_id"], event["data"]["reply"]) == (
            "task.done",
            got["task_id"],
            got["reply"],
        )
        assert await agent.metric('agent_callback_total{kind="webhook",outcome="delivered"}') == 1

    async def test_a_long_task_is_told_with_its_result(self, start_agent: Any, receiver: Any) -> None:
        """Who asked for what takes long is told when it is done, with the result."""
        agent = await start_agent(**configured())
        status, got = await post(agent, {"webhook": {"url": receiver.url}}, ALL)
        assert status == 202
        await task_when(agent, got["task_id"], "delivered")
        assert len(receiver.verified()["data"]["result"]["orders"]) == 4

    async def test_a_mail_tells_the_reply(self, start_agent: Any, mailbox: Any) -> None:
        """The same by e-mail."""
        agent = await start_agent(
            SMTP_URL=f"smtp://127.0.0.1:{mailbox.port}?starttls=never", EMAIL_FROM="support@shop.example"
        )
        _, got = await post(agent, {"email": {"address": "ada@customer.example"}})
        await task_when(agent, got["task_id"], "delivered")
        assert mailbox.mails[0].rcpt_tos == ["ada@customer.example"]

    async def test_it_is_tried_again_with_growing_pauses(self, start_agent: Any, receiver: Any, clock: Any) -> None:
        """A failing receiver is tried again, later each time, under the same id, until it takes it."""
        agent = await start_agent(now=clock, **configured())
        receiver.behaviours += [receiving["status"](500), receiving["hang"], receiving["status"](503)]
        agent.parts.caller._webhooks._timeout = receiving_timeout()
        _, got = await post(agent, {"webhook": {"url": receiver.url}})
        pauses = []
        for tries in range(1, 4):
            task = await until_tried(agent, got["task_id"], tries)
            assert task["callback"]["error"]
            pauses.append((await due_at(agent)) - clock())
            clock.advance(pauses[-1].total_seconds() + 1)
        await task_when(agent, got["task_id"], "delivered")
        assert pauses == sorted(pauses)
        assert timedelta(seconds=2) < pauses[0] <= timedelta(seconds=5)
        assert len(receiver.ids) == 4
        assert len(set(receiver.ids)) == 1
        assert await agent.metric('agent_callback_total{kind="webhook",outcome="retried"}') == 3

    async def test_it_ends_somewhere(self, start_agent: Any, receiver: Any) -> None:
        """After its tries a callback has failed, for its task to tell and for the metrics to count."""
        agent = await start_agent(**configured(CALLBACK_MAX_TRIES="1"))
        receiver.behaviours.append(receiving["status"](500))
        _, got = await post(agent, {"webhook": {"url": receiver.url}})
        task = await task_when(agent, got["task_id"], "failed")
        assert (task["status"], task["callback"]["error"]) == ("done", "http_500")
        assert await agent.metric('agent_callback_total{kind="webhook",outcome="failed"}') == 1

    async def test_several_pods_share_the_work(self, start_agent: Any, receiver: Any) -> None:
        """Each of many callbacks is delivered once, whichever pod makes it."""
        agents = [await start_agent(**configured()) for _ in range(2)]
        told = await asyncio.gather(
            *(post(agents[number % 2], {"webhook": {"url": receiver.url}}) for number in range(12))
        )
        for _, got in told:
            await task_when(agents[0], got["task_id"], "delivered")
        assert len(receiver.ids) == len(set(receiver.ids)) == 12

    async def test_nothing_is_called_before_the_task_has_ended(
        self, start_agent: Any, receiver: Any, database: Any
    ) -> None:
        """A message that no worker can take yet leaves its callback waiting."""
        digest = "sha256:" + "a" * 64
        agent = await start_agent(until_ready=False, MODEL_DIGEST=digest, API_TIMEOUT_SECONDS="0", **configured())
        await asyncio.wait_for(agent.parts.database.read(lambda c: c.execute(select(callbacks)).all()), 10)
        async with asyncio.timeout(10):
            while agent.parts.progress.schema is not None:  # noqa: ASYNC110 - a field of the process
                await asyncio.sleep(0.01)
        _, got = await post(agent, {"webhook": {"url": receiver.url}})
        assert await agent.parts.caller._outbox.receive(10) == ()
        working = await start_agent(**configured())
        await task_when(working, got["task_id"], "delivered")


def receiving_timeout() -> Any:
    from aiohttp import ClientTimeout  # noqa: PLC0415 - only here

    return ClientTimeout(total=0.5)


async def until_tried(agent: Any, task_id: str, tries: int) -> Any:
    async with asyncio.timeout(20):
        while True:
            async with agent.client.get(f"/v1/tasks/{task_id}") as got:
                task = await got.json()
            if task["callback"]["tries"] == tries and task["callback"]["state"] == "waiting":
                return task
            await asyncio.sleep(0.02)


async def due_at(agent: Any) -> datetime:
    query = select(callbacks.c.visible_at)
    found: datetime = await agent.parts.database.read(lambda connection: connection.execute(query).scalar_one())
    return found
