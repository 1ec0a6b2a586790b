"""Known secrets, taken out of whatever is about to be told: the last line of defence, not the first.

What is logged is chosen so that no secret is in it. Where that fails, because a library quotes an address or a service
sends back the key that it was sent, the value is known here and masked. Very short values are left alone: masking them
would make the log unreadable, and says where they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final
from urllib.parse import quote, unquote, urlsplit

MASK: Final = "***"
SHORTEST: Final = 6
NAMES: Final = re.compile(r"(KEY|KEYS|SECRET|TOKEN|PASSWORD|HEADERS|CREDENTIALS)\Z", re.IGNORECASE)
"""Variables of the environment that hold secrets, whoever reads them."""
SHAPES: Final = (r"eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*", r"sk-ant-[\w-]{8,}")
"""What looks like a JSON Web Token, or a key of the model's service, is one."""


def known_secrets(environ: Mapping[str, str], values: Iterable[str] = ()) -> set[str]:
    """The secrets among the variables and the given values, and what is secret in those that are addresses or lists."""
    given = [*values, *(value for name, value in environ.items() if NAMES.search(name))]
    found: set[str] = set()
    for value in given:
        found |= {value, *re.split(r"[\s,]+", value)}
        found |= {part.partition("=")[2] for part in value.split(",")}
        found |= set(_password(value))
    found |= {password for value in environ.values() if "://" in value for password in _password(value)}
    return {secret.strip() for secret in found if len(secret.strip()) >= SHORTEST}


def masking(secrets: Iterable[str]) -> Callable[[str], str]:
    """A function that masks these in a text, however JSON or an address writes them."""
    forms = {form for one in secrets for form in (one, json.dumps(one)[1:-1], quote(one, safe=""))}
    longest_first = sorted(forms, key=lambda form: (-len(form), form))
    pattern = re.compile("|".join((*map(re.escape, longest_first), *SHAPES)))
    return lambda text: pattern.sub(MASK, text)


def _password(address: str) -> list[str]:
    """The password in an address, as it is written and as it is meant."""
    if "://" not in address:
        return []
    try:
        password = urlsplit(address.strip()).password
    except ValueError:
        return []
    return [password, unquote(password)] if password else []
