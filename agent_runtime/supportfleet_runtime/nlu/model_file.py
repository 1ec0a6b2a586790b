"""The files of an intent model beside its graph: ``model.json`` and ``labels.json`` (``selftest.json``: see there)."""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from supportfleet_runtime.nlu import features
from supportfleet_runtime.nlu.errors import ModelLoadError

GRAPH, SETTINGS, LABELS, SELF_TEST = "model.onnx", "model.json", "labels.json", "selftest.json"


class Part(BaseModel):
    """Part of a file of the model: strict, since it was written by a program."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, extra="forbid", frozen=True, strict=True)


class Featurizer(Part):
    """Which featuriser the graph's inputs come from; one of another version must not be used with it."""

    name: Literal["hashed-ngrams"] = "hashed-ngrams"
    version: int = Field(default=features.VERSION, ge=features.VERSION, le=features.VERSION)
    bits: int = Field(ge=features.MIN_BITS, le=features.MAX_BITS)
    max_characters: int = Field(gt=0)

    def settings(self) -> features.FeatureSettings:
        """As the featuriser takes them."""
        return features.FeatureSettings(bits=self.bits, max_characters=self.max_characters)


class ModelSettings(Part):
    """``model.json``."""

    schema_version: int = Field(default=1, ge=1, le=1)
    task: Literal["intent"] = "intent"
    featurizer: Featurizer
    out_of_scope: str = Field(min_length=1)
    """The intent given where none of the labels fits; it may itself be a label that was trained."""
    threshold: float = Field(ge=0, le=1)
    """The confidence below which a message counts as out of scope."""
    metrics: dict[str, Any]
    """How it was judged when it was trained: for people."""
    training: dict[str, Any]
    """What it was trained from: for people."""

    def render(self) -> bytes:
        """The same bytes for the same settings."""
        return to_json(self.model_dump(by_alias=True))


def to_json(value: Any) -> bytes:
    """JSON that is stable and that people can read."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def parse_settings(data: bytes) -> ModelSettings:
    """Read ``model.json``.

    Raises:
        ModelLoadError: It is no such file, or of a version that this runtime can't run.
    """
    try:
        return ModelSettings.model_validate_json(data)
    except ValidationError as error:
        raise invalid(SETTINGS, error) from error


def parse_labels(data: bytes) -> tuple[str, ...]:
    """Read ``labels.json``.

    Raises:
        ModelLoadError: It is not a list of different labels.
    """
    try:
        labels = TypeAdapter(tuple[str, ...]).validate_json(data)
    except ValidationError as error:
        raise invalid(LABELS, error) from error
    if len(set(labels)) != len(labels) or not all(labels):
        raise ModelLoadError(f"{LABELS}: a label is empty or there twice")
    return labels


def invalid(name: str, error: ValidationError) -> ModelLoadError:
    """What is wrong first with one of these files."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return ModelLoadError(f"{name}: {place + ': ' if place else ''}{first['msg']}")
