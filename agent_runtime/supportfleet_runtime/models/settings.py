"""What the environment says about where models come from and where they are kept.

===================================  ======================================================================
``MODEL_BUCKET``                     the artifact's URI: ``s3://bucket/prefix`` or ``file:///folder``
``MODEL_VERSION``, ``MODEL_DIGEST``  which version, and the digest that pins its bytes
``MODEL_FILE``                       instead of these three: a JSON file with ``uri``, ``version`` and ``digest``
``MODEL_CHANNEL``                    for ``resolve-channel``: the channel, instead of version and digest
``MODEL_DIR``                        the volume that models are kept on (default ``/models``)
``MODEL_SYNC_TIMEOUT``               seconds that a sync may take in all (default 900)
``AWS_ENDPOINT_URL``                 an S3-compatible server other than Amazon's; ``http://`` is allowed
``AWS_REGION``                       its region (default ``us-east-1``)
``AWS_ACCESS_KEY_ID``,               its credentials; without them those of the pod's role (web identity, container or
``AWS_SECRET_ACCESS_KEY``,           instance credentials), or none with ``AWS_SKIP_SIGNATURE=true``
``AWS_SESSION_TOKEN``
===================================  ======================================================================
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote, urlsplit

from supportfleet_runtime.models.errors import ArtifactError, Reason
from supportfleet_runtime.models.paths import SEGMENT

DEFAULT_DIRECTORY: Final = "/models"
DEFAULT_TIMEOUT_SECONDS: Final = 900.0
MAX_TIMEOUT_SECONDS: Final = 86_400.0
DEFAULT_REGION: Final = "us-east-1"
MAX_CHANNEL_CHARACTERS: Final = 63
CHANNEL_RULE: Final = "of up to 63 letters, digits, '.', '_' and '-', beginning with a letter or digit"
MAX_MODEL_FILE_BYTES: Final = 64 * 1024
MODEL_FILE_KEYS: Final = MappingProxyType({"uri": "MODEL_BUCKET", "version": "MODEL_VERSION", "digest": "MODEL_DIGEST"})
_MODEL_FILE: Final = '{"uri": …, "version": …, "digest": …}'

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ROLES: Final = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_SKIP_SIGNATURE",
)


@dataclass(frozen=True)
class Location:
    """A folder in a bucket, or, where ``bucket`` is None, on a file system."""

    bucket: str | None
    path: str

    def child(self, name: str) -> "Location":
        """A folder in this one."""
        return Location(self.bucket, f"{self.path.rstrip('/')}/{name}".lstrip("/" if self.bucket else ""))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.path}".rstrip("/") if self.bucket else f"file://{self.path}"


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for, and how often a request that failed is repeated. All in seconds."""

    connect: float = 5
    read: float = 20
    retries: int = 3
    first_pause: float = 0.2


@dataclass(frozen=True)
class S3Settings:
    """How an S3 server is reached."""

    endpoint: str | None = None
    region: str = DEFAULT_REGION
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    has_role: bool = False
    """Whether the pod's own identity is to be used, or none at all."""
    patience: Patience = Patience()


@dataclass(frozen=True)
class SyncSettings:
    """Which model, from where, to where."""

    source: Location
    version: str
    digest: str
    directory: Path
    timeout: float
    s3: S3Settings

    @property
    def artifact(self) -> Location:
        """Where the artifact lies."""
        return self.source.child(self.version)


def sync_settings(environ: Mapping[str, str]) -> SyncSettings:
    """Read the environment.

    Raises:
        ArtifactError: InvalidSettings, naming all that is wrong.
    """
    if file := environ.get("MODEL_FILE"):
        environ = {**environ, **model_variables(read_model_file(Path(file)))}
    problems: list[str] = []
    source = _location(environ.get("MODEL_BUCKET", ""), problems)
    version = environ.get("MODEL_VERSION", "")
    if not SEGMENT.fullmatch(version):
        problems.append(f"MODEL_VERSION is {version!r}; it must be of letters, digits, '.', '_' and '-'")
    digest = environ.get("MODEL_DIGEST", "")
    if not _DIGEST.fullmatch(digest):
        problems.append(f"MODEL_DIGEST is {digest!r}; it must be sha256: and 64 lower-case hexadecimal digits")
    timeout = _timeout(environ.get("MODEL_SYNC_TIMEOUT") or str(DEFAULT_TIMEOUT_SECONDS), problems)
    s3 = _s3(environ, problems)
    if problems:
        raise _invalid(problems)
    directory = Path(environ.get("MODEL_DIR") or DEFAULT_DIRECTORY).absolute()
    return SyncSettings(source, version, digest, directory, timeout, s3)


def model_variables(content: bytes) -> dict[str, str]:
    """What a MODEL_FILE says, as the variables that it stands for.

    Raises:
        ArtifactError: InvalidSettings.
    """
    try:
        given = json.loads(content)
    except ValueError as error:
        raise _invalid([f"MODEL_FILE is no JSON ({error}); it must hold {_MODEL_FILE}"]) from error
    if not isinstance(given, dict) or given.keys() != set(MODEL_FILE_KEYS):
        raise _invalid([f"MODEL_FILE must hold exactly {_MODEL_FILE}"])
    if wrong := [key for key, value in given.items() if not isinstance(value, str)]:
        raise _invalid([f"MODEL_FILE: {key} must be a text" for key in wrong])
    return {variable: given[key] for key, variable in MODEL_FILE_KEYS.items()}


def read_model_file(path: Path) -> bytes:
    """The content of a MODEL_FILE.

    Raises:
        ArtifactError: InvalidSettings.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_MODEL_FILE_BYTES)
    except OSError as error:
        raise _invalid([f"MODEL_FILE {path} can't be read: {error.strerror}; it must hold {_MODEL_FILE}"]) from error


def channel_settings(environ: Mapping[str, str]) -> tuple[Location, str, S3Settings]:
    """Read which channel is to be resolved: its bucket, its name, how the bucket is reached.

    Raises:
        ArtifactError: InvalidSettings, naming all that is wrong.
    """
    problems: list[str] = []
    source = _location(environ.get("MODEL_BUCKET", ""), problems)
    channel = environ.get("MODEL_CHANNEL", "")
    if not is_channel(channel):
        problems.append(f"MODEL_CHANNEL is {channel!r}; it must be {CHANNEL_RULE}")
    s3 = _s3(environ, problems)
    if problems:
        raise _invalid(problems)
    return source, channel, s3


def is_channel(name: str) -> bool:
    """Whether a channel may have this name."""
    return len(name) <= MAX_CHANNEL_CHARACTERS and SEGMENT.fullmatch(name) is not None


def s3_settings(environ: Mapping[str, str]) -> S3Settings:
    """Read how the S3 server is reached.

    Raises:
        ArtifactError: InvalidSettings.
    """
    problems: list[str] = []
    settings = _s3(environ, problems)
    if problems:
        raise _invalid(problems)
    return settings


def parse_location(uri: str) -> Location:
    """Read the URI of a folder.

    Raises:
        ArtifactError: InvalidSettings.
    """
    problems: list[str] = []
    location = _location(uri, problems)
    if problems:
        raise _invalid(problems)
    return location


def _location(uri: str, problems: list[str]) -> Location:
    try:
        parts = urlsplit(uri)
    except ValueError:
        parts = urlsplit("")
    path = unquote(parts.path)
    segments = path.strip("/").split("/") if path.strip("/") else []
    plain = not (parts.query or parts.fragment) and not {"", ".", ".."} & set(segments) and path.isprintable()
    if plain and parts.scheme == "s3" and _BUCKET.fullmatch(parts.netloc):
        return Location(parts.netloc, "/".join(segments))
    if plain and parts.scheme == "file" and not parts.netloc and segments:
        return Location(None, "/" + "/".join(segments))
    problems.append(f"MODEL_BUCKET is {uri!r}; it must be like s3://bucket/prefix or file:///folder")
    return Location(None, "/")


def _s3(environ: Mapping[str, str], problems: list[str]) -> S3Settings:
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or None
    if endpoint is not None and not _is_endpoint(endpoint):
        problems.append("AWS_ENDPOINT_URL must be like http://host:port or https://host, without credentials in it")
    key, secret = environ.get("AWS_ACCESS_KEY_ID") or None, environ.get("AWS_SECRET_ACCESS_KEY") or None
    if (key is None) != (secret is None):
        problems.append("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be given together")
    return S3Settings(
        endpoint=endpoint.rstrip("/") if endpoint else None,
        region=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or DEFAULT_REGION,
        access_key_id=key,
        secret_access_key=secret,
        session_token=environ.get("AWS_SESSION_TOKEN") or None,
        has_role=any(environ.get(name) for name in _ROLES),
    )


def _is_endpoint(value: str) -> bool:
    try:
        parts = urlsplit(value)
        plain = parts.username is None and parts.password is None and not (parts.query or parts.fragment)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and plain
    except ValueError:  # a port that is no number
        return False


def _timeout(value: str, problems: list[str]) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= MAX_TIMEOUT_SECONDS:
        problems.append(
            f"MODEL_SYNC_TIMEOUT is {value!r}; it must be a number of seconds up to {MAX_TIMEOUT_SECONDS:.0f}"
        )
    return seconds


def _invalid(problems: list[str]) -> ArtifactError:
    return ArtifactError(Reason.INVALID_SETTINGS, "; ".join(problems))
