"""Publishing and syncing models with a real S3 server."""

from __future__ import annotations

import os
import runpy
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supportfleet_runtime.models.artifact import Artifact, make_artifact, verify_artifact, write_artifact
from supportfleet_runtime.models.cache import ModelCache
from supportfleet_runtime.models.errors import ArtifactError, Reason
from supportfleet_runtime.models.publish import Published, publish
from supportfleet_runtime.models.settings import SyncSettings, parse_location, s3_settings, sync_settings
from supportfleet_runtime.models.sync import sync, verify_remote

HELPER = runpy.run_path(str(Path(__file__).parent / "s3_server.py"))


@pytest.fixture
async def server(tmp_path: Path, unavailable: Any) -> AsyncIterator[Any]:
    binary = await HELPER["find_versitygw"]()
    if binary is None:
        unavailable("versitygw", "run 'supportfleet local prepare', or set SUPPORTFLEET_VERSITYGW to its path")
    (tmp_path / "s3").mkdir()
    async with HELPER["s3_server"](binary, tmp_path / "s3") as server:
        server.bucket("models")
        yield server


def artifact(version: str = "1", size: int = 1000) -> Artifact:
    files = {"model.onnx": os.urandom(size), "labels.json": b"[]", "extra/notes.txt": version.encode()}
    return make_artifact(name="intent", version=version, created_at="2026-11-21T00:00:00Z", files=files)


async def put(server: Any, folder: Path, made: Artifact, uri: str = "s3://models/team/intent") -> Published:
    shutil.rmtree(folder, ignore_errors=True)
    write_artifact(folder, made)
    return await publish(folder, parse_location(uri), s3_settings(server.env))


def settings(server: Any, volume: Path, made: Artifact, **env: str) -> SyncSettings:
    model = {
        "MODEL_BUCKET": "s3://models/team/intent",
        "MODEL_VERSION": made.manifest.version,
        "MODEL_DIGEST": made.digest,
        "MODEL_DIR": str(volume),
    }
    return sync_settings(server.env | model | env)


async def test_a_model_goes_through_a_real_bucket(server: Any, tmp_path: Path) -> None:
    """What is published, also in parts, is synced byte for byte; the next version replaces it."""
    volume = tmp_path / "volume"
    first, second = artifact("1", size=12_000_000), artifact("2")
    for made in (first, second):
        assert (await put(server, tmp_path / "artifact", made)).digest == made.digest
        assert (await sync(settings(server, volume, made))).downloaded
        verify_artifact((volume / "current").resolve(), made.digest)
        assert not (await sync(settings(server, volume, made))).downloaded
    assert ModelCache(volume).holds(first.digest)


async def test_a_published_version_is_never_changed(server: Any, tmp_path: Path) -> None:
    """The same again is fine, something else under its name is not."""
    first, other = artifact("1"), artifact("1")
    assert (await put(server, tmp_path / "artifact", first)).uploaded
    assert not (await put(server, tmp_path / "artifact", first)).uploaded
    with pytest.raises(ArtifactError) as refused:
        await put(server, tmp_path / "artifact", other)
    assert refused.value.reason is Reason.VERSION_EXISTS
    assert (await verify_remote(settings(server, tmp_path / "volume", first))).digest == first.digest


@pytest.mark.parametrize(
    ("path", "data", "reason"),
    [
        ("model.onnx", b"x" * 1000, Reason.CHECKSUM_MISMATCH),
        ("model.onnx", b"short", Reason.CHECKSUM_MISMATCH),
        ("model.onnx", None, Reason.MISSING_FILE),
        ("surprise.sh", b"echo", Reason.UNEXPECTED_FILE),
        ("manifest.json", b"{}", Reason.DIGEST_MISMATCH),
    ],
)
async def test_what_was_tampered_with_is_refused(
    server: Any, tmp_path: Path, path: str, data: bytes | None, reason: Reason
) -> None:
    """A bucket whose content was changed is refused with the reason, and the previous version stays current."""
    volume, before, made = tmp_path / "volume", artifact("1"), artifact("2")
    await put(server, tmp_path / "artifact", before)
    await put(server, tmp_path / "artifact", made)
    await sync(settings(server, volume, before))
    target = server.root / "models" / "team" / "intent" / "2" / path
    target.unlink(missing_ok=True)
    if data is not None:
        target.write_bytes(data)
    with pytest.raises(ArtifactError) as refused:
        await sync(settings(server, volume, made))
    assert refused.value.reason is reason
    verify_artifact((volume / "current").resolve(), before.digest)


async def test_a_real_server_refuses_for_the_right_reasons(server: Any, tmp_path: Path) -> None:
    """No such version, no such bucket, a wrong key and a wrong secret are told apart."""
    made = artifact()
    await put(server, tmp_path / "artifact", made)
    volume = tmp_path / "volume"
    reasons = {}
    for name, env in {
        "version": {"MODEL_VERSION": "9"},
        "prefix": {"MODEL_BUCKET": "s3://models/other"},
        "bucket": {"MODEL_BUCKET": "s3://nobody-made-this"},
        "key": {"AWS_ACCESS_KEY_ID": "stranger"},
        "secret": {"AWS_SECRET_ACCESS_KEY": "guessed"},
    }.items():
        with pytest.raises(ArtifactError) as refused:
            await sync(settings(server, volume, made, **env))
        reasons[name] = refused.value.reason
        assert "guessed" not in str(refused.value)
    assert reasons == {
        "version": Reason.NOT_FOUND,
        "prefix": Reason.NOT_FOUND,
        "bucket": Reason.BUCKET_NOT_FOUND,
        "key": Reason.ACCESS_DENIED,
        "secret": Reason.ACCESS_DENIED,
    }
    assert not (volume / "current").exists()


async def test_a_bucket_without_a_prefix_works(server: Any, tmp_path: Path) -> None:
    """The URI may be a bare bucket."""
    made = artifact()
    await put(server, tmp_path / "artifact", made, "s3://models")
    wanted = settings(server, tmp_path / "volume", made, MODEL_BUCKET="s3://models/")
    assert (await sync(replace(wanted, timeout=30))).downloaded
