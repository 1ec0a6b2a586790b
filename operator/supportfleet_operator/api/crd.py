"""The CustomResourceDefinition, generated from the models.

``python -m supportfleet_operator.api.crd`` prints it. With ``--write`` it renews the files in the repository that are
made from the models: the definition in ``crds/`` and the field reference in ``docs/``. A test holds them in step.
"""

import sys
from pathlib import Path
from typing import Any, Final

import yaml

from supportfleet_operator.api import group, reference
from supportfleet_operator.api.agent import SupportAgent
from supportfleet_operator.api.schema import Schema, structural_schema
from supportfleet_operator.api.status import NOT_SEEN

API_VERSION_HELP: Final = "Version of the API that this object is written in."
KIND_HELP: Final = "Kind of the object."


def _condition(kind: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


COLUMNS: Final = (
    # name, type, path, priority (0: always, 1: with -o wide), description
    ("Ready", "string", _condition("Ready", "status"), 0, "Whether the agent runs as its spec says."),
    ("Phase", "string", ".status.phase", 0, "The state in one word."),
    ("Replicas", "integer", ".status.replicas", 0, "Pods that exist."),
    ("Serving", "integer", ".status.readyReplicas", 0, "Pods that are ready for traffic."),
    ("Model", "string", ".status.model.version", 0, "Version of the model that was synced last."),
    ("Stable", "string", ".status.rollout.stableRevision", 0, "The revision that serves what no rollout takes."),
    ("Canary", "string", ".status.rollout.canaryRevision", 0, "The revision that is being rolled out."),
    ("Weight", "integer", ".status.rollout.currentWeight", 0, "Percent of the traffic for the canary revision."),
    ("Age", "date", ".metadata.creationTimestamp", 0, "When the agent was created."),
    ("Reason", "string", _condition("Ready", "reason"), 1, "Why it is Ready, or not."),
    ("Image", "string", ".spec.template.image", 1, "Image of the runtime."),
    ("Digest", "string", ".status.model.digest", 1, "Digest of the model that was verified last."),
    ("Channel", "string", ".spec.model.channel", 1, "The channel that the model follows."),
    ("Rollout", "string", ".status.rollout.phase", 1, "What the rollout is doing."),
    ("Mirror", "integer", ".status.rollout.currentMirror", 1, "Percent of the requests copied to the canary revision."),
    ("Message", "string", _condition("Ready", "message"), 1, "Why it is Ready or not, and what to do."),
)


def definition() -> dict[str, Any]:
    """The whole CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": group.CRD_NAME, "labels": {"app.kubernetes.io/part-of": "supportfleet"}},
        "spec": {
            "group": group.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": group.KIND,
                "listKind": group.LIST_KIND,
                "plural": group.PLURAL,
                "singular": group.SINGULAR,
                "shortNames": list(group.SHORT_NAMES),
                "categories": list(group.CATEGORIES),
            },
            "versions": [
                {
                    "name": group.VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema()},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [_column(*column) for column in COLUMNS],
                }
            ],
        },
    }


def schema() -> Schema:
    """The schema of a SupportAgent; its metadata is the API server's own matter."""
    root = structural_schema(SupportAgent)
    spec, status = root["properties"]["spec"], root["properties"]["status"]
    status["default"] = {"observedGeneration": NOT_SEEN}
    root["required"] = ["spec"]
    root["properties"] = {
        "apiVersion": {"description": API_VERSION_HELP, "type": "string"},
        "kind": {"description": KIND_HELP, "type": "string"},
        "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
        "spec": spec,
        "status": status,
    }
    return root


def _column(name: str, kind: str, path: str, priority: int, description: str) -> dict[str, Any]:
    column = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return column | ({"priority": priority} if priority else {})


class _Dumper(yaml.SafeDumper):
    """Lists indented below their key, texts of several lines as such, and no anchors: as people write YAML."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: FBT001, FBT002, ARG002 - PyYAML's signature
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def to_yaml(*manifests: dict[str, Any]) -> str:
    """Manifests as YAML, the same text for the same value."""
    return yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


HEADER: Final = "# Generated from the models by `make crds`; don't edit.\n"


def render() -> str:
    """The definition as a file's text."""
    return HEADER + to_yaml(definition())


def generated_files() -> dict[str, str]:
    """The text of each file in the repository that is made from the models, by path."""
    return {f"crds/{group.CRD_NAME}.yaml": render(), "docs/supportagent.md": reference.render(schema())}


def main(arguments: list[str]) -> None:
    """Print the definition, or write the generated files."""
    if arguments != ["--write"]:
        sys.stdout.write(render())
        return
    repository = Path(__file__).parents[3]
    for path, text in generated_files().items():
        (repository / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
