from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from supportfleet_runtime.models.errors import ArtifactError, Reason
from supportfleet_runtime.models.manifest import Limits, Manifest, digest_of, parse_manifest
from supportfleet_runtime.models.paths import check_paths

SHA = "0" * 64
GOOD: dict[str, Any] = {
    "schemaVersion": 1,
    "name": "intent",
    "version": "1",
    "createdAt": "2026-11-21T00:00:00Z",
    "files": [{"path": "model.onnx", "sha256": SHA, "size": 3}],
}


def render(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def entry(path: str, size: int = 1) -> dict[str, Any]:
    return {"path": path, "sha256": SHA, "size": size}


def reason_of(data: bytes, limits: Limits | None = None) -> Reason:
    with pytest.raises(ArtifactError) as refused:
        parse_manifest(data, limits or Limits())
    return refused.value.reason


segments = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,8}", fullmatch=True)
plain_paths = st.lists(segments, min_size=1, max_size=3).map("/".join)


@given(
    files=st.dictionaries(plain_paths, st.integers(0, 1000), min_size=1, max_size=5),
    name=segments,
    version=segments,
)
def test_a_manifest_survives_being_written_and_read(files: dict[str, int], name: str, version: str) -> None:
    """What is rendered is what is parsed, always to the same bytes; paths that clash are refused instead."""
    manifest = Manifest.model_validate(
        {**GOOD, "name": name, "version": version, "files": [entry(path, size) for path, size in files.items()]}
    )
    try:
        parsed = parse_manifest(manifest.render())
    except ArtifactError as error:
        assert error.reason is Reason.UNSAFE_PATH  # noqa: PT017 - either outcome is right, but only these two
    else:
        assert parsed == manifest
        assert digest_of(parsed.render()) == digest_of(manifest.render())


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"")
@example(b"[" * 100_000)
@example(b'{"files": NaN}')
@example(b"1" * 5000)
@example(b"null")
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    """No input makes the parser fail in a way that has no reason."""
    assert reason_of(data) is Reason.INVALID_MANIFEST


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@given(key=st.sampled_from(sorted(GOOD)), value=json_values)
def test_a_field_of_another_kind_is_refused(key: str, value: Any) -> None:
    """Whatever a field is replaced with, the outcome is a valid manifest or an error with a reason."""
    try:
        manifest = parse_manifest(render(**{key: value}))
    except ArtifactError:
        return
    assert isinstance(manifest, Manifest)
    assert manifest.files


@pytest.mark.parametrize(
    "data",
    [
        render(schemaVersion=2),
        render(schemaVersion=True),
        render(surprise=1),
        render(files=[]),
        render(files=[{**entry("a"), "mode": "0777"}]),
        render(files=[entry("a", -1)]),
        render(files=[{**entry("a"), "size": "3"}]),
        render(files=[{**entry("a"), "size": True}]),
        render(files=[{**entry("a"), "sha256": "A" * 64}]),
        render(files=[{**entry("a"), "sha256": SHA + "\n"}]),
        render(name="../x"),
        render(version="a/b"),
        render(version="1\n"),
        render(createdAt="yesterday"),
        render(createdAt="1700000000"),
        render(createdAt="2026-13-21T00:00:00Z"),
        render(createdAt="2026-11-21T00:00:00"),
        b'{"schemaVersion": 1,' + render()[1:],
        b"\xef\xbb\xbf" + render(),
    ],
)
def test_a_malformed_manifest_is_refused(data: bytes) -> None:
    """Unknown or repeated keys, other types, other versions of the schema: all refused."""
    assert reason_of(data) is Reason.INVALID_MANIFEST


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "../model.onnx",
        "a/../../b",
        "a/./b",
        "a//b",
        "/etc/passwd",
        "a/",
        "\\windows",
        "a\\b",
        "C:model",
        "a\0b",
        "a\nb",
        " a",
        "a b",
        ".hidden",
        "-rf",
        "~root",
        "%2e%2e/a",
        "ünicode",
        "\uff41",
        "a\u202eb",
        "x" * 256,
        "/".join("abcdefghi"),
        "manifest.json",
        "MANIFEST.json",
        "manifest.json/x",
    ],
)
def test_an_unsafe_path_is_refused(path: str) -> None:
    """A path that could lead elsewhere, or be read in two ways, is refused by that reason."""
    assert reason_of(render(files=[entry(path)])) is Reason.UNSAFE_PATH


@pytest.mark.parametrize("paths", [["a", "a"], ["a", "A"], ["a", "a/b"], ["x/Y/z", "X/y"], ["a/b", "A/b"]])
def test_paths_that_clash_are_refused(paths: list[str]) -> None:
    """Two paths that are one on some file system are refused."""
    assert reason_of(render(files=[entry(path) for path in paths])) is Reason.UNSAFE_PATH


@given(st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "", "a", "/", "\\", "\0", "~"])).map("/".join))
def test_an_accepted_path_stays_in_its_folder(path: str) -> None:
    """Whatever path is accepted, joining it to a folder gives a place inside of that folder."""
    try:
        check_paths([path])
    except ArtifactError:
        return
    joined = os.path.normpath(Path("/models/versions/x") / path)
    assert joined == f"/models/versions/x/{path}"
    assert path.isascii()
    assert path.isprintable()


@pytest.mark.parametrize(
    "files",
    [
        [entry("a", 11)],
        [entry("a", 10), entry("b", 10), entry("c", 10)],
        [entry(f"f{index}", 0) for index in range(4)],
    ],
)
def test_limits_hold(files: list[dict[str, Any]]) -> None:
    """A file, all files together, and their number are bounded."""
    assert reason_of(render(files=files), Limits(files=3, file_bytes=10, total_bytes=25)) is Reason.TOO_LARGE


def test_a_large_manifest_is_not_parsed() -> None:
    """A manifest beyond a megabyte is refused, whatever is in it."""
    assert reason_of(render() + b" " * (1 << 20)) is Reason.TOO_LARGE
