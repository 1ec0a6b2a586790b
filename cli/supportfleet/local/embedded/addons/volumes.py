"""Volumes that really are provisioned: the default StorageClass makes a folder on the node of the pod that uses it."""

import json
from collections.abc import Sequence

from supportfleet.local.embedded import files
from supportfleet.local.embedded.addons.base import Addon, cluster_role, namespace
from supportfleet.local.embedded.api import Manifest
from supportfleet.local.embedded.context import Context
from supportfleet.local.embedded.controlplane import options
from supportfleet.local.embedded.daemons import Daemon
from supportfleet.local.embedded.layout import NodeLayout

USER = "supportfleet:local-path-provisioner"
NAMESPACE = "local-path-storage"
CONFIG_MAP = "local-path-config"
PROVISIONER = "rancher.io/local-path"
HELPER_IMAGE = "docker.io/supportfleet/base:dev"

SETUP = '#!/bin/sh\nset -eu\nmkdir -m 0777 -p "$VOL_DIR"\n'
TEARDOWN = '#!/bin/sh\nset -eu\nrm -rf "$VOL_DIR"\n'


def config() -> str:
    """Where volumes are, as a node sees it."""
    paths = [str(NodeLayout.INSIDE / "volumes")]
    return json.dumps({"nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": paths}]})


def helper_pod() -> Manifest:
    """The pod that makes or removes a folder on a node."""
    container = {"name": "helper", "image": HELPER_IMAGE, "imagePullPolicy": "IfNotPresent"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "helper-pod"},
        "spec": {
            "priorityClassName": "system-node-critical",
            "tolerations": [{"operator": "Exists"}],
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
        },
    }


def daemons(context: Context) -> Sequence[Daemon]:
    """The provisioner."""
    kubeconfig = context.identities.client("local-path-provisioner", USER)
    config_file, pod_file = (context.layout.etc / name for name in ("local-path.json", "local-path-helper-pod.yaml"))
    files.write(config_file, config())
    files.write(pod_file, files.to_yaml(helper_pod()))
    command = options(
        config=config_file,
        kubeconfig=kubeconfig,
        namespace=NAMESPACE,
        provisioner_name=PROVISIONER,
        configmap_name=CONFIG_MAP,
        service_account_name="default",
        helper_image=HELPER_IMAGE,
        helper_pod_file=pod_file,
    )
    program = str(context.programs["local-path-provisioner"])
    reads = (kubeconfig, config_file, pod_file)
    return [
        Daemon("local-path-provisioner", (program, "start", *command), context.layout.control_namespace, reads=reads)
    ]


def manifests(_context: Context) -> Sequence[Manifest]:
    """The default StorageClass, and what its provisioner may do."""
    look = ("get", "list", "watch")
    everything = (*look, "create", "patch", "update", "delete")
    rules = [
        (("",), ("nodes", "persistentvolumeclaims", "configmaps", "pods/log"), look),
        (("",), ("pods", "persistentvolumes"), everything),
        (("",), ("events",), ("create", "patch")),
        (("storage.k8s.io",), ("storageclasses",), look),
    ]
    return [
        namespace(NAMESPACE),
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": CONFIG_MAP, "namespace": NAMESPACE},
            "data": {
                "config.json": config(),
                "setup": SETUP,
                "teardown": TEARDOWN,
                "helperPod.yaml": files.to_yaml(helper_pod()),
            },
        },
        *cluster_role("supportfleet:local-path-provisioner", USER, rules),
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": "local-path",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": PROVISIONER,
            "volumeBindingMode": "WaitForFirstConsumer",
            "reclaimPolicy": "Delete",
        },
    ]


ADDON = Addon("volumes", manifests, daemons)
