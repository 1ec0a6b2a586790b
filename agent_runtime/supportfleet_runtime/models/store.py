"""The object store: S3 and whatever speaks its protocol, or a folder. The only module that knows obstore.

obstore owns the retries: requests that fail with a 5xx, a broken connection or a timeout are repeated a few times with
growing pauses, and a broken download goes on where it stopped. Nothing above this module tries anything twice; after
it, Kubernetes restarts the pod. Bodies are never decompressed, whatever ``Content-Encoding`` says.

What the store answers is not repeated in messages, since an error's body may hold what was signed; only the HTTP status
and S3's error code are.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError, PreconditionError
from obstore.store import LocalStore, S3Store

from supportfleet_runtime.models.errors import ArtifactError, Reason
from supportfleet_runtime.models.settings import Location, S3Settings

LONGEST_PAUSE: Final = timedelta(seconds=5)
LONGEST_RETRYING: Final = 120
CHUNK_BYTES: Final = 1 << 20

_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_NETWORK: Final = (
    ("dns error", "its name can't be resolved"),
    ("Connection refused", "the connection was refused"),
    ("ertificate", "its certificate is not trusted"),
    ("kind: Timeout", "it does not answer in time"),
    ("timed out", "it does not answer in time"),
    ("169.254.169.254", "there are no credentials"),
)
_DENIED_CODES: Final = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidSecurity",
        "InvalidToken",
        "XAdminUserNotFound",  # versitygw's 404 for an unknown key
    }
)
_NO_PERMISSION: Final = "os error 13"
_DENIED: Final = frozenset({401, 403})
_NOT_FOUND: Final = 404
_NOT_IMPLEMENTED: Final = 501
_MOVED: Final = frozenset({301, 307, 308})

if TYPE_CHECKING:  # obstore has these only for type checkers
    from obstore.store import ClientConfig, ObjectStore, RetryConfig, S3Config


class Store:
    """One folder of an object store."""

    def __init__(self, store: ObjectStore, location: Location, server: str) -> None:
        self._store = store
        self._location = location
        self._server = server

    async def list(self, limit: int) -> dict[str, int]:
        """The path and size of each object in the folder, at most ``limit`` of them.

        Raises:
            ArtifactError: With the reason.
        """
        found: dict[str, int] = {}
        with self._translated():
            async for page in self._store.list():
                # Some tools mark a folder by an empty object of its name, which comes without a path here.
                found |= {entry["path"]: entry["size"] for entry in page if entry["path"]}
                if len(found) > limit:
                    raise ArtifactError(Reason.TOO_LARGE, f"{self._location} has more than {limit} files")
        return found

    async def stream(self, path: str) -> AsyncGenerator[memoryview]:
        """An object's bytes in chunks.

        Raises:
            ArtifactError: With the reason.
        """
        with self._translated(path):
            result = await self._store.get_async(path)
            async for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                yield memoryview(chunk)

    async def read(self, path: str, limit: int) -> bytes:
        """A small object's bytes.

        Raises:
            ArtifactError: With the reason; TooLarge, before more than ``limit`` bytes were taken.
        """
        data = bytearray()
        async with aclosing(self.stream(path)) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > limit:
                    raise ArtifactError(Reason.TOO_LARGE, f"{path!r} is larger than {limit} bytes")
        return bytes(data)

    async def read_tagged(self, path: str, limit: int) -> tuple[bytes, str | None] | None:
        """A small object's bytes, and the tag by which it can be replaced; None where there is no such object.

        Raises:
            ArtifactError: With the reason.
        """
        with self._translated(path):
            try:
                result = await self._store.get_async(path)
            except FileNotFoundError as error:
                if _CODE.search(str(error)) and "NoSuchBucket" in str(error):
                    raise
                return None
            if result.meta["size"] > limit:
                raise ArtifactError(Reason.TOO_LARGE, f"{path!r} is larger than {limit} bytes")
            return bytes(await result.bytes_async()), result.meta["e_tag"]

    async def replace(self, path: str, data: bytes, tag: str | None) -> bool:
        """Replace the object that has this tag, and say whether it still had it.

        A store that knows no such condition (a folder, some S3 servers) replaces whatever is there.

        Raises:
            ArtifactError: With the reason.
        """
        with self._translated(path):
            try:
                if tag is not None:
                    await self._store.put_async(path, data, mode={"e_tag": tag}, use_multipart=False)
                    return True
            except PreconditionError:
                return False
            except (BaseError, NotImplementedError) as error:  # obstore raises the latter for folders
                if not _knows_no_conditions(error):
                    raise
            await self._store.put_async(path, data, mode="overwrite", use_multipart=False)
        return True

    async def upload(self, path: str, file: Path) -> None:
        """Put a file into the folder, whatever was there before.

        Raises:
            ArtifactError: With the reason.
        """
        with self._translated(path):
            await self._store.put_async(path, file)

    async def create(self, path: str, data: bytes) -> bool:
        """Put an object into the folder unless there is one of that name, and say whether there was none.

        Raises:
            ArtifactError: With the reason.
        """
        with self._translated(path):
            try:
                await self._store.put_async(path, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
        return True

    @contextmanager
    def _translated(self, path: str | None = None) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise self._error(str(error), path, _NOT_FOUND) from error
        except (BaseError, ValueError) as error:
            raise self._error(str(error), path) from error

    def _error(self, text: str, path: str | None, status: int | None = None) -> ArtifactError:
        """What an exception of obstore means here, without its text."""
        where = f"{self._location}/{path}" if path else str(self._location)
        if found := _STATUS.search(text):
            status = int(found[1])
        code = found[1] if (found := _CODE.search(text)) else None
        said = ", ".join(str(part) for part in (status, code) if part) or "an error"
        if "invalid path" in text or "Could not parse path" in text:
            return ArtifactError(Reason.UNSAFE_PATH, f"{where} holds an object whose name can't be a file's path")
        if code == "NoSuchBucket" or status in _MOVED or code == "PermanentRedirect":
            return ArtifactError(
                Reason.BUCKET_NOT_FOUND,
                f"{self._server} has no bucket {self._location.bucket!r} ({said}): "
                "check spec.model.uri, endpoint and region",
            )
        if status in _DENIED or code in _DENIED_CODES or _NO_PERMISSION in text:
            return ArtifactError(
                Reason.ACCESS_DENIED,
                f"{self._server} denies access to {where} ({said}): "
                "check the credentials and what they may read and list",
            )
        if status == _NOT_FOUND:
            return ArtifactError(Reason.NOT_FOUND, f"{where} does not exist")
        why = next((meaning for sign, meaning in _NETWORK if sign in text), f"it answered with {said}")
        return ArtifactError(Reason.STORAGE_UNREACHABLE, f"{self._server} can't serve {where}: {why}")


def _knows_no_conditions(error: Exception) -> bool:
    if isinstance(error, NotSupportedError | NotImplementedError):
        return True
    found = _STATUS.search(str(error))
    return found is not None and int(found[1]) == _NOT_IMPLEMENTED


def open_store(location: Location, s3: S3Settings, *, timeout: float, create: bool = False) -> Store:
    """Open a folder of a bucket or of the file system; a request may take ``timeout`` seconds.

    Raises:
        ArtifactError: With the reason.
    """
    if location.bucket is None:
        return Store(_open_folder(location, create=create), location, "the file system")
    if s3.endpoint and not s3.access_key_id and not s3.has_role:
        raise ArtifactError(
            Reason.ACCESS_DENIED,
            f"there are no credentials for {s3.endpoint}: set spec.model.credentialsSecretRef to a Secret with "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    client: ClientConfig = {
        "allow_http": bool(s3.endpoint and s3.endpoint.startswith("http://")),
        "connect_timeout": timedelta(seconds=s3.patience.connect),
        "read_timeout": timedelta(seconds=s3.patience.read),
        "timeout": timedelta(seconds=timeout),
    }
    first_pause = timedelta(seconds=s3.patience.first_pause)
    retry: RetryConfig = {
        "max_retries": s3.patience.retries,
        "backoff": {"init_backoff": first_pause, "max_backoff": LONGEST_PAUSE, "base": 3},
        "retry_timeout": timedelta(seconds=min(timeout, LONGEST_RETRYING)),
    }
    config: S3Config = {"region": s3.region, "virtual_hosted_style_request": False}
    if s3.endpoint:
        config["endpoint"] = s3.endpoint
    if s3.access_key_id and s3.secret_access_key:
        config["access_key_id"], config["secret_access_key"] = s3.access_key_id, s3.secret_access_key
    if s3.session_token:
        config["session_token"] = s3.session_token
    store = S3Store(
        location.bucket, prefix=location.path or None, config=config, client_options=client, retry_config=retry
    )
    return Store(store, location, s3.endpoint or "Amazon S3")


def _open_folder(location: Location, *, create: bool) -> LocalStore:
    try:
        return LocalStore(location.path, mkdir=create)
    except (BaseError, OSError) as error:
        raise ArtifactError(Reason.NOT_FOUND, f"{location} does not exist or is no folder") from error
