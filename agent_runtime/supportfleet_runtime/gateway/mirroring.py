"""Telling mirrored requests from real ones.

Envoy (so Istio's VirtualService and its Gateway API) sends the copy of a request with ``-shadow`` after its host's
name, before the port if there is one. A caller who writes such a host itself gets an answer that is stored nowhere: no
more.
"""

from __future__ import annotations

import re
from typing import Final

_SHADOW: Final = re.compile(r"-shadow(:\d*)?\Z", re.IGNORECASE)


def is_mirrored(host: str) -> bool:
    """Whether a request for this host (``Host`` or ``:authority``) is a copy."""
    return _SHADOW.search(host) is not None
