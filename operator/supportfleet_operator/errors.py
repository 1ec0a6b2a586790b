"""What can go wrong in the operator, as one tree.

::

    OperatorError
    ├── SettingsError          a flag, variable or kubeconfig that cannot be used: exit code 2
    ├── LeadershipLost         another replica may lead now, so this one must stop: exit code 1
    └── ClusterError           talking to the API server failed
        ├── Unreachable        no answer came: refused, reset, timed out
        └── ApiError           it answered with a failure
            ├── NotFound       404
            ├── Conflict       409: a field, a name or a version is somebody else's
            ├── Gone           410: the resourceVersion is too old to continue from
            ├── Invalid        400, 422: the object is wrong
            ├── Unauthorized   401: the token is no longer good; it is being renewed
            ├── Forbidden      403: RBAC, quota, Pod Security or another admission rule refused it
            └── Busy           429 and 5xx: the server asks for patience

Nothing below the reconciler turns an error into a retry: ``Unreachable``, ``Busy`` and ``Unauthorized`` go up to the
loop that owns the retry (the work queue, a watch, the lease); what the API server has against an object becomes a
condition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class OperatorError(Exception):
    """Anything this operator raises on purpose."""


class SettingsError(OperatorError):
    """The process cannot start with what it was given."""


class LeadershipLost(OperatorError):  # noqa: N818 - it is an outcome, and the name says which
    """The lease was not renewed in time."""


class ClusterError(OperatorError):
    """Talking to the API server failed."""


class Unreachable(ClusterError):  # noqa: N818 - names the state of the server, as Kubernetes does
    """No answer came."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One of the details the API server gives with a failure."""

    reason: str
    field: str
    message: str


class ApiError(ClusterError):
    """The API server answered with a failure; the text is its own message."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        causes: Sequence[Cause] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason
        self.causes = tuple(causes)
        self.retry_after = retry_after


class NotFound(ApiError):  # noqa: N818 - the API server's own word
    """404."""


class Conflict(ApiError):  # noqa: N818 - the API server's own word
    """409."""


class Gone(ApiError):  # noqa: N818 - the API server's own word
    """410."""


class Invalid(ApiError):  # noqa: N818 - the API server's own word
    """400 or 422."""


class Unauthorized(ApiError):  # noqa: N818 - the API server's own word
    """401."""


class Forbidden(ApiError):  # noqa: N818 - the API server's own word
    """403."""


class Busy(ApiError):  # noqa: N818 - names the state of the server
    """429 or any 5xx."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: Busy,
}
_SERVER_ERRORS = 500


def api_error(status: int, body: Mapping[str, Any], retry_after: float | None = None) -> ApiError:
    """The error that a ``Status`` object of the API server stands for."""
    kind = _BY_STATUS.get(status, Busy if status >= _SERVER_ERRORS else ApiError)
    details = body.get("details") or {}
    if retry_after is None and details.get("retryAfterSeconds"):
        retry_after = float(details["retryAfterSeconds"])
    causes = [
        Cause(str(one.get("reason", "")), str(one.get("field", "")), str(one.get("message", "")))
        for one in details.get("causes") or ()
    ]
    return kind(
        str(body.get("message") or f"the API server answered {status}"),
        status=status,
        reason=str(body.get("reason", "")),
        causes=causes,
        retry_after=retry_after,
    )
