"""Find the API server and authenticate to it.

``kubernetes.aio`` reads kubeconfigs and service accounts and refreshes tokens; requests then go over one aiohttp
session of our own, because its generated client costs three times the CPU of a plain call.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import aiohttp

from supportfleet_operator.errors import SettingsError

READ_BUFFER: Final = 2**18


@dataclass(frozen=True, slots=True)
class Connection:
    """A session with the API server."""

    server: str
    session: aiohttp.ClientSession
    configuration: Any
    """The ``kubernetes.aio`` configuration, which owns the token and its refresh."""

    @property
    def server_hostname(self) -> str | None:
        """The name in the server's certificate, where it is not the one in the address."""
        name: str | None = self.configuration.tls_server_name
        return name

    async def headers(self) -> dict[str, str]:
        """The headers that say who asks; the token is read again when it is due."""
        token = await self.configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        return {"Authorization": token} if token else {}


async def load_configuration(kubeconfig: Path | None) -> tuple[Any, Any]:
    """The configuration, and the loader that refreshes its token (None in a cluster, where a hook does)."""
    config = _library()
    configuration = import_module("kubernetes.aio.client").Configuration()
    try:
        if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=configuration)
            return configuration, None
        path = kubeconfig or Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
        if not path.exists():
            raise SettingsError(f"no kubeconfig at {path}: set --kubeconfig or KUBECONFIG, or run in a cluster")
        loader = await config.load_kube_config(
            config_file=str(path), client_configuration=configuration, persist_config=False
        )
    except config.ConfigException as error:
        raise SettingsError(f"the cluster's configuration cannot be used: {error}") from error
    return configuration, loader


def tls_context(configuration: Any) -> ssl.SSLContext:
    """The TLS settings of a configuration."""
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert, cadata=configuration.ca_cert_data)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@asynccontextmanager
async def connect(kubeconfig: Path | None = None) -> AsyncIterator[Connection]:
    """Open the session with the API server, and close it and its token refresh at the end."""
    configuration, loader = await load_configuration(kubeconfig)
    # Every watch keeps a connection, and there are as many as kinds and namespaces; workers bound the other requests.
    connector = aiohttp.TCPConnector(limit=0, ssl=tls_context(configuration))
    # The library's refresh expects a user section, which a kubeconfig for an open API server lacks.
    refreshed = loader is not None and loader._user is not None  # noqa: SLF001 - it has no public name
    refresh = asyncio.create_task(_refresh(loader, configuration)) if refreshed else None
    async with aiohttp.ClientSession(
        connector=connector,
        trust_env=True,
        proxy=configuration.proxy,
        read_bufsize=READ_BUFFER,
    ) as session:
        try:
            yield Connection(configuration.host.rstrip("/"), session, configuration)
        finally:
            if refresh is not None:
                refresh.cancel()
                with suppress(asyncio.CancelledError):
                    await refresh


async def _refresh(loader: Any, configuration: Any) -> None:
    """Keep a token fresh that a plugin of the kubeconfig gives."""
    await _library().refresh_token(loader, configuration)


def _library() -> Any:
    """``kubernetes.aio.config``: untyped, and imported late, because it brings in the whole client package."""
    return import_module("kubernetes.aio.config")
