"""What a spec refers to: Secrets, ConfigMaps, a claim, a StorageClass. Which of them the cluster lacks.

Secrets are read one at a time, by the names that a spec gives, and only the names of their keys are kept, for a few
minutes. The permission is not needed: where it is not granted (``Forbidden``) a missing Secret still shows, through the
pods that cannot start without it. Agents that are Ready are not checked at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from supportfleet_operator.api import SupportAgent
from supportfleet_operator.cluster.client import JSON, METADATA_ONLY, Client
from supportfleet_operator.cluster.resources import (
    CONFIG_MAPS,
    SECRETS,
    STORAGE_CLASSES,
    VOLUME_CLAIMS,
    Resource,
)
from supportfleet_operator.errors import Forbidden

LOG: Final = logging.getLogger(__name__)

PRESENT_SECONDS: Final = 300.0
ABSENT_SECONDS: Final = 8.0
REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Reference:
    """A field of the spec that names another object."""

    field: str
    resource: Resource
    name: str
    keys: tuple[str, ...] = ()
    """Keys that the object must have."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A reference to nothing, or to an object that lacks a key."""

    reference: Reference
    key: str = ""
    """The key that is missing; empty when the object itself is."""


def references(agent: SupportAgent) -> list[Reference]:
    """Everything that the agent cannot run without."""
    return [*_secrets(agent), *_environment(agent), *_volumes(agent), *_of_checklist(agent)]


def _secrets(agent: SupportAgent) -> Iterator[Reference]:
    spec = agent.spec
    if spec.database is not None:
        secret = spec.database.secret_ref
        yield Reference("spec.database.secretRef", SECRETS, secret.name, (secret.key,))
    if spec.llm.api_key_secret_ref is not None and spec.llm.provider != "Scripted":
        key = spec.llm.api_key_secret_ref
        yield Reference("spec.llm.apiKeySecretRef", SECRETS, key.name, (key.key,))
    if spec.model is not None and spec.model.credentials_secret_ref is not None:
        name = spec.model.credentials_secret_ref.name
        keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        yield Reference("spec.model.credentialsSecretRef", SECRETS, name, keys)
    for index, pull in enumerate(spec.template.image_pull_secrets or ()):
        yield Reference(f"spec.template.imagePullSecrets[{index}]", SECRETS, pull.name)


def _environment(agent: SupportAgent) -> Iterator[Reference]:
    for index, variable in enumerate(agent.spec.template.env or ()):
        source = variable.value_from
        if source is None:
            continue
        for kind, resource, chosen in (
            ("secretKeyRef", SECRETS, source.secret_key_ref),
            ("configMapKeyRef", CONFIG_MAPS, source.config_map_key_ref),
        ):
            if chosen is not None and not chosen.optional:
                field = f"spec.template.env[{index}].valueFrom.{kind}"
                yield Reference(field, resource, chosen.name, (chosen.key,))
    for index, bundle in enumerate(agent.spec.template.env_from or ()):
        for kind, resource, whole in (
            ("secretRef", SECRETS, bundle.secret_ref),
            ("configMapRef", CONFIG_MAPS, bundle.config_map_ref),
        ):
            if whole is not None and not whole.optional:
                yield Reference(f"spec.template.envFrom[{index}].{kind}", resource, whole.name)


def _volumes(agent: SupportAgent) -> Iterator[Reference]:
    cache = agent.spec.model.cache if agent.spec.model is not None else None
    if cache is None:
        return
    if cache.claim_name is not None:
        yield Reference("spec.model.cache.claimName", VOLUME_CLAIMS, cache.claim_name)
    if cache.storage_class_name is not None:
        yield Reference("spec.model.cache.storageClassName", STORAGE_CLASSES, cache.storage_class_name)


def _of_checklist(agent: SupportAgent) -> Iterator[Reference]:
    wanted = agent.spec.rollout.checklist
    if wanted is None:
        return
    if (key := wanted.api_key_secret_ref) is not None:
        yield Reference("spec.rollout.checklist.apiKeySecretRef", SECRETS, key.name, (key.key,))
    if wanted.config_map_name is not None:
        yield Reference("spec.rollout.checklist.configMapName", CONFIG_MAPS, wanted.config_map_name)


@dataclass(frozen=True, slots=True)
class _Answer:
    at: float
    keys: frozenset[str] | None
    """None: there is no such object."""
    known: bool = True


class ReferenceReader:
    """Looks references up, and remembers the answers for a while."""

    def __init__(self, client: Client, clock: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._answers: dict[tuple[str, str, str, bool], _Answer] = {}

    async def missing(self, agent: SupportAgent) -> tuple[Missing, ...]:
        """What the agent refers to and cannot have."""
        found: list[Missing] = []
        for reference in references(agent):
            answer = await self._look_up(reference, agent.metadata.namespace)
            if not answer.known:
                continue
            if answer.keys is None:
                found.append(Missing(reference))
            else:
                found += [Missing(reference, key) for key in reference.keys if key not in answer.keys]
        return tuple(found)

    async def _look_up(self, reference: Reference, namespace: str) -> _Answer:
        identity = (reference.resource.kind, namespace, reference.name, bool(reference.keys))
        answer = self._answers.get(identity)
        if answer is not None and self._clock() - answer.at < _lifetime(answer, reference):
            return answer
        if len(self._answers) >= REMEMBERED:
            self._answers.clear()
        answer = self._answers[identity] = await self._ask(reference, namespace)
        return answer

    async def _ask(self, reference: Reference, namespace: str) -> _Answer:
        accept = JSON if reference.keys else METADATA_ONLY
        try:
            found = await self._client.get(reference.resource, namespace, reference.name, accept)
        except Forbidden as error:
            LOG.info("reference not checked", extra={"kind": reference.resource.kind, "error": str(error)})
            return _Answer(self._clock(), None, known=False)
        return _Answer(self._clock(), None if found is None else _keys(found))


def _keys(found: Mapping[str, Any]) -> frozenset[str]:
    """The names of the keys; the values go no further than this."""
    return frozenset((found.get("data") or {}).keys() | (found.get("binaryData") or {}).keys())


def _lifetime(answer: _Answer, reference: Reference) -> float:
    """What is missing is looked for again soon."""
    lacking = answer.known and (answer.keys is None or not answer.keys.issuperset(reference.keys))
    return ABSENT_SECONDS if lacking else PRESENT_SECONDS
