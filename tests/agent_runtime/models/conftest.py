"""What the tests of model artifacts share: an S3 server of their own, artifacts, and a volume."""

from __future__ import annotations

import runpy
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from supportfleet_runtime.models.artifact import Artifact, make_artifact
from supportfleet_runtime.models.settings import Patience, SyncSettings, sync_settings

# A busy machine is no bug: tests have a timeout, and single examples need none.
settings.register_profile("supportfleet", deadline=None)
settings.load_profile("supportfleet")

FILES = {"model.onnx": b"graph" * 1000, "labels.json": b'["a"]\n', "extra/notes.txt": b"hello"}
CREATED = "2026-11-21T00:00:00Z"
IMPATIENT = Patience(connect=2, read=0.4, retries=2, first_pause=0.01)


@dataclass
class Bucket:
    """The S3 server, and what a sync from it is told."""

    api: Any
    directory: Path

    def put(self, artifact: Artifact) -> None:
        """Lay an artifact into the bucket, as publishing does."""
        prefix = f"intent/{artifact.manifest.version}/"
        objects = {**artifact.files, "manifest.json": artifact.manifest.render()}
        self.api.objects.update({prefix + path: data for path, data in objects.items()})

    def env(self, artifact: Artifact) -> dict[str, str]:
        env: dict[str, str] = self.api.env | {
            "MODEL_BUCKET": "s3://models/intent",
            "MODEL_VERSION": artifact.manifest.version,
            "MODEL_DIGEST": artifact.digest,
            "MODEL_DIR": str(self.directory),
        }
        return env

    def settings(self, artifact: Artifact, **changes: Any) -> SyncSettings:
        settings = sync_settings(self.env(artifact))
        changes = {"timeout": 20.0, **changes}
        return replace(settings, s3=replace(settings.s3, patience=IMPATIENT), **changes)


@pytest.fixture
def make() -> Callable[..., Artifact]:
    """Make an artifact; every version has other content."""

    def make(version: str = "1", files: dict[str, bytes] | None = None) -> Artifact:
        content = files or {**FILES, "model.onnx": FILES["model.onnx"] + version.encode()}
        return make_artifact(name="intent", version=version, created_at=CREATED, files=content)

    return make


@pytest.fixture
async def bucket(tmp_path: Path) -> AsyncIterator[Bucket]:
    """An S3 server with the bucket ``models``, and an empty volume."""
    api = runpy.run_path(str(Path(__file__).parent.parent / "s3_api.py"))["S3Api"]()
    async with api.serving():
        yield Bucket(api, tmp_path / "volume")


@pytest.fixture
def fault() -> Any:
    """Make a fault of the S3 server."""
    return runpy.run_path(str(Path(__file__).parent.parent / "s3_api.py"))["Fault"]
