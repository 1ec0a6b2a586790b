"""The Dockerfiles keep their promises, to the pods that run them and to everything that builds them."""

import re
import shlex
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from supportfleet.local.images import network
from supportfleet.local.images.sources import SOURCES
from supportfleet_operator.resources import environment, pods
from supportfleet_runtime import __main__ as runtime

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@dataclass(frozen=True)
class Dockerfile:
    text: str

    @property
    def instructions(self) -> list[tuple[str, str]]:
        """Each instruction and its arguments; lines that were continued are one."""
        code = "\n".join(line for line in self.text.splitlines() if not line.startswith("#"))
        lines = code.replace("\\\n", " ").splitlines()
        return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines if line.strip())]

    @property
    def stages(self) -> dict[str, list[tuple[str, str]]]:
        """The instructions of each stage by its name; the last one's is empty."""
        stages: dict[str, list[tuple[str, str]]] = {}
        for name, rest in self.instructions:
            if name == "FROM":
                current = stages.setdefault(rest.partition(" AS ")[2], [])
            elif stages:
                current.append((name, rest))
        return stages

    def all(self, wanted: str, stage: str | None = None) -> list[str]:
        instructions = self.instructions if stage is None else self.stages[stage]
        return [rest for name, rest in instructions if name == wanted]


@pytest.fixture(params=sorted(SOURCES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def dockerfile(name: str) -> Dockerfile:
    return Dockerfile((ROOT / SOURCES[name].dockerfile).read_text())


def copied(dockerfile: Dockerfile) -> list[str]:
    """What is copied out of the build context."""
    sources = []
    for rest in dockerfile.all("COPY"):
        if not rest.startswith("--from="):
            sources += shlex.split(rest)[:-1]
    return sources


def test_the_bases_are_arguments_with_public_defaults(dockerfile: Dockerfile) -> None:
    """BASE_IMAGE and BUILD_IMAGE can be given; the default is a public slim Python image of a fixed tag."""
    base, build = dockerfile.all("ARG")
    assert re.fullmatch(r"BASE_IMAGE=python:3\.\d+-slim-[a-z]+", base)
    assert build == "BUILD_IMAGE=${BASE_IMAGE}"
    assert {rest.split()[0] for rest in dockerfile.all("FROM")} == {
        "scratch",
        "${BUILD_IMAGE}",
        "tools",
        "${BASE_IMAGE}",
        "runtime",
    }


def test_the_process_is_nobody_special(dockerfile: Dockerfile) -> None:
    """The image runs as the user that pods run as, and nothing after that line runs as root."""
    (user,) = dockerfile.all("USER")
    assert user == f"{pods.NON_ROOT}:{pods.NON_ROOT}"
    assert [name for name, _ in dockerfile.stages[""]] == ["COPY"]


def test_the_agents_folders_are_those_that_pods_mount() -> None:
    """What the operator mounts exists in the image, and where it can be written to it belongs to the image's user."""
    dockerfile = Dockerfile((ROOT / "Dockerfile.agent").read_text())
    (setup,) = dockerfile.all("RUN", "runtime")
    assert f"install -d {environment.CONFIG_DIR};" in setup
    assert f"install -d -o {pods.NON_ROOT} -g {pods.NON_ROOT} {environment.MODEL_DIR} {pods.DATA_DIR}" in setup
    assert dockerfile.all("WORKDIR", "runtime") == [pods.DATA_DIR]


def test_the_command_is_one_that_is_installed(dockerfile: Dockerfile, name: str) -> None:
    """The entry point is a script of pyproject.toml, the one that is kept, and of the package that is copied."""
    (entrypoint,) = yaml.safe_load(dockerfile.all("ENTRYPOINT")[0])
    package = SOURCES[name].package
    assert PYPROJECT["project"]["scripts"][entrypoint].startswith(f"{Path(package).name}.")
    assert f"! -name {entrypoint} -delete" in dockerfile.all("RUN", "application")[0]
    assert dockerfile.all("STOPSIGNAL") == ["SIGTERM"]


def test_what_runs_by_default_is_a_command_of_the_program() -> None:
    """The agent serves unless told otherwise, and the operator is started as its manifest starts it."""
    agent, operator = (Dockerfile((ROOT / f"Dockerfile.{name}").read_text()) for name in ("agent", "operator"))
    (serve,) = yaml.safe_load(agent.all("CMD")[0])
    assert serve in runtime.OWN
    deployment = yaml.safe_load((ROOT / "manifests/base/deployment.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert yaml.safe_load(operator.all("CMD")[0]) == container["args"]
    assert [port["containerPort"] for port in container["ports"]] == [int(port) for port in operator.all("EXPOSE")]


def test_dependencies_are_this_images_extra_and_nothing_unpinned(dockerfile: Dockerfile, name: str) -> None:
    """Every installation from an index checks hashes and runs no package's build; training libraries stay out."""
    (tools,) = dockerfile.all("RUN", "tools")
    install, _ = dockerfile.all("RUN", "dependencies")
    assert re.findall(r"--extra (\S+)", tools + install) == [name]
    assert name in PYPROJECT["project"]["optional-dependencies"]
    commands = [part for part in (tools + ";" + install).split(";") if "pip install" in part]
    assert len(commands) == len(["uv", "hatchling", "dependencies"])
    for command in commands:
        assert "--require-hashes" in command
        assert "--no-build" in command or "--only-binary :all:" in command
    (application,) = dockerfile.all("RUN", "application")
    assert "--offline" in application.split("uv build")[1].split(";")[0]
    assert {"--offline", "--no-deps", "--no-index"} <= set(application.split("uv pip install")[1].split(";")[0].split())


def test_our_code_comes_last(dockerfile: Dockerfile, name: str) -> None:
    """Dependencies are installed before any of our code is there, so that a change of code leaves their layer alone."""
    before_code = [one for stage in ("tools", "dependencies", "runtime") for one in dockerfile.stages[stage]]
    copies = [rest for instruction, rest in before_code if instruction == "COPY"]
    assert copies == [
        "constraints.txt ./",
        "pyproject.toml ./",
        "--from=dependencies /opt/supportfleet /opt/supportfleet",
    ]
    assert dockerfile.all("COPY", "") == ["--from=application /application /opt/supportfleet"]


def test_the_build_context_is_what_is_copied(dockerfile: Dockerfile, name: str) -> None:
    """What the keys cover, what is copied and what .dockerignore lets through are the same files."""
    files = set(SOURCES[name].read(ROOT).files) - {SOURCES[name].dockerfile}
    wanted = copied(dockerfile)
    assert {file for file in files if not any(file == one or file.startswith(f"{one}/") for one in wanted)} == set()
    assert all(any(file == one or file.startswith(f"{one}/") for file in files) for one in wanted)
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert patterns[0] == "*"
    allowed = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    assert all(any(fnmatch(one, pattern) for pattern in allowed) for one in wanted)
    everything = {
        one for source in SOURCES.values() for one in copied(Dockerfile((ROOT / source.dockerfile).read_text()))
    }
    assert set(allowed) == everything


def test_the_network_is_told_by_secrets(dockerfile: Dockerfile) -> None:
    """What `supportfleet local` gives a build is where the Dockerfile looks for it, and no ARG or ENV carries it."""
    (tools,) = dockerfile.all("RUN", "tools")
    install, shrink = dockerfile.all("RUN", "dependencies")
    for step in (tools, install):
        _reads_secrets(step)
    assert "--mount" not in shrink
    settings = " ".join([*dockerfile.all("ENV"), *dockerfile.all("ARG")])
    assert not re.search(r"(?i)cert|proxy|index|PIP_|UV_", settings)


def _reads_secrets(step: str) -> None:
    for secret in ("build-environment", Path(network.CA_CERTIFICATES).name):
        assert f"--mount=type=secret,id={secret} " in step
    assert ". /run/secrets/build-environment" in step
    assert f"--mount=type=bind,from=find-links,target={network.FIND_LINKS} " in step


def test_no_address_and_no_machines_path_is_written_down(dockerfile: Dockerfile) -> None:
    """No registry, index or mirror is named, no certificate is in the file, and no host's folder."""
    assert not re.search(r"https?://|BEGIN CERTIFICATE|\bdocker\.io/|\bghcr\.io|\bquay\.io|/home/", dockerfile.text)
    assert not re.search(r"/(etc/ssl|usr/share/ca-certificates|usr/local/share)/", dockerfile.text)


def test_images_say_what_they_are(dockerfile: Dockerfile, name: str) -> None:
    """The OCI labels name the image, describe it and state the project's licence."""
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', dockerfile.text))
    assert labels["title"] == f"supportfleet {name}"
    assert labels["licenses"] == PYPROJECT["project"]["license"]
    assert labels["description"]


def test_both_images_are_made_alike() -> None:
    """Where the two Dockerfiles differ it is in names and in what is left out: a fix to one reaches the other."""
    texts = [Dockerfile((ROOT / SOURCES[name].dockerfile).read_text()) for name in ("agent", "operator")]
    assert texts[0].stages["tools"] == texts[1].stages["tools"]
    installs = [text.all("RUN", "dependencies")[0] for text in texts]
    assert installs[0].replace("--extra agent", "--extra operator") == installs[1]
    applications = [text.all("RUN", "application")[0] for text in texts]
    assert applications[0].replace("supportfleet-runtime", "supportfleet-operator") == applications[1]
