"""What the cluster holds of ours, as watches tell it, indexed by the agent it belongs to.

An object is kept only as far as something decides by it: ``managedFields`` shrink to hand edits, pods to their state,
Jobs to their outcome. What the operator writes itself goes into the cache with the answer, so that the next look at an
agent does not act on the state before its own writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from supportfleet_operator.api import GROUP, KIND
from supportfleet_operator.cluster import ownership
from supportfleet_operator.cluster.client import FIELD_MANAGER
from supportfleet_operator.cluster.resources import JOBS, PODS, AgentKey, Manifest, ObjectRef, Resource

_METADATA: Final = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "labels",
    "annotations",
    "ownerReferences",
    "creationTimestamp",
    "deletionTimestamp",
)
_POD_STATUS: Final = ("phase", "reason", "message", "conditions", "startTime", "podIP")
_CONTAINER_STATUS: Final = ("name", "ready", "restartCount", "state", "lastState", "started")


def owner_key(manifest: Mapping[str, Any], label: str) -> AgentKey | None:
    """The agent an object belongs to: its controller's name, or the label where the controller is something between."""
    metadata = manifest["metadata"]
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller") and owner["kind"] == KIND and owner["apiVersion"].startswith(f"{GROUP}/"):
            return AgentKey(metadata["namespace"], owner["name"])
    name = (metadata.get("labels") or {}).get(label)
    return AgentKey(metadata["namespace"], name) if name else None


def trim(manifest: Manifest) -> Manifest:
    """The object as it is cached."""
    metadata = {key: manifest["metadata"][key] for key in _METADATA if key in manifest["metadata"]}
    trimmed: Manifest = {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": metadata}
    if manifest["kind"] == PODS.kind:
        trimmed["spec"] = {"nodeName": manifest.get("spec", {}).get("nodeName")}
        trimmed["status"] = _pod_status(manifest.get("status") or {})
        return trimmed
    edits = ownership.trim(manifest["metadata"].get("managedFields") or (), FIELD_MANAGER)
    if edits:
        metadata["managedFields"] = edits
    dropped = {"metadata", "spec"} if manifest["kind"] == JOBS.kind else {"metadata"}
    return trimmed | {key: value for key, value in manifest.items() if key not in dropped}


def _pod_status(status: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: status[key] for key in _POD_STATUS if key in status}
    for kind in ("initContainerStatuses", "containerStatuses"):
        kept[kind] = [
            {key: container[key] for key in _CONTAINER_STATUS if key in container} for container in status.get(kind, ())
        ]
    return kept


class Cache:
    """Objects by reference and by agent."""

    def __init__(self, agent_label: str, notify: Callable[[AgentKey], None]) -> None:
        self._label = agent_label
        self._notify = notify
        self._objects: dict[ObjectRef, Manifest] = {}
        self._owners: dict[ObjectRef, AgentKey] = {}
        self._by_agent: dict[AgentKey, set[ObjectRef]] = {}
        self._seen: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, ref: ObjectRef) -> Manifest | None:
        """The object, or None."""
        return self._objects.get(ref)

    def of_agent(self, key: AgentKey) -> list[Manifest]:
        """Everything that belongs to an agent, in a steady order."""
        return [self._objects[ref] for ref in sorted(self._by_agent.get(key, ()))]

    def replace(self, resource: Resource, namespace: str | None, manifests: Iterable[Manifest]) -> None:
        """Take a complete list: what it does not hold is gone."""
        present = set()
        for manifest in manifests:
            present.add(_ref(resource, manifest))
            self.put(manifest)
        gone = [
            ref
            for ref in self._objects
            if ref.kind == resource.kind and namespace in (None, ref.namespace) and ref not in present
        ]
        for ref in gone:
            self._remove(ref)

    def put(self, manifest: Manifest) -> None:
        """Take a newer state of an object; an older one, or the same again, changes nothing."""
        metadata = manifest["metadata"]
        ref = ObjectRef(manifest["kind"], metadata.get("namespace", ""), metadata["name"])
        known = self._objects.get(ref)
        if known is not None and not _newer(metadata, known["metadata"]):
            return
        owner = owner_key(manifest, self._label)
        self._index(ref, owner)
        if owner is None:
            self._objects.pop(ref, None)
            return
        self._objects[ref] = trim(manifest)
        self._notify(owner)

    def put_own(self, manifest: Manifest) -> None:
        """Take the answer to a write of ours, unless the watch has told of later things already.

        The object may be gone by then, and nothing would ever say so again.
        """
        if int(manifest["metadata"]["resourceVersion"]) > self._seen.get(manifest["kind"], 0):
            self.put(manifest)

    def seen(self, resource: Resource, version: str) -> None:
        """The watch of a kind has told of everything up to this version."""
        if version:
            self._seen[resource.kind] = max(int(version), self._seen.get(resource.kind, 0))

    def delete(self, manifest: Manifest) -> None:
        """An object is gone, or is no longer selected by the watch."""
        ref = ObjectRef(manifest["kind"], manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"])
        known = self._objects.get(ref)
        if known is not None and known["metadata"]["uid"] == manifest["metadata"]["uid"]:
            self._remove(ref)

    def _remove(self, ref: ObjectRef) -> None:
        self._index(ref, None)
        self._objects.pop(ref, None)

    def _index(self, ref: ObjectRef, owner: AgentKey | None) -> None:
        """Move an object to its owner, and tell the one who loses it."""
        before = self._owners.get(ref)
        if before == owner:
            return
        if before is not None:
            del self._owners[ref]
            refs = self._by_agent[before]
            refs.discard(ref)
            if not refs:
                del self._by_agent[before]
            self._notify(before)
        if owner is not None:
            self._owners[ref] = owner
            self._by_agent.setdefault(owner, set()).add(ref)


def _ref(resource: Resource, manifest: Manifest) -> ObjectRef:
    return ObjectRef(resource.kind, manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"])


def _newer(metadata: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """Resource versions of one kind are ordered numbers."""
    return metadata["uid"] != known["uid"] or int(metadata["resourceVersion"]) > int(known["resourceVersion"])


def is_owned_by(manifest: Mapping[str, Any], uid: str) -> bool:
    """Whether the agent with this uid is the object's controller."""
    owners = manifest["metadata"].get("ownerReferences") or ()
    return any(owner.get("controller") and owner.get("uid") == uid for owner in owners)
