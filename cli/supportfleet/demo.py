"""``supportfleet demo``: from nothing to an agent that answers, by the commands a person would type.

Every step is a command that is shown as it is run, so that what the demo does can be done again by hand. A step that
has been done already costs next to nothing: the demo can be run again at once.
"""

import asyncio
import json
import os
import shlex
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from supportfleet.chat import Conversation, show
from supportfleet.errors import SupportfleetError
from supportfleet.kubectl import Kubectl
from supportfleet.local import images
from supportfleet.local.progress import Progress

CHECKOUT = Path(__file__).parents[2]
AGENT = "customer-support-agent"
EXAMPLE = "examples/01-customer-support-agent.yaml"
MODEL = "examples/models/intent"
MESSAGES = (
    "Hi! Where is my order A-1001?",
    "I forgot my password, please help me log in again.",
    "This is not what I hoped for. Can I talk to a human?",
)
# Which build of the image the operator was installed with: its tag says nothing.
BUILD = r".metadata.annotations.supportfleet\.dev/build"
BUILD_SECONDS = 3600.0
STEP_SECONDS = 600.0
READY_SECONDS = 300


class DemoError(SupportfleetError):
    """A step of the demo failed."""


@dataclass
class Demo:
    """The demo's steps on one cluster."""

    console: Console
    cluster: str
    kubectl: Kubectl
    started: float

    def title(self, text: str) -> None:
        """Say what comes next, and how long everything has taken so far."""
        self.console.print(f"\n[bold]{text}[/] [dim]({time.monotonic() - self.started:.0f} s)[/]", highlight=False)

    def run(
        self, *command: str, env: Mapping[str, str] | None = None, timeout: float = STEP_SECONDS, quiet: bool = False
    ) -> None:
        """Show a command and run it in the checkout; its output goes where ours goes unless ``quiet``.

        Raises:
            DemoError: It failed, or took longer than ``timeout`` seconds.
        """
        shown = shlex.join([Path(command[0]).name, *command[1:]])
        self.console.print(f"[cyan]$ {shown}[/]", highlight=False)
        self.console.file.flush()
        environment = {**os.environ, **self.kubectl.env(), **(env or {})}
        output = subprocess.PIPE if quiet else None
        try:
            done = subprocess.run(
                command, cwd=CHECKOUT, env=environment, timeout=timeout, check=False, stdout=output, text=True
            )
        except subprocess.TimeoutExpired as error:
            raise DemoError(f"'{shown}' took longer than {timeout:g} s") from error
        if done.returncode:
            raise DemoError(f"'{shown}' failed with exit code {done.returncode}\n{done.stdout or ''}".rstrip())

    def local(self, *arguments: str, timeout: float = STEP_SECONDS, quiet: bool = False) -> None:
        """Run a ``supportfleet local`` command for this cluster."""
        self.run(_program("supportfleet"), "local", *arguments, timeout=timeout, quiet=quiet)

    def apply(self, *arguments: str, quiet: bool = False) -> None:
        """Run kubectl."""
        self.run(self.kubectl.program(), *arguments, quiet=quiet)


def _program(name: str) -> str:
    """A console script beside the running interpreter, whatever PATH says."""
    return str(Path(sys.executable).parent / name)


def cluster_info(name: str) -> dict[str, Any]:
    """What ``supportfleet local status -o json`` says.

    Raises:
        DemoError: The cluster does not run.
    """
    command = [_program("supportfleet"), "local", "status", "--name", name, "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=STEP_SECONDS, check=False)
    if done.returncode:
        raise DemoError(f"the cluster {name!r} does not run: {done.stderr.strip()}")
    info: dict[str, Any] = json.loads(done.stdout)
    return info


def storage_environment(kubectl: Kubectl, info: Mapping[str, Any]) -> dict[str, str]:
    """How this machine reaches the cluster's S3 server, as the variables every S3 client knows."""
    secret = kubectl.get("-n", "supportfleet-local", "secret", "s3-credentials")["data"]
    keys = {name: b64decode(secret[name]).decode() for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    return {**keys, "AWS_ENDPOINT_URL": info["s3"]["endpoint"], "AWS_REGION": "us-east-1"}


def run_demo(console: Console, cluster: str) -> None:
    """Every step in turn.

    Raises:
        SupportfleetError: A step failed; the message says which and what it said.
    """
    if not (CHECKOUT / EXAMPLE).exists():
        raise DemoError("the demo's examples are not here", remedy="Run it in a checkout of the repository: make demo")
    demo = Demo(console, cluster, Kubectl(), time.monotonic())
    demo.title("A Kubernetes cluster on this machine")
    demo.local("prepare", timeout=BUILD_SECONDS)
    demo.local("up", "--name", cluster)
    info = cluster_info(cluster)
    demo.kubectl = Kubectl(Path(info["kubeconfig"]), Path(info["kubectl"]))
    demo.local("load-image", "--name", cluster, "supportfleet/operator:dev", "supportfleet/agent:dev")

    demo.title("The operator")
    _install(demo)

    demo.title("The model artifact, published to S3")
    environment = storage_environment(demo.kubectl, info)
    demo.run(_program("supportfleet-runtime"), "publish-model", MODEL, "s3://models/intent", env=environment)

    demo.title("A SupportAgent")
    system = ("-n", "supportfleet-system")
    demo.apply(*system, "rollout", "status", "deployment/supportfleet-operator", f"--timeout={READY_SECONDS}s")
    demo.apply("apply", "-f", EXAMPLE)
    demo.apply("wait", f"supportagent/{AGENT}", "--for=condition=Ready", f"--timeout={READY_SECONDS}s")
    demo.apply("get", "supportagents", "-o", "wide")

    demo.title("Three customer messages")
    asyncio.run(_talk(demo))
    _what_next(console, info, time.monotonic() - demo.started)


def _install(demo: Demo) -> None:
    """Apply the operator; where an earlier demo left one that runs another build of the same tag, restart it."""
    system = ("-n", "supportfleet-system")
    deployment = "deployment/supportfleet-operator"
    with Progress() as progress:
        build = asyncio.run(images.archive_of("supportfleet/operator:dev", progress=progress)).name
    found = demo.kubectl.run(*system, "get", deployment, "--ignore-not-found", "-o", f"jsonpath={{{BUILD}}}{{.kind}}")
    demo.apply("apply", "--server-side", "-k", "manifests/default", quiet=True)
    if found and found != f"{build}Deployment":
        demo.apply(*system, "rollout", "restart", deployment)
    demo.kubectl.run(*system, "annotate", deployment, "--overwrite", f"supportfleet.dev/build={build}")


async def _talk(demo: Demo) -> None:
    with demo.kubectl.proxy() as proxy:
        conversation = Conversation(proxy, "default", AGENT, "cust-1001")
        for message in MESSAGES:
            show(demo.console, message, await conversation.say(message))


def _what_next(console: Console, info: Mapping[str, Any], seconds: float) -> None:
    folder = Path(info["kubectl"]).parent
    console.print(
        f"""
[bold green]All of it runs[/] [dim]({seconds:.0f} s)[/]. What to try next:

  export KUBECONFIG={info["kubeconfig"]} PATH={folder}:{Path(sys.executable).parent}:$PATH
  kubectl get deployments,services,hpa,pdb,networkpolicies,jobs,pods -L supportfleet.dev/revision \\
    -l supportfleet.dev/agent={AGENT}
  kubectl explain supportagent.spec.model
  kubectl patch supportagent {AGENT} --type merge -p '{{"spec":{{"config":{{"greeting":"Good day!"}}}}}}'
  kubectl get supportagents --watch           [dim]# … and see it converge[/]
  kubectl delete deployments -l supportfleet.dev/agent={AGENT}   [dim]# … and see them come back[/]
  supportfleet chat {AGENT}
  supportfleet local down                     [dim]# leaves nothing behind[/]""",
        highlight=False,
        soft_wrap=True,
    )


@click.command()
@click.option("--name", "cluster", default="supportfleet", show_default=True, help="The local cluster's name.")
def demo(cluster: str) -> None:
    """Bring up a local cluster, the operator and an example agent, and let it answer."""
    run_demo(Console(), cluster)
