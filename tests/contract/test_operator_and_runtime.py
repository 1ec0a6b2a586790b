"""The contract between operator and runtime: variables, commands, paths, ports and metric names.

They share no code, so only this says that what one renders the other understands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from supportfleet_operator.api import SupportAgent
from supportfleet_operator.resources import children
from supportfleet_runtime import __main__ as runtime
from supportfleet_runtime.config import Settings, load

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("[0-9]*.yaml"))
# Read by the object store's own library or by sync-model, not by the server's settings.
OF_THE_SYNC = {
    *("AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_SECRET_ACCESS_KEY", "MODEL_BUCKET", "MODEL_VERSION"),
    "CONFIG_DIR",
}


def agents() -> list[dict[str, Any]]:
    return [
        document
        for path in EXAMPLES
        for document in yaml.safe_load_all(path.read_text())
        if document["kind"] == "SupportAgent"
    ]


def render(agent: dict[str, Any]) -> Any:
    metadata = {"namespace": "support", "uid": "00000000-0000-4000-8000-000000000000", **agent["metadata"]}
    return children(SupportAgent.model_validate({**agent, "metadata": metadata}))


@pytest.mark.parametrize("agent", agents(), ids=lambda agent: agent["metadata"]["name"])
class TestExamples:
    def test_the_runtime_knows_every_variable_the_operator_sets(self, agent: dict[str, Any]) -> None:
        """Each variable of the agent's container is a setting of the runtime or belongs to the model sync."""
        own = {one["name"] for one in agent["spec"]["template"].get("env", [])}
        (container,) = render(agent).deployment["spec"]["template"]["spec"]["containers"]
        known = {name.upper() for name in Settings.model_fields} | OF_THE_SYNC | own
        assert {one["name"] for one in container["env"]} <= known

    def test_the_runtime_accepts_the_values(self, agent: dict[str, Any], tmp_path: Path) -> None:
        """The literal values pass the runtime's own validation, and so does the rendered agent_config.json."""
        rendered = render(agent)
        (container,) = rendered.deployment["spec"]["template"]["spec"]["containers"]
        environment = {one["name"]: one["value"] for one in container["env"] if "value" in one}
        text = rendered.config_map["data"][environment["CONFIG_FILE"]]
        (tmp_path / environment["CONFIG_FILE"]).write_text(text)
        secrets = {
            "DATABASE_URL": "postgresql://user:password@postgres:5432/supportfleet",
            "ANTHROPIC_API_KEY": "sk-test",
        }
        named = {one["name"]: secrets[one["name"]] for one in container["env"] if one["name"] in secrets}
        configuration = load({**environment, **named, "CONFIG_DIR": str(tmp_path)})
        settings = configuration.settings
        assert settings.api_port == container["ports"][0]["containerPort"]
        assert settings.agent_name == agent["metadata"]["name"]
        wanted = agent["spec"].get("config", {}).get("company", configuration.agent.company)
        assert configuration.agent.company == wanted

    def test_every_command_exists(self, agent: dict[str, Any]) -> None:
        """What containers run is a command of the runtime, or its default."""
        rendered = render(agent)
        pods = [rendered.deployment["spec"]["template"]["spec"]]
        if rendered.model_job:
            pods.append(rendered.model_job["spec"]["template"]["spec"])
        commands = {
            container["args"][0]
            for pod in pods
            for container in [*pod["containers"], *pod.get("initContainers", [])]
            if container.get("args")
        }
        assert commands <= {*runtime.OWN, *runtime.OTHERS}
