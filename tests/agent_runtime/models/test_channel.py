"""Channels: pointers to versions that are moved, also by several at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_runtime.__main__ import main
from supportfleet_runtime.models.artifact import Artifact, write_artifact
from supportfleet_runtime.models.channel import HISTORY, Channel, Pointer, parse_pointer
from supportfleet_runtime.models.errors import ArtifactError, Reason
from supportfleet_runtime.models.settings import channel_settings, parse_location, s3_settings

Make = Callable[..., Artifact]
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
URI = "s3://models/intent"


@pytest.fixture
def channel(bucket: Any) -> Channel:
    return Channel(parse_location(URI), "stable", s3_settings(bucket.api.env))


def stored(bucket: Any, name: str = "stable") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bucket.api.objects[f"intent/channels/{name}.json"])
    return found


async def refusal(work: Any) -> Reason:
    with pytest.raises(ArtifactError) as raised:
        await work
    return raised.value.reason


class TestMoving:
    async def test_a_new_channel(self, bucket: Any, channel: Channel, make: Make) -> None:
        """A channel that is set is there, as documented, and can be shown."""
        bucket.put(made := make("1"))
        moved = await channel.set("1", None, now=NOON)
        assert moved.before is None
        assert stored(bucket) == {
            "schemaVersion": 1,
            "version": "1",
            "digest": made.digest,
            "movedAt": "2026-11-21T12:00:00Z",
            "history": [],
        }
        assert await channel.show() == moved.pointer

    async def test_it_remembers_where_it_pointed(self, bucket: Any, channel: Channel, make: Make) -> None:
        """Each move keeps the one before, the latest first, up to a limit."""
        for number in range(HISTORY + 3):
            bucket.put(make(str(number)))
            await channel.set(str(number), None, now=NOON + timedelta(hours=number))
        pointer = await channel.show()
        assert [target.version for target in pointer.history] == [str(n) for n in range(HISTORY + 1, 1, -1)]
        assert pointer.history[0].moved_at == "2026-11-21T23:00:00Z"

    async def test_going_back_and_forth(self, bucket: Any, channel: Channel, make: Make) -> None:
        """Going back leads to the pointer before, and again to the one that was left."""
        for version in ("1", "2"):
            bucket.put(make(version))
            await channel.set(version, None, now=NOON)
        assert (await channel.back(now=NOON)).pointer.version == "1"
        assert (await channel.back(now=NOON)).pointer.version == "2"

    async def test_the_same_again_writes_nothing(self, bucket: Any, channel: Channel, make: Make) -> None:
        """Setting what is set is no move."""
        bucket.put(make("1"))
        await channel.set("1", None, now=NOON)
        before = stored(bucket)
        moved = await channel.set("1", None, now=NOON + timedelta(hours=1))
        assert moved.before == moved.pointer
        assert stored(bucket) == before

    async def test_only_to_what_is_published(self, bucket: Any, channel: Channel, make: Make) -> None:
        """A version that is not there, or has another digest than was said, is refused; the channel stays."""
        bucket.put(make("1"))
        assert await refusal(channel.set("2", None, now=NOON)) is Reason.NOT_FOUND
        assert await refusal(channel.set("1", "sha256:" + "a" * 64, now=NOON)) is Reason.DIGEST_MISMATCH
        assert await refusal(channel.set("../1", None, now=NOON)) is Reason.INVALID_SETTINGS
        assert await refusal(channel.show()) is Reason.NOT_FOUND
        assert await refusal(channel.back(now=NOON)) is Reason.NOT_FOUND
        await channel.set("1", None, now=NOON)
        assert await refusal(channel.back(now=NOON)) is Reason.NOT_FOUND

    async def test_moves_at_the_same_time_lose_nothing(self, bucket: Any, make: Make) -> None:
        """Of moves that race each is either made on top of the others or refused; none is silently undone."""
        versions = [str(number) for number in range(6)]
        for version in versions:
            bucket.put(make(version))
        s3 = s3_settings(bucket.api.env)
        moves = [Channel(parse_location(URI), "stable", s3).set(version, None, now=NOON) for version in versions]
        done = await asyncio.gather(*moves, return_exceptions=True)
        made = {version for version, one in zip(versions, done, strict=True) if not isinstance(one, BaseException)}
        assert all(isinstance(one, ArtifactError) and one.transient for one in done if isinstance(one, BaseException))
        pointer = await Channel(parse_location(URI), "stable", s3).show()
        assert {pointer.version, *(target.version for target in pointer.history)} == made
        assert len(made) > 1

    async def test_a_server_without_conditions(self, bucket: Any, channel: Channel, make: Make) -> None:
        """Where the server can't replace on a condition, the channel is moved all the same."""
        bucket.api.has_conditions = False
        for version in ("1", "2"):
            bucket.put(make(version))
            await channel.set(version, None, now=NOON)
        assert stored(bucket)["version"] == "2"

    async def test_a_bucket_out_of_reach(self, bucket: Any, make: Make, fault: Any) -> None:
        """What the store answers becomes a reason: out of reach is worth another try, a missing bucket is not."""
        bucket.put(make("1"))
        s3 = s3_settings(bucket.api.env)
        assert await refusal(Channel(parse_location("s3://nowhere/intent"), "c", s3).show()) is Reason.BUCKET_NOT_FOUND
        bucket.api.faults.append(fault("status", status=403, code="AccessDenied"))
        assert await refusal(Channel(parse_location(URI), "c", s3).show()) is Reason.ACCESS_DENIED

    async def test_a_folder(self, tmp_path: Path, make: Make) -> None:
        """A channel in a folder works as one in a bucket."""
        for version in ("1", "2"):
            write_artifact(tmp_path / "models" / version, make(version))
        at = Channel(parse_location(f"file://{tmp_path}/models"), "stable", s3_settings({}))
        assert await refusal(at.show()) is Reason.NOT_FOUND
        await at.set("1", None, now=NOON)
        await at.set("2", None, now=NOON)
        assert (await at.back(now=NOON)).pointer.version == "1"


class TestPointers:
    def test_the_least_that_one_may_hold(self) -> None:
        """A pointer written by hand needs schema, version and digest alone."""
        digest = "sha256:" + "a" * 64
        pointer = parse_pointer(json.dumps({"schemaVersion": 1, "version": "7", "digest": digest}).encode(), "x")
        assert (pointer.version, pointer.digest, pointer.history) == ("7", digest, [])

    @given(
        st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
    )
    def test_anything_else_is_refused(self, data: bytes) -> None:
        """What is no pointer is refused with the object's name."""
        with pytest.raises(ArtifactError, match=r"channels/x\.json") as raised:
            parse_pointer(data, "channels/x.json")
        assert raised.value.reason is Reason.INVALID_MANIFEST

    @given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30))
    def test_moves_keep_the_latest(self, versions: list[str]) -> None:
        """Through any moves, what is written can be read, and its history is the latest of what was left."""
        digest = "sha256:" + "a" * 64
        pointer = Pointer(version="first", digest=digest)
        for version in versions:
            pointer = parse_pointer(pointer.moved(version, digest, "now").render(), "x")
        assert [target.version for target in pointer.history] == ["first", *versions[:-1]][::-1][:HISTORY]


class TestCommands:
    @pytest.fixture
    def store(self, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> str:
        """A folder with two versions, and a place for the last word."""
        monkeypatch.setenv("TERMINATION_LOG", str(tmp_path / "word"))
        for version in ("1", "2"):
            write_artifact(tmp_path / f"intent-{version}", make(version))
        return f"file://{tmp_path}/store"

    def test_publishing_moves_the_channel(
        self, store: str, tmp_path: Path, make: Make, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """`publish-model --channel` publishes first and then moves the pointer; `channel` shows and moves it too."""
        for version in ("1", "2"):
            assert main(["publish-model", str(tmp_path / f"intent-{version}"), store, "--channel", "stable"]) == 0
        assert main(["channel", "show", store, "stable"]) == 0
        shown = capsys.readouterr().out.splitlines()[2:]
        assert [line.split()[:3] for line in shown] == [
            ["now", "2", make("2").digest],
            ["before", "1", make("1").digest],
        ]
        assert main(["channel", "set", store, "stable", "--previous"]) == 0
        assert capsys.readouterr().out.strip() == make("1").digest
        assert main(["channel", "set", store, "stable", "2", "--digest", make("2").digest]) == 0
        assert main(["channel", "show", store, "stable", "-o", "json"]) == 0
        assert json.loads(capsys.readouterr().out.partition("\n")[2])["version"] == "2"
        assert main(["channel", "set", store, "stable", "3"]) == 2
        assert "does not exist" in capsys.readouterr().err

    def test_a_channel_that_can_be_none(
        self, store: str, tmp_path: Path, make: Make, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A name that no channel may have is refused before anything is published; so is a version named as theirs."""
        assert main(["publish-model", str(tmp_path / "intent-1"), store, "--channel", "a/b"]) == 2
        assert not (tmp_path / "store").exists()
        write_artifact(tmp_path / "bad", make("channels"))
        assert main(["publish-model", str(tmp_path / "bad"), store]) == 2
        assert "channels" in capsys.readouterr().err

    def test_resolving(self, store: str, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """The last word of `resolve-channel` is where the channel points, or why it can't tell."""
        monkeypatch.setenv("MODEL_BUCKET", store)
        monkeypatch.setenv("MODEL_CHANNEL", "stable")
        (tmp_path / "store").mkdir()
        assert main(["resolve-channel"]) == 2
        assert json.loads((tmp_path / "word").read_text())["reason"] == "NotFound"
        main(["publish-model", str(tmp_path / "intent-2"), store, "--channel", "stable"])
        assert main(["resolve-channel"]) == 0
        word = json.loads((tmp_path / "word").read_text())
        assert word.pop("message")
        assert word == {"reason": "Resolved", "version": "2", "digest": make("2").digest}
        (tmp_path / "store" / "channels" / "stable.json").write_text("{}")
        assert main(["resolve-channel"]) == 2
        assert json.loads((tmp_path / "word").read_text())["reason"] == "InvalidManifest"

    def test_settings_that_are_wrong(self) -> None:
        """All that is wrong with the variables is told at once."""
        with pytest.raises(ArtifactError) as raised:
            channel_settings({"MODEL_BUCKET": "nothing", "MODEL_CHANNEL": "a b", "AWS_ACCESS_KEY_ID": "x"})
        assert all(name in raised.value.message for name in ("MODEL_BUCKET", "MODEL_CHANNEL", "AWS_ACCESS_KEY_ID"))
