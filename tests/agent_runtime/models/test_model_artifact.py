from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from supportfleet_runtime.__main__ import main
from supportfleet_runtime.models.artifact import Artifact, make_artifact, read_artifact, verify_artifact, write_artifact
from supportfleet_runtime.models.errors import ArtifactError, Reason

Make = Callable[..., Artifact]


def reason_of(folder: Path, digest: str | None = None) -> Reason:
    with pytest.raises(ArtifactError) as by_verifying:
        verify_artifact(folder, digest)
    with pytest.raises(ArtifactError) as by_reading:
        read_artifact(folder, digest)
    assert by_verifying.value.reason is by_reading.value.reason
    return by_verifying.value.reason


@pytest.fixture
def folder(make: Make, tmp_path: Path) -> Path:
    write_artifact(tmp_path / "artifact", make())
    return tmp_path / "artifact"


def test_what_is_written_can_be_read(make: Make, folder: Path) -> None:
    """An artifact comes back from a folder with the bytes and the digest it went in with."""
    artifact = make()
    assert read_artifact(folder, artifact.digest) == artifact
    assert verify_artifact(folder) == (artifact.manifest, artifact.digest)


def test_the_digest_pins_every_byte(make: Make) -> None:
    """Other content, another name, version or time of creation: another digest."""
    base = {"name": "intent", "version": "1", "created_at": "2026-11-21T00:00:00Z"}
    artifacts = [
        make_artifact(**(base | changes), files={"a": data})
        for changes, data in [
            ({}, b"1"),
            ({}, b"2"),
            ({"name": "other"}, b"1"),
            ({"version": "2"}, b"1"),
            ({"created_at": "2026-11-22T00:00:00Z"}, b"1"),
        ]
    ]
    assert len({artifact.digest for artifact in artifacts}) == len(artifacts)


def test_every_flipped_byte_is_noticed(make: Make, folder: Path) -> None:
    """Whichever byte of whichever file changes, verification fails."""
    artifact = make()
    for path in artifact.files:
        data = bytearray((folder / path).read_bytes())
        for index in {0, len(data) // 2, len(data) - 1}:
            data[index] ^= 1
            (folder / path).write_bytes(data)
            assert reason_of(folder) is Reason.CHECKSUM_MISMATCH
            data[index] ^= 1
        (folder / path).write_bytes(data)
    verify_artifact(folder, artifact.digest)


@pytest.mark.parametrize("size", [0, 1, 6, 8])
def test_another_size_is_noticed(folder: Path, size: int) -> None:
    """A file that is cut short or goes on is refused."""
    (folder / "labels.json").write_bytes(b'["a"]\n!!'[:size].ljust(size, b"!") if size != 6 else b'["b"]\n')
    assert reason_of(folder) is Reason.CHECKSUM_MISMATCH


def test_missing_and_unexpected_files_are_told_apart(folder: Path) -> None:
    """A file that is not there and one that should not be there have different reasons."""
    (folder / "extra" / "more").mkdir()
    (folder / "extra" / "more" / "x").touch()
    assert reason_of(folder) is Reason.UNEXPECTED_FILE
    (folder / "extra" / "more" / "x").unlink()
    (folder / "labels.json").unlink()
    assert reason_of(folder) is Reason.MISSING_FILE
    (folder / "manifest.json").unlink()
    assert reason_of(folder) is Reason.MISSING_FILE
    assert reason_of(folder / "nowhere") is Reason.NOT_FOUND


@pytest.mark.parametrize("path", ["labels.json", "manifest.json", "extra"])
def test_links_are_not_followed(folder: Path, tmp_path: Path, path: str) -> None:
    """A link in an artifact's folder is refused, even one that leads to the right bytes."""
    (folder / path).rename(tmp_path / "moved")
    (folder / path).symlink_to(tmp_path / "moved")
    assert reason_of(folder) is Reason.UNEXPECTED_FILE


def test_a_pipe_does_not_block(folder: Path) -> None:
    """A named pipe in a file's place is refused at once instead of being waited for."""
    (folder / "labels.json").unlink()
    os.mkfifo(folder / "labels.json")
    assert reason_of(folder) is Reason.UNEXPECTED_FILE


def test_another_digest_is_refused_before_the_manifest_is_read(folder: Path) -> None:
    """A manifest that is not the pinned one is refused as such, even if it is no manifest at all."""
    assert reason_of(folder, f"sha256:{'0' * 64}") is Reason.DIGEST_MISMATCH
    (folder / "manifest.json").write_bytes(b"garbage")
    assert reason_of(folder, f"sha256:{'0' * 64}") is Reason.DIGEST_MISMATCH
    assert reason_of(folder) is Reason.INVALID_MANIFEST


def test_writing_replaces_an_artifact_but_nothing_else(make: Make, folder: Path) -> None:
    """A folder with an older artifact is reused; one with foreign files is left as it is."""
    write_artifact(folder, make("2"))
    assert read_artifact(folder).manifest.version == "2"
    (folder / "thesis.doc").write_text("years of work")
    with pytest.raises(ArtifactError, match=r"thesis\.doc"):
        write_artifact(folder, make("3"))
    assert (folder / "thesis.doc").read_text() == "years of work"
    assert (folder / "manifest.json").read_bytes() == make("2").manifest.render()


def test_verify_model_prints_the_digest(make: Make, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints what to put into spec.model.digest, or says what is wrong and exits 2."""
    digest = make().digest
    assert main(["verify-model", str(folder), "--digest", digest]) == 0
    assert capsys.readouterr().out.strip() == digest
    (folder / "labels.json").unlink()
    assert main(["verify-model", str(folder)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("MissingFile: ")
