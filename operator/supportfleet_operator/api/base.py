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
        """The plain dict as it stands in a manifest: camelCase, what is unset or empty by default left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
