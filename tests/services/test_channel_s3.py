"""Channels on a real S3 server, which must keep its promise about conditions."""

from __future__ import annotations

import asyncio
import runpy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from supportfleet_runtime.models.channel import Channel
from supportfleet_runtime.models.settings import parse_location, s3_settings

_sync = runpy.run_path(str(Path(__file__).parent / "test_sync_s3.py"))
server = _sync["server"]

URI = "s3://models/team/intent"


async def test_a_channel_on_a_real_server(server: Any, tmp_path: Path) -> None:
    """A channel is made, moved and taken back; moves at the same time lose none that was made."""
    versions = [str(number) for number in range(1, 7)]
    for version in versions:
        await _sync["put"](server, tmp_path / "artifact", _sync["artifact"](version))
    s3, now = s3_settings(server.env), datetime.now(UTC)
    at = Channel(parse_location(URI), "stable", s3)
    for version in ("1", "2"):
        assert (await at.set(version, None, now=now)).pointer.version == version
    assert (await at.back(now=now)).pointer.version == "1"
    moves = [Channel(parse_location(URI), "stable", s3).set(version, None, now=now) for version in versions[2:]]
    done = await asyncio.gather(*moves, return_exceptions=True)
    made = {version for version, one in zip(versions[2:], done, strict=True) if not isinstance(one, BaseException)}
    pointer = await at.show()
    assert made
    assert {pointer.version, *(target.version for target in pointer.history)} == made | {"1", "2"}
