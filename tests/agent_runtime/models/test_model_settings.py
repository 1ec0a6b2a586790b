from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_runtime.models.errors import ArtifactError, Reason
from supportfleet_runtime.models.settings import Location, parse_location, sync_settings

ENV = {
    "MODEL_BUCKET": "s3://models/intent",
    "MODEL_VERSION": "1",
    "MODEL_DIGEST": f"sha256:{'a' * 64}",
    "AWS_ACCESS_KEY_ID": "id",
    "AWS_SECRET_ACCESS_KEY": "a-secret",
    "AWS_SESSION_TOKEN": "a-token",
}


def problem(**changes: str) -> str:
    with pytest.raises(ArtifactError) as refused:
        sync_settings(ENV | changes)
    assert refused.value.reason is Reason.INVALID_SETTINGS
    return refused.value.message


def test_the_environment_names_a_model() -> None:
    """The artifact lies in the folder of its version, below the URI."""
    settings = sync_settings(ENV)
    assert str(settings.artifact) == "s3://models/intent/1"
    assert str(settings.directory) == "/models"
    assert settings.s3.region == "us-east-1"


def test_secrets_are_not_shown() -> None:
    """Settings can be logged: neither the secret key nor the session token is in their text."""
    shown = repr(sync_settings(ENV))
    assert "a-secret" not in shown
    assert "a-token" not in shown


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("s3://models", Location("models", "")),
        ("s3://models/", Location("models", "")),
        ("s3://my.models-2/a/b/", Location("my.models-2", "a/b")),
        ("file:///models", Location(None, "/models")),
        ("file:///a%20b/c", Location(None, "/a b/c")),
    ],
)
def test_uris_name_folders(uri: str, location: Location) -> None:
    """A bucket may be given with or without a prefix, a folder as a file URI."""
    assert parse_location(uri) == location


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "models",
        "/models",
        "http://models/x",
        "s3://",
        "s3:///x",
        "s3://UPPER/x",
        "s3://user:pass@models/x",
        "s3://models:9000/x",
        "s3://models/../x",
        "s3://models/a//b",
        "s3://models/x?versionId=1",
        "s3://models/x#y",
        "s3://models/%2e%2e/x",
        "s3://models/a%0ab",
        "file://host/x",
        "file:///",
        "file://",
        "file:///a/../b",
        "http://[::1",
    ],
)
def test_other_uris_are_refused(uri: str) -> None:
    """What is no plain folder in a bucket or on the file system is refused."""
    with pytest.raises(ArtifactError, match="MODEL_BUCKET"):
        parse_location(uri)


@given(
    st.text(max_size=60)
    | st.text(max_size=30).map("s3://models/{}".format)
    | st.text(max_size=30).map("file://{}".format)
)
def test_any_uri_is_read_or_refused(uri: str) -> None:
    """No text makes reading a URI fail in another way, and what is accepted never climbs."""
    try:
        location = parse_location(uri)
    except ArtifactError:
        return
    assert ".." not in location.path.split("/")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MODEL_VERSION", ""),
        ("MODEL_VERSION", "../1"),
        ("MODEL_VERSION", "1/2"),
        ("MODEL_DIGEST", "a" * 64),
        ("MODEL_DIGEST", f"sha256:{'A' * 64}"),
        ("MODEL_DIGEST", f"sha256:{'a' * 64}\n"),
        ("MODEL_SYNC_TIMEOUT", "soon"),
        ("MODEL_SYNC_TIMEOUT", "0"),
        ("MODEL_SYNC_TIMEOUT", "nan"),
        ("AWS_ENDPOINT_URL", "localhost:9000"),
        ("AWS_ENDPOINT_URL", "ftp://s3:9000"),
        ("AWS_ENDPOINT_URL", "http://"),
        ("AWS_ENDPOINT_URL", "http://s3:port"),
        ("AWS_SECRET_ACCESS_KEY", ""),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str) -> None:
    """Each variable that can't be used is named."""
    assert variable in problem(**{variable: value})


def test_credentials_in_an_endpoint_are_refused_unseen() -> None:
    """An endpoint with a password in it is refused without repeating it."""
    assert "hunter2" not in problem(AWS_ENDPOINT_URL="http://me:hunter2@s3:9000")


def test_everything_wrong_is_told_at_once() -> None:
    """One run shows all that has to be mended."""
    message = problem(MODEL_BUCKET="x", MODEL_VERSION="", MODEL_DIGEST="", AWS_ENDPOINT_URL="x")
    assert all(name in message for name in ("MODEL_BUCKET", "MODEL_VERSION", "MODEL_DIGEST", "AWS_ENDPOINT_URL"))
