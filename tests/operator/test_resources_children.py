"""What an agent becomes: each child, and how the spec decides it."""

import json
import re
from typing import Any

import pytest

from supportfleet_operator.api import Metadata, SupportAgent, parse
from supportfleet_operator.api.agent import MAX_NAME
from supportfleet_operator.api.environment import RESERVED_ENV
from supportfleet_operator.resources import (
    CHILD_KINDS,
    MODEL_DIGEST,
    RevisionChildren,
    Routing,
    SharedChildren,
    controller_revision,
    revision_children,
    selector_text,
    shared_children,
)
from supportfleet_operator.resources.environment import agent_env, channel_env, sync_env

DIGEST = f"sha256:{'a' * 64}"
MODEL = {"uri": "s3://models/intent", "version": "1", "digest": DIGEST}
CLAIM = {**MODEL, "cache": {"type": "PersistentVolumeClaim", "size": "2Gi"}}
DATABASE = {"secretRef": {"name": "db"}}
REV = "r0123456"


def agent(**spec: Any) -> SupportAgent:
    template = {"image": "agent:1", **spec.pop("template", {})}
    return parse(
        {
            "apiVersion": "supportfleet.dev/v1alpha1",
            "kind": "SupportAgent",
            "metadata": {"name": "helper", "namespace": "shop", "uid": "u-1"},
            "spec": {"template": template, **spec},
        }
    )


def shared(routing: Routing | None = None, **spec: Any) -> SharedChildren:
    return shared_children(agent(**spec), routing or Routing({REV: 100}, service=REV))


def render(**spec: Any) -> RevisionChildren:
    """The revision's children, where all of the traffic is its own."""
    wanted = agent(**spec)
    return revision_children(wanted, REV, replicas=wanted.spec.first_pods, autoscaled=True)


def pod(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


def job(**spec: Any) -> dict[str, Any]:
    found = render(**spec).model_job
    assert found is not None
    return found


def policy(**spec: Any) -> dict[str, Any]:
    found = shared(**spec).network_policy
    assert found is not None
    rules: dict[str, Any] = found["spec"]
    return rules


class TestAll:
    def test_their_kinds_are_known(self) -> None:
        """The kinds that are watched are those that agents with everything have, however they are routed."""
        spec: dict[str, Any] = {"database": DATABASE, "model": CLAIM, "autoscaling": {"maxReplicas": 5}}
        rendered = [controller_revision(agent(**spec), 1)]
        for provider in ("Istio", "GatewayAPI"):
            spec["traffic"] = {"provider": provider}
            rendered += [*shared(**spec), *render(**spec)]
        assert {(one["apiVersion"], one["kind"]) for one in rendered} == {kind[:2] for kind in CHILD_KINDS}

    def test_they_belong_to_the_agent(self) -> None:
        """Each child is in the agent's namespace, labelled with it, and has it as its only controller."""
        spec: dict[str, Any] = {"database": DATABASE, "model": CLAIM, "replicas": 2}
        for child in (controller_revision(agent(**spec), 1), *shared(**spec), *render(**spec)):
            meta = child["metadata"]
            assert meta["namespace"] == "shop"
            assert meta["labels"]["supportfleet.dev/agent"] == "helper"
            assert meta["labels"]["app.kubernetes.io/managed-by"] == "supportfleet"
            assert [(owner["uid"], owner["controller"]) for owner in meta["ownerReferences"]] == [("u-1", True)]

    def test_the_service_and_the_selector_choose_the_agents_pods_and_no_others(self) -> None:
        """A revision's pods match its Service, its Deployment and the agent's Service; those of the sync Job don't."""
        rendered = render(model=MODEL, template={"labels": {"team": "support"}})
        chosen = rendered.service["spec"]["selector"].items()
        assert chosen == rendered.deployment["spec"]["selector"]["matchLabels"].items()
        assert chosen == shared().service["spec"]["selector"].items()
        assert {"supportfleet.dev/revision": REV}.items() <= chosen
        assert chosen <= rendered.deployment["spec"]["template"]["metadata"]["labels"].items()
        assert not chosen <= job(model=MODEL)["spec"]["template"]["metadata"]["labels"].items()
        assert selector_text(agent()) == "app.kubernetes.io/component=agent,supportfleet.dev/agent=helper"

    def test_the_longest_name_leaves_room_for_all_others(self) -> None:
        """With the longest name allowed every child's name, and those of its pods, fit in 63 characters."""
        longest = agent(model=CLAIM).model_copy(
            update={"metadata": Metadata(name="a" * MAX_NAME, namespace="s", uid="u")}
        )
        pod_suffix = len("-abcde")
        rendered = revision_children(longest, REV, replicas=1, autoscaled=False)
        everything = [controller_revision(longest, 1), *shared_children(longest, Routing()), *rendered]
        assert max(len(one["metadata"]["name"]) for one in everything) + pod_suffix <= 63


class TestDeployment:
    def test_it_has_the_replicas_that_were_asked_for(self) -> None:
        """Without an autoscaler the Deployment has spec.replicas pods."""
        assert render(replicas=3, database=DATABASE).deployment["spec"]["replicas"] == 3
        assert render(replicas=0).deployment["spec"]["replicas"] == 0

    def test_the_autoscaler_owns_its_replicas(self) -> None:
        """With an autoscaler the manifest has no replicas, and the first number is within the autoscaler's bounds."""
        for replicas, first in ((1, 3), (5, 5), (50, 20)):
            scaled = render(replicas=replicas, database=DATABASE, autoscaling={"minReplicas": 3, "maxReplicas": 20})
            assert "replicas" not in scaled.deployment["spec"]
            assert scaled.first_replicas == first

    def test_a_suspended_agent_keeps_all_but_its_pods(self) -> None:
        """Suspending takes the pods, and all that would start or wait for some; the rest stays."""
        spec: dict[str, Any] = {"database": DATABASE, "model": CLAIM, "autoscaling": {"maxReplicas": 5}}
        suspended = render(suspend=True, **spec)
        assert suspended.deployment["spec"]["replicas"] == suspended.first_replicas == 0
        kinds = {one["kind"] for one in (*shared(suspend=True, **spec), *suspended)}
        gone = {one["kind"] for one in (*shared(**spec), *render(**spec))} - kinds
        assert gone == {"HorizontalPodAutoscaler", "PodDisruptionBudget", "Job"}

    def test_the_configuration_is_text_that_survives_the_api_server(self) -> None:
        """The file holds what was given, in the customer's script, and no character that YAML has no room for."""
        config = {"greeting": "Grüezi 👋", "odd": "\x7f\x85\x9f\u2028\u2029\ufeff\uffff\n\x00"}
        text = render(config=config).config_map["data"]["agent_config.json"]
        assert json.loads(text) == config
        assert "Grüezi 👋" in text
        assert not re.search(
            "[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]", text
        )

    def test_a_new_model_replaces_the_pods(self) -> None:
        """The pods carry the digest that they must run on."""
        annotations = render(model=MODEL).deployment["spec"]["template"]["metadata"]["annotations"]
        assert annotations[MODEL_DIGEST] == DIGEST

    def test_each_pod_fetches_its_own_model_or_reads_the_claim(self) -> None:
        """With an EmptyDir an init container syncs the model; with a claim pods mount it read-only and sync nothing."""
        own = pod(render(model=MODEL).deployment)
        assert [one["args"] for one in own["initContainers"]] == [["sync-model"]]
        assert {"name": "models", "emptyDir": {"sizeLimit": "1Gi"}} in own["volumes"]

        shared = pod(render(model=CLAIM).deployment)
        assert "initContainers" not in shared
        assert {"name": "models", "persistentVolumeClaim": {"claimName": "helper-models"}} in shared["volumes"]
        mounts = {mount["name"]: mount for mount in shared["containers"][0]["volumeMounts"]}
        assert mounts["models"]["readOnly"] is True

    def test_without_a_model_nothing_of_it_is_there(self) -> None:
        """An agent with no model has no volume, variable, Job or claim for one."""
        rendered = render()
        assert rendered.model_job is None
        assert rendered.model_claim is None
        assert "models" not in str(rendered.deployment)
        assert "MODEL_" not in str(rendered.deployment)

    def test_own_labels_and_annotations_reach_the_pods_beside_the_operators(self) -> None:
        """Labels and annotations of users are on the pods, and take none of the operator's away."""
        given = {"labels": {"team": "support"}, "annotations": {"sidecar.istio.io/inject": "true"}}
        meta = render(template=given).deployment["spec"]["template"]["metadata"]
        assert given["labels"].items() <= meta["labels"].items()
        assert given["annotations"].items() <= meta["annotations"].items()
        assert meta["labels"]["supportfleet.dev/agent"] == "helper"

    def test_placement_is_as_given(self) -> None:
        """Node selector, tolerations, affinity, priority, pull secrets and grace period reach the pods."""
        affinity = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}}
        given: dict[str, Any] = {
            "nodeSelector": {"pool": "agents"},
            "tolerations": [{"key": "spot", "operator": "Exists"}],
            "affinity": affinity,
            "priorityClassName": "high",
            "imagePullSecrets": [{"name": "registry"}],
            "terminationGracePeriodSeconds": 90,
        }
        spec = pod(render(template=given).deployment)
        assert {name: spec[name] for name in given} == given

    def test_empty_lists_in_an_affinity_are_left_out(self) -> None:
        """The API server drops empty lists; rendering them would look like a difference for ever."""
        affinity: dict[str, Any] = {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
        assert pod(render(template={"affinity": affinity}).deployment)["affinity"] == {"podAffinity": {}}

    def test_pods_spread_by_default(self) -> None:
        """Pods spread over nodes and zones unless that is turned off; other constraints count the agent's pods too."""
        keys = [one["topologyKey"] for one in pod(render().deployment)["topologySpreadConstraints"]]
        assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        assert "topologySpreadConstraints" not in pod(render(template={"topologySpreadConstraints": []}).deployment)
        own = {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
        rendered = render(template={"topologySpreadConstraints": [own]})
        selector = {"labelSelector": rendered.deployment["spec"]["selector"]}
        assert pod(rendered.deployment)["topologySpreadConstraints"] == [own | selector]

    def test_the_port_is_the_same_everywhere(self) -> None:
        """The runtime listens where the container, the Service and the network policy say."""
        spec: dict[str, Any] = {"template": {"port": 9090}, "service": {"port": 8443, "type": "NodePort"}}
        rendered = render(**spec)
        container = pod(rendered.deployment)["containers"][0]
        assert container["ports"] == [{"name": "http", "containerPort": 9090, "protocol": "TCP"}]
        assert {"name": "API_PORT", "value": "9090"} in container["env"]
        for service, kind in ((shared(**spec).service, "NodePort"), (rendered.service, "ClusterIP")):
            (port,) = service["spec"]["ports"]
            assert (service["spec"]["type"], port["port"], port["targetPort"]) == (kind, 8443, "http")

    def test_a_stopping_pod_has_time_left_after_it_was_forgotten(self) -> None:
        """The pause before the runtime is told to stop is shorter than the shortest grace period allowed."""
        spec = pod(render(template={"terminationGracePeriodSeconds": 10}).deployment)
        pause = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert 0 < pause < spec["terminationGracePeriodSeconds"]


class TestEnvironment:
    EVERYTHING: dict[str, Any] = {  # noqa: RUF012 - read only
        "database": DATABASE,
        "llm": {
            "provider": "Anthropic",
            "model": "claude-x",
            "baseURL": "http://llm:8000",
            "apiKeySecretRef": {"name": "anthropic", "key": "key"},
        },
        "model": {
            **MODEL,
            "endpoint": "http://s3:9000",
            "region": "eu-central-1",
            "credentialsSecretRef": {"name": "s3"},
        },
    }

    def test_what_the_operator_sets_is_what_users_can_not(self) -> None:
        """The names that the builders set and those that the API refuses are the same set."""
        model = self.EVERYTHING["model"]
        full = agent(**self.EVERYTHING)
        hot = agent(**{**self.EVERYTHING, "model": {**model, "reload": "Hot"}})
        followed = {key: value for key, value in model.items() if key not in {"version", "digest"}}
        channel = agent(**{**self.EVERYTHING, "model": {**followed, "channel": "stable"}})
        used = [*agent_env(full, REV), *agent_env(hot, REV), *sync_env(full), *channel_env(channel)]
        assert {env["name"] for env in used} == set(RESERVED_ENV)

    def test_the_agent_has_no_credentials_of_the_storage(self) -> None:
        """Only the model sync can read the bucket."""
        full = agent(**self.EVERYTHING)
        assert not [env for env in agent_env(full, REV) if env["name"].startswith("AWS_")]
        assert [env["name"] for env in sync_env(full) if env["name"].startswith("AWS_")] == [
            "AWS_ENDPOINT_URL",
            "AWS_REGION",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
        ]

    def test_secrets_are_referred_to_and_never_copied(self) -> None:
        """The database's address and the API key come from their Secrets, by name and key."""
        env = {one["name"]: one for one in agent_env(agent(**self.EVERYTHING), REV)}
        assert env["DATABASE_URL"]["valueFrom"]["secretKeyRef"] == {"name": "db", "key": "DATABASE_URL"}
        assert env["ANTHROPIC_API_KEY"]["valueFrom"]["secretKeyRef"] == {"name": "anthropic", "key": "key"}

    def test_scripted_replies_need_no_key(self) -> None:
        """A scripted agent isn't given the key, though the spec may keep naming it."""
        llm = {"provider": "Scripted", "apiKeySecretRef": {"name": "anthropic"}}
        names = {env["name"] for env in agent_env(agent(llm=llm), REV)}
        assert "ANTHROPIC_API_KEY" not in names

    def test_own_variables_come_last_and_reach_the_sync(self) -> None:
        """Users' variables can refer to the operator's, and a proxy holds for the model sync too."""
        own = {"name": "HTTPS_PROXY", "value": "http://$(POD_NAMESPACE).proxy"}
        spec = {"template": {"env": [own], "envFrom": [{"secretRef": {"name": "more"}}]}, "model": MODEL}
        deployment, sync = pod(render(**spec).deployment), pod(job(**spec))
        for container in (*deployment["containers"], *deployment["initContainers"], *sync["containers"]):
            assert container["env"][-1] == own
            assert container["envFrom"] == [{"secretRef": {"name": "more"}}]


class TestModelJob:
    def test_it_verifies_for_pods_and_fills_a_claim(self) -> None:
        """Where pods fetch for themselves the Job only tries the model; a claim is filled by it."""
        assert pod(job(model=MODEL))["containers"][0]["args"] == ["sync-model", "--self-test", "--verify-only"]
        filling = pod(job(model=CLAIM))
        assert filling["containers"][0]["args"] == ["sync-model", "--self-test"]
        assert {"name": "models", "persistentVolumeClaim": {"claimName": "helper-models"}} in filling["volumes"]

    @pytest.mark.parametrize(
        "change",
        [
            {"model": {**MODEL, "version": "2"}},
            {"model": {**MODEL, "digest": f"sha256:{'b' * 64}"}},
            {"model": {**MODEL, "uri": "s3://other"}},
            {"model": {**MODEL, "endpoint": "http://s3"}},
            {"model": {**MODEL, "credentialsSecretRef": {"name": "s3"}}},
            {"model": CLAIM},
            {"model": MODEL, "template": {"image": "agent:2"}},
            {"model": MODEL, "template": {"env": [{"name": "HTTPS_PROXY", "value": "http://proxy"}]}},
        ],
    )
    def test_another_artifact_is_another_job(self, change: dict[str, Any]) -> None:
        """Whatever the Job depends on changes its name, since a Job can't be changed."""
        assert job(**change)["metadata"]["name"] != job(model=MODEL)["metadata"]["name"]

    @pytest.mark.parametrize(
        "change",
        [
            {"config": {"greeting": "Good day!"}},
            {"llm": {"model": "claude-x"}},
            {"autoscaling": {"maxReplicas": 1}},
            {"template": {"resources": {"requests": {"cpu": "2"}}}},
            {"service": {"port": 81}},
            {"rollout": {"strategy": "BlueGreen"}},
        ],
    )
    def test_the_same_artifact_is_the_same_job(self, change: dict[str, Any]) -> None:
        """What the Job doesn't depend on verifies nothing again."""
        assert job(model=MODEL, **change) == job(model=MODEL)

    def test_wrong_content_is_not_tried_again(self) -> None:
        """Exit code 2 fails the Job at once; a pod that was disrupted costs no try."""
        spec = job(model=MODEL)["spec"]
        fail, ignore = spec["podFailurePolicy"]["rules"]
        assert (fail["action"], fail["onExitCodes"]["values"]) == ("FailJob", [2])
        assert fail["onExitCodes"]["containerName"] == pod({"spec": spec})["containers"][0]["name"]
        assert (ignore["action"], ignore["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
        assert pod({"spec": spec})["restartPolicy"] == "Never"
        assert "ttlSecondsAfterFinished" not in spec


class TestModelClaim:
    def test_it_is_as_the_cache_says(self) -> None:
        """Class, size and access modes come from the cache."""
        cache = {
            "type": "PersistentVolumeClaim",
            "size": "5Gi",
            "storageClassName": "fast",
            "accessModes": ["ReadWriteMany"],
        }
        claim = shared(model={**MODEL, "cache": cache}).model_claim
        assert claim is not None
        assert claim == render(model={**MODEL, "cache": cache}).model_claim
        assert claim["metadata"]["name"] == "helper-models"
        assert claim["spec"] == {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "5Gi"}},
            "storageClassName": "fast",
        }

    def test_a_claim_that_exists_is_used_and_not_made(self) -> None:
        """With claimName the agent has no claim of its own."""
        cache = {"type": "PersistentVolumeClaim", "claimName": "shared"}
        rendered = render(model={**MODEL, "cache": cache})
        assert rendered.model_claim is None
        assert {"name": "models", "persistentVolumeClaim": {"claimName": "shared"}} in pod(rendered.deployment)[
            "volumes"
        ]


class TestAutoscaler:
    def test_it_scales_the_deployment_by_cpu(self) -> None:
        """Bounds, target and behaviour are as given."""
        behavior = {"scaleDown": {"policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}]}}
        hpa = render(
            database=DATABASE,
            autoscaling={
                "minReplicas": 3,
                "maxReplicas": 20,
                "targetCPUUtilizationPercentage": 60,
                "behavior": behavior,
            },
        ).autoscaler
        assert hpa is not None
        assert (hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]) == (3, 20)
        (metric,) = hpa["spec"]["metrics"]
        assert metric["resource"]["target"] == {"type": "Utilization", "averageUtilization": 60}
        assert hpa["spec"]["behavior"] == behavior
        assert hpa["spec"]["scaleTargetRef"]["kind"] == "Deployment"

    def test_queue_depth_is_not_asked_for_yet(self) -> None:
        """A metric that nothing serves is left out: it would keep the autoscaler from scaling down."""
        spec = {"database": DATABASE, "autoscaling": {"maxReplicas": 5}}
        with_depth = {**spec, "autoscaling": {"maxReplicas": 5, "targetQueueDepth": 100}}
        assert render(**with_depth).autoscaler == render(**spec).autoscaler

    def test_there_is_none_unless_asked_for(self) -> None:
        """An agent without spec.autoscaling has no autoscaler."""
        assert render().autoscaler is None


class TestDisruptionBudget:
    @pytest.mark.parametrize(
        ("availability", "budget"),
        [
            ({}, {"maxUnavailable": 1}),
            ({"maxUnavailable": 0}, {"maxUnavailable": 0}),
            ({"maxUnavailable": "25%"}, {"maxUnavailable": "25%"}),
            ({"minAvailable": 2}, {"minAvailable": 2}),
            ({"minAvailable": 0}, {"minAvailable": 0}),
        ],
    )
    def test_it_allows_what_was_asked_for(self, availability: dict[str, Any], budget: dict[str, Any]) -> None:
        """One pod at a time may go by default; a number or share given instead holds, zero too."""
        pdb = shared(replicas=3, database=DATABASE, availability=availability).disruption_budget
        assert pdb is not None
        assert {name: pdb["spec"][name] for name in budget} == budget
        assert ("minAvailable" in pdb["spec"]) != ("maxUnavailable" in pdb["spec"])

    def test_a_single_pod_never_blocks_a_drain(self) -> None:
        """An agent that can't have more than one pod has no budget, whatever it asks for."""
        assert shared(availability={"minAvailable": 1}).disruption_budget is None
        assert shared(autoscaling={"maxReplicas": 1}).disruption_budget is None
        assert shared(database=DATABASE, autoscaling={"maxReplicas": 2}).disruption_budget is not None


class TestNetworkPolicy:
    OWN_NAMESPACE: dict[str, Any] = {"podSelector": {}}  # noqa: RUF012 - read only

    def test_by_default_only_the_own_namespace_may_call(self) -> None:
        """The runtime's port alone is open, to the agent's namespace alone; the pods may call whom they like."""
        rules = policy()
        assert rules["ingress"] == [{"from": [self.OWN_NAMESPACE], "ports": [{"protocol": "TCP", "port": "http"}]}]
        assert rules["policyTypes"] == ["Ingress"]

    def test_more_may_be_let_in(self) -> None:
        """Namespaces by name and peers of any kind are let in beside the own namespace."""
        rules = policy(
            networkPolicy={"allowFromNamespaces": ["istio-system"], "allowFrom": [{"ipBlock": {"cidr": "::/0"}}]}
        )
        own, namespaces, block = rules["ingress"][0]["from"]
        assert own == self.OWN_NAMESPACE
        assert namespaces["namespaceSelector"]["matchExpressions"][0]["values"] == ["istio-system"]
        assert block == {"ipBlock": {"cidr": "::/0"}}

    @pytest.mark.parametrize("kind", ["NodePort", "LoadBalancer"])
    def test_a_service_for_the_outside_is_open_to_it(self, kind: str) -> None:
        """Who asks for a Service that outsiders reach gets one that they reach, unless allowFrom says who may."""
        assert "from" not in policy(service={"type": kind})["ingress"][0]
        closed = policy(service={"type": kind}, networkPolicy={"allowFrom": []})
        assert closed["ingress"][0]["from"] == [self.OWN_NAMESPACE]

    def test_what_pods_may_call_can_be_limited(self) -> None:
        """With allowEgress only what it lists, and DNS, can be called; an empty list leaves DNS alone."""
        dns = {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
        assert policy(networkPolicy={"allowEgress": []})["egress"] == [dns]
        rules = policy(networkPolicy={"allowEgress": [{"ports": [{"port": 443}], "to": [{"podSelector": {}}]}]})
        assert rules["policyTypes"] == ["Ingress", "Egress"]
        assert rules["egress"] == [dns, {"to": [{"podSelector": {}}], "ports": [{"protocol": "TCP", "port": 443}]}]

    def test_it_can_be_turned_off(self) -> None:
        """Where another team writes the policies, the agent has none."""
        assert shared(networkPolicy={"enabled": False}).network_policy is None

    def test_the_operator_may_read_figures_while_it_needs_them(self) -> None:
        """With an analysis the operator's pods, and no others of their namespace, are let in beside those named."""
        metrics = [{"name": "errorRate", "max": 0.1}]
        rules = policy(rollout={"strategy": "BlueGreen", "analysis": {"metrics": metrics}})
        own, operator = rules["ingress"][0]["from"]
        assert own == self.OWN_NAMESPACE
        assert operator["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "supportfleet-operator"}
        assert "supportfleet-system" in operator["namespaceSelector"]["matchLabels"].values()


class TestRevisionScale:
    SPEC: dict[str, Any] = {  # noqa: RUF012 - read only
        "database": DATABASE,
        "model": CLAIM,
        "autoscaling": {"minReplicas": 3, "maxReplicas": 20},
    }

    def test_a_canary_is_scaled_by_an_autoscaler_of_its_own(self) -> None:
        """Each revision's autoscaler names its own Deployment, and begins at what that revision's traffic needs."""
        for revision, pods in (("raaaaaaa", 2), ("rbbbbbbb", 7)):
            rendered = revision_children(agent(**self.SPEC), revision, replicas=pods, autoscaled=True)
            assert rendered.autoscaler is not None
            spec = rendered.autoscaler["spec"]
            assert spec["scaleTargetRef"]["name"] == rendered.deployment["metadata"]["name"] == f"helper-{revision}"
            assert (spec["minReplicas"], spec["maxReplicas"], rendered.first_replicas) == (pods, 20, pods)
            assert "replicas" not in rendered.deployment["spec"]

    def test_more_than_the_most_is_the_most(self) -> None:
        """An autoscaler never gets a minimum above its maximum."""
        rendered = revision_children(agent(**self.SPEC), REV, replicas=30, autoscaled=True)
        assert rendered.autoscaler is not None
        assert rendered.autoscaler["spec"]["minReplicas"] == 20

    def test_a_fixed_number_has_no_autoscaler(self) -> None:
        """A revision that isn't to be autoscaled has exactly the pods it was given."""
        rendered = revision_children(agent(**self.SPEC), REV, replicas=4, autoscaled=False)
        assert rendered.autoscaler is None
        assert rendered.deployment["spec"]["replicas"] == 4

    def test_a_revision_without_pods_keeps_what_it_takes_to_come_back(self) -> None:
        """Scaled down it has a Deployment of 0, its configuration and its Service; nothing would start pods."""
        rendered = revision_children(agent(**self.SPEC), REV, replicas=0, autoscaled=True)
        assert [one["kind"] for one in rendered] == ["ConfigMap", "Service", "Deployment"]
        assert rendered.deployment["spec"]["replicas"] == 0
        running = revision_children(agent(**self.SPEC), REV, replicas=1, autoscaled=True)
        assert running.model_job is not None
        assert running.model_job["metadata"]["name"] == rendered.model_job_name

    def test_the_configuration_of_a_revision_can_not_change(self) -> None:
        """Each revision mounts its own immutable ConfigMap."""
        rendered = render(config={"a": 1})
        assert rendered.config_map["immutable"] is True
        volumes = {one["name"]: one for one in pod(rendered.deployment)["volumes"]}
        assert (
            volumes["config"]["configMap"]["name"] == rendered.config_map["metadata"]["name"] == f"helper-{REV}-config"
        )


class TestRouting:
    ISTIO: dict[str, Any] = {"traffic": {"provider": "Istio"}}  # noqa: RUF012 - read only
    MATCH: dict[str, Any] = {  # noqa: RUF012 - read only
        **ISTIO,
        "rollout": {"strategy": "BlueGreen", "match": [{"headers": {"user-agent": {"regex": ".*beta-tester.*"}}}]},
    }
    HALF_WAY = Routing({"rnew": 30, "rold": 70}, matched="rnew", service="rold")

    def routes(self, routing: Routing, **spec: Any) -> list[dict[str, Any]]:
        rendered = shared(routing, **spec).virtual_service
        assert rendered is not None
        routes: list[dict[str, Any]] = rendered["spec"]["http"]
        return routes

    def test_the_service_follows_the_routing(self) -> None:
        """The agent's Service selects the revision that it is told to, or all of the agent's pods."""
        all_pods = {"app.kubernetes.io/component": "agent", "supportfleet.dev/agent": "helper"}
        assert shared(Routing()).service["spec"]["selector"] == all_pods
        chosen = shared(Routing(service="rold")).service["spec"]["selector"]
        assert chosen == {**all_pods, "supportfleet.dev/revision": "rold"}

    def test_weights_are_exact(self) -> None:
        """Each revision's Service gets its percent; a revision of weight 0 is no destination at all."""
        (weighted,) = self.routes(self.HALF_WAY, **self.ISTIO)
        assert {one["destination"]["host"]: one["weight"] for one in weighted["route"]} == {
            "helper-rnew": 30,
            "helper-rold": 70,
        }
        (weighted,) = self.routes(Routing({"rnew": 0, "rold": 100}), **self.ISTIO)
        assert [one["destination"]["host"] for one in weighted["route"]] == ["helper-rold"]

    def test_matching_requests_come_first_and_go_to_one_revision(self) -> None:
        """Requests that match go to the matched revision whatever its weight, and only once there is one."""
        matched, weighted = self.routes(self.HALF_WAY, **self.MATCH)
        assert matched["match"] == [{"headers": {"user-agent": {"regex": ".*beta-tester.*"}}}]
        assert [(one["destination"]["host"], one["weight"]) for one in matched["route"]] == [("helper-rnew", 100)]
        assert [weighted] == self.routes(Routing({"rnew": 30, "rold": 70}), **self.MATCH)
        assert [weighted] == self.routes(self.HALF_WAY, **self.ISTIO)

    def test_hosts_and_gateways_are_those_given_and_the_mesh(self) -> None:
        """The weights hold for the hosts, through the gateways, and for requests from the mesh to the Service too."""
        traffic = {"provider": "Istio", "hosts": ["a.example.com"], "gateways": ["public"]}
        rendered = shared(self.HALF_WAY, traffic=traffic).virtual_service
        assert rendered is not None
        assert rendered["spec"]["hosts"] == ["a.example.com", "helper"]
        assert rendered["spec"]["gateways"] == ["public", "mesh"]
        alone = shared(self.HALF_WAY, **self.ISTIO).virtual_service
        assert alone is not None
        assert alone["spec"]["hosts"] == ["helper"]
        assert "gateways" not in alone["spec"]
        named = {"provider": "Istio", "hosts": ["helper"], "gateways": ["mesh"]}
        rendered = shared(self.HALF_WAY, traffic=named).virtual_service
        assert rendered is not None
        assert (rendered["spec"]["hosts"], rendered["spec"]["gateways"]) == (["helper"], ["mesh"])

    def test_the_port_is_the_services(self) -> None:
        """Destinations name the port that the revisions' Services have."""
        (weighted,) = self.routes(self.HALF_WAY, **self.ISTIO, service={"port": 8443})
        assert {one["destination"]["port"]["number"] for one in weighted["route"]} == {8443}

    def test_without_istio_or_anything_that_serves_there_is_none(self) -> None:
        """No VirtualService where nothing routes by it, and none that routes to nowhere."""
        assert shared(self.HALF_WAY).virtual_service is None
        assert shared(Routing(), **self.ISTIO).virtual_service is None

    def test_weights_that_lose_requests_are_refused(self) -> None:
        """Weights that don't add up to 100 are a mistake of the operator's, and never rendered."""
        with pytest.raises(ValueError, match="add up to 100"):
            Routing({"rnew": 30, "rold": 60})
