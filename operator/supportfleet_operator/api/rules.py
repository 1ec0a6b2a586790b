"""Validation rules that hold in two places: in the API server as CEL, and in the operator as Python.

The API server refuses a bad SupportAgent at admission, with the field and the reason. Objects that were stored before a
rule existed never passed it, so the operator checks again when it reads one. Each rule is declared once, beside the
model it guards, with both forms; a test sends every bad example to both and compares the answers.
"""

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

Reason = Literal["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"]

VALIDATIONS = "x-kubernetes-validations"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule over a value (in ``Annotated``) or over a model (in its ``rules``)."""

    cel: str
    """What must be true, for the API server."""
    message: str
    """What is allowed instead; the API server puts the field's path before it."""
    check: Callable[[Any], bool] | None
    """The same in Python; None for a rule over a change, which only admission can see."""
    field_path: str = ""
    """The field to blame, relative to the model, as in ``.autoscaling.maxReplicas``."""
    reason: Reason = "FieldValueInvalid"
    message_cel: str | None = None
    """A CEL expression for a message that depends on the value; ``message`` stays as its fallback."""
    describe: Callable[[Any], str] | None = None
    """The same in Python."""

    def manifest(self) -> dict[str, str]:
        """The rule as an entry of ``x-kubernetes-validations``."""
        entry = {"rule": self.cel, "message": self.message, "reason": self.reason}
        if self.message_cel:
            entry["messageExpression"] = self.message_cel
        if self.field_path:
            entry["fieldPath"] = self.field_path
        return entry

    def enforce(self, value: T) -> T:
        """Return the value, or raise what pydantic reports."""
        if self.check is not None and not self.check(value):
            message = self.describe(value) if self.describe else self.message
            context: dict[str, Any] = {"message": message, "field_path": self.field_path}
            raise PydanticCustomError("rule", "{message}", context)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.enforce, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return with_validations(handler(schema), self)


def with_validations(schema: JsonSchemaValue, *rules: Rule) -> JsonSchemaValue:
    """The schema with the rules added to those it has."""
    if not rules:
        return schema
    return {**schema, VALIDATIONS: [*schema.get(VALIDATIONS, ()), *(rule.manifest() for rule in rules)]}


def matches(pattern: str, message: str, *, field_path: str = "") -> Rule:
    """The rule that a text matches a regular expression (anchored by the caller; RE2 and Python must agree on it)."""
    compiled = re.compile(pattern, re.ASCII)
    return Rule(
        cel=f"self.matches(r'{pattern}')",
        message=message,
        check=lambda text: compiled.fullmatch(text) is not None,
        field_path=field_path,
    )


def exactly_one(*fields: str, message: str) -> Rule:
    """The rule that exactly one of a model's optional fields is set."""
    present = ", ".join(f"has(self.{field})" for field in fields)
    return Rule(
        cel=f"[{present}].exists_one(given, given)",
        message=message,
        check=lambda model: sum(_given(model, field) for field in fields) == 1,
    )


def at_most_one(*fields: str, message: str) -> Rule:
    """The rule that no two of a model's optional fields are set."""
    present = ", ".join(f"has(self.{field})" for field in fields)
    return Rule(
        cel=f"[{present}].filter(given, given).size() <= 1",
        message=message,
        check=lambda model: sum(_given(model, field) for field in fields) <= 1,
    )


def only_where(field: str, other: str, *values: str) -> Rule:
    """The rule that a model's optional field is set only where another, of one word, has one of these values."""
    return Rule(
        cel=f"!has(self.{field}) || self.{other} in {list(values)}",
        message=f"only has a meaning where {other} is {' or '.join(values)}",
        check=lambda model: not _given(model, field) or getattr(model, other) in values,
        field_path=f".{field}",
        reason="FieldValueForbidden",
    )


def _given(model: Any, alias: str) -> bool:
    """Whether the field of this alias is set."""
    return any(
        getattr(model, name) is not None for name, field in type(model).model_fields.items() if field.alias == alias
    )


@dataclass(frozen=True, slots=True)
class ListMap:
    """A list whose items are told apart by some of their fields, as ``x-kubernetes-list-type: map``.

    The API server refuses two items with the same key, and server-side apply merges such lists item by item.
    """

    keys: tuple[str, ...]

    def unique(self, items: Sequence[Any]) -> Sequence[Any]:
        """Return the items, or raise for the first whose key was there before."""
        seen: set[Hashable] = set()
        for index, item in enumerate(items):
            dumped = item.model_dump(by_alias=True)
            key = tuple(dumped[name] for name in self.keys)
            if key in seen:
                named = ", ".join(f"{name} {value!r}" for name, value in zip(self.keys, key, strict=True))
                context: dict[str, Any] = {"message": f"duplicate {named}", "field_path": f"[{index}]"}
                raise PydanticCustomError("rule", "{message}", context)
            seen.add(key)
        return items

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.unique, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {
            **handler(schema),
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": list(self.keys),
        }


@dataclass(frozen=True, slots=True)
class ListSet:
    """A list of scalars without repeats, as ``x-kubernetes-list-type: set``."""

    def unique(self, items: Sequence[Any]) -> Sequence[Any]:
        """Return the items, or raise for the first that was there before."""
        for index, item in enumerate(items):
            if item in items[:index]:
                context: dict[str, Any] = {"message": f"duplicate {item!r}", "field_path": f"[{index}]"}
                raise PydanticCustomError("rule", "{message}", context)
        return items

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.unique, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "x-kubernetes-list-type": "set"}
