"""OTEL_EXPORTER_OTLP_HEADERS, as OpenTelemetry's specification has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def otlp_headers(given: str) -> Mapping[str, str]:
    """``NAME=VALUE`` pairs, separated by commas, the values percent-encoded. No error repeats one: they may be keys."""
    headers = {}
    for part in filter(None, (part.strip() for part in given.split(","))):
        name, separator, value = part.partition("=")
        decoded = unquote(value.strip())
        if not separator or not NAME.fullmatch(name.strip()):
            raise ValueError("it is no list of NAME=VALUE")
        if not decoded.isprintable() or not decoded.isascii():
            raise ValueError("a value holds what no header can")
        headers[name.strip()] = decoded
    return headers
