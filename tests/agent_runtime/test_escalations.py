from __future__ import annotations

import argparse
import asyncio
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from supportfleet_runtime import escalations_command
from supportfleet_runtime.agent.turn import Attempt, Exchange
from supportfleet_runtime.conversations.escalations import ASKED, NEEDED, Escalation, Escalations
from supportfleet_runtime.errors import ConflictError, NotFoundError
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.schema import CLAIMED, OPEN, RESOLVED, audit_log

Desk = runpy.run_path(str(Path(__file__).parents[1] / "agent_runtime" / "test_conversations.py"))["Desk"]


@pytest.fixture
def desk(database: Database, clock: Any) -> Any:
    return Desk(database, clock)


@pytest.fixture
def calls(database: Database, clock: Any) -> Escalations:
    return Escalations(database, "shop/helper", now=clock)


async def called(desk: Any, calls: Escalations, **facts: Any) -> Escalation:
    """A conversation in which a person was called, and the call."""
    await desk.say("I want my money back")
    await desk.reply(await desk.take(), "A colleague will look", escalate=True, **facts)
    return (await calls.latest(10))[-1]


class TestCalling:
    async def test_a_call_is_stored_with_its_reply(self, desk: Any, calls: Escalations) -> None:
        """A reply that calls a person makes an open call that says which turn, why, and what was tried."""
        attempts = (Attempt("refund", "needs_approval"), Attempt("order_lookup", "done"))
        one = await called(desk, calls, attempts=attempts)
        assert (one.turn, one.state, one.intent, one.reason) == (1, OPEN, "refund", NEEDED)
        assert one.attempts == attempts
        assert "money" not in repr(one)

    async def test_one_call_while_it_lasts(self, desk: Any, calls: Escalations) -> None:
        """Who is with a person already is not called for again."""
        one = await called(desk, calls)
        await desk.say("hello?", one.conversation_id)
        await desk.reply(await desk.take(), escalate=True)
        assert len(await calls.latest(10)) == 1

    async def test_the_reason_is_the_customers_wish(self, start_agent: Any) -> None:
        """A customer who asks the running agent for a person makes a call that says so."""
        agent = await start_agent()
        said = await agent.say("I want to talk to a human")
        assert said["escalated"]
        scope = agent.parts.settings.scope
        (one,) = await Escalations(agent.parts.database, scope, now=lambda: None).latest(10)  # type: ignore[arg-type,return-value]
        assert (one.reason, one.conversation_id) == (ASKED, said["conversation_id"])

    async def test_agents_are_apart(self, desk: Any, calls: Escalations, database: Database, clock: Any) -> None:
        """Another agent on the same database neither sees nor takes the call."""
        one = await called(desk, calls)
        other = Escalations(database, "shop/other", now=clock)
        assert not await other.latest(10)
        with pytest.raises(NotFoundError):
            await other.claim(one.escalation_id, "eve")


class TestHandling:
    async def test_of_many_one_gets_it(self, desk: Any, calls: Escalations) -> None:
        """Of twenty people who claim a call at the same time, one has it, and the others are told."""
        one = await called(desk, calls)
        people = [f"person {number}" for number in range(20)]
        outcomes = await asyncio.gather(
            *(calls.claim(one.escalation_id, person) for person in people), return_exceptions=True
        )
        winners = [outcome for outcome in outcomes if isinstance(outcome, Escalation)]
        assert len(winners) == 1
        assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 19
        (now,) = await calls.latest(10)
        assert (now.state, now.claimed_by) == (CLAIMED, winners[0].claimed_by)

    async def test_claiming_again_is_no_conflict(self, desk: Any, calls: Escalations, database: Database) -> None:
        """Who claims what they hold still holds it, and the audit log has it once."""
        one = await called(desk, calls)
        await calls.claim(one.escalation_id, "bea")
        assert (await calls.claim(one.escalation_id, "bea")).claimed_by == "bea"
        query = select(audit_log.c.event).where(audit_log.c.event.like("escal%")).order_by(audit_log.c.id)
        assert await database.read(lambda c: c.execute(query).scalars().all()) == ["escalated", "escalation_claimed"]

    @pytest.mark.parametrize("act", ["reply", "resolve"])
    async def test_only_who_holds_it_goes_on(self, desk: Any, calls: Escalations, act: str) -> None:
        """Replying and resolving is for the person who claimed the call, and only until it is resolved."""
        one = await called(desk, calls)

        async def do(person: str) -> Any:
            more = ("Hello",) if act == "reply" else ()
            return await getattr(calls, act)(one.escalation_id, person, *more)

        with pytest.raises(ConflictError, match="not claimed"):
            await do("bea")
        await calls.claim(one.escalation_id, "bea")
        with pytest.raises(ConflictError, match="another person"):
            await do("carl")
        await calls.resolve(one.escalation_id, "bea")
        with pytest.raises(ConflictError, match="resolved"):
            await do("bea")

    async def test_a_persons_reply_is_part_of_the_conversation(self, desk: Any, calls: Escalations) -> None:
        """What a person writes is shown to the customer in its place, and to the agent with the next turn."""
        one = await called(desk, calls)
        await calls.claim(one.escalation_id, "bea")
        await calls.reply(one.escalation_id, "bea", "It is on its way to you.")
        await desk.say("Thank you", one.conversation_id)
        shown = await desk.views.conversation(one.conversation_id, "ada", 10)
        assert [(message.turn, message.role) for message in shown.messages] == [
            (1, "customer"),
            (1, "agent"),
            (2, "agent"),
            (3, "customer"),
        ]
        assert shown.messages[2].reply is not None
        assert shown.messages[2].reply.source == "person"
        turn = await desk.turns.load((await desk.take()).id)
        told = "A colleague will look\n\nIt is on its way to you."
        assert turn.history == (Exchange("I want my money back", told),)

    async def test_a_resolved_call_can_be_followed_by_another(self, desk: Any, calls: Escalations) -> None:
        """With its call resolved a conversation is the agent's again, and a new need is a new call."""
        one = await called(desk, calls)
        await calls.claim(one.escalation_id, "bea")
        assert (await calls.resolve(one.escalation_id, "bea")).state == RESOLVED
        assert not (await desk.views.conversation(one.conversation_id, "ada", 10)).escalated
        await desk.say("again", one.conversation_id)
        await desk.reply(await desk.take(), escalate=True)
        (new,) = await calls.latest(10)
        assert (new.turn, new.state) == (2, OPEN)
        assert len(await calls.latest(10, (OPEN, CLAIMED, RESOLVED))) == 2


class TestCommand:
    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch: Any, database_url: str, tmp_path: Any) -> None:
        given = {"DATABASE_URL": database_url, "CONFIG_DIR": str(tmp_path), "POD_NAMESPACE": "shop"}
        for name, value in {**given, "AGENT_NAME": "helper"}.items():
            monkeypatch.setenv(name, value)

    async def run(self, *arguments: str) -> int:
        return await asyncio.to_thread(escalations_command.run, command(*arguments))

    async def test_list_claim_resolve(self, desk: Any, calls: Escalations, capsys: Any) -> None:
        """A call goes its way by the command alone; resolved, it is shown with --all only."""
        one = await called(desk, calls)
        assert await self.run("claim", one.escalation_id, "--person", "bea") == 0
        assert await self.run("list", "-o", "json") == 0
        out = capsys.readouterr().out
        (shown,) = json.loads(out[out.index("[") :])
        assert (shown["escalation_id"], shown["state"], shown["claimed_by"]) == (one.escalation_id, CLAIMED, "bea")
        assert await self.run("resolve", one.escalation_id, "--person", "bea") == 0
        assert await self.run("list") == 0
        assert one.conversation_id not in capsys.readouterr().out
        assert await self.run("list", "--all") == 0
        assert one.conversation_id in capsys.readouterr().out

    async def test_what_is_not_theirs(self, desk: Any, calls: Escalations, capsys: Any) -> None:
        """A call that is unknown, or another's, is refused with the reason and exit code 1."""
        one = await called(desk, calls)
        await calls.claim(one.escalation_id, "bea")
        assert await self.run("claim", one.escalation_id, "--person", "carl") == 1
        assert "another person" in capsys.readouterr().err
        assert await self.run("resolve", "esc_unknown", "--person", "carl") == 1
        assert "no such escalation" in capsys.readouterr().err

    @pytest.mark.parametrize("arguments", [("claim", "x"), ("claim", "x", "--person", " "), ("list", "--limit", "0")])
    def test_bad_arguments_are_refused(self, arguments: tuple[str, ...]) -> None:
        """What can't be meant ends with usage and exit code 2."""
        with pytest.raises(SystemExit) as ended:
            command(*arguments)
        assert ended.value.code == 2


def command(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    escalations_command.add_arguments(parser)
    return parser.parse_args(arguments)
