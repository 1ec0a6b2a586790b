"""Archives in the format of `docker save`."""

import datetime as dt
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from supportfleet.local.images import archives

CREATED = dt.datetime(2026, 3, 1, 12, 30, tzinfo=dt.timezone(dt.timedelta(hours=2)))


def layer(path: Path, **files: str) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content.encode()))
    return path


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, bytes]]:
    """The manifest, the configuration and all the files of an archive with one image."""
    with tarfile.open(path) as archive:
        files = {name: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]
    (manifest,) = json.loads(files["manifest.json"])
    return manifest, json.loads(files[manifest["Config"]]), files


def test_layers_stand_in_order_under_their_digests(tmp_path: Path) -> None:
    """The configuration's diff_ids are the digests of the layers that the manifest names, base first."""
    layers = [layer(tmp_path / "1", a="base"), layer(tmp_path / "2", b="top")]
    config = archives.ImageConfig("amd64", CREATED, {"User": "65532"})
    archives.write(tmp_path / "image.tar", reference="docker.io/x/y:dev", layers=layers, config=config)
    manifest, configuration, files = read(tmp_path / "image.tar")
    digests = [hashlib.sha256(files[name]).hexdigest() for name in manifest["Layers"]]
    assert [files[name] for name in manifest["Layers"]] == [path.read_bytes() for path in layers]
    assert configuration["rootfs"] == {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]}
    assert manifest["RepoTags"] == ["docker.io/x/y:dev"]
    assert (configuration["os"], configuration["architecture"]) == ("linux", "amd64")
    assert configuration["config"] == {"User": "65532"}


def test_an_image_and_its_history_carry_the_time_in_utc(tmp_path: Path) -> None:
    """Buildah's layer cache compares times, so each entry of the history has one."""
    archives.write(
        tmp_path / "image.tar",
        reference="x:dev",
        layers=[layer(tmp_path / "1", a="")],
        config=archives.ImageConfig("amd64", CREATED),
    )
    _, configuration, _ = read(tmp_path / "image.tar")
    assert configuration["created"] == "2026-03-01T10:30:00Z"
    assert [entry["created"] for entry in configuration["history"]] == ["2026-03-01T10:30:00Z"]


def test_a_program_becomes_the_same_layer_every_time(tmp_path: Path) -> None:
    """A layer of one program holds nothing of when and by whom it was written, and the program is executable."""
    program = tmp_path / "pause"
    program.write_bytes(b"ELF")
    archives.layer_of(tmp_path / "1.tar", program)
    program.touch()
    program.chmod(0o600)
    archives.layer_of(tmp_path / "2.tar", program)
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    with tarfile.open(tmp_path / "1.tar") as tar:
        (entry,) = tar.getmembers()
    assert (entry.name, entry.mode, entry.uid, entry.gid, entry.mtime) == ("pause", 0o755, 0, 0, 0)
