"""Debian packages: what is missing, and installing it without starting anything, with a fake apt-get on PATH."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from supportfleet.local import packages
from supportfleet.local.packages import PackagesError, System
from supportfleet.local.progress import Progress

WANTED = {"widget": ("widget-tool",), "gadget": ("/opt/gadget/bin/gadget",)}

# An apt-get that notes its arguments and the two guard files as they are while it runs, then "installs" both packages.
FAKE_APT = """#!/bin/sh
echo "$*" >> "$FAKE_ROOT/apt.log"
cp "$FAKE_ROOT/usr/sbin/policy-rc.d" "$FAKE_ROOT/policy-during"
cp "$FAKE_ROOT/etc/postgresql-common/createcluster.d/supportfleet.conf" "$FAKE_ROOT/drop-in-during"
echo "$DEBIAN_FRONTEND" > "$FAKE_ROOT/frontend"
[ ! -f "$FAKE_ROOT/hook" ] || . "$FAKE_ROOT/hook"
case "$*" in
*" install "*)
    printf '#!/bin/sh\\n' > "$FAKE_ROOT/bin/widget-tool"; chmod +x "$FAKE_ROOT/bin/widget-tool"
    mkdir -p "$FAKE_ROOT/opt/gadget/bin"; touch "$FAKE_ROOT/opt/gadget/bin/gadget"
    rm -f "$FAKE_ROOT/states" ;;
esac
"""
FAKE_DPKG_QUERY = """#!/bin/sh
cat "$FAKE_ROOT/states" 2>/dev/null || true
"""
FAKE_DPKG = """#!/bin/sh
echo "dpkg $*" >> "$FAKE_ROOT/apt.log"
"""


@dataclass
class Machine:
    """A root folder with the fakes, and what they noted."""

    root: Path
    out: StringIO

    @property
    def system(self) -> System:
        return System(root=self.root, is_root=True, lock_poll_s=0)

    @property
    def policy(self) -> Path:
        return self.root / "usr/sbin/policy-rc.d"

    @property
    def log(self) -> list[str]:
        log = self.root / "apt.log"
        return log.read_text().splitlines() if log.exists() else []

    def hook(self, script: str) -> None:
        (self.root / "hook").write_text(script)

    async def ensure(self, *, system: System | None = None, **options: object) -> list[str]:
        with Progress(console=Console(file=self.out, width=300), durations=self.root / "durations") as progress:
            return await packages.ensure_packages(WANTED, progress=progress, system=system or self.system, **options)  # type: ignore[arg-type]

    def guards_left(self) -> list[Path]:
        return [*self.root.glob("usr/sbin/*"), *self.root.glob("etc/postgresql-common/createcluster.d/*")]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    for name, script in (("apt-get", FAKE_APT), ("dpkg-query", FAKE_DPKG_QUERY), ("dpkg", FAKE_DPKG)):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(script)
        program.chmod(0o755)
    (tmp_path / "var").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("SUPPORTFLEET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_ROOT", str(tmp_path))
    return Machine(tmp_path, StringIO())


def answering(*, answer: bool, asked: list[str]) -> Callable[[str], Awaitable[bool]]:
    async def ask(question: str) -> bool:
        asked.append(question)
        return answer

    return ask


async def test_installs_what_is_missing(machine: Machine) -> None:
    """What is missing is installed after an update, unattended, removing nothing; then nothing is left to do."""
    assert await machine.ensure() == ["gadget", "widget"]
    update, dpkg, install = machine.log
    assert update.endswith("update")
    assert dpkg.startswith("dpkg --configure -a")
    assert "--no-remove" in install
    assert "--no-install-recommends" in install
    assert install.endswith("gadget widget")
    assert (machine.root / "frontend").read_text() == "noninteractive\n"
    assert await machine.ensure() == []
    assert len(machine.log) == 3


async def test_only_the_missing_are_installed(machine: Machine) -> None:
    """A package whose programs are there, whoever installed them, is not touched."""
    tool = machine.root / "bin" / "widget-tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    assert await machine.ensure() == ["gadget"]


@pytest.mark.parametrize("state", ["half-installed", "unpacked", "half-configured"])
async def test_half_installed_packages_are_finished(machine: Machine, state: str) -> None:
    """A package that an interrupted dpkg left half done counts as missing, though its programs are there."""
    await machine.ensure()
    (machine.root / "states").write_text(f"other installed\nwidget {state}\ngadget installed\n")
    assert await machine.ensure() == ["widget"]


async def test_no_service_starts_and_no_database_is_created(machine: Machine) -> None:
    """While apt-get runs, services are refused and PostgreSQL makes no cluster; afterwards neither file is left."""
    await machine.ensure()
    during = machine.root / "policy-during"
    during.chmod(0o755)
    process = await asyncio.create_subprocess_exec(during, "containerd", "start")
    assert await process.wait() == 101
    assert "create_main_cluster = false" in (machine.root / "drop-in-during").read_text()
    assert machine.guards_left() == []


async def test_a_policy_of_the_machine_comes_back(machine: Machine) -> None:
    """A policy-rc.d that was there is in its place again, also after a failed installation."""
    machine.policy.parent.mkdir(parents=True)
    machine.policy.write_text("#!/bin/sh\nexit 104\n")
    machine.hook('case "$*" in *" install "*) echo "E: Unable to locate package widget" >&2; exit 100;; esac')
    with pytest.raises(PackagesError, match="Unable to locate package widget"):
        await machine.ensure()
    assert "exit 101" in (machine.root / "policy-during").read_text()
    assert machine.policy.read_text() == "#!/bin/sh\nexit 104\n"
    assert machine.guards_left() == [machine.policy]


async def test_cancelled_installation_puts_the_guards_away(machine: Machine) -> None:
    """Ctrl-C while apt-get runs leaves neither guard behind."""
    machine.hook('touch "$FAKE_ROOT/started"; sleep 30')
    task = asyncio.create_task(machine.ensure())
    for _ in range(500):
        if (machine.root / "started").exists():
            break
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert machine.guards_left() == []


@pytest.mark.parametrize("own_policy", [True, False])
async def test_guards_of_a_killed_run_are_put_away(machine: Machine, own_policy: bool) -> None:  # noqa: FBT001 - pytest passes it by name
    """After kill -9 the next run, even with nothing to install, gives the machine its services back."""
    await machine.ensure()
    machine.policy.parent.mkdir(parents=True, exist_ok=True)
    machine.policy.write_text((machine.root / "policy-during").read_text())
    saved = machine.policy.with_name("policy-rc.d.before-supportfleet")
    if own_policy:
        saved.write_text("mine")
    (machine.root / "etc/postgresql-common/createcluster.d/supportfleet.conf").touch()
    assert await machine.ensure() == []
    assert machine.guards_left() == ([machine.policy] if own_policy else [])
    assert not own_policy or machine.policy.read_text() == "mine"


async def test_a_policy_of_somebody_else_is_never_removed(machine: Machine) -> None:
    """A policy-rc.d that is not ours stays, whatever it says."""
    machine.policy.parent.mkdir(parents=True)
    machine.policy.write_text("#!/bin/sh\nexit 101\n")
    await machine.ensure()
    await machine.ensure()
    assert machine.policy.read_text() == "#!/bin/sh\nexit 101\n"


async def test_asks_first_on_a_terminal(machine: Machine) -> None:
    """A person is asked, with the names; a no installs nothing and says what to run instead."""
    asked: list[str] = []
    system = replace(machine.system, interactive=True)
    with pytest.raises(PackagesError, match="apt-get install --no-install-recommends gadget widget"):
        await machine.ensure(system=system, ask=answering(answer=False, asked=asked))
    assert machine.log == []
    assert "gadget, widget" in asked[0]
    assert await machine.ensure(system=system, ask=answering(answer=True, asked=asked)) == ["gadget", "widget"]
    assert len(asked) == 2


async def test_yes_and_no_terminal_ask_nothing(machine: Machine) -> None:
    """--yes on a terminal, and a run without one, install at once."""
    asked: list[str] = []
    system = replace(machine.system, interactive=True)
    await machine.ensure(system=system, assume_yes=True, ask=answering(answer=False, asked=asked))
    assert asked == []


async def test_without_root_says_what_to_run(machine: Machine) -> None:
    """Somebody else than root is told the exact command, and is not asked."""
    with pytest.raises(PackagesError) as caught:
        await machine.ensure(system=replace(machine.system, is_root=False, interactive=True))
    assert "sudo apt-get install --no-install-recommends gadget widget" in caught.value.remedy
    assert machine.log == []


async def test_without_apt_says_what_is_needed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another distribution the missing programs are named, and nothing is tried."""
    monkeypatch.setenv("PATH", str(machine.root / "empty"))
    with pytest.raises(PackagesError, match="needed and missing: gadget, widget-tool") as caught:
        await machine.ensure()
    assert "There is no apt-get here" in caught.value.remedy


async def test_unreachable_repository_is_not_the_end(machine: Machine) -> None:
    """A failing update is told, and the packages that can be had are installed all the same."""
    machine.hook('case "$*" in *" update") echo "E: ppa.example is down" >&2; exit 100;; esac')
    assert await machine.ensure() == ["gadget", "widget"]
    assert "ppa.example is down" in machine.out.getvalue()


async def test_waits_for_another_apt(machine: Machine) -> None:
    """While another apt holds the package lists we try again, and then go on."""
    machine.hook("""
    n=$(cat "$FAKE_ROOT/n" 2>/dev/null || echo 0); echo $((n + 1)) > "$FAKE_ROOT/n"
    if [ "$n" -lt 2 ]; then echo "E: Could not get lock /var/lib/apt/lists/lock" >&2; exit 100; fi
    """)
    assert await machine.ensure() == ["gadget", "widget"]
    assert [line.rsplit(" ", 1)[1] for line in machine.log] == [
        "update",
        "update",
        "update",
        "--force-confold",
        "widget",
    ]


async def test_gives_up_on_a_lock_that_is_never_free(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for another apt has an end, and the error repeats who holds the lock."""
    monkeypatch.setattr(packages, "LOCK_TRIES", 3)
    machine.hook('echo "E: Could not get lock x. It is held by process 7 (apt)" >&2; exit 100')
    with pytest.raises(PackagesError, match="held by process 7"):
        await machine.ensure()
    assert len(machine.log) == 3 + 1 + 3


async def test_package_that_lacks_the_program_is_an_error(machine: Machine) -> None:
    """If apt-get succeeds and a program is still missing, that is said and not passed over."""
    machine.hook('case "$*" in *" install "*) exit 0;; esac')
    with pytest.raises(PackagesError, match=r"something of gadget, widget is still missing"):
        await machine.ensure()


@given(st.text())
def test_only_enter_and_yes_agree(line: str) -> None:
    """Enter, y and yes agree; anything else, and the end of input, does not."""
    assert packages.means_yes(line) == (line.endswith("\n") and line.strip().lower() in {"", "y", "yes"})
    assert not packages.means_yes(line.replace("\n", ""))


@pytest.mark.parametrize(("typed", "agreed"), [("y\n", True), ("\n", True), ("n\n", False)])
async def test_question_is_read_from_the_terminal(monkeypatch: pytest.MonkeyPatch, typed: str, agreed: bool) -> None:  # noqa: FBT001 - pytest passes it by name
    """The answer is what is typed on the terminal, without holding up the event loop."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        answer = asyncio.create_task(packages._ask("Install?"))
        await asyncio.sleep(0)
        os.write(ours, typed.encode())
        assert await asyncio.wait_for(answer, 10) is agreed
    os.close(ours)


def test_real_list_names_a_program_for_each_package() -> None:
    """Every package is wanted for something that can be looked for."""
    assert all(packages.CLUSTER_PACKAGES.values())
