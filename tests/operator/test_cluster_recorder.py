"""Events: posted once, in the background, and never in the way."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import pytest

from supportfleet_operator.cluster import recorder as recorder_module
from supportfleet_operator.cluster.client import Client
from supportfleet_operator.cluster.recorder import News, Recorder, event_of
from supportfleet_operator.cluster.resources import EVENTS

AGENT = {
    "apiVersion": "supportfleet.dev/v1alpha1",
    "kind": "SupportAgent",
    "metadata": {"name": "desk", "namespace": "shop", "uid": "u1"},
}
NEWS = News("Warning", "DigestMismatch", "the digest is another")


@pytest.fixture
async def recorder(client: Client) -> AsyncIterator[Recorder]:
    recorder = Recorder(client, "pod-1")
    task = asyncio.create_task(recorder.run())
    yield recorder
    task.cancel()
    await asyncio.wait({task})


async def test_an_event_says_what_happened_to_whom(api: Any, recorder: Recorder, until: Any) -> None:
    """The Event regards the agent, with reason, note and who reports it."""
    recorder.post(AGENT, NEWS)
    (event,) = await until(lambda: api.all(EVENTS))
    assert event["regarding"]["name"] == "desk"
    assert (event["type"], event["reason"], event["note"]) == ("Warning", "DigestMismatch", "the digest is another")
    assert event["reportingController"] == "supportfleet.dev/operator"
    assert event["metadata"]["name"].startswith("desk-")


async def test_the_same_news_is_posted_once(api: Any, recorder: Recorder, until: Any) -> None:
    """Repetition within ten minutes is dropped; another agent or another text is not."""
    recorder.post(AGENT, NEWS)
    recorder.post(AGENT, NEWS)
    recorder.post({**AGENT, "metadata": {**AGENT["metadata"], "uid": "u2"}}, NEWS)
    recorder.post(AGENT, News("Normal", "Available", "3 pods are ready"))
    await until(lambda: len(api.all(EVENTS)) == 3)
    await asyncio.sleep(0.05)
    assert len(api.all(EVENTS)) == 3


async def test_an_event_that_cannot_be_posted_is_dropped(api: Any, recorder: Recorder, until: Any) -> None:
    """A failure is logged, and the next Event goes out."""
    api.fail(500, path="events")
    recorder.post(AGENT, NEWS)
    recorder.post(AGENT, News("Normal", "Available", "again"))
    (event,) = await until(lambda: api.all(EVENTS))
    assert event["reason"] == "Available"


async def test_a_full_queue_drops_and_does_not_wait(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nobody posting, the queue is bounded and post() still returns."""
    monkeypatch.setattr(recorder_module, "QUEUED", 2)
    recorder = Recorder(client, "pod-1")
    for number in range(10):
        recorder.post(AGENT, News("Normal", "R", str(number)))


async def test_what_was_posted_is_remembered_within_bounds(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of posted Events does not grow for ever."""
    monkeypatch.setattr(recorder_module, "REMEMBERED", 5)
    recorder = Recorder(client, "pod-1")
    for number in range(50):
        recorder.post(AGENT, News("Normal", "R", str(number)))
    assert len(recorder._posted) == 5


def test_a_long_note_is_cut_to_what_the_api_takes() -> None:
    """Notes have at most 1024 characters."""
    when = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    event = event_of(AGENT, News("Normal", "R", "x" * 5000), instance="p", when=when)
    assert len(event["note"]) == 1024
    assert event["eventTime"] == "2026-01-01T00:00:00.000000Z"
