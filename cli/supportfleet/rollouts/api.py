"""The API server, as ``kubectl proxy`` serves it: with the user's own credentials and on a socket of the user's own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import aiohttp
import yaml

from supportfleet.errors import SupportfleetError
from supportfleet.kubectl import Kubectl

FIELD_MANAGER: Final = "supportfleet-cli"
"""Under this name the command line writes, so that everybody sees who did."""
GROUP: Final = "supportfleet.dev"
AGENTS: Final = f"/apis/{GROUP}/v1alpha1"
APPS: Final = "/apis/apps/v1"
MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"

ANSWER_SECONDS: Final = 30.0
WATCH_SECONDS: Final = 300
"""A watch is asked to end after this long, and begun anew."""
QUIET_SECONDS: Final = WATCH_SECONDS + 30
MOST_BYTES: Final = 16 * 2**20
"""The longest line of a watch, which is one object."""

Object = dict[str, Any]

BAD_REQUEST: Final = 400
NOT_FOUND: Final = 404
CONFLICT: Final = 409
INVALID: Final = 422


class ApiError(SupportfleetError):
    """The API server refused a request, or did not answer."""

    def __init__(
        self, message: str, *, code: int = 0, causes: tuple[Mapping[str, Any], ...] = (), remedy: str = ""
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.code = code
        self.causes = causes


class Api:
    """Requests to one cluster, each with a time limit and none repeated."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, path: str, **parameters: str) -> Object:
        """One object, or a list of them.

        Raises:
            ApiError: It was refused.
        """
        return await self._request("GET", path, parameters)

    async def patch(self, path: str, body: Object, content: str = MERGE, **parameters: str) -> Object:
        """The object after a change.

        Raises:
            ApiError: It was refused.
        """
        return await self._request("PATCH", path, parameters, json.dumps(body), content)

    async def watch(self, path: str, version: str, **parameters: str) -> AsyncIterator[Object]:
        """What changes from a version of a list on, until the API server ends the watch.

        Raises:
            ApiError: It was refused, or it broke.
        """
        begin = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
        query = {**parameters, **begin, "timeoutSeconds": str(WATCH_SECONDS)}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_SECONDS, sock_read=QUIET_SECONDS)
        with _readable():
            async with self._session.get(path, params=query, timeout=timeout) as answer:
                if answer.status >= 400:  # noqa: PLR2004 - HTTP's own boundary of errors
                    raise _refusal(answer.status, await answer.text())
                async for line in answer.content:
                    event: Object = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _refusal(int(event["object"].get("code", 0)), json.dumps(event["object"]))
                    yield event

    async def _request(
        self, method: str, path: str, parameters: Mapping[str, str], body: str | None = None, content: str | None = None
    ) -> Object:
        headers = {"Content-Type": content} if content else {}
        with _readable():
            async with self._session.request(method, path, params=parameters, data=body, headers=headers) as answer:
                text = await answer.text()
                if answer.status >= 400:  # noqa: PLR2004 - HTTP's own boundary of errors
                    raise _refusal(answer.status, text)
                found: Object = json.loads(text)
                return found


@contextlib.contextmanager
def _readable() -> Any:
    """Turn what can go wrong on the way into one error."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ApiError(f"the API server did not answer: {error or type(error).__name__}") from error
    except ValueError as error:
        raise ApiError(f"the API server's answer can't be read: {error}") from error


def _refusal(code: int, text: str) -> ApiError:
    try:
        status = json.loads(text)
    except ValueError:
        status = {}
    details = status.get("details") or {} if isinstance(status, dict) else {}
    message = status.get("message") if isinstance(status, dict) else None
    said = message or text.strip()[:500] or f"HTTP status {code}"
    return ApiError(f"the API server refused: {said}", code=code, causes=tuple(details.get("causes") or ()))


@contextlib.asynccontextmanager
async def connect(kubectl: Kubectl) -> AsyncIterator[Api]:
    """The cluster that kubectl reaches, for as long as the block lasts.

    Raises:
        KubectlError: kubectl is missing, or can't serve.
    """
    with kubectl.socket() as path:
        connector = aiohttp.UnixConnector(path=str(path))
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(
            "http://localhost", connector=connector, timeout=timeout, read_bufsize=MOST_BYTES
        ) as session:
            yield Api(session)


class _Loader(yaml.SafeLoader):
    """Reads what looks like a date as text, as kubectl does: JSON has none."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(text: str, where: str) -> list[Object]:
    """The objects in a YAML file.

    Raises:
        SupportfleetError: It can't be read.
    """
    try:
        found = [one for one in yaml.load_all(text, _Loader) if one is not None]
    except yaml.YAMLError as error:
        raise SupportfleetError(f"{where} is not YAML: {error}") from error
    if not all(isinstance(one, dict) for one in found):
        raise SupportfleetError(f"{where} holds something else than Kubernetes objects")
    return [item for one in found for item in (one["items"] if one.get("kind") == "List" else [one])]
