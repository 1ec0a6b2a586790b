"""API keys: ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``. Who has one may speak for any customer."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from supportfleet_runtime.access import ApiKey, hash_key


def find_key(given: str, keys: Sequence[ApiKey]) -> ApiKey | None:
    """The configured key that was given."""
    digest = hash_key(given)
    # Every key is compared, and in constant time: how long it takes tells nothing.
    matches = [key for key in keys if hmac.compare_digest(digest, key.digest)]
    return matches[0] if matches else None
