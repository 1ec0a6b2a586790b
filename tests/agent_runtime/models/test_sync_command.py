from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supportfleet_runtime.models.artifact import Artifact, verify_artifact
from supportfleet_runtime.models.cache import ModelCache
from supportfleet_runtime.models.sync_command import TERMINATION_LOG

Make = Callable[..., Artifact]
TIMEOUT = 60


class Command:
    """The command line in a process of its own, with nothing in its environment but what it is given."""

    def __init__(self, env: dict[str, str], termination_log: Path, limit: int | None = None) -> None:
        self.termination_log = termination_log
        self._env = {"PATH": os.environ["PATH"], "TERMINATION_LOG": str(termination_log), **env}
        self._limit = limit
        self.output = ""

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "supportfleet_runtime",
            *arguments,
            env=self._env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            preexec_fn=self._limit_files if self._limit else None,
        )

    async def run(self, *arguments: str) -> int:
        process = await self.start(*arguments)
        output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT)
        self.output = output.decode()
        assert process.returncode is not None
        return process.returncode

    def last_word(self) -> dict[str, str]:
        text = self.termination_log.read_text()
        assert text.count("\n") == 1
        word: dict[str, str] = json.loads(text)
        return word

    def _limit_files(self) -> None:
        assert self._limit is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._limit, self._limit))


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Command]:
    return lambda env, **more: Command(env, tmp_path / "termination-log", **more)


async def test_success_is_told_in_one_line_of_json(bucket: Any, make: Make, command: Any) -> None:
    """A sync exits 0, and its termination message says which version and digest are there."""
    artifact = make()
    bucket.put(artifact)
    sync = command(bucket.env(artifact))
    assert await sync.run("sync-model") == 0, sync.output
    word = sync.last_word()
    assert word.pop("message")
    assert word == {"reason": "Synced", "digest": artifact.digest, "version": "1"}
    verify_artifact(bucket.directory / "current", artifact.digest)


async def test_verify_only_needs_no_volume(bucket: Any, make: Make, command: Any) -> None:
    """--verify-only says the same and leaves nothing behind."""
    artifact = make()
    bucket.put(artifact)
    sync = command(bucket.env(artifact))
    assert await sync.run("sync-model", "--verify-only") == 0, sync.output
    assert sync.last_word()["reason"] == "Synced"
    assert not bucket.directory.exists()


async def test_a_refusal_is_permanent_and_says_why(bucket: Any, make: Make, command: Any) -> None:
    """Wrong content exits 2 with its reason, in the termination message and in the log."""
    artifact = make()
    bucket.put(artifact)
    sync = command(bucket.env(make("2")) | {"MODEL_VERSION": "1"})
    assert await sync.run("sync-model") == 2
    assert sync.last_word().keys() == {"reason", "message"}
    assert sync.last_word()["reason"] == "DigestMismatch"
    assert "DigestMismatch" in sync.output


async def test_an_unreachable_store_is_transient(bucket: Any, make: Make, command: Any) -> None:
    """A store that does not answer exits 3, so that the Job tries again."""
    sync = command(bucket.env(make()) | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"})
    assert await sync.run("sync-model") == 3
    assert sync.last_word()["reason"] == "StorageUnreachable"


async def test_wrong_settings_are_all_named_at_once(bucket: Any, make: Make, command: Any) -> None:
    """A sync that is not told which model exits 2 and names every variable that is wrong."""
    sync = command({"MODEL_BUCKET": "http://example.com/x", "MODEL_DIGEST": "latest", "AWS_ACCESS_KEY_ID": "only"})
    assert await sync.run("sync-model") == 2
    word = sync.last_word()
    assert word["reason"] == "InvalidSettings"
    for name in ("MODEL_BUCKET", "MODEL_VERSION", "MODEL_DIGEST", "AWS_SECRET_ACCESS_KEY"):
        assert name in word["message"]


async def test_missing_credentials_are_told_before_anything_is_asked(bucket: Any, make: Make, command: Any) -> None:
    """Without credentials for an S3-compatible server, the remedy is named at once, and no cloud's are looked for."""
    env = {name: value for name, value in bucket.env(make()).items() if "KEY" not in name}
    sync = command(env)
    assert await sync.run("sync-model") == 2
    assert sync.last_word()["reason"] == "AccessDenied"
    assert "credentialsSecretRef" in sync.last_word()["message"]
    assert bucket.api.requests == []


@pytest.mark.parametrize("trouble", ["none", "403", "500", "404"])
async def test_no_secret_is_ever_written(bucket: Any, make: Make, command: Any, fault: Any, trouble: str) -> None:
    """Neither the log nor the termination message holds a credential or what was signed, whatever goes wrong."""
    artifact = make()
    bucket.put(artifact)
    if trouble != "none":
        bucket.api.faults.append(fault("status", status=int(trouble), code="SignatureDoesNotMatch"))
    sync = command(bucket.env(artifact) | {"AWS_SESSION_TOKEN": "a-session-token"})
    await sync.run("sync-model")
    told = sync.output + sync.termination_log.read_text()
    for secret in (bucket.api.secret, bucket.api.key_id, "a-session-token", "StringToSign", "Authorization"):
        assert secret not in told


async def test_a_killed_sync_leaves_the_previous_version(bucket: Any, make: Make, command: Any, fault: Any) -> None:
    """A kill -9 during a download changes nothing that is in use, and the next sync cleans up and succeeds."""
    before, artifact = make("1"), make("2")
    bucket.put(before)
    bucket.put(artifact)
    assert await command(bucket.env(before)).run("sync-model") == 0
    bucket.api.faults.append(fault("hang", path="2/model.onnx", keep=100, times=1))
    process = await command(bucket.env(artifact)).start("sync-model")
    await asyncio.wait_for(bucket.api.hanging.wait(), TIMEOUT)
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    assert (bucket.directory / "incoming").exists()
    verify_artifact(bucket.directory / "current", before.digest)
    assert not ModelCache(bucket.directory).path(artifact.digest).exists()

    assert await command(bucket.env(artifact)).run("sync-model") == 0
    assert not (bucket.directory / "incoming").exists()
    verify_artifact(bucket.directory / "current", artifact.digest)


async def test_a_disk_that_fills_up_leaves_the_previous_version(bucket: Any, make: Make, command: Any) -> None:
    """When a file can't be written to its end, the sync says so and what was in use stays."""
    before, artifact = make("1"), make("2")
    bucket.put(before)
    bucket.put(artifact)
    assert await command(bucket.env(before)).run("sync-model") == 0
    sync = command(bucket.env(artifact), limit=4096)
    assert await sync.run("sync-model") == 2, sync.output
    assert sync.last_word()["reason"] == "CacheNotWritable"
    assert sorted(path.name for path in bucket.directory.iterdir()) == ["current", "lock", "versions"]
    verify_artifact(bucket.directory / "current", before.digest)


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="mounting needs root: run the tests as root"
)
async def test_a_read_only_volume_is_enough_for_a_version_that_is_there(
    bucket: Any, make: Make, command: Any, tmp_path: Path
) -> None:
    """Pods that mount the volume read-only can verify what is on it, but can't bring another version."""
    artifact = make()
    bucket.put(artifact)
    bucket.put(make("2"))
    assert await command(bucket.env(artifact)).run("sync-model") == 0
    script = 'mount --bind "$MODEL_DIR" "$MODEL_DIR" && mount -o remount,bind,ro "$MODEL_DIR" && exec "$@"'

    async def run_read_only(wanted: Artifact) -> int:
        process = await asyncio.create_subprocess_exec(
            *("unshare", "--mount", "sh", "-c", script, "sh"),
            *(sys.executable, "-m", "supportfleet_runtime", "sync-model"),
            env={"PATH": os.environ["PATH"], "TERMINATION_LOG": str(tmp_path / "word"), **bucket.env(wanted)},
        )
        return await asyncio.wait_for(process.wait(), TIMEOUT)

    assert await run_read_only(artifact) == 0
    assert json.loads((tmp_path / "word").read_text())["reason"] == "Synced"
    assert await run_read_only(make("2")) == 2
    assert json.loads((tmp_path / "word").read_text())["reason"] == "CacheNotWritable"


async def test_without_a_container_no_termination_message_is_made_up(bucket: Any, make: Make, tmp_path: Path) -> None:
    """Outside of Kubernetes nothing is created in /dev, and a place that can't be written to fails nothing."""
    artifact = make()
    bucket.put(artifact)
    sync = Command(bucket.env(artifact), tmp_path / "no" / "such" / "folder")
    assert await sync.run("sync-model") == 0
    existed = os.access(TERMINATION_LOG, os.F_OK)
    sync = Command(bucket.env(artifact) | {"TERMINATION_LOG": ""}, tmp_path / "unused")
    assert await sync.run("sync-model") == 0
    assert os.access(TERMINATION_LOG, os.F_OK) == existed


async def test_what_libraries_do_at_the_end_changes_nothing(bucket: Any, make: Make, tmp_path: Path) -> None:
    """The process's exit code says what became of the sync, though a library would abort the interpreter's end."""
    artifact = make()
    bucket.put(artifact)
    code = "import atexit, os; atexit.register(os.abort); from supportfleet_runtime.__main__ import run; run()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, "sync-model"),
        env={"PATH": os.environ["PATH"], "TERMINATION_LOG": str(tmp_path / "word"), **bucket.env(artifact)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, printed = await asyncio.wait_for(process.communicate(), TIMEOUT)
    assert process.returncode == 0
    assert artifact.digest in printed.decode()
    assert json.loads((tmp_path / "word").read_text())["reason"] == "Synced"
