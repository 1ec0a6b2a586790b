"""Image archives in the format of `docker save`, which containerd, Docker, buildah and kind all import.

An archive is a tar of the image's configuration, its layers (each a tar of its own) and `manifest.json`, which names
them. Layers stay uncompressed: they never cross a network, and importing them takes half the time.
"""

import datetime as dt
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ImageConfig:
    """What the image says of itself; the keys of `settings` are those of the OCI image configuration's `config`."""

    architecture: str
    created: dt.datetime
    settings: Mapping[str, Any] = field(default_factory=dict)


def write(path: Path, *, reference: str, layers: Sequence[Path], config: ImageConfig) -> None:
    """Write an archive that holds one image of these layers, base first."""
    digests = [_sha256(layer) for layer in layers]
    configuration = _json(_configuration(config, digests))
    name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [reference], "Layers": [f"{digest}.tar" for digest in digests]}]
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, name, configuration)
        _add(archive, "manifest.json", _json(manifest))
        for layer, digest in zip(layers, digests, strict=True):
            with layer.open("rb") as content:
                entry = tarfile.TarInfo(f"{digest}.tar")
                entry.size = layer.stat().st_size
                archive.addfile(entry, content)


def layer_of(path: Path, program: Path) -> None:
    """Write a layer that holds one program at the image's root, owned by root and the same for the same program."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as layer, program.open("rb") as content:
        entry = tarfile.TarInfo(program.name)
        entry.size = program.stat().st_size
        entry.mode = 0o755
        layer.addfile(entry, content)


def _configuration(config: ImageConfig, digests: Sequence[str]) -> dict[str, Any]:
    # buildah takes an image without times of its own for a changed one.
    created = config.created.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "architecture": config.architecture,
        "os": "linux",
        "created": created,
        "config": dict(config.settings),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": created, "created_by": "supportfleet"} for _ in digests],
    }


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
