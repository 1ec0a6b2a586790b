"""The command line, run as people run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from supportfleet.errors import ClusterError
from supportfleet.local import state
from supportfleet.local.embedded.provider import wanted_record
from supportfleet.local.provider import Options

NOBODY = 65534


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SUPPORTFLEET_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def supportfleet(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "supportfleet", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_help_lists_every_command() -> None:
    """`--help` names every command with what it does."""
    said = supportfleet("local", "--help").stdout
    for command in ("up", "down", "status", "kubeconfig", "load-image", "logs", "prepare"):
        assert f"\n  {command} " in said


def test_help_loads_no_command() -> None:
    """The top-level help does not import what the commands need."""
    code = (
        "import sys; from supportfleet.__main__ import main\ntry: main(['--help'])\nfinally: print(sorted(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "'aiohttp'" not in said
    assert "local" in said


@pytest.mark.parametrize("command", [("status",), ("kubeconfig",), ("logs",), ("status", "-o", "json")])
def test_a_missing_cluster_is_an_error_with_a_remedy(home: Path, command: tuple[str, ...]) -> None:
    """Asking for a cluster that is not there fails in one sentence that says how to make it, with no traceback."""
    done = supportfleet("local", *command, "--name", "nowhere")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: there is no cluster 'nowhere'\n")
    assert "supportfleet local up --name nowhere" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["Upper", "../up", "-x" * 3])
def test_a_bad_name_is_refused(home: Path, name: str) -> None:
    """A name that can't be one is refused before anything happens, with what a name may be."""
    done = supportfleet("local", "up", f"--name={name}", "--provider=embedded")
    assert done.returncode == 1
    assert "lower-case letters" in done.stderr
    assert not home.exists()


def test_damaged_state_is_no_traceback(home: Path) -> None:
    """A record that can't be read is named, with what to do."""
    path = home / "clusters" / "demo" / "cluster.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"name": "de')
    done = supportfleet("local", "status", "--name", "demo")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "local down --name demo" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("command", ["up", "down", "prepare"])
def test_without_root_it_says_how(command: str) -> None:
    """Without root nothing is tried: the error says why root is needed and gives the whole command with sudo."""
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    place.chmod(0o777)
    # Through a fork in this interpreter: its files may be where another user can't read them.
    code = (
        "import os, sys\n"
        "import supportfleet.local.commands, supportfleet.local.kind, supportfleet.local.embedded.provider\n"
        "from supportfleet.__main__ import main\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        f"os.environ['SUPPORTFLEET_HOME'] = {str(place / 'home')!r}\n"
        f"sys.argv = ['supportfleet', 'local', {command!r}, '--provider', 'embedded']\n"
        "sys.argv = sys.argv if sys.argv[2] != 'down' else sys.argv[:3]\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "root is needed" in done.stderr
    assert f"sudo {sys.executable} -m supportfleet local {command}" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(place.iterdir()) == []
    place.rmdir()


BEFORE = state.Record(name="demo", provider="embedded", nodes=2, istio=True, index=5, complete=True)


def test_up_without_options_keeps_what_there_is() -> None:
    """Nodes and Istio stay as they were when nothing is asked for; a new cluster has one node and no Istio."""
    assert wanted_record("demo", BEFORE, Options()) == BEFORE
    fresh = wanted_record("demo", None, Options())
    assert (fresh.nodes, fresh.istio, fresh.complete) == (1, False, False)


def test_a_changed_cluster_is_not_complete_until_it_is_up() -> None:
    """From the moment it is to be different until `up` ends, a cluster is not taken to be whole."""
    assert wanted_record("demo", BEFORE, Options(nodes=3)) == replace(BEFORE, nodes=3, complete=False)
    assert not wanted_record("demo", replace(BEFORE, istio=False), Options(istio=True)).complete


@pytest.mark.parametrize("nodes", [-1, 51, 10**9])
def test_too_many_nodes_are_refused(nodes: int) -> None:
    """The number of nodes is bounded, and the bounds are said."""
    with pytest.raises(ClusterError, match=f"{nodes} nodes") as caught:
        wanted_record("demo", None, Options(nodes=nodes))
    assert "0 to 50" in caught.value.remedy


def test_logs_of_an_unknown_component_name_the_known_ones(home: Path) -> None:
    """A component that is not there is answered with those that are; without one, they are listed."""
    state.save(BEFORE)
    logs = state.folder("demo") / "logs"
    logs.mkdir()
    (logs / "etcd.log").write_text("first\nlast\n")
    done = supportfleet("local", "logs", "apiserver", "--name", "demo")
    assert (done.returncode, "It has etcd." in done.stderr) == (1, True)
    assert supportfleet("local", "logs", "--name", "demo").stdout == "etcd\n"
    assert supportfleet("local", "logs", "etcd", "--name", "demo").stdout == "first\nlast\n"


def test_status_of_a_stopped_cluster(home: Path) -> None:
    """After a reboot, say, status tells programs and people that nothing runs, with its own exit code."""
    state.save(BEFORE)
    done = supportfleet("local", "status", "--name", "demo", "-o", "json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["state"], found["nodes"]) == (3, "Stopped", [])
    assert {"kubeconfig", "kubectl", "auditLog", "components", "s3", "postgres"} <= set(found)
    assert "demo is Stopped" in supportfleet("local", "status", "--name", "demo").stdout
