from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from supportfleet.local import state
from supportfleet.local.embedded import controlplane, files, logs
from supportfleet.local.embedded.addons import ADDONS, gateway_api, istio
from supportfleet.local.embedded.addons.credentials import kept_in
from supportfleet.local.embedded.api import Manifest, path_of
from supportfleet.local.embedded.certificates import Pair
from supportfleet.local.embedded.context import Context
from supportfleet.local.embedded.controlplane import Pki
from supportfleet.local.embedded.daemons import Daemon, Daemons
from supportfleet.local.embedded.host import Cgroups
from supportfleet.local.embedded.identities import Identities
from supportfleet.local.embedded.layout import Addresses, Layout, NodeLayout
from supportfleet.local.embedded.node import Node, inside
from supportfleet.local.progress import Progress

PROGRAMS = ("coredns", "metrics-server", "local-path-provisioner", "versitygw", "pilot-discovery", "envoy")
BINARY = Path("/cache/kube-apiserver/0123abcd/kube-apiserver")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    layout, addresses = Layout("demo", tmp_path), Addresses(4)
    files.write(layout.etc / "istio-definitions-api@v1.31.1-gateway-api@v1.6.0.json", "[]")
    return Context(
        layout=layout,
        record=state.Record(name="demo", provider="embedded", nodes=2, index=4, istio=True),
        addresses=addresses,
        identities=Identities(layout, addresses, datetime(2026, 3, 1, tzinfo=UTC)),
        daemons=Daemons(layout, Cgroups([])),
        programs={name: Path("/cache") / name / "0123abcd" / name for name in PROGRAMS},
        images={},
        sources={
            "istio.io/api": Path("/modules/api@v1.31.1"),
            "sigs.k8s.io/gateway-api": Path("/modules/gateway-api@v1.6.0"),
        },
        progress=Progress(),
        fast=False,
    )


def option(daemon: Daemon, name: str) -> str:
    (value,) = [word.partition("=")[2] for word in daemon.command if word.startswith(f"--{name}=")]
    return value


def pki(folder: Path) -> Pki:
    return Pki(*(Pair(folder / f"{n}.crt", folder / f"{n}.key") for n in range(6)))


def nodes(context: Context) -> list[Node]:
    kubelet, proxy = (Path("/cache") / name / "0123abcd" / name for name in ("kubelet", "kube-proxy"))
    return [Node(context.layout.node(n), context.addresses, kubelet, proxy) for n in (1, 2)]


def manifests(context: Context) -> list[Manifest]:
    return [manifest for addon in ADDONS for manifest in addon.manifests(context)]


def test_etcd_is_durable_unless_tests_say_otherwise() -> None:
    """For people every write reaches the disk; only with fsync=False does etcd run without."""
    layout = Layout("demo", Path("/state"))
    assert "--unsafe-no-fsync" not in controlplane.etcd(layout, BINARY, fsync=True).command
    assert "--unsafe-no-fsync" in controlplane.etcd(layout, BINARY, fsync=False).command


def test_the_store_is_out_of_reach() -> None:
    """etcd, which asks for no certificate, listens on the loopback of the control namespace and nowhere else."""
    daemon = controlplane.etcd(Layout("demo", Path("/state")), BINARY, fsync=True)
    assert option(daemon, "listen-client-urls").startswith("http://127.0.0.1:")
    assert option(daemon, "listen-peer-urls").startswith("http://127.0.0.1:")
    assert daemon.network == "sf-demo-control"


def test_a_renewed_certificate_restarts_the_api_server(tmp_path: Path) -> None:
    """What the API server was started as covers its certificates: new ones are another process."""
    layout, pairs = Layout("demo", tmp_path), pki(tmp_path)
    for pair in (pairs.authority, pairs.apiserver):
        pair.certificate.write_text("one")
    before = controlplane.apiserver(layout, Addresses(0), BINARY, pairs, tmp_path / "policy").digest()
    assert before == controlplane.apiserver(layout, Addresses(0), BINARY, pairs, tmp_path / "policy").digest()
    pairs.apiserver.certificate.write_text("two")
    assert before != controlplane.apiserver(layout, Addresses(0), BINARY, pairs, tmp_path / "policy").digest()


def test_requests_are_audited_but_not_what_they_carry() -> None:
    """The audit log says who did what to which object and never holds a Secret's content."""
    levels = {rule["level"] for rule in controlplane.AUDIT_POLICY["rules"]}
    assert levels == {"None", "Metadata"}
    assert controlplane.AUDIT_POLICY["rules"][-1] == {"level": "Metadata"}


def test_nodes_are_alike_but_for_who_they_are(context: Context) -> None:
    """Every node has its own pod range, cgroup, address and name, and otherwise the same configuration."""
    one, two = (json.dumps(node.configuration) for node in nodes(context))
    for mine, other in (("10.94.1.", "10.94.2."), ("10.89.4.11", "10.89.4.12"), ("demo/node1", "demo/node2")):
        assert mine in one
        assert mine not in two
        one = one.replace(mine, other)
    assert one == two


def test_node_configuration_can_be_read(context: Context) -> None:
    """containerd's, the kubelet's, kube-proxy's and CNI's files are what their formats ask for."""
    written = nodes(context)[0].configuration
    containerd = tomllib.loads(written["containerd.toml"])["plugins"]["io.containerd.grpc.v1.cri"]
    assert containerd["sandbox_image"] == "docker.io/supportfleet/pause:dev"
    kubelet = yaml.safe_load(written["kubelet.yaml"])
    assert kubelet["cgroupRoot"] == "/supportfleet-demo/node1"
    assert kubelet["clusterDNS"] == ["10.110.0.10"]
    assert not kubelet["authentication"]["anonymous"]["enabled"]
    assert yaml.safe_load(written["kube-proxy.yaml"])["clusterCIDR"] == "10.94.0.0/16"
    assert json.loads(written["cni/10-supportfleet.conflist"])["plugins"][0]["ipam"]["ranges"] == [
        [{"subnet": "10.94.1.0/24"}]
    ]


def test_images_that_no_registry_has_are_never_collected(context: Context) -> None:
    """A full disk must not make the kubelet delete images that only load-image can bring back."""
    kubelet = yaml.safe_load(nodes(context)[0].configuration["kubelet.yaml"])
    assert kubelet["imageGCHighThresholdPercent"] == 100


def test_nodes_use_only_paths_they_see(context: Context) -> None:
    """In a node's mount namespace /var and /run are its own: no path of this machine's is in its configuration."""
    for node in nodes(context):
        for text in (*node.configuration.values(), *(word for daemon in node.daemons for word in daemon.command)):
            assert str(context.layout.folder) not in text
            assert "/cache" not in text


def test_another_kubelet_is_another_path(context: Context) -> None:
    """A newer build restarts the kubelet, since its path holds what it was built from."""
    node = nodes(context)[0]
    newer = Node(node.layout, node.addresses, Path("/cache/kubelet/ffff/kubelet"), node.kube_proxy)
    kubelets = [each.daemons[1] for each in (node, newer)]
    assert kubelets[0].digest() != kubelets[1].digest()
    assert inside(node.kubelet).is_relative_to(NodeLayout.INSIDE)


def test_only_containerd_is_outlived_by_its_children(context: Context) -> None:
    """A restart of containerd leaves pods running; whatever else dies takes its children along."""
    keeping = [daemon.name for daemon in nodes(context)[0].daemons if daemon.keeps_children]
    assert keeping == ["node1-containerd"]


def test_addons_are_objects_that_can_be_applied(context: Context) -> None:
    """Every object of every addon is of a kind whose place in the API is known, and none is there twice."""
    paths = [path_of(manifest) for manifest in manifests(context)]
    namespaces = [path for path in paths if path.startswith("/api/v1/namespaces/") and path.count("/") == 4]
    others = [path for path in paths if path not in namespaces]
    assert len(set(others)) == len(others)
    assert "/api/v1/namespaces/supportfleet-local/services/s3" in paths


def test_addons_are_the_same_every_time(context: Context) -> None:
    """Applying again changes nothing: what is random was settled when the cluster was made."""
    assert json.dumps(manifests(context)) == json.dumps(manifests(context))
    assert kept_in(context.layout.folder) == kept_in(context.layout.folder)


def test_services_lead_to_their_servers(context: Context) -> None:
    """A Service without a selector and its EndpointSlice name the same ports, and the control plane's address."""
    found = manifests(context)
    services = {m["metadata"]["name"]: m for m in found if m["kind"] == "Service" and "selector" not in m["spec"]}
    slices = {m["metadata"]["labels"]["kubernetes.io/service-name"]: m for m in found if m["kind"] == "EndpointSlice"}
    assert set(services) == set(slices) == {"kube-dns", "metrics-server", "s3", "postgres", "istiod"}
    for name, service in services.items():
        assert slices[name]["endpoints"][0]["addresses"] == ["10.89.4.1"]
        ports = {(port["name"], port["targetPort"]) for port in service["spec"]["ports"]}
        assert ports == {(port["name"], port["port"]) for port in slices[name]["ports"]}
    assert services["kube-dns"]["spec"]["clusterIP"] == "10.110.0.10"


def test_no_user_may_do_everything(context: Context) -> None:
    """What runs beside the control plane has rules of its own; none has a wildcard or is cluster-admin."""
    for manifest in manifests(context):
        for rule in manifest.get("rules", []):
            assert "*" not in json.dumps(rule)
        assert manifest.get("roleRef", {}).get("name") != "cluster-admin"


def test_a_control_plane_alone_has_no_addons(context: Context) -> None:
    """With --nodes 0 there is nothing that would wait for a pod."""
    alone = state.Record(name="demo", provider="embedded", nodes=0)
    bare = Context(**{**vars(context), "record": alone})
    assert [addon.name for addon in ADDONS if addon.wanted(bare)] == []


def test_istio_is_there_only_where_it_is_asked_for(context: Context) -> None:
    """Without --istio nothing of it is started or applied, and what a node needs for it is not in `status`."""
    plain = Context(**{**vars(context), "record": state.Record(name="demo", provider="embedded", nodes=2)})
    assert [addon.name for addon in ADDONS if addon.wanted(context) and not addon.wanted(plain)] == ["istio"]


def test_the_gateways_configuration_is_new_pods(context: Context) -> None:
    """The gateway's pods are replaced when what Envoy is started with changes."""
    (deployment,) = [m for m in manifests(context) if m["kind"] == "Deployment"]
    (config,) = [m for m in manifests(context) if "envoy.json" in m.get("data", {})]
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {"supportfleet.dev/config": files.digest(config["data"]["envoy.json"])}
    assert json.loads(config["data"]["envoy.json"])["node"]["metadata"]["ISTIO_VERSION"] == "1.31.1"


def test_secrets_are_not_on_command_lines(context: Context) -> None:
    """Passwords are in no command line, where every user of the machine would see them."""
    known = kept_in(context.layout.folder)
    daemons = [daemon for addon in ADDONS for daemon in addon.daemons(context)] + [logs.rotation(context.layout)]
    words = " ".join(word for daemon in daemons for word in daemon.command)
    assert not any(password in words for password in vars(known).values())


def test_the_gateway_apis_gateway_is_the_ingress(context: Context) -> None:
    """A Gateway of the Gateway API is served by the Envoy that is there, so Istio deploys no other."""
    (gateway,) = [m for m in gateway_api.manifests() if m["kind"] == "Gateway"]
    (service,) = [m for m in manifests(context) if m["kind"] == "Service" and "selector" in m["spec"]]
    where = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
    assert gateway["spec"]["addresses"] == [{"type": "Hostname", "value": where}]
    ports = {port["port"] for port in service["spec"]["ports"]}
    assert {listener["port"] for listener in gateway["spec"]["listeners"]} <= ports
    assert {path_of(manifest) for manifest in gateway_api.manifests()} == {
        "/apis/gateway.networking.k8s.io/v1/gatewayclasses/istio",
        "/apis/gateway.networking.k8s.io/v1/namespaces/istio-system/gateways/local",
    }


async def test_definitions_come_from_both_publishers(context: Context, tmp_path: Path) -> None:
    """What Istio and the Gateway API publish is applied as far as it defines kinds, and nothing else of it."""
    folders = {"istio.io/api": "kubernetes", "sigs.k8s.io/gateway-api": "config/crd/standard"}
    names = ("customresourcedefinitions.gen.yaml", "gateway.networking.k8s.io_vap_safeupgrades.yaml")
    for (module, folder), name in zip(folders.items(), names, strict=True):
        files.write(
            tmp_path / module / folder / name,
            f"kind: CustomResourceDefinition\nfrom: {module}\n---\nkind: ValidatingAdmissionPolicy\n",
        )
    sources = {module: tmp_path / module for module in folders}
    await istio.prepare(Context(**{**vars(context), "sources": sources}))
    (kept,) = context.layout.etc.glob("istio-definitions-api-*.json")
    assert [document["from"] for document in json.loads(kept.read_text())] == list(folders)
