"""A real S3 server for tests: versitygw over a temporary folder, on a loopback port of its own.

The binary is the one that the local cluster uses: built by ``supportfleet local prepare``, or named by
``SUPPORTFLEET_VERSITYGW``.
"""

from __future__ import annotations

import asyncio
import os
import runpy
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

free_port = runpy.run_path(str(Path(__file__).parent.parent / "ports.py"))["free_port"]
START_SECONDS = 60
STOP_SECONDS = 5


@dataclass(frozen=True)
class S3Server:
    """A server that runs."""

    endpoint: str
    root: Path
    access_key_id: str
    secret_access_key: str

    @property
    def env(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
        }

    def bucket(self, name: str) -> Path:
        """Make a bucket: a folder under the server's root."""
        path = self.root / name
        path.mkdir()
        return path


async def find_versitygw() -> Path | None:
    """The binary, if there is one."""
    if named := os.environ.get("SUPPORTFLEET_VERSITYGW"):
        return Path(named)
    if found := shutil.which("versitygw"):
        return Path(found)
    from supportfleet.local import binaries  # noqa: PLC0415 - only where nothing was named

    return await binaries.find("versitygw")


@asynccontextmanager
async def s3_server(binary: Path, folder: Path) -> AsyncIterator[S3Server]:
    """Run the server over a folder."""
    root, keys = folder / "buckets", ("testkeyid", "testsecretkey")
    root.mkdir()
    port = free_port()
    log = (folder / "versitygw.log").open("wb")
    process = await asyncio.create_subprocess_exec(
        *(binary, "--port", f"127.0.0.1:{port}", "posix", root),
        env={"ROOT_ACCESS_KEY": keys[0], "ROOT_SECRET_KEY": keys[1], "PATH": os.environ["PATH"]},
        stdout=log,
        stderr=log,
    )
    try:
        await asyncio.wait_for(_answers(process, port, folder), START_SECONDS)
        yield S3Server(f"http://127.0.0.1:{port}", root, *keys)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
        log.close()


async def _answers(process: asyncio.subprocess.Process, port: int, folder: Path) -> None:
    while process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            await writer.wait_closed()
            return
    raise AssertionError(f"versitygw ended: {(folder / 'versitygw.log').read_text()}")
