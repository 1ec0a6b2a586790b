"""The cluster as people reach it: through kubectl and the kubeconfig they have."""

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supportfleet.errors import SupportfleetError

TIMEOUT_SECONDS = 60.0


class KubectlError(SupportfleetError):
    """kubectl is missing, or refused what was asked."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one cluster; ``kubeconfig`` None means the user's own current context."""

    kubeconfig: Path | None = None
    path: Path | None = None
    _env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)

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

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = TIMEOUT_SECONDS) -> str:
        """What kubectl prints.

        Raises:
            KubectlError: It failed or took longer than ``timeout`` seconds; holds what it said.
        """
        command = [self.program(), *arguments]
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

    @contextlib.contextmanager
    def proxy(self) -> Iterator[str]:
        """The API server on loopback for as long as the block lasts, with the user's credentials; yields its URL.

        Raises:
            KubectlError: The proxy did not start.
        """
        command = [self.program(), "proxy", "--port=0"]
        with subprocess.Popen(
            command, env=self.env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                line = process.stdout.readline() if process.stdout else ""
                found = re.search(r"127\.0\.0\.1:\d+", line)
                if found is None:
                    raise KubectlError(f"'kubectl proxy' did not start: {line.strip()}")
                yield f"http://{found.group()}"
            finally:
                process.terminate()
