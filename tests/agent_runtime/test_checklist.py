from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from sqlalchemy import text

from supportfleet_runtime.agent import breaker
from supportfleet_runtime.checklist import (
    alert_rules,
    authentication,
    breakers,
    command,
    configuration,
    logs,
    migrations,
    models,
    monitoring,
    on_call,
    queue_round_trip,
    rate_limiter,
    rules,
    runbooks,
    secrets,
)
from supportfleet_runtime.checklist.outcome import (
    EXIT_CODES,
    NotCheckableError,
    Outcome,
    Result,
    Verdict,
    overall,
    passed,
)
from supportfleet_runtime.checklist.runner import CHECKS, run_checks
from supportfleet_runtime.checklist.subject import Subject, make_subject
from supportfleet_runtime.queue.port import Lease
from supportfleet_runtime.queue.sql import SqlQueue
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.migrations import HEAD, VERSION_TABLE
from supportfleet_runtime.storage.schema import metadata

ROOT = Path(__file__).parents[2]
RULES = ROOT / "manifests" / "alerts" / "agent.rules.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks"
DOCUMENT = ROOT / "docs" / "checklist.md"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
KEY = "Q7mVt2xLr9Zk4WbN8sHd3Fyc"


def subject(url: str | None = None, **environ: str) -> Subject:
    return make_subject({"CONFIG_DIR": "/nonexistent", **environ}, url, lambda: NOW)


def address(agent: Any) -> str:
    return str(agent.client.make_url("")).rstrip("/")


async def found(check: Callable[[Subject], Any], given: Subject) -> tuple[str, str]:
    """A check's verdict and reason, as the checklist gives them."""
    (result,) = await run_checks(given, checks={"it": check})
    return result.outcome.verdict, result.outcome.reason


class TestVerdicts:
    @pytest.mark.parametrize(
        ("verdicts", "whole", "code"),
        [("PASS PASS", "PASS", 0), ("PASS FAIL ERROR", "FAIL", 1), ("PASS ERROR", "ERROR", 2), ("FAIL", "FAIL", 1)],
    )
    def test_the_whole_follows_from_its_parts(self, verdicts: str, whole: str, code: int) -> None:
        """One failure fails it all; what could not be checked does where nothing failed."""
        results = [Result("x", Outcome(Verdict(one), ""), 0.0) for one in verdicts.split()]
        assert overall(results) == whole
        assert EXIT_CODES[overall(results)] == code

    async def test_what_goes_wrong_in_a_check_is_its_own(self) -> None:
        """A check that breaks, hangs or can't be made is an ERROR without foreign words; the others are made."""

        async def breaks(_subject: Subject) -> Outcome:
            raise ValueError(KEY)

        async def hangs(_subject: Subject) -> Outcome:
            await asyncio.Event().wait()
            return passed("")

        async def works(_subject: Subject) -> Outcome:
            return passed("fine")

        results = await run_checks(subject(), checks={"breaks": breaks, "hangs": hangs, "works": works}, limit=0.05)
        assert [one.outcome.verdict for one in results] == ["ERROR", "ERROR", "PASS"]
        assert KEY not in str(results)

    async def test_without_a_configuration_only_that_is_known(self) -> None:
        """A wrong configuration fails its check with all problems; what needs the settings is an ERROR."""
        given = subject(API_PORT="x", DB_POOL="0")
        verdict, reason = await found(configuration.check, given)
        assert verdict == "FAIL"
        assert "API_PORT" in reason
        assert "DB_POOL" in reason
        assert (await found(migrations.check, given))[0] == "ERROR"
        assert (await found(configuration.check, subject()))[0] == "PASS"

    async def test_without_an_agent(self) -> None:
        """Checks that take a running agent say so; one that is out of reach is told by the kind of error alone."""
        assert await found(monitoring.check, subject()) == (
            "ERROR",
            "it takes a running agent: give its address with --url",
        )
        verdict, reason = await found(monitoring.check, subject("http://127.0.0.1:9"))
        assert (verdict, reason) == ("ERROR", "the agent at --url can't be reached: ClientConnectorError")


class TestMigrations:
    async def test_the_database_is_asked(self, database: Database, database_url: str) -> None:
        """A current schema passes; one that is behind, or missing, fails with the remedy."""
        given = subject(DATABASE_URL=database_url)
        assert await found(migrations.check, given) == ("PASS", f"the schema is {HEAD}")
        behind = text(f"UPDATE {VERSION_TABLE} SET version_num = '0000'")  # noqa: S608 - a constant
        await database.write(lambda connection: connection.execute(behind))
        verdict, reason = await found(migrations.check, given)
        assert verdict == "FAIL"
        assert "supportfleet-runtime migrate" in reason

    def test_a_newer_schema_will_do(self) -> None:
        """Versions only add."""
        assert migrations.judge("9999").verdict is Verdict.PASS
        assert migrations.judge(None).verdict is Verdict.FAIL

    async def test_a_file_in_the_agents_pod(self, start_agent: Any, tmp_path: Path) -> None:
        """Where SQLite's file is elsewhere the running agent is asked; without one nothing is known, nor created."""
        missing = tmp_path / "elsewhere" / "x.db"
        given = {"DATABASE_URL": f"sqlite:///{missing}"}
        assert (await found(migrations.check, subject(**given)))[0] == "ERROR"
        agent = await start_agent()
        assert (await found(migrations.check, subject(address(agent), **given)))[0] == "PASS"
        agent.parts.progress.schema = "the schema could not be brought up to date"
        verdict, reason = await found(migrations.check, subject(address(agent), **given))
        assert (verdict, reason) == ("FAIL", "the schema could not be brought up to date")
        assert not missing.parent.exists()


class TestBreakers:
    async def test_a_breaker_is_driven(self) -> None:
        """The agent's own kind of breaker goes through its states against a server that fails."""
        assert (await found(breakers.check, subject()))[0] == "PASS"

    @pytest.mark.parametrize(
        ("broken", "says"),
        [
            ({"admit": lambda self: breaker.Permit(self, self._generation)}, "while it was open"),
            ({"_ended": lambda *_, **__: None}, "did not open"),
        ],
    )
    async def test_a_breaker_that_does_not_break(
        self, monkeypatch: pytest.MonkeyPatch, broken: dict[str, Any], says: str
    ) -> None:
        """One that lets everything through, or forgets its failures, is found out."""
        for name, method in broken.items():
            monkeypatch.setattr(breaker.CircuitBreaker, name, method)
        verdict, reason = await found(breakers.check, subject())
        assert verdict == "FAIL"
        assert says in reason

    async def test_an_open_breaker_of_the_running_agent(self, start_agent: Any, messages_api: Any) -> None:
        """The agent's own breakers are read, and an open one fails the check by its name."""
        agent = await start_agent(ANTHROPIC_API_KEY=messages_api.key, ANTHROPIC_BASE_URL=messages_api.url)
        assert (await found(breakers.check, subject(address(agent))))[0] == "PASS"
        agent.parts.metrics.breaker_state.labels(dependency="model").set(2)
        assert await found(breakers.check, subject(address(agent))) == ("FAIL", "the agent's breaker of model is open")


class TestMonitoring:
    async def test_a_running_agent_is_scraped(self, start_agent: Any) -> None:
        """All documented metrics are there, also with API keys."""
        agent = await start_agent(API_KEYS=KEY)
        assert (await found(monitoring.check, subject(address(agent))))[0] == "PASS"

    @pytest.mark.parametrize(
        ("page", "says"), [("# TYPE a counter\na_total 1\n", "agent_queue_depth is missing"), ("{", "format")]
    )
    async def test_what_is_no_such_page(self, page: str, says: str) -> None:
        """A page that lacks metrics, or is none, fails."""

        async def metrics(_request: web.Request) -> web.Response:
            return web.Response(text=page)

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        async with TestServer(app) as server:
            verdict, reason = await found(monitoring.check, subject(str(server.make_url("/"))))
        assert verdict == "FAIL"
        assert says in reason


class TestModels:
    async def test_nothing_to_ask(self) -> None:
        """With the scripted provider it says so."""
        verdict, reason = await found(models.check, subject())
        assert verdict == "PASS"
        assert "scripted" in reason

    async def test_both_are_asked(self, messages_api: Any) -> None:
        """Each model gets one request, for one token."""
        given = subject(
            ANTHROPIC_API_KEY=messages_api.key,
            ANTHROPIC_BASE_URL=messages_api.url,
            CLAUDE_MODEL="claude-a",
            FALLBACK_MODEL="claude-b",
        )
        assert await found(models.check, given) == ("PASS", "claude-a and claude-b answered")
        assert {request["model"] for request in messages_api.requests} == {"claude-a", "claude-b"}
        assert {request["max_tokens"] for request in messages_api.requests} == {1}

    async def test_a_model_that_is_not_there(self, messages_api: Any) -> None:
        """The setting, the model and the reason are named; a missing fallback model is a failure too."""
        messages_api.then(lambda: messages_api.error(404))
        given = subject(
            ANTHROPIC_API_KEY=messages_api.key, ANTHROPIC_BASE_URL=messages_api.url, CLAUDE_MODEL="claude-a"
        )
        verdict, reason = await found(models.check, given)
        assert verdict == "FAIL"
        assert "FALLBACK_MODEL is not set" in reason
        assert "CLAUDE_MODEL (claude-a): there is no such model (HTTP 404)" in reason

    async def test_a_wrong_key_is_not_repeated(self, messages_api: Any) -> None:
        """A refused key is told as such, without its value."""
        given = subject(ANTHROPIC_API_KEY=KEY, ANTHROPIC_BASE_URL=messages_api.url, FALLBACK_ENABLED="false")
        verdict, reason = await found(models.check, given)
        assert verdict == "FAIL"
        assert "the key is refused (HTTP 401)" in reason
        assert KEY not in reason


class TestQueue:
    async def test_a_round_trip_leaves_nothing(self, database: Database, database_url: str) -> None:
        """A task goes out and comes back, and every table is as empty as before."""
        verdict, reason = await found(queue_round_trip.check, subject(DATABASE_URL=database_url))
        assert verdict == "PASS", reason
        for table in metadata.sorted_tables:
            query = table.select()
            counted = await database.read(lambda connection, query=query: connection.execute(query).all())  # type: ignore[misc]
            assert not counted, table.name

    async def test_a_running_agent_takes_no_part(self, start_agent: Any, database_url: str) -> None:
        """The agent's worker leaves the scratch queue alone, and its own messages are untouched."""
        agent = await start_agent()
        await agent.say("hello")
        assert (await found(queue_round_trip.check, subject(DATABASE_URL=database_url)))[0] == "PASS"
        assert await agent.metric('agent_task_total{outcome="done"}') == 1

    async def test_a_queue_that_loses(
        self, database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A task that doesn't come back is a failure, and still nothing is left."""
        monkeypatch.setattr(queue_round_trip, "RECEIVE_SECONDS", 0.2)

        async def loses(_self: SqlQueue, _limit: int) -> list[Lease]:
            return []

        monkeypatch.setattr(SqlQueue, "receive", loses)
        assert (await found(queue_round_trip.check, subject(DATABASE_URL=database_url)))[0] == "FAIL"
        left = await database.read(lambda c: c.execute(metadata.tables["tasks"].select()).all())
        assert not left


class TestAuthentication:
    async def test_keys_are_enforced(self, start_agent: Any) -> None:
        """An agent with keys refuses none and wrong ones, and takes the right one."""
        agent = await start_agent(API_KEYS=KEY)
        assert (await found(authentication.check, subject(address(agent), API_KEYS=KEY)))[0] == "PASS"
        verdict, reason = await found(authentication.check, subject(address(agent), API_KEYS=f"{KEY}2"))
        assert (verdict, reason) == ("FAIL", "the agent refuses the right key (HTTP 401)")

    async def test_keys_by_their_hash(self, start_agent: Any) -> None:
        """Where only a key's hash is configured it is not tried, unless the key is given."""
        hashed = f"shop:sha256:{hashlib.sha256(KEY.encode()).hexdigest()}"
        agent = await start_agent(API_KEYS=hashed)
        verdict, reason = await found(authentication.check, subject(address(agent), API_KEYS=hashed))
        assert verdict == "PASS"
        assert "--api-key-file" in reason
        given = make_subject({"API_KEYS": hashed}, address(agent), lambda: NOW, KEY)
        assert "takes the right one" in (await found(authentication.check, given))[1]
        assert (await found(secrets.check, given))[0] == "PASS"

    async def test_an_open_agent_fails(self, start_agent: Any) -> None:
        """Each endpoint that lets strangers in is named, and nothing came of trying."""
        agent = await start_agent()
        verdict, reason = await found(authentication.check, subject(address(agent)))
        assert verdict == "FAIL"
        for path in ("/v1/messages", "/v1/tasks/", "/v1/conversations/", "/v1/health"):
            assert path in reason
        assert await agent.metric("agent_queue_depth") == 0


async def limited(
    request: web.Request,
    seen: Counter[str],
    *,
    quota: int | None = 30,
    limit: int = 30,
    wait: str = "2",
    all_: bool = False,
) -> web.Response:
    """An endpoint that limits its customers, rightly or not."""
    seen["everybody" if all_ else request.query["customer_id"]] += 1
    count = seen["everybody" if all_ else request.query["customer_id"]]
    headers = {"RateLimit-Policy": f'"customer";q={quota};w=60'} if quota else {}
    if count > limit:
        return web.Response(status=429, headers={**headers, **({"Retry-After": wait} if wait else {})})
    return web.Response(status=404, headers=headers)


class TestRateLimiter:
    @pytest.mark.parametrize(
        ("behaviour", "verdict", "says"),
        [
            ({}, "PASS", "a customer who may make 30 requests a minute was refused after 29"),
            ({"limit": 10**6}, "FAIL", "80 requests at once of a customer who may make 30 a minute were answered"),
            ({"wait": ""}, "FAIL", "Retry-After is missing"),
            ({"all_": True}, "FAIL", "because another asked often"),
            ({"quota": None}, "ERROR", "no rate limiter is configured"),
            ({"quota": 100_000}, "ERROR", "too high to be tried out"),
            ({"limit": 0}, "ERROR", "refuses already"),
        ],
    )
    async def test_a_burst(self, behaviour: dict[str, Any], verdict: str, says: str) -> None:
        """A customer who asks too much must be refused, be told for how long, and be the only one."""
        seen: Counter[str] = Counter()

        async def task(request: web.Request) -> web.Response:
            return await limited(request, seen, **behaviour)

        app = web.Application()
        app.router.add_get("/v1/tasks/{id}", task)
        async with TestServer(app) as server:
            outcome = await found(rate_limiter.check, subject(str(server.make_url("/"))))
        assert outcome[0] == verdict
        assert says in outcome[1]

    @pytest.mark.parametrize(
        ("environ", "verdict", "says"),
        [
            ({}, "PASS", "by one pod: with REDIS_URL all of them count together"),
            ({"REDIS_URL": "redis://redis:6379"}, "FAIL", "80 requests at once of a customer who may make 30 a minute"),
        ],
    )
    async def test_many_pods(self, environ: dict[str, str], verdict: str, says: str) -> None:
        """Where each pod counts for itself one is asked, whoever else is there; with Redis they must count together."""
        seen: dict[Any, Counter[str]] = {}

        async def task(request: web.Request) -> web.Response:
            assert request.transport is not None
            pod = request.transport.get_extra_info("peername")  # a Service gives each connection to another
            return await limited(request, seen.setdefault(pod, Counter()))

        app = web.Application()
        app.router.add_get("/v1/tasks/{id}", task)
        async with TestServer(app) as server:
            outcome = await found(rate_limiter.check, subject(str(server.make_url("/")), **environ))
        assert outcome[0] == verdict
        assert says in outcome[1]

    async def test_without_a_key_nothing_is_known(self, start_agent: Any) -> None:
        """An agent that lets nobody in without a key can't be tried without one."""
        agent = await start_agent(API_KEYS=KEY)
        verdict, reason = await found(rate_limiter.check, subject(address(agent)))
        assert verdict == "ERROR"
        assert "--api-key-file" in reason


class TestSecrets:
    @pytest.mark.parametrize(
        "weak",
        [
            "short",
            "a" * 40,
            "abababababababababababababab",
            "changeme-changeme-changeme-1",
            "MyPassword-of-2026-is-long",
        ],
    )
    def test_weak(self, weak: str) -> None:
        """Short, repetitive and well-known ones are no secrets."""
        assert secrets.is_weak(weak, 24)
        assert not secrets.is_weak(KEY, 24)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("API_KEYS", f"{KEY},sixteen-letters!"),
            ("ANTHROPIC_API_KEY", "sk-ant-changeme-sk-ant-changeme"),
            ("DATABASE_URL", "postgresql://postgres:postgres@db/x"),
        ],
    )
    async def test_a_weak_one_is_named_and_not_shown(self, start_agent: Any, name: str, value: str) -> None:
        """The variable is named, its value is not."""
        agent = await start_agent()
        verdict, reason = await found(secrets.check, subject(address(agent), **{name: value}))
        assert verdict == "FAIL"
        assert name in reason
        for part in ("sixteen", "changeme-", "postgres:"):
            assert part not in reason

    async def test_good_ones(self, start_agent: Any, tmp_path: Path) -> None:
        """Strong keys in a file that only its owner reads pass; one that all may read does not."""
        agent = await start_agent()
        file = tmp_path / "key"
        file.write_text(KEY)
        file.chmod(0o440)
        given = {"API_KEYS_FILE": str(file), "DATABASE_URL": "postgresql://u:hR5tGq9LzW2x@db/x"}
        verdict, reason = await found(secrets.check, subject(address(agent), **given))
        assert verdict == "PASS", reason
        file.chmod(0o444)
        verdict, reason = await found(secrets.check, subject(address(agent), **given))
        assert verdict == "FAIL"
        assert "API_KEYS_FILE has mode 0444" in reason

    async def test_one_in_the_metrics(self, start_agent: Any) -> None:
        """A key that became a label is found; without an agent to look at nothing is known."""
        agent = await start_agent()
        agent.parts.metrics.count_usage(KEY, 1, 1, None)
        assert await found(secrets.check, subject(address(agent), API_KEYS=KEY)) == ("FAIL", "API_KEYS is in /metrics")
        assert (await found(secrets.check, subject(API_KEYS=KEY)))[0] == "ERROR"


class TestLogging:
    async def test_an_agent_is_listened_to(self) -> None:
        """An agent that is started for it logs JSON lines with nothing of its messages."""
        verdict, reason = await found(logs.check, subject())
        assert verdict == "PASS", reason

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ('{"event":"x","level":"info","timestamp":"t","text":"MARK"}', "the log holds the text"),
            ("Traceback (most recent call last):", "is no JSON object"),
            ("[1]", "is no JSON object"),
            ("", "not in the log"),
        ],
    )
    def test_what_is_wrong_is_told_without_the_line(self, line: str, says: str) -> None:
        """Texts, lines that are no events, and silence are found; the line itself is not repeated."""
        wrong = "; ".join(logs.problems(line, {"text": "MARK"}))
        assert says in wrong
        assert "MARK" not in wrong


class TestAlerts:
    async def test_the_ones_that_come_with_it(self) -> None:
        """The shipped rules and runbooks pass, as a rule file and as a PrometheusRule."""
        given = subject(ALERT_RULES=str(RULES), RUNBOOKS=str(RUNBOOKS))
        assert (await found(alert_rules.check, given))[0] == "PASS"
        assert (await found(runbooks.check, given))[0] == "PASS"

    def test_a_prometheus_rule_is_understood(self) -> None:
        """The Prometheus Operator's kind holds the same groups, in its spec; JSON is YAML."""
        document = {"kind": "PrometheusRule", "spec": yaml.safe_load(RULES.read_text())}
        assert rules.parse(json.dumps(document), "x") == rules.parse(RULES.read_text(), "x")

    @pytest.mark.parametrize("left_out", list(alert_rules.NEEDED))
    async def test_each_topic_is_needed(self, tmp_path: Path, left_out: str) -> None:
        """Rules that don't watch one of the topics fail, and it is named."""
        document = yaml.safe_load(RULES.read_text())
        (group,) = document["groups"]
        pattern = alert_rules.NEEDED[left_out]
        group["rules"] = [one for one in group["rules"] if not re.search(pattern, one["expr"])]
        file = tmp_path / "rules.yaml"
        file.write_text(yaml.safe_dump(document))
        verdict, reason = await found(alert_rules.check, subject(ALERT_RULES=str(file)))
        assert verdict == "FAIL"
        assert f"no alert watches {left_out}" in reason

    async def test_a_rule_that_could_never_fire(self, tmp_path: Path) -> None:
        """A metric that no agent has, and an alert for nobody, are told by the alert's name."""
        document = yaml.safe_load(RULES.read_text())
        document["groups"][0]["rules"].append({"alert": "Typo", "expr": 'agent_requests_total{x="agent_y"} > 1'})
        file = tmp_path / "rules.yaml"
        file.write_text(yaml.safe_dump(document))
        verdict, reason = await found(alert_rules.check, subject(ALERT_RULES=str(file)))
        assert verdict == "FAIL"
        assert "Typo waits for agent_requests_total, which no agent has" in reason
        assert "Typo has no label 'severity'" in reason
        assert "agent_y" not in reason

    @pytest.mark.parametrize("content", ["groups: [", "[]", "groups: 1", "spec: 1", ""])
    async def test_what_is_no_rule_file(self, tmp_path: Path, content: str) -> None:
        """Nothing is known of a file that holds no groups, nor of one that isn't there."""
        file = tmp_path / "rules.yaml"
        file.write_text(content)
        assert (await found(alert_rules.check, subject(ALERT_RULES=str(file))))[0] == "ERROR"
        assert (await found(alert_rules.check, subject(ALERT_RULES=f"{file}x")))[0] == "ERROR"
        assert (await found(alert_rules.check, subject()))[0] == "ERROR"

    async def test_a_missing_or_empty_runbook(self, tmp_path: Path) -> None:
        """Each alert without a runbook that says something is named."""
        for file in RUNBOOKS.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / "AgentLatency.md").unlink()
        (tmp_path / "AgentFallbacks.md").write_text("# TODO")
        verdict, reason = await found(runbooks.check, subject(ALERT_RULES=str(RULES), RUNBOOKS=str(tmp_path)))
        assert verdict == "FAIL"
        assert (
            reason == "AgentLatency has no runbook AgentLatency.md; the runbook AgentFallbacks.md says next to nothing"
        )

    def test_no_runbook_is_left_over(self) -> None:
        """Every runbook is some alert's, and is linked by a file that exists."""
        named = {alert.runbook for alert in rules.parse(RULES.read_text(), "x")}
        assert named == {file.name for file in RUNBOOKS.iterdir()}


class TestOnCall:
    @pytest.mark.parametrize(
        ("given", "verdict"),
        [
            ({"team": "a", "by": "b", "date": "2026-11-21"}, "PASS"),
            ({"team": "a", "by": "b", "date": date(2026, 8, 23)}, "PASS"),
            ({"team": "a", "by": "b", "date": "2026-08-22"}, "FAIL"),
            ({"team": "a", "by": "b", "date": "2026-11-22"}, "FAIL"),
            ({"team": "a", "by": "b", "date": "yesterday"}, "FAIL"),
            ({"team": "a", "by": "b"}, "FAIL"),
            ({"team": "", "by": "b", "date": "2026-11-21"}, "FAIL"),
            ({"team": "a", "date": "2026-11-21"}, "FAIL"),
            (["team"], "FAIL"),
            (None, "FAIL"),
        ],
    )
    def test_what_it_must_say(self, given: Any, verdict: str) -> None:
        """Team, day and who says so; not older than 90 days, and not yet to come."""
        assert on_call.judge(given, NOW.date()).verdict == verdict

    async def test_the_file_is_read(self, tmp_path: Path) -> None:
        """The example of the documentation passes, YAML as it is."""
        file = tmp_path / "oncall.yaml"
        file.write_text("team: support-platform\ndate: 2026-11-01\nby: Head of support operations\n")
        assert file.read_text() in DOCUMENT.read_text()
        assert (await found(on_call.check, subject(ONCALL_ATTESTATION=str(file))))[0] == "PASS"
        assert (await found(on_call.check, subject()))[0] == "ERROR"


class TestCommand:
    def run(self, tmp_path: Path, *arguments: str, **environ: str) -> tuple[int, str, dict[str, str]]:
        word = tmp_path / "word"
        done = subprocess.run(
            [sys.executable, "-m", "supportfleet_runtime", "checklist", *arguments],
            env={"PYTHONPATH": str(ROOT / "agent_runtime"), "TERMINATION_LOG": str(word), **environ},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            cwd=tmp_path,
        )
        return done.returncode, done.stdout, json.loads(word.read_text()) if word.exists() else {}

    def test_json_and_last_word(self, tmp_path: Path) -> None:
        """``-o json`` holds each chosen check; the exit code and the termination message match the verdict."""
        code, out, word = self.run(tmp_path, "-o", "json", "--only", "on-call", "--only", "configuration")
        body = json.loads(out)
        assert (code, body["verdict"]) == (2, "ERROR")
        assert [one["name"] for one in body["checks"]] == ["configuration", "on-call"]
        assert [one["verdict"] for one in body["checks"]] == ["PASS", "ERROR"]
        assert word["reason"] == "ChecklistIncomplete"
        assert "on-call ERROR: ONCALL_ATTESTATION is not set" in word["message"]

    def test_checks_are_left_out(self, tmp_path: Path) -> None:
        """``--skip`` makes all others; where none is left nothing is known, so a gate stays shut."""
        others = [option for name in CHECKS if name != "on-call" for option in ("--skip", name)]
        _, out, _ = self.run(tmp_path, "-o", "json", *others)
        assert [one["name"] for one in json.loads(out)["checks"]] == ["on-call"]
        code, _, word = self.run(tmp_path, *others, "--skip", "on-call")
        assert (code, word["reason"]) == (2, "ChecklistIncomplete")
        assert "no check is left" in word["message"]

    def test_a_failure_is_1(self, tmp_path: Path) -> None:
        """A wrong configuration is a finding of the checklist, not the end of it."""
        code, out, word = self.run(tmp_path, "--only", "configuration", API_PORT="x")
        assert (code, out.split()[:2], word["reason"]) == (1, ["FAIL", "configuration"], "ChecklistFailed")

    def test_the_documented_job(self) -> None:
        """The Job of docs/checklist.md runs a command line that exists, and lists every check."""
        document = DOCUMENT.read_text()
        job = next(
            one for part in document.split("```yaml\n")[1:] if (one := yaml.safe_load(part.split("```")[0])).get("kind")
        )
        (container,) = job["spec"]["template"]["spec"]["containers"]
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        arguments = parser.parse_args(container["args"][1:])
        assert (container["args"][0], arguments.url, arguments.output) == ("checklist", "http://support-7f3a", "json")
        assert set(CHECKS) <= {line.split("`")[1] for line in document.splitlines() if line.startswith("| `")}


async def test_the_whole_list_passes_on_an_agent_that_is_ready(
    start_agent: Any, messages_api: Any, database_url: str, tmp_path: Path
) -> None:
    """An agent with keys, models, alerts, runbooks and a trained team passes everything."""
    environ = {
        "API_KEYS": KEY,
        "ANTHROPIC_API_KEY": messages_api.key.replace("0123456789", "fQ8rT1zN"),
        "ANTHROPIC_BASE_URL": messages_api.url,
        "FALLBACK_MODEL": "claude-b",
        "RATE_LIMIT": "50",
    }
    messages_api.key = environ["ANTHROPIC_API_KEY"]
    agent = await start_agent(**environ)
    attestation = tmp_path / "oncall.json"
    attestation.write_text(json.dumps({"team": "a", "date": "2026-11-20", "by": "b"}))
    given = subject(
        address(agent),
        DATABASE_URL=database_url,
        ALERT_RULES=str(RULES),
        RUNBOOKS=str(RUNBOOKS),
        ONCALL_ATTESTATION=str(attestation),
        **environ,
    )
    results = {one.name: one.outcome for one in await run_checks(given)}
    assert results.keys() == CHECKS.keys()
    assert not {name: one.reason for name, one in results.items() if one.verdict is not Verdict.PASS}


def test_what_is_not_known_is_an_error_of_its_own() -> None:
    """A check that can't be made says what it takes."""
    with pytest.raises(NotCheckableError, match="RUNBOOKS is not set: name a folder"):
        subject().file("RUNBOOKS", None, "a folder")
