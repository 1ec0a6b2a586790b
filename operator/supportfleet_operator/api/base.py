"""The base of all API models: frozen, camelCase on the wire, and refusing what it does not know.

Unknown fields never reach the operator from a cluster with the matching CRD, since the API server prunes them; where
they do, the CRD is newer than the operator, and acting on half of what was asked would be worse than saying so.
"""

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from supportfleet_operator.api.rules import Rule, with_validations


class ApiModel(BaseModel):
    """A part of the SupportAgent API."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        validate_by_alias=True,
        validate_by_name=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _enforce_rules(self) -> Self:
        for rule in self.rules:
            rule.enforce(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return with_validations(handler(schema), *cls.rules)

    def manifest(self) -> dict[str, Any]:
        """A new plain dict, as the API server would send it back: camelCase, and without what is unset or empty.

        The API server drops empty lists, maps and texts of its own types; sending them would look like a difference
        between what is wanted and what is there, for ever. An empty model stays: an empty selector chooses everything.
        """
        return {
            field.alias or name: plain(value)
            for name, field in type(self).model_fields.items()
            if not _is_empty(value := getattr(self, name)) or field.is_required()
        }


def plain(value: Any) -> Any:
    """A value as plain, new dicts and lists, without what is unset or empty in its models."""
    if isinstance(value, ApiModel):
        return value.manifest()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def without_empty_lists(value: Any) -> Any:
    """The same for an object with no model: a new one, without unset fields and empty lists at any depth."""
    if isinstance(value, dict):
        return {key: without_empty_lists(item) for key, item in value.items() if item is not None and item != []}
    if isinstance(value, list):
        return [without_empty_lists(item) for item in value]
    return value


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (dict, list, str, tuple)) and not value)
