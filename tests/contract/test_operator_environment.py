"""The environment that the operator renders is one that the runtime starts with.

The two share no code: this is where their contract is held.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_operator.api import parse
from supportfleet_operator.api.model import URI, VERSION
from supportfleet_operator.api.types import HTTP_URL
from supportfleet_operator.resources import resolved, revision_children
from supportfleet_operator.resources.environment import TOOLS_SERVICE_PORT
from supportfleet_runtime import config
from supportfleet_runtime.__main__ import OTHERS, OWN
from supportfleet_runtime.agent.settings import parse_agent_settings
from supportfleet_runtime.models.settings import sync_settings

EXAMPLES = sorted((Path(__file__).parent.parent.parent / "examples").glob("[0-9]*.yaml"))
SECRETS = {
    "DATABASE_URL": "postgresql://u:p@db/supportfleet",
    "ANTHROPIC_API_KEY": "sk-ant-a-key-for-tests",
    "TOOLS_API_KEY": "a-key-of-the-tools-layer",
}
SYNC_ONLY = {
    "MODEL_BUCKET",
    "MODEL_VERSION",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
}
"""Variables that the agent's container has for people to read, or to fetch a hot model: the model sync reads them."""


def rendered(example: Path, command: str = "") -> dict[str, Any]:
    """What a running pod of the example is given: its variables, and its configuration file.

    The pod is one that answers messages, or that runs a command.
    """
    agent = yaml.safe_load(example.read_text())
    agent["metadata"] |= {"namespace": "support", "uid": "u-1"}
    followed = resolved(parse(agent), "1", f"sha256:{'a' * 64}")
    wanted = revision_children(followed, "r0123456", replicas=1, autoscaled=True)
    deployments = [wanted.deployment, *(layer.deployment for layer in wanted.layers)]
    containers = [one["spec"]["template"]["spec"]["containers"][0] for one in deployments]
    (container,) = [one for one in containers if one["args"][0] in ([command] if command else ["serve", "worker"])]
    return {
        "agent": followed,
        "container": container,
        "env": {
            one["name"]: one["value"] if "value" in one else SECRETS.get(one["name"], "from-the-pod")
            for one in container["env"]
        },
        "file": wanted.config_map["data"],
    }


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_runtime_starts_with_what_the_operator_renders(example: Path, tmp_path: Path) -> None:
    """Every example's variables and configuration file are valid for the runtime, and mean what the spec says."""
    pod = rendered(example)
    for name, text in pod["file"].items():
        (tmp_path / name).write_text(text)
    loaded = config.load(pod["env"] | {"CONFIG_DIR": str(tmp_path)})
    spec = pod["agent"].spec
    assert loaded.settings.api_port == spec.template.port
    assert loaded.settings.llm_provider == spec.llm.provider.lower()
    assert loaded.settings.claude_timeout == spec.llm.timeout_seconds
    assert loaded.settings.claude_max_tokens == spec.llm.max_tokens
    pinned, followed = (spec.model.digest, None) if spec.model and not spec.model.hot else (None, spec.model)
    assert loaded.settings.model_digest == pinned
    assert (loaded.settings.model_file is not None) == (followed is not None)
    assert (loaded.settings.database_url is not None) == (spec.database is not None)
    assert loaded.settings.scope == f"from-the-pod/{pod['agent'].metadata.name}"
    assert loaded.settings.uses_claude == (spec.llm.provider == "Anthropic")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_no_variable_is_set_in_vain(example: Path) -> None:
    """The runtime knows each variable that the operator sets, so that a renamed one is noticed."""
    pod = rendered(example)
    own = {env.name for env in pod["agent"].spec.template.env or ()}
    known = {name.upper() for name in config.Settings.model_fields}
    assert pod["env"].keys() - own - SYNC_ONLY <= known


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_examples_configuration_is_one_the_runtime_accepts(example: Path) -> None:
    """Every key of an example's spec.config is one that the runtime knows."""
    (text,) = rendered(example)["file"].values()
    _, problems = parse_agent_settings(text.encode(), "agent_config.json")
    assert list(problems) == []


@given(
    uri=st.from_regex(URI, fullmatch=True),
    version=st.from_regex(VERSION, fullmatch=True).filter(lambda text: len(text) <= 63),
    endpoint=st.from_regex(HTTP_URL, fullmatch=True).filter(str.isascii) | st.none(),
)
def test_the_model_sync_takes_every_source_that_admission_lets_through(
    uri: str, version: str, endpoint: str | None
) -> None:
    """What the API server accepts as spec.model never fails in the sync Job for how it is written."""
    given = {"MODEL_BUCKET": uri, "MODEL_VERSION": version, "MODEL_DIGEST": f"sha256:{'a' * 64}"}
    settings = sync_settings(given | ({"AWS_ENDPOINT_URL": endpoint} if endpoint else {}))
    assert settings.version == version
    assert settings.source.bucket == (uri.split("/")[2] or None)


@pytest.mark.parametrize("command", ["gateway", "worker", "tools"])
def test_every_layer_starts_with_what_the_operator_renders(command: str, tmp_path: Path) -> None:
    """Each role's variables are valid for the runtime: same database, scope and tools' key, and ports that are open."""
    pod = rendered(EXAMPLES[8], command)
    for name, text in pod["file"].items():
        (tmp_path / name).write_text(text)
    settings = config.load(pod["env"] | {"CONFIG_DIR": str(tmp_path)}).settings
    assert command in {*OWN, *OTHERS}
    assert settings.scope == "from-the-pod/layered-agent"
    assert settings.database_url is not None
    assert settings.tools_api_key is not None
    port = settings.tools_port if command == "tools" else settings.api_port
    assert pod["container"]["ports"][0]["containerPort"] == port == pod["agent"].spec.template.port
    address = None if command == "tools" else f"http://layered-agent-r0123456-tools:{TOOLS_SERVICE_PORT}"
    assert settings.tools_url == address
    assert pod["env"].keys() <= {name.upper() for name in config.Settings.model_fields}


def test_layers_that_dont_ask_the_language_model_have_no_key_of_it() -> None:
    """What customers reach, and what pays their money back, holds no language model's key."""
    for command, is_told in (("gateway", False), ("worker", True), ("tools", False)):
        pod = rendered(EXAMPLES[8], command)
        assert ("LLM_PROVIDER" in pod["env"]) == is_told


def test_the_runtimes_writable_folders_are_mounted() -> None:
    """Where the runtime keeps its SQLite file and looks for its configuration and model, a volume is mounted."""
    mounts = {mount["mountPath"] for mount in rendered(EXAMPLES[0])["container"]["volumeMounts"]}
    assert str(config.DEFAULT_DATA_DIR) in mounts
    assert str(config.DEFAULT_CONFIG_DIR) in mounts
    assert str(config.Settings.model_fields["model_dir"].default) in mounts
