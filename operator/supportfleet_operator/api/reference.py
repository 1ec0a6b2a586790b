"""The field reference in docs/supportagent.md, rendered from the same schema as the CustomResourceDefinition."""

import json
from collections.abc import Iterator
from typing import Final

from supportfleet_operator.api import group
from supportfleet_operator.api.agent import MAX_NAME
from supportfleet_operator.api.rules import VALIDATIONS
from supportfleet_operator.api.schema import Schema

INTRODUCTION: Final = f"""\
# SupportAgent

`apiVersion: {group.API_VERSION}`, `kind: {group.KIND}`, short name `{group.SHORT_NAMES[0]}`.

This page is generated from the models (`make crds`); `kubectl explain {group.SINGULAR}.spec` says the same in a
terminal. The smallest agent is [examples/02-minimal.yaml](../examples/02-minimal.yaml), and
[tests/golden](../tests/golden) shows every manifest that each example becomes.

A name has at most {MAX_NAME} lower-case letters, digits and `-`, and begins with a letter. Fields that are not listed
here are refused by `kubectl`, and so is everything that breaks a rule; the answer names the field and what is allowed.

## What an agent becomes

| Object | Name | When |
|---|---|---|
| ServiceAccount | NAME | always; it has no token and no rights |
| NetworkPolicy | NAME | unless `spec.networkPolicy.enabled` is false |
| PersistentVolumeClaim | NAME-models | with `spec.model.cache.type: PersistentVolumeClaim` and no `claimName` |
| PodDisruptionBudget | NAME | where there can be more than one pod |
| Service | NAME | always; `spec.service.port` to the pods of the revision that serves |
| VirtualService | NAME | with `spec.traffic.provider: Istio` |
| HTTPRoute | NAME | with `spec.traffic.provider: GatewayAPI` |
| ConfigMap | NAME-model | with `spec.model.reload: Hot`; the model that pods load, once it is verified |
| Job | NAME-channel-N | with `spec.model.channel`, every `channelPollSeconds`; asks where the channel points |

Everything that changes behaviour (`spec.template`, `spec.config`, `spec.llm`, `spec.database`, `spec.model`,
`spec.topology` and the `resources` of `spec.worker` and `spec.tools`) is one revision. Its name, such as `r63322be`, is
a hash of those fields, so going back to an earlier spec is going back to an earlier revision. Each has a set of its
own, in which nothing changes but the number of pods:

| Object | Name | When |
|---|---|---|
| ControllerRevision | NAME-REVISION | always; it keeps the revision's fields, to go back to |
| ConfigMap | NAME-REVISION-config | always; `agent_config.json` from `spec.config` |
| Service | NAME-REVISION | always; `spec.service.port` to the runtime's port |
| Job | NAME-model-HASH | with `spec.model`; the Deployment waits until it has verified the model |
| Job | NAME-REVISION-check-HASH | with `spec.rollout.checklist`, before the revision gets traffic |
| Deployment | NAME-REVISION | always; its replicas belong to the autoscaler where there is one |
| DestinationRule | NAME-REVISION | with `spec.traffic.provider: Istio`, while the revision has pods |
| HorizontalPodAutoscaler | NAME-REVISION | with `spec.autoscaling`, while the revision has pods |

With `spec.topology: Layered` ([layers](layers.md)) that Deployment takes messages alone, and each LAYER behind it,
`worker` and `tools`, has in each revision:

| Object | Name | When |
|---|---|---|
| Deployment | NAME-REVISION-LAYER | always; no tools where `spec.template.env` names another tool service |
| Service | NAME-REVISION-tools | with a tools layer; the revision's workers call it |
| HorizontalPodAutoscaler | NAME-REVISION-LAYER | with `spec.LAYER.autoscaling`, while the revision has pods |
| PodDisruptionBudget | NAME-REVISION-LAYER | where there can be more than one pod |
| NetworkPolicy | NAME-REVISION-LAYER | unless `spec.networkPolicy.enabled` is false |

All belong to the agent and are deleted with it, the claim included. Pods pass Pod Security's `restricted` level: user
and group 65532, a read-only root filesystem, no capabilities. They can write to `/tmp`, to `/models` where the model is
not on a claim, and to `/var/lib/supportfleet`; all of it is gone with the pod.

## What a change does

- Of the image, environment, configuration, language model or database: a new revision, which takes over as
  `spec.rollout` says ([rollouts](rollouts.md)). Its pods are ready before it has traffic, and the pods of the revision
  before are there until it has all of it.
- Of `spec.model`: the same, but only after a Job has fetched the artifact and verified it. Where that fails, the pods
  that run go on as they are, and the condition `ModelSynced` says why. The image and the environment are part of what
  is tried, so a change of those verifies the model once more.
- Of the version and digest, or of where the channel points, with `spec.model.reload: Hot`: no new revision. Once the
  Job has verified the artifact, pods that run load it and swap; the conditions say if one can't.
- Of `spec.topology`, or of a layer's resources: a new revision.
- Of the number of pods, of a layer's too, autoscaling, Service, budget, network policy, traffic, the rollout itself or
  the size of a claim: no new revision, and no pod is replaced.
- Of the content of a Secret: nothing, until pods start anew for another reason.
- `spec.suspend`: pods stop, without waiting for anything, and come back when it is taken away.

## Fields
"""


def render(root: Schema) -> str:
    """The page."""
    sections = [INTRODUCTION]
    seen: dict[str, str] = {}
    for name in ("spec", "status"):
        sections += _sections(name, root["properties"][name], seen)
    return "\n".join(sections)


def _sections(path: str, schema: Schema, seen: dict[str, str]) -> Iterator[str]:
    """One section for an object, then one for each object within it that no section describes yet."""
    lines = [f"### `{path}`", "", schema.get("description", ""), "", "| Field | Type | Description |", "|---|---|---|"]
    required = schema.get("required", ())
    within = []
    for name, field in schema["properties"].items():
        kind = _type(field) + (", required" if name in required else "")
        description = field.get("description", "")
        inner, inner_path = (field["items"], f"{path}.{name}[]") if "items" in field else (field, f"{path}.{name}")
        if "properties" in inner:
            if described := seen.get(_fields(inner)):
                description += f" Fields as in `{described}`."
            else:
                seen[_fields(inner)] = inner_path
                within.append((inner_path, inner))
        lines.append(f"| `{name}` | {kind} | {_cell(description)} |")
    if rules := list(_rules(schema)):
        lines += ["", *rules]
    yield "\n".join([*lines, ""])
    for inner_path, inner in within:
        yield from _sections(inner_path, inner, seen)


def _fields(schema: Schema) -> str:
    """The same text for objects with the same fields."""
    return json.dumps(schema["properties"], sort_keys=True)


def _rules(schema: Schema) -> Iterator[str]:
    for rule in schema.get(VALIDATIONS, ()):
        field = rule.get("fieldPath", "").removeprefix(".")
        yield f"- `{field}`: {rule['message']}" if field else f"- {rule['message']}"
    for name, field in schema["properties"].items():
        for rule in field.get(VALIDATIONS, ()) if "properties" not in field else ():
            yield f"- `{name}`: {rule['message']}"


def _type(schema: Schema) -> str:
    """The type in words, with its bounds."""
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return "number or string"
    if schema["type"] == "array":
        return f"list of {_plural(_type(schema['items']))}"
    if "additionalProperties" in schema:
        return f"map of {_plural(_type(schema['additionalProperties']))}"
    return str(schema["type"]) + _bounds(schema)


def _plural(kind: str) -> str:
    if kind.startswith("map of "):
        return f"maps{kind.removeprefix('map')}"
    return f"{kind}s" if kind in ("object", "string", "integer", "number") else kind


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f", {low} to {high}"
    return f", {low} or more" if low is not None else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
