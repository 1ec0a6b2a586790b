"""Nodes advertise more CPU than the machine has, so that a small machine holds what a test or a demo deploys.

Requests of CPU are shares, and the containers of a demo are mostly idle: to overcommit is harmless, where a Pending pod
is not. A mutating admission policy of the API server changes what the kubelets of this cluster report; nobody else's
nodes are touched.
"""

from collections.abc import Sequence

from supportfleet.local.embedded import nodes
from supportfleet.local.embedded.addons.base import Addon
from supportfleet.local.embedded.api import Api, Manifest
from supportfleet.local.embedded.context import Context

CPUS = 16
NAME = "supportfleet-node-cpu"
VERSION = "admissionregistration.k8s.io/v1beta1"


def manifests(context: Context) -> Sequence[Manifest]:
    """The policy, and that it applies."""
    ours = f"object.metadata.name.startsWith('{context.layout.node_prefix}')"
    less = f"quantity(object.status.{{}}.cpu).isLessThan(quantity('{CPUS}'))"
    reported = "has(object.status.capacity) && 'cpu' in object.status.capacity && 'cpu' in object.status.allocatable"
    replace = f"JSONPatch{{{{op: 'replace', path: '/status/{{}}/cpu', value: '{CPUS}'}}}}"
    both = ("capacity", "allocatable")
    return [
        {
            "apiVersion": VERSION,
            "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": NAME},
            "spec": {
                "matchConstraints": {
                    "resourceRules": [
                        {
                            "apiGroups": [""],
                            "apiVersions": ["v1"],
                            "resources": ["nodes", "nodes/status"],
                            "operations": ["CREATE", "UPDATE"],
                        }
                    ]
                },
                "matchConditions": [
                    {"name": "ours", "expression": ours},
                    {
                        "name": "less",
                        "expression": f"{reported} && ({' || '.join(less.format(kind) for kind in both)})",
                    },
                ],
                # A node that could not register for this would be worse than one with less CPU.
                "failurePolicy": "Ignore",
                "reinvocationPolicy": "Never",
                "mutations": [
                    {
                        "patchType": "JSONPatch",
                        "jsonPatch": {"expression": f"[{', '.join(replace.format(kind) for kind in both)}]"},
                    }
                ],
            },
        },
        {
            "apiVersion": VERSION,
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": NAME},
            "spec": {"policyName": NAME},
        },
    ]


async def ready(context: Context, api: Api) -> bool:
    """Whether every node advertises it. A node that registered before the policy held is told so once."""
    cpu = {"cpu": str(CPUS)}
    found = await nodes.listed(api)
    short = [node["metadata"]["name"] for node in found if node["status"]["capacity"].get("cpu") != cpu["cpu"]]
    for name in short:
        await api.merge(f"/api/v1/nodes/{name}/status", {"status": {"capacity": cpu, "allocatable": cpu}})
    return len(found) >= context.record.nodes and not short


ADDON = Addon("capacity", manifests, ready=ready)
