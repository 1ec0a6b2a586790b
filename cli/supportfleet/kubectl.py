"""The cluster as people reach it: through kubectl and the kubeconfig they have."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supportfleet.errors import SupportfleetError

TIMEOUT_SECONDS = 60.0
PROXY_START_SECONDS = 15.0
PROXY_STOP_SECONDS = 5.0


class KubectlError(SupportfleetError):
    """kubectl is missing, or refused what was asked."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one cluster; ``kubeconfig`` and ``context`` None mean the user's own current ones."""

    kubeconfig: Path | None = None
    path: Path | None = None
    _env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    context: str | None = None

    def program(self) -> str:
        """Where kubectl is.

        Raises:
            KubectlError: It is nowhere.
        """
        found = str(self.path) if self.path else shutil.which("kubectl")
        if found is None:
            raise KubectlError("kubectl is not on PATH", remedy="Install it, or run 'supportfleet local up'")
        return found

    def env(self) -> dict[str, str]:
        """The environment that points kubectl at the cluster."""
        return {**self._env, **({"KUBECONFIG": str(self.kubeconfig)} if self.kubeconfig else {})}

    def _command(self, *arguments: str) -> list[str]:
        context = [f"--context={self.context}"] if self.context else []
        return [self.program(), *context, *arguments]

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = TIMEOUT_SECONDS) -> str:
        """What kubectl prints.

        Raises:
            KubectlError: It failed or took longer than ``timeout`` seconds; holds what it said.
        """
        command = self._command(*arguments)
        try:
            done = subprocess.run(
                command, input=stdin, env=self.env(), capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise KubectlError(f"'kubectl {' '.join(arguments)}' took longer than {timeout:g} s") from error
        if done.returncode:
            raise KubectlError(f"'kubectl {' '.join(arguments)}' failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """What ``kubectl get`` answers, as an object."""
        return json.loads(self.run("get", *arguments, "-o", "json"))

    def namespace(self) -> str:
        """The namespace of the context in use, which is what kubectl itself would take."""
        return self.run("config", "view", "--minify", "-o", "jsonpath={..namespace}").strip() or "default"

    @contextlib.contextmanager
    def proxy(self) -> Iterator[str]:
        """The API server on loopback for as long as the block lasts, with the user's credentials; yields its URL.

        Raises:
            KubectlError: The proxy did not start.
        """
        with self._proxy("--port=0") as line:
            found = re.search(r"127\.0\.0\.1:\d+", line)
            if found is None:
                raise KubectlError(f"'kubectl proxy' did not start: {line.strip()}")
            yield f"http://{found.group()}"

    @contextlib.contextmanager
    def socket(self) -> Iterator[Path]:
        """The same on a Unix socket in a folder of the user's own, so that nobody else on the machine reaches it.

        Raises:
            KubectlError: The proxy did not start.
        """
        with tempfile.TemporaryDirectory(prefix="supportfleet-") as folder:
            path = Path(folder) / "api.sock"
            with self._proxy(f"--unix-socket={path}") as line:
                if not path.exists():
                    raise KubectlError(f"'kubectl proxy' did not start: {line.strip() or 'it said nothing'}")
                yield path

    @contextlib.contextmanager
    def _proxy(self, *flags: str) -> Iterator[str]:
        """A proxy, and the first line that it says: once it serves, or why it can't."""
        command = self._command("proxy", *flags)
        with subprocess.Popen(
            command, env=self.env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            late = threading.Timer(PROXY_START_SECONDS, process.kill)
            late.start()
            try:
                line = process.stdout.readline() if process.stdout else ""
                late.cancel()
                yield line
            finally:
                late.cancel()
                process.terminate()
                _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(PROXY_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
