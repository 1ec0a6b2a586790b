"""Scalar types that several models share."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, Strict, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from supportfleet_operator.api.rules import Rule, matches

DAY: Final = 86400
"""In seconds."""

Int32 = Annotated[int, Strict(), Field(json_schema_extra={"format": "int32"})]
Int64 = Annotated[int, Strict(), Field(json_schema_extra={"format": "int64"})]

QUANTITY_PATTERN: Final = (
    r"^(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
"""Kubernetes' own pattern for quantities, but for a sign: nothing here can be negative."""

_SUFFIXES: Final = {
    **{
        letter: Decimal(1000) ** power
        for power, letter in enumerate(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), -3)
    },
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
}


def quantity(value: int | str) -> Decimal:
    """The number that a Kubernetes quantity means, so that 1000m equals 1 and 1Gi equals 1024Mi."""
    text = str(value)
    if not re.fullmatch(QUANTITY_PATTERN, text, re.ASCII):
        raise ValueError(f"{text!r} is not a quantity: write a number with a suffix such as 500m, 2, 512Mi or 1Gi")
    digits = text.rstrip("numkKMGTPEi")
    return Decimal(digits) * _SUFFIXES[text[len(digits) :]]


FRACTIONAL: Final = "[num]$"
"""Suffixes of thousandths and less."""


def is_fractional(value: int | str) -> bool:
    """Whether a quantity is written in thousandths or less."""
    return re.search(FRACTIONAL, str(value)) is not None


def _int_or_string(pattern: str, maximum: int) -> Any:
    return WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": pattern,
            "maxLength": maximum,
        }
    )


def _checked(pattern: str, message: str) -> Callable[[int | str], int | str]:
    """The check that a value is a number, or a text of this pattern."""
    compiled = re.compile(pattern, re.ASCII)

    def check(value: int | str) -> int | str:
        if isinstance(value, str) and not compiled.fullmatch(value):
            raise PydanticCustomError("int_or_string", "{message}", {"message": message})
        return value

    return check


Quantity = Annotated[
    int | str,
    AfterValidator(_checked(QUANTITY_PATTERN, "must be a quantity, such as 500m, 2, 512Mi or 1Gi")),
    _int_or_string(QUANTITY_PATTERN, 32),
]
PERCENT_PATTERN: Final = r"^(100|[1-9]?[0-9])%$"
IntOrPercent = Annotated[
    int | str,
    AfterValidator(_checked(PERCENT_PATTERN, "must be a number of pods, or a percentage such as 25%")),
    _int_or_string(PERCENT_PATTERN, 4),
]

SUBDOMAIN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
LABEL: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

ObjectName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=253),
    matches(
        SUBDOMAIN,
        "must be an object's name: lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
    ),
]
NamespaceName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=63),
    matches(
        LABEL,
        "must be a namespace's name: lower-case letters, digits and '-', with a letter or digit at both ends",
    ),
]
DataKey = Annotated[
    str,
    StringConstraints(min_length=1, max_length=253),
    matches(r"^[-._a-zA-Z0-9]+$", "must be a key of a Secret or ConfigMap: letters, digits, '-', '_' and '.'"),
]
LabelValue = Annotated[
    # A pattern and no rule: selectors nest so deep that rules on their values would be too dear for the API server.
    str,
    StringConstraints(max_length=63, pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"),
]
Port = Annotated[Int32, Field(ge=1, le=65535)]
_PORT: Final = "[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
HTTP_URL: Final = rf"^https?://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:({_PORT}))?(/[-A-Za-z0-9._~%!$&()*+,;=:@/]*)?$"
HttpUrl = Annotated[
    str,
    StringConstraints(min_length=1, max_length=512),
    matches(
        HTTP_URL,
        "must be an http:// or https:// address with no user name, password, query or fragment in it",
    ),
]

LABEL_KEY: Final = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"


def label_keys(what: str) -> Rule:
    """The rule that all keys of a map can be keys of labels or annotations."""
    return Rule(
        cel=f"self.all(key, key.matches(r'{LABEL_KEY}'))",
        message=f"every key must be {what}: at most 63 letters, digits, '-', '_' and '.', after a DNS prefix or none",
        check=lambda labels: all(re.fullmatch(LABEL_KEY, key) for key in labels),
    )
