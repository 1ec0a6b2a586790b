"""Channels: names that point to a version and are moved, so that agents can follow what is best without a changed spec.

A channel is one small object, ``<uri>/channels/<name>.json``:

::

    {"schemaVersion": 1, "version": "7", "digest": "sha256:…", "movedAt": "2026-11-21T12:00:00Z",
     "history": [{"version": "6", "digest": "sha256:…", "movedAt": …}, …]}

``history`` (the latest first) is where it pointed before, so that going back needs no other record. It is replaced on
the condition that nobody else has moved it since it was read; a store that knows no conditions takes the last one. Only
a version that is there, with its digest, can be pointed to.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from supportfleet_runtime.models.checks import check_digest
from supportfleet_runtime.models.errors import ArtifactError, Reason
from supportfleet_runtime.models.manifest import MAX_MANIFEST_BYTES, digest_of, parse_manifest
from supportfleet_runtime.models.paths import MANIFEST, SEGMENT
from supportfleet_runtime.models.settings import CHANNEL_RULE, Location, S3Settings, is_channel
from supportfleet_runtime.models.store import Store, open_store

CHANNELS: Final = "channels"
"""The folder of the channels, beside those of the versions."""
MAX_POINTER_BYTES: Final = 64 * 1024
HISTORY: Final = 10
ATTEMPTS: Final = 5
TIMEOUT_SECONDS: Final = 60.0

Version = Annotated[str, Field(pattern=rf"^{SEGMENT.pattern}\z", max_length=128)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}\z")]


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, extra="forbid", frozen=True, strict=True)


class Target(_Part):
    """What a channel points to, and since when."""

    version: Version
    digest: Digest
    moved_at: str | None = None


class Pointer(Target):
    """A channel's object."""

    schema_version: int = Field(default=1, ge=1, le=1)
    history: list[Target] = Field(default_factory=list, max_length=HISTORY)

    def render(self) -> bytes:
        """As it is stored."""
        return (json.dumps(self.model_dump(by_alias=True, exclude_none=True), indent=2) + "\n").encode()

    def moved(self, version: str, digest: str, at: str) -> Pointer:
        """The pointer to another version, which remembers this one."""
        left = Target(version=self.version, digest=self.digest, moved_at=self.moved_at)
        return Pointer(version=version, digest=digest, moved_at=at, history=[left, *self.history][:HISTORY])


@dataclass(frozen=True)
class Moved:
    """What moving a channel did. ``before`` is None where it was new."""

    pointer: Pointer
    before: Pointer | None

    def describe(self, channel: str) -> str:
        """For people."""
        now = f"channel {channel} points to version {self.pointer.version} ({self.pointer.digest})"
        if self.before == self.pointer:
            return f"{now} already"
        return now + (f", before to version {self.before.version}" if self.before else ", and is new")


def check_channel(name: str) -> str:
    """The name, if a channel may have it.

    Raises:
        ArtifactError: InvalidSettings.
    """
    if not is_channel(name):
        raise ArtifactError(Reason.INVALID_SETTINGS, f"{name!r} is no channel: it must be {CHANNEL_RULE}")
    return name


def parse_pointer(data: bytes, path: str) -> Pointer:
    """Read a channel's object.

    Raises:
        ArtifactError: InvalidManifest.
    """
    try:
        return Pointer.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        why = f"{place + ': ' if place else ''}{first['msg']}"
        raise ArtifactError(Reason.INVALID_MANIFEST, f"{path}: {why[:300]}") from error


class Channel:
    """One channel of a bucket."""

    def __init__(self, source: Location, name: str, s3: S3Settings, *, seconds: float = TIMEOUT_SECONDS) -> None:
        self._source = source
        self._s3 = s3
        self._seconds = seconds
        self._path = f"{CHANNELS}/{check_channel(name)}.json"
        self._where = f"{source}/{self._path}"

    async def show(self) -> Pointer:
        """Where it points.

        Raises:
            ArtifactError: With the reason; NotFound where there is no such channel.
        """
        async with self._limited():
            found = await self._read(self._open())
        if found is None:
            raise ArtifactError(Reason.NOT_FOUND, f"{self._where} does not exist")
        return found[0]

    async def set(self, version: str, digest: str | None, *, now: datetime) -> Moved:
        """Have it point to a published version.

        Raises:
            ArtifactError: With the reason; NotFound or DigestMismatch where there is no such version.
        """
        async with self._limited():
            return await self._move(version, await self._published(version, digest), now)

    async def back(self, *, now: datetime) -> Moved:
        """Have it point where it did before; a second time leads forward again.

        Raises:
            ArtifactError: With the reason; NotFound where it never pointed anywhere else.
        """
        history = (await self.show()).history
        if not history:
            raise ArtifactError(Reason.NOT_FOUND, f"{self._where} never pointed to another version")
        return await self.set(history[0].version, history[0].digest, now=now)

    async def _move(self, version: str, digest: str, now: datetime) -> Moved:
        store = self._open(create=True)
        at = now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        for _ in range(ATTEMPTS):
            found = await self._read(store)
            if found is None:
                pointer = Pointer(version=version, digest=digest, moved_at=at)
                if await store.create(self._path, pointer.render()):
                    return Moved(pointer, None)
                continue  # somebody else made it meanwhile
            before, tag = found
            if (before.version, before.digest) == (version, digest):
                return Moved(before, before)
            pointer = before.moved(version, digest, at)
            if await store.replace(self._path, pointer.render(), tag):
                return Moved(pointer, before)
        raise ArtifactError(Reason.STORAGE_UNREACHABLE, f"{self._where} is moved by others all the time: try again")

    async def _read(self, store: Store) -> tuple[Pointer, str | None] | None:
        found = await store.read_tagged(self._path, MAX_POINTER_BYTES)
        return (parse_pointer(found[0], self._where), found[1]) if found else None

    async def _published(self, version: str, digest: str | None) -> str:
        """The digest of a version that is there."""
        if not SEGMENT.fullmatch(version):
            raise ArtifactError(Reason.INVALID_SETTINGS, f"{version!r} is no version")
        location = self._source.child(version)
        data = await open_store(location, self._s3, timeout=self._seconds).read(MANIFEST, MAX_MANIFEST_BYTES)
        if digest:
            check_digest(data, digest)
        manifest = parse_manifest(data)
        if manifest.version != version:
            raise ArtifactError(Reason.INVALID_MANIFEST, f"{location} holds version {manifest.version!r}")
        return digest_of(data)

    def _open(self, *, create: bool = False) -> Store:
        return open_store(self._source, self._s3, timeout=self._seconds, create=create)

    @asynccontextmanager
    async def _limited(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._seconds):
                yield
        except TimeoutError as error:
            raise ArtifactError(
                Reason.STORAGE_UNREACHABLE, f"{self._source} did not answer within {self._seconds:.0f} s"
            ) from error
