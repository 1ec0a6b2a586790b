"""What an agent in layers becomes: three Deployments of each revision, and what belongs to each."""

from __future__ import annotations

from typing import Any

import pytest

from supportfleet_operator.api import SupportAgent, parse
from supportfleet_operator.resources import (
    Manifest,
    RevisionChildren,
    Routing,
    at_revision,
    revision_children,
    revision_name,
    shared_children,
    snapshot,
)

REVISION = "r0123456"
COMPONENT = "app.kubernetes.io/component"
MODEL = {"uri": "s3://models/intent", "version": "1", "digest": f"sha256:{'a' * 64}"}
KEY = {"name": "TOOLS_API_KEY", "valueFrom": {"secretKeyRef": {"name": "tools", "key": "TOOLS_API_KEY"}}}
OWN_TOOLS = {"name": "TOOLS_URL", "value": "http://tools.shop:80"}


def agent(*env: dict[str, Any], **spec: Any) -> SupportAgent:
    return parse(
        {
            "apiVersion": "supportfleet.dev/v1alpha1",
            "kind": "SupportAgent",
            "metadata": {"name": "desk", "namespace": "shop", "uid": "u-1"},
            "spec": {
                "topology": "Layered",
                "template": {"image": "agent:1", "env": [*(env or (KEY,))]},
                "database": {"secretRef": {"name": "db"}},
                **spec,
            },
        }
    )


def combined(**spec: Any) -> SupportAgent:
    return agent(topology="Combined", **spec)


def rendered(one: SupportAgent, replicas: int = 1, **more: Any) -> RevisionChildren:
    return revision_children(one, REVISION, replicas=replicas, autoscaled=True, **more)


def deployments(children: RevisionChildren) -> dict[str, Manifest]:
    """By the command that their pods run."""
    found = [one for one in children if one["kind"] == "Deployment"]
    return {container(one)["args"][0]: one for one in found}


def container(deployment: Manifest) -> Manifest:
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(only)


def env(deployment: Manifest) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container(deployment)["env"]}


def chooses(selector: dict[str, str], deployment: Manifest) -> bool:
    return bool(selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items())


def of(children: RevisionChildren, kind: str) -> dict[str, Manifest]:
    return {one["metadata"]["name"]: one for one in children if one["kind"] == kind}


class TestDeployments:
    def test_each_layer_is_one_of_its_own(self) -> None:
        """Gateway, worker and tools run their commands in Deployments whose selectors choose no pod of another."""
        found = deployments(rendered(agent()))
        assert {command: one["metadata"]["name"] for command, one in found.items()} == {
            "gateway": f"desk-{REVISION}",
            "worker": f"desk-{REVISION}-worker",
            "tools": f"desk-{REVISION}-tools",
        }
        for chooser in found.values():
            chosen = [one for one in found.values() if chooses(chooser["spec"]["selector"]["matchLabels"], one)]
            assert chosen == [chooser]

    def test_services_choose_gateways_alone(self) -> None:
        """The agent's Service and the revision's reach gateways; that of the tools reaches tools, on its own port."""
        one = agent()
        found = deployments(rendered(one))
        services = [shared_children(one, Routing(service=REVISION)).service, *of(rendered(one), "Service").values()]
        reached = {
            service["metadata"]["name"]: [
                command for command, each in found.items() if chooses(service["spec"]["selector"], each)
            ]
            for service in services
        }
        assert reached == {"desk": ["gateway"], f"desk-{REVISION}": ["gateway"], f"desk-{REVISION}-tools": ["tools"]}

    def test_workers_alone_have_the_model(self) -> None:
        """The model is fetched, mounted and named where messages are answered, and nowhere else."""
        for command, one in deployments(rendered(agent(model=MODEL))).items():
            pod, has_it = one["spec"]["template"], command == "worker"
            assert ("initContainers" in pod["spec"]) == has_it
            assert ("supportfleet.dev/model-digest" in pod["metadata"].get("annotations", {})) == has_it
            assert ("models" in {volume["name"] for volume in pod["spec"]["volumes"]}) == has_it
            assert ("MODEL_DIGEST" in env(one)) == has_it

    def test_all_have_configuration_database_and_the_tools_key(self) -> None:
        """What layers share is told to each, and gateways and workers are told where their own revision's tools are."""
        for command, one in deployments(rendered(agent())).items():
            told = env(one)
            assert told["DATABASE_URL"] == {"secretKeyRef": {"name": "db", "key": "DATABASE_URL"}}
            assert told["TOOLS_API_KEY"] == KEY["valueFrom"]
            assert told["CONFIG_FILE"] == "agent_config.json"
            address = None if command == "tools" else f"http://desk-{REVISION}-tools:8081"
            assert told.get("TOOLS_URL") == address
            assert told["TOOLS_PORT" if command == "tools" else "API_PORT"] == "8080"

    def test_another_tool_service_takes_the_layers_place(self) -> None:
        """With TOOLS_URL in the spec's env there is no tools layer, and that address holds."""
        found = deployments(rendered(agent(KEY, OWN_TOOLS)))
        assert found.keys() == {"gateway", "worker"}
        assert [one["value"] for one in container(found["worker"])["env"] if one["name"] == "TOOLS_URL"] == [
            OWN_TOOLS["value"]
        ]

    def test_a_layer_has_the_templates_resources_or_its_own(self) -> None:
        """A layer's own resources hold for its pods alone, the fetching of the model among them."""
        own = {"requests": {"cpu": "2"}}
        found = deployments(rendered(agent(worker={"resources": own}, model=MODEL)))
        assert container(found["worker"])["resources"] == own
        assert found["worker"]["spec"]["template"]["spec"]["initContainers"][0]["resources"] == own
        assert container(found["tools"])["resources"] == container(found["gateway"])["resources"] != own

    def test_pods_of_a_layer_spread_among_themselves(self) -> None:
        """Spreading counts the pods of the same Deployment."""
        for one in deployments(rendered(agent())).values():
            for constraint in one["spec"]["template"]["spec"]["topologySpreadConstraints"]:
                assert constraint["labelSelector"] == one["spec"]["selector"]


class TestScaling:
    def test_each_layer_has_its_autoscaler(self) -> None:
        """An autoscaler scales the Deployment of its own layer, and that one has no replicas then."""
        children = rendered(
            agent(worker={"autoscaling": {"minReplicas": 2, "maxReplicas": 9}}, tools={"replicas": 3}),
            layers={"worker": 4, "tools": 3},
        )
        (scaler,) = of(children, "HorizontalPodAutoscaler").values()
        found = deployments(children)
        assert scaler["spec"]["scaleTargetRef"]["name"] == found["worker"]["metadata"]["name"]
        assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (4, 9)
        assert "replicas" not in found["worker"]["spec"]
        assert (found["gateway"]["spec"]["replicas"], found["tools"]["spec"]["replicas"]) == (1, 3)
        assert children.first_replicas_of(f"desk-{REVISION}-worker") == 4

    def test_a_revision_with_no_gateway_has_no_layers_pods(self) -> None:
        """Layers go to 0 with their gateway, and their autoscalers, which would start pods, are gone."""
        children = rendered(agent(worker={"autoscaling": {"maxReplicas": 9}}), replicas=0)
        assert {one["spec"]["replicas"] for one in deployments(children).values()} == {0}
        assert not of(children, "HorizontalPodAutoscaler")

    def test_only_a_layer_of_several_pods_has_a_disruption_budget(self) -> None:
        """A budget for one pod could only block drains; one for several lets maxUnavailable of them go at once."""
        one = agent(worker={"replicas": 4}, availability={"maxUnavailable": "25%"})
        (budget,) = of(rendered(one), "PodDisruptionBudget").values()
        assert budget["spec"]["maxUnavailable"] == "25%"
        assert chooses(budget["spec"]["selector"]["matchLabels"], deployments(rendered(one))["worker"])
        assert not of(rendered(agent()), "PodDisruptionBudget")


class TestNetworkPolicies:
    def test_tools_are_open_to_the_agents_own_pods(self) -> None:
        """Gateways and workers reach tools; neither the namespace nor a peer that the spec names does."""
        allowed = {"allowFromNamespaces": ["istio-system"]}
        one = of(rendered(agent(networkPolicy=allowed)), "NetworkPolicy")[f"desk-{REVISION}-tools"]["spec"]
        (rule,) = one["ingress"]
        peers = [peer["podSelector"]["matchLabels"] for peer in rule["from"]]
        assert [peer[COMPONENT] for peer in peers] == ["agent", "worker"]
        assert all(peer["supportfleet.dev/agent"] == "desk" for peer in peers)

    def test_workers_are_open_to_who_reads_figures(self) -> None:
        """Nobody reaches a worker, but peers that the spec names, and the operator where it measures."""
        name = f"desk-{REVISION}-worker"
        closed = of(rendered(agent()), "NetworkPolicy")[name]["spec"]
        assert closed["policyTypes"] == ["Ingress"]
        assert "ingress" not in closed
        analysis = {
            "strategy": "Canary",
            "steps": [{"setWeight": 50}],
            "analysis": {"metrics": [{"name": "errorRate", "max": 0.1}]},
        }
        measured = of(rendered(agent(rollout=analysis)), "NetworkPolicy")[name]["spec"]
        assert [list(peer) for peer in measured["ingress"][0]["from"]] == [["namespaceSelector", "podSelector"]]

    def test_the_agents_own_policy_leaves_layers_out(self) -> None:
        """Policies add up, so that of the agent must not open what a layer's closes; without layers it is as ever."""
        layered = shared_children(agent(), Routing()).network_policy
        assert layered is not None
        assert layered["spec"]["podSelector"]["matchExpressions"] == [
            {"key": COMPONENT, "operator": "NotIn", "values": ["worker", "tools"]}
        ]
        plain = shared_children(combined(), Routing()).network_policy
        assert plain is not None
        assert plain["spec"]["podSelector"] == {"matchLabels": {"supportfleet.dev/agent": "desk"}}

    def test_bounded_egress_reaches_the_tools(self) -> None:
        """Where the spec bounds what pods may open, workers and gateways still reach the tools layer."""
        one = agent(networkPolicy={"allowEgress": []})
        worker = of(rendered(one), "NetworkPolicy")[f"desk-{REVISION}-worker"]
        gateway = shared_children(one, Routing()).network_policy
        for policy in (worker, gateway):
            assert policy is not None
            to = [peer for rule in policy["spec"]["egress"] for peer in rule.get("to", ())]
            assert [peer["podSelector"]["matchLabels"][COMPONENT] for peer in to] == ["tools"]


class TestRevisions:
    def test_combined_is_what_it_was(self) -> None:
        """Saying Combined changes neither the revision's name nor what is kept of it."""
        said, unsaid = combined(), parse(_without_topology(combined()))
        assert revision_name(said) == revision_name(unsaid)
        assert snapshot(said) == snapshot(unsaid)
        assert "topology" not in snapshot(said)["spec"]

    @pytest.mark.parametrize(
        ("changed", "is_another"),
        [
            ({"topology": "Combined"}, True),
            ({"worker": {"resources": {"limits": {"memory": "2Gi"}}}}, True),
            ({"worker": {"replicas": 5}}, False),
            ({"worker": {}, "tools": {"autoscaling": {"maxReplicas": 3}}}, False),
        ],
    )
    def test_what_makes_another(self, changed: dict[str, Any], is_another: bool) -> None:  # noqa: FBT001 - a case
        """Topology and a layer's resources change pods; how many pods a layer has changes none."""
        assert (revision_name(agent(**changed)) != revision_name(agent())) == is_another

    def test_an_old_revision_has_its_resources_and_the_number_of_now(self) -> None:
        """What a kept revision says of its layers' pods holds; how many there are comes from the spec as it is."""
        kept = snapshot(agent(worker={"replicas": 2, "resources": {"requests": {"cpu": "2"}}}))
        worker = at_revision(agent(worker={"replicas": 7}), kept).spec.layers["worker"]
        assert worker.replicas == 7
        assert worker.resources is not None
        assert worker.resources.requests == {"cpu": "2"}

    def test_an_old_revision_has_its_own_number_where_the_spec_has_no_layers(self) -> None:
        """Where the spec says nothing of layers any more, what was kept holds."""
        kept = snapshot(agent(worker={"replicas": 2}))
        assert at_revision(combined(), kept).spec.layers["worker"].replicas == 2
        assert at_revision(agent(), snapshot(combined())).spec.layers == {}


def _without_topology(one: SupportAgent) -> dict[str, Any]:
    told = one.model_dump(mode="json", by_alias=True, exclude_none=True)
    del told["spec"]["topology"], told["status"]
    return told
