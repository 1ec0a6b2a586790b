"""What a build is told of the network, from the host's environment."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supportfleet.local.images import network


def of(tmp_path: Path, **environ: str) -> network.Network:
    return network.of(environ, system_bundles=[tmp_path / "system.crt"])


def sourced(script: str, name: str) -> str:
    """What a shell that reads the script has in a variable."""
    command = f'{script}\nprintf %s "${{{name}-}}"'
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=True, timeout=10, env={})
    return done.stdout.decode()


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_any_value_survives_the_shell(value: str) -> None:
    """A password with quotes, dollars or newlines arrives as it is, and runs nothing."""
    script = network.Network({"PIP_INDEX_URL": value}, None, ()).script()
    assert sourced(script, "PIP_INDEX_URL") == value


def test_only_network_settings_are_passed_on(tmp_path: Path) -> None:
    """Proxies and package sources go to the build; targets, caches, tokens and the rest of the environment don't."""
    wanted = {
        "https_proxy": "http://proxy:3128",
        "NO_PROXY": "localhost",
        "PIP_TRUSTED_HOST": "index",
        "UV_HTTP_TIMEOUT": "60",
        "UV_INDEX_CORP_PASSWORD": "secret",
    }
    others = {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x", "PIP_TARGET": "/x", "UV_CACHE_DIR": "/x", "HTTP_PROXY": ""}
    assert of(tmp_path, **wanted, **others).environment == wanted


@pytest.mark.parametrize(
    ("given", "pip", "uv"),
    [
        ({"PIP_INDEX_URL": "https://a/simple"}, "https://a/simple", "https://a/simple"),
        ({"UV_DEFAULT_INDEX": "corp=https://b/simple"}, "https://b/simple", "corp=https://b/simple"),
        ({"PIP_INDEX_URL": "https://a", "UV_DEFAULT_INDEX": "https://b"}, "https://a", "https://b"),
        ({}, None, None),
    ],
)
def test_pip_and_uv_use_the_same_index(tmp_path: Path, given: dict[str, str], pip: str | None, uv: str | None) -> None:
    """Who sets the index for one of the two means both; who sets both is believed."""
    environment = of(tmp_path, **given).environment
    assert (environment.get("PIP_INDEX_URL"), environment.get("UV_DEFAULT_INDEX")) == (pip, uv)


def test_an_older_uv_variable_is_no_reason_to_add_the_newer(tmp_path: Path) -> None:
    """UV_INDEX_URL alone stays alone for uv, and pip gets it too."""
    environment = of(tmp_path, UV_INDEX_URL="https://a/simple").environment
    assert environment == {"UV_INDEX_URL": "https://a/simple", "PIP_INDEX_URL": "https://a/simple"}


def test_uv_looks_through_pips_extra_indexes_as_pip_does(tmp_path: Path) -> None:
    """With pip's extra index uv takes any index that has the pinned version, unless uv is told otherwise."""
    environment = of(tmp_path, PIP_EXTRA_INDEX_URL="https://x").environment
    assert environment["UV_EXTRA_INDEX_URL"] == "https://x"
    assert environment["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    own = of(tmp_path, PIP_EXTRA_INDEX_URL="https://x", UV_INDEX="corp=https://y").environment
    assert "UV_EXTRA_INDEX_URL" not in own


def test_the_ca_bundle_is_the_one_the_environment_names(tmp_path: Path) -> None:
    """SSL_CERT_FILE and pip's own setting come before the system's bundle; a missing file is passed over."""
    system, own = tmp_path / "system.crt", tmp_path / "own.crt"
    system.touch()
    own.touch()
    assert of(tmp_path).ca_certificates == system
    assert of(tmp_path, SSL_CERT_FILE=str(own)).ca_certificates == own
    assert of(tmp_path, PIP_CERT=str(own), SSL_CERT_FILE=str(tmp_path / "gone")).ca_certificates == own
    system.unlink()
    assert of(tmp_path).ca_certificates is None


def test_pip_and_uv_are_told_of_the_bundle_where_there_is_one(tmp_path: Path) -> None:
    """The build's environment names the place where the bundle is mounted, never the host's path."""
    (tmp_path / "system.crt").write_text("a certificate")
    found = of(tmp_path)
    folders = tmp_path / "given", tmp_path / "wheels"
    for folder in folders:
        folder.mkdir()
    found.stage(*folders)
    assert (tmp_path / "given" / "ca-certificates").read_text() == "a certificate"
    script = (tmp_path / "given" / "build-environment").read_text()
    assert sourced(script, "SSL_CERT_FILE") == sourced(script, "PIP_CERT") == network.CA_CERTIFICATES
    assert str(tmp_path) not in script
    assert network.Network({}, None, ()).script() == ""


def test_folders_of_wheels_become_one_and_addresses_stay(tmp_path: Path) -> None:
    """Existing folders of both tools' variables are gathered, the first one winning; missing ones are dropped."""
    for name, wheels in {"a": ("x.whl", "both.whl", "notes.txt"), "b": ("y.whl", "both.whl")}.items():
        (tmp_path / name).mkdir()
        for wheel in wheels:
            (tmp_path / name / wheel).write_text(name)
    found = of(
        tmp_path,
        PIP_FIND_LINKS=f"{tmp_path}/a https://wheels.example/ {tmp_path}/gone",
        UV_FIND_LINKS=f"{tmp_path}/b,{tmp_path}/a",
    )
    assert found.environment["PIP_FIND_LINKS"] == f"https://wheels.example/ {network.FIND_LINKS}"
    assert found.environment["UV_FIND_LINKS"] == f"https://wheels.example/,{network.FIND_LINKS}"
    folders = tmp_path / "given", tmp_path / "wheels"
    for folder in folders:
        folder.mkdir()
    found.stage(*folders)
    staged = {path.name: path.read_text() for path in (tmp_path / "wheels").iterdir()}
    assert staged == {"x.whl": "a", "y.whl": "b", "both.whl": "a"}


def test_a_folder_that_is_not_there_is_not_mentioned(tmp_path: Path) -> None:
    """PIP_FIND_LINKS that names only a missing folder tells the build nothing."""
    assert of(tmp_path, PIP_FIND_LINKS=f"{tmp_path}/gone").environment == {}
