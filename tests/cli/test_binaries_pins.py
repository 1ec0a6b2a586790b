"""The pins: what is read from local_cluster/, and what a program's key covers."""

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet.local import pins
from supportfleet.local.pins import GoPackage, Module, Wheel

GO = "go1.26.8"
PLATFORM = "linux/amd64"
REAL = pins.load()
REQUIREMENT = re.compile(r"^\t(\S+) (v\S+) // indirect$", re.MULTILINE)


@pytest.fixture
def package(tmp_path: Path) -> GoPackage:
    (tmp_path / "go.mod").write_text("module m\n\ngo 1.25.3\n\nrequire example.com/up v1.35.4\n")
    (tmp_path / "go.sum").write_text("sums\n")
    return GoPackage(Module("m", tmp_path, "example.com/up", {"v.gitVersion": "{version}"}), "example.com/up/cmd/x")


def reread(package: GoPackage) -> GoPackage:
    return dataclasses.replace(package, module=dataclasses.replace(package.module))


def test_key_is_stable(package: GoPackage) -> None:
    """The same pins give the same key, read again."""
    assert reread(package).key(GO, PLATFORM) == package.key(GO, PLATFORM)


@pytest.mark.parametrize("name", ["go.mod", "go.sum", "main.go"])
def test_key_covers_every_file_of_the_module(package: GoPackage, name: str) -> None:
    """A change in any file of the module's folder changes the key."""
    before = package.key(GO, PLATFORM)
    file = package.module.folder / name
    file.write_text((file.read_text() if file.exists() else "") + "// more\n")
    assert reread(package).key(GO, PLATFORM) != before


def test_key_covers_go_platform_package_and_flags(package: GoPackage) -> None:
    """Another Go, platform, package or version stamp is another program."""
    stamped = dataclasses.replace(package, module=dataclasses.replace(package.module, stamps={}))
    keys = {
        package.key(GO, PLATFORM),
        package.key("go1.26.9", PLATFORM),
        package.key(GO, "linux/arm64"),
        dataclasses.replace(package, package="example.com/up/cmd/y").key(GO, PLATFORM),
        stamped.key(GO, PLATFORM),
    }
    assert len(keys) == 5


@given(st.binary(min_size=1), st.binary(min_size=1))
def test_wheel_key_covers_requirements(one: bytes, other: bytes) -> None:
    """Two requirements files share a key exactly if they are the same."""

    class Fixed:
        def __init__(self, content: bytes) -> None:
            self.read_bytes = lambda: content

    def key(content: bytes) -> str:
        return Wheel(Fixed(content), "x", 1).key(PLATFORM)  # type: ignore[arg-type]

    assert (key(one) == key(other)) == (one == other)


def test_stamps_come_from_go_mod(package: GoPackage) -> None:
    """The version that a program reports is the one go.mod requires; it is written nowhere else."""
    assert package.module.ldflags == "-s -w -X v.gitVersion=v1.35.4"


def test_missing_upstream_is_an_error(package: GoPackage) -> None:
    """A stamp of an upstream that go.mod does not require is refused."""
    wrong = dataclasses.replace(package.module, upstream="example.com/other")
    with pytest.raises(pins.PinsError, match=r"requires no version of 'example.com/other'"):
        _ = wrong.ldflags


def test_missing_module_is_an_error(tmp_path: Path) -> None:
    """A module folder that is gone says so."""
    with pytest.raises(pins.PinsError, match=r"go\.mod is missing"):
        _ = Module("m", tmp_path / "gone").go_minimum


def test_wrong_table_is_an_error(tmp_path: Path) -> None:
    """A table that lacks a field names the file."""
    (tmp_path / "binaries.toml").write_text('[binaries.x]\nmodule = "m"\n')
    with pytest.raises(pins.PinsError, match=r"binaries\.toml is wrong"):
        pins.load(tmp_path)


def test_folder_of_an_installed_package_comes_first(tmp_path: Path) -> None:
    """local_cluster/ inside the package is used before one in a checkout around it, and its absence is an error."""
    package = tmp_path / "cli" / "supportfleet"
    with pytest.raises(pins.PinsError, match="not found"):
        pins.local_cluster_dir(package)
    for folder in (tmp_path / "local_cluster", package / "local_cluster"):
        folder.mkdir(parents=True)
        (folder / "binaries.toml").touch()
        assert pins.local_cluster_dir(package) == folder


def test_real_table_is_complete() -> None:
    """Every program of the cluster is in its group, and every module is there with its sums."""
    core = {program.name for program in REAL.select(["core"])}
    assert {"etcd", "kube-apiserver", "kubelet", "kubectl", "coredns", "metrics-server", "versitygw"} <= core
    assert {program.name for program in REAL.select(["istio"])} == {"pilot-discovery", "envoy"}
    assert [program.name for program in REAL.select(["scale"])] == ["kwok"]
    assert {program.name for program in REAL.select(["kind"])} == {"kind", "kubectl"}
    for name, module in REAL.modules.items():
        requires_something = "require" in module.go_mod
        assert "go.sum" in module.files or not requires_something, name


def test_real_modules_come_in_runs() -> None:
    """The table lists a module's programs together, so that its sources are downloaded once and just before."""
    order = [p.source.module.name for p in REAL.programs.values() if isinstance(p.source, GoPackage)]
    runs = [name for index, name in enumerate(order) if index == 0 or order[index - 1] != name]
    assert len(runs) == len(set(runs))


def test_kubernetes_reports_its_version() -> None:
    """The server's version is stamped: without it the API server says v0.0.0."""
    flags = REAL.modules["kubernetes"].ldflags
    assert re.search(r"component-base/version\.gitVersion=v1\.\d+\.\d+ ", flags)
    assert re.search(r"component-base/version\.gitMinor=\d+ ", flags)


@pytest.mark.parametrize("name", [module.name for module in REAL.modules.values() if module.aligned])
def test_aligned_modules_share_versions_with_kubernetes(name: str) -> None:
    """Common dependencies have Kubernetes' versions, so that Go compiles them once for all."""
    kubernetes = dict(REQUIREMENT.findall(REAL.modules["kubernetes"].go_mod))
    module = REAL.modules[name]
    common = {
        path: version
        for path, version in REQUIREMENT.findall(module.go_mod)
        if path in kubernetes and not path.startswith(tuple(module.keeps))
    }
    assert len(common) > 20
    assert {path: version for path, version in common.items() if version != kubernetes[path]} == {}
