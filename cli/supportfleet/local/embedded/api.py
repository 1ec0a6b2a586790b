"""The few requests that bringing a cluster up makes to its API server."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from supportfleet.errors import KubernetesError
from supportfleet.local.embedded.certificates import Pair

FIELD_MANAGER = "supportfleet-local"
REQUEST_SECONDS = 15
LEAK_SECONDS = 75
"""The API server frees an address that an interrupted request left behind once it is 60 s old."""
AGAIN_SECONDS = 0.25
MISSING = 404
ALLOCATED = "provided IP is already allocated"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"

Manifest = Mapping[str, Any]

# The kinds that are applied: where they are served, and whether they are in namespaces.
RESOURCES: Mapping[str, tuple[str, bool]] = {
    "Namespace": ("namespaces", False),
    "Service": ("services", True),
    "Secret": ("secrets", True),
    "ConfigMap": ("configmaps", True),
    "ServiceAccount": ("serviceaccounts", True),
    "EndpointSlice": ("endpointslices", True),
    "Deployment": ("deployments", True),
    "ClusterRole": ("clusterroles", False),
    "ClusterRoleBinding": ("clusterrolebindings", False),
    "Role": ("roles", True),
    "RoleBinding": ("rolebindings", True),
    "StorageClass": ("storageclasses", False),
    "APIService": ("apiservices", False),
    "MutatingAdmissionPolicy": ("mutatingadmissionpolicies", False),
    "MutatingAdmissionPolicyBinding": ("mutatingadmissionpolicybindings", False),
    "CustomResourceDefinition": ("customresourcedefinitions", False),
    "Gateway": ("gateways", True),
    "GatewayClass": ("gatewayclasses", False),
}


def path_of(manifest: Manifest) -> str:
    """Where the API server has this object."""
    version = manifest["apiVersion"]
    plural, namespaced = RESOURCES[manifest["kind"]]
    name, namespace = manifest["metadata"]["name"], manifest["metadata"].get("namespace")
    group = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{group}/namespaces/{namespace}/{plural}/{name}" if namespaced else f"{group}/{plural}/{name}"


class Api:
    """A connection to the API server as cluster-admin."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self.session = session
        self.server = server

    async def ready(self) -> bool:
        """Whether it serves, with everything it waits for at the start."""
        try:
            async with self.session.get(f"{self.server}/readyz") as response:
                return response.status == 200  # noqa: PLR2004 - the status that means yes
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def get(self, path: str) -> dict[str, Any] | None:
        """An object or a list; None where there is none."""
        return await self._send("GET", path)

    async def apply(self, manifest: Manifest) -> None:
        """Have an object as given.

        The API server allocates a Service's address before it stores the Service: a request that was interrupted in
        between holds the address against the next one, until it is rolled back or found out.
        """
        deadline = time.monotonic() + LEAK_SECONDS
        while True:
            try:
                await self._send(
                    "PATCH", f"{path_of(manifest)}?fieldManager={FIELD_MANAGER}&force=true", manifest, APPLY
                )
            except KubernetesError as error:
                if ALLOCATED not in error.message or time.monotonic() > deadline or await self._is_anothers(manifest):
                    raise
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                return

    async def _is_anothers(self, service: Manifest) -> bool:
        """Whether the address of a Service is another's."""
        found = await self.get(f"/apis/networking.k8s.io/v1/ipaddresses/{service['spec']['clusterIP']}")
        parent = found["spec"]["parentRef"] if found else {}
        ours = (service["metadata"]["namespace"], service["metadata"]["name"])
        return bool(parent) and (parent.get("namespace"), parent.get("name")) != ours

    async def merge(self, path: str, change: Manifest) -> None:
        """Change some fields of an object."""
        await self._send("PATCH", f"{path}?fieldManager={FIELD_MANAGER}", change, MERGE)

    async def delete(self, path: str) -> None:
        """Delete an object, if it is there."""
        await self._send("DELETE", path)

    async def _send(
        self, method: str, path: str, body: Manifest | None = None, kind: str = "application/json"
    ) -> dict[str, Any] | None:
        headers = {"Content-Type": kind}
        try:
            data = json.dumps(body) if body is not None else None
            async with self.session.request(method, f"{self.server}{path}", data=data, headers=headers) as response:
                text = await response.text()
                if response.status == MISSING and body is None:
                    return None
                if not response.ok:
                    raise KubernetesError(f"{method} {path}: {response.status} {_message(text)}")
                answer: dict[str, Any] = json.loads(text)
                return answer
        except (aiohttp.ClientError, TimeoutError) as error:
            raise KubernetesError(
                f"{method} {path}: the API server does not answer ({error or type(error).__name__})",
                remedy="See supportfleet local status, and supportfleet local logs kube-apiserver.",
            ) from error


@asynccontextmanager
async def connect(
    server: str, authority: Path, identity: Pair, *, seconds: float = REQUEST_SECONDS
) -> AsyncIterator[Api]:
    """Speak to an API server."""
    context = ssl.create_default_context(cafile=str(authority))
    context.load_cert_chain(identity.certificate, identity.key)
    timeout = aiohttp.ClientTimeout(total=seconds)
    connector = aiohttp.TCPConnector(ssl=context)
    # A proxy of the environment leads out of this machine, and the cluster is inside it.
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, trust_env=False) as session:
        yield Api(session, server)


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:200]
