from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supportfleet_runtime.__main__ import main
from supportfleet_runtime.models.artifact import Artifact, write_artifact
from supportfleet_runtime.models.errors import ArtifactError, Reason
from supportfleet_runtime.models.publish import Published, publish
from supportfleet_runtime.models.settings import parse_location
from supportfleet_runtime.models.sync import sync

Make = Callable[..., Artifact]


@pytest.fixture
def put(bucket: Any, tmp_path: Path) -> Any:
    """Publish an artifact to the bucket."""

    async def put(artifact: Artifact) -> Published:
        folder = tmp_path / f"to-publish-{artifact.digest[-8:]}"
        write_artifact(folder, artifact)
        return await publish(folder, parse_location("s3://models/intent"), bucket.settings(artifact).s3)

    return put


async def test_what_is_published_can_be_synced(bucket: Any, make: Make, put: Any) -> None:
    """An artifact lands where a sync with its digest finds it; its manifest is uploaded last."""
    artifact = make()
    done = await put(artifact)
    assert done.uploaded
    assert done.digest == artifact.digest
    assert [path for method, path in bucket.api.requests if method == "PUT"][-1].endswith("/manifest.json")
    assert (await sync(bucket.settings(artifact))).downloaded


async def test_publishing_again_changes_nothing(bucket: Any, make: Make, put: Any) -> None:
    """The same artifact can be published twice; the second time nothing is uploaded."""
    await put(make())
    bucket.api.requests.clear()
    assert not (await put(make())).uploaded
    assert not [path for method, path in bucket.api.requests if method == "PUT"]


async def test_a_version_is_never_changed(bucket: Any, make: Make, put: Any) -> None:
    """Other content under a version that is there is refused, and the bucket stays as it was."""
    await put(make())
    before = dict(bucket.api.objects)
    with pytest.raises(ArtifactError) as refused:
        await put(make("1", {"model.onnx": b"other"}))
    assert refused.value.reason is Reason.VERSION_EXISTS
    assert bucket.api.objects == before


async def test_an_interrupted_publishing_is_completed(bucket: Any, make: Make, put: Any) -> None:
    """Files that an earlier try left without a manifest are written again."""
    bucket.api.objects["intent/1/model.onnx"] = b"half"
    await put(make())
    assert (await sync(bucket.settings(make()))).downloaded


async def test_foreign_files_are_not_published_over(bucket: Any, make: Make, put: Any) -> None:
    """Where a file lies that no sync would accept, publishing says so instead of making a version that is refused."""
    bucket.api.objects["intent/1/notes.txt"] = b"?"
    with pytest.raises(ArtifactError, match=r"notes\.txt") as refused:
        await put(make())
    assert refused.value.reason is Reason.UNEXPECTED_FILE
    assert "intent/1/manifest.json" not in bucket.api.objects


async def test_of_two_publishers_one_wins(bucket: Any, make: Make, put: Any) -> None:
    """Two artifacts that are published as one version at once do not mix: one is refused."""
    artifacts = [make("1", {"model.onnx": content}) for content in (b"one", b"two")]
    done = await asyncio.gather(*(put(artifact) for artifact in artifacts), return_exceptions=True)
    refused = [error for error in done if isinstance(error, ArtifactError)]
    assert [error.reason for error in refused] == [Reason.VERSION_EXISTS]


async def test_a_damaged_artifact_is_not_published(bucket: Any, make: Make, tmp_path: Path) -> None:
    """Nothing is uploaded of an artifact that is not what its manifest says."""
    write_artifact(tmp_path / "artifact", make())
    (tmp_path / "artifact" / "labels.json").write_text("[]")
    with pytest.raises(ArtifactError) as refused:
        await publish(tmp_path / "artifact", parse_location("s3://models/intent"), bucket.settings(make()).s3)
    assert refused.value.reason is Reason.CHECKSUM_MISMATCH
    assert bucket.api.requests == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda api: api.buckets.clear(), Reason.BUCKET_NOT_FOUND),
        (lambda api: setattr(api, "key_id", "AKIDSOMEBODYELSE"), Reason.ACCESS_DENIED),
    ],
    ids=["no bucket", "other key"],
)
async def test_a_refusing_store_has_its_reason(bucket: Any, make: Make, put: Any, change: Any, reason: Reason) -> None:
    """Publishing tells a missing bucket from missing rights."""
    artifact = make()
    settings = bucket.settings(artifact).s3
    change(bucket.api)
    bucket.settings = lambda *_: replace(bucket.__class__.settings(bucket, artifact), s3=settings)
    with pytest.raises(ArtifactError) as refused:
        await put(artifact)
    assert refused.value.reason is reason


async def test_publish_model_prints_the_digest(
    bucket: Any, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints the digest alone on standard output, also when the version was there already."""
    write_artifact(tmp_path / "artifact", make())
    for name, value in bucket.api.env.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        assert await asyncio.to_thread(main, ["publish-model", str(tmp_path / "artifact"), "s3://models/intent"]) == 0
        assert capsys.readouterr().out.strip() == make().digest
    assert await asyncio.to_thread(main, ["publish-model", str(tmp_path / "artifact"), "https://x/y"]) == 2
    assert "InvalidSettings" in capsys.readouterr().err


async def test_a_folder_can_be_published_to(make: Make, bucket: Any, tmp_path: Path) -> None:
    """file:// works as a target, and is made where it is missing."""
    write_artifact(tmp_path / "artifact", make())
    target = parse_location(f"file://{tmp_path}/store/intent")
    done = await publish(tmp_path / "artifact", target, bucket.settings(make()).s3)
    assert (await sync(bucket.settings(make(), source=target))).digest == done.digest
