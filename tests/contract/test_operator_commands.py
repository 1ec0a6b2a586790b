"""What the operator has pods run and ask for exists in the runtime: commands, probe paths, metric names."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from supportfleet_operator.api import SupportAgent, parse
from supportfleet_operator.resources import RevisionChildren, channel_job, resolved, revision_children
from supportfleet_runtime import __main__ as runtime
from supportfleet_runtime.gateway import routes

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("[0-9]*.yaml"))


def read(example: Path) -> SupportAgent:
    agent = yaml.safe_load(example.read_text())
    agent["metadata"] |= {"namespace": "support", "uid": "u-1"}
    return parse(agent)


def rendered(example: Path) -> RevisionChildren:
    """A revision's children; a channel points at some version."""
    agent = resolved(read(example), "1", f"sha256:{'a' * 64}")
    return revision_children(agent, "r0123456", replicas=1, autoscaled=True)


def containers(wanted: RevisionChildren) -> list[dict[str, Any]]:
    pods = [wanted.deployment["spec"]["template"]["spec"]]
    if wanted.model_job:
        pods.append(wanted.model_job["spec"]["template"]["spec"])
    return [one for pod in pods for one in [*pod["containers"], *pod.get("initContainers", [])]]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_command_that_pods_run_exists(example: Path) -> None:
    """What containers are started with is a command of the runtime."""
    commands = {one["args"][0] for one in containers(rendered(example)) if one.get("args")}
    agent = read(example)
    if agent.spec.model is not None and agent.spec.model.channel is not None:
        commands |= {one["args"][0] for one in channel_job(agent, 1)["spec"]["template"]["spec"]["containers"]}
    assert commands <= {*runtime.OWN, *runtime.OTHERS}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_path_that_probes_ask_for_is_served(example: Path) -> None:
    """Probes ask for paths that the gateway serves."""
    served = Path(routes.__file__).read_text()
    probes = ("livenessProbe", "readinessProbe", "startupProbe")
    asked = {one[probe]["httpGet"]["path"] for one in containers(rendered(example)) for probe in probes if probe in one}
    assert asked
    assert all(f'"{path}"' in served for path in asked)
