from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supportfleet_runtime.models.artifact import Artifact, verify_artifact
from supportfleet_runtime.models.cache import IncomingFolder, ModelCache
from supportfleet_runtime.models.errors import ArtifactError, Reason
from supportfleet_runtime.models.sync import sync, verify_remote

Make = Callable[..., Artifact]
Break = Callable[[Any, Artifact], None]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def snapshot(root: Path) -> dict[str, object]:
    """All that a sync may not change when it fails: every version, and the pointer."""
    versions = root / "versions"
    kept = files_of(versions) if versions.exists() else {}
    current = root / "current"
    return {**kept, "current": current.readlink() if current.is_symlink() else None}


async def test_a_sync_brings_the_artifact_to_the_volume(bucket: Any, make: Make) -> None:
    """After a sync, current leads to exactly the published files, in a folder named by the digest."""
    artifact = make()
    bucket.put(artifact)
    done = await sync(bucket.settings(artifact))
    current = bucket.directory / "current"
    assert done.downloaded
    assert done.digest == artifact.digest
    assert current.readlink() == Path("versions") / artifact.digest.removeprefix("sha256:")
    assert files_of(current.resolve()) == {**artifact.files, "manifest.json": artifact.manifest.render()}
    assert sorted(path.name for path in bucket.directory.iterdir()) == ["current", "lock", "versions"]


async def test_a_second_sync_verifies_locally_and_downloads_nothing(bucket: Any, make: Make) -> None:
    """A version that is there and intact costs no request, so it works while the store is away."""
    artifact = make()
    bucket.put(artifact)
    await sync(bucket.settings(artifact))
    bucket.api.requests.clear()
    done = await sync(bucket.settings(artifact))
    assert not done.downloaded
    assert bucket.api.requests == []


@pytest.mark.parametrize("damage", ["changed", "missing", "extra", "link", "replaced folder"])
async def test_a_damaged_version_is_fetched_again(bucket: Any, make: Make, damage: str, tmp_path: Path) -> None:
    """A version on the volume that is not what its digest pins is never taken for good, but replaced."""
    artifact = make()
    bucket.put(artifact)
    await sync(bucket.settings(artifact))
    folder = (bucket.directory / "current").resolve()
    match damage:
        case "changed":
            (folder / "model.onnx").write_bytes(b"x" * len(artifact.files["model.onnx"]))
        case "missing":
            (folder / "labels.json").unlink()
        case "extra":
            (folder / "plugin.so").write_bytes(b"x")
        case "link":
            (folder / "labels.json").rename(tmp_path / "labels.json")
            (folder / "labels.json").symlink_to(tmp_path / "labels.json")
        case _:
            folder.rename(tmp_path / "elsewhere")
            folder.symlink_to(tmp_path / "elsewhere")
    done = await sync(bucket.settings(artifact))
    assert done.downloaded
    assert not folder.is_symlink()
    verify_artifact(folder, artifact.digest)


def other_digest(bucket: Any, artifact: Artifact) -> None:
    key = "intent/2/manifest.json"
    bucket.api.objects[key] = bucket.api.objects[key].replace(b"2026", b"2025")


def missing_file(bucket: Any, artifact: Artifact) -> None:
    del bucket.api.objects["intent/2/labels.json"]


def extra_file(bucket: Any, artifact: Artifact) -> None:
    bucket.api.objects["intent/2/extra/run.sh"] = b"rm -rf /"


def climbing_object(bucket: Any, artifact: Artifact) -> None:
    bucket.api.listing["intent/2/../../evil"] = 1


def changed_file(bucket: Any, artifact: Artifact) -> None:
    bucket.api.objects["intent/2/model.onnx"] = b"z" * len(artifact.files["model.onnx"])


def shorter_file(bucket: Any, artifact: Artifact) -> None:
    bucket.api.objects["intent/2/model.onnx"] = artifact.files["model.onnx"][:-1]


def longer_file(bucket: Any, artifact: Artifact) -> None:
    bucket.api.objects["intent/2/model.onnx"] += b"!"


def lying_listing(bucket: Any, artifact: Artifact) -> None:
    """The listing says what the manifest says, and the object is longer."""
    bucket.api.listing["intent/2/model.onnx"] = len(artifact.files["model.onnx"])
    bucket.api.objects["intent/2/model.onnx"] += b"!" * 5_000_000


def large_manifest(bucket: Any, artifact: Artifact) -> None:
    bucket.api.objects["intent/2/manifest.json"] += b" " * (1 << 20)


def many_objects(bucket: Any, artifact: Artifact) -> None:
    bucket.api.objects.update({f"intent/2/part-{index:05}": b"x" for index in range(1100)})


def no_version(bucket: Any, artifact: Artifact) -> None:
    bucket.api.objects.clear()


def no_bucket(bucket: Any, artifact: Artifact) -> None:
    bucket.api.buckets.clear()


def other_key(bucket: Any, artifact: Artifact) -> None:
    bucket.api.key_id = "AKIDSOMEBODYELSE"


PERMANENT: dict[Break, Reason] = {
    other_digest: Reason.DIGEST_MISMATCH,
    missing_file: Reason.MISSING_FILE,
    extra_file: Reason.UNEXPECTED_FILE,
    climbing_object: Reason.UNSAFE_PATH,
    changed_file: Reason.CHECKSUM_MISMATCH,
    shorter_file: Reason.CHECKSUM_MISMATCH,
    longer_file: Reason.CHECKSUM_MISMATCH,
    lying_listing: Reason.CHECKSUM_MISMATCH,
    large_manifest: Reason.TOO_LARGE,
    many_objects: Reason.TOO_LARGE,
    no_version: Reason.NOT_FOUND,
    no_bucket: Reason.BUCKET_NOT_FOUND,
    other_key: Reason.ACCESS_DENIED,
}


@pytest.mark.parametrize(("damage", "reason"), PERMANENT.items(), ids=lambda value: getattr(value, "__name__", value))
async def test_what_is_wrong_is_refused_and_changes_nothing(
    bucket: Any, make: Make, damage: Break, reason: Reason
) -> None:
    """A wrong artifact is refused with its reason, and the version that was in use stays as it was."""
    before, artifact = make("1"), make("2")
    bucket.put(before)
    await sync(bucket.settings(before))
    kept = snapshot(bucket.directory)
    settings = bucket.settings(artifact)
    bucket.put(artifact)
    damage(bucket, artifact)
    for attempt in (sync(settings), verify_remote(settings)):
        with pytest.raises(ArtifactError) as refused:
            await attempt
        assert refused.value.reason is reason
        assert refused.value.exit_code == 2
    assert snapshot(bucket.directory) == kept
    assert sorted(path.name for path in bucket.directory.iterdir()) == ["current", "lock", "versions"]


TRANSIENT = {
    "errors": {"kind": "status", "status": 503, "code": "SlowDown"},
    "a server that hangs": {"kind": "hang", "path": "model.onnx", "keep": 100},
    "a connection that breaks": {"kind": "truncate", "path": "model.onnx", "keep": 100},
}


@pytest.mark.parametrize("trouble", TRANSIENT.values(), ids=TRANSIENT.keys())
async def test_a_store_in_trouble_is_transient_and_changes_nothing(
    bucket: Any, make: Make, fault: Any, trouble: dict[str, Any]
) -> None:
    """A store that fails for good is given up after a few tries, as something worth another try later."""
    before, artifact = make("1"), make("2")
    bucket.put(before)
    bucket.put(artifact)
    await sync(bucket.settings(before))
    kept = snapshot(bucket.directory)
    bucket.api.faults.append(fault(**trouble))
    bucket.api.requests.clear()
    with pytest.raises(ArtifactError) as refused:
        await sync(bucket.settings(artifact))
    assert refused.value.reason is Reason.STORAGE_UNREACHABLE
    assert refused.value.exit_code == 3
    assert snapshot(bucket.directory) == kept
    assert len(bucket.api.requests) < 20


async def test_a_store_that_recovers_is_tried_again(bucket: Any, make: Make, fault: Any) -> None:
    """A passing error, and a download that breaks off, do not fail a sync; the rest of the file is fetched, not all."""
    artifact = make()
    bucket.put(artifact)
    bucket.api.faults += [
        fault("status", path="/models", status=500, times=1),
        fault("status", path="manifest.json", status=503, code="SlowDown", times=1),
        fault("truncate", path="model.onnx", keep=1234, times=1),
    ]
    done = await sync(bucket.settings(artifact))
    assert done.downloaded
    verify_artifact(ModelCache(bucket.directory).path(artifact.digest), artifact.digest)


async def test_a_server_that_is_not_there_is_transient(bucket: Any, make: Make) -> None:
    """A connection that is refused is StorageUnreachable, and the message names the server."""
    artifact = make()
    settings = bucket.settings(artifact)
    await bucket.api.server.close()
    with pytest.raises(ArtifactError, match=r"127\.0\.0\.1") as refused:
        await sync(settings)
    assert refused.value.reason is Reason.STORAGE_UNREACHABLE


async def test_a_download_that_never_ends_is_cut_off(bucket: Any, make: Make, fault: Any) -> None:
    """Never more bytes are taken than the manifest says, however many the server sends."""
    artifact = make()
    bucket.put(artifact)
    bucket.api.faults.append(fault("endless", path="model.onnx"))
    with pytest.raises(ArtifactError) as refused:
        await sync(bucket.settings(artifact))
    assert refused.value.reason is Reason.CHECKSUM_MISMATCH


async def test_nothing_is_decompressed(bucket: Any, make: Make, fault: Any) -> None:
    """A body that claims to be gzip is taken as it is, so that nothing can grow while it is read."""
    artifact = make(files={"model.onnx": b"\0" * 2_000_000})
    bucket.put(artifact)
    bucket.api.faults.append(fault("gzip", path="model.onnx"))
    with pytest.raises(ArtifactError, match=r"has \d{4} bytes") as refused:
        await sync(bucket.settings(artifact))
    assert refused.value.reason is Reason.CHECKSUM_MISMATCH


async def test_a_sync_has_a_deadline(bucket: Any, make: Make, fault: Any) -> None:
    """A store that is merely too slow is given up when the time is over."""
    artifact = make()
    bucket.put(artifact)
    bucket.api.faults.append(fault("hang", path="model.onnx", keep=10))
    with pytest.raises(ArtifactError, match="within 0 s") as refused:
        await sync(bucket.settings(artifact, timeout=0.3))
    assert refused.value.reason is Reason.STORAGE_UNREACHABLE


async def test_a_manifest_of_another_version_is_refused(bucket: Any, make: Make) -> None:
    """An artifact that was copied to another version's place is not that version."""
    artifact = make("2")
    bucket.put(artifact)
    for key in [key for key in bucket.api.objects if key.startswith("intent/2/")]:
        bucket.api.objects[key.replace("/2/", "/3/")] = bucket.api.objects.pop(key)
    with pytest.raises(ArtifactError, match="'2', not of '3'") as refused:
        await sync(bucket.settings(artifact, version="3"))
    assert refused.value.reason is Reason.INVALID_MANIFEST


async def test_a_listing_in_pages_is_read_whole(bucket: Any, make: Make) -> None:
    """An unlisted file is found on whichever page of the listing it is, and other versions' files don't count."""
    artifact = make()
    bucket.put(artifact)
    bucket.put(make("10"))
    bucket.api.page = 2
    assert (await sync(bucket.settings(artifact))).downloaded
    bucket.api.objects["intent/1/zzz"] = b"x"
    with pytest.raises(ArtifactError, match="'zzz'"):
        await verify_remote(bucket.settings(artifact))


async def test_an_empty_object_that_marks_the_folder_is_no_file(bucket: Any, make: Make) -> None:
    """Consoles make an object named like the folder itself; an artifact may have one beside it."""
    artifact = make()
    bucket.put(artifact)
    bucket.api.objects["intent/1/"] = b""
    assert (await sync(bucket.settings(artifact))).downloaded


async def test_verifying_keeps_nothing(bucket: Any, make: Make) -> None:
    """To verify an artifact in the store, no volume is needed or touched."""
    artifact = make()
    bucket.put(artifact)
    assert (await verify_remote(bucket.settings(artifact))).digest == artifact.digest
    assert not bucket.directory.exists()


async def test_an_artifact_comes_from_a_folder_too(bucket: Any, make: Make, tmp_path: Path) -> None:
    """file:// is a source like any other, with the same refusals."""
    artifact = make()
    source = tmp_path / "source" / "1"
    for path, data in {**artifact.files, "manifest.json": artifact.manifest.render()}.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(data)
    location = bucket.settings(artifact).source.__class__(None, str(source.parent))
    assert (await sync(bucket.settings(artifact, source=location))).downloaded
    with pytest.raises(ArtifactError) as refused:
        await verify_remote(bucket.settings(artifact, source=location, version="9"))
    assert refused.value.reason is Reason.NOT_FOUND
    (source / "model.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError) as refused:
        await verify_remote(bucket.settings(artifact, source=location))
    assert refused.value.reason is Reason.CHECKSUM_MISMATCH


async def test_two_syncs_at_once_download_once(bucket: Any, make: Make) -> None:
    """Pods that share a volume wait for the one that fetches, and find it done."""
    artifact = make()
    bucket.put(artifact)
    done = await asyncio.gather(*(sync(bucket.settings(artifact)) for _ in range(4)))
    assert sum(one.downloaded for one in done) == 1
    assert bucket.api.downloads().count("intent/1/model.onnx") == 1


async def test_a_lock_that_is_never_released_is_given_up(bucket: Any, make: Make) -> None:
    """Another sync that hangs does not make this one hang for ever; it is worth another try."""
    artifact = make()
    async with ModelCache(bucket.directory).locked(1):
        with pytest.raises(ArtifactError, match="another sync") as refused:
            await sync(bucket.settings(artifact, timeout=0.2))
    assert refused.value.reason is Reason.CACHE_NOT_WRITABLE
    assert refused.value.exit_code == 3


async def test_older_versions_are_removed_but_the_previous_one_is_kept(bucket: Any, make: Make) -> None:
    """The version in use and those used last before it stay; after going back, the previous one is not the newest."""
    artifacts = {version: make(version) for version in "1234567"}
    for artifact in artifacts.values():
        bucket.put(artifact)
    cache = ModelCache(bucket.directory)

    def kept() -> str:
        return "".join(version for version, artifact in artifacts.items() if cache.path(artifact.digest).exists())

    for version in "12345":
        await sync(bucket.settings(artifacts[version]), keep=9)
    assert kept() == "12345"
    await sync(bucket.settings(artifacts["6"]), keep=4)
    assert kept() == "3456"
    await sync(bucket.settings(artifacts["3"]), keep=4)
    await sync(bucket.settings(artifacts["7"]))
    assert kept() == "37"
    assert cache.current() == artifacts["7"].digest


@pytest.mark.parametrize("is_there", [False, True])
async def test_what_a_killed_sync_left_is_removed(bucket: Any, make: Make, is_there: bool) -> None:  # noqa: FBT001 - a case
    """Leftovers of an earlier download don't fill the volume, and are never mistaken for a version."""
    artifact = make()
    bucket.put(artifact)
    if is_there:
        await sync(bucket.settings(artifact))
    leftover = bucket.directory / "incoming" / "1234"
    leftover.mkdir(parents=True)
    (leftover / "model.onnx").write_bytes(b"half")
    await sync(bucket.settings(artifact))
    assert not (bucket.directory / "incoming").exists()


def test_a_volume_without_room_is_refused_before_the_download(tmp_path: Path) -> None:
    """A model that can't fit is refused with the remedy, before the volume is filled."""
    with pytest.raises(ArtifactError, match=r"spec\.model\.cache\.size") as refused:
        IncomingFolder(tmp_path).reserve(1 << 60)
    assert refused.value.reason is Reason.CACHE_NOT_WRITABLE


async def test_a_current_that_is_no_link_is_left_alone(bucket: Any, make: Make) -> None:
    """Where somebody put a folder in current's place, the sync says so and doesn't delete it."""
    artifact = make()
    bucket.put(artifact)
    (bucket.directory / "current").mkdir(parents=True)
    (bucket.directory / "current" / "model.onnx").write_bytes(b"mine")
    with pytest.raises(ArtifactError) as refused:
        await sync(bucket.settings(artifact))
    assert refused.value.reason is Reason.CACHE_NOT_WRITABLE
    assert (bucket.directory / "current" / "model.onnx").read_bytes() == b"mine"
