"""``/openapi.json``: OpenAPI 3.1, made from the table of endpoints and the models of bodies and answers."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from supportfleet_runtime.gateway.answers import Problem
from supportfleet_runtime.gateway.endpoints import EVENTS, JSON, Access, Answer, Endpoint, Parameter
from supportfleet_runtime.gateway.problems import MEDIA_TYPE
from supportfleet_runtime.gateway.request_ids import HEADER as REQUEST_ID
from supportfleet_runtime.version import program_version

PATH: Final = "/openapi.json"
REFERENCE: Final = "#/components/schemas/{model}"
OF_BODIES: Final = {
    400: "The body is no JSON.",
    408: "The body was not sent in time.",
    413: "The body is too large.",
    415: "The body is not JSON in UTF-8, or compressed.",
    422: "The body, or a header, is not as documented; `errors` says where.",
}
UNAUTHORIZED: Final = "No key or token, or none that is good."
HEADERS: Final = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}
RATE_LIMITED: Final = "The customer asked too often; the next request is worth a try after `Retry-After` seconds."
UNAVAILABLE: Final = "Something that it needs is out of reach; try again after `Retry-After` seconds."


@dataclass(frozen=True)
class Rules:
    """What is configured for the gateway as a whole."""

    keys: bool = False
    tokens: bool = False
    limited: bool = False


def openapi_endpoint(others: Sequence[Endpoint], rules: Rules) -> Endpoint:
    """The endpoint that describes the others and itself."""

    @functools.cache
    def body() -> bytes:
        return orjson.dumps(describe([*others, endpoint], rules))

    async def get(_request: web.Request) -> web.Response:
        return web.Response(body=body(), content_type=JSON)

    answers = {200: Answer("OpenAPI 3.1.")}
    endpoint = Endpoint("GET", PATH, get, "describeApi", "This description.", answers, access=Access.OPEN)
    return endpoint


def describe(endpoints: Sequence[Endpoint], rules: Rules) -> dict[str, Any]:
    """The description."""
    models = {model for endpoint in endpoints for model in _models(endpoint)} | {Problem}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema([(model, "validation") for model in ordered], ref_template=REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, rules)
    return {
        "openapi": "3.1.0",
        "info": {"title": "supportfleet agent", "version": program_version()},
        "paths": paths,
        "components": {"schemas": schemas["$defs"], "securitySchemes": _schemes(rules)},
    }


def _models(endpoint: Endpoint) -> set[type[BaseModel]]:
    models = {answer.model for answer in endpoint.answers.values() if answer.model}
    return models | {endpoint.body} if endpoint.body else models


def _operation(endpoint: Endpoint, rules: Rules) -> dict[str, Any]:
    answers = {status: _answer(answer) for status, answer in endpoint.answers.items()}
    for status, text in _problems(endpoint, rules).items():
        problem = _problem(status, text)
        own = answers.get(status, problem)
        answers[status] = own | {"content": own["content"] | problem["content"]}
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "security": _security(rules) if endpoint.access is Access.CUSTOMER else [],
        "responses": {str(status): answers[status] for status in sorted(answers)},
    }
    if endpoint.parameters:
        operation["parameters"] = [_parameter(parameter) for parameter in endpoint.parameters]
    if endpoint.body:
        operation["requestBody"] = {"required": True, "content": _content(JSON, endpoint.body)}
    return operation


def _problems(endpoint: Endpoint, rules: Rules) -> dict[int, str]:
    problems = OF_BODIES if endpoint.body else {}
    if endpoint.access is Access.CUSTOMER:
        problems = problems | ({401: UNAUTHORIZED} if rules.keys or rules.tokens else {}) | {503: UNAVAILABLE}
        problems = problems | ({429: RATE_LIMITED} if rules.limited else {})
    return problems | dict(endpoint.problems)


def _answer(answer: Answer) -> dict[str, Any]:
    headers = {REQUEST_ID: "The request's id, as the logs know it."} | dict(answer.headers)
    return {
        "description": answer.description,
        "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()},
        "content": _content(answer.media_type, answer.model) | (_content(EVENTS, None) if answer.streams else {}),
    }


def _problem(status: int, text: str) -> dict[str, Any]:
    own = {HEADERS[status]: "As in RFC 9110."} if status in HEADERS else {}
    return _answer(Answer(text, Problem, MEDIA_TYPE, own))


def _content(media_type: str, model: type[BaseModel] | None) -> dict[str, Any]:
    if model is not None:
        return {media_type: {"schema": {"$ref": REFERENCE.format(model=model.__name__)}}}
    return {media_type: {"schema": {"type": "object" if media_type == JSON else "string"}}}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.where == "path",
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }


def _schemes(rules: Rules) -> dict[str, Any]:
    schemes: dict[str, Any] = {}
    if rules.keys or rules.tokens:
        schemes["bearer"] = {"type": "http", "scheme": "bearer"}
    if rules.keys:
        schemes["apiKey"] = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    return schemes


def _security(rules: Rules) -> list[Mapping[str, list[str]]]:
    return [{name: []} for name in _schemes(rules)]
