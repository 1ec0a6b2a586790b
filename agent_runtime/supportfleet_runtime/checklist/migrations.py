"""Migrations: the database has the schema that this version needs."""

from __future__ import annotations

import json

from supportfleet_runtime.checklist.outcome import NotCheckableError, Outcome, failed, passed
from supportfleet_runtime.checklist.subject import Subject
from supportfleet_runtime.database_location import database_url
from supportfleet_runtime.storage.migrate import schema_version
from supportfleet_runtime.storage.migrations import HEAD
from supportfleet_runtime.storage.url import DatabaseKind

REMEDY = "run supportfleet-runtime migrate"


async def check(subject: Subject) -> Outcome:
    """Ask the database; the running agent, where the database is a file in its pod."""
    try:
        database = subject.database()
    except NotCheckableError:
        if subject.url is None or database_url(subject.settings).kind is not DatabaseKind.SQLITE:
            raise
        return await _ask_the_agent(subject)
    try:
        return judge(await database.read(schema_version))
    finally:
        await database.close()


def judge(found: str | None) -> Outcome:
    """Whether a schema of this version will do. Pure."""
    if found is None:
        return failed(f"the database has no schema: {REMEDY}")
    if found < HEAD:
        return failed(f"the schema is {found}, and {HEAD} is needed: {REMEDY}")
    newer = "" if found == HEAD else f", newer than this version's {HEAD}, which works with it"
    return passed(f"the schema is {found}{newer}")


async def _ask_the_agent(subject: Subject) -> Outcome:
    answer = await subject.ask("GET", "/readyz")
    try:
        schema = json.loads(answer.text)["checks"]["schema"]
        right, message = bool(schema["ok"]), str(schema["message"])
    except (ValueError, KeyError, TypeError) as error:
        raise NotCheckableError(
            f"/readyz of the agent at --url says nothing of the schema (HTTP {answer.status})"
        ) from error
    return passed("the running agent has brought its SQLite file up to date") if right else failed(message)
