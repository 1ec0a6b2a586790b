"""An agent image like the real one but for a bug: every second message fails. Tests load this with runpy.

It is the agent's own image with one layer more, so that everything else about it is as it is in production.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import tarfile
from pathlib import Path
from typing import Final

from supportfleet.local.images import archives

REFERENCE: Final = "docker.io/supportfleet/agent:faulty"
PACKAGES: Final = "opt/supportfleet/lib/python3.11/site-packages"
BUG: Final = """
import itertools
from supportfleet_runtime.gateway.routes import Gateway

numbers = itertools.count()
post_message = Gateway.post_message


async def fails(self, request):
    if next(numbers) % 2:
        raise RuntimeError("every second message fails in this build")
    return await post_message(self, request)


Gateway.post_message = fails
"""
FILES: Final = {f"{PACKAGES}/bug.py": BUG, f"{PACKAGES}/bug.pth": "import bug\n"}


def build(agent: Path, folder: Path) -> Path:
    """Write the archive of the faulty image beside the layers that it is made of."""
    with tarfile.open(agent) as archive:
        (manifest,) = json.load(_member(archive, "manifest.json"))
        config = json.load(_member(archive, manifest["Config"]))
        archive.extractall(folder, members=[archive.getmember(name) for name in manifest["Layers"]], filter="data")
    layers = [folder / name for name in manifest["Layers"]]
    settings = archives.ImageConfig(config["architecture"], dt.datetime.now(dt.UTC), config["config"])
    made = folder / "faulty.tar"
    archives.write(made, reference=REFERENCE, layers=[*layers, _layer(folder / "bug-layer.tar")], config=settings)
    for layer in layers:
        layer.unlink()
    return made


def _layer(path: Path) -> Path:
    with tarfile.open(path, "w") as layer:
        for name, text in FILES.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o644
            layer.addfile(entry, io.BytesIO(text.encode()))
    return path


def _member(archive: tarfile.TarFile, name: str) -> io.BufferedIOBase:
    found = archive.extractfile(name)
    assert found is not None, name
    return found  # type: ignore[return-value] # a reader of bytes
