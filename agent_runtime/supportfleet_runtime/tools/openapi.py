"""The tool service's own description: OpenAPI 3.1, made of the models that check requests."""

from __future__ import annotations

from typing import Any, Final

from supportfleet_runtime.gateway.answers import Problem
from supportfleet_runtime.gateway.problems import MEDIA_TYPE
from supportfleet_runtime.tools.catalogue import TOOLS, Tool
from supportfleet_runtime.tools.outcome import Outcome
from supportfleet_runtime.tools.wire import EFFECTS_PATH, IDEMPOTENCY_KEY, KEY_PATTERN, TOOLS_PATH, CallBody

PROBLEMS: Final = {
    "400": "The body is no JSON, or the key is missing or malformed.",
    "401": "No key of the service.",
    "408": "The body was not sent in time.",
    "409": "The key was used for another call.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "422": "The body or the arguments are not as described.",
    "503": "The database is away.",
}
OF_CALLS: Final = tuple(PROBLEMS)
OF_LOOKUPS: Final = ("401", "503")


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    paths: dict[str, Any] = {f"{TOOLS_PATH}/{tool.name}": {"post": _call(tool)} for tool in TOOLS.values()}
    paths[f"{EFFECTS_PATH}/{{key}}"] = {"get": _lookup()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "supportfleet tool service", "version": "1"},
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Outcome": _resolved(Outcome.model_json_schema()),
                "Problem": _resolved(Problem.model_json_schema()),
            },
        },
    }


def _call(tool: Tool) -> dict[str, Any]:
    body = _resolved(CallBody.model_json_schema())
    arguments = _resolved(dict(tool.schema))
    body["properties"]["arguments"] = arguments
    if arguments.get("required"):
        body["required"] = [*body["required"], "arguments"]
    operation: dict[str, Any] = {
        "operationId": tool.name,
        "summary": tool.description,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": _outcome("What came of it."), **_problems(*OF_CALLS)},
    }
    if tool.changes:
        operation["parameters"] = [
            {
                "name": IDEMPOTENCY_KEY,
                "in": "header",
                "required": True,
                "description": "The same key is carried out once; its outcome is repeated.",
                "schema": {"type": "string", "pattern": KEY_PATTERN},
            }
        ]
    return operation


def _lookup() -> dict[str, Any]:
    schema = {"type": "string", "pattern": KEY_PATTERN}
    return {
        "operationId": "effect",
        "summary": "What came of the call with this key.",
        "parameters": [{"name": "key", "in": "path", "required": True, "schema": schema}],
        "responses": {
            "200": _outcome("It was carried out, or refused."),
            "404": _problem("No call with this key was carried out."),
            **_problems(*OF_LOOKUPS),
        },
    }


def _outcome(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Outcome"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _problems(*statuses: str) -> dict[str, Any]:
    return {status: _problem(PROBLEMS[status]) for status in statuses}


def _problem(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of pydantic's with its definitions in their places."""
    definitions = schema.pop("$defs", {})

    def place(part: Any) -> Any:
        if isinstance(part, dict):
            name = str(part.get("$ref", "")).removeprefix("#/$defs/")
            return place(definitions[name]) if name in definitions else {k: place(v) for k, v in part.items()}
        return [place(one) for one in part] if isinstance(part, list) else part

    placed: dict[str, Any] = place(schema)
    return placed
