"""Environment variables: the contract between the operator and the runtime.

The names here and those in ``api.environment.RESERVED_ENV`` are the same set: what the operator sets, users can't.
"""

from typing import Any, Final

from supportfleet_operator.api import TOOLS, Artifact, SupportAgent
from supportfleet_operator.resources import names

MODEL_DIR: Final = "/models"
CONFIG_DIR: Final = "/etc/supportfleet"
POINTER_DIR: Final = "/etc/supportfleet-model"
"""Where the ConfigMap of a hot model is mounted, as a folder: a single file of it would never change."""

AWS_KEYS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
"""Keys of the credentials' Secret, and the variables that they become."""

TOOLS_SERVICE_PORT: Final = 8081


def agent_env(agent: SupportAgent, revision: str) -> list[dict[str, Any]]:
    """Variables of a container that answers messages. Users' own come last, so that they can refer to the others."""
    return [
        *_settings(agent, revision, "API_PORT"),
        *_model(agent),
        *_database(agent),
        *_llm(agent),
        *_tools(agent, revision),
        *_own(agent),
    ]


def gateway_env(agent: SupportAgent, revision: str) -> list[dict[str, Any]]:
    """Variables of a container that takes messages alone: customers reach it, and it has no language model's key."""
    return [
        *_settings(agent, revision, "API_PORT"),
        *_database(agent),
        *_tools(agent, revision),
        *_own(agent),
    ]


def tools_env(agent: SupportAgent, revision: str) -> list[dict[str, Any]]:
    """Variables of a container that carries out tools: it has neither a model nor a language model's key."""
    return [*_settings(agent, revision, "TOOLS_PORT"), *_database(agent), *_own(agent)]


def sync_env(agent: SupportAgent) -> list[dict[str, Any]]:
    """Variables of the model sync: the model, its storage, and users' own, such as those of a proxy."""
    return [*_identity(agent), *_artifact(agent), *_storage(agent), *_own(agent)]


def channel_env(agent: SupportAgent) -> list[dict[str, Any]]:
    """Variables of the look at the channel: the bucket, and users' own."""
    model = agent.spec.model
    if model is None or model.channel is None:
        raise ValueError(f"{agent.metadata.name} follows no channel")
    pointer = [{"name": "MODEL_BUCKET", "value": model.uri}, {"name": "MODEL_CHANNEL", "value": model.channel}]
    return [*_identity(agent), *pointer, *_storage(agent), *_own(agent)]


def artifact_of(agent: SupportAgent) -> Artifact:
    """The artifact that the agent runs on; an agent that has none, or a channel alone, can't be asked."""
    artifact = agent.spec.model.artifact if agent.spec.model is not None else None
    if artifact is None:
        raise ValueError(f"{agent.metadata.name} names no model artifact: is its channel not resolved yet?")
    return artifact


def env_from(agent: SupportAgent) -> list[dict[str, Any]]:
    """ConfigMaps and Secrets that become variables."""
    return [source.manifest() for source in agent.spec.template.env_from or ()]


def _settings(agent: SupportAgent, revision: str, port: str) -> list[dict[str, Any]]:
    """What every part of the runtime is told; ``port`` is the variable for where it listens.

    The runtime names its queue by the revision: a message is worked by the revision that it was sent to.
    """
    return [
        {"name": port, "value": str(agent.spec.template.port)},
        *_identity(agent),
        {"name": "AGENT_REVISION", "value": revision},
        {"name": "CONFIG_FILE", "value": names.CONFIG_FILE},
        {"name": "CONFIG_DIR", "value": CONFIG_DIR},
    ]


def _tools(agent: SupportAgent, revision: str) -> list[dict[str, Any]]:
    """The tools layer of the revision, where it has one."""
    if TOOLS not in agent.spec.layers:
        return []
    return [{"name": "TOOLS_URL", "value": f"http://{names.of_layer(agent, revision, TOOLS)}:{TOOLS_SERVICE_PORT}"}]


def _identity(agent: SupportAgent) -> list[dict[str, Any]]:
    return [
        {"name": "AGENT_NAME", "value": agent.metadata.name},
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
        {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}},
    ]


def _model(agent: SupportAgent) -> list[dict[str, Any]]:
    """The model, for the agent: by a file that changes, and with what it takes to fetch the next one, where it is hot.

    Any other agent has neither: it reads the files that were synced, and another model is another pod.
    """
    model = agent.spec.model
    if model is None:
        return []
    if not model.hot:
        return _artifact(agent)
    pointer = {"name": "MODEL_FILE", "value": f"{POINTER_DIR}/{names.MODEL_FILE}"}
    return [pointer, {"name": "MODEL_DIR", "value": MODEL_DIR}, *_storage(agent)]


def _artifact(agent: SupportAgent) -> list[dict[str, Any]]:
    if agent.spec.model is None:
        return []
    artifact = artifact_of(agent)
    return [
        {"name": "MODEL_BUCKET", "value": artifact.uri},
        {"name": "MODEL_VERSION", "value": artifact.version},
        {"name": "MODEL_DIGEST", "value": artifact.digest},
        {"name": "MODEL_DIR", "value": MODEL_DIR},
    ]


def _storage(agent: SupportAgent) -> list[dict[str, Any]]:
    """Where the bucket is and who may read it."""
    model = agent.spec.model
    if model is None:
        return []
    env = []
    if model.endpoint is not None:
        env.append({"name": "AWS_ENDPOINT_URL", "value": model.endpoint})
    if model.region is not None:
        env.append({"name": "AWS_REGION", "value": model.region})
    if model.credentials_secret_ref is not None:
        env += [_from_secret(key, model.credentials_secret_ref.name, key) for key in AWS_KEYS]
    return env


def _database(agent: SupportAgent) -> list[dict[str, Any]]:
    if agent.spec.database is None:
        return []
    secret = agent.spec.database.secret_ref
    return [_from_secret("DATABASE_URL", secret.name, secret.key)]


def _llm(agent: SupportAgent) -> list[dict[str, Any]]:
    llm = agent.spec.llm
    env = [{"name": "LLM_PROVIDER", "value": llm.provider.lower()}]
    if llm.provider != "Scripted" and llm.api_key_secret_ref is not None:
        env.append(_from_secret("ANTHROPIC_API_KEY", llm.api_key_secret_ref.name, llm.api_key_secret_ref.key))
    if llm.base_url is not None:
        env.append({"name": "ANTHROPIC_BASE_URL", "value": llm.base_url})
    if llm.model is not None:
        env.append({"name": "CLAUDE_MODEL", "value": llm.model})
    env.append({"name": "CLAUDE_TIMEOUT", "value": str(llm.timeout_seconds)})
    env.append({"name": "CLAUDE_MAX_TOKENS", "value": str(llm.max_tokens)})
    return env


def _own(agent: SupportAgent) -> list[dict[str, Any]]:
    return [env.manifest() for env in agent.spec.template.env or ()]


def _from_secret(name: str, secret: str, key: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
