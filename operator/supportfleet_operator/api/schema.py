"""From pydantic's JSON schema to a structural schema, which is what a CustomResourceDefinition takes.

A structural schema has no references, no null and a type everywhere; unknown fields are pruned unless a part of it
says otherwise.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from supportfleet_operator.api.rules import VALIDATIONS

Schema = dict[str, Any]

_DROPPED = ("title", "$defs", "propertyNames")

_ORDER = (
    "description",
    "type",
    "format",
    "enum",
    "default",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "anyOf",
    "items",
    "required",
    "properties",
    "additionalProperties",
)
"""What a reader looks for first stands first; extensions of Kubernetes come last."""


def structural_schema(model: type[BaseModel]) -> Schema:
    """The structural schema of a model."""
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(raw, raw.get("$defs", {}))


def _convert(raw: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    schema = {key: value for key, value in _resolve(raw, definitions).items() if key not in _DROPPED}
    if schema.get("default", ...) is None:
        del schema["default"]
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    if "items" in schema:
        schema["items"] = _convert(schema["items"], definitions)
    if "properties" in schema:
        schema["properties"] = {name: _convert(field, definitions) for name, field in schema["properties"].items()}
        schema.pop("additionalProperties", None)
    if isinstance(schema.get("additionalProperties"), Mapping):
        schema["additionalProperties"] = _convert(schema["additionalProperties"], definitions)
    if schema.get("additionalProperties") is True:
        del schema["additionalProperties"]
        schema["x-kubernetes-preserve-unknown-fields"] = True
    if isinstance(schema.get("default"), Mapping):
        # Complete, since the API server checks a default against the rules before it fills in those within it.
        schema["default"] = _without_null(schema["default"])
    if "description" in schema and isinstance(schema.get("default"), str | int):
        schema["description"] += f" Default: {_text(schema['default'])}."
    return {key: schema[key] for key in sorted(schema, key=_rank)}


def _resolve(raw: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """Put what is referred to in place of the reference, and "X or null" down to X; what stands beside it wins."""
    beside = {key: value for key, value in raw.items() if key not in ("$ref", "anyOf")}
    if "$ref" in raw:
        base = _resolve(definitions[raw["$ref"].rpartition("/")[2]], definitions)
    elif "anyOf" in raw:
        others = [option for option in raw["anyOf"] if option != {"type": "null"}]
        if len(others) > 1:
            return dict(raw)
        base = _resolve(others[0], definitions)
    else:
        return dict(raw)
    rules = [*base.get(VALIDATIONS, ()), *beside.get(VALIDATIONS, ())]
    return {**base, **beside, **({VALIDATIONS: rules} if rules else {})}


def _without_null(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_null(item) for name, item in value.items() if item is not None}
    return value


def _text(value: str | int) -> str:
    """A scalar as people write it in YAML; `kubectl explain` shows descriptions and no defaults."""
    return value if isinstance(value, str) else json.dumps(value)


def _rank(key: str) -> tuple[int, str]:
    return (_ORDER.index(key), "") if key in _ORDER else (len(_ORDER), key)
